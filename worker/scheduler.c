/* The scheduler (see scheduler.h): queue, admission, batch, delivery. `running` is kept in order of
 * age, oldest first, and so is the queue. */
#include "worker/scheduler.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A paused request keeps its blocks that long, even if another could use them: readers often stall
 * for an instant, and recomputing costs more. */
#define PAUSE_GRACE_NS ((uint64_t)500 * 1000 * 1000)

/* Clients with little running go before those with much, but nobody is overtaken who has waited
 * this long. */
#define FAIR_WAIT_NS ((uint64_t)10 * 1000 * 1000 * 1000)

enum { DECODE_TRACED = 64 }; /* every so many steps that only decode leave a span */

struct slice { /* rows of one choice in a step */
    struct choice *choice;
    int64_t first, n; /* index among its known tokens, count */
    int64_t n_logits; /* of its rows, how many want logits */
};

struct scheduler {
    struct engine *engine; /* borrowed */
    struct events *events; /* borrowed */
    int64_t n_seqs, chunk_rows, max_logits;
    struct scheduler_stats stats;
    uint64_t n_steps;
    bool aligns; /* prompts are cut at block ends: the model is recurrent */
    struct choice *running[LIMIT_SLOTS];
    int n_running;
    struct choice *head, *tail; /* the queue */
    uint64_t turn_arrival;      /* the prompt that had the last turn */
    uint32_t turn_number;
    struct slice slices[LIMIT_SLOTS];
    int n_slices;
    struct engine_row *rows; /* owned */
    int64_t n_rows, n_logits;
    const float **logits; /* owned */
    int32_t *ids;         /* owned; scratch: the known tokens of a choice */
};

/* ---- what a choice is ---- */

static bool is_older(const struct choice *a, const struct choice *b)
{
    uint64_t x = a->request->arrival, y = b->request->arrival;
    return x != y ? x < y : a->number < b->number;
}

static int64_t n_known(const struct choice *c)
{
    return c->request->n_prompt + c->n_ids;
}

static int32_t known(const struct choice *c, int64_t i)
{
    const struct request *r = c->request;
    return i < r->n_prompt ? r->prompt[i] : c->ids[i - r->n_prompt];
}

/* Tokens to compute before the next is drawn. */
static int64_t n_missing(const struct choice *c)
{
    return n_known(c) - engine_seq_length(c->seq);
}

static bool is_bearer(const struct choice *c)
{
    return c->request->bearer == c;
}

/* Slots that it will need, those of the choices that wait for its prompt included. */
static int64_t n_slots(const struct choice *c)
{
    return 1 + (is_bearer(c) ? c->request->n_unborn : 0);
}

static bool wants_prompt_logits(const struct request *r)
{
    return r->echo && (r->generate.flags & MSG_LOGPROBS);
}

/* ---- queue and running set ---- */

static void enqueue(struct scheduler *s, struct choice *c)
{
    struct choice *after = s->tail;
    while (after && is_older(c, after)) {
        after = after->prev;
    }
    c->prev = after;
    c->next = after ? after->next : s->head;
    *(c->next ? &c->next->prev : &s->tail) = c;
    *(after ? &after->next : &s->head) = c;
}

static void dequeue(struct scheduler *s, struct choice *c)
{
    *(c->prev ? &c->prev->next : &s->head) = c->next;
    *(c->next ? &c->next->prev : &s->tail) = c->prev;
    c->prev = c->next = NULL;
}

static bool is_waiting(const struct scheduler *s, const struct choice *c)
{
    return c->prev || s->head == c;
}

static void start_running(struct scheduler *s, struct choice *c)
{
    int at = s->n_running++;
    for (; at > 0 && is_older(c, s->running[at - 1]); at--) {
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

/* Out of wherever it is. */
static void leave(struct scheduler *s, struct choice *c)
{
    if (c->seq) {
        stop_running(s, c);
    } else if (is_waiting(s, c)) {
        dequeue(s, c);
    }
}

static void preempt(struct scheduler *s, struct choice *c)
{
    log_debug("request %llu choice %u: back to the queue with %lld tokens",
              (unsigned long long)c->request->id, c->number, (long long)n_known(c));
    stop_running(s, c);
    enqueue(s, c);
    s->stats.n_preempted++;
    uint64_t now = s->events->now_ns;
    trace_add(s->events->trace, TRACE_PREEMPT, c->request->id, now, now, n_known(c));
}

/* ---- ends ---- */

void scheduler_remove(struct scheduler *s, struct request *r)
{
    for (uint32_t i = 0; r->choices && i < r->generate.n_choices; i++) {
        leave(s, &r->choices[i]);
    }
}

static void fail(struct scheduler *s, struct request *r, const struct err *e)
{
    scheduler_remove(s, r);
    events_fail(s->events, r, e);
}

/* A choice that has a reason to end ends; with the last one the request does. */
static void end_choice(struct scheduler *s, struct choice *c)
{
    struct request *r = c->request;
    leave(s, c);
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
    return g->total_ms && ms >= g->total_ms                   ? ERR_TOTAL_TIMEOUT
           : g->first_ms && !has_token && ms >= g->first_ms   ? ERR_FIRST_TOKEN_TIMEOUT
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

static void end_overdue(struct scheduler *s)
{
    struct request *r;
    int why;
    while ((r = find_overdue(s, &why))) {
        if (why == ERR_TOTAL_TIMEOUT && r->started_ns && (r->first_ns || r->is_resumed)) {
            end_all(s, r, MSG_FINISH_TIMEOUT);
        } else {
            struct err e;
            err_set(&e, why, "%.3f s", (double)(s->events->now_ns - r->received_ns) * 1e-9);
            fail(s, r, &e);
        }
    }
}

/* ---- admission ---- */

void scheduler_add(struct scheduler *s, struct request *r)
{
    r->stage = REQUEST_ACTIVE;
    r->n_unfinished = r->generate.n_choices;
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        struct choice *c = &r->choices[i];
        if (!c->reason && !r->bearer) {
            r->bearer = c;
        } else if (!c->reason) {
            c->is_unborn = true;
            r->n_unborn++;
        }
    }
    if (r->bearer) {
        enqueue(s, r->bearer);
    }
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        if (r->choices[i].reason) { /* its replay reached its end */
            if (!r->started_ns) {
                events_started(s->events, r);
            }
            end_choice(s, &r->choices[i]);
        }
    }
}

/* The one whose blocks are given to others: the youngest of those with slow readers, else the
 * youngest. */
static struct choice *victim(const struct scheduler *s)
{
    for (int i = s->n_running; i-- > 0;) {
        if (request_is_stalled(s->running[i]->request)) {
            return s->running[i];
        }
    }
    return s->n_running ? s->running[s->n_running - 1] : NULL;
}

/* Makes room for a waiting choice at the cost of one whose reader has been slow for long. */
static bool evict_stalled(struct scheduler *s)
{
    struct choice *v = victim(s);
    if (!v || !request_is_stalled(v->request) ||
        s->events->now_ns - v->request->stalled_ns < PAUSE_GRACE_NS) {
        return false;
    }
    preempt(s, v);
    return true;
}

/* How many of its first tokens it may take from the cache instead of computing them; they are
 * written to s->ids. */
static int64_t n_reusable(struct scheduler *s, const struct choice *c)
{
    const struct request *r = c->request;
    int64_t n = is_bearer(c) ? r->n_prompt - 1 : n_known(c) - 1;
    if (c->is_suspect) { /* what spoiled its step might be found again */
        n = 0;
    } else if ((r->generate.flags & MSG_RANK) && c->n_accepted < c->n_replayed) {
        n = MIN(n, r->n_prompt - 1 + c->n_accepted); /* every id of the answer is ranked */
    } else if (r->echo && r->n_echoed < r->n_prompt) {
        n = MIN(n, MAX(r->n_echoed - 1, 0)); /* its report needs every row */
    }
    for (int64_t i = 0; i < n; i++) {
        s->ids[i] = known(c, i);
    }
    return n;
}

static bool has_room(struct scheduler *s, const struct choice *c)
{
    int64_t slots = MIN(n_slots(c), s->n_seqs), used = 0, held;
    for (int i = 0; i < s->n_running; i++) {
        used += n_slots(s->running[i]);
    }
    engine_cached(s->engine, s->ids, n_reusable(s, c), &held);
    /* A block in reserve for every sequence that will go on growing. */
    int64_t blocks = n_known(c) / ENGINE_BLOCK_TOKENS - held + n_slots(c) + used;
    bool is_alone = s->n_running == 0;
    return is_alone || (used + slots <= s->n_seqs && engine_free_blocks(s->engine) >= blocks);
}

/* False: it stays in the queue. */
static bool admit_one(struct scheduler *s, struct choice *c)
{
    struct request *r = c->request;
    while (!has_room(s, c)) {
        if (!evict_stalled(s)) {
            return false;
        }
    }
    if (engine_seq_create(s->engine, &c->seq) < 0) {
        return false;
    }
    int64_t n_cached = engine_seq_reuse(s->engine, c->seq, s->ids, n_reusable(s, c));
    if (engine_seq_reserve(s->engine, c->seq, n_missing(c)) < 0) {
        engine_seq_destroy(s->engine, &c->seq);
        if (s->n_running == 0) {
            struct err e;
            err_set(&e, ERR_NO_MEMORY, "%lld tokens do not fit the KV cache",
                    (long long)n_known(c));
            fail(s, r, &e);
        }
        return false;
    }
    dequeue(s, c);
    start_running(s, c);
    if (!r->started_ns) {
        r->n_cached = MIN(n_cached, r->n_prompt);
        s->stats.n_prompt_tok += (uint64_t)r->n_prompt;
        s->stats.n_cached_tok += (uint64_t)r->n_cached;
        events_started(s->events, r);
    }
    return true;
}

static int n_running_of(const struct scheduler *s, uint64_t client)
{
    int n = 0;
    for (int i = 0; i < s->n_running; i++) {
        n += s->running[i]->request->generate.client == client;
    }
    return n;
}

/* Who goes in next: the oldest that had begun already; the oldest, if it has waited long; the oldest
 * of the client that has least running. */
static struct choice *next_in(const struct scheduler *s)
{
    struct choice *best = NULL;
    int least = 0;
    for (struct choice *c = s->head; c; c = c->next) {
        const struct request *r = c->request;
        if (request_is_stalled(r)) {
            continue;
        }
        if (r->started_ns) {
            return c;
        }
        if (best && s->events->now_ns - best->request->received_ns >= FAIR_WAIT_NS) {
            continue;
        }
        int n = n_running_of(s, r->generate.client);
        if (!best || n < least) {
            best = c;
            least = n;
        }
    }
    return best;
}

static void admit(struct scheduler *s)
{
    struct choice *c;
    while ((c = next_in(s)) && admit_one(s, c)) {
    }
}

/* ---- the batch ---- */

/* Every sequence that will compute gets its blocks, the oldest first. */
static void reserve(struct scheduler *s)
{
    for (int i = 0; i < s->n_running;) {
        struct choice *c = s->running[i];
        if (request_is_stalled(c->request) ||
            engine_seq_reserve(s->engine, c->seq, n_missing(c)) == 0) {
            i++;
            continue;
        }
        if (s->n_running == 1) {
            struct err e;
            err_set(&e, ERR_NO_MEMORY, "%lld tokens do not fit the KV cache",
                    (long long)n_known(c));
            fail(s, c->request, &e);
            return;
        }
        struct choice *v = victim(s);
        ASSERT(v);
        i -= v != c && is_older(v, c); /* those behind it move up */
        preempt(s, v);
    }
}

/* Adds the next rows of a choice to the step, at most `most`. Returns their number. */
static int64_t add_slice(struct scheduler *s, struct choice *c, int64_t most)
{
    struct request *r = c->request;
    int64_t first = engine_seq_length(c->seq), end = n_known(c);
    if (is_bearer(c) && r->n_unborn > 0) {
        end = r->n_prompt; /* the others fork here */
    }
    if (s->aligns && first + most < end) {
        /* States can be kept where a step and a block end together. */
        most -= MIN((first + most) % ENGINE_BLOCK_TOKENS, most - 1);
    } else if (s->aligns && end / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS > first) {
        most = end / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS - first;
    }
    struct slice slice = {.choice = c, .first = first};
    for (int64_t i = first; i < end && slice.n < most; i++) {
        bool want = i == n_known(c) - 1 || (is_bearer(c) && i == r->n_prompt - 1) ||
                    choice_wants_check(c, i + 1 - r->n_prompt) ||
                    (wants_prompt_logits(r) && i + 1 < r->n_prompt && i + 1 >= r->n_echoed);
        if (want && s->n_logits == s->max_logits) {
            break;
        }
        s->rows[s->n_rows++] =
            (struct engine_row){.seq = c->seq, .token = known(c, i), .want_logits = want};
        s->n_logits += want;
        slice.n_logits += want;
        slice.n++;
    }
    if (slice.n > 0) {
        s->slices[s->n_slices++] = slice;
    }
    return slice.n;
}

static bool had_turn(const struct scheduler *s, const struct choice *c)
{
    return c->request->arrival < s->turn_arrival ||
           (c->request->arrival == s->turn_arrival && c->number <= s->turn_number);
}

/* Prompt rows: first those behind the one that had the last turn, then from the oldest again. */
static void add_prompts(struct scheduler *s)
{
    int64_t left = s->chunk_rows;
    uint64_t turn_arrival = s->turn_arrival;
    uint32_t turn_number = s->turn_number;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < s->n_running && left > 0; i++) {
            struct choice *c = s->running[i];
            if (request_is_stalled(c->request) || n_missing(c) <= 1 ||
                had_turn(s, c) != (round == 1)) {
                continue;
            }
            int64_t n = add_slice(s, c, left);
            if (n > 0) {
                left -= n;
                turn_arrival = c->request->arrival;
                turn_number = c->number;
            }
        }
    }
    s->turn_arrival = turn_arrival;
    s->turn_number = turn_number;
}

enum status_phase scheduler_plan(struct scheduler *s)
{
    s->n_rows = s->n_logits = 0;
    s->n_slices = 0;
    end_overdue(s);
    admit(s);
    reserve(s);
    for (int i = 0; i < s->n_running; i++) {
        struct choice *c = s->running[i];
        if (c->is_suspect && !request_is_stalled(c->request)) {
            add_slice(s, c, s->chunk_rows);
            return STATUS_PREFILL;
        }
    }
    for (int i = 0; i < s->n_running; i++) {
        struct choice *c = s->running[i];
        if (n_missing(c) == 1 && !request_is_stalled(c->request)) {
            add_slice(s, c, 1);
        }
    }
    int64_t n_decode = s->n_rows;
    add_prompts(s);
    return s->n_rows > n_decode ? STATUS_PREFILL : s->n_rows > 0 ? STATUS_DECODE : STATUS_IDLE;
}

/* ---- delivery ---- */

/* Of an id that an earlier epoch drew. 0, or the request has failed. */
static int check(struct scheduler *s, struct choice *c, int64_t position, const float *logits)
{
    struct err e;
    int err = choice_wants_check(c, position) ? choice_check(c, position, logits, &e) : 0;
    if (err < 0) {
        fail(s, c->request, &e);
    }
    return err;
}

/* 0, or the request has failed. */
static int draw(struct scheduler *s, struct choice *c, const float *logits)
{
    struct err e;
    int err = choice_draw(c, logits, s->events, &e);
    if (err < 0) {
        fail(s, c->request, &e);
    }
    return err;
}

/* The prompt stands: the other choices begin. Those that find no slot or blocks wait in the queue.
 */
static int bear(struct scheduler *s, struct choice *bearer, const float *logits)
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
            end_choice(s, c);
            continue;
        }
        if (s->n_running < s->n_seqs && engine_seq_fork(s->engine, bearer->seq, &c->seq) == 0) {
            start_running(s, c);
        } else {
            enqueue(s, c);
        }
    }
    return 0;
}

/* Prompt tokens whose report became possible with the row at i (its logits tell of token i + 1). */
static int echo(struct scheduler *s, struct request *r, int64_t i, const float *logits)
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
        fail(s, r, &e);
    }
    return err;
}

static void deliver(struct scheduler *s, const struct slice *slice, const struct engine_row *rows,
                    const float *const *logits)
{
    struct choice *c = slice->choice;
    struct request *r = c->request;
    int64_t n_before = n_known(c);
    for (int64_t k = 0; k < slice->n; k++) {
        int64_t i = slice->first + k;
        const float *x = rows[k].want_logits ? *logits++ : NULL;
        if (r->echo && echo(s, r, i, x) < 0) {
            return;
        }
        if (is_bearer(c) && i == r->n_prompt - 1 && bear(s, c, x) < 0) {
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
        end_choice(s, c);
    } else if (is_bearer(c)) {
        events_prefilled(s->events, r, slice->first + slice->n);
    }
}

/* A step that failed has spoiled its sequences. One request alone is the culprit; of several each
 * gets its chance alone, the others go on afterwards. */
static void step_failed(struct scheduler *s, const struct err *e)
{
    bool is_one = true;
    for (int i = 1; i < s->n_slices; i++) {
        is_one = is_one && s->slices[i].choice->request == s->slices[0].choice->request;
    }
    log_warn("a step of %lld rows of %d sequences failed: %s: %s", (long long)s->n_rows,
             s->n_slices, err_text(e->code), e->detail);
    if (is_one) {
        fail(s, s->slices[0].choice->request, e);
        return;
    }
    for (int i = 0; i < s->n_slices; i++) {
        s->slices[i].choice->is_suspect = true;
        preempt(s, s->slices[i].choice);
    }
}

/* A span for every part of a prompt, and for some of the steps that only decode. */
static void trace_step(struct scheduler *s, uint64_t start_ns)
{
    uint64_t end_ns = s->events->now_ns;
    s->n_steps++;
    for (int i = 0; i < s->n_slices; i++) {
        if (s->slices[i].n > 1) {
            trace_add(s->events->trace, TRACE_PREFILL, s->slices[i].choice->request->id, start_ns,
                      end_ns, s->slices[i].n);
        }
    }
    if (s->n_rows == s->n_slices && s->n_steps % DECODE_TRACED == 0) {
        trace_add(s->events->trace, TRACE_DECODE, 0, start_ns, end_ns, s->n_slices);
    }
}

void scheduler_run(struct scheduler *s)
{
    struct err e = {0};
    uint64_t start_ns = clock_ns();
    int err = engine_step(s->engine, s->rows, s->n_rows, s->logits, &e);
    s->events->now_ns = clock_ns();
    trace_step(s, start_ns);
    if (err < 0) {
        e.code = err;
        step_failed(s, &e);
        return;
    }
    const struct engine_row *rows = s->rows;
    const float *const *logits = s->logits;
    for (int i = 0; i < s->n_slices; i++) {
        struct slice *slice = &s->slices[i];
        if (slice->choice->request->stage == REQUEST_ACTIVE) { /* a sibling's failure ended it */
            deliver(s, slice, rows, logits);
        }
        rows += slice->n;
        logits += slice->n_logits;
    }
}

/* ---- life ---- */

struct scheduler *scheduler_create(const struct models *models, size_t index, struct events *ev)
{
    ASSERT(models->n_seqs <= LIMIT_SLOTS && models->max_logits > models->n_seqs);
    struct scheduler *s = base_alloc(sizeof(*s));
    s->engine = models->v[index].engine;
    s->events = ev;
    s->n_seqs = models->n_seqs;
    s->chunk_rows = models->chunk_rows;
    s->max_logits = models->max_logits;
    s->rows = base_alloc((size_t)(s->n_seqs + s->chunk_rows) * sizeof(*s->rows));
    s->logits = base_alloc((size_t)s->max_logits * sizeof(*s->logits));
    s->ids = base_alloc((size_t)models->v[index].n_ctx * sizeof(*s->ids));
    s->aligns = engine_info(s->engine)->n_snapshots > 0;
    return s;
}

void scheduler_destroy(struct scheduler **sp)
{
    struct scheduler *s = *sp;
    if (s) {
        ASSERT(s->n_running == 0 && !s->head);
        free(s->rows);
        free(s->logits);
        free(s->ids);
        free(s);
        *sp = NULL;
    }
}

struct scheduler_stats scheduler_stats(const struct scheduler *s)
{
    return s->stats;
}

int scheduler_n_running(const struct scheduler *s)
{
    return s->n_running;
}

const struct choice *scheduler_running(const struct scheduler *s, int i)
{
    return s->running[i];
}

int scheduler_n_waiting(const struct scheduler *s)
{
    int n = 0;
    for (const struct choice *c = s->head; c; c = c->next) {
        n += !request_is_stalled(c->request);
    }
    return n;
}
