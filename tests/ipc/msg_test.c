/* The message table: what a well-formed request looks like, and every way it may be malformed. */
#include "ipc/msg.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "tests/test.h"

static int check_generate(const void *data, size_t len)
{
    return msg_check(MSG_GENERATE, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, data, len,
                     0);
}

static void sections_round_trip(void)
{
    struct msg_generate g = {.request = 1, .n_choices = 1, .temperature = 1, .top_p = 1,
                             .n_sections = 3};
    struct buf b;
    buf_init(&b, 0);
    buf_add(&b, &g, sizeof(g));
    int32_t ids[3] = {5, -1, 7};
    msg_put_section(&b, MSG_PROMPT_IDS, 0, ids, sizeof(ids));
    msg_put_section(&b, MSG_STOP, 0, "", 0);
    msg_put_section(&b, MSG_STOP, 1, "\n\n\nEND of it", 12);
    CHECK(b.len % 8 == 0);
    CHECK_INT(check_generate(b.data, b.len), 0);

    struct msg_cursor c = msg_sections(b.data, b.len, sizeof(g));
    struct msg_section s;
    const void *data;
    CHECK_INT(msg_next_section(&c, &s, &data), 1);
    CHECK_INT(s.kind, MSG_PROMPT_IDS);
    CHECK_INT(s.bytes, sizeof(ids));
    CHECK(memcmp(data, ids, sizeof(ids)) == 0);
    CHECK_INT(msg_next_section(&c, &s, &data), 1);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(msg_next_section(&c, &s, &data), 1);
    CHECK_INT(s.index, 1);
    CHECK(memcmp(data, "\n\n\nEND of it", 12) == 0);
    CHECK_INT(msg_next_section(&c, &s, &data), 0);

    for (size_t len = 0; len < b.len; len++) { /* cut anywhere */
        CHECK_INT(check_generate(b.data, len), ERR_PROTOCOL);
    }
    struct msg_generate *p = (void *)b.data;
    p->n_sections = 2;
    CHECK_INT(check_generate(b.data, b.len), ERR_PROTOCOL);
    p->n_sections = 3;
    p->n_choices = 0;
    CHECK_INT(check_generate(b.data, b.len), ERR_PROTOCOL);
    p->n_choices = LIMIT_CHOICES + 1;
    CHECK_INT(check_generate(b.data, b.len), ERR_PROTOCOL);
    p->n_choices = 1;
    p->temperature = NAN;
    CHECK_INT(check_generate(b.data, b.len), ERR_PROTOCOL);
    p->temperature = 1;
    struct msg_section *first = (void *)(b.data + sizeof(g));
    first->bytes = UINT64_MAX - 3; /* the padding must not wrap */
    CHECK_INT(check_generate(b.data, b.len), ERR_PROTOCOL);
    buf_finish(&b);
}

static void token_lengths_must_add_up(void)
{
    struct {
        struct msg_token t;
        struct msg_logprob top[2];
        char text[7];
    } m = {.t = {.n_top = 2, .text_bytes = 3}, .top = {{1, -1, 2}, {2, -2, 2}}};
    size_t len = sizeof(m.t) + sizeof(m.top) + 7;
    for (size_t n = 0; n < sizeof(m) + 1; n++) {
        int want = n == len ? 0 : ERR_PROTOCOL;
        if (n <= sizeof(m)) {
            CHECK_INT(msg_check(MSG_TOKEN, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, &m,
                                n, 0),
                      want);
        }
    }
    m.top[1].piece_bytes = UINT32_MAX;
    CHECK_INT(
        msg_check(MSG_TOKEN, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, &m, len, 0),
        ERR_PROTOCOL);
}

static void strings_must_end(void)
{
    struct msg_fail f = {.request = 1, .err = ERR_BUSY};
    CHECK_INT(msg_check(MSG_FAIL, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, &f,
                        sizeof(f), 0),
              0);
    memset(f.detail, 'x', sizeof(f.detail));
    CHECK_INT(msg_check(MSG_FAIL, MSG_RING, MSG_WORKER, MSG_GATEWAY, MSG_STATE_RUNNING, &f,
                        sizeof(f), 0),
              ERR_PROTOCOL);
}

int main(void)
{
    sections_round_trip();
    token_lengths_must_add_up();
    strings_must_end();
    return 0;
}
