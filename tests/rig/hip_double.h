/* A stand-in for the HIP runtime over the emulator: a library by the name of HIP's, found through
 * LD_LIBRARY_PATH, in which the kernels of kernels/hip are built in. Programs that load it compute
 * with the same kernels as on a card, every thread of them run on the CPU. There are two builds:
 *   tests/hip_double          fast: nothing is checked
 *   tests/hip_double_checked  every access of every kernel is judged (tests/rig/emulator.h); a
 *                             fault is told on stderr and is from then on HIP's sticky error 700
 * "Device memory" is host memory, whose pages are closed to the host but in copies and kernels.
 * Device 0 is a processor's own graphics (0000:0e:00.0), device 1 the card, a gfx1100 at
 * 0000:03:00.0. Kernels run when they are launched; what goes wrong with them shows at the next
 * query, as on a card. Code object files must be there, but what is in them does not matter.
 *
 * The environment says what goes wrong:
 *   HIP_DOUBLE        rules, separated by ';'
 *   HIP_DOUBLE_FILE   a file with such rules, looked at again before every launch: it may appear
 *                     and change while the program runs. It is deleted when its rules have all
 *                     been used up, so that the next process is healthy.
 *   HIP_DOUBLE_VRAM   MiB of device memory in all, instead of 20480
 *   HIP_DOUBLE_USED   MiB of it that others use, instead of 5120
 *   HIP_DOUBLE_CARD   root of a made-up machine (tests/e2e/machine.py), whose sysfs tells at once
 *                     what this process holds and what it and others (bytes in the file "others")
 *                     use; "held": "PID BYTES" of whoever asked last; the file "lock" is held
 *                     (flock) meanwhile
 *   HIP_DOUBLE_LOG    a file to which a line is added for each "malloc BYTES", "free BYTES", "load"
 *                     (of a module), "capture", "instantiate", "graph" (a launch of one), "fetch
 *                     BYTES" (a copy of a page or more to the host), and when a module is unloaded
 *                     for every kernel that ran "kernel NAME TIMES"
 * A rule is FAULT[@PLACE][:N][*M]: at the N-th (1 without it) time that PLACE is reached, and the
 * M - 1 times after it (M = 1 without it; *0: always). PLACE is a kernel's name, or that of a
 * function without "hip" (Malloc, GraphLaunch); without it any kernel. Faults:
 *   abort       the runtime says "Memory access fault by GPU" and aborts, as ROCm 5 and 6 do
 *   sticky      error 700 from the next query and from every call after it, as ROCm 7 does
 *   failure     the same with 719
 *   hang        nothing is ever finished again
 *   slow=MS     what is in its stream is finished that much later
 *   nan         the first number that the kernel writes is not a number
 *   wrong       the first number that the kernel writes is another one
 *   oom         the call returns out of memory (of a function)
 *   error=N     the call returns that error (of a function)
 *   corrupt     one bit of what is copied from the device is another one (of Memcpy and
 *               MemcpyAsync)
 *   hidden      the card is not among the devices
 *   abort-load  the library aborts when it is loaded */
#ifndef TESTS_RIG_HIP_DOUBLE_H
#define TESTS_RIG_HIP_DOUBLE_H

#include <stdbool.h>
#include <stddef.h>

enum { HIP_DOUBLE_MAX_RULES = 16 };

/* What the rules say about this place, which counts as reached; NULL: nothing. */
struct hip_double_fault {
    enum {
        HIP_DOUBLE_ABORT,
        HIP_DOUBLE_STICKY,
        HIP_DOUBLE_FAILURE,
        HIP_DOUBLE_HANG,
        HIP_DOUBLE_SLOW,
        HIP_DOUBLE_NAN,
        HIP_DOUBLE_WRONG,
        HIP_DOUBLE_OOM,
        HIP_DOUBLE_ERROR,
        HIP_DOUBLE_CORRUPT,
        HIP_DOUBLE_HIDDEN,
        HIP_DOUBLE_ABORT_LOAD
    } kind;
    long number;
};
const struct hip_double_fault *hip_double_at(const char *place, int is_kernel);

/* hip_double_kernel.c: makes the first number that the kernel wrote NaN, or another one. */
struct gpu_host_kernel;
void hip_double_spoil(const struct gpu_host_kernel *kernel, const void *args, bool is_nan);
void hip_double_count(const struct gpu_host_kernel *kernel);
/* Calls with "kernel NAME" and how often it was counted. */
void hip_double_each(void (*note)(const char *what, size_t n));

#endif
