/* Who waits and who runs: both in order of age, oldest first. See scheduler_state.h. */
#include "shared/log.h"
#include "worker/scheduler_state.h"

#include <string.h>

void scheduler_queue_put(struct scheduler *s, struct choice *c)
{
    struct choice *after = s->tail;
    while (after && choice_is_older(c, after)) {
        after = after->prev;
    }
    c->prev = after;
    c->next = after ? after->next : s->head;
    *(c->next ? &c->next->prev : &s->tail) = c;
    *(after ? &after->next : &s->head) = c;
}

void scheduler_queue_take(struct scheduler *s, struct choice *c)
{
    *(c->prev ? &c->prev->next : &s->head) = c->next;
    *(c->next ? &c->next->prev : &s->tail) = c->prev;
    c->prev = c->next = NULL;
}

static bool is_waiting(const struct scheduler *s, const struct choice *c)
{
    return c->prev || s->head == c;
}

void scheduler_queue_run(struct scheduler *s, struct choice *c)
{
    int at = s->n_running++;
    for (; at > 0 && choice_is_older(c, s->running[at - 1]); at--) {
        s->running[at] = s->running[at - 1];
    }
    s->running[at] = c;
}

static void stop_running(struct scheduler *s, struct choice *c)
{
    int at = 0;
    while (s->running[at] != c) {
        at++;
    }
    memmove(&s->running[at], &s->running[at + 1],
            (size_t)(s->n_running - at - 1) * sizeof(s->running[0]));
    s->n_running--;
    engine_seq_destroy(s->engine, &c->seq);
}

void scheduler_queue_leave(struct scheduler *s, struct choice *c)
{
    if (c->seq) {
        stop_running(s, c);
    } else if (is_waiting(s, c)) {
        scheduler_queue_take(s, c);
    }
}

void scheduler_queue_preempt(struct scheduler *s, struct choice *c)
{
    log_debug("request %llu choice %u: back to the queue with %lld tokens",
              (unsigned long long)c->request->id, c->number, (long long)choice_n_known(c));
    stop_running(s, c);
    scheduler_queue_put(s, c);
    s->stats.n_preempted++;
    uint64_t now = s->events->now_ns;
    trace_add(s->events->trace, TRACE_PREEMPT, c->request->id, now, now, choice_n_known(c));
}
