/* One process as the kernel knows it: fork and exec, signals, reaping. child.h is its life. */
#ifndef SAFETY_PROCESS_H
#define SAFETY_PROCESS_H

#include "shared/base.h"
#include <sys/types.h>

enum { PROCESS_EXEC_FAILED = 127 }; /* exit code of one that could not be executed */

struct process_options {
    const char *path;    /* of the program */
    char *const *argv;   /* terminated by NULL; copied by the kernel */
    bool keeps_terminal; /* the front of run and chat: stays in our process group with our stdin and
                            stdout; all others get a group of their own and never see Ctrl-C */
    bool wants_stderr;   /* its stderr (and stdout) comes to us through a pipe */
    int oom_score_adj;   /* raised to this; 0 leaves it */
};

struct process {
    pid_t pid;
    int pidfd;      /* owned */
    int channel_fd; /* owned; our end */
    int stderr_fd;  /* owned, not blocking; -1 where it was not wanted */
};

/* Forks and executes; the child finds its channel at CHANNEL_CHILD_FD, every other descriptor but
 * 0, 1, 2 closed, default signals, no core dumps, and dies with us. If the program cannot be
 * executed the child says so on stderr and exits with PROCESS_EXEC_FAILED. 0 or -errno. */
MUST_CHECK int process_start(const struct process_options *o, struct process *ret);

void process_signal(int pidfd, int sig);

/* Has it ended? Kills what is left of its process group (kills_group), reaps it; exit_code is -1
 * where a signal ended it, signal 0 where it exited. */
bool process_reap(int pidfd, pid_t pid, bool kills_group, int *ret_exit_code, int *ret_signal);

#endif
