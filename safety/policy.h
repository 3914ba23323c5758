/* What to do when a child dies: whose fault it was, whether and when it is started again. A pure
 * function of events and the time given with them, so that tests run it in virtual time.
 *
 * The rules (design, "whose fault"):
 * - A death is the child's own fault unless we ordered it, or it is a SIGKILL that neither we sent
 *   nor the kernel's OOM killer explains, or a reset of the GPU that another program caused. What
 *   is not its fault costs nothing.
 * - Its own fault, but it had got work done since its start: started again at once, or after
 *   POLICY_PACE_MS when the last such death was less than POLICY_QUICK_MS ago, because a GPU
 *   suffers from every kill. Whether a request is to blame is the gateway's business (poison).
 * - Its own fault without work done: the first restart is immediate, the next few come after
 *   POLICY_PACE_MS; from POLICY_INTENSITY deaths within POLICY_WINDOW_MS on after 1, 2, 4 .. 60 s.
 * - A child that says itself that it cannot start (configuration, model, device, memory) or cannot
 *   be executed is not tried again blindly: before it was ever ready this ends the program with its
 *   exit code, later it waits with the long back-off.
 * - Being ready for POLICY_FORGIVE_MS forgives everything; so does a reload. */
#ifndef SAFETY_POLICY_H
#define SAFETY_POLICY_H

#include "shared/base.h"

enum {
    POLICY_INTENSITY = 5,
    POLICY_WINDOW_MS = 60 * 1000,
    POLICY_PACE_MS = 200,
    POLICY_QUICK_MS = 2000,
    POLICY_BACKOFF_MIN_MS = 1000,
    POLICY_BACKOFF_MAX_MS = 60 * 1000,
    POLICY_FORGIVE_MS = 5 * 60 * 1000,
};

/* How a child ended, as the supervisor saw it. */
struct policy_death {
    int exit_code;     /* -1: ended by a signal */
    int signal;        /* 0: it exited */
    bool is_ordered;   /* we asked it to end */
    bool is_condemned; /* we killed it for missed progress or a broken protocol */
    bool is_oom_kill;  /* the kernel counted an OOM kill in our cgroup meanwhile */
    bool
        is_explained; /* something outside ended it: the GPU was reset because of another program */
    bool has_words;    /* it left last words */
    bool has_worked;   /* it got work done since its start */
};

enum policy_blame { POLICY_ORDERED, POLICY_EXTERNAL, POLICY_OWN };

struct policy {
    uint64_t deaths_ms[POLICY_INTENSITY]; /* of counted deaths, newest first */
    int n_deaths;
    uint64_t own_ms; /* of the last death that was its own fault */
    bool has_own;
    unsigned n_backoffs; /* restarts in a row that were delayed by back-off */
    unsigned n_early;    /* external deaths in a row before it was ready */
    bool is_ready;
    bool was_ever_ready;
    uint64_t ready_ms;
};

struct policy_decision {
    enum policy_blame blame;
    bool gives_up; /* end the program; else start the child again after delay_ms */
    int exit_code; /* of the program that gives up */
    uint64_t delay_ms;
};

void policy_init(struct policy *p);
void policy_ready(struct policy *p, uint64_t now_ms);
/* The user changed something (reload): every death is forgiven. */
void policy_forgive(struct policy *p);
/* Did it say itself, by its exit code, that trying again changes nothing? */
bool policy_is_refusal(const struct policy_death *d);
enum policy_blame policy_blame(const struct policy_death *d);
struct policy_decision policy_died(struct policy *p, const struct policy_death *d, uint64_t now_ms);

#endif
