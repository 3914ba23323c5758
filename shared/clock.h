/* Clocks. Durations and deadlines use CLOCK_MONOTONIC (it stops in suspend, so a laptop's sleep is
 * no false alarm); dates shown to people use CLOCK_REALTIME. */
#ifndef SHARED_CLOCK_H
#define SHARED_CLOCK_H

#include "shared/base.h"

uint64_t clock_ns(void);      /* monotonic */
int64_t clock_unix_s(void);   /* seconds since 1970 */
uint64_t clock_unix_ns(void); /* nanoseconds since 1970 */
static inline uint64_t clock_ms(void)
{
    return clock_ns() / 1000000u;
}

#endif
