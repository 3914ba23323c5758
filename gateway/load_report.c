/* Counts and times of a load (see load_report.h). Times are kept one by one, so percentiles are
 * exact; memory grows by 16 bytes a token. */
#include "gateway/load_report.h"
#include "shared/base.h"
#include "shared/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct series { /* growing list of nanoseconds */
    uint64_t *v;
    size_t n, cap;
};

enum { INTERVAL, RUN, N_SPANS };

static struct series series[N_SPANS][REPORT_N_TIMES];
static uint64_t counts[N_SPANS][REPORT_N_COUNTS];

static const char *const time_names[REPORT_N_TIMES] = {"first_token_ms", "between_tokens_ms",
                                                       "request_ms"};
static const char *const count_names[REPORT_N_COUNTS] = {"started",       "requests",    "left",
                                                         "refused",       "failed",      "tokens",
                                                         "prompt_tokens", "left_tokens", "stalls"};

void report_add(enum report_count c, uint64_t n)
{
    counts[INTERVAL][c] += n;
    counts[RUN][c] += n;
}

uint64_t report_count(enum report_count c)
{
    return counts[RUN][c];
}

void report_time(enum report_time t, uint64_t ns)
{
    for (int span = 0; span < N_SPANS; span++) {
        struct series *s = &series[span][t];
        if (s->n == s->cap) {
            s->cap = s->cap ? 2 * s->cap : 1024;
            s->v = realloc(s->v, s->cap * sizeof(*s->v));
            if (!s->v) {
                struct err e = {.code = -ENOMEM};
                exit(options_fail("bench", &e));
            }
        }
        s->v[s->n++] = ns;
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Median, p90, p99 in milliseconds; false without values. */
static bool percentiles(struct series *s, double ret[3])
{
    static const double ps[] = {0.5, 0.9, 0.99};
    if (s->n == 0) {
        return false;
    }
    qsort(s->v, s->n, sizeof(*s->v), by_value);
    for (size_t i = 0; i < COUNT_OF(ps); i++) {
        ret[i] = (double)s->v[MIN((size_t)(ps[i] * (double)s->n), s->n - 1)] * 1e-6;
    }
    return true;
}

static void put_json(int span, const char *name, double seconds)
{
    printf("{\"span\":\"%s\",\"seconds\":%.3f,\"tokens_per_s\":%.2f", name, seconds,
           (double)(counts[span][REPORT_TOKENS] + counts[span][REPORT_LEFT_TOKENS]) / seconds);
    for (size_t i = 0; i < REPORT_N_COUNTS; i++) {
        printf(",\"%s\":%" PRIu64, count_names[i], counts[span][i]);
    }
    for (size_t i = 0; i < REPORT_N_TIMES; i++) {
        double p[3];
        if (percentiles(&series[span][i], p)) {
            printf(",\"%s\":[%.3f,%.3f,%.3f]", time_names[i], p[0], p[1], p[2]);
        } else {
            printf(",\"%s\":null", time_names[i]);
        }
    }
    printf("}\n");
    fflush(stdout);
}

void report_interval(double seconds)
{
    put_json(INTERVAL, "interval", seconds);
    memset(counts[INTERVAL], 0, sizeof(counts[INTERVAL]));
    for (size_t i = 0; i < REPORT_N_TIMES; i++) {
        series[INTERVAL][i].n = 0;
    }
}

void report_total(double seconds)
{
    put_json(RUN, "run", seconds);
}

void report_table(double seconds)
{
    const uint64_t *c = counts[RUN];
    printf("%.1f s: %" PRIu64 " requests finished, %" PRIu64 " failed, %" PRIu64
           " refused, %" PRIu64 " left early\n",
           seconds, c[REPORT_FINISHED], c[REPORT_FAILED], c[REPORT_REFUSED], c[REPORT_LEFT]);
    printf("throughput: %.1f tokens/s out, %.1f tokens/s in\n",
           (double)(c[REPORT_TOKENS] + c[REPORT_LEFT_TOKENS]) / seconds,
           (double)c[REPORT_PROMPT_TOKENS] / seconds);
    printf("%-20s %10s %10s %10s\n", "", "median", "p90", "p99");
    for (size_t i = 0; i < REPORT_N_TIMES; i++) {
        double p[3];
        if (percentiles(&series[RUN][i], p)) {
            printf("%-20s %10.2f %10.2f %10.2f\n", time_names[i], p[0], p[1], p[2]);
        }
    }
}
