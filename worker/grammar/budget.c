/* One counter (see budget.h). Invariant: it is never above BUDGET_BYTES. */
#include "worker/grammar/budget.h"

#include <stdatomic.h>

static _Atomic size_t taken;

bool budget_take(size_t bytes)
{
    size_t before = atomic_load_explicit(&taken, memory_order_relaxed);
    do {
        if (bytes > BUDGET_BYTES - before) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&taken, &before, before + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void budget_give(size_t bytes)
{
    size_t before = atomic_fetch_sub_explicit(&taken, bytes, memory_order_relaxed);
    ASSERT(before >= bytes);
}

int budget_refuse(struct err *e)
{
    return err_set(e, ERR_BUSY, "requests with a grammar or schema take %d MB together, which is all "
                                "they may", BUDGET_BYTES >> 20);
}

bool budget_is_tight(void)
{
    return atomic_load_explicit(&taken, memory_order_relaxed) > BUDGET_BYTES / 4 * 3;
}
