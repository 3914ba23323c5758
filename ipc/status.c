/* The status page (see status.h for who writes what). */
#include "ipc/status.h"
#include "shared/clock.h"

#include <stdarg.h>
#include <stdio.h>

#define STATUS_MAGIC 0x73757461747366u /* "fstatus" */

void status_format(void *map, uint64_t epoch)
{
    struct status_page *s = map;
    s->magic = STATUS_MAGIC;
    s->epoch = epoch;
    atomic_store(&s->beat_ns, clock_ns());
}

struct status_page *status_attach(void *map, size_t bytes, uint64_t epoch)
{
    struct status_page *s = map;
    return bytes == STATUS_PAGE_BYTES && s->magic == STATUS_MAGIC && s->epoch == epoch ? s : NULL;
}

void status_keep_pace(const struct status_page *from, struct status_pace *ret)
{
    *ret = (struct status_pace){.device = atomic_load(&from->pace_device),
                                .bytes = atomic_load(&from->pace_bytes),
                                .ops = atomic_load(&from->pace_ops)};
}

void status_pass_pace(const struct status_pace *kept, struct status_page *to)
{
    atomic_store(&to->pace_device, kept->device);
    atomic_store(&to->pace_bytes, kept->bytes);
    atomic_store(&to->pace_ops, kept->ops);
}

void status_beat(struct status_page *s, enum status_phase phase)
{
    atomic_store_explicit(&s->phase, (uint32_t)phase, memory_order_relaxed);
    atomic_store_explicit(&s->beat_ns, clock_ns(), memory_order_relaxed);
    atomic_fetch_add_explicit(&s->beat, 1, memory_order_release);
}

void status_requests(struct status_page *s, const uint64_t *ids, size_t n)
{
    n = MIN(n, (size_t)STATUS_REQUESTS);
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit(&s->requests[i], ids[i], memory_order_relaxed);
    }
    atomic_store_explicit(&s->n_requests, (uint32_t)n, memory_order_release);
}

void status_doing(struct status_page *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    atomic_store_explicit(&s->doing_len, 0, memory_order_relaxed);
    int n = vsnprintf(s->doing, sizeof(s->doing), fmt, ap);
    va_end(ap);
    uint32_t len = n < 0 ? 0 : MIN((uint32_t)n, (uint32_t)sizeof(s->doing) - 1);
    atomic_store_explicit(&s->doing_len, len, memory_order_release);
}

void status_last_words(struct status_page *s, const char *fmt, ...)
{
    if (atomic_load_explicit(&s->words_len, memory_order_relaxed)) {
        return; /* the first cause is the one that matters */
    }
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s->words, sizeof(s->words), fmt, ap);
    va_end(ap);
    uint32_t len = n < 0 ? 0 : MIN((uint32_t)n, (uint32_t)sizeof(s->words) - 1);
    atomic_store_explicit(&s->words_len, len, memory_order_release);
}

const char *status_phase_name(uint32_t phase)
{
    static const char *const names[STATUS_PHASE_COUNT] = {
        "starting", "preflight", "loading", "idle", "prefill", "decode", "draining"};
    return phase < STATUS_PHASE_COUNT ? names[phase] : "unknown";
}
