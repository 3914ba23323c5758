/* One counter (see grammar_budget.h). Invariant: it is never above GRAMMAR_BUDGET_BYTES. */
#include "worker/grammar/grammar_budget.h"

#include <stdatomic.h>

static _Atomic size_t taken;

bool grammar_budget_take(size_t bytes)
{
    size_t before = atomic_load_explicit(&taken, memory_order_relaxed);
    do {
        if (bytes > GRAMMAR_BUDGET_BYTES - before) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&taken, &before, before + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void grammar_budget_give(size_t bytes)
{
    size_t before = atomic_fetch_sub_explicit(&taken, bytes, memory_order_relaxed);
    ASSERT(before >= bytes);
}

int grammar_budget_refuse(struct err *e)
{
    return err_set(e, ERR_BUSY,
                   "requests with a grammar or schema take %d MB together, which is all they may",
                   GRAMMAR_BUDGET_BYTES >> 20);
}

bool grammar_budget_is_tight(void)
{
    return atomic_load_explicit(&taken, memory_order_relaxed) > GRAMMAR_BUDGET_BYTES / 4 * 3;
}
