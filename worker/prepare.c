/* The prepare threads (see prepare.h): a queue each, one common list of what is ready. They touch
 * only the request that was lent to them, and of the models what never changes. */
#include "worker/prepare.h"
#include "shared/json.h"
#include "worker/choice.h"
#include "worker/grammar/constraint.h"
#include "worker/grammar/schema.h"
#include "worker/prompt.h"
#include "worker/template_chat.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { LANE_RECORD, LANE_BULK, LANES };

struct queue {
    struct request *first, **end;
};

struct lane {
    struct prepare *owner;
    pthread_t thread;
    bool is_started;
    pthread_cond_t filled;
    struct queue todo;
};

struct prepare {
    pthread_mutex_t mutex; /* of everything below */
    struct lane lanes[LANES];
    struct queue ready;
    bool is_closing;
    int bell;
};

static void push(struct queue *q, struct request *r)
{
    r->next = NULL;
    *q->end = r;
    q->end = &r->next;
}

static struct request *pop(struct queue *q)
{
    struct request *r = q->first;
    if (r) {
        q->first = r->next;
        q->end = q->first ? q->end : &q->first;
        r->next = NULL;
    }
    return r;
}

/* What the answers must look like, if the request says so. */
static int make_constraint(struct request *r, struct err *e)
{
    struct buf gbnf;
    const struct pieces *pieces;
    json_t *schema = NULL;
    if (!r->grammar.data && !r->schema.data) {
        return 0;
    }
    buf_init(&gbnf, 0);
    buf_add(&gbnf, r->grammar.data, r->grammar.n);
    int err = models_pieces(r->model, &pieces, e);
    if (err == 0 && r->schema.data) {
        err = json_parse(r->schema.data, r->schema.n, &schema, e);
        err = err < 0 ? err : schema_to_gbnf(schema, &gbnf, e);
        json_decref(schema);
    }
    if (err == 0) {
        err = gbnf.failed ? -ENOMEM
                          : constraint_create(gbnf.data, gbnf.len, pieces, r->model->tokenizer,
                                              r->model->n_vocab, &r->constraint, e);
    }
    buf_finish(&gbnf);
    return err;
}

static int make_choices(struct request *r, struct err *e)
{
    const struct msg_generate *g = &r->generate;
    if (r->n_prompt == 0) {
        return err_set(e, ERR_BAD_FIELD, "the prompt has no tokens");
    }
    if (r->n_prompt >= r->model->n_ctx) {
        return err_set(e, ERR_CONTEXT_LENGTH, "the prompt has %lld tokens, the context is %lld",
                       (long long)r->n_prompt, (long long)r->model->n_ctx);
    }
    int64_t n_max = r->model->n_ctx - r->n_prompt;
    n_max = g->flags & MSG_PROMPT_ONLY ? 0
            : g->max_tokens            ? MIN(n_max, (int64_t)g->max_tokens)
                                       : n_max;
    r->choices = calloc(g->n_choices, sizeof(*r->choices));
    if (!r->choices) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < g->n_choices; i++) {
        struct choice *c = &r->choices[i];
        int err = choice_init(c, r, g->choice_base + i, n_max, e);
        if (err == 0) {
            err = choice_replay(c, r->resume[i].data, r->resume[i].n, r->ends[i].data, e);
        }
        if (err < 0) {
            return err;
        }
    }
    if ((g->flags & MSG_ECHO) && !r->is_resumed) {
        return detokenizer_create(r->model->tokenizer, NULL, 0, true, true, &r->echo);
    }
    return 0;
}

void prepare_now(struct request *r)
{
    int err;
    if (r->type == MSG_TEXT) {
        err = prompt_text_op(r, template_chat_now(), &r->err);
    } else {
        err = prompt_make(r, template_chat_now(), &r->err);
        err = err < 0 ? err : make_constraint(r, &r->err);
        err = err < 0 ? err : make_choices(r, &r->err);
    }
    if (err < 0 && r->err.code != err) {
        err_set(&r->err, err, "while preparing the request");
    }
    request_drop_payload(r);
}

static void *run(void *arg)
{
    struct lane *lane = arg;
    struct prepare *p = lane->owner;
    pthread_mutex_lock(&p->mutex);
    while (!p->is_closing) {
        struct request *r = pop(&lane->todo);
        if (!r) {
            pthread_cond_wait(&lane->filled, &p->mutex);
            continue;
        }
        pthread_mutex_unlock(&p->mutex);
        prepare_now(r);
        pthread_mutex_lock(&p->mutex);
        push(&p->ready, r);
        uint64_t one = 1;
        ssize_t n = write(p->bell, &one, sizeof(one)); /* EAGAIN: it is ringing already */
        (void)n;
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

void prepare_submit(struct prepare *p, struct request *r)
{
    struct lane *lane = &p->lanes[r->is_bulk ? LANE_BULK : LANE_RECORD];
    pthread_mutex_lock(&p->mutex);
    push(&lane->todo, r);
    pthread_cond_signal(&lane->filled);
    pthread_mutex_unlock(&p->mutex);
}

struct request *prepare_take(struct prepare *p)
{
    pthread_mutex_lock(&p->mutex);
    struct request *r = pop(&p->ready);
    pthread_mutex_unlock(&p->mutex);
    return r;
}

int prepare_create(int bell, struct prepare **ret)
{
    struct prepare *p = base_alloc(sizeof(*p));
    p->bell = bell;
    p->ready.end = &p->ready.first;
    pthread_mutex_init(&p->mutex, NULL);
    for (int i = 0; i < LANES; i++) {
        p->lanes[i].owner = p;
        p->lanes[i].todo.end = &p->lanes[i].todo.first;
        pthread_cond_init(&p->lanes[i].filled, NULL);
    }
    for (int i = 0; i < LANES; i++) {
        int err = pthread_create(&p->lanes[i].thread, NULL, run, &p->lanes[i]);
        if (err) {
            prepare_destroy(&p);
            return -err;
        }
        p->lanes[i].is_started = true;
    }
    *ret = p;
    return 0;
}

static void drop(struct queue *q)
{
    struct request *r;
    while ((r = pop(q))) {
        request_destroy(&r);
    }
}

void prepare_destroy(struct prepare **pp)
{
    struct prepare *p = *pp;
    if (!p) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    p->is_closing = true;
    for (int i = 0; i < LANES; i++) {
        pthread_cond_signal(&p->lanes[i].filled);
    }
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < LANES; i++) {
        if (p->lanes[i].is_started) {
            pthread_join(p->lanes[i].thread, NULL);
        }
        drop(&p->lanes[i].todo);
        pthread_cond_destroy(&p->lanes[i].filled);
    }
    drop(&p->ready);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    *pp = NULL;
}
