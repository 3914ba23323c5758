/* POST /v1/messages, Anthropic's form of a chat: one answer of blocks (thinking, text, tool_use),
 * whole or as events. Runs on the gateway's loop. Invariants as answer.c: the head of a stream
 * waits for the first token; blocks open and close in order, each with its number; after an error
 * nothing more. */
#include "gateway/answer.h"
#include "gateway/api.h"
#include "gateway/ask.h"
#include "gateway/deadline.h"
#include "gateway/metrics.h"
#include "gateway/server.h"
#include "gateway/sse.h"
#include "shared/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum block { NO_BLOCK, THINKING, TEXT, TOOL_USE };

struct reply {
    struct exchange *x; /* borrowed */
    uint64_t id;        /* 0: over */
    char name[48];
    struct buf model; /* owned: its name as JSON */
    struct buf out;   /* owned: events of a stream to be sent; else the blocks that are done */
    struct buf text;  /* owned: of the open block, not streamed */
    struct splitter splitter;
    bool is_stream, has_begun, has_token;
    enum block block;
    uint32_t n_blocks, n_calls;
    char tool[256]; /* JSON of the open call's id and name */
    struct msg_started started;
    struct msg_finish finish;
    struct request_text stops[LIMIT_STOPS]; /* owned texts */
    size_t n_stops;
    bool must_call;
};

static void free_reply(struct reply *r)
{
    for (size_t i = 0; i < r->n_stops; i++) {
        free((char *)(uintptr_t)r->stops[i].data);
    }
    splitter_finish(&r->splitter);
    buf_finish(&r->model);
    buf_finish(&r->out);
    buf_finish(&r->text);
    free(r);
}

/* ---- writing ---- */

static void begin_event(struct reply *r, const char *type)
{
    buf_printf(&r->out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void end_event(struct reply *r)
{
    buf_str(&r->out, "}\n\n");
}

/* What was collected goes out. */
static void send_out(struct reply *r)
{
    if (r->out.len == 0 && !r->out.failed) {
        return;
    }
    if (r->x->status == 0) {
        exchange_stream_begin(r->x);
    }
    exchange_stream(r->x, r->out.failed ? NULL : r->out.data, r->out.len);
    buf_clear(&r->out);
}

static void put_usage(const struct reply *r, struct buf *b, uint32_t n_out)
{
    buf_printf(b,
               "\"usage\":{\"input_tokens\":%u,\"cache_read_input_tokens\":%u,"
               "\"cache_creation_input_tokens\":0,\"output_tokens\":%u}",
               r->started.n_prompt - r->started.n_cached, r->started.n_cached, n_out);
}

static void put_message(const struct reply *r, struct buf *b)
{
    buf_printf(b, "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", r->name);
    buf_add(b, r->model.data, r->model.len);
    buf_str(b, ",\"content\":[");
}

static void put_stop(const struct reply *r, struct buf *b)
{
    const struct msg_finish *f = &r->finish;
    bool by_text = f->reason == MSG_FINISH_STOP && f->stop_index >= 0;
    const char *word = f->reason == MSG_FINISH_LENGTH    ? "max_tokens"
                       : f->reason == MSG_FINISH_TIMEOUT ? "timeout"
                       : r->n_calls > 0                  ? "tool_use"
                       : by_text                         ? "stop_sequence"
                                                         : "end_turn";
    buf_printf(b, "\"stop_reason\":\"%s\",\"stop_sequence\":", word);
    if (by_text && (size_t)f->stop_index < r->n_stops && r->n_calls == 0) {
        json_put_string(b, r->stops[f->stop_index].data, r->stops[f->stop_index].n);
    } else {
        buf_str(b, "null");
    }
}

static void begin(struct reply *r)
{
    if (r->is_stream && !r->has_begun) {
        begin_event(r, "message_start");
        buf_str(&r->out, ",\"message\":");
        put_message(r, &r->out);
        buf_str(&r->out, "],\"stop_reason\":null,\"stop_sequence\":null,");
        put_usage(r, &r->out, 0);
        buf_char(&r->out, '}');
        end_event(r);
    }
    r->has_begun = true;
}

/* ---- blocks ---- */

static void close_block(struct reply *r)
{
    static const char *const heads[] = {"",
                                        "{\"type\":\"thinking\",\"signature\":\"\",\"thinking\":",
                                        "{\"type\":\"text\",\"text\":", "{\"type\":\"tool_use\","};
    if (r->block == NO_BLOCK) {
        return;
    }
    if (r->is_stream) {
        begin_event(r, "content_block_stop");
        buf_printf(&r->out, ",\"index\":%u", r->n_blocks);
        end_event(r);
    } else {
        buf_str(&r->out, r->n_blocks ? "," : "");
        buf_str(&r->out, heads[r->block]);
        if (r->block == TOOL_USE) {
            buf_printf(&r->out, "%s,\"input\":", r->tool);
            buf_add(&r->out, r->text.data, r->text.len);
        } else {
            json_put_string(&r->out, r->text.data ? r->text.data : "", r->text.len);
        }
        buf_char(&r->out, '}');
        buf_clear(&r->text);
    }
    r->n_blocks++;
    r->block = NO_BLOCK;
}

static void open_block(struct reply *r, enum block block)
{
    if (r->block == block && block != TOOL_USE) {
        return;
    }
    close_block(r);
    r->block = block;
    if (r->is_stream) {
        begin_event(r, "content_block_start");
        buf_printf(&r->out, ",\"index\":%u,\"content_block\":", r->n_blocks);
        if (block == TOOL_USE) {
            buf_printf(&r->out, "{\"type\":\"tool_use\",%s,\"input\":{}}", r->tool);
        } else {
            buf_str(&r->out, block == TEXT
                                 ? "{\"type\":\"text\",\"text\":\"\"}"
                                 : "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
        }
        end_event(r);
    }
}

static void add(struct reply *r, const char *text, size_t n)
{
    static const char *const deltas[] = {
        "", "{\"type\":\"thinking_delta\",\"thinking\":", "{\"type\":\"text_delta\",\"text\":",
        "{\"type\":\"input_json_delta\",\"partial_json\":"};
    if (!r->is_stream) {
        buf_add(&r->text, text, n);
        return;
    }
    begin_event(r, "content_block_delta");
    buf_printf(&r->out, ",\"index\":%u,\"delta\":%s", r->n_blocks, deltas[r->block]);
    json_put_string(&r->out, text, n);
    buf_char(&r->out, '}');
    end_event(r);
}

/* The arguments of a call are an object here; what the model wrote as text need not be one. */
static bool is_object(const char *text, size_t n)
{
    json_t *v = NULL;
    bool ok = json_parse(text, n, &v, NULL) == 0 && json_is_object(v);
    json_decref(v);
    return ok;
}

static void on_part(void *arg, enum splitter_part part, const char *text, size_t n,
                    const char *arguments, size_t n_arguments)
{
    struct reply *r = arg;
    if (part != SPLITTER_PART_CALL) {
        open_block(r, part == SPLITTER_PART_TEXT ? TEXT : THINKING);
        add(r, text, n);
        return;
    }
    struct buf b;
    buf_init(&b, sizeof(r->tool) - 1);
    buf_printf(&b, "\"id\":\"toolu_%016llx\",\"name\":", (unsigned long long)ask_random());
    json_put_string(&b, text, n);
    if (b.failed || !is_object(arguments, n_arguments)) { /* no name is so long: it is text */
        open_block(r, TEXT);
        add(r, arguments, n_arguments);
    } else {
        memcpy(r->tool, b.data, b.len + 1);
        r->n_calls++;
        open_block(r, TOOL_USE);
        add(r, arguments, n_arguments);
    }
    buf_finish(&b);
}

/* ---- the ends ---- */

static void put_error(struct buf *b, const struct err *e)
{
    buf_str(b, "event: error\ndata: ");
    exchange_put_named_error(b, e);
    buf_str(b, "\n\n");
}

static void fail(struct reply *r, const struct err *e)
{
    metrics_add(METRIC_GENERATIONS_FAILED, 0, 1);
    link_cancel(r->x->server->link, r->id);
    if (r->x->status == 0) {
        exchange_error(r->x, e,
                       err_http(e->code) != 400 ? NULL
                       : e->code == ERR_GRAMMAR ? (r->must_call ? "tools" : "response_format")
                                                : "messages");
    } else {
        buf_clear(&r->out);
        put_error(&r->out, e);
        send_out(r);
        exchange_stream_end(r->x);
    }
    free_reply(r);
}

static void fail_too_large(struct reply *r)
{
    struct err e;
    err_set(&e, ERR_NO_MEMORY, "the answer is larger than %d bytes", LIMIT_ANSWER_BYTES);
    fail(r, &e);
}

static void end(struct reply *r, const struct msg_done *d)
{
    begin(r);
    close_block(r);
    if (r->is_stream) {
        begin_event(r, "message_delta");
        buf_str(&r->out, ",\"delta\":{");
        put_stop(r, &r->out);
        buf_str(&r->out, "},");
        put_usage(r, &r->out, d->n_completion);
        end_event(r);
        begin_event(r, "message_stop");
        end_event(r);
        send_out(r);
        exchange_stream_end(r->x);
    } else {
        struct buf b;
        buf_init(&b, LIMIT_ANSWER_BYTES);
        put_message(r, &b);
        buf_add(&b, r->out.data, r->out.len);
        buf_str(&b, "],");
        put_stop(r, &b);
        buf_char(&b, ',');
        put_usage(r, &b, d->n_completion);
        buf_char(&b, '}');
        if (b.failed || r->out.failed || r->text.failed) {
            buf_finish(&b);
            fail_too_large(r);
            return;
        }
        exchange_reply(r->x, 200, "application/json", b.data, b.len, NULL);
        buf_finish(&b);
    }
    free_reply(r);
}

/* ---- events ---- */

static void take_text(struct reply *r, const struct link_event *ev, bool is_end)
{
    begin(r);
    if (!splitter_feed(&r->splitter, ev->text, ev->n_text, is_end, on_part, r) || r->text.failed ||
        (r->out.failed && !r->is_stream)) {
        fail_too_large(r);
    } else if (r->is_stream) {
        send_out(r);
    }
}

static void on_event(void *owner, uint64_t id, const struct link_event *ev)
{
    struct reply *r = owner;
    (void)id;
    switch (ev->type) {
    case MSG_STARTED:
        r->started = ev->m.started;
        break;
    case MSG_TOKEN:
        if (!r->has_token) {
            r->has_token = true;
            metrics_observe(METRIC_FIRST_TOKEN_SECONDS, 0,
                            (double)(clock_ns() - r->x->begin_ns) * 1e-9);
        }
        take_text(r, ev, false);
        break;
    case MSG_FINISH:
        r->finish = ev->m.finish;
        take_text(r, ev, true);
        break;
    case MSG_DONE:
        r->id = 0;
        answer_count_done(&ev->m.done);
        end(r, &ev->m.done);
        break;
    case MSG_FAIL:
        r->id = 0;
        fail(r, &ev->err);
        break;
    default: /* PREFILLED: nothing that a client sees */
        break;
    }
}

static void on_gone(void *work)
{
    struct reply *r = work;
    metrics_add(METRIC_GENERATIONS_CANCELLED, 0, 1);
    link_cancel(r->x->server->link, r->id);
    free_reply(r);
}

static void on_fail(void *work, const struct err *e)
{
    fail(work, e);
}

static void on_pressure(void *work, bool is_full)
{
    struct reply *r = work;
    link_pause(r->x->server->link, r->id, is_full);
}

static void on_silence(void *work)
{
    struct reply *r = work;
    if (r->is_stream && r->x->status == 0) {
        exchange_stream_begin(r->x);
    }
    if (r->is_stream) {
        exchange_stream(r->x, SSE_COMMENT, strlen(SSE_COMMENT));
    }
}

static const struct exchange_work work_ops = {
    .gone = on_gone, .fail = on_fail, .pressure = on_pressure, .silence = on_silence};

/* ---- the beginning ---- */

static struct reply *create(struct exchange *x, const struct request *q, const struct msg_model *m)
{
    struct reply *r = calloc(1, sizeof(*r));
    if (!r) {
        return NULL;
    }
    r->x = x;
    r->is_stream = q->is_stream;
    r->must_call = q->must_call;
    snprintf(r->name, sizeof(r->name), "msg_%016llx", (unsigned long long)ask_random());
    buf_init(&r->model, 0);
    buf_init(&r->out, LIMIT_ANSWER_BYTES);
    buf_init(&r->text, LIMIT_ANSWER_BYTES);
    splitter_init(&r->splitter, q->splits_reasoning, json_array_size(q->tools) > 0);
    json_put_string(&r->model, m->name, strlen(m->name));
    bool ok = !r->model.failed;
    for (size_t i = 0; i < q->n_stops && ok; i++) {
        char *text = malloc(q->stops[i].n + 1);
        ok = text != NULL;
        if (ok) {
            memcpy(text, q->stops[i].data, q->stops[i].n);
            r->stops[r->n_stops++] = (struct request_text){text, q->stops[i].n};
        }
    }
    if (!ok) {
        free_reply(r);
        return NULL;
    }
    return r;
}

static void start(struct exchange *x, struct request *q, const struct msg_model *model,
                  const void *arg)
{
    (void)arg;
    if (deadline_settle(x, q) < 0) {
        return;
    }
    struct reply *r = create(x, q, model);
    int rc = -ENOMEM;
    if (r) {
        struct buf payload;
        buf_init(&payload, LIMIT_BULK_BYTES);
        request_encode(q, 0, model->index, q->has_seed ? q->seed : ask_random(), &payload);
        rc = payload.failed
                 ? -ENOMEM
                 : link_submit(x->server->link, MSG_GENERATE, &payload, model, on_event, r, &r->id);
        buf_finish(&payload);
    }
    if (rc == 0) {
        metrics_add(METRIC_GENERATIONS, 0, 1);
        exchange_leave_work(x, &work_ops, r);
        return;
    }
    if (r) {
        free_reply(r);
    }
    ask_refuse(x, rc);
}

void api_messages(struct exchange *x)
{
    ask(x, REQUEST_ANTHROPIC, start, NULL);
}
