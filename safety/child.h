/* One child process of the supervisor: its life from fork to reaping.
 *
 *   NONE -> STARTED -> GREETED -> ATTACHED -> READY
 *   any living state -> ENDING (SIGTERM, a grace period) -> KILLED (SIGKILL) -> reaped: NONE
 *   any living state -> CONDEMNED (its evidence is being written) -> ENDING
 *   KILLED -> STUCK when the kernel does not let it die within CHILD_REAP_MS (state D)
 *
 * A child's own exit leads from every state to NONE. pid and pidfd are valid in all states but
 * NONE. */
#ifndef SAFETY_CHILD_H
#define SAFETY_CHILD_H

#include "ipc/channel.h"
#include "safety/policy.h"
#include "safety/process.h"
#include "shared/err.h"

enum child_state {
    CHILD_NONE,
    CHILD_STARTED,  /* its HELLO is due */
    CHILD_GREETED,  /* has its configuration */
    CHILD_ATTACHED, /* has its rings */
    CHILD_READY,
    CHILD_CONDEMNED, /* hangs or broke the protocol; no signal was sent yet */
    CHILD_ENDING,
    CHILD_KILLED,
    CHILD_STUCK,
};

enum {
    CHILD_HELLO_MS = 30 * 1000,
    CHILD_GRACE_MS = 2000, /* between SIGTERM and SIGKILL when we order the end */
    CHILD_LAST_MS = 200,   /* the same for a child that hangs or breaks the protocol */
    CHILD_REAP_MS = 10 * 1000,
};

struct child {
    const char *name; /* "worker"; borrowed */
    enum msg_peer role;
    enum child_state state;
    pid_t pid;
    int pidfd;              /* owned; -1 */
    int stderr_fd;          /* owned; -1 */
    struct channel channel; /* owned */
    uint64_t epoch;
    uint64_t start_ms;
    uint64_t deadline_ms; /* of the present state; UINT64_MAX: none */
    uint64_t reap_ms, evidence_ms;
    bool keeps_terminal;
    bool was_ready;
    bool is_drained;
    bool holds_gpu;
    bool is_ordered;               /* we asked it to end */
    char reason[ERR_DETAIL_BYTES]; /* why we condemned it; "" if we did not */
};

struct child_options {
    struct process_options process;
    uint64_t reap_ms;     /* how long SIGKILL may take; 0: CHILD_REAP_MS */
    uint64_t evidence_ms; /* what is known of it is written down before we end it, in at most this
                             time; 0: nobody does */
};

void child_init(struct child *c, const char *name, enum msg_peer role);

/* As process_start; it is to greet within CHILD_HELLO_MS. 0 or -errno. */
MUST_CHECK int child_spawn(struct child *c, const struct child_options *o, uint64_t epoch,
                           uint64_t now_ms);

static inline bool child_is_alive(const struct child *c) /* and not yet on its way out */
{
    return c->state >= CHILD_STARTED && c->state <= CHILD_READY;
}

/* SIGTERM now, SIGKILL after grace_ms. No effect on a child that is already on its way out. */
void child_end(struct child *c, uint64_t grace_ms, uint64_t now_ms);
/* The same for a child that hangs or broke the protocol: its death is its own fault. One with
 * evidence_ms first waits for child_execute, at most so long. */
void child_condemn(struct child *c, uint64_t now_ms, const char *fmt, ...) PRINTF_LIKE(3, 4);
void child_execute(struct child *c, uint64_t now_ms); /* no effect on one that is not condemned */
void child_kill(struct child *c, uint64_t now_ms);

/* Deadlines of ending and killing; true when it just became STUCK. */
bool child_tick(struct child *c, uint64_t now_ms);

/* When the pidfd is readable: kills what is left of its process group, reaps it, closes everything,
 * leaves state NONE. Returns true and fills exit_code, signal, is_ordered and is_condemned of *ret;
 * false: not dead yet. */
bool child_reap(struct child *c, struct policy_death *ret);

#endif
