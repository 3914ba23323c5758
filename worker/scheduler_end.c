/* How requests and choices end: by themselves, by their client, by failing, by the clock. See
 * scheduler_state.h. */
#include "worker/scheduler_state.h"

void scheduler_remove(struct scheduler *s, struct request *r)
{
    for (uint32_t i = 0; r->choices && i < r->generate.n_choices; i++) {
        scheduler_queue_leave(s, &r->choices[i]);
    }
}

void scheduler_end_request(struct scheduler *s, struct request *r, const struct err *e)
{
    scheduler_remove(s, r);
    events_fail(s->events, r, e);
}

void scheduler_end_choice(struct scheduler *s, struct choice *c)
{
    struct request *r = c->request;
    scheduler_queue_leave(s, c);
    if (!c->had_ended) {
        choice_send_finish(c, s->events);
    }
    if (--r->n_unfinished == 0) {
        events_done(s->events, r);
    }
}

/* Every choice that goes on ends with this reason. */
static void end_all(struct scheduler *s, struct request *r, enum msg_finish_reason reason)
{
    scheduler_remove(s, r);
    for (uint32_t i = 0; r->started_ns && i < r->generate.n_choices; i++) {
        struct choice *c = &r->choices[i];
        if (!c->reason) {
            c->reason = reason;
            choice_send_finish(c, s->events);
        }
    }
    events_done(s->events, r);
}

void scheduler_cancel(struct scheduler *s, struct request *r)
{
    end_all(s, r, MSG_FINISH_CANCEL);
}

/* ---- time limits ---- */

/* Which of its time limits a request has passed; 0 none. */
static int overdue(const struct scheduler *s, const struct request *r)
{
    const struct msg_generate *g = &r->generate;
    uint64_t ms = (s->events->now_ns - MIN(r->received_ns, s->events->now_ns)) / 1000000;
    bool has_token = r->first_ns || r->is_resumed;
    return g->total_ms && ms >= g->total_ms                     ? ERR_TOTAL_TIMEOUT
           : g->first_ms && !has_token && ms >= g->first_ms     ? ERR_FIRST_TOKEN_TIMEOUT
           : g->queue_ms && !r->started_ns && ms >= g->queue_ms ? ERR_QUEUE_TIMEOUT
                                                                : 0;
}

static struct request *find_overdue(const struct scheduler *s, int *ret_why)
{
    for (const struct choice *c = s->head; c; c = c->next) {
        if ((*ret_why = overdue(s, c->request)) < 0) {
            return c->request;
        }
    }
    for (int i = 0; i < s->n_running; i++) {
        if ((*ret_why = overdue(s, s->running[i]->request)) < 0) {
            return s->running[i]->request;
        }
    }
    return NULL;
}

void scheduler_end_overdue(struct scheduler *s)
{
    struct request *r;
    int why;
    while ((r = find_overdue(s, &why))) {
        if (why == ERR_TOTAL_TIMEOUT && r->started_ns && (r->first_ns || r->is_resumed)) {
            end_all(s, r, MSG_FINISH_TIMEOUT);
        } else {
            struct err e;
            err_set(&e, why, "%.3f s", (double)(s->events->now_ns - r->received_ns) * 1e-9);
            scheduler_end_request(s, r, &e);
        }
    }
}
