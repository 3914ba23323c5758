/* What this machine can do at most, measured: the ceiling that rates are compared with. */
#ifndef KERNELS_CPU_PEAK_H
#define KERNELS_CPU_PEAK_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"

/* Bytes per second that the pool reads from memory in a plain loop over much more than the caches hold. NaN
 * without memory. Takes about 0.3 s. */
double peak_read_rate(struct pool *pool);
/* Operations per second (a multiplication and an addition each count) of 8-bit dot products between registers, all
 * threads of the pool, with the best instruction of the ISA. Takes about 0.1 s. */
double peak_dot_rate(struct pool *pool, enum isa isa);
/* The same at a first look, in less than a millisecond. */
double peak_dot_glance(struct pool *pool, enum isa isa);

#endif
