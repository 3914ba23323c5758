/* The supervisor's policy and the gateway's requests under random schedules: the real supervisor
 * (loop, dialog, launching, deaths, watchdog, ladder, crash reports) and the real link of the
 * gateway (journal, trials, epochs, rings) in a made-up world of processes, channels and time
 * (world.h). Children greet, load, work, hang, die of themselves, are killed by others or by the
 * kernel, do not die of SIGKILL, talk nonsense; the card is reset, wedged, gone; requests kill;
 * clients leave and read slowly; clocks jump. After every step the invariants are checked; at the
 * end faults stop, a worker must come, every request must end, and SIGTERM must end it all. The
 * seed of a schedule is printed when it fails.
 *
 *     safety_simulation_test [SCHEDULES [FIRST_SEED]] */
#include "safety/card.h"
#include "safety/supervisor.h"
#include "tests/safety/world.h"

#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

enum { STEPS = 400, CALM_MS = 30 * 60 * 1000 };

struct world w;
struct proc procs[N_PROCS];
size_t n_procs;
struct world_epoch epochs[N_EPOCHS];
struct world_counts counts;
bool world_is_loud;

uint64_t roll(uint64_t n) /* splitmix64 */
{
    uint64_t z = (w.rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

bool chance(uint64_t one_in)
{
    return !w.is_calm && roll(one_in) == 0;
}

/* ---- time ---- */

static void check(void)
{
    const struct proc *front = find(GATEWAY);
    bool has_front = front && front->stage > 0 && !front->is_hung, is_blocked = false;
    for (size_t i = 0; i < n_procs; i++) {
        is_blocked =
            is_blocked || (is_alive(&procs[i]) && procs[i].is_unkillable && procs[i].is_killed);
    }
    bool is_wedged = w.wedged_ms > 0 && w.now_ms - w.wedged_ms < CARD_WEDGED_MS + 1000;
    bool is_resetting = w.reset_ms > 0 && w.now_ms - w.reset_ms < CARD_RESET_MS;
    if (!has_front || is_blocked || is_wedged || is_resetting || w.is_ending || find(WORKER)) {
        w.idle_since_ms = w.now_ms;
    } else if (w.now_ms - w.idle_since_ms > POLICY_BACKOFF_MAX_MS + 40 * 1000) {
        WRONG("no worker for %llu ms", (unsigned long long)(w.now_ms - w.idle_since_ms));
    }
}

static void advance(uint64_t limit_ms)
{
    uint64_t at = limit_ms;
    for (size_t i = 0; i < n_procs; i++) {
        struct proc *p = &procs[i];
        if (is_alive(p)) {
            if (p->is_unkillable && p->is_killed && p->next_ms == UINT64_MAX) {
                p->next_ms = w.now_ms + 1 + roll(w.is_calm ? 1000 : 60000);
            }
            at = MIN(at, p->next_ms);
        }
    }
    w.now_ms = MAX(w.now_ms, at);
    if (chance(400)) { /* the machine slept, or we were stopped */
        uint64_t jump = 6000 + roll(3600 * 1000);
        w.now_ms += jump;
        w.idle_since_ms += jump;
    }
    for (size_t i = 0; i < n_procs; i++) {
        if (is_alive(&procs[i]) && procs[i].next_ms <= w.now_ms) {
            run_proc(&procs[i]);
        }
    }
}

/* The end of a schedule: calm, until a worker is ready; then SIGTERM; in between a reload. */
static void direct(void)
{
    w.n_steps++;
    counts.steps++;
    if (chance(500)) {
        w.signal = SIGHUP;
    }
    if (!w.is_calm && w.n_steps > STEPS) {
        w.is_calm = true;
        w.end_ms = w.now_ms + CALM_MS;
    } else if (w.is_calm && !w.is_ending) {
        const struct proc *p = find(WORKER);
        if (p && p->stage == 4 && !p->is_hung && gateway_is_idle()) {
            w.is_ending = true;
            w.signal = SIGTERM;
            w.end_ms = w.now_ms + 5 * 60 * 1000;
        } else if (w.now_ms > w.end_ms) {
            WRONG("all is calm, and %s",
                  gateway_is_idle() ? "no worker comes" : "a request does not end");
        }
    } else if (w.is_ending && w.now_ms > w.end_ms) {
        WRONG("it does not end");
    }
    if (w.n_steps > 100000) {
        WRONG("the loop spins");
    }
}

static int look(struct pollfd *fds, nfds_t n)
{
    int n_ready_fds = 0;
    for (nfds_t i = 0; i < n; i++) {
        int fd = fds[i].fd;
        fds[i].revents = 0;
        if (fd == SIGNAL_FD) {
            fds[i].revents = w.signal ? POLLIN : 0;
        } else if (fd >= FD0) {
            const struct proc *p = of_fd(fd);
            bool is_channel = fd % 2 == 1;
            bool has = is_channel ? p->n_out > 0 || p->is_zombie : p->is_zombie;
            fds[i].revents = has ? POLLIN : 0;
        }
        n_ready_fds += fds[i].revents != 0;
    }
    return n_ready_fds;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    if (n == 1) { /* a look that does not wait */
        fds[0].revents = fds[0].events;
        return 1;
    }
    uint64_t until_ms = w.now_ms + (uint64_t)MAX(timeout, 0);
    int n_ready_fds;
    do { /* what happens among its children does not wake the supervisor */
        direct();
        advance(until_ms);
        check();
        n_ready_fds = look(fds, n);
    } while (n_ready_fds == 0 && w.now_ms < until_ms);
    return n_ready_fds;
}

/* ---- schedules ---- */

static int load(void *arg, struct config *ret, struct err *e)
{
    (void)arg;
    config_init(ret);
    return config_set(ret, "model", "x.gguf", CONFIG_FROM_FLAG, e);
}

static void run_schedule(uint64_t seed)
{
    static char name[] = "rocmforge-gateway";
    static char *argv[] = {name, NULL};
    static const char *const fallbacks[] = {"never", "load", "always"};
    struct config cfg;
    struct err e;
    memset(procs, 0, sizeof(procs));
    n_procs = 0;
    memset(&w, 0, sizeof(w));
    gateway_forget_all();
    w.seed = seed;
    w.rng = seed * 0x2545f4914f6cdd1du;
    w.now_ms = 1000000;
    w.next_pid = 100;
    w.idle_since_ms = w.now_ms;
    w.has_gpu = roll(2);
    w.danger = roll(4) ? 97 : 5 + roll(90);
    w.is_innocent = roll(2);
    int rc = load(NULL, &cfg, &e);
    rc = rc == 0 ? config_set(&cfg, "cpu_fallback", fallbacks[roll(3)], CONFIG_FROM_FLAG, &e) : rc;
    ASSERT(rc == 0);
    struct supervisor_options o = {.program_dir = "/x",
                                   .state_dir = roll(4) ? "/state" : "",
                                   .front_argv = argv,
                                   .load = load};
    (void)supervisor_run(&cfg, &o);
    for (size_t i = 0; i < n_procs; i++) {
        if (is_alive(&procs[i]) && !procs[i].is_unkillable) {
            WRONG("a process of role %d is left", procs[i].role);
        }
    }
    gateway_forget_all();
    config_finish(&cfg);
}

int main(int argc, char **argv)
{
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 3000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    world_is_loud = getenv("SIMULATION_LOUD") != NULL;
    struct timespec t0, t1;
    (void)mallopt(M_MMAP_THRESHOLD, 64 * 1024); /* a journal of zero pages, not of zeroed ones */
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (uint64_t i = 0; i < n; i++) {
        run_schedule(first + i);
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    printf("%llu schedules, %llu steps, %llu deaths, %llu times ready; %.0f schedules/s\n",
           (unsigned long long)n, (unsigned long long)counts.steps,
           (unsigned long long)counts.deaths, (unsigned long long)counts.ready, (double)n / s);
    printf("%llu requests: %llu answered, %llu failed, %llu convicted, %llu refused, %llu left by "
           "their clients (%llu suspects), %llu ended with their gateway; %llu given to another "
           "worker\n",
           (unsigned long long)counts.submitted, (unsigned long long)counts.answered,
           (unsigned long long)counts.failed, (unsigned long long)counts.convicted,
           (unsigned long long)counts.refused, (unsigned long long)counts.cancelled,
           (unsigned long long)counts.left, (unsigned long long)counts.with_gateway,
           (unsigned long long)counts.resumed);
    uint64_t n_ended = counts.answered + counts.failed + counts.convicted + counts.refused +
                       counts.cancelled + counts.with_gateway;
    if (n_ended != counts.submitted) {
        WRONG("%llu requests ended", (unsigned long long)n_ended);
    }
    return 0;
}
