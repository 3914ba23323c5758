/* The made-up world of the supervisor's simulation: processes, channels, rings and time. Everything
 * that a kernel would do for supervisor and gateway is done here, from a seed.
 *
 *     world_kernel.c   what the supervisor calls in place of the kernel
 *     world_process.c  processes and control channels
 *     world_worker.c   a worker: it loads, computes requests, and ends in every way
 *     world_want.c     what requests are and what their answers have to be
 *     world_gateway.c  the real link and journal of the gateway, their clients, and what these hear
 *     simulation_test.c  time, schedules, what must always be true */
#ifndef TESTS_SAFETY_WORLD_H
#define TESTS_SAFETY_WORLD_H

#include "ipc/channel.h"
#include "ipc/ring.h"
#include "ipc/status.h"
#include "tests/test.h"

enum {
    N_PROCS = 24,
    QUEUE = 16,
    N_EPOCHS = 4, /* of which the memory exists: nobody lags behind by more */
    RING_BYTES = 4096,
    FD0 = 1000000,
    SIGNAL_FD = FD0 - 1,
    MAP_FD = FD0 + 200000, /* of an epoch's memory, see world_map */
};
enum role { GATEWAY, WORKER, PROBE, REPORTER, CLERK, MONITOR };

struct proc {
    bool exists, is_zombie, is_hung, is_unkillable, is_killed, has_gpu, has_config;
    bool is_external;   /* somebody else killed it */
    bool gives_cause;   /* it gives cause to be ended */
    bool was_signalled; /* by the supervisor */
    enum role role;
    pid_t pid;
    int exit_code, signal;
    uint64_t start_ms, next_ms, killed_ms, epoch;
    int stage;                      /* of a worker: 4 serves */
    struct channel_msg *out[QUEUE]; /* to the supervisor; borrowed from a pool */
    size_t n_out;
};

/* What of an epoch is shared memory. */
struct world_epoch {
    _Alignas(128) uint8_t requests[4096 + RING_BYTES], events[4096 + RING_BYTES];
    union {
        struct status_page page;
        uint8_t page_bytes[STATUS_PAGE_BYTES];
    };
};

struct world {
    uint64_t seed, rng, now_ms, idle_since_ms, end_ms, ready_ms;
    int n_steps;
    pid_t next_pid;
    bool is_calm, is_ending, has_gpu;
    bool is_innocent; /* workers die by their own fault of poison only */
    uint64_t danger;  /* of a hundred steps of a worker, those above this are its last */
    int n_front_deaths;
    uint64_t front_died_ms;
    int dead_signal;   /* how the last worker ended */
    bool dead_outside; /* by somebody else */
    bool dead_healthy; /* nobody had signalled it */
    int signal;        /* to the supervisor */
    uint64_t oom;
    uint64_t attached; /* epoch that the front was told of */
    uint64_t model;    /* version of the model's file */
    uint64_t reset_ms, wedged_ms; /* when the monitor told that of the card last; 0: never */
};

extern struct world w;
extern struct proc procs[N_PROCS];
extern size_t n_procs; /* of these, from the first, are or were used */
extern struct world_epoch epochs[N_EPOCHS];

struct world_counts {
    uint64_t steps, deaths, ready;
    uint64_t submitted, answered, cancelled, convicted, refused, failed, resumed;
    uint64_t left; /* of the cancelled: suspects that stay until they are judged */
    uint64_t with_gateway; /* requests that ended with their gateway */
};
extern struct world_counts counts;
extern bool world_is_loud;

#define WRONG(...)                                                                                 \
    do {                                                                                           \
        fprintf(stderr, "seed %llu, %llu ms: ", (unsigned long long)w.seed,                        \
                (unsigned long long)w.now_ms);                                                     \
        TEST_FAIL(__VA_ARGS__);                                                                    \
    } while (0)

uint64_t roll(uint64_t n); /* 0 .. n-1 */
bool chance(uint64_t one_in); /* never when all is calm */

static inline struct world_epoch *world_epoch(uint64_t id)
{
    return &epochs[id % N_EPOCHS];
}

/* ---- processes ---- */
bool is_alive(const struct proc *p);
struct proc *find(enum role role); /* that is not beyond SIGKILL; NULL */
struct proc *of_fd(int fd);
void end(struct proc *p, int exit_code, int signal);
/* To the supervisor; false: no room now. */
bool say(struct proc *p, uint32_t type, uint64_t epoch, const void *payload, size_t len);
void run_proc(struct proc *p);

/* ---- a worker ---- */
enum { N_JOBS = 64 };
void worker_attach(struct proc *p, uint64_t epoch);
void worker_run(struct proc *p);

/* The numbers of those with which it computes. */
struct company {
    uint64_t numbers[N_JOBS];
    size_t n;
};
void worker_company(struct company *ret);

/* ---- the gateway ---- */
void gateway_begin(struct proc *p);
void gateway_end(void);
void gateway_forget_all(void); /* before and after a schedule */
/* A message from the supervisor; taken a moment later. */
void gateway_hear(struct proc *p, uint32_t type, const void *payload, size_t len);
void gateway_run(struct proc *p);
void gateway_bell(void); /* there is something in the event ring */
bool gateway_is_waiting(uint64_t epoch); /* the request ring of that epoch is not read */
bool gateway_is_idle(void); /* no request is live */
/* The worker computes with these: does the one with that number, and may it, beside them? */
bool gateway_is_settled(void);
bool client_is_suspect(uint64_t number);
void client_got_on(uint64_t number);

/* What a request is and what its answer has to be, as functions of its number alone. */
struct want {
    uint32_t n_choices, base, n_vocab;
    bool is_text, is_poison;
    bool is_flaky;      /* a poison that does not always kill */
    uint32_t poison_at; /* the token of choice 0 that kills */
    uint32_t text_bytes;
};
enum { N_VOCAB = 1000, N_PROMPT = 3, MAX_CHOICES = 3, N_POISONS = 4 };
/* What two have in common that are the same request sent again: their number's rest by N_POISONS is
 * not 0, and the same. */
uint64_t want_key(uint64_t number);
void want_of(uint64_t number, struct want *ret);
int32_t want_id(uint64_t number, uint32_t choice, uint32_t position);
uint32_t want_length(uint64_t number, uint32_t choice); /* tokens that are sent */
bool want_is_stopped(uint64_t number, uint32_t choice); /* by an id of its own; else by length */
char want_byte(uint64_t number, uint64_t at);

#endif
