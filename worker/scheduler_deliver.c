/* What came out of a step: ids are checked or drawn, prompts reported, choices born and ended. See
 * scheduler_state.h. */
#include "worker/scheduler_state.h"

/* Of an id that an earlier epoch drew. 0, or the request has failed. */
static int check(struct scheduler *s, struct choice *c, int64_t position,
                 struct choice_logits *logits)
{
    struct err e;
    int err = choice_wants_check(c, position) ? choice_check(c, position, logits, &e) : 0;
    if (err < 0) {
        scheduler_end_request(s, c->request, &e);
    }
    return err;
}

/* 0, or the request has failed. */
static int draw(struct scheduler *s, struct choice *c, struct choice_logits *logits)
{
    struct err e;
    int err = choice_draw(c, logits, s->events, &e);
    if (err < 0) {
        scheduler_end_request(s, c->request, &e);
    }
    return err;
}

/* The prompt stands: the other choices begin. Those that find no slot or blocks wait in the queue.
 */
static int bear(struct scheduler *s, struct choice *bearer, struct choice_logits *logits)
{
    struct request *r = bearer->request;
    r->bearer = NULL;
    r->n_unborn = 0;
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        struct choice *c = &r->choices[i];
        if (!c->is_unborn) {
            continue;
        }
        c->is_unborn = false;
        int err = c->n_ids ? check(s, c, 0, logits) : draw(s, c, logits);
        if (err < 0) {
            return err;
        }
        if (c->reason) {
            scheduler_end_choice(s, c);
            continue;
        }
        if (s->n_running < s->n_seqs && engine_seq_fork(s->engine, bearer->seq, &c->seq) == 0) {
            scheduler_queue_run(s, c);
        } else {
            scheduler_queue_put(s, c);
        }
    }
    return 0;
}

/* Prompt tokens whose report became possible with the row at i (its logits tell of token i + 1). */
static int echo(struct scheduler *s, struct request *r, int64_t i, struct choice_logits *logits)
{
    struct err e;
    int err = 0;
    if (i == 0 && r->n_echoed == 0) {
        err = choice_echo(r, NULL, s->events, &e);
    }
    if (err == 0 && i + 1 < r->n_prompt && r->n_echoed == i + 1) {
        err = choice_echo(r, logits, s->events, &e);
    }
    if (err < 0) {
        scheduler_end_request(s, r, &e);
    }
    return err;
}

void scheduler_deliver(struct scheduler *s, const struct scheduler_slice *slice,
                       const struct engine_row *rows, int64_t first_logits)
{
    struct choice *c = slice->choice;
    struct request *r = c->request;
    int64_t n_before = choice_n_known(c);
    for (int64_t k = 0; k < slice->n; k++) {
        int64_t i = slice->first + k;
        struct choice_logits here, *x = NULL;
        if (rows[k].want_logits) {
            here = (struct choice_logits){s->engine, first_logits, s->logits[first_logits]};
            first_logits++;
            x = &here;
        }
        if (r->echo && echo(s, r, i, x) < 0) {
            return;
        }
        if (choice_is_bearer(c) && i == r->n_prompt - 1 && bear(s, c, x) < 0) {
            return;
        }
        if (x && i < n_before - 1 && check(s, c, i + 1 - r->n_prompt, x) < 0) {
            return;
        }
        if (i == n_before - 1) {
            if (draw(s, c, x) < 0) {
                return;
            }
            c->is_suspect = false;
        }
    }
    if (c->reason) {
        scheduler_end_choice(s, c);
    } else if (choice_is_bearer(c)) {
        events_prefilled(s->events, r, slice->first + slice->n);
    }
}
