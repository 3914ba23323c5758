/* A request's memory and the reading of its message. Token loop; blocks never. */
#include "worker/request.h"
#include "ipc/memfd.h"
#include "worker/choice.h"
#include "worker/grammar/constraint.h"

#include <stdlib.h>
#include <string.h>

struct request *request_create(uint64_t id, uint32_t type, uint64_t arrival, uint64_t now_ns)
{
    struct request *r = base_alloc(sizeof(*r));
    r->id = id;
    r->type = type;
    r->arrival = arrival;
    r->received_ns = now_ns;
    buf_init(&r->pending, 0);
    buf_init(&r->result, LIMIT_BULK_BYTES);
    return r;
}

void request_drop_payload(struct request *r)
{
    if (r->is_bulk) {
        memfd_unmap(r->payload, r->payload_len);
    } else {
        free(r->payload);
    }
    r->payload = NULL;
}

void request_destroy(struct request **rp)
{
    struct request *r = *rp;
    if (!r) {
        return;
    }
    if (r->choices) {
        for (uint32_t i = 0; i < r->generate.n_choices; i++) {
            choice_finish(&r->choices[i]);
        }
        free(r->choices);
    }
    request_drop_payload(r);
    constraint_destroy(&r->constraint);
    detokenizer_destroy(&r->echo);
    free(r->prompt);
    buf_finish(&r->pending);
    buf_finish(&r->result);
    free(r);
    *rp = NULL;
}

/* A section that may come once. */
static bool take_once(struct request_span *span, const void *data, uint64_t bytes, size_t elem)
{
    if (span->data || bytes % elem != 0) {
        return false;
    }
    *span = (struct request_span){data, (size_t)bytes / elem};
    return true;
}

static bool take_stop(struct request *r, const void *data, uint64_t bytes)
{
    if (r->n_stops == LIMIT_STOPS || bytes < 1 || bytes > LIMIT_STOP_BYTES) {
        return false;
    }
    r->stops[r->n_stops++] = (struct detokenizer_stop){data, (size_t)bytes};
    return true;
}

static bool take_resume(struct request *r, struct request_span *spans, uint32_t index,
                        const void *data, uint64_t bytes, size_t elem)
{
    const struct msg_generate *g = &r->generate;
    if (index < g->choice_base || index - g->choice_base >= g->n_choices) {
        return false;
    }
    r->is_resumed = r->is_resumed || bytes > 0;
    return take_once(&spans[index - g->choice_base], data, bytes, elem);
}

static bool take_section(struct request *r, const struct msg_section *s, const void *data)
{
    bool is_generate = r->type == MSG_GENERATE;
    switch (s->kind) {
    case MSG_PROMPT_TEXT:
        return take_once(&r->prompt_text, data, s->bytes, 1);
    case MSG_PROMPT_IDS:
        return take_once(&r->prompt_ids, data, s->bytes, sizeof(int32_t));
    case MSG_MESSAGES:
        return take_once(&r->messages, data, s->bytes, 1);
    case MSG_TEMPLATE_ARGS:
        return take_once(&r->template_args, data, s->bytes, 1);
    case MSG_STOP:
        return is_generate && take_stop(r, data, s->bytes);
    case MSG_LOGIT_BIAS:
        return is_generate && take_once(&r->bias, data, s->bytes, sizeof(struct msg_logit_bias)) &&
               r->bias.n <= LIMIT_LOGIT_BIAS;
    case MSG_GRAMMAR:
        return is_generate && !r->schema.data && take_once(&r->grammar, data, s->bytes, 1);
    case MSG_SCHEMA:
        return is_generate && !r->grammar.data && take_once(&r->schema, data, s->bytes, 1);
    case MSG_RESUME_IDS:
        return is_generate && take_resume(r, r->resume, s->index, data, s->bytes, sizeof(int32_t));
    case MSG_RESUME_END:
        return is_generate && s->bytes == sizeof(struct msg_resume_end) &&
               take_resume(r, r->ends, s->index, data, s->bytes, s->bytes);
    default:
        return false;
    }
}

/* Exactly the source of tokens that the message's kind wants. */
static bool has_right_source(const struct request *r)
{
    bool text = r->prompt_text.data, ids = r->prompt_ids.data, messages = r->messages.data;
    if (r->type == MSG_TEXT && r->text.op > MSG_APPLY_TEMPLATE) {
        return !text && !ids && !messages && !r->template_args.data;
    }
    if ((int)text + (int)ids + (int)messages != 1 || (r->template_args.data && !messages)) {
        return false;
    }
    if (r->type == MSG_GENERATE) {
        return messages == ((r->generate.flags & MSG_CHAT) != 0);
    }
    return r->text.op == MSG_TOKENIZE ? text : r->text.op == MSG_DETOKENIZE ? ids : messages;
}

int request_read(struct request *r, void *payload, size_t len, bool is_bulk,
                 const struct models *models)
{
    r->payload = payload;
    r->payload_len = len;
    r->is_bulk = is_bulk;
    size_t fixed = msg_info(r->type)->fixed_bytes;
    uint32_t model;
    if (r->type == MSG_GENERATE) {
        memcpy(&r->generate, payload, sizeof(r->generate));
        model = r->generate.model;
    } else {
        memcpy(&r->text, payload, sizeof(r->text));
        model = r->text.model;
    }
    if (model >= models->n) {
        return ERR_PROTOCOL;
    }
    r->model = &models->v[model];
    struct msg_cursor c = msg_sections(payload, len, fixed);
    struct msg_section s;
    const void *data;
    int got;
    while ((got = msg_next_section(&c, &s, &data)) == 1) {
        if (!take_section(r, &s, data)) {
            return ERR_PROTOCOL;
        }
    }
    return got == 0 && has_right_source(r) ? 0 : ERR_PROTOCOL;
}
