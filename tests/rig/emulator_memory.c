/* The memory that emulated kernels see: buffers, the block's shared memory, and for every byte who
 * touched it last.
 *
 * Accesses come in through the hooks that the compiler inserts for -fsanitize=thread; the
 * sanitizer's own library is not linked. A stamp says which thread of which block touched a byte
 * between which barriers; two stamps that nothing orders, one of them a write, are a race. Barriers
 * order shared memory only, as on the devices. */
#include "tests/rig/emulator_memory.h"

#include "tests/rig/emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum {
    GUARD = 64 * 1024,
    POISON = 0xff, /* not a number, as a float; far outside, as an index */
    MAX_BUFFERS = 64,
    MAX_SHARED = 32,
    SHARED_GUARD = 256,
    SOME_OF_WAVE = 0x4000, /* in stamp.thread: several threads of the wave in the low bits */
    SOME = 0xffff,         /* threads of several waves */
};

struct stamp {
    uint32_t block; /* 0: never */
    uint16_t thread, epoch, wave_epoch;
};

struct cell {
    struct stamp write, read;
    uint32_t unused_in; /* the launch (its first block) whose reads count for nothing; 0: none */
    bool is_written;
};

struct region {
    char *start;
    size_t n;
    struct cell *cells;
    void *memory;           /* what to free */
    const char *key, *name; /* of shared memory */
};

static struct region buffers[MAX_BUFFERS];
static struct region shared[MAX_SHARED];
static int n_shared;
static char shared_memory[EMULATOR_SHARED_BYTES + (MAX_SHARED + 1) * SHARED_GUARD]
    __attribute__((aligned(256)));
static size_t shared_used, shared_bytes;
static struct cell shared_cells[EMULATOR_SHARED_BYTES];
static uint32_t block, first_block; /* serial numbers, of this launch's first */
static uint16_t epochs[EMULATOR_MAX_THREADS], wave_epochs[EMULATOR_MAX_THREADS];

/* --- buffers ---------------------------------------------------------------------------------- */

void *emulator_alloc(size_t n_bytes, size_t skew)
{
    struct region *r = buffers;
    while (r < buffers + MAX_BUFFERS && r->memory) {
        r++;
    }
    ASSERT(r < buffers + MAX_BUFFERS);
    size_t total = (n_bytes + skew + 2 * GUARD + 255) / 256 * 256;
    char *memory = aligned_alloc(256, total);
    ASSERT(memory);
#ifndef EMULATOR_PLAIN
    memset(memory, POISON, total);
#endif
    *r = (struct region){.start = memory + GUARD + skew, .n = n_bytes, .memory = memory};
    if (emulator_has_checker()) {
        r->cells = calloc(n_bytes + 1, sizeof *r->cells);
        ASSERT(r->cells);
    }
    ASAN_POISON_MEMORY_REGION(memory, GUARD + skew);
    ASAN_POISON_MEMORY_REGION(r->start + n_bytes, GUARD);
    return r->start;
}

static struct region *buffer_of(const void *p)
{
    static struct region *last = buffers;
    if (last->memory && (const char *)p >= last->start && (const char *)p < last->start + last->n) {
        return last;
    }
    for (struct region *r = buffers; r < buffers + MAX_BUFFERS; r++) {
        if (r->memory && (const char *)p >= r->start && (const char *)p < r->start + r->n) {
            return last = r;
        }
    }
    return NULL;
}

void emulator_free(void *buffer)
{
    if (!buffer) {
        return;
    }
    for (struct region *r = buffers; r < buffers + MAX_BUFFERS; r++) {
        if (r->memory && r->start == buffer) {
            ASAN_UNPOISON_MEMORY_REGION(r->memory, r->n + 2 * GUARD);
            free(r->memory);
            free(r->cells);
            r->memory = NULL;
            return;
        }
    }
    ASSERT(!"a buffer of the emulator");
}

void emulator_upload(void *buffer, const void *data, size_t n_bytes)
{
    if (n_bytes == 0) {
        return;
    }
    struct region *r = buffer_of(buffer);
    size_t at = r ? (size_t)((char *)buffer - r->start) : 0;
    ASSERT(r && n_bytes <= r->n - at);
    memcpy(buffer, data, n_bytes);
    for (size_t i = 0; i < n_bytes && emulator_has_checker(); i++) {
        r->cells[at + i].is_written = true;
    }
}

void emulator_download(void *data, const void *buffer, size_t n_bytes)
{
    if (n_bytes == 0) {
        return;
    }
    struct region *r = buffer_of(buffer);
    size_t at = r ? (size_t)((const char *)buffer - r->start) : 0;
    ASSERT(r && n_bytes <= r->n - at);
    for (size_t i = 0; i < n_bytes && emulator_has_checker(); i++) {
        if (!r->cells[at + i].is_written) {
            fprintf(stderr, "byte %zu of a result was never written\n", at + i);
            exit(1);
        }
    }
    memcpy(data, buffer, n_bytes);
}

/* --- shared memory ------------------------------------------------------------------------------
 */

void *gpu_host_shared(const char *key, const char *name, size_t bytes)
{
    for (int i = 0; i < n_shared; i++) {
        if (shared[i].key == key) {
            return shared[i].start;
        }
    }
    if (n_shared == MAX_SHARED || bytes > EMULATOR_SHARED_BYTES - shared_bytes) {
        emulator_thread_fault("%s: more than %d bytes of shared memory", name,
                              EMULATOR_SHARED_BYTES);
    }
    struct region *r = &shared[n_shared++];
    *r = (struct region){.start = shared_memory + shared_used + SHARED_GUARD,
                         .n = bytes,
                         .cells = shared_cells + shared_bytes,
                         .key = key,
                         .name = name};
    ASAN_UNPOISON_MEMORY_REGION(r->start, bytes);
    memset(r->start, POISON, bytes);
    memset(r->cells, 0, bytes * sizeof *r->cells);
    shared_bytes += bytes;
    shared_used += SHARED_GUARD + (bytes + 15) / 16 * 16;
    return r->start;
}

static struct region *shared_of(const void *p)
{
    for (int i = 0; i < n_shared; i++) {
        if ((const char *)p >= shared[i].start && (const char *)p < shared[i].start + shared[i].n) {
            return &shared[i];
        }
    }
    return NULL;
}

/* --- order
 * ---------------------------------------------------------------------------------------- */

void emulator_dump(FILE *to)
{
    uint64_t n = 0;
    for (size_t i = 0; i < COUNT_OF(buffers); i++) {
        n += buffers[i].memory != NULL;
    }
    fwrite(&n, sizeof n, 1, to);
    for (size_t i = 0; i < COUNT_OF(buffers); i++) {
        const struct region *r = &buffers[i];
        if (r->memory) {
            uint64_t head[2] = {(uintptr_t)r->start, r->n};
            fwrite(head, sizeof head, 1, to);
            fwrite(r->start, 1, r->n, to);
        }
    }
}

void emulator_memory_launch(void)
{
    first_block = block + 1;
}

void emulator_memory_block(int n_threads)
{
    block++;
    memset(epochs, 0, (size_t)n_threads * sizeof *epochs);
    memset(wave_epochs, 0, (size_t)n_threads * sizeof *wave_epochs);
    n_shared = 0;
    shared_used = shared_bytes = 0;
    ASAN_POISON_MEMORY_REGION(shared_memory, sizeof shared_memory);
}

void emulator_memory_barrier(int thread)
{
    epochs[thread]++;
}

void emulator_memory_wave_sync(int thread)
{
    wave_epochs[thread]++;
}

/* What was done under the stamp is not ordered before what the thread does now. */
static bool is_unordered(const struct stamp *s, int thread, bool is_shared)
{
    if (s->block < first_block) {
        return false;
    }
    if (s->block != block) {
        return true;
    }
    if (s->thread == thread || (is_shared && s->epoch != epochs[thread])) {
        return false;
    }
    int wave = s->thread & SOME_OF_WAVE ? s->thread & ~SOME_OF_WAVE : s->thread / GPU_WAVE;
    bool is_wave = s->thread != SOME && wave == thread / GPU_WAVE;
    return !(is_shared && is_wave && s->wave_epoch != wave_epochs[thread]);
}

static void add_reader(struct stamp *s, int thread)
{
    uint16_t who = (uint16_t)thread;
    if (s->block == block && s->epoch == epochs[thread] && s->thread != thread) {
        int wave = s->thread & SOME_OF_WAVE ? s->thread & ~SOME_OF_WAVE : s->thread / GPU_WAVE;
        bool is_wave = s->thread != SOME && wave == thread / GPU_WAVE;
        if (!is_wave) {
            who = (uint16_t)SOME;
        } else if (s->wave_epoch == wave_epochs[thread]) { /* otherwise that read is over */
            who = (uint16_t)(SOME_OF_WAVE | wave);
        }
    }
    *s = (struct stamp){block, who, epochs[thread], wave_epochs[thread]};
}

static void judge(const void *p, size_t n, size_t alignment, bool is_write)
{
    /* Of the program or library that this stands in. */
    extern const char __ehdr_start[] __attribute__((visibility("hidden")));
    extern const char _end[] __attribute__((visibility("hidden")));
    if (!emulator_is_running() || emulator_on_stack(p)) {
        return;
    }
    const char *verb = is_write ? "writes" : "reads";
    struct region *r = shared_of(p);
    bool is_shared = r;
    r = r ? r : buffer_of(p);
    if (!r) {
        const char *c = p;
        if (!is_write && c >= __ehdr_start && c < _end &&
            !(c >= shared_memory && c < shared_memory + sizeof shared_memory)) {
            return; /* constants of the kernel */
        }
        emulator_thread_fault("%s %zu bytes outside every buffer", verb, n);
    }
    size_t at = (size_t)((const char *)p - r->start);
    if (n > r->n - at) {
        emulator_thread_fault("%s past the end of a buffer of %zu bytes", verb, r->n);
    }
    if ((uintptr_t)p % alignment != 0) {
        emulator_thread_fault("%s %zu bytes misaligned, at offset %zu", verb, n, at);
    }
    int thread = gpu_host_thread();
    for (size_t i = at; i < at + n; i++) {
        struct cell *c = &r->cells[i];
        if (!is_write && !c->is_written) {
            emulator_thread_fault("reads what nobody wrote, at offset %zu of %zu", i, r->n);
        }
        bool is_unused = c->unused_in == first_block;
        if (!is_unused && (is_unordered(&c->write, thread, is_shared) ||
                           (is_write && is_unordered(&c->read, thread, is_shared)))) {
            emulator_thread_fault("%s offset %zu of %zu, which another thread %s without a barrier",
                                  verb, i, r->n,
                                  is_unordered(&c->write, thread, is_shared) ? "wrote" : "read");
        }
        if (is_write) {
            c->write = (struct stamp){block, (uint16_t)thread, epochs[thread], wave_epochs[thread]};
            c->is_written = true;
        } else {
            add_reader(&c->read, thread);
        }
    }
}

void gpu_host_access(const void *p, size_t bytes, bool is_write)
{
    if (emulator_has_checker()) {
        judge(p, bytes, bytes, is_write);
    }
}

void gpu_host_unused(const void *p, size_t bytes)
{
    struct region *r = buffer_of(p);
    for (size_t i = 0; r && emulator_has_checker() && i < bytes; i++) {
        r->cells[(size_t)((const char *)p - r->start) + i].unused_in = first_block;
    }
}

/* --- the hooks -------------------------------------------------------------------------------- */

#if defined(HAS_ASAN) || defined(EMULATOR_PLAIN)
bool emulator_has_checker(void)
{
    return false;
}
#else
bool emulator_has_checker(void)
{
    return true;
}

#define HOOKS(n)                                                                                   \
    void __tsan_read##n(void *p);                                                                  \
    void __tsan_read##n(void *p)                                                                   \
    {                                                                                              \
        judge(p, n, n, false);                                                                     \
    }                                                                                              \
    void __tsan_write##n(void *p);                                                                 \
    void __tsan_write##n(void *p)                                                                  \
    {                                                                                              \
        judge(p, n, n, true);                                                                      \
    }                                                                                              \
    void __tsan_unaligned_read##n(void *p); /* of packed structs, or as bytes: declared so */      \
    void __tsan_unaligned_read##n(void *p)                                                         \
    {                                                                                              \
        judge(p, n, 1, false);                                                                     \
    }                                                                                              \
    void __tsan_unaligned_write##n(void *p);                                                       \
    void __tsan_unaligned_write##n(void *p)                                                        \
    {                                                                                              \
        judge(p, n, 1, true);                                                                      \
    }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *p, size_t n);
void __tsan_read_range(void *p, size_t n)
{
    judge(p, n, 1, false);
}
void __tsan_write_range(void *p, size_t n);
void __tsan_write_range(void *p, size_t n)
{
    judge(p, n, 1, true);
}
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    judge(from, n, 1, false);
    judge(to, n, 1, true);
    return memcpy(to, from, n);
}
void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memset(void *to, int c, size_t n)
{
    judge(to, n, 1, true);
    return memset(to, c, n);
}
void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *p);
void __tsan_func_entry(void *p)
{
    (void)p;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}
#endif
