/* Metrics (see metrics.h). Invariant: histogram buckets are kept apart and summed when printed. */
#include "gateway/metrics.h"
#include "gateway/route.h"
#include "shared/json.h"

#include <stdio.h>

enum kind { COUNTER, GAUGE, HISTOGRAM };
enum label { NONE, PATH, STATUS };

static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                1,     2.5,    5,     10,   30,    60,   120, 300};
enum { N_BOUNDS = COUNT_OF(bounds) };

static const int statuses[] = {0,   200, 204, 400, 401, 403, 404, 405, 408,
                               413, 414, 417, 429, 431, 500, 503, 505};
enum { N_LABELS = MAX(ROUTE_COUNT, COUNT_OF(statuses)) };

static const struct {
    enum kind kind;
    const char *name;
    enum label label;
    const char *help;
} infos[METRIC_COUNT] = {
#define METRIC(kind, NAME, name, label, help) {kind, name, label, help},
#include "gateway/metrics.def"
#undef METRIC
};

static uint64_t values[METRIC_COUNT][N_LABELS];

#define METRIC_COUNTER(NAME)
#define METRIC_GAUGE(NAME)
#define METRIC_HISTOGRAM(NAME) HISTOGRAM_##NAME,
enum histogram_index {
#define METRIC(kind, NAME, name, label, help) METRIC_##kind(NAME)
#include "gateway/metrics.def"
#undef METRIC
    HISTOGRAM_COUNT
};
#undef METRIC_COUNTER
#undef METRIC_GAUGE
#undef METRIC_HISTOGRAM
#define METRIC_COUNTER(NAME) 0
#define METRIC_GAUGE(NAME) 0
#define METRIC_HISTOGRAM(NAME) HISTOGRAM_##NAME
static const size_t histogram_of[METRIC_COUNT] = {
#define METRIC(kind, NAME, name, label, help) METRIC_##kind(NAME),
#include "gateway/metrics.def"
#undef METRIC
};

static struct {
    uint64_t buckets[N_BOUNDS + 1];
    uint64_t count;
    double sum;
} histograms[HISTOGRAM_COUNT][N_LABELS];

static size_t n_labels(enum metric m)
{
    return infos[m].label == PATH     ? (size_t)ROUTE_COUNT
           : infos[m].label == STATUS ? COUNT_OF(statuses)
                                      : 1;
}

void metrics_add(enum metric m, size_t label, uint64_t n)
{
    ASSERT(label < n_labels(m));
    values[m][label] += n;
}

void metrics_set(enum metric m, uint64_t value)
{
    values[m][0] = value;
}

void metrics_observe(enum metric m, size_t label, double seconds)
{
    ASSERT(infos[m].kind == HISTOGRAM && label < n_labels(m));
    size_t b = 0;
    while (b < N_BOUNDS && seconds > bounds[b]) {
        b++;
    }
    histograms[histogram_of[m]][label].buckets[b]++;
    histograms[histogram_of[m]][label].count++;
    histograms[histogram_of[m]][label].sum += seconds;
}

size_t metrics_status(int http_status)
{
    for (size_t i = 1; i < COUNT_OF(statuses); i++) {
        if (statuses[i] == http_status) {
            return i;
        }
    }
    return 0;
}

/* {path="/health"} or {path="/health",le="0.1"}; nothing for neither. */
static void put_labels(struct buf *b, enum metric m, size_t label, const char *le)
{
    if (infos[m].label == NONE && !le) {
        return;
    }
    buf_char(b, '{');
    if (infos[m].label == PATH) {
        buf_printf(b, "path=\"%s\"", route_path((enum route_id)label));
    } else if (infos[m].label == STATUS && label > 0) {
        buf_printf(b, "status=\"%d\"", statuses[label]);
    } else if (infos[m].label == STATUS) {
        buf_str(b, "status=\"other\"");
    }
    if (le) {
        buf_printf(b, "%sle=\"%s\"", infos[m].label == NONE ? "" : ",", le);
    }
    buf_char(b, '}');
}

static void put_histogram(struct buf *b, enum metric m, size_t label)
{
    const char *name = infos[m].name;
    size_t h = histogram_of[m];
    uint64_t sum = 0;
    if (infos[m].label != NONE && histograms[h][label].count == 0) {
        return;
    }
    for (size_t i = 0; i <= N_BOUNDS; i++) {
        char le[32] = "+Inf";
        if (i < N_BOUNDS) {
            snprintf(le, sizeof(le), "%g", bounds[i]);
        }
        sum += histograms[h][label].buckets[i];
        buf_printf(b, "%s_bucket", name);
        put_labels(b, m, label, le);
        buf_printf(b, " %llu\n", (unsigned long long)sum);
    }
    buf_printf(b, "%s_sum", name);
    put_labels(b, m, label, NULL);
    buf_char(b, ' ');
    json_put_number(b, histograms[h][label].sum);
    buf_printf(b, "\n%s_count", name);
    put_labels(b, m, label, NULL);
    buf_printf(b, " %llu\n", (unsigned long long)histograms[h][label].count);
}

void metrics_print(struct buf *ret)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        enum metric m = (enum metric)i;
        buf_printf(ret, "# HELP %s %s\n# TYPE %s %s\n", infos[m].name, infos[m].help, infos[m].name,
                   kinds[infos[m].kind]);
        for (size_t label = 0; label < n_labels(m); label++) {
            if (infos[m].kind == HISTOGRAM) {
                put_histogram(ret, m, label);
            } else if (infos[m].label == NONE || values[m][label]) {
                buf_str(ret, infos[m].name);
                put_labels(ret, m, label, NULL);
                buf_printf(ret, " %llu\n", (unsigned long long)values[m][label]);
            }
        }
    }
}
