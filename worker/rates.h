/* How fast this machine's devices are, for the choice of who computes what (worker/place.h). */
#ifndef WORKER_RATES_H
#define WORKER_RATES_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"

struct rates { /* a second; 0: not known */
    double cpu_bytes, cpu_ops; /* read from memory; 8-bit operations, a multiplication and an
                                  addition each counted */
    double gpu_bytes, gpu_ops;
    double link_bytes; /* between the memories of the two */
};

/* The processor's, measured (kernels/cpu/peak.h) by the first call in this process, which takes
 * half a second. Drives the pool. */
void rates_measure_cpu(struct rates *r, struct pool *pool, enum isa isa);
/* The card's, from what the driver says of it (clocks, width of its memory and of its link) below
 * root; what is not said there is taken from a card of its kind. gfx "": any; pci "": none, so of
 * the kind only. */
void rates_read_gpu(struct rates *r, const char *root, const char *gfx, const char *pci,
                    unsigned n_cus);

#endif
