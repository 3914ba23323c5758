/* The double of the HIP runtime (see hip_double.h): what goes wrong with it, devices, streams and
 * events. */
#include "tests/rig/hip_double_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct hip_double_state hip_double = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- faults ----------------------------------------------------------------------------------- */

uint64_t hip_double_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void hip_double_note(const char *what, size_t bytes)
{
    const char *path = getenv("HIP_DOUBLE_LOG");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (f) {
        fprintf(f, "%s %zu\n", what, bytes);
        fclose(f);
    }
}

void hip_double_die(void)
{
    fprintf(stderr,
            "Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x7f0000001000. "
            "Reason: Page not present or supervisor privilege.\n");
    abort();
}

int hip_double_fault_of(const char *function)
{
    const struct hip_double_fault *f = hip_double_at(function, 0);
    if (f) {
        switch (f->kind) {
        case HIP_DOUBLE_ABORT:
            hip_double_die();
            break;
        case HIP_DOUBLE_HANG:
            hip_double.is_hung = true;
            break;
        case HIP_DOUBLE_STICKY:
        case HIP_DOUBLE_FAILURE:
            hip_double.sticky = f->kind == HIP_DOUBLE_STICKY ? 700 : 719;
            break;
        case HIP_DOUBLE_OOM:
            return HIP_DOUBLE_OUT_OF_MEMORY;
        case HIP_DOUBLE_ERROR:
            return (int)f->number;
        default:
            break;
        }
    }
    return hip_double.sticky;
}

void hip_double_wait(void)
{
    for (;;) {
        pause();
    }
}

__attribute__((constructor)) static void load(void)
{
    const char *plan = getenv("HIP_DOUBLE");
    if (plan && strcmp(plan, "abort-load") == 0) {
        abort();
    }
}

/* --- device ----------------------------------------------------------------------------------- */

int hipInit(unsigned flags)
{
    (void)flags;
    return hip_double_fault_of("Init");
}

int hipRuntimeGetVersion(int *ret)
{
    *ret = 60342134;
    return HIP_DOUBLE_SUCCESS;
}

int hipGetDeviceCount(int *ret)
{
    const struct hip_double_fault *f = hip_double_at("GetDeviceCount", 0);
    *ret = f && f->kind == HIP_DOUBLE_HIDDEN ? 1 : 2;
    return HIP_DOUBLE_SUCCESS;
}

int hipDeviceGetAttribute(int *ret, int attribute, int device)
{
    *ret = attribute == 67 ? (device == 1 ? 0x03 : 0x0e) : 0;
    return attribute >= 67 && attribute <= 69 ? HIP_DOUBLE_SUCCESS : HIP_DOUBLE_INVALID;
}

int hipGetDeviceProperties(void *ret, int device)
{
    memcpy((char *)ret + 396, device == 1 ? "gfx1100" : "gfx1036", 8);
    return HIP_DOUBLE_SUCCESS;
}

int hipGetDevicePropertiesR0600(void *ret, int device)
{
    static const char card[] = "gfx1100:sramecc-:xnack-";
    memcpy((char *)ret + 1160, device == 1 ? card : "gfx1036", device == 1 ? sizeof card : 8);
    return HIP_DOUBLE_SUCCESS;
}

int hipSetDevice(int device)
{
    return device == 1 ? HIP_DOUBLE_SUCCESS : 101;
}

const char *hipGetErrorString(int error)
{
    return error == 2     ? "out of memory"
           : error == 100 ? "no ROCm-capable device is detected"
           : error == 700 ? "an illegal memory access was encountered"
           : error == 719 ? "unspecified launch failure"
                          : "unknown error";
}

/* --- streams and events ----------------------------------------------------------------------- */

struct hip_double_stream *hip_double_stream(void *stream)
{
    static struct hip_double_stream otherwise;
    return stream ? stream : &otherwise;
}

static int query(const struct hip_double_stream *s)
{
    return hip_double.sticky                                         ? hip_double.sticky
           : hip_double.is_hung || hip_double_now_ns() < s->ready_ns ? HIP_DOUBLE_NOT_READY
                                                                     : HIP_DOUBLE_SUCCESS;
}

int hipStreamCreateWithPriority(void **ret, unsigned flags, int priority)
{
    (void)flags;
    (void)priority;
    *ret = calloc(1, sizeof(struct hip_double_stream));
    return *ret ? hip_double.sticky : HIP_DOUBLE_OUT_OF_MEMORY;
}

int hipStreamDestroy(void *stream)
{
    free(stream);
    return hip_double.sticky;
}

int hipStreamQuery(void *stream)
{
    return query(hip_double_stream(stream));
}

int hipStreamSynchronize(void *stream)
{
    while (hipStreamQuery(stream) == HIP_DOUBLE_NOT_READY) {
        usleep(1000);
    }
    return hip_double.sticky;
}

/* An event is what its stream was when it was recorded. */
int hipEventCreateWithFlags(void **ret, unsigned flags)
{
    (void)flags;
    *ret = calloc(1, sizeof(struct hip_double_stream));
    return *ret ? hip_double.sticky : HIP_DOUBLE_OUT_OF_MEMORY;
}

int hipEventDestroy(void *event)
{
    free(event);
    return hip_double.sticky;
}

int hipEventRecord(void *event, void *stream)
{
    *(struct hip_double_stream *)event = *hip_double_stream(stream);
    return hip_double.sticky;
}

int hipEventQuery(void *event)
{
    return query(event);
}
