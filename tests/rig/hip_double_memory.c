/* The double of the HIP runtime (see hip_double.h): device memory and copies. */
#include "tests/rig/hip_double_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_BUFFERS = 64 };

static struct {
    void *p;
    size_t bytes;
} buffers[MAX_BUFFERS];
static uint64_t used_bytes;

void hip_double_open(bool is_open)
{
    for (int i = 0; i < MAX_BUFFERS; i++) {
        if (buffers[i].p) { /* whole pages: around a buffer are guard zones */
            uintptr_t first = (uintptr_t)buffers[i].p / HIP_DOUBLE_PAGE * HIP_DOUBLE_PAGE;
            uintptr_t end = ((uintptr_t)buffers[i].p + buffers[i].bytes + HIP_DOUBLE_PAGE - 1) /
                            HIP_DOUBLE_PAGE * HIP_DOUBLE_PAGE;
            ASSERT(mprotect((void *)first, end - first,
                            is_open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
        }
    }
}

static uint64_t mib(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return (text ? strtoull(text, NULL, 10) : otherwise) << 20;
}

int hipMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    uint64_t total = mib("HIP_DOUBLE_VRAM", 20480), taken = mib("HIP_DOUBLE_USED", 5120);
    pthread_mutex_lock(&hip_double.lock);
    taken += used_bytes;
    pthread_mutex_unlock(&hip_double.lock);
    *ret_total = total;
    *ret_free = total > taken ? total - taken : 0;
    return hip_double.sticky;
}

/* Whoever reads finds the old text or the new one. */
static void put_text(const char *dir, const char *name, const char *text)
{
    char temporary[512], path[512];
    snprintf(temporary, sizeof(temporary), "%s/.double", dir);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(temporary, "we");
    ASSERT(f && fputs(text, f) >= 0 && fclose(f) == 0 && rename(temporary, path) == 0);
}

static uint64_t read_number(const char *dir, const char *name)
{
    char path[512], text[32] = "";
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (f) {
        (void)!fgets(text, sizeof(text), f);
        fclose(f);
    }
    return strtoull(text, NULL, 10);
}

static void put_used(const char *dir)
{
    char text[32];
    uint64_t total = read_number(dir, "sys/class/drm/renderD128/device/mem_info_vram_total");
    uint64_t used = read_number(dir, "others") + used_bytes;
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)MIN(used, total));
    put_text(dir, "sys/class/drm/renderD128/device/mem_info_vram_used", text);
}

static void put_ours(const char *dir)
{
    char name[64], path[512], text[160];
    snprintf(name, sizeof(name), "proc/%d", (int)getpid());
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)mkdir(path, 0755);
    snprintf(name, sizeof(name), "proc/%d/fdinfo", (int)getpid());
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)mkdir(path, 0755);
    snprintf(name, sizeof(name), "proc/%d/fdinfo/5", (int)getpid());
    snprintf(text, sizeof(text),
             "drm-client-id:\t1\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t%llu\n",
             (unsigned long long)used_bytes);
    put_text(dir, name, text);
    snprintf(text, sizeof(text), "%d %llu\n", (int)getpid(), (unsigned long long)used_bytes);
    put_text(dir, "held", text);
}

/* A driver tells what there is in the moment. The order is such that one who reads in between
 * believes that others have less, not more: the monitor reads what is used first. */
static void tell_card(bool is_growing)
{
    const char *dir = getenv("HIP_DOUBLE_CARD");
    char path[512];
    if (!dir) {
        return;
    }
    snprintf(path, sizeof(path), "%s/lock", dir);
    int lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ASSERT(lock >= 0 && flock(lock, LOCK_EX) == 0);
    if (is_growing) {
        put_ours(dir);
        put_used(dir);
    } else {
        put_used(dir);
        put_ours(dir);
    }
    close(lock);
}

int hipMalloc(void **ret, size_t bytes)
{
    size_t free_bytes, total;
    (void)hipMemGetInfo(&free_bytes, &total);
    pthread_mutex_lock(&hip_double.lock);
    int error = hip_double_fault_of("Malloc"), i = 0;
    while (i < MAX_BUFFERS && buffers[i].p) {
        i++;
    }
    error =
        error == 0 && (bytes > free_bytes || i == MAX_BUFFERS) ? HIP_DOUBLE_OUT_OF_MEMORY : error;
    if (error == 0) {
        *ret = buffers[i].p = emulator_alloc(bytes, 0);
        buffers[i].bytes = bytes;
        used_bytes += bytes;
        hip_double_open(false);
        hip_double_note("malloc", bytes);
        tell_card(true);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return error;
}

int hipFree(void *p)
{
    pthread_mutex_lock(&hip_double.lock);
    for (int i = 0; p && i < MAX_BUFFERS; i++) {
        if (buffers[i].p == p) {
            used_bytes -= buffers[i].bytes;
            hip_double_note("free", buffers[i].bytes);
            tell_card(false);
            hip_double_open(true);
            buffers[i].p = NULL;
            emulator_free(p);
            hip_double_open(false);
        }
    }
    pthread_mutex_unlock(&hip_double.lock);
    return hip_double.sticky;
}

int hipHostMalloc(void **ret, size_t bytes, unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&hip_double.lock);
    int error = hip_double_fault_of("HostMalloc");
    pthread_mutex_unlock(&hip_double.lock);
    if (error == 0) {
        *ret = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        error = *ret ? HIP_DOUBLE_SUCCESS : HIP_DOUBLE_OUT_OF_MEMORY;
    }
    return error;
}

int hipHostFree(void *p)
{
    free(p);
    return HIP_DOUBLE_SUCCESS;
}

void hip_double_copy(void *to, const void *from, size_t bytes, int kind, bool is_corrupt)
{
    hip_double_open(true);
    if (kind == 1) {
        emulator_upload(to, from, bytes);
    } else if (kind == 2) {
        emulator_download(to, from, bytes);
        if (is_corrupt && bytes > 0) {
            ((uint8_t *)to)[bytes > 1234567 ? 1234567 : 0] ^= 4;
        }
    } else {
        char *between = malloc(bytes + 1);
        emulator_download(between, from, bytes);
        emulator_upload(to, between, bytes);
        free(between);
    }
    hip_double_open(false);
}

int hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    pthread_mutex_lock(&hip_double.lock);
    const struct hip_double_fault *f = hip_double_at("Memcpy", 0);
    if (hip_double.is_hung || (f && f->kind == HIP_DOUBLE_HANG)) {
        hip_double_wait();
    }
    if (!hip_double.sticky) {
        hip_double_copy(to, from, bytes, kind, f && f->kind == HIP_DOUBLE_CORRUPT && kind == 2);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return hip_double.sticky;
}

int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    pthread_mutex_lock(&hip_double.lock);
    const struct hip_double_fault *f = hip_double_at("MemcpyAsync", 0);
    if (f && f->kind == HIP_DOUBLE_HANG) {
        hip_double.is_hung = true;
    }
    struct hip_double_node *recorded = hip_double_record(stream);
    if (recorded) {
        *recorded = (struct hip_double_node){
            .kind = HIP_DOUBLE_COPY, .to = to, .from = from, .bytes = bytes, .value = kind};
    } else if (!hip_double.sticky && !hip_double.is_hung) {
        hip_double_copy(to, from, bytes, kind, f && f->kind == HIP_DOUBLE_CORRUPT);
        if (kind == 2 && bytes >= HIP_DOUBLE_PAGE) {
            hip_double_note("fetch", bytes);
        }
    }
    pthread_mutex_unlock(&hip_double.lock);
    return hip_double.sticky;
}

void hip_double_set(void *to, int value, size_t bytes)
{
    char *bytes_of = malloc(bytes + 1);
    memset(bytes_of, value, bytes);
    hip_double_open(true);
    emulator_upload(to, bytes_of, bytes);
    hip_double_open(false);
    free(bytes_of);
}

int hipMemsetAsync(void *to, int value, size_t bytes, void *stream)
{
    pthread_mutex_lock(&hip_double.lock);
    struct hip_double_node *recorded = hip_double_record(stream);
    if (recorded) {
        *recorded = (struct hip_double_node){
            .kind = HIP_DOUBLE_SET, .to = to, .bytes = bytes, .value = value};
    } else if (!hip_double.sticky && !hip_double.is_hung) {
        hip_double_set(to, value, bytes);
    }
    pthread_mutex_unlock(&hip_double.lock);
    return hip_double.sticky;
}
