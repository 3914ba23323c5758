/* What this machine can do at most, measured: the ceiling that rates are compared with. */
#ifndef KERNELS_CPU_PEAK_H
#define KERNELS_CPU_PEAK_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"
#include "shared/base.h"

/* A plain loop over much more memory than the caches hold. */
struct peak_read {
    struct pool *pool; /* borrowed */
    uint64_t *data;    /* owned */
    uint64_t *sums;    /* owned; per thread, 64 bytes apart */
};

/* Takes 256 MB and about 0.1 s. Errors: -ENOMEM. */
MUST_CHECK int peak_read_open(struct peak_read *r, struct pool *pool);
void peak_read_close(struct peak_read *r);
/* Bytes per second that the pool reads now: the median of a few passes, together about 0.05 s. What the
 * memory gives changes from one second to the next where others use it too. */
double peak_read_now(const struct peak_read *r);
/* The same, with memory taken for it. NaN without memory. */
double peak_read_rate(struct pool *pool);
/* Operations per second (a multiplication and an addition each count) of 8-bit dot products between
 * registers, all threads of the pool, with the best instruction of the ISA. Takes about 0.1 s. */
double peak_dot_rate(struct pool *pool, enum isa isa);
/* The same at a first look, in less than a millisecond. */
double peak_dot_glance(struct pool *pool, enum isa isa);

#endif
