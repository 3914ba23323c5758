/* The life of one child; runs in the supervisor. Never blocks. Pure but for what process.c does. */
#include "safety/child.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void child_init(struct child *c, const char *name, enum msg_peer role)
{
    *c = (struct child){
        .name = name, .role = role, .pidfd = -1, .stderr_fd = -1, .deadline_ms = UINT64_MAX};
    c->channel.fd = -1;
}

int child_spawn(struct child *c, const struct child_options *o, uint64_t epoch, uint64_t now_ms)
{
    ASSERT(c->state == CHILD_NONE);
    struct process p;
    int rc = process_start(&o->process, &p);
    if (rc != 0) {
        return rc;
    }
    child_init(c, c->name, c->role);
    channel_init(&c->channel, p.channel_fd, MSG_SUPERVISOR, c->role);
    c->state = CHILD_STARTED;
    c->pid = p.pid;
    c->pidfd = p.pidfd;
    c->stderr_fd = p.stderr_fd;
    c->epoch = epoch;
    c->start_ms = now_ms;
    c->deadline_ms = now_ms + CHILD_HELLO_MS;
    c->reap_ms = o->reap_ms ? o->reap_ms : CHILD_REAP_MS;
    c->keeps_terminal = o->process.keeps_terminal;
    c->evidence_ms = o->evidence_ms;
    return 0;
}

void child_end(struct child *c, uint64_t grace_ms, uint64_t now_ms)
{
    if (!child_is_alive(c)) {
        return;
    }
    c->is_ordered = true;
    c->state = CHILD_ENDING;
    c->deadline_ms = now_ms + grace_ms;
    process_signal(c->pidfd, SIGTERM);
}

void child_condemn(struct child *c, uint64_t now_ms, const char *fmt, ...)
{
    if (!child_is_alive(c)) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->reason, sizeof(c->reason), fmt, ap);
    va_end(ap);
    if (c->evidence_ms == 0) {
        child_end(c, CHILD_LAST_MS, now_ms);
        return;
    }
    c->is_ordered = true;
    c->state = CHILD_CONDEMNED;
    c->deadline_ms = now_ms + c->evidence_ms;
}

void child_execute(struct child *c, uint64_t now_ms)
{
    if (c->state == CHILD_CONDEMNED) {
        c->state = CHILD_ENDING;
        c->deadline_ms = now_ms + CHILD_LAST_MS;
        process_signal(c->pidfd, SIGTERM);
    }
}

void child_kill(struct child *c, uint64_t now_ms)
{
    if (c->state == CHILD_NONE || c->state >= CHILD_KILLED) {
        return;
    }
    c->is_ordered = true;
    c->state = CHILD_KILLED;
    c->deadline_ms = now_ms + c->reap_ms;
    process_signal(c->pidfd, SIGKILL);
}

bool child_tick(struct child *c, uint64_t now_ms)
{
    if (now_ms < c->deadline_ms) {
        return false;
    }
    switch (c->state) {
    case CHILD_STARTED:
        child_condemn(c, now_ms, "it did not greet within %d s of its start",
                      CHILD_HELLO_MS / 1000);
        return false;
    case CHILD_GREETED:
    case CHILD_ATTACHED:
    case CHILD_READY:
        child_condemn(c, now_ms, "it closed its channel and lives on");
        return false;
    case CHILD_CONDEMNED:
        child_execute(c, now_ms);
        return false;
    case CHILD_ENDING:
        child_kill(c, now_ms);
        return false;
    case CHILD_KILLED:
        c->state = CHILD_STUCK;
        c->deadline_ms = UINT64_MAX;
        return true;
    case CHILD_NONE:
    case CHILD_STUCK:
        break;
    }
    return false;
}

bool child_reap(struct child *c, struct policy_death *ret)
{
    int exit_code, signal;
    if (!process_reap(c->pidfd, c->pid, !c->keeps_terminal, &exit_code, &signal)) {
        return false;
    }
    *ret = (struct policy_death){.exit_code = exit_code,
                                 .signal = signal,
                                 .is_ordered = c->is_ordered,
                                 .is_condemned = c->reason[0] != '\0'};
    close(c->pidfd);
    c->pidfd = -1;
    if (c->stderr_fd >= 0) {
        close(c->stderr_fd);
        c->stderr_fd = -1;
    }
    channel_close(&c->channel);
    c->state = CHILD_NONE;
    c->deadline_ms = UINT64_MAX;
    return true;
}
