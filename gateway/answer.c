/* Generations: events from the link to bytes for the client. Runs on the gateway's loop.
 * Invariants: the head of a stream is sent with the first token (or after LIMIT_KEEPALIVE_MS of
 * silence), so that whatever fails before is a plain HTTP error that clients retry; every choice
 * ends with exactly one finish reason; after an error nothing more is sent. */
#include "gateway/answer.h"
#include "gateway/ask.h"
#include "gateway/deadline.h"
#include "gateway/metrics.h"
#include "gateway/server.h"
#include "gateway/sse.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_BYTES = 64 };

struct part {              /* one prompt's request to the worker */
    struct answer *answer; /* back pointer: the link's owner is the part */
    uint64_t id;           /* 0: over */
    struct msg_done done;
    uint64_t first_token_ns;
    char resumed_on[64]; /* device that finished what another numeric profile began; "" none */
};

struct answer {
    struct exchange *x; /* borrowed */
    const struct answer_format *format;
    const char *form_field; /* of the grammar or schema */
    char id[ID_BYTES];
    int64_t created;
    struct buf model; /* owned: its name as JSON */
    struct buf event; /* owned: one event under construction */
    bool is_stream, wants_usage, wants_logprobs;
    bool splits;                 /* what the model writes is taken apart */
    uint32_t n_parts, n_choices; /* choices of all parts together */
    uint32_t n_made, n_shown;    /* of each part: choices, and how many of them are answered */
    uint32_t n_open_parts, n_open_choices;
    struct part *parts;            /* owned */
    struct answer_choice *choices; /* owned */
    uint32_t last_choice;          /* its finish waits for DONE, to carry the timings */
    bool has_last;
    size_t n_bytes; /* of text and logprobs, when the answer is not streamed */
};

static void free_answer(struct answer *a)
{
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++) {
        buf_finish(&a->choices[i].text);
        buf_finish(&a->choices[i].reasoning);
        buf_finish(&a->choices[i].calls);
        splitter_finish(&a->choices[i].splitter);
        for (size_t k = 0; k < COUNT_OF(a->choices[i].logprobs); k++) {
            buf_finish(&a->choices[i].logprobs[k]);
        }
    }
    free(a->choices);
    free(a->parts);
    buf_finish(&a->model);
    buf_finish(&a->event);
    free(a);
}

static void cancel_parts(struct answer *a)
{
    for (uint32_t i = 0; i < a->n_parts; i++) {
        if (a->parts[i].id) {
            link_cancel(a->x->server->link, a->parts[i].id);
            a->parts[i].id = 0;
        }
    }
}

/* ---- writing ---- */

static const char *finish_word(const struct answer_choice *c)
{
    return c->finish == MSG_FINISH_LENGTH    ? "length"
           : c->finish == MSG_FINISH_TIMEOUT ? "timeout"
           : c->n_calls > 0                  ? "tool_calls"
                                             : "stop";
}

static void put_envelope(const struct answer *a, struct buf *b, const char *object)
{
    buf_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", a->id, object,
               (long long)a->created);
    buf_add(b, a->model.data, a->model.len);
    buf_str(b, ",\"system_fingerprint\":\"rocmforge-" ROCMFORGE_VERSION "\",\"choices\":[");
}

static struct msg_done sum(const struct answer *a)
{
    struct msg_done s = {0};
    for (uint32_t i = 0; i < a->n_parts; i++) {
        const struct msg_done *d = &a->parts[i].done;
        s.n_prompt += d->n_prompt;
        s.n_cached += d->n_cached;
        s.n_completion += d->n_completion;
        s.prefill_ns = MAX(s.prefill_ns, d->prefill_ns); /* they ran side by side */
        s.decode_ns = MAX(s.decode_ns, d->decode_ns);
    }
    return s;
}

static void put_usage(const struct answer *a, struct buf *b)
{
    struct msg_done s = sum(a);
    buf_printf(b,
               "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
               s.n_prompt, s.n_completion, s.n_prompt + s.n_completion, s.n_cached);
}

/* n tokens in so many ns, with the keys of llama-server. */
static void put_rate(struct buf *b, const char *what, uint32_t n, uint64_t ns)
{
    double ms = (double)ns * 1e-6;
    buf_printf(b, "\"%s_n\":%u,\"%s_ms\":%.3f,\"%s_per_token_ms\":%.3f,\"%s_per_second\":%.3f",
               what, n, what, ms, what, n ? ms / n : 0, what, ns ? n / ms * 1e3 : 0);
}

static void put_timings(const struct answer *a, struct buf *b)
{
    struct msg_done s = sum(a);
    buf_printf(b, ",\"timings\":{\"cache_n\":%u,", s.n_cached);
    put_rate(b, "prompt", s.n_prompt - s.n_cached, s.prefill_ns);
    buf_char(b, ',');
    put_rate(b, "predicted", s.n_completion, s.decode_ns);
    buf_char(b, '}');
}

static void put_resumed(const struct answer *a, struct buf *b)
{
    for (uint32_t i = 0; i < a->n_parts; i++) {
        if (*a->parts[i].resumed_on) {
            buf_str(b, ",\"resumed_on\":");
            json_put_string(b, a->parts[i].resumed_on, strlen(a->parts[i].resumed_on));
            return;
        }
    }
}

static void send_event(struct answer *a)
{
    if (a->x->status == 0) {
        exchange_stream_begin(a->x);
    }
    sse_end(&a->event);
    exchange_stream(a->x, a->event.failed ? NULL : a->event.data, a->event.len);
    buf_clear(&a->event);
}

/* One chunk with one element in "choices". */
static void send_piece(struct answer *a, uint32_t index, enum answer_piece piece, const char *text,
                       size_t n, bool has_logprobs, bool has_timings)
{
    struct answer_choice *c = &a->choices[index];
    sse_begin(&a->event);
    put_envelope(a, &a->event, a->format->chunk_object);
    a->format->put_piece(&a->event, index, piece, text, n, has_logprobs && c->n_logprobs ? c : NULL,
                         piece == ANSWER_FINISH ? finish_word(c) : NULL);
    buf_str(&a->event, a->wants_usage ? "],\"usage\":null" : "]");
    if (has_timings) {
        put_timings(a, &a->event);
        put_resumed(a, &a->event);
    }
    buf_char(&a->event, '}');
    send_event(a);
    if (has_logprobs && c->n_logprobs) {
        for (size_t k = 0; k < COUNT_OF(c->logprobs); k++) {
            buf_clear(&c->logprobs[k]);
        }
        c->n_logprobs = 0;
    }
}

static void begin_choice(struct answer *a, uint32_t index)
{
    if (!a->choices[index].has_begun) {
        a->choices[index].has_begun = true;
        if (a->format->has_begin) {
            send_piece(a, index, ANSWER_BEGIN, NULL, 0, false, false);
        }
    }
}

static void end_stream(struct answer *a)
{
    send_piece(a, a->last_choice, ANSWER_FINISH, NULL, 0, false, !a->wants_usage);
    if (a->wants_usage) {
        sse_begin(&a->event);
        put_envelope(a, &a->event, a->format->chunk_object);
        buf_str(&a->event, "],");
        put_usage(a, &a->event);
        put_timings(a, &a->event);
        put_resumed(a, &a->event);
        buf_char(&a->event, '}');
        send_event(a);
    }
    exchange_stream(a->x, SSE_DONE, strlen(SSE_DONE));
    exchange_stream_end(a->x);
}

/* The most likely of a part's choices (by the mean of its tokens) that was not taken yet, the first
 * of equals; in order of number where all are answered. */
static struct answer_choice *take_best(struct answer *a, uint32_t part)
{
    struct answer_choice *best = NULL, *c = &a->choices[part * a->n_made];
    for (uint32_t i = 0; i < a->n_made; i++) {
        if (!c[i].is_shown &&
            (!best || (a->n_shown < a->n_made && c[i].mean_logprob > best->mean_logprob))) {
            best = &c[i];
        }
    }
    ASSERT(best);
    best->is_shown = true;
    return best;
}

static void send_whole(struct answer *a)
{
    struct buf b;
    buf_init(&b, LIMIT_ANSWER_BYTES);
    put_envelope(a, &b, a->format->object);
    for (uint32_t i = 0; i < a->n_parts * a->n_shown; i++) {
        const struct answer_choice *c = take_best(a, i / a->n_shown);
        buf_str(&b, i ? "," : "");
        b.failed |= c->text.failed;
        a->format->put_whole(&b, i, c, a->wants_logprobs, finish_word(c));
    }
    buf_str(&b, "],");
    put_usage(a, &b);
    put_timings(a, &b);
    put_resumed(a, &b);
    buf_char(&b, '}');
    if (b.failed) {
        struct err e;
        err_set(&e, ERR_NO_MEMORY, "the answer is larger than %d bytes; use \"stream\": true",
                LIMIT_ANSWER_BYTES);
        exchange_error(a->x, &e, NULL);
    } else {
        exchange_reply(a->x, 200, "application/json", b.data, b.len, NULL);
    }
    buf_finish(&b);
}

/* What the worker refuses of a request is its prompt or its grammar: the rest was checked here. */
static const char *param_at_fault(const struct answer *a, const struct err *e)
{
    return err_http(e->code) != 400 ? NULL
           : e->code == ERR_GRAMMAR ? a->form_field
                                    : a->format->prompt_field;
}

/* Ends the answer with an error: as a status while no head is out, else inside the stream. */
static void fail(struct answer *a, const struct err *e)
{
    metrics_add(METRIC_GENERATIONS_FAILED, 0, a->n_open_parts);
    cancel_parts(a);
    if (a->x->status == 0) {
        exchange_error(a->x, e, param_at_fault(a, e));
    } else {
        buf_clear(&a->event);
        sse_begin(&a->event);
        exchange_put_error(&a->event, e, param_at_fault(a, e));
        send_event(a);
        exchange_stream_end(a->x);
    }
    free_answer(a);
}

/* ---- events ---- */

const char *answer_piece_bytes(const struct link_event *ev, size_t i, size_t *at)
{
    const char *piece = ev->pieces + *at;
    *at += ev->top[i].piece_bytes;
    return piece;
}

/* Shows text, or a part of what a chat model wrote (splitter.h). */
static void show(struct answer *a, uint32_t index, enum answer_piece piece, const char *text,
                 size_t n)
{
    struct answer_choice *c = &a->choices[index];
    struct buf *whole = piece == ANSWER_TEXT        ? &c->text
                        : piece == ANSWER_REASONING ? &c->reasoning
                                                    : &c->calls;
    if (a->is_stream) {
        send_piece(a, index, piece, text, n, true, false);
    } else {
        buf_str(whole, piece == ANSWER_CALL && whole->len ? "," : "");
        buf_add(whole, text, n);
        a->n_bytes += n;
    }
}

struct splitting {
    struct answer *a;
    uint32_t index;
};

static void on_part(void *arg, enum splitter_part part, const char *text, size_t n,
                    const char *arguments, size_t n_arguments)
{
    const struct splitting *s = arg;
    struct answer_choice *c = &s->a->choices[s->index];
    if (part != SPLITTER_PART_CALL) {
        show(s->a, s->index, part == SPLITTER_PART_TEXT ? ANSWER_TEXT : ANSWER_REASONING, text, n);
        return;
    }
    struct buf b;
    buf_init(&b, LIMIT_ANSWER_BYTES);
    buf_char(&b, '{');
    if (s->a->is_stream) {
        buf_printf(&b, "\"index\":%u,", c->n_calls);
    }
    c->n_calls++;
    buf_printf(&b, "\"id\":\"call_%016llx\",\"type\":\"function\",\"function\":{\"name\":",
               (unsigned long long)ask_random());
    json_put_string(&b, text, n);
    buf_str(&b, ",\"arguments\":");
    json_put_string(&b, arguments, n_arguments);
    buf_str(&b, "}}");
    show(s->a, s->index, ANSWER_CALL, b.data ? b.data : "", b.len);
    s->a->event.failed |= b.failed;
    buf_finish(&b);
}

/* New text of a choice. False: the answer failed and is gone. */
static bool add_text(struct answer *a, uint32_t index, const char *text, size_t n)
{
    struct answer_choice *c = &a->choices[index];
    struct splitting splitting = {a, index};
    bool ok = true;
    if (a->is_stream) {
        begin_choice(a, index);
    }
    if (a->splits) {
        ok = splitter_feed(&c->splitter, text, n, c->is_finished, on_part, &splitting);
    } else if (n || !a->is_stream) {
        show(a, index, ANSWER_TEXT, text, n);
    }
    if (!ok || c->text.failed || c->reasoning.failed || c->calls.failed ||
        a->n_bytes > LIMIT_ANSWER_BYTES) {
        struct err e;
        err_set(&e, ERR_NO_MEMORY, "the answer is larger than %d bytes; use \"stream\": true",
                LIMIT_ANSWER_BYTES);
        fail(a, &e);
        return false;
    }
    return true;
}

static size_t logprob_bytes(const struct answer_choice *c)
{
    size_t n = 0;
    for (size_t k = 0; k < COUNT_OF(c->logprobs); k++) {
        n += c->logprobs[k].len;
    }
    return n;
}

static void add_logprobs(struct answer *a, struct answer_choice *c, const struct link_event *ev)
{
    size_t before = logprob_bytes(c);
    a->format->put_logprobs(c, ev);
    c->n_logprobs++;
    a->n_bytes += a->is_stream ? 0 : logprob_bytes(c) - before;
    for (size_t k = 0; k < COUNT_OF(c->logprobs); k++) {
        if (c->logprobs[k].failed) { /* what is written next fails */
            a->event.failed = c->text.failed = true;
        }
    }
}

static void on_token(struct part *p, const struct link_event *ev)
{
    struct answer *a = p->answer;
    uint32_t index = ev->m.token.choice;
    if (!p->first_token_ns && !ev->m.token.is_prompt) {
        p->first_token_ns = clock_ns();
        metrics_observe(METRIC_FIRST_TOKEN_SECONDS, 0,
                        (double)(p->first_token_ns - a->x->begin_ns) * 1e-9);
    }
    if (a->wants_logprobs) {
        add_logprobs(a, &a->choices[index], ev);
    }
    add_text(a, index, ev->text, ev->n_text);
}

static void on_finish(struct answer *a, const struct link_event *ev)
{
    uint32_t index = ev->m.finish.choice;
    struct answer_choice *c = &a->choices[index];
    c->finish = ev->m.finish.reason;
    c->is_finished = true;
    c->mean_logprob = ev->m.finish.logprob_sum / (float)MAX(ev->m.finish.n_tokens, 1u);
    if (!add_text(a, index, ev->text, ev->n_text)) {
        return;
    }
    a->n_open_choices--;
    if (a->n_open_choices == 0) {
        a->last_choice = index;
        a->has_last = true;
    } else if (a->is_stream) {
        send_piece(a, index, ANSWER_FINISH, NULL, 0, false, false);
    }
}

void answer_count_done(const struct msg_done *d)
{
    metrics_add(METRIC_PROMPT_TOKENS, 0, d->n_prompt);
    metrics_add(METRIC_CACHED_TOKENS, 0, d->n_cached);
    metrics_add(METRIC_COMPLETION_TOKENS, 0, d->n_completion);
    metrics_observe(METRIC_QUEUE_SECONDS, 0, (double)d->queue_ns * 1e-9);
    if (d->n_completion > 1) {
        metrics_observe(METRIC_TOKEN_SECONDS, 0,
                        (double)d->decode_ns * 1e-9 / (d->n_completion - 1));
    }
}

static void on_done(struct part *p, const struct link_event *ev)
{
    struct answer *a = p->answer;
    p->id = 0;
    p->done = ev->m.done;
    snprintf(p->resumed_on, sizeof(p->resumed_on), "%s", ev->resumed_on ? ev->resumed_on : "");
    answer_count_done(&p->done);
    if (--a->n_open_parts > 0) {
        return;
    }
    ASSERT(a->has_last); /* the journal lets no DONE pass before every choice's end */
    if (a->is_stream) {
        end_stream(a);
    } else {
        send_whole(a);
    }
    free_answer(a);
}

static void on_event(void *owner, uint64_t id, const struct link_event *ev)
{
    struct part *p = owner;
    (void)id;
    switch (ev->type) {
    case MSG_TOKEN:
        on_token(p, ev);
        break;
    case MSG_FINISH:
        on_finish(p->answer, ev);
        break;
    case MSG_DONE:
        on_done(p, ev);
        break;
    case MSG_FAIL:
        p->id = 0;
        fail(p->answer, &ev->err);
        break;
    default: /* STARTED, PREFILLED: nothing that a client sees */
        break;
    }
}

/* ---- what the connection says ---- */

static void on_gone(void *work)
{
    struct answer *a = work;
    metrics_add(METRIC_GENERATIONS_CANCELLED, 0, a->n_open_parts);
    cancel_parts(a);
    free_answer(a);
}

static void on_fail(void *work, const struct err *e)
{
    fail(work, e);
}

static void on_pressure(void *work, bool is_full)
{
    struct answer *a = work;
    for (uint32_t i = 0; i < a->n_parts; i++) {
        link_pause(a->x->server->link, a->parts[i].id, is_full);
    }
}

static void on_silence(void *work)
{
    struct answer *a = work;
    if (!a->is_stream) {
        return;
    }
    if (a->x->status == 0) {
        exchange_stream_begin(a->x);
    }
    exchange_stream(a->x, SSE_COMMENT, strlen(SSE_COMMENT));
}

static const struct exchange_work work_ops = {
    .gone = on_gone, .fail = on_fail, .pressure = on_pressure, .silence = on_silence};

/* ---- the beginning ---- */

static struct answer *create(struct exchange *x, const struct request *r,
                             const struct answer_format *format, const struct msg_model *model)
{
    struct answer *a = calloc(1, sizeof(*a));
    if (!a) {
        return NULL;
    }
    a->x = x;
    a->format = format;
    a->form_field = r->grammar.n > 0 ? "grammar" : r->must_call ? "tools" : "response_format";
    a->created = clock_unix_s();
    a->is_stream = r->is_stream;
    a->wants_usage = r->wants_usage;
    a->wants_logprobs = r->wants_logprobs;
    a->splits = r->splits_reasoning || json_array_size(r->tools) > 0;
    a->n_parts = a->n_open_parts = (uint32_t)r->n_prompts;
    a->n_made = (uint32_t)r->best_of;
    a->n_shown = (uint32_t)r->n;
    a->n_choices = a->n_open_choices = a->n_parts * a->n_made;
    a->parts = calloc(a->n_parts, sizeof(*a->parts));
    a->choices = calloc(a->n_choices, sizeof(*a->choices));
    snprintf(a->id, sizeof(a->id), "%s-%016llx%016llx", format->id_prefix,
             (unsigned long long)ask_random(), (unsigned long long)ask_random());
    buf_init(&a->model, 0);
    buf_init(&a->event, 0);
    json_put_string(&a->model, model->name, strlen(model->name));
    if (!a->parts || !a->choices || a->model.failed) {
        free_answer(a);
        return NULL;
    }
    for (uint32_t i = 0; i < a->n_choices; i++) {
        buf_init(&a->choices[i].text, LIMIT_ANSWER_BYTES);
        buf_init(&a->choices[i].reasoning, LIMIT_ANSWER_BYTES);
        buf_init(&a->choices[i].calls, LIMIT_ANSWER_BYTES);
        splitter_init(&a->choices[i].splitter, r->splits_reasoning, json_array_size(r->tools) > 0);
    }
    return a;
}

static int submit(struct answer *a, const struct request *r, const struct msg_model *model)
{
    uint64_t seed = r->has_seed ? r->seed : ask_random();
    for (uint32_t i = 0; i < a->n_parts; i++) {
        struct buf payload;
        buf_init(&payload, LIMIT_BULK_BYTES);
        request_encode(r, i, model->index, seed, &payload);
        a->parts[i].answer = a;
        int rc = payload.failed ? -ENOMEM
                                : link_submit(a->x->server->link, MSG_GENERATE, &payload, model,
                                              on_event, &a->parts[i], &a->parts[i].id);
        buf_finish(&payload);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static void start(struct exchange *x, struct request *r, const struct msg_model *model,
                  const void *format)
{
    if (deadline_settle(x, r) < 0) {
        return;
    }
    struct answer *a = create(x, r, format, model);
    int rc = a ? submit(a, r, model) : -ENOMEM;
    if (rc == 0) {
        metrics_add(METRIC_GENERATIONS, 0, a->n_parts);
        exchange_leave_work(x, &work_ops, a);
        return;
    }
    if (a) {
        cancel_parts(a);
        free_answer(a);
    }
    ask_refuse(x, rc);
}

void answer_start(struct exchange *x, enum request_api api, const struct answer_format *format)
{
    ask(x, api, start, format);
}
