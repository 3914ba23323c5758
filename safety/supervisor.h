/* The supervisor: starts front, worker and probe, hands them what they need, watches them, starts
 * them again, and ends them. Read this file first.
 *
 * One thread, one poll() loop. It touches no ring, opens nothing of a request, calls no HIP and
 * reads no GPU sysfs, because each of these can hang or kill the process that does it. It allocates
 * at start and at reload only.
 *
 *   supervisor.c  the loop: timers, signals, reload, drain and end
 *   launch.c      starting children: settings, epochs, programs
 *   dialog.c      what the children say, and our answers
 *   crash.c       crash reports
 *   degrade.c     which settings the next worker gets, when the GPU fails
 *   giveback.c    what the worker gives back of the card's memory
 *   card.c        what happens to the card beside our work
 *   death.c       a child died: whose fault, what the log and the gateway are told, when again
 *
 * An epoch is one pairing of a worker's life with a front's: rings, bells and status page are made
 * for it, closed with it and never used again. When a worker dies, the next one and the same
 * gateway get a new epoch; when a gateway dies, its successor and the same worker do, whose models
 * stay loaded. The listening sockets stay open throughout. */
#ifndef SAFETY_SUPERVISOR_H
#define SAFETY_SUPERVISOR_H

#include "ipc/poison.h"
#include "safety/child.h"
#include "safety/epoch.h"
#include "safety/ladder.h"
#include "safety/listen.h"
#include "safety/policy.h"
#include "safety/vault.h"
#include "safety/tail.h"
#include "safety/vram.h"
#include "safety/watchdog.h"
#include "shared/config.h"

enum {
    SUPERVISOR_CHILDREN = 6,
    SUPERVISOR_MAX_STUCK = 12,
    SUPERVISOR_ASKS = 8,
    SUPERVISOR_PATH_BYTES = 4096
};

struct supervisor_options {
    const char *state_dir;   /* where reports are kept; "": nowhere */
    const char *program_dir; /* where rocmforge-gateway, -worker and -probe stand */
    char *const *front_argv; /* of rocmforge-gateway, ended by NULL */
    bool is_terminal;        /* run, chat: the front talks to the terminal and its end is ours */
    uint64_t stall_ms;       /* 0: the built-in deadlines for missing progress */
    uint64_t reap_ms;        /* 0: the built-in time that SIGKILL may take */
    uint64_t calm_ms;        /* 0: the built-in time after which the ceiling of VRAM may rise */
    /* Reads the configuration anew (SIGHUP) into a fresh struct. */
    int (*load)(void *arg, struct config *ret, struct err *e);
    void *load_arg;
};

/* Runs until told to end; returns the exit code of the command. cfg stays the caller's; a reload
 * replaces what is in it. */
int supervisor_run(struct config *cfg, const struct supervisor_options *o);

/* ---- inside the supervisor ---- */

enum supervisor_phase {
    SUPERVISOR_SERVING,
    SUPERVISOR_DRAINING, /* running requests end, nothing new begins */
    SUPERVISOR_ENDING,   /* children are being ended */
};

/* crash.c's: the report being written, and what the gateway has asked. */
struct crash {
    bool is_open; /* on a worker that was condemned and lives */
    pid_t subject;
    bool is_waiting;   /* facts, until a reporter has greeted that was started for them */
    bool is_reporting; /* the present reporter is that one */
    struct msg_crash facts;
    int fds[2];
    unsigned n_tokens; /* reports that may be written now */
    uint64_t refill_ms;
    uint64_t n_skipped;
    struct msg_ask asks[SUPERVISOR_ASKS]; /* oldest first; the clerk has the first */
    size_t n_asks;
    bool is_asked;         /* the clerk lives for the first */
    struct msg_tally told; /* to the gateway */
};

struct monitor {
    struct vram_watch vram;
    struct msg_vram last;
    uint64_t heard_ms; /* when it last said something */
    uint64_t tick_ms;  /* when that was last looked at */
    uint64_t start_ms; /* not started before */
    pid_t worker;      /* that it looks at */
    struct vram_spill spill;
    bool is_spilled;   /* the log has been told */
    bool is_asleep;    /* the machine is, or is about to be: no worker is started */
    bool owes_word;    /* the monitor waits to hear that no worker holds the card */
};

/* card.c's. */
struct card {
    bool is_resetting; /* since reset_ms */
    uint64_t reset_ms;
    bool is_excuse;  /* that reset was another program's doing, and has not ended a worker of ours
                        yet */
    pid_t fault_pid; /* whose last page fault was reported (0: not known), and when; 0: none was */
    uint64_t fault_ms;
    uint64_t throttle_ms; /* when the log was told of it last */
    bool is_wedged; /* since wedged_ms */
    uint64_t wedged_ms;
    bool is_gone; /* wedged, and its files are away: when they are there again, so is it */
};

/* giveback.c's. */
struct giveback {
    uint64_t round, heard; /* BUDGETs, and of these the last that was answered */
    unsigned n_stale;      /* measurements to come that may be older than the last change */
    uint64_t left_ms;      /* since when more is held than can be given back; 0: it is not */
    uint64_t full_bytes;   /* of memory that the worker had wanted that was ended for want of it; 0:
                              none was */
    uint64_t squeezed_ms;  /* when that was */
    bool is_told;          /* the log knows that nothing can be done */
    bool is_bound;         /* the worker was told a ceiling, */
    uint64_t bound_bytes;  /* this one */
};

/* degrade.c's. */
struct degrade {
    struct ladder ladder;
    char key[33];         /* of the models, in the file that remembers */
    bool is_dirty;        /* and is to be written */
    uint32_t worker_rung; /* of the present worker */
    bool had_gpu;         /* a worker was ready on the GPU */
};

struct supervisor {
    const struct supervisor_options *options;
    struct config *cfg;
    enum supervisor_phase phase;
    int exit_code;
    uint64_t drain_deadline_ms;
    uint64_t ending_ms; /* since when phase is ENDING */
    uint64_t tick_ms;   /* at least this often the loop looks at the worker */

    int signal_fd;       /* owned */
    int config_fd;       /* owned; sealed memfd with the settings */
    int key_fd;          /* owned; API key file; -1 without one */
    uint64_t generation; /* of the settings */
    struct listen_set listening;
    bool had_terminal; /* was started from one: SIGHUP can mean that it is gone */

    struct child front; /* the gateway, or the terminal of run and chat */
    struct child worker;
    struct child probe;
    struct child reporter; /* writes a crash report */
    struct child clerk;    /* reads them for the gateway */
    struct child monitor;  /* looks at the card's memory once a second, while the worker holds it */
    struct monitor watch;  /* what it saw */
    struct giveback giveback;
    struct card card;
    struct policy front_policy, worker_policy;
    uint64_t front_at_ms, worker_at_ms; /* not started again before */

    struct epoch epoch; /* the present one; id 0 without a worker */
    uint64_t last_epoch;
    struct status_pace pace; /* as the last worker measured it */
    bool is_front_attached; /* to epoch */
    bool is_epoch_used;     /* a front has been attached to it, perhaps one that is dead */
    struct watchdog watchdog;
    struct tail tail;     /* the worker's stderr */
    uint64_t n_oom_kills; /* in our cgroup, when the worker was started */
    uint64_t load_ms;     /* what the last load took; for Retry-After */
    uint64_t died_ms;     /* when the last worker died; 0 none */

    struct vault vault; /* what workers leave to their successors */

    struct child stuck[SUPERVISOR_MAX_STUCK]; /* cannot be killed; slots with state NONE are free */

    struct channel_msg held; /* a BULK for which the worker's channel has no room yet */
    bool has_held;           /* while true the front is not read */

    struct crash crash;
    struct degrade degrade;
    struct msg_tally tally;

    struct poison poison; /* what the gateway refuses, for its successor */

    bool was_ready;         /* systemd was told */
    uint64_t notify_ms;     /* last WATCHDOG=1 */
    uint64_t front_seen_ms; /* when the gateway last answered a PING */
    uint64_t ping_ms;       /* when it was last asked */
};

/* Begins the end of everything. The first exit code given stays. */
void supervisor_end(struct supervisor *s, int exit_code, uint64_t now_ms);

#endif
