/* The journal alone: ids are found and never used twice, limits hold, and for random sequences of
 * events it accepts exactly the lives that msg.h describes (judged by a second, plain description).
 */
#include "gateway/journal.h"
#include "tests/test.h"

static const struct msg_model model = {.name = "tiny", .n_vocab = 100, .n_ctx = 50};

static struct journal_entry *add(struct journal *j, uint32_t n_choices, uint32_t base,
                                 uint32_t flags, uint32_t max_tokens)
{
    struct buf b;
    struct journal_entry *en;
    struct msg_generate m = {.n_choices = n_choices,
                             .choice_base = base,
                             .flags = flags,
                             .max_tokens = max_tokens,
                             .n_sections = 1};
    buf_init(&b, 0);
    buf_add(&b, &m, sizeof(m));
    msg_put_section(&b, MSG_PROMPT_TEXT, 0, "x", 1);
    CHECK_INT(journal_add(j, MSG_GENERATE, &b, &model, &en), 0);
    CHECK(b.data == NULL && en->payload.len == sizeof(m) + 24);
    uint64_t id;
    memcpy(&id, en->payload.data, sizeof(id));
    CHECK(id == en->id);
    en->is_sent = true;
    return en;
}

static void ids_and_limits(void)
{
    struct journal j;
    journal_init(&j);
    uint64_t last = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < LIMIT_LIVE_REQUESTS; i++) {
            struct journal_entry *en = add(&j, 1, 0, 0, 0);
            CHECK(en->id > last && journal_find(&j, en->id) == en);
            last = en->id;
        }
        struct buf b;
        struct journal_entry *en;
        struct msg_generate m = {.n_choices = 1};
        buf_init(&b, 0);
        buf_add(&b, &m, sizeof(m));
        CHECK_INT(journal_add(&j, MSG_GENERATE, &b, &model, &en), ERR_BUSY);
        CHECK(b.len == sizeof(m)); /* still the caller's */
        buf_finish(&b);
        for (uint64_t id = last - LIMIT_LIVE_REQUESTS + 1; id <= last; id++) {
            journal_remove(&j, journal_find(&j, id));
            CHECK(!journal_find(&j, id));
        }
        CHECK(j.n_live == 0 && j.payload_bytes == 0);
    }
    CHECK(!journal_find(&j, 0));

    /* Payloads together. */
    int n = 0, rc;
    do {
        struct buf b;
        struct journal_entry *en;
        struct msg_text m = {.op = MSG_TOKENIZE};
        static char large[LIMIT_BULK_BYTES / 2];
        buf_init(&b, 0);
        buf_add(&b, &m, sizeof(m));
        buf_add(&b, large, sizeof(large));
        rc = journal_add(&j, MSG_TEXT, &b, &model, &en);
        buf_finish(&b);
        n += rc == 0;
    } while (rc == 0);
    CHECK_INT(rc, ERR_BUSY);
    CHECK_INT(n, LIMIT_JOURNAL_BYTES / (LIMIT_BULK_BYTES / 2) - 1);
    journal_finish(&j);
}

/* What a client of the worker may conclude from msg.h, written down again without the journal. */
struct plain {
    bool started, echo, cancelled;
    uint32_t n_prompt, base, n_choices, max_tokens;
    uint32_t n[4], echoed[4], total[4];
    bool ended[4];
};

static bool plain_token(struct plain *p, const struct msg_token *m)
{
    uint32_t c = m->choice - p->base;
    if (!p->started || m->choice < p->base || c >= p->n_choices || p->ended[c] || m->id < 0 ||
        m->id >= 100) {
        return false;
    }
    if (m->is_prompt) {
        return p->echo && p->n[c] == 0 && m->position == p->echoed[c] &&
               p->echoed[c]++ < p->n_prompt;
    }
    bool echo_done = !p->echo || p->echoed[c] == p->n_prompt;
    bool room = p->n[c] < 50 && (p->max_tokens == 0 || p->n[c] < p->max_tokens);
    return echo_done && room && m->position == p->n[c]++;
}

static bool plain_finish(struct plain *p, const struct msg_finish *m)
{
    uint32_t c = m->choice - p->base;
    if (!p->started || m->choice < p->base || c >= p->n_choices || p->ended[c] ||
        (m->n_tokens != p->n[c] && m->n_tokens != p->n[c] + 1) ||
        (m->reason == MSG_FINISH_CANCEL && !p->cancelled)) {
        return false;
    }
    p->total[c] = m->n_tokens;
    return p->ended[c] = true;
}

static bool plain_done(const struct plain *p, const struct msg_done *m)
{
    uint32_t total = 0;
    bool all = p->started;
    for (uint32_t c = 0; c < p->n_choices; c++) {
        all = all && p->ended[c];
        total += p->total[c];
    }
    return p->cancelled || (all && m->n_completion == total && m->n_prompt == p->n_prompt &&
                            m->n_cached <= m->n_prompt);
}

/* Mostly right events, now and then a wrong one. */
static void random_life(uint64_t *seed)
{
    struct journal j;
    journal_init(&j);
    struct plain p = {.echo = test_random(seed) % 2,
                      .base = (uint32_t)(test_random(seed) % 3),
                      .n_choices = 1 + (uint32_t)(test_random(seed) % 4),
                      .max_tokens = (uint32_t)(test_random(seed) % 8)};
    struct journal_entry *en = add(&j, p.n_choices, p.base, p.echo ? MSG_ECHO : 0, p.max_tokens);
    for (int i = 0; i < 200; i++) {
        struct err e;
        bool slips = test_random(seed) % 60 == 0, expected = false;
        uint32_t c = (uint32_t)(test_random(seed) % p.n_choices), wrong = slips ? 1 : 0;
        int rc;
        if (!p.started) {
            struct msg_started m = {.n_prompt = 2, .n_cached = slips ? 3 : 1};
            expected = !slips;
            rc = journal_note(en, MSG_STARTED, &m, &e);
            p.started = rc == 0;
            p.n_prompt = 2;
        } else if (test_random(seed) % 8 == 0) {
            bool by_length = p.max_tokens && p.n[c] >= p.max_tokens;
            struct msg_finish m = {.choice = p.base + c + wrong * p.n_choices,
                                   .reason = by_length ? MSG_FINISH_LENGTH : MSG_FINISH_STOP,
                                   .n_tokens = p.n[c] + (uint32_t)(test_random(seed) % 2),
                                   .stop_index = -1};
            expected = plain_finish(&p, &m);
            rc = journal_note(en, MSG_FINISH, &m, &e);
        } else if (test_random(seed) % 30 == 0) {
            uint32_t total = p.total[0] + p.total[1] + p.total[2] + p.total[3];
            struct msg_done m = {.n_prompt = 2, .n_cached = 1, .n_completion = total + wrong};
            expected = plain_done(&p, &m);
            rc = journal_note(en, MSG_DONE, &m, &e);
            CHECK_INT(rc, expected ? 1 : ERR_PROTOCOL);
            break;
        } else {
            bool echoes = p.echo && p.echoed[c] < p.n_prompt;
            struct msg_token m = {.choice = p.base + c,
                                  .position = (echoes ? p.echoed[c] : p.n[c]) + wrong,
                                  .is_prompt = echoes,
                                  .id = (int32_t)(test_random(seed) % (slips ? 200 : 100))};
            expected = plain_token(&p, &m);
            rc = journal_note(en, MSG_TOKEN, &m, &e);
        }
        CHECK_INT(rc, expected ? 0 : ERR_PROTOCOL);
        if (!expected) {
            CHECK(e.detail[0]);
            break;
        }
    }
    for (uint32_t c = 0; c < p.n_choices; c++) {
        CHECK(en->choices[c].n <= p.n[c]); /* an event that was refused is not counted */
    }
    journal_finish(&j);
}

int main(void)
{
    ids_and_limits();
    uint64_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        random_life(&seed);
    }
    return 0;
}
