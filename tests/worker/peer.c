#include "tests/worker/peer.h"
#include "shared/err.h"
#include "shared/utf8.h"
#include "tests/test.h"

#include <errno.h>
#include <sys/eventfd.h>

/* ---- requests ---- */

static struct ask plain(uint64_t id)
{
    struct ask a = {
        .type = MSG_GENERATE,
        .m = {.request = id,
              .seed = id * 7919,
              .n_choices = 1,
              .top_p = 1,
              .typical_p = 1,
              .repeat_penalty = 1,
              .repeat_last_n = 64},
    };
    buf_init(&a.sections, 0);
    return a;
}

void ask_add(struct ask *a, enum msg_section_kind kind, uint32_t index, const void *data, size_t n)
{
    msg_put_section(&a->sections, kind, index, data, n);
    a->n_sections++;
}

struct ask ask_text(uint64_t id, const char *prompt)
{
    struct ask a = plain(id);
    a.m.flags = MSG_PARSE_SPECIAL;
    ask_add(&a, MSG_PROMPT_TEXT, 0, prompt, strlen(prompt));
    return a;
}

struct ask ask_ids(uint64_t id, const int32_t *ids, size_t n)
{
    struct ask a = plain(id);
    ask_add(&a, MSG_PROMPT_IDS, 0, ids, n * sizeof(*ids));
    return a;
}

struct ask ask_chat(uint64_t id, const char *messages, const char *args)
{
    struct ask a = plain(id);
    a.m.flags = MSG_CHAT;
    ask_add(&a, MSG_MESSAGES, 0, messages, strlen(messages));
    if (args) {
        ask_add(&a, MSG_TEMPLATE_ARGS, 0, args, strlen(args));
    }
    return a;
}

struct ask ask_op(uint64_t id, enum msg_text_op op)
{
    struct ask a = plain(id);
    a.type = MSG_TEXT;
    a.t = (struct msg_text){.request = id, .op = op};
    return a;
}

void ask_stop(struct ask *a, const char *stop)
{
    ask_add(a, MSG_STOP, 0, stop, strlen(stop));
}

void ask_encode(struct ask *a, struct buf *ret)
{
    a->m.n_sections = a->t.n_sections = a->n_sections;
    if (a->type == MSG_GENERATE) {
        buf_add(ret, &a->m, sizeof(a->m));
    } else {
        buf_add(ret, &a->t, sizeof(a->t));
    }
    buf_add(ret, a->sections.data, a->sections.len);
    buf_finish(&a->sections);
    CHECK(!ret->failed);
}

struct answer *peer_begin(struct peer *p, uint64_t id)
{
    CHECK(p->n_answers < PEER_MAX);
    struct answer *an = calloc(1, sizeof(*an));
    CHECK(an);
    an->id = id;
    p->answers[p->n_answers++] = an;
    return an;
}

void peer_send(struct peer *p, struct ask *a)
{
    struct buf payload;
    buf_init(&payload, 0);
    uint64_t id = a->m.request;
    ask_encode(a, &payload);
    CHECK_INT(ring_put(&p->requests, a->type, payload.data, payload.len, NULL, 0), 0);
    buf_finish(&payload);
    peer_begin(p, id);
}

void peer_tell(struct peer *p, uint32_t type, uint64_t id)
{
    struct msg_request m = {.request = id};
    CHECK_INT(ring_put(&p->requests, type, &m, sizeof(m), NULL, 0), 0);
    struct answer *an = peer_answer(p, id);
    if (an && type == MSG_CANCEL) {
        an->is_cancelled = true;
    }
}

/* ---- answers ---- */

struct answer *peer_answer(struct peer *p, uint64_t id)
{
    for (size_t i = p->n_answers; i-- > 0;) {
        if (p->answers[i]->id == id) {
            return p->answers[i];
        }
    }
    return NULL;
}

static struct answer_choice *choice_of(struct answer *an, uint32_t number)
{
    CHECK(number < LIMIT_CHOICES);
    if (!an->choices[number]) {
        an->choices[number] = calloc(1, sizeof(**an->choices));
        CHECK(an->choices[number]);
    }
    return an->choices[number];
}

static void on_token(struct answer *an, const struct msg_token *m, const uint8_t *rest)
{
    struct answer_choice *c = choice_of(an, m->choice);
    CHECK(an->is_started && !c->is_finished);
    buf_add(&an->logprobs, rest, m->n_top * sizeof(struct msg_logprob));
    rest += m->n_top * sizeof(struct msg_logprob);
    CHECK(utf8_is_valid((const char *)rest, m->text_bytes));
    buf_add(&c->text, rest, m->text_bytes);
    rest += m->text_bytes;
    for (size_t i = 0; i < m->n_top; i++) {
        struct msg_logprob p;
        memcpy(&p, an->logprobs.data + an->logprobs.len - (m->n_top - i) * sizeof(p), sizeof(p));
        CHECK(p.piece_bytes <= MSG_PIECE_BYTES);
        CHECK(i > 0 || p.id == m->id);
        buf_add(&an->pieces, rest, p.piece_bytes);
        rest += p.piece_bytes;
    }
    if (m->is_prompt) {
        CHECK(c->n_ids == 0);
        CHECK_INT(m->position, c->n_echo);
        c->n_echo++;
    } else {
        CHECK(c->n_ids < COUNT_OF(c->ids));
        c->first = c->n_ids ? c->first : m->position; /* a replay begins later */
        CHECK_INT(m->position, c->first + c->n_ids);
        c->text_at[c->n_ids] = c->text.len;
        c->ids[c->n_ids++] = m->id;
    }
}

static void on_finish(struct answer *an, const struct msg_finish *m, const uint8_t *rest)
{
    struct answer_choice *c = choice_of(an, m->choice);
    CHECK(an->is_started && !c->is_finished);
    CHECK(utf8_is_valid((const char *)rest, m->text_bytes));
    CHECK(m->reason != MSG_FINISH_CANCEL || an->is_cancelled);
    buf_add(&c->text, rest, m->text_bytes);
    c->is_finished = true;
    c->reason = m->reason;
    c->n_tokens = m->n_tokens;
    c->stop_index = m->stop_index;
    c->logprob_sum = m->logprob_sum;
}

static void on_done(struct answer *an, const struct msg_done *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LIMIT_CHOICES; i++) {
        CHECK(!an->choices[i] || an->choices[i]->is_finished);
        n += an->choices[i] ? an->choices[i]->n_tokens : 0;
    }
    CHECK(an->is_cancelled || an->is_started);
    if (an->is_started) { /* else a replay was cancelled: what it had counts, nothing was said */
        CHECK_INT(m->n_completion, n + an->n_before);
    }
    CHECK(!an->is_started || m->n_prompt == an->started.n_prompt);
    an->done = *m;
    an->is_over = true;
}

static void on_event(struct peer *p, const struct ring_record *r, const uint8_t *payload)
{
    uint64_t id;
    CHECK_INT(msg_check(r->type, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, payload,
                        r->len, 0),
              0);
    p->n_events++;
    if (r->type == MSG_MODEL) {
        CHECK(p->n_models < LIMIT_MODELS);
        memcpy(&p->models[p->n_models++], payload, sizeof(p->models[0]));
        return;
    }
    memcpy(&id, payload, sizeof(id));
    struct answer *an = peer_answer(p, id);
    CHECK(an && !an->is_over);
    const uint8_t *rest = payload + msg_info(r->type)->fixed_bytes;
    union {
        struct msg_started started;
        struct msg_prefilled prefilled;
        struct msg_token token;
        struct msg_finish finish;
        struct msg_done done;
        struct msg_fail fail;
        struct msg_result result;
    } m;
    memcpy(&m, payload, msg_info(r->type)->fixed_bytes);
    switch (r->type) {
    case MSG_STARTED:
        CHECK(!an->is_started);
        an->is_started = true;
        an->started = m.started;
        break;
    case MSG_PREFILLED:
        CHECK(an->is_started && m.prefilled.n_done < m.prefilled.n_prompt);
        an->n_prefilled++;
        break;
    case MSG_TOKEN:
        on_token(an, &m.token, rest);
        break;
    case MSG_FINISH:
        on_finish(an, &m.finish, rest);
        break;
    case MSG_DONE:
        on_done(an, &m.done);
        break;
    case MSG_FAIL:
        an->err = m.fail.err;
        memcpy(an->detail, m.fail.detail, sizeof(an->detail));
        an->is_over = true;
        break;
    case MSG_RESULT:
        buf_add(&an->result, rest, m.result.bytes);
        an->is_over = m.result.is_last;
        break;
    default:
        TEST_FAIL("an event of type %u", r->type);
    }
}

size_t peer_take(struct peer *p, size_t most)
{
    static _Alignas(16) uint8_t payload[LIMIT_RECORD_BYTES];
    struct ring_record r;
    size_t n = 0;
    for (; n < most; n++) {
        int got = ring_take(&p->events, payload, &r);
        CHECK(got >= 0);
        if (got == 0) {
            break;
        }
        on_event(p, &r, payload);
    }
    return n;
}

bool peer_all_over(const struct peer *p)
{
    for (size_t i = 0; i < p->n_answers; i++) {
        if (!p->answers[i]->is_over) {
            return false;
        }
    }
    return true;
}

const char *peer_text(struct peer *p, uint64_t id, uint32_t choice)
{
    struct answer *an = peer_answer(p, id);
    CHECK(an);
    const struct answer_choice *c = an->choices[choice];
    return c && c->text.data ? c->text.data : "";
}

void peer_check_same(struct peer *p, uint64_t a, uint64_t b, uint32_t choice)
{
    struct answer *x = peer_answer(p, a), *y = peer_answer(p, b);
    CHECK(x && y && x->is_over && y->is_over);
    CHECK_INT(x->err, y->err);
    const struct answer_choice *c = x->choices[choice], *d = y->choices[choice];
    CHECK(c && d);
    CHECK_INT(c->n_ids, d->n_ids);
    CHECK(memcmp(c->ids, d->ids, c->n_ids * sizeof(c->ids[0])) == 0);
    CHECK_INT(c->reason, d->reason);
    CHECK_INT(c->n_tokens, d->n_tokens);
    CHECK_INT(c->stop_index, d->stop_index);
    CHECK_STR(peer_text(p, a, choice), peer_text(p, b, choice));
}

static void destroy_answer(struct answer *an)
{
    for (int k = 0; k < LIMIT_CHOICES; k++) {
        if (an->choices[k]) {
            buf_finish(&an->choices[k]->text);
            free(an->choices[k]);
        }
    }
    buf_finish(&an->result);
    buf_finish(&an->logprobs);
    buf_finish(&an->pieces);
    free(an);
}

void peer_forget_one(struct peer *p, uint64_t id)
{
    for (size_t i = 0; i < p->n_answers; i++) {
        if (p->answers[i]->id == id) {
            destroy_answer(p->answers[i]);
            p->answers[i] = p->answers[--p->n_answers];
            return;
        }
    }
}

void peer_forget(struct peer *p)
{
    while (p->n_answers > 0) {
        destroy_answer(p->answers[--p->n_answers]);
    }
}

/* ---- life ---- */

void peer_init(struct peer *p, size_t ring_bytes)
{
    memset(p, 0, sizeof(*p));
    attach_init(&p->attach);
    struct ring *ours[2] = {&p->requests, &p->events};
    struct ring *theirs[2] = {&p->attach.requests, &p->attach.events};
    for (int i = 0; i < 2; i++) {
        size_t bytes = ring_memfd_bytes(ring_bytes);
        p->maps[i] = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        CHECK(p->maps[i]);
        memset(p->maps[i], 0, bytes);
        p->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ring_format(p->maps[i], ring_bytes, 7);
        CHECK_INT(ring_attach(ours[i], p->maps[i], bytes, 7, p->bells[i]), 0);
        CHECK_INT(ring_attach(theirs[i], p->maps[i], bytes, 7, p->bells[i]), 0);
    }
    p->attach.epoch = 7;
    p->attach.request_bell = p->bells[0];
    p->attach.status = &p->page;
}

void peer_finish(struct peer *p)
{
    peer_forget(p);
    for (int i = 0; i < 2; i++) {
        free(p->maps[i]);
        if (p->bells[i] >= 0) {
            close(p->bells[i]);
        }
    }
}
