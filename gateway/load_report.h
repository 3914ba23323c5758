/* What load on a server measured: counts and times, of the current interval and of the whole
 * run. */
#ifndef GATEWAY_LOAD_REPORT_H
#define GATEWAY_LOAD_REPORT_H

#include <stdbool.h>
#include <stdint.h>

enum report_time { REPORT_FIRST, REPORT_BETWEEN, REPORT_TOTAL, REPORT_N_TIMES };

/* A request that was started is finished, left (by its client, on purpose), refused (429, 503) or
 * failed; or still running. */
enum report_count {
    REPORT_STARTED,
    REPORT_FINISHED,
    REPORT_LEFT,
    REPORT_REFUSED,
    REPORT_FAILED,
    REPORT_TOKENS,        /* of finished requests: what the server counted */
    REPORT_PROMPT_TOKENS, /* the same */
    REPORT_LEFT_TOKENS,   /* events that clients saw that left */
    REPORT_STALLS,        /* times that this program was kept from running for long */
    REPORT_N_COUNTS
};

void report_add(enum report_count c, uint64_t n);
uint64_t report_count(enum report_count c); /* of the whole run */
void report_time(enum report_time t, uint64_t ns);

/* One line of JSON about the interval, which ends; or about the whole run. */
void report_interval(double seconds);
void report_total(double seconds);
/* The whole run for people. */
void report_table(double seconds);

#endif
