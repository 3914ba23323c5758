/* Runs kernels of kernels/hip on the CPU, every thread of a block as a fiber, and says where they
 * go wrong.
 *
 * What is found: waves whose lanes stand at different operations; barriers that not all threads
 * reach; more shared memory than there is. With the checker (emulator_has_checker: the kernels are
 * compiled with the hooks that gcc and clang insert for -fsanitize=thread, which this rig
 * implements itself) also, of every single access: outside every buffer, misaligned, reading what
 * nobody wrote, and two threads meeting at a byte, one of them writing, without a barrier (or,
 * between blocks, at all) in between. Under AddressSanitizer the guard zones of buffers and shared
 * memory are poisoned instead.
 *
 * Compiled with EMULATOR_PLAIN, and kernels without the hooks, it judges no access and is fast.
 *
 * One thread only. Buffers lie between guard zones; their bytes start out as not written. */
#ifndef TESTS_RIG_EMULATOR_H
#define TESTS_RIG_EMULATOR_H

#include "kernels/hip/gpu.h"
#include "shared/base.h"

#include <stdio.h>

enum { EMULATOR_SHARED_BYTES = 65536, EMULATOR_MAX_THREADS = 1024 };

bool emulator_has_checker(void);

/* A buffer of n bytes, aligned to 256 but for `skew` bytes added. Freed by emulator_free. */
void *emulator_alloc(size_t n_bytes, size_t skew);
void emulator_free(void *buffer);
/* Copies into a buffer, or a part of it, which then counts as written; and out of it, where reading
 * what no kernel wrote is a fault of the test and ends it. */
void emulator_upload(void *buffer, const void *data, size_t n_bytes);
void emulator_download(void *data, const void *buffer, size_t n_bytes);

/* Writes every buffer, as tests/rig/code_objects reads them: their number; of each its address,
 * size and bytes. */
void emulator_dump(FILE *to);

/* Runs a grid; false with a fault. Blocks, waves and lanes run in an order drawn from the seed, 0:
 * ascending. */
struct emulator_grid {
    int x, y, z; /* blocks */
    uint64_t seed;
    int matrix; /* 11 or 12, see gpu_host_matrix; 0: 11 */
};
MUST_CHECK bool emulator_launch(const struct gpu_host_kernel *kernel, const struct emulator_grid *g,
                                const void *args, size_t args_bytes);
/* The last fault, as text: kernel, block, thread, what, where. */
const char *emulator_fault(void);

#endif
