/* Philox4x32-10, a counter-based generator (Salmon et al., SC'11): the same key and counter give
 * the same numbers for ever, so sampling has no state to lose. */
#ifndef SHARED_PHILOX_H
#define SHARED_PHILOX_H

#include "shared/base.h"

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret[4]);

/* Uniform in [0,1) with 53 bits, for (seed, choice, position); draw numbers the draws made
 * there. */
double philox_uniform(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw);

#endif
