/* What happened to requests, as spans in a bounded ring: the newest stand, the oldest go. One
 * owner, the token loop; recording costs a few stores. */
#ifndef WORKER_TRACE_H
#define WORKER_TRACE_H

#include "shared/buf.h"

enum trace_kind {
    TRACE_REQUEST, /* from arrival to the terminal event; value: tokens made */
    TRACE_QUEUE,   /* until computing began; value: prompt tokens taken from the prefix cache */
    TRACE_PREFILL, /* one chunk; value: its tokens */
    TRACE_DECODE,  /* one step in 64; value: sequences in it */
    TRACE_PREEMPT, /* a moment; value: tokens that may have to be computed again */
    TRACE_KINDS
};

enum { TRACE_SPANS = 4096 };

struct trace_span {
    enum trace_kind kind;
    uint64_t request; /* 0: of no single one */
    uint64_t start_ns, end_ns; /* monotonic */
    int64_t value;
    const char *way; /* how it was computed (engine_way); NULL: nothing was */
};

struct trace {
    uint64_t n; /* recorded since the start */
    uint64_t run; /* random: this process's part of trace ids */
    struct trace_span spans[TRACE_SPANS];
};

void trace_init(struct trace *t);
/* t may be NULL. */
void trace_add(struct trace *t, enum trace_kind kind, uint64_t request, uint64_t start_ns,
               uint64_t end_ns, int64_t value);
/* The same of a step; way outlives the trace. */
void trace_add_step(struct trace *t, enum trace_kind kind, uint64_t request, uint64_t start_ns,
                    uint64_t end_ns, int64_t value, const char *way);
/* All of it as OTLP/JSON (opentelemetry-proto, ExportTraceServiceRequest): a trace a request.
 * devices: a resource attribute, where the models are computed. */
void trace_print(const struct trace *t, const char *devices, struct buf *b);

#endif
