/* A supervisor under test with dummy children: starts `rocmforge`, reads its log line by line, and
 * knows the pids. */
#ifndef TESTS_SAFETY_RIG_H
#define TESTS_SAFETY_RIG_H

#include "tests/test.h"

struct rig {
    pid_t pid;  /* of rocmforge */
    int log_fd; /* its stderr and its children's */
    char buf[1 << 16];
    size_t n;
    char line[4096]; /* the last line that rig_expect found */
};

/* argv[1..3] of a test: rocmforge, the dummy, the real rocmforge-probe. */
void rig_init(int argc, char **argv);
void rig_clean(void);
const char *rig_dir(void); /* a scratch folder; holds rocmforge-* links to the dummy */

/* Starts `rocmforge --libexec DIR args...` (NULL-terminated list). */
void rig_start(struct rig *r, const char *const args[]);
/* `serve` with a free port and what is given. */
void rig_serve(struct rig *r, const char *option, const char *value);
/* The same, and waits until all is ready; returns the worker's pid. */
pid_t rig_serve_ready(struct rig *r, const char *option, const char *value);
/* How the dummies of the next server behave (words of dummy.c). */
void rig_plan(const char *gateway, const char *worker);
/* A connection to the server; and what the dummy gateway answers, which closes it. */
int rig_dial(int port);
void rig_check_answer(int fd);
/* Waits for a line that holds text and takes it out of the log; lines before it stay, because
 * several processes write. Fails the test after 20 s. */
const char *rig_expect(struct rig *r, const char *text);
/* The number that follows text in the line found. */
long rig_number(const struct rig *r, const char *text);
/* Waits for its end; returns the exit status (128 + signal when killed). */
int rig_wait(struct rig *r);
/* SIGTERM, and it must end with 0. */
void rig_stop(struct rig *r);
int rig_port(const struct rig *r); /* after the line "listening on" was expected */
int rig_count_fds(pid_t pid);
/* Does the process exist (a zombie does not)? */
int rig_is_alive(pid_t pid);

#endif
