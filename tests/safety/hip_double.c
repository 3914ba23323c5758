/* A stand-in for libamdhip64 as far as the probe calls it: "device memory" is host memory.
 * HIP_DOUBLE says how it fails. The card's address is 0000:03:00.0. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int hipInit(unsigned flags);
int hipRuntimeGetVersion(int *ret);
int hipGetDeviceCount(int *ret);
int hipDeviceGetAttribute(int *ret, int attribute, int device);
int hipSetDevice(int device);
int hipMemGetInfo(size_t *ret_free, size_t *ret_total);
int hipMalloc(void **ret, size_t bytes);
int hipMemcpy(void *to, const void *from, size_t bytes, int kind);
const char *hipGetErrorString(int error);

static int does(const char *what)
{
    const char *plan = getenv("HIP_DOUBLE");
    return plan && strcmp(plan, what) == 0;
}

__attribute__((constructor)) static void load(void)
{
    if (does("abort-load")) {
        abort();
    }
}

int hipInit(unsigned flags)
{
    (void)flags;
    if (does("abort")) {
        fprintf(stderr, "HW Exception by GPU node-1 (Agent handle: 0x1) reason :GPU Hang\n");
        abort();
    }
    return does("no-device") ? 100 : 0;
}

int hipRuntimeGetVersion(int *ret)
{
    *ret = 60342134;
    return 0;
}

int hipGetDeviceCount(int *ret)
{
    *ret = does("hidden") ? 1 : 2;
    return 0;
}

int hipDeviceGetAttribute(int *ret, int attribute, int device)
{
    /* Device 0 is the processor's own graphics, 1 the card; PciDomainID, PciBusId, PciDeviceId. */
    *ret = attribute == 67 ? (device == 1 ? 0x03 : 0x0e) : 0;
    return attribute >= 67 && attribute <= 69 ? 0 : 1;
}

int hipSetDevice(int device)
{
    return device == 1 ? 0 : 101;
}

int hipMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    *ret_free = (size_t)15 << 30;
    *ret_total = (size_t)20 << 30;
    return 0;
}

int hipMalloc(void **ret, size_t bytes)
{
    *ret = malloc(bytes);
    return does("oom") || !*ret ? 2 : 0;
}

int hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    if (does("hang")) {
        for (;;) {
            pause();
        }
    }
    memcpy(to, from, bytes);
    if (does("corrupt") && kind == 2) {
        ((uint8_t *)to)[1234567] ^= 4;
    }
    return 0;
}

const char *hipGetErrorString(int error)
{
    return error == 2     ? "out of memory"
           : error == 100 ? "no ROCm-capable device is detected"
                          : "unknown error";
}
