/* From a dead worker to the next: rewinding an entry of the journal and encoding it with its ids.
 * Pure; runs on the gateway's loop. Invariant: the payload as submitted stays as it was, but for
 * the model's index; the ids travel in a copy. */
#include "gateway/journal.h"
#include "shared/clock.h"

#include <errno.h>
#include <string.h>

/* Did its owner get anything? */
static bool has_ids(const struct journal_entry *en)
{
    for (uint32_t i = 0; i < en->n_choices; i++) {
        if (en->choices[i].n > 0 || en->choices[i].is_finished) {
            return true;
        }
    }
    return false;
}

void journal_rewind(struct journal_entry *en)
{
    en->is_sent = en->is_bulk_passed = en->is_paused = en->is_cancelled = false;
    en->is_started = false;
    en->is_interrupted = en->is_interrupted || en->first_ns;
    en->result_bytes_before = MAX(en->result_bytes_before, en->result_bytes);
    en->result_bytes = 0;
    for (uint32_t i = 0; i < en->n_choices && !has_ids(en); i++) { /* its echo comes again */
        struct journal_choice *c = &en->choices[i];
        c->n_echoed_before = MAX(c->n_echoed_before, c->n_echoed);
        c->n_echoed = 0;
    }
    buf_clear(&en->replay);
}

/* Sections for what the choices have; returns their number. */
static uint32_t put_choices(const struct journal_entry *en, struct buf *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < en->n_choices; i++) {
        const struct journal_choice *c = &en->choices[i];
        if (c->n > 0) {
            msg_put_section(b, MSG_RESUME_IDS, en->choice_base + i, c->ids, c->n * sizeof(*c->ids));
            n++;
        }
        if (c->is_finished) {
            struct msg_resume_end end = {.n_tokens = c->n_tokens};
            msg_put_section(b, MSG_RESUME_END, en->choice_base + i, &end, sizeof(end));
            n++;
        }
    }
    return n;
}

/* What is left of a time limit that began with the request. */
static uint32_t left_of(uint32_t limit_ms, uint64_t gone_ms)
{
    return limit_ms == 0 ? 0 : limit_ms > gone_ms ? limit_ms - (uint32_t)gone_ms : 1;
}

int journal_overdue(const struct journal_entry *en, uint64_t now_ms)
{
    struct msg_generate m;
    if (en->type != MSG_GENERATE) {
        return 0;
    }
    memcpy(&m, en->payload.data, sizeof(m));
    uint64_t gone_ms = now_ms - en->since_ms;
    return m.total_ms && gone_ms >= m.total_ms                       ? ERR_TOTAL_TIMEOUT
           : m.first_ms && !has_ids(en) && gone_ms >= m.first_ms     ? ERR_FIRST_TOKEN_TIMEOUT
           : m.queue_ms && !en->was_started && gone_ms >= m.queue_ms ? ERR_QUEUE_TIMEOUT
                                                                     : 0;
}

static int encode(struct journal_entry *en)
{
    struct buf *b = &en->replay;
    buf_finish(b);
    buf_init(b, LIMIT_BULK_BYTES);
    buf_add(b, en->payload.data, en->payload.len);
    uint32_t n = put_choices(en, b);
    if (b->failed) {
        buf_finish(b);
        buf_init(b, 0);
        return -ENOMEM;
    }
    if (en->type == MSG_GENERATE) {
        struct msg_generate m;
        memcpy(&m, b->data, sizeof(m));
        uint64_t gone_ms = clock_ms() - en->since_ms;
        /* Where nobody waits, no time limit may keep it from being judged. */
        m.queue_ms = en->was_started || en->is_left ? 0 : left_of(m.queue_ms, gone_ms);
        m.first_ms = en->is_left ? 0 : left_of(m.first_ms, gone_ms);
        m.total_ms = en->is_left ? 0 : left_of(m.total_ms, gone_ms);
        m.n_sections += n;
        m.flags |= en->is_forced ? MSG_AGAIN : MSG_AGAIN | MSG_VERIFY;
        memcpy(b->data, &m, sizeof(m));
    } else {
        struct msg_text m;
        memcpy(&m, b->data, sizeof(m));
        m.flags |= MSG_AGAIN;
        memcpy(b->data, &m, sizeof(m));
    }
    return 0;
}

int journal_replay(struct journal_entry *en, const struct msg_model *model, struct err *e)
{
    const struct msg_model *old = &en->model;
    if (memcmp(old->fingerprint, model->fingerprint, sizeof(old->fingerprint)) != 0 ||
        old->n_vocab != model->n_vocab || old->created != model->created) {
        return err_set(e, ERR_MODEL_CHANGED, "%s is not the file that the answer began with",
                       model->name);
    }
    en->is_forced = en->is_forced || (has_ids(en) && strcmp(old->profile, model->profile) != 0);
    en->model = *model;
    size_t at = en->type == MSG_GENERATE ? offsetof(struct msg_generate, model)
                                         : offsetof(struct msg_text, model);
    memcpy(en->payload.data + at, &model->index, sizeof(model->index));
    int rc = encode(en);
    return rc < 0 ? err_set(e, rc, "for the replay of a request") : 0;
}

void journal_digest(uint32_t type, const struct buf *payload, uint8_t ret[HASH_SHA256_BYTES])
{
    /* Both payloads begin with the id; that of a GENERATE goes on with the seed. */
    size_t skip = type == MSG_GENERATE ? offsetof(struct msg_generate, model)
                                       : offsetof(struct msg_text, model);
    hash_sha256(payload->data + skip, payload->len - skip, ret);
}
