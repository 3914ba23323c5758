/* The journal of live requests. Pure; runs on the gateway's loop. Invariant: entry i's id is i
 * modulo the table's size, so that finding is one look and ids are never used twice. */
#include "gateway/journal.h"
#include "shared/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void journal_init(struct journal *j)
{
    *j = (struct journal){0};
    j->entries = base_alloc(LIMIT_LIVE_REQUESTS * sizeof(*j->entries));
}

void journal_finish(struct journal *j)
{
    while (j->oldest) {
        journal_remove(j, j->oldest);
    }
    free(j->entries);
    j->entries = NULL;
}

struct journal_entry *journal_find(const struct journal *j, uint64_t id)
{
    struct journal_entry *en = &j->entries[id % LIMIT_LIVE_REQUESTS];
    return id && en->id == id ? en : NULL;
}

size_t journal_ids(const struct journal *j, uint64_t ret[LIMIT_LIVE_REQUESTS])
{
    size_t n = 0;
    for (const struct journal_entry *en = j->oldest; en; en = en->newer) {
        ret[n++] = en->id;
    }
    return n;
}

void journal_remove(struct journal *j, struct journal_entry *en)
{
    *(en->older ? &en->older->newer : &j->oldest) = en->newer;
    *(en->newer ? &en->newer->older : &j->newest) = en->older;
    for (uint32_t c = 0; en->choices && c < en->n_choices; c++) {
        free(en->choices[c].ids);
    }
    free(en->choices);
    j->payload_bytes -= en->payload.len;
    j->n_live--;
    buf_finish(&en->payload);
    buf_finish(&en->replay);
    *en = (struct journal_entry){0};
}

int journal_add(struct journal *j, uint32_t type, struct buf *payload,
                const struct msg_model *model, struct journal_entry **ret)
{
    ASSERT(!payload->failed && payload->len >= msg_info(type)->fixed_bytes);
    if (j->n_live == LIMIT_LIVE_REQUESTS || payload->len > LIMIT_BULK_BYTES ||
        j->payload_bytes + payload->len > LIMIT_JOURNAL_BYTES) {
        return ERR_BUSY;
    }
    struct journal_entry *en;
    uint64_t id = j->n_ever;
    do {
        id++;
        en = &j->entries[id % LIMIT_LIVE_REQUESTS];
    } while (en->id);
    struct journal_entry new = {.id = id, .type = type, .model = *model, .since_ms = clock_ms()};
    if (type == MSG_GENERATE) {
        struct msg_generate m;
        memcpy(&m, payload->data, sizeof(m));
        new.flags = m.flags;
        new.choice_base = m.choice_base;
        new.n_choices = m.n_choices;
        /* Of a model that is not loaded yet, the real one is not known. */
        uint32_t n_ctx = model->is_loaded ? model->n_ctx : LIMIT_CONTEXT_TOKENS;
        new.max_tokens = m.flags &MSG_PROMPT_ONLY ? 0
                         : m.max_tokens           ? MIN(m.max_tokens, n_ctx)
                                                  : n_ctx;
        new.n_top = m.flags &MSG_LOGPROBS ? m.top_logprobs + 1 : 0;
        new.choices = calloc(m.n_choices, sizeof(*new.choices));
        if (!new.choices) {
            return -ENOMEM;
        }
    }
    memcpy(payload->data, &id, sizeof(id)); /* both payloads begin with it */
    new.payload = *payload;
    buf_init(payload, 0);
    buf_init(&new.replay, 0);
    j->n_ever = id;
    j->n_live++;
    j->payload_bytes += new.payload.len;
    new.older = j->newest;
    *en = new;
    *(j->newest ? &j->newest->newer : &j->oldest) = en;
    j->newest = en;
    *ret = en;
    return 0;
}

static int breach(struct err *e, const char *what)
{
    return err_set(e, ERR_PROTOCOL, "%s", what);
}

static struct journal_choice *choice_of(struct journal_entry *en, uint32_t choice)
{
    uint32_t i = choice - en->choice_base;
    return choice >= en->choice_base && i < en->n_choices ? &en->choices[i] : NULL;
}

static int note_started(struct journal_entry *en, const struct msg_started *m, struct err *e)
{
    if (en->is_started || m->n_cached > m->n_prompt) {
        return breach(e, "a request began twice");
    }
    bool is_known = en->was_started;
    uint32_t n_before = en->n_prompt;
    en->is_started = en->was_started = true;
    en->n_prompt = m->n_prompt;
    en->n_cached = is_known ? en->n_cached : m->n_cached;
    if (is_known && m->n_prompt != n_before) {
        return err_set(e, ERR_REPLAY_DIVERGENCE, "the prompt had %u tokens and has %u now",
                       n_before, m->n_prompt);
    }
    return is_known ? JOURNAL_KNOWN : JOURNAL_GOES_ON;
}

static int note_token(struct journal_entry *en, const struct msg_token *m, struct err *e)
{
    struct journal_choice *c = choice_of(en, m->choice);
    if (!en->is_started || !c || c->is_finished) {
        return breach(e, "a token of a choice that is not running");
    }
    if (m->id < 0 || (uint32_t)m->id >= en->model.n_vocab || m->n_top > en->n_top) {
        return breach(e, "a token outside the vocabulary, or with alternatives nobody asked for");
    }
    bool is_echo = en->flags & MSG_ECHO;
    if (m->is_prompt) {
        if (!is_echo || c->n > 0 || m->position != c->n_echoed || m->position >= en->n_prompt) {
            return breach(e, "a prompt token out of turn");
        }
        return c->n_echoed++ < c->n_echoed_before ? JOURNAL_KNOWN : JOURNAL_GOES_ON;
    }
    if (m->position != c->n || (is_echo && c->n_echoed != en->n_prompt) || c->n >= en->max_tokens) {
        return breach(e, "a token out of turn");
    }
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? c->cap * 2 : 64;
        int32_t *ids = realloc(c->ids, cap * sizeof(*ids));
        if (!ids) {
            return err_set(e, -ENOMEM, "for the journal of a request");
        }
        c->ids = ids;
        c->cap = cap;
    }
    c->ids[c->n++] = m->id;
    en->first_ns = en->first_ns ? en->first_ns : clock_ns();
    return 0;
}

static int note_finish(struct journal_entry *en, const struct msg_finish *m, struct err *e)
{
    struct journal_choice *c = choice_of(en, m->choice);
    if (!en->is_started || !c || c->is_finished) {
        return breach(e, "the end of a choice that is not running");
    }
    /* The end-of-generation id is counted but has no TOKEN. */
    if (m->n_tokens - c->n > 1 || m->stop_index < -1 || m->stop_index >= LIMIT_STOPS ||
        (m->reason == MSG_FINISH_CANCEL && !en->is_cancelled)) {
        return breach(e, "the end of a choice does not fit what came before");
    }
    c->n_tokens = m->n_tokens;
    c->is_finished = true;
    return 0;
}

static int note_done(struct journal_entry *en, const struct msg_done *m, struct err *e)
{
    uint64_t n = 0;
    bool all = en->is_started;
    for (uint32_t i = 0; i < en->n_choices; i++) {
        n += en->choices[i].n_tokens;
        all = all && en->choices[i].is_finished;
    }
    if (!en->is_cancelled && (!all || m->n_completion != n || m->n_prompt != en->n_prompt ||
                              m->n_cached > m->n_prompt)) {
        return breach(e, "the end of a request does not fit what came before");
    }
    return 1;
}

int journal_note(struct journal_entry *en, uint32_t type, const void *payload, struct err *e)
{
    union {
        struct msg_started started;
        struct msg_prefilled prefilled;
        struct msg_token token;
        struct msg_finish finish;
        struct msg_done done;
        struct msg_result result;
    } m;
    if (!en->is_sent) {
        return breach(e, "news of a request that was not sent");
    }
    if (type == MSG_FAIL) {
        return 1;
    }
    if ((type == MSG_RESULT) != (en->type == MSG_TEXT)) {
        return breach(e, "news of the wrong kind for its request");
    }
    memcpy(&m, payload, msg_info(type)->fixed_bytes);
    switch (type) {
    case MSG_STARTED:
        return note_started(en, &m.started, e);
    case MSG_PREFILLED:
        return en->is_started && m.prefilled.n_prompt == en->n_prompt &&
                       m.prefilled.n_done <= en->n_prompt
                   ? 0
                   : breach(e, "progress that cannot be");
    case MSG_TOKEN:
        return note_token(en, &m.token, e);
    case MSG_FINISH:
        return note_finish(en, &m.finish, e);
    case MSG_DONE:
        return note_done(en, &m.done, e);
    case MSG_RESULT:
        en->result_bytes += m.result.bytes;
        return m.result.is_last                              ? JOURNAL_ENDS
               : en->result_bytes <= en->result_bytes_before ? JOURNAL_KNOWN
                                                             : JOURNAL_GOES_ON;
    default:
        return breach(e, "a message that no worker sends about a request");
    }
}
