/* The emulator: fibers, their schedule, and what threads of a block do together. Accesses are
 * judged in emulator_memory.c.
 *
 * A block's threads are fibers on one OS thread. Each runs until it needs others (a wave operation,
 * a barrier) or ends. When no thread of a wave can go on, its lanes must all stand at one
 * operation, which is then done; when no wave can go on, all threads of the block must stand at one
 * barrier. Anything else is a fault, and a fault abandons the block: its fibers are never resumed.
 */
#include "tests/rig/emulator.h"

#include "tests/rig/emulator_memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old,
                                     size_t *size_old);
#endif

/* Stacks as sanitizers like them; a guard page below each. */
enum { STACK_BYTES = 256 * 1024, GUARD_BYTES = 4096 };

enum state { READY, AT_WAVE, AT_BARRIER, ENDED };

struct fiber {
    void *sp;
    enum state state;
    const char *site; /* where it waits */
    const char *last; /* the last place that it is known to have passed */
    uint32_t n_exchanges;
    void *fake_stack;
};

static struct {
    const struct gpu_host_kernel *kernel;
    const void *args;
    struct emulator_grid grid;
    int block[3];
    int current; /* the running thread; -1: the scheduler */
    struct fiber fibers[EMULATOR_MAX_THREADS];
    char *stacks;
    void *scheduler_sp;
    const void *scheduler_bottom; /* for the sanitizer */
    size_t scheduler_size;
    void *scheduler_fake_stack;
    /* In turn: a lane that has gone on may give its next value while others still read the last
     * two. */
    uint32_t words[EMULATOR_MAX_THREADS / GPU_WAVE][4][GPU_WAVE * GPU_HOST_WORDS];
    bool has_fault;
    char fault[512];
} emu = {.current = -1};

/* --- fibers ----------------------------------------------------------------------------------- */

/* Saves the callee's registers on the stack, its pointer in *save, and goes on where `to` was
 * saved. */
void emulator_switch(void **save, void *to);
__asm__(".text\n.globl emulator_switch\n.type emulator_switch,@function\n"
        "emulator_switch:\n"
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
        "ret\n.size emulator_switch,.-emulator_switch\n");

static char *stack_of(int thread)
{
    return emu.stacks + (size_t)thread * STACK_BYTES;
}

static void to_scheduler(bool is_last)
{
    struct fiber *f = &emu.fibers[emu.current];
    emu.current = -1;
#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(is_last ? NULL : &f->fake_stack, emu.scheduler_bottom,
                                   emu.scheduler_size);
#endif
    (void)is_last;
    emulator_switch(&f->sp, emu.scheduler_sp);
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &emu.scheduler_bottom, &emu.scheduler_size);
#endif
}

static void fiber_main(void)
{
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(NULL, &emu.scheduler_bottom, &emu.scheduler_size);
#endif
    emu.kernel->call(emu.args);
    emu.fibers[emu.current].state = ENDED;
    to_scheduler(true);
    abort();
}

static void resume(int thread)
{
    emu.current = thread;
#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(&emu.scheduler_fake_stack, stack_of(thread) + GUARD_BYTES,
                                   STACK_BYTES - GUARD_BYTES);
#endif
    emulator_switch(&emu.scheduler_sp, emu.fibers[thread].sp);
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(emu.scheduler_fake_stack, NULL, NULL);
#endif
}

static void fiber_init(int thread)
{
    struct fiber *f = &emu.fibers[thread];
    memset(f, 0, sizeof *f);
    /* A return address and six registers; the stack is aligned as after a call. */
    void **top = (void **)(void *)(stack_of(thread) + STACK_BYTES - 72);
    top[0] = NULL;
    void (*start)(void) = fiber_main;
    memcpy(&top[-1], &start, sizeof start);
    memset(&top[-7], 0, 6 * sizeof *top);
    f->sp = &top[-7];
}

static void make_stacks(void)
{
    if (emu.stacks) {
        return;
    }
    size_t size = (size_t)EMULATOR_MAX_THREADS * STACK_BYTES;
    emu.stacks = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(emu.stacks != MAP_FAILED);
    for (int i = 0; i < EMULATOR_MAX_THREADS; i++) {
        ASSERT(mprotect(stack_of(i), GUARD_BYTES, PROT_NONE) == 0);
    }
}

/* --- faults ----------------------------------------------------------------------------------- */

static void set_fault(int thread, const char *format, va_list list)
{
    if (emu.has_fault) {
        return;
    }
    emu.has_fault = true;
    char what[256];
    vsnprintf(what, sizeof what, format, list);
    const char *last = emu.fibers[thread].last;
    snprintf(emu.fault, sizeof emu.fault, "%s: block (%d, %d, %d), thread %d: %s; last seen at %s",
             emu.kernel->name, emu.block[0], emu.block[1], emu.block[2], thread, what,
             last ? last : "its start");
}

static void block_fault(int thread, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    set_fault(thread, format, list);
    va_end(list);
}

void emulator_thread_fault(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    set_fault(emu.current, format, list);
    va_end(list);
    to_scheduler(true);
    abort();
}

const char *emulator_fault(void)
{
    return emu.has_fault ? emu.fault : "";
}

bool emulator_is_running(void)
{
    return emu.current >= 0;
}

bool emulator_on_stack(const void *p)
{
    const char *stack = stack_of(emu.current);
    return (const char *)p >= stack && (const char *)p < stack + STACK_BYTES;
}

/* --- what threads call --------------------------------------------------------------------------
 */

int gpu_host_thread(void)
{
    return emu.current;
}

int gpu_host_block(int axis)
{
    return emu.block[axis];
}

int gpu_host_matrix(void)
{
    return emu.grid.matrix ? emu.grid.matrix : 11;
}

static void wait_at(enum state state, const char *site)
{
    struct fiber *f = &emu.fibers[emu.current];
    f->state = state;
    f->site = f->last = site;
    to_scheduler(false);
}

void gpu_host_barrier(const char *site)
{
    wait_at(AT_BARRIER, site);
    emulator_memory_barrier(emu.current);
}

void gpu_host_wave_sync(const char *site)
{
    wait_at(AT_WAVE, site);
    emulator_memory_wave_sync(emu.current);
}

const uint32_t *gpu_host_exchange(const char *site, const void *value, size_t bytes)
{
    ASSERT(bytes <= GPU_HOST_WORDS * 4);
    struct fiber *f = &emu.fibers[emu.current];
    uint32_t *words = emu.words[emu.current / GPU_WAVE][f->n_exchanges++ % 4];
    memcpy(words + emu.current % GPU_WAVE * GPU_HOST_WORDS, value, bytes);
    wait_at(AT_WAVE, site);
    return words;
}

void gpu_host_not_uniform(const char *site)
{
    emulator_thread_fault("the lanes of a wave differ at %s", site);
}

/* --- the schedule -------------------------------------------------------------------------------
 */

/* The i-th of n in an order given by the seed. */
static int ordered(int i, int n, uint64_t salt)
{
    uint64_t seed = emu.grid.seed;
    if (seed == 0) {
        return i;
    }
    uint64_t mixed = (seed + salt) * 0x9e3779b97f4a7c15u >> 32;
    int turned = (int)(((uint64_t)i + mixed) % (uint64_t)n);
    return mixed >> 8 & 1 ? n - 1 - turned : turned;
}

/* Lets the wave's lanes run until each waits for others or has ended. True if any ran. */
static bool run_wave(int wave)
{
    bool has_run = false;
    for (int i = 0; i < GPU_WAVE && !emu.has_fault; i++) {
        int thread = wave * GPU_WAVE + ordered(i, GPU_WAVE, 7);
        if (emu.fibers[thread].state == READY) {
            resume(thread);
            has_run = true;
        }
    }
    return has_run;
}

/* All lanes must be in one state at one place; READY again if that is an operation of the wave. */
static void settle_wave(int wave)
{
    struct fiber *first = &emu.fibers[wave * GPU_WAVE];
    for (int i = 1; i < GPU_WAVE; i++) {
        struct fiber *f = first + i;
        if (f->state != first->state || (f->state != ENDED && f->site != first->site)) {
            block_fault(wave * GPU_WAVE + i,
                        "the wave is divided: this lane is at %s, lane 0 at %s",
                        f->state == ENDED ? "its end" : f->site,
                        first->state == ENDED ? "its end" : first->site);
            return;
        }
    }
    for (int i = 0; i < GPU_WAVE && first->state == AT_WAVE; i++) {
        first[GPU_WAVE - 1 - i].state = READY;
    }
}

static void settle_barrier(int n_threads)
{
    struct fiber *first = &emu.fibers[0];
    for (int i = 1; i < n_threads; i++) {
        struct fiber *f = &emu.fibers[i];
        if (f->state != first->state || (f->state != ENDED && f->site != first->site)) {
            block_fault(i, "the barrier is not for all: this thread is at %s, thread 0 at %s",
                        f->state == ENDED ? "its end" : f->site,
                        first->state == ENDED ? "its end" : first->site);
            return;
        }
    }
    for (int i = 0; i < n_threads && first->state == AT_BARRIER; i++) {
        emu.fibers[n_threads - 1 - i].state = READY;
    }
}

static void run_block(void)
{
    int n_threads = emu.kernel->threads, n_waves = n_threads / GPU_WAVE;
    for (int i = 0; i < n_threads; i++) {
        fiber_init(i);
    }
    emulator_memory_block(n_threads);
    bool is_over = false;
    while (!is_over && !emu.has_fault) {
        bool has_run = false;
        for (int i = 0; i < n_waves && !emu.has_fault; i++) {
            int wave = ordered(i, n_waves, 3);
            if (run_wave(wave)) {
                has_run = true;
                if (!emu.has_fault) {
                    settle_wave(wave);
                }
            }
        }
        if (!has_run) {
            settle_barrier(n_threads);
            is_over = emu.fibers[0].state == ENDED;
        }
    }
}

bool emulator_launch(const struct gpu_host_kernel *kernel, const struct emulator_grid *g,
                     const void *args, size_t args_bytes)
{
    ASSERT(args_bytes == kernel->args_bytes && kernel->threads % GPU_WAVE == 0 &&
           kernel->threads <= EMULATOR_MAX_THREADS);
    make_stacks();
    emu.kernel = kernel;
    emu.args = args;
    emu.grid = *g;
    emu.has_fault = false;
    emulator_memory_launch();
    int n_blocks = g->x * g->y * g->z;
    for (int i = 0; i < n_blocks && !emu.has_fault; i++) {
        int block = ordered(i, n_blocks, 1);
        emu.block[0] = block % g->x;
        emu.block[1] = block / g->x % g->y;
        emu.block[2] = block / g->x / g->y;
        run_block();
    }
    return !emu.has_fault;
}
