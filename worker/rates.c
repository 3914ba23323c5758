/* Rates of devices (see rates.h). The thread that loads; reads sysfs, which may block like any of
 * its reads. */
#include "worker/rates.h"

#include "kernels/cpu/peak.h"
#include "safety/topology.h"
#include "shared/num.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By the target's first digits, as published for its most common card: GB/s of memory, 8-bit
 * operations of a compute unit and clock (dot4: 512; with matrix units 1024), GHz, compute
 * units. */
static const struct {
    const char *gfx;
    double gigabytes, ops_per_clock, gigahertz;
    unsigned n_cus;
} kinds[] = {
    {"gfx1030", 512, 512, 2.1, 60},  {"gfx1031", 384, 512, 2.4, 40},
    {"gfx1032", 224, 512, 2.4, 28},  {"gfx1034", 144, 512, 2.6, 16},
    {"gfx103", 60, 512, 2.2, 6},     {"gfx1100", 800, 1024, 2.4, 84},
    {"gfx1101", 624, 1024, 2.4, 60}, {"gfx1102", 288, 1024, 2.6, 32},
    {"gfx1103", 80, 1024, 2.7, 12},  {"gfx115", 200, 1024, 2.8, 40},
    {"gfx1200", 320, 2048, 2.8, 32}, {"gfx1201", 640, 2048, 2.9, 64},
    {"", 800, 1024, 2.4, 84},
};

static const double link_guess = 12e9; /* PCIe 3.0 x16, or 4.0 x8 */

void rates_measure_cpu(struct rates *r, struct pool *pool, enum isa isa)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static double bytes, ops;
    pthread_mutex_lock(&mutex);
    if (bytes == 0) {
        double read = peak_read_rate(pool), dot = peak_dot_rate(pool, isa);
        bytes = isnan(read) ? 10e9 : read;
        ops = isnan(dot) ? 100e9 : dot;
    }
    r->cpu_bytes = bytes;
    r->cpu_ops = ops;
    pthread_mutex_unlock(&mutex);
}

/* "16.0 GT/s PCIe" and "16": bytes a second, less what packets cost. */
static double link_of(const char *root, const char *pci)
{
    char path[128], speed[32];
    uint64_t width;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/max_link_speed", pci);
    if (topology_text(root, path, speed, sizeof speed) < 0) {
        return 0;
    }
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/max_link_width", pci);
    if (topology_number(root, path, &width) < 0 || width > 64) {
        return 0;
    }
    double rate = strtod(speed, NULL);
    return rate > 0 && rate < 1000 ? rate * 1e9 / 8 * (double)width * 0.8 : 0;
}

void rates_read_gpu(struct rates *r, const char *root, const char *gfx, const char *pci,
                    unsigned n_cus)
{
    size_t k = 0;
    while (strncmp(kinds[k].gfx, gfx, strlen(kinds[k].gfx)) != 0) {
        k++;
    }
    double cus = n_cus > 0 && n_cus < 1024 ? n_cus : kinds[k].n_cus;
    r->gpu_bytes = kinds[k].gigabytes * 1e9;
    r->gpu_ops = kinds[k].ops_per_clock * kinds[k].gigahertz * 1e9 * cus;
    double link = *pci ? link_of(root, pci) : 0;
    r->link_bytes = link > 0 ? link : link_guess;
}
