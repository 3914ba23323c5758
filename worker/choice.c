/* One answer (see choice.h). Made in a prepare thread, then the token loop's; blocks never. */
#include "worker/choice.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The client's bias and, to ignore the end, the end ids as good as banned. */
static int make_sampler(struct choice *c, struct err *e)
{
    const struct request *r = c->request;
    bool bans = (r->generate.flags & MSG_IGNORE_EOS) != 0;
    size_t n_ends = bans ? r->model->n_end_ids : 0;
    struct msg_logit_bias *bias = calloc(r->bias.n + n_ends + 1, sizeof(*bias));
    if (!bias) {
        return -ENOMEM;
    }
    if (r->bias.n) {
        memcpy(bias, r->bias.data, r->bias.n * sizeof(*bias));
    }
    for (size_t i = 0; i < n_ends; i++) {
        bias[r->bias.n + i] = (struct msg_logit_bias){r->model->end_ids[i], -INFINITY};
    }
    int err = sampler_create(&r->generate, bias, r->bias.n + n_ends, c->number, r->model->n_vocab,
                             &c->sampler, e);
    free(bias);
    return err;
}

int choice_init(struct choice *c, struct request *r, uint32_t number, int64_t n_max, struct err *e)
{
    *c = (struct choice){.request = r, .number = number, .n_max = n_max, .stop_index = -1};
    int err = make_sampler(c, e);
    if (err < 0) {
        return err;
    }
    if (r->constraint) {
        constraint_begin(r->constraint, &c->place);
    }
    for (int64_t i = 0; i < r->n_prompt; i++) {
        sampler_accept(c->sampler, r->prompt[i], true);
    }
    c->ids = malloc((size_t)MAX(n_max, 1) * sizeof(*c->ids));
    if (!c->ids) {
        return -ENOMEM;
    }
    return detokenizer_create(r->model->tokenizer, r->stops, r->n_stops, false, false,
                              &c->detokenizer);
}

void choice_finish(struct choice *c)
{
    ASSERT(!c->seq);
    free(c->ids);
    sampler_destroy(&c->sampler);
    detokenizer_destroy(&c->detokenizer);
}

/* An id joins the answer; what may be shown is appended to text. */
static int take(struct choice *c, int32_t id, struct buf *text, struct err *e)
{
    c->ids[c->n_ids++] = id;
    int got = detokenizer_add(c->detokenizer, id, text, &c->stop_index);
    if (got < 0) {
        return err_set(e, got, "the text of token %d", id);
    }
    c->reason = got > 0 ? MSG_FINISH_STOP : c->n_ids == c->n_max ? MSG_FINISH_LENGTH : 0;
    return 0;
}

int choice_replay(struct choice *c, const int32_t *ids, size_t n, const struct msg_resume_end *end,
                  struct err *e)
{
    struct buf shown; /* was sent already */
    buf_init(&shown, 0);
    int err = 0;
    for (size_t i = 0; i < n && err == 0; i++) {
        buf_clear(&shown);
        err = c->reason ? err_set(e, ERR_INTERNAL, "the answer had ended after %lld of %zu ids",
                                  (long long)c->n_ids, n)
              : ids[i] < 0 || ids[i] >= c->request->model->n_vocab
                  ? err_set(e, ERR_BAD_TOKEN, "id %d of the replay", ids[i])
                  : take(c, ids[i], &shown, e);
    }
    buf_finish(&shown);
    c->n_replayed = c->n_ids;
    if (c->request->generate.flags & MSG_RANK) { /* the sum is not known before its rows are */
        c->replayed_reason = c->reason;
        c->reason = 0;
    }
    if (err == 0 && end) {
        c->had_ended = true;
        c->reason = MSG_FINISH_STOP; /* which one was said already */
        c->drew_end = end->n_tokens == c->n_ids + 1;
        if (!c->drew_end && end->n_tokens != c->n_ids) {
            err = err_set(e, ERR_INTERNAL, "the answer ended after %u tokens and has %lld ids",
                          end->n_tokens, (long long)c->n_ids);
        }
    }
    return err;
}

/* Tells sampler and constraint of the ids before this position. */
static int accept_until(struct choice *c, int64_t position, struct err *e)
{
    struct constraint *constraint = c->request->constraint;
    int err = 0;
    while (c->n_accepted < position && err == 0) {
        sampler_accept(c->sampler, c->ids[c->n_accepted++], false);
        err = constraint
                  ? constraint_take(constraint, &c->place, c->ids, (size_t)c->n_accepted, e)
                  : 0;
    }
    return err;
}

/* The most probable of what is allowed. */
static int32_t best_allowed(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

static const float *all_of(struct choice_logits *x)
{
    x->all = x->all ? x->all : engine_logits(x->engine, x->at);
    return x->all;
}

static uint32_t n_reported(const struct request *r)
{
    if (!(r->generate.flags & MSG_LOGPROBS)) {
        return 0;
    }
    return 1 + (uint32_t)MIN((int64_t)r->generate.top_logprobs, r->model->n_vocab);
}

int32_t choice_n_top(const struct choice *c)
{
    const struct request *r = c->request;
    bool reports = n_reported(r) > 0 || (r->generate.flags & MSG_RANK);
    return r->constraint || reports ? 0 : sampler_n_top(c->sampler);
}

/* From the largest logits, where the others are elsewhere; -1: these do not decide it. */
static int32_t draw_top(struct choice *c, const struct choice_logits *x, int64_t position)
{
    if (x->all || choice_n_top(c) == 0) {
        return -1;
    }
    struct engine_top top = engine_top(x->engine, x->at);
    const struct sampler_top largest = {top.values, top.ids, top.n};
    return sampler_draw_top(c->sampler, &largest, (uint32_t)position);
}

/* Draws the id at this position, before which all are accepted; -1: nothing may follow. */
static int draw(struct choice *c, struct choice_logits *x, int64_t position, uint32_t n_top,
                struct msg_logprob *top, int32_t *ret, struct err *e)
{
    const struct request *r = c->request;
    *ret = n_top == 0 ? draw_top(c, x, position) : -1;
    if (*ret >= 0) {
        return 0;
    }
    const float *logits = all_of(x), *allowed = logits;
    if (!r->constraint) {
        *ret = sampler_draw(c->sampler, logits, (uint32_t)position, n_top, top);
        return 0;
    }
    int err =
        constraint_mask(r->constraint, &c->place, c->ids, (size_t)position, logits, &allowed, e);
    *ret = -1;
    if (err < 0 || !allowed) {
        return err;
    }
    *ret = sampler_draw(c->sampler, allowed, (uint32_t)position, 0, NULL);
    if (allowed[*ret] == -INFINITY) { /* a bias, or rounding, left nothing of what is allowed */
        *ret = best_allowed(allowed, r->model->n_vocab);
    }
    if (n_top > 0) {
        sampler_report(logits, r->model->n_vocab, *ret, n_top, top);
    }
    return 0;
}

bool choice_wants_check(const struct choice *c, int64_t position)
{
    return (c->request->generate.flags & (MSG_VERIFY | MSG_RANK)) && position >= c->n_accepted &&
           position < c->n_replayed;
}

int choice_check(struct choice *c, int64_t position, struct choice_logits *logits, struct err *e)
{
    const struct msg_generate *g = &c->request->generate;
    int32_t id = c->ids[position];
    int err = accept_until(c, position, e);
    if (err < 0) {
        return err;
    }
    if (g->flags & MSG_RANK) {
        struct msg_logprob own;
        sampler_report(all_of(logits), c->request->model->n_vocab, c->ids[position], 1, &own);
        c->logprob_sum += (double)own.logprob;
    }
    if (g->flags & MSG_VERIFY) {
        err = draw(c, logits, position, 0, NULL, &id, e);
        if (err < 0) {
            return err;
        }
    }
    if (id != c->ids[position]) {
        return err_set(e, ERR_REPLAY_DIVERGENCE, "token %lld was %d and is %d now",
                       (long long)position, c->ids[position], id);
    }
    return accept_until(c, position + 1, e);
}

static bool is_end(const struct request *r, int32_t id)
{
    return r->model->tokenizer && !(r->generate.flags & MSG_IGNORE_EOS) &&
           id < tokenizer_size(r->model->tokenizer) && tokenizer_is_end(r->model->tokenizer, id);
}

int choice_draw(struct choice *c, struct choice_logits *logits, struct events *ev, struct err *e)
{
    struct request *r = c->request;
    if (c->n_max == 0 || c->replayed_reason) {
        c->reason = c->n_max == 0 ? MSG_FINISH_LENGTH : c->replayed_reason;
        return 0;
    }
    struct msg_logprob top[LIMIT_TOP_LOGPROBS + 1];
    uint32_t n_top = n_reported(r);
    bool ranks = (r->generate.flags & MSG_RANK) != 0;
    int32_t id;
    int err = accept_until(c, c->n_ids, e);
    err = err < 0 ? err : draw(c, logits, c->n_ids, ranks ? MAX(n_top, 1u) : n_top, top, &id, e);
    if (err < 0) {
        return err;
    }
    if (id < 0) {
        c->reason = MSG_FINISH_STOP;
        return 0;
    }
    c->logprob_sum += ranks ? (double)top[0].logprob : 0;
    r->first_ns = r->first_ns ? r->first_ns : ev->now_ns;
    r->last_ns = ev->now_ns;
    if (is_end(r, id)) {
        c->drew_end = true;
        c->reason = MSG_FINISH_STOP;
        return 0;
    }
    buf_clear(&ev->text);
    err = take(c, id, &ev->text, e);
    if (err == 0) {
        events_token(ev, r, c->number, c->n_ids - 1, id, false, top, n_top);
    }
    return err;
}

void choice_send_finish(struct choice *c, struct events *ev)
{
    buf_clear(&ev->text);
    if (c->stop_index < 0) {
        detokenizer_end(c->detokenizer, &ev->text);
    }
    events_finish_choice(ev, c);
}

int choice_echo(struct request *r, struct choice_logits *logits, struct events *ev, struct err *e)
{
    struct msg_logprob top[LIMIT_TOP_LOGPROBS + 1];
    int32_t id = r->prompt[r->n_echoed];
    uint32_t n_top = logits ? n_reported(r) : 0;
    const struct tokenizer *t = r->model->tokenizer;
    int no_stop;
    buf_clear(&ev->text);
    bool is_bos = t && r->n_echoed == 0 && id == tokenizer_bos(t);
    int err = is_bos ? 0 : detokenizer_add(r->echo, id, &ev->text, &no_stop);
    if (err < 0) {
        return err_set(e, err, "the text of prompt token %d", id);
    }
    if (n_top > 0) {
        sampler_report(all_of(logits), r->model->n_vocab, id, n_top, top);
    }
    if (r->n_echoed == r->n_prompt - 1) {
        detokenizer_end(r->echo, &ev->text);
    }
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        events_token(ev, r, r->choices[i].number, r->n_echoed, id, true, top, n_top);
    }
    r->n_echoed++;
    return 0;
}
