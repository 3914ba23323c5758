/* The ring of spans and its form in JSON (see trace.h). Token loop; never blocks. */
#include "worker/trace.h"
#include "shared/clock.h"
#include "shared/json.h"

#include <string.h>
#include <sys/random.h>

static const struct {
    const char *name, *value;
} kinds[TRACE_KINDS] = {
    [TRACE_REQUEST] = {"request", "completion_tokens"},
    [TRACE_QUEUE] = {"queue", "cached_tokens"},
    [TRACE_PREFILL] = {"prefill", "tokens"},
    [TRACE_DECODE] = {"decode", "sequences"},
    [TRACE_PREEMPT] = {"preempt", "tokens"},
};

void trace_init(struct trace *t)
{
    t->n = 0;
    if (getrandom(&t->run, sizeof(t->run), GRND_NONBLOCK) != sizeof(t->run)) {
        t->run = clock_ns();
    }
}

void trace_add(struct trace *t, enum trace_kind kind, uint64_t request, uint64_t start_ns,
               uint64_t end_ns, int64_t value)
{
    trace_add_step(t, kind, request, start_ns, end_ns, value, NULL);
}

void trace_add_step(struct trace *t, enum trace_kind kind, uint64_t request, uint64_t start_ns,
                    uint64_t end_ns, int64_t value, const char *way)
{
    if (t) {
        t->spans[t->n++ % TRACE_SPANS] = (struct trace_span){.kind = kind,
                                                             .request = request,
                                                             .start_ns = start_ns,
                                                             .end_ns = end_ns,
                                                             .value = value,
                                                             .way = way};
    }
}

/* Ids must not be zero; a request's own span is the parent of its others. */
static uint64_t root_id(const struct trace *t, uint64_t request)
{
    return (t->run ^ request << 1) | 1;
}

static void put_span(const struct trace *t, uint64_t at, uint64_t unix_ns, struct buf *b)
{
    const struct trace_span *s = &t->spans[at % TRACE_SPANS];
    bool is_root = s->kind == TRACE_REQUEST;
    uint64_t id = is_root ? root_id(t, s->request) : (t->run + at * 2) & ~(uint64_t)1;
    buf_printf(b, "{\"traceId\":\"%016llx%016llx\",\"spanId\":\"%016llx\",",
               (unsigned long long)(t->run | 1), (unsigned long long)s->request,
               (unsigned long long)id);
    if (!is_root && s->request) {
        buf_printf(b, "\"parentSpanId\":\"%016llx\",",
                   (unsigned long long)root_id(t, s->request));
    }
    buf_printf(b,
               "\"name\":\"%s\",\"kind\":1,\"startTimeUnixNano\":\"%llu\",\"endTimeUnixNano\":"
               "\"%llu\",\"attributes\":[{\"key\":\"%s\",\"value\":{\"intValue\":\"%lld\"}}",
               kinds[s->kind].name, (unsigned long long)(unix_ns + s->start_ns),
               (unsigned long long)(unix_ns + s->end_ns), kinds[s->kind].value,
               (long long)s->value);
    if (s->way) {
        buf_printf(b, ",{\"key\":\"way\",\"value\":{\"stringValue\":\"%s\"}}", s->way);
    }
    buf_str(b, "]}");
}

void trace_print(const struct trace *t, const char *devices, struct buf *b)
{
    uint64_t unix_ns = clock_unix_ns() - clock_ns();
    uint64_t n = MIN(t->n, (uint64_t)TRACE_SPANS);
    buf_str(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\","
               "\"value\":{\"stringValue\":\"rocmforge\"}},{\"key\":\"service.version\",\"value\":"
               "{\"stringValue\":\"" ROCMFORGE_VERSION
               "\"}},{\"key\":\"rocmforge.devices\",\"value\":{"
               "\"stringValue\":");
    json_put_string(b, devices, strlen(devices));
    buf_str(b, "}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"rocmforge-worker\"},\"spans\":[");
    for (uint64_t i = t->n - n; i < t->n; i++) {
        buf_str(b, i > t->n - n ? "," : "");
        put_span(t, i, unix_ns, b);
    }
    buf_str(b, "]}]}]}");
}
