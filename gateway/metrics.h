/* Metrics of the gateway, declared in metrics.def, printed as Prometheus text (exposition format
 * 0.0.4). Values are static; one thread, the loop's. */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include "shared/buf.h"

enum metric {
#define METRIC(kind, NAME, name, label, help) METRIC_##NAME,
#include "gateway/metrics.def"
#undef METRIC
    METRIC_COUNT
};

/* label: index of the label's value (an enum route_id for PATH, metrics_status() for STATUS), 0
 * without label. */
void metrics_add(enum metric m, size_t label, uint64_t n);
void metrics_set(enum metric m, uint64_t value);
void metrics_observe(enum metric m, size_t label, double seconds);
size_t metrics_status(int http_status);

void metrics_print(struct buf *ret);

#endif
