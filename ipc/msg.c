/* The message table and its checks. Pure; works on private copies only. */
#include "ipc/msg.h"
#include "ipc/store.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "shared/num.h"

#include <math.h>
#include <string.h>

/* Short words of msg.def. */
enum { S = MSG_SUPERVISOR, G = MSG_GATEWAY, W = MSG_WORKER, P = MSG_PROBE };
enum { NEW = MSG_STATE_NEW, GREETED = MSG_STATE_GREETED, RUNNING = MSG_STATE_RUNNING };
enum { CONTROL = MSG_CONTROL, RING = MSG_RING };

static const struct msg_info infos[MSG_TYPE_END] = {
#define MSG(name, type, way, from, to, payload, min_fds, max_fds, states)                          \
    [type] = {#name,   (enum msg_way)(way), (unsigned)(from),   (unsigned)(to),                    \
              sizeof(struct payload), min_fds, max_fds, (unsigned)(states)},
#include "ipc/msg.def"
#undef MSG
};

/* Two programs built from one source agree on the layouts; these catch hidden padding. */
_Static_assert(sizeof(struct msg_hello) == 48, "msg_hello");
_Static_assert(sizeof(struct msg_detach) == 24 + MSG_DETAIL_BYTES, "msg_detach");
_Static_assert(sizeof(struct msg_breach) == 8 + MSG_DETAIL_BYTES, "msg_breach");
_Static_assert(sizeof(struct msg_poison) == 48, "msg_poison");
_Static_assert(sizeof(struct msg_store) == 48, "msg_store");
_Static_assert(sizeof(struct msg_crash) == 152 + MSG_DETAIL_BYTES, "msg_crash");
_Static_assert(sizeof(struct msg_ask) == 8 + MSG_NAME_BYTES, "msg_ask");
_Static_assert(sizeof(struct msg_told) == 16, "msg_told");
_Static_assert(sizeof(struct msg_vram) == 136, "msg_vram");
_Static_assert(sizeof(struct msg_card) == 72, "msg_card");
_Static_assert(sizeof(struct msg_gave) == 48, "msg_gave");
_Static_assert(sizeof(struct msg_tally) == 64, "msg_tally");
_Static_assert(sizeof(struct msg_stage) == 32 + 2 * MSG_DETAIL_BYTES, "msg_stage");
_Static_assert(sizeof(struct msg_model) == 48 + 2 * MSG_NAME_BYTES + 224, "msg_model");
_Static_assert(sizeof(struct msg_generate) == 104, "msg_generate");
_Static_assert(sizeof(struct msg_section) == 16, "msg_section");
_Static_assert(sizeof(struct msg_text) == 32, "msg_text");
_Static_assert(sizeof(struct msg_token) == 32, "msg_token");
_Static_assert(sizeof(struct msg_logprob) == 12, "msg_logprob");
_Static_assert(sizeof(struct msg_finish) == 32, "msg_finish");
_Static_assert(sizeof(struct msg_done) == 48, "msg_done");
_Static_assert(sizeof(struct msg_fail) == 16 + MSG_DETAIL_BYTES, "msg_fail");

const struct msg_info *msg_info(uint32_t type)
{
    static const struct msg_info none;
    return type < MSG_TYPE_END ? &infos[type] : &none;
}

#define IS_TERMINATED(array) (memchr((array), 0, sizeof(array)) != NULL)

static bool sections_ok(const void *payload, size_t len, size_t fixed, uint32_t n_sections)
{
    struct msg_cursor c = msg_sections(payload, len, fixed);
    struct msg_section s;
    const void *data;
    uint32_t n = 0;
    int r;
    while ((r = msg_next_section(&c, &s, &data)) == 1) {
        n++;
    }
    return r == 0 && n == n_sections;
}

static bool generate_ok(const void *payload, size_t len)
{
    struct msg_generate m;
    memcpy(&m, payload, sizeof(m));
    const float numbers[] = {m.temperature,      m.top_p,          m.min_p,
                             m.typical_p,        m.presence_penalty, m.frequency_penalty,
                             m.repeat_penalty};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        if (!isfinite(numbers[i])) {
            return false;
        }
    }
    return m.n_choices >= 1 && m.n_choices <= LIMIT_CHOICES &&
           m.top_logprobs <= LIMIT_TOP_LOGPROBS && m.model < LIMIT_MODELS &&
           sections_ok(payload, len, sizeof(m), m.n_sections);
}

/* What lies between the fixed struct and the end must be exactly what the counts say. */
static bool token_ok(const void *payload, size_t len)
{
    struct msg_token m;
    memcpy(&m, payload, sizeof(m));
    uint64_t need = sizeof(m) + (uint64_t)m.n_top * sizeof(struct msg_logprob) + m.text_bytes;
    if (m.n_top > LIMIT_TOP_LOGPROBS + 1 || need > len) {
        return false;
    }
    uint64_t pieces = 0;
    for (size_t i = 0; i < m.n_top; i++) {
        struct msg_logprob p;
        memcpy(&p, (const char *)payload + sizeof(m) + i * sizeof(p), sizeof(p));
        pieces += p.piece_bytes;
    }
    return need + pieces == len;
}

static bool fields_ok(uint32_t type, const void *payload, size_t len)
{
    switch (type) {
    case MSG_HELLO: {
        struct msg_hello m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.version);
    }
    case MSG_DETACH: {
        struct msg_detach m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.detail);
    }
    case MSG_BREACH: {
        struct msg_breach m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.detail);
    }
    case MSG_CRASH: {
        struct msg_crash m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.who) && IS_TERMINATED(m.blame) &&
               IS_TERMINATED(m.next) && IS_TERMINATED(m.reason);
    }
    case MSG_CRASHED: {
        struct msg_crashed m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.name);
    }
    case MSG_ASK: {
        struct msg_ask m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.name);
    }
    case MSG_VRAM: {
        struct msg_vram m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.pci) && IS_TERMINATED(m.gfx);
    }
    case MSG_CARD: {
        struct msg_card m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.detail);
    }
    case MSG_VERDICT: {
        struct msg_verdict m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.detail);
    }
    case MSG_STAGE: {
        struct msg_stage m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && IS_TERMINATED(m.name) && IS_TERMINATED(m.detail) &&
               IS_TERMINATED(m.remedy);
    }
    case MSG_BULK: {
        struct msg_bulk m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && m.bytes > 0 && m.bytes <= LIMIT_BULK_BYTES;
    }
    case MSG_STORE:
    case MSG_DROP: {
        struct msg_store m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && store_info(m.kind)->word && m.bytes > 0;
    }
    case MSG_BULK_NOTE: {
        struct msg_bulk_note m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && m.bytes > 0 && m.bytes <= LIMIT_BULK_BYTES &&
               (m.type == MSG_GENERATE || m.type == MSG_TEXT);
    }
    case MSG_MODEL: {
        struct msg_model m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && m.n_models <= LIMIT_MODELS && m.is_loaded <= 1 &&
               m.index < m.n_models && IS_TERMINATED(m.name) && IS_TERMINATED(m.arch) &&
               IS_TERMINATED(m.quant) && IS_TERMINATED(m.device) && IS_TERMINATED(m.profile);
    }
    case MSG_GENERATE:
        return generate_ok(payload, len);
    case MSG_TEXT: {
        struct msg_text m;
        memcpy(&m, payload, sizeof(m));
        return m.op >= MSG_TOKENIZE && m.op < MSG_TEXT_OP_END && m.model < LIMIT_MODELS &&
               sections_ok(payload, len, sizeof(m), m.n_sections);
    }
    case MSG_TOKEN:
        return token_ok(payload, len);
    case MSG_FINISH: {
        struct msg_finish m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) + (uint64_t)m.text_bytes && m.reason >= MSG_FINISH_STOP &&
               m.reason <= MSG_FINISH_TIMEOUT && isfinite(m.logprob_sum);
    }
    case MSG_FAIL: {
        struct msg_fail m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) && m.err < 0 && IS_TERMINATED(m.detail);
    }
    case MSG_RESULT: {
        struct msg_result m;
        memcpy(&m, payload, sizeof(m));
        return len == sizeof(m) + (uint64_t)m.bytes;
    }
    default:
        return len == msg_info(type)->fixed_bytes;
    }
}

int msg_check(uint32_t type, enum msg_way way, unsigned from, unsigned to, unsigned state,
              const void *payload, size_t len, int n_fds)
{
    const struct msg_info *i = msg_info(type);
    if (!i->name || i->way != way || !(i->from & from) || !(i->to & to) || !(i->states & state) ||
        len < i->fixed_bytes || n_fds < i->min_fds || n_fds > i->max_fds ||
        !fields_ok(type, payload, len)) {
        return ERR_PROTOCOL;
    }
    return 0;
}

void msg_put_section(struct buf *b, enum msg_section_kind kind, uint32_t index, const void *data,
                     size_t n)
{
    static const char zeros[8];
    struct msg_section s = {.kind = kind, .index = index, .bytes = n};
    buf_add(b, &s, sizeof(s));
    buf_add(b, data, n);
    buf_add(b, zeros, num_pad(n, 8) - n);
}

struct msg_cursor msg_sections(const void *payload, size_t len, size_t fixed_bytes)
{
    const uint8_t *p = payload;
    return (struct msg_cursor){.at = p + MIN(len, num_pad(fixed_bytes, 8)), .end = p + len};
}

int msg_next_section(struct msg_cursor *c, struct msg_section *ret, const void **ret_data)
{
    size_t left = (size_t)(c->end - c->at);
    if (left == 0) {
        return 0;
    }
    uint64_t padded;
    struct msg_section s;
    if (left < sizeof(s)) {
        return ERR_PROTOCOL;
    }
    memcpy(&s, c->at, sizeof(s));
    if (!num_align(s.bytes, 8, &padded) || padded > left - sizeof(s)) {
        return ERR_PROTOCOL;
    }
    *ret = s;
    *ret_data = c->at + sizeof(s);
    c->at += sizeof(s) + padded;
    return 1;
}
