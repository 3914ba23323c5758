/* The scheduler (see scheduler.h): the batch, its run, life. The rest: see scheduler_state.h. */
#include "shared/clock.h"
#include "shared/log.h"
#include "worker/scheduler_state.h"

#include <stdlib.h>

enum {
    DECODE_TRACED = 64, /* every so many steps that only decode leave a span */
    MANY_ROWS = 16,     /* so many prompt rows tell what a row takes */
    LEAST_ROWS = 32     /* of prompts beside streams: reading the weights is most of fewer */
};

/* Beside streams prompts get the rows that take so long: it is what a long prompt adds to the time
 * between two of their tokens. A whole chunk is a little quicker for the prompt alone (a tenth on a
 * CPU), and three to four times as long for everybody else. */
#define BESIDE_STREAMS_NS ((uint64_t)200 * 1000 * 1000)

/* ---- the batch ---- */

static bool wants_prompt_logits(const struct request *r)
{
    return r->echo && (r->generate.flags & MSG_LOGPROBS);
}

/* Adds the next rows of a choice to the step, at most `most`. Returns their number. */
static int64_t add_slice(struct scheduler *s, struct choice *c, int64_t most)
{
    struct request *r = c->request;
    int64_t first = engine_seq_length(c->seq), end = choice_n_known(c);
    if (choice_is_bearer(c) && r->n_unborn > 0) {
        end = r->n_prompt; /* the others fork here */
    }
    if (s->aligns && first + most < end) {
        /* States can be kept where a step and a block end together. */
        most -= MIN((first + most) % ENGINE_BLOCK_TOKENS, most - 1);
    } else if (s->aligns && end / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS > first) {
        most = end / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS - first;
    }
    struct scheduler_slice slice = {.choice = c, .first = first};
    int32_t n_top = choice_n_top(c);
    for (int64_t i = first; i < end && slice.n < most; i++) {
        bool is_echoed = wants_prompt_logits(r) && i + 1 < r->n_prompt && i + 1 >= r->n_echoed;
        bool want = i == choice_n_known(c) - 1 || (choice_is_bearer(c) && i == r->n_prompt - 1) ||
                    choice_wants_check(c, i + 1 - r->n_prompt) || is_echoed;
        if (want && s->n_logits == s->max_logits) {
            break;
        }
        s->rows[s->n_rows++] = (struct engine_row){.seq = c->seq,
                                                   .token = choice_known(c, i),
                                                   .want_logits = want,
                                                   .n_top = want && !is_echoed ? n_top : 0};
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

static int64_t n_beside_streams(const struct scheduler *s)
{
    uint64_t n = BESIDE_STREAMS_NS / MAX(s->row_ns, 1u) / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS;
    return MIN((int64_t)MAX(n, (uint64_t)LEAST_ROWS), s->chunk_rows);
}

/* At most so many prompt rows: first those behind the one that had the last turn, then from the
 * oldest again. */
static void add_prompts(struct scheduler *s, int64_t left)
{
    uint64_t turn_arrival = s->turn_arrival;
    uint32_t turn_number = s->turn_number;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < s->n_running && left > 0; i++) {
            struct choice *c = s->running[i];
            if (request_is_stalled(c->request) || choice_n_missing(c) <= 1 ||
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

int64_t scheduler_n_rows(const struct scheduler *s)
{
    return s->n_rows;
}

int64_t scheduler_n_looks(const struct scheduler *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_slices; i++) {
        const struct scheduler_slice *slice = &s->slices[i];
        n += slice->n * (slice->first + slice->n);
    }
    return n;
}

enum status_phase scheduler_plan(struct scheduler *s)
{
    s->n_rows = s->n_logits = 0;
    s->n_slices = 0;
    scheduler_end_overdue(s);
    scheduler_admit(s);
    scheduler_admit_reserve(s);
    for (int i = 0; i < s->n_running; i++) {
        struct choice *c = s->running[i];
        if (c->is_suspect && !request_is_stalled(c->request)) {
            add_slice(s, c, s->chunk_rows);
            return STATUS_PREFILL;
        }
    }
    for (int i = 0; i < s->n_running; i++) {
        struct choice *c = s->running[i];
        if (choice_n_missing(c) == 1 && !request_is_stalled(c->request)) {
            add_slice(s, c, 1);
        }
    }
    int64_t n_decode = s->n_rows;
    add_prompts(s, n_decode > 0 ? n_beside_streams(s) : s->chunk_rows);
    return s->n_rows > n_decode ? STATUS_PREFILL : s->n_rows > 0 ? STATUS_DECODE : STATUS_IDLE;
}

/* ---- the run ---- */

/* A step that failed has spoiled its sequences. One request alone is the culprit, unless the engine
 * has another way to compute it; of several each gets its chance alone, the others go on
 * afterwards. */
static void step_failed(struct scheduler *s, const struct err *e)
{
    bool is_one = true;
    for (int i = 1; i < s->n_slices; i++) {
        is_one = is_one && s->slices[i].choice->request == s->slices[0].choice->request;
    }
    log_warn("a step of %lld rows of %d sequences failed: %s: %s", (long long)s->n_rows,
             s->n_slices, err_text(e->code), e->detail);
    if (is_one && !(e->code == ERR_NUMERIC && engine_can_retry(s->engine))) {
        scheduler_end_request(s, s->slices[0].choice->request, e);
        return;
    }
    for (int i = 0; i < s->n_slices; i++) {
        s->slices[i].choice->is_suspect = true;
        scheduler_queue_preempt(s, s->slices[i].choice);
    }
}

/* A span for every part of a prompt, and for some of the steps that only decode. */
static void trace_step(struct scheduler *s, uint64_t start_ns)
{
    uint64_t end_ns = s->events->now_ns;
    const char *way = engine_way(s->engine);
    s->n_steps++;
    for (int i = 0; i < s->n_slices; i++) {
        if (s->slices[i].n > 1) {
            trace_add_step(s->events->trace, TRACE_PREFILL, s->slices[i].choice->request->id,
                           start_ns, end_ns, s->slices[i].n, way);
        }
    }
    if (s->n_rows == s->n_slices && s->n_steps % DECODE_TRACED == 0) {
        trace_add_step(s->events->trace, TRACE_DECODE, 0, start_ns, end_ns, s->n_slices, way);
    }
}

void scheduler_run(struct scheduler *s)
{
    struct err e = {0};
    uint64_t start_ns = clock_ns();
    int err = engine_step(s->engine, s->rows, s->n_rows, s->logits, &e);
    s->events->now_ns = clock_ns();
    s->events->compute_ns += s->events->now_ns - start_ns;
    if (s->n_rows - s->n_slices >= MANY_ROWS) {
        uint64_t row_ns = (s->events->now_ns - start_ns) / (uint64_t)s->n_rows;
        s->row_ns = s->row_ns ? (s->row_ns + row_ns) / 2 : row_ns;
    }
    trace_step(s, start_ns);
    if (err < 0) {
        e.code = err;
        step_failed(s, &e);
        return;
    }
    const struct engine_row *rows = s->rows;
    int64_t logits = 0;
    for (int i = 0; i < s->n_slices; i++) {
        struct scheduler_slice *slice = &s->slices[i];
        if (slice->choice->request->stage == REQUEST_ACTIVE) { /* a sibling's failure ended it */
            scheduler_deliver(s, slice, rows, logits);
        }
        rows += slice->n;
        logits += slice->n_logits;
    }
}

/* ---- life ---- */

/* Choices that go on from an earlier epoch, each with ids of its own, do not wait for each other's
 * prompt, if it need not be computed: what they had is found by their own ids. */
static bool goes_on_alone(struct scheduler *s, const struct request *r, const struct choice *c)
{
    uint32_t n_going_on = 0;
    int64_t held;
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        n_going_on += !r->choices[i].reason;
    }
    return c->n_ids > 0 &&
           (n_going_on == 1 || engine_cached(s->engine, r->prompt, r->n_prompt, &held) >=
                                   r->n_prompt - r->n_prompt % ENGINE_BLOCK_TOKENS);
}

void scheduler_add(struct scheduler *s, struct request *r)
{
    r->stage = REQUEST_ACTIVE;
    r->n_unfinished = r->generate.n_choices;
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        struct choice *c = &r->choices[i];
        if (!c->reason && goes_on_alone(s, r, c)) {
            scheduler_queue_put(s, c);
        } else if (!c->reason && !r->bearer) {
            r->bearer = c;
        } else if (!c->reason) {
            c->is_unborn = true;
            r->n_unborn++;
        }
    }
    if (r->bearer) {
        scheduler_queue_put(s, r->bearer);
    }
    for (uint32_t i = 0; i < r->generate.n_choices; i++) {
        if (r->choices[i].reason) { /* its replay reached its end */
            if (!r->started_ns) {
                events_started(s->events, r);
            }
            scheduler_end_choice(s, &r->choices[i]);
        }
    }
}

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
