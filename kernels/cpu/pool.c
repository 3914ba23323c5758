/* The thread pool. Jobs are published through one word, the gate:
 *
 *   bits 63..32  job number
 *   bit  31      open: members may still enter
 *   bits 30..0   members inside
 *
 * A member enters an open job by adding 1 with compare-and-swap, takes slices until none are left, and
 * leaves by subtracting 1. Each member has a run of neighbouring slices, so that what it reads is one
 * stream; who is done with its own takes from the others' (also from those that never came). The caller publishes a job only when the gate is
 * closed and empty, works too, closes the gate, and waits for those inside. So a member that sleeps
 * or was preempted before it entered is not waited for.
 *
 * Who writes what: the job's fields and every `next`, the caller, while the gate is closed and empty;
 * `next` also everybody inside; `gate`, everybody by atomic operations; `sleepers`, members, around their futex
 * wait.
 *
 * May block: members, in futex_wait when there was no job for SPIN_NS; the caller, for members
 * inside. */
#include "kernels/cpu/pool.h"

#include "shared/base.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { POOL_MAX_THREADS = 256, SPIN_NS = 60 * 1000, SLICES_PER_THREAD = 64 };

#define GATE_OPEN (UINT64_C(1) << 31)
#define GATE_INSIDE (GATE_OPEN - 1)
#define GATE_JOB (UINT64_C(1) << 32)

struct member {
    _Alignas(64) _Atomic int64_t next; /* slice of its run */
    int64_t end;
    struct pool *pool;
    int index;
    pthread_t thread;
};

struct pool {
    int n_threads;
    struct member *members; /* n_threads, owned; the caller's has no thread */
    pool_fn *fn;
    void *arg;
    int64_t n;
    int64_t slice;
    bool is_ending;
    _Alignas(64) _Atomic uint64_t gate;
    _Alignas(64) _Atomic uint32_t wake; /* counts jobs; members sleep on it */
    _Atomic uint32_t sleepers;
    _Atomic uint32_t is_caller_waiting; /* the caller sleeps on it while 1 */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_slices(struct pool *p, int thread)
{
    for (int k = 0; k < p->n_threads; k++) {
        struct member *m = &p->members[(thread + k) % p->n_threads];
        int64_t i;
        while ((i = atomic_fetch_add_explicit(&m->next, 1, memory_order_relaxed)) < m->end) {
            int64_t lo = i * p->slice;
            p->fn(p->arg, lo, MIN(lo + p->slice, p->n), thread);
        }
    }
}

/* Enters the job that is open now, if any that is newer than `seen`. */
static bool enter(struct pool *p, uint32_t *seen)
{
    uint64_t gate = atomic_load_explicit(&p->gate, memory_order_relaxed);
    while (gate & GATE_OPEN && gate >> 32 != *seen) {
        if (atomic_compare_exchange_weak_explicit(&p->gate, &gate, gate + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *seen = (uint32_t)(gate >> 32);
            return true;
        }
    }
    return false;
}

static void leave(struct pool *p)
{
    uint64_t before = atomic_fetch_sub_explicit(&p->gate, 1, memory_order_seq_cst);
    if ((before & (GATE_OPEN | GATE_INSIDE)) == 1 &&
        atomic_exchange_explicit(&p->is_caller_waiting, 0, memory_order_seq_cst)) {
        futex_wake(&p->is_caller_waiting, 1);
    }
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct pool *p = m->pool;
    uint32_t seen = 0;
    for (;;) {
        uint32_t wake = atomic_load_explicit(&p->wake, memory_order_seq_cst);
        int64_t until = 0;
        bool entered;
        while (!(entered = enter(p, &seen))) {
            for (int i = 0; i < 64; i++) {
                relax();
            }
            int64_t now = now_ns();
            if (until == 0) {
                until = now + SPIN_NS;
            } else if (now > until) {
                break;
            }
        }
        if (!entered) {
            atomic_fetch_add_explicit(&p->sleepers, 1, memory_order_seq_cst);
            futex_wait(&p->wake, wake); /* returns at once when a job came since `wake` was read */
            atomic_fetch_sub_explicit(&p->sleepers, 1, memory_order_seq_cst);
            continue;
        }
        bool is_ending = p->is_ending;
        if (!is_ending) {
            take_slices(p, m->index);
        }
        leave(p);
        if (is_ending) {
            return NULL;
        }
    }
}

static void publish(struct pool *p)
{
    uint64_t job =
        (atomic_load_explicit(&p->gate, memory_order_relaxed) & ~(GATE_JOB - 1)) + GATE_JOB;
    atomic_store_explicit(&p->gate, job | GATE_OPEN, memory_order_seq_cst);
    atomic_fetch_add_explicit(&p->wake, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&p->sleepers, memory_order_seq_cst) != 0) {
        futex_wake(&p->wake, POOL_MAX_THREADS);
    }
}

static void close_gate(struct pool *p)
{
    atomic_fetch_and_explicit(&p->gate, ~GATE_OPEN, memory_order_seq_cst);
    int64_t until = 0;
    while (atomic_load_explicit(&p->gate, memory_order_acquire) & GATE_INSIDE) {
        for (int i = 0; i < 64; i++) {
            relax();
        }
        int64_t now = now_ns();
        if (until == 0) {
            until = now + SPIN_NS;
        } else if (now > until) {
            atomic_store_explicit(&p->is_caller_waiting, 1, memory_order_seq_cst);
            if (atomic_load_explicit(&p->gate, memory_order_seq_cst) & GATE_INSIDE) {
                futex_wait(&p->is_caller_waiting, 1);
            }
            atomic_store_explicit(&p->is_caller_waiting, 0, memory_order_seq_cst);
        }
    }
}

void pool_run(struct pool *p, int64_t n, int64_t grain, pool_fn *fn, void *arg)
{
    ASSERT(grain > 0);
    if (n <= 0) {
        return;
    }
    if (p->n_threads == 1 || n <= grain) {
        fn(arg, 0, n, 0);
        return;
    }
    int64_t n_grains = (n + grain - 1) / grain;
    int64_t most = (int64_t)p->n_threads * SLICES_PER_THREAD;
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->slice = (n_grains + most - 1) / most * grain;
    int64_t n_slices = (n + p->slice - 1) / p->slice, first = 0;
    for (int i = 0; i < p->n_threads; i++) {
        struct member *m = &p->members[i];
        m->end = n_slices * (i + 1) / p->n_threads;
        atomic_store_explicit(&m->next, first, memory_order_relaxed);
        first = m->end;
    }
    publish(p);
    take_slices(p, 0);
    close_gate(p);
}

int pool_threads(const struct pool *p)
{
    return p->n_threads;
}

/* Distinct physical cores in the affinity mask; siblings of one core count once. */
static int cores_allowed(void)
{
    cpu_set_t mask, covered;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) {
        return (int)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
    }
    CPU_ZERO(&covered);
    int n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mask) || CPU_ISSET(cpu, &covered)) {
            continue;
        }
        n++;
        char path[96], list[256] = "";
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        FILE *f = fopen(path, "re");
        if (!f) {
            continue;
        }
        if (fgets(list, sizeof list, f)) {
            for (char *s = list; *s >= '0' && *s <= '9';) {
                long lo = strtol(s, &s, 10);
                long hi = *s == '-' ? strtol(s + 1, &s, 10) : lo;
                for (long c = lo; c <= hi && c < CPU_SETSIZE; c++) {
                    CPU_SET((int)c, &covered);
                }
                s += *s == ',';
            }
        }
        fclose(f);
    }
    return MAX(n, 1);
}

/* Lowers *n to the CPUs that one cgroup v2 folder's cpu.max grants, rounded up. */
static void apply_quota(const char *folder, int *n)
{
    char path[4300];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *f = fopen(path, "re");
    long quota, period;
    if (f) {
        if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
            long cpus = (quota - 1) / period + 1;
            *n = (int)MIN((long)*n, cpus);
        }
        fclose(f);
    }
}

static int threads_default(void)
{
    int n = cores_allowed();
    char line[4200];
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f) {
        while (fgets(line, sizeof line, f)) {
            if (strncmp(line, "0::/", 4) != 0) {
                continue;
            }
            char *folder = line + 3;
            folder[strcspn(folder, "\n")] = '\0';
            for (char *end; (end = strrchr(folder, '/')) != NULL; *end = '\0') {
                apply_quota(folder, &n);
            }
            apply_quota("", &n);
        }
        fclose(f);
    }
    return MAX(n, 1);
}

/* Ends the first n members and frees everything. */
static void stop(struct pool *p, int n)
{
    p->is_ending = true;
    publish(p);
    for (int i = 0; i < n; i++) {
        pthread_join(p->members[i + 1].thread, NULL);
    }
    free(p->members);
    free(p);
}

int pool_create(int n_threads, struct pool **ret)
{
    if (n_threads < 0) {
        return -EINVAL;
    }
    n_threads = MIN(n_threads == 0 ? threads_default() : n_threads, POOL_MAX_THREADS);
    struct pool *p = aligned_alloc(64, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->members = aligned_alloc(64, (size_t)n_threads * sizeof *p->members);
    if (!p->members) {
        free(p);
        return -ENOMEM;
    }
    memset(p->members, 0, (size_t)n_threads * sizeof *p->members);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* members take no signals */
    int status = 0;
    for (int i = 1; i < n_threads && status == 0; i++) {
        p->members[i].pool = p;
        p->members[i].index = i;
        status = pthread_create(&p->members[i].thread, NULL, member_main, &p->members[i]);
        if (status != 0) {
            stop(p, i - 1);
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status != 0) {
        return -status;
    }
    *ret = p;
    return 0;
}

void pool_destroy(struct pool **p)
{
    if (*p) {
        stop(*p, (*p)->n_threads - 1);
        *p = NULL;
    }
}
