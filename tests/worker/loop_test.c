/* The token loop with its threads, through real rings and a real control channel; the engine,
 * tokenizer and template are fakes. */
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "tests/test.h"
#include "tests/worker/fake_engine.h"
#include "tests/worker/fake_tokenizer.h"
#include "tests/worker/loop_bench.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

static struct loop_bench *open_bench(size_t n_models, size_t queue_size)
{
    struct loop_bench *b = calloc(1, sizeof(*b));
    struct err e;
    CHECK(b);
    fake_models_init(&b->models, n_models, 8, 64, 512, 8000);
    CHECK_INT(template_create("x", 1, &b->models.v[0].template, &e), 0);
    loop_bench_start(b, 1 << 18, queue_size);
    return b;
}

/* ---- what it serves ---- */

static void models_are_announced_and_answer(void)
{
    struct loop_bench *b = open_bench(2, 100);
    CHECK_STR(b->peer.models[0].name, "first");
    CHECK_STR(b->peer.models[1].name, "second");
    CHECK_INT(b->peer.models[0].has_template, 1);
    CHECK_INT(b->peer.models[1].has_template, 0);
    CHECK_INT(b->peer.models[1].n_ctx, 8000);
    for (uint64_t id = 1; id <= 60; id++) {
        char text[64];
        snprintf(text, sizeof(text), "answer number %llu<copy>", (unsigned long long)id);
        struct ask a = ask_text(id, text);
        a.m.model = id % 2;
        peer_send(&b->peer, &a);
    }
    loop_bench_run(b);
    for (uint64_t id = 1; id <= 60; id++) {
        char text[64];
        snprintf(text, sizeof(text), "answer number %llu", (unsigned long long)id);
        CHECK_STR(peer_text(&b->peer, id, 0), text);
    }
    loop_bench_close(b);
}

static void text_operations(void)
{
    struct loop_bench *b = open_bench(2, 100);
    struct ask a = ask_op(1, MSG_TOKENIZE);
    a.t.add_special = 1;
    ask_add(&a, MSG_PROMPT_TEXT, 0, "hi<copy>", 8);
    peer_send(&b->peer, &a);
    a = ask_op(2, MSG_TOKENIZE);
    a.t.parse_special = 1;
    ask_add(&a, MSG_PROMPT_TEXT, 0, "hi<copy>", 8);
    peer_send(&b->peer, &a);
    int32_t ids[] = {FAKE_BOS, FAKE_BYTE + 'o', FAKE_BYTE + 'k', FAKE_BYTE + 0xe2};
    a = ask_op(3, MSG_DETOKENIZE);
    ask_add(&a, MSG_PROMPT_IDS, 0, ids, sizeof(ids));
    peer_send(&b->peer, &a);
    a = ask_op(4, MSG_APPLY_TEMPLATE);
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"x\\\":1}\"}}]},"
        "{\"role\":\"assistant\",\"content\":\"c\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
        "\"arguments\":\"not json\"}}]}]";
    static const char args[] = "{\"tools\":[1],\"chat_template_kwargs\":{\"enable_thinking\":false,"
                               "\"messages\":\"mine\"}}";
    ask_add(&a, MSG_MESSAGES, 0, messages, strlen(messages));
    ask_add(&a, MSG_TEMPLATE_ARGS, 0, args, strlen(args));
    peer_send(&b->peer, &a);
    a = ask_op(5, MSG_APPLY_TEMPLATE);
    a.t.model = 1;
    ask_add(&a, MSG_MESSAGES, 0, "[]", 2);
    peer_send(&b->peer, &a);
    a = ask_op(6, MSG_APPLY_TEMPLATE);
    ask_add(&a, MSG_MESSAGES, 0, "[{}]", 4);
    peer_send(&b->peer, &a);
    loop_bench_run(b);
    const int32_t *got = (const int32_t *)(const void *)peer_answer(&b->peer, 1)->result.data;
    CHECK_INT(peer_answer(&b->peer, 1)->result.len, 9 * sizeof(int32_t));
    CHECK(got[0] == FAKE_BOS && got[1] == FAKE_BYTE + 'h' && got[3] == FAKE_BYTE + '<');
    got = (const int32_t *)(const void *)peer_answer(&b->peer, 2)->result.data;
    CHECK_INT(peer_answer(&b->peer, 2)->result.len, 3 * sizeof(int32_t));
    CHECK(got[0] == FAKE_BYTE + 'h' && got[2] == FAKE_COPY);
    CHECK_STR(peer_answer(&b->peer, 3)->result.data, "<s>ok\xef\xbf\xbd");
    CHECK_STR(
        peer_answer(&b->peer, 4)->result.data,
        "user:a\nb;assistant:(none);{object}assistant:c;{string}tools=[1];"
        "enable_thinking=false;bos_token=\"<s>\";eos_token=\"</s>\";add_generation_prompt=true;");
    CHECK_INT(peer_answer(&b->peer, 5)->err, ERR_NO_TEMPLATE);
    CHECK_INT(peer_answer(&b->peer, 6)->err, ERR_TEMPLATE);
    CHECK_STR(peer_answer(&b->peer, 6)->detail, "message 0 has no role");
    loop_bench_close(b);
}

static void chats_go_through_the_template(void)
{
    struct loop_bench *b = open_bench(1, 100);
    struct ask a = ask_chat(1, "[{\"role\":\"user\",\"content\":\"x<copy>\"}]", NULL);
    a.m.max_tokens = 8;
    peer_send(&b->peer, &a);
    loop_bench_run(b);
    CHECK_STR(peer_text(&b->peer, 1, 0),
              "<s>ok" + 5); /* nothing sure: the copy is told in the middle */
    loop_bench_close(b);
}

/* ---- large payloads and results ---- */

static void send_bulk(struct loop_bench *b, uint64_t id, const struct buf *payload)
{
    int fd = memfd_create_const("test", payload->data, payload->len);
    CHECK(fd >= 0);
    struct msg_bulk m = {.request = id, .bytes = payload->len};
    CHECK_INT(channel_send(&b->supervisor, MSG_BULK, 7, &m, sizeof(m), &fd, 1), 0);
    close(fd);
}

static void send_note(struct loop_bench *b, uint64_t id, uint32_t type, size_t bytes)
{
    struct msg_bulk_note m = {.request = id, .bytes = bytes, .type = type};
    CHECK_INT(ring_put(&b->peer.requests, MSG_BULK_NOTE, &m, sizeof(m), NULL, 0), 0);
}

static void payloads_in_memfds(void)
{
    struct loop_bench *b = open_bench(1, 100);
    static char text[300001];
    memset(text, 'z', 300000);
    for (int first = 0; first < 2; first++) {
        struct buf payload;
        uint64_t id = 1 + (uint64_t)first;
        buf_init(&payload, 0);
        struct ask a = ask_op(id, MSG_TOKENIZE);
        ask_add(&a, MSG_PROMPT_TEXT, 0, text, 300000);
        ask_encode(&a, &payload);
        peer_begin(&b->peer, id);
        if (first == 0) {
            send_bulk(b, id, &payload);
            struct err e;
            CHECK_INT(loop_turn(b->loop, &e), 0);
            send_note(b, id, MSG_TEXT, payload.len);
        } else {
            send_note(b, id, MSG_TEXT, payload.len);
            loop_bench_turn(b);
            send_bulk(b, id, &payload);
        }
        loop_bench_run(b);
        CHECK_INT(peer_answer(&b->peer, id)->result.len, 300000 * sizeof(int32_t));
        buf_finish(&payload);
    }
    /* A prompt that cannot fit is told so. */
    struct buf payload;
    buf_init(&payload, 0);
    struct ask a = ask_text(3, text);
    ask_encode(&a, &payload);
    peer_begin(&b->peer, 3);
    send_note(b, 3, MSG_GENERATE, payload.len);
    send_bulk(b, 3, &payload);
    loop_bench_run(b);
    CHECK_INT(peer_answer(&b->peer, 3)->err, ERR_CONTEXT_LENGTH);
    /* Cancelled before it came: it ends when it has come. */
    buf_clear(&payload);
    a = ask_text(4, text);
    ask_encode(&a, &payload);
    peer_begin(&b->peer, 4);
    send_note(b, 4, MSG_GENERATE, payload.len);
    peer_tell(&b->peer, MSG_CANCEL, 4);
    loop_bench_turn(b);
    CHECK(!peer_answer(&b->peer, 4)->is_over);
    send_bulk(b, 4, &payload);
    loop_bench_run(b);
    CHECK_INT(peer_answer(&b->peer, 4)->err, 0);
    buf_finish(&payload);
    loop_bench_close(b);
}

static void large_results_wait_for_the_reader(void)
{
    struct loop_bench *b = open_bench(1, 100);
    static int32_t ids[3900];
    struct err e;
    for (int i = 0; i < 3900; i++) {
        ids[i] = FAKE_NAMED;
    }
    static char piece[200];
    memset(piece, 'r', sizeof(piece));
    fake_tokenizer_reset();
    CHECK_INT(fake_tokenizer_name(piece, sizeof(piece)), FAKE_NAMED);
    for (uint64_t id = 1; id <= 2; id++) { /* 780 kB each through a ring of 256 kB */
        struct ask a = ask_op(id, MSG_DETOKENIZE);
        ask_add(&a, MSG_PROMPT_IDS, 0, ids, sizeof(ids));
        peer_send(&b->peer, &a);
    }
    while (b->peer.n_events < 8) { /* the ring is full now, and stays it for a while */
        CHECK(loop_turn(b->loop, &e) >= 0);
        loop_sleep(b->loop);
        peer_take(&b->peer, 1);
    }
    peer_tell(&b->peer, MSG_PAUSE, 2);
    peer_tell(&b->peer, MSG_CANCEL, 2);
    loop_bench_run(b);
    CHECK_INT(peer_answer(&b->peer, 1)->result.len, 780000);
    CHECK(peer_answer(&b->peer, 2)->result.len < 780000);
    fake_tokenizer_reset();
    loop_bench_close(b);
}

/* ---- limits and moods ---- */

static void a_full_queue_says_busy(void)
{
    struct loop_bench *b = open_bench(1, 10);
    for (uint64_t id = 1; id <= 40; id++) {
        struct ask a = ask_text(id, "zzzz<copy>");
        peer_send(&b->peer, &a);
    }
    loop_bench_run(b);
    size_t n_busy = 0;
    for (uint64_t id = 1; id <= 40; id++) {
        int err = peer_answer(&b->peer, id)->err;
        CHECK(err == 0 || err == ERR_BUSY);
        n_busy += err == ERR_BUSY;
        CHECK(id > 10 || err == 0);
    }
    CHECK(n_busy > 0 && n_busy <= 30);
    CHECK_STR(peer_answer(&b->peer, 40)->detail, "10 requests wait");
    struct ask a = ask_text(100, "ok<copy>");
    peer_send(&b->peer, &a);
    loop_bench_run(b);
    CHECK_STR(peer_text(&b->peer, 100, 0), "ok");
    loop_bench_close(b);
}

static void control_by_messages(void)
{
    struct loop_bench *b = open_bench(1, 100);
    peer_tell(&b->peer, MSG_CANCEL, 77); /* unknown: may have crossed its end */
    peer_tell(&b->peer, MSG_PAUSE, 77);
    struct ask a = ask_text(1, "endless");
    a.m.flags |= MSG_IGNORE_EOS;
    peer_send(&b->peer, &a);
    while (!peer_answer(&b->peer, 1)->choices[0]) {
        loop_bench_turn(b);
    }
    peer_tell(&b->peer, MSG_PAUSE, 1);
    loop_bench_turn(b);
    size_t had = peer_answer(&b->peer, 1)->choices[0]->n_ids;
    for (int i = 0; i < 3; i++) {
        loop_bench_turn(b);
    }
    CHECK_INT(peer_answer(&b->peer, 1)->choices[0]->n_ids, had);
    CHECK_INT(atomic_load(&b->peer.page.phase), STATUS_IDLE);
    peer_tell(&b->peer, MSG_RESUME, 1);
    loop_bench_turn(b);
    loop_bench_turn(b);
    CHECK(peer_answer(&b->peer, 1)->choices[0]->n_ids > had);
    peer_tell(&b->peer, MSG_CANCEL, 1);
    loop_bench_turn(b);
    CHECK(peer_answer(&b->peer, 1)->is_over); /* within one step */
    CHECK_INT(peer_answer(&b->peer, 1)->choices[0]->reason, MSG_FINISH_CANCEL);
    loop_bench_close(b);
}

static void draining_ends_what_runs_and_takes_nothing_new(void)
{
    for (int is_late = 0; is_late < 2; is_late++) {
        struct loop_bench *b = open_bench(1, 100);
        struct ask a = ask_text(1, "endless");
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = is_late ? 0 : 50;
        peer_send(&b->peer, &a);
        while (!peer_answer(&b->peer, 1)->choices[0]) {
            loop_bench_turn(b);
        }
        if (is_late) { /* its reader is slow: it would never end */
            peer_tell(&b->peer, MSG_PAUSE, 1);
        }
        struct msg_drain m = {.deadline_ms = is_late ? 50 : 10000};
        CHECK_INT(channel_send(&b->supervisor, MSG_DRAIN, 7, &m, sizeof(m), NULL, 0), 0);
        loop_bench_turn(b);
        a = ask_text(2, "late<copy>");
        peer_send(&b->peer, &a);
        struct err e;
        int got;
        while ((got = loop_turn(b->loop, &e)) != LOOP_DRAINED) {
            CHECK(got >= 0);
            peer_take(&b->peer, LOOP_BENCH_ALL);
        }
        peer_take(&b->peer, LOOP_BENCH_ALL);
        CHECK(peer_all_over(&b->peer));
        CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_DRAINING);
        CHECK_INT(peer_answer(&b->peer, 1)->err, is_late ? ERR_DRAINING : 0);
        static struct channel_msg reply;
        CHECK_INT(channel_recv(&b->supervisor, &reply), 1);
        CHECK_INT(reply.type, MSG_DRAINED);
        loop_bench_close(b);
    }
}

static void a_new_gateway_gets_new_rings(void)
{
    struct loop_bench *b = open_bench(2, 100);
    struct ask a = ask_text(1, "endless");
    a.m.flags |= MSG_IGNORE_EOS;
    peer_send(&b->peer, &a);
    while (!peer_answer(&b->peer, 1)->choices[0]) {
        loop_bench_turn(b);
    }
    a = ask_text(2, "being prepared, perhaps");
    peer_send(&b->peer, &a);
    loop_bench_turn(b);
    /* The supervisor's part. */
    int fds[5];
    size_t bytes = ring_memfd_bytes(65536), mapped;
    void *maps[3];
    for (int i = 0; i < 3; i++) {
        fds[i == 2 ? 4 : i] = memfd_create_shared("test", i == 2 ? STATUS_PAGE_BYTES : bytes);
        CHECK_INT(memfd_map(fds[i == 2 ? 4 : i], 1, 1 << 20, false, true, &maps[i], &mapped), 0);
    }
    fds[2] = eventfd(0, EFD_NONBLOCK);
    fds[3] = eventfd(0, EFD_NONBLOCK);
    ring_format(maps[0], 65536, 8);
    ring_format(maps[1], 65536, 8);
    status_format(maps[2], 8);
    struct msg_attach m = {.epoch = 8, .ring_bytes = 65536};
    CHECK_INT(channel_send(&b->supervisor, MSG_ATTACH, 8, &m, sizeof(m), fds, 5), 0);
    int old_bell = b->peer.bells[0]; /* taken by the worker's attach, which closes it */
    b->peer.bells[0] = -1;
    struct err e;
    CHECK(loop_turn(b->loop, &e) >= 0);
    CHECK(poll(&(struct pollfd){.fd = old_bell}, 1, 0) == 1);
    static struct channel_msg reply;
    CHECK_INT(channel_recv(&b->supervisor, &reply), 1);
    CHECK_INT(reply.type, MSG_READY);
    CHECK_INT(fake_stats(b->models.v[0].engine).n_seqs, 0);
    /* The new gateway's part: it begins again at request 1. */
    peer_forget(&b->peer);
    b->peer.n_models = 0;
    CHECK_INT(ring_attach(&b->peer.requests, maps[0], bytes, 8, fds[2]), 0);
    CHECK_INT(ring_attach(&b->peer.events, maps[1], bytes, 8, fds[3]), 0);
    peer_take(&b->peer, LOOP_BENCH_ALL);
    CHECK_INT(b->peer.n_models, 2);
    a = ask_text(1, "again<copy>");
    peer_send(&b->peer, &a);
    loop_bench_run(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "again");
    const struct status_page *page = maps[2];
    CHECK(atomic_load(&page->step) > 0);
    loop_destroy(&b->loop);
    attach_close(&b->peer.attach);
    for (int i = 0; i < 5; i++) {
        close(fds[i]);
    }
    for (int i = 0; i < 3; i++) {
        memfd_unmap(maps[i], i == 2 ? STATUS_PAGE_BYTES : bytes);
    }
    loop_bench_close(b);
}

/* ---- what a broken gateway gets ---- */

/* Sends one record and expects the loop's end. */
static void expect_protocol_death(struct ask *a, uint32_t type, size_t cut)
{
    struct loop_bench *b = open_bench(1, 100);
    struct buf payload;
    struct err e = {0};
    buf_init(&payload, 0);
    ask_encode(a, &payload);
    CHECK_INT(ring_put(&b->peer.requests, type, payload.data, payload.len - cut, NULL, 0), 0);
    CHECK_INT(loop_turn(b->loop, &e), ERR_PROTOCOL);
    CHECK(e.detail[0]);
    CHECK_INT(err_exit_code(ERR_PROTOCOL), 30);
    buf_finish(&payload);
    loop_bench_close(b);
}

static void broken_records_are_a_protocol_death(void)
{
    struct ask a = ask_text(1, "x");
    expect_protocol_death(&a, MSG_TOKEN, 0); /* not the gateway's to say */
    a = ask_text(1, "x");
    expect_protocol_death(&a, 63, 0);
    a = ask_text(1, "x");
    expect_protocol_death(&a, MSG_GENERATE, 8);
    a = ask_text(1, "x");
    expect_protocol_death(&a, MSG_CANCEL, 0);
    a = ask_text(1, "x");
    a.m.model = 1;
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_add(&a, MSG_PROMPT_TEXT, 0, "y", 1);
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_add(&a, MSG_MESSAGES, 0, "[]", 2);
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    a.m.flags |= MSG_CHAT;
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_add(&a, MSG_RESUME_IDS, 1, "abcd", 4);
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_add(&a, MSG_RESUME_IDS, 0, "abc", 3);
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_stop(&a, "");
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    for (int i = 0; i <= LIMIT_STOPS; i++) {
        ask_stop(&a, "s");
    }
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_text(1, "x");
    ask_add(&a, 99, 0, "x", 1);
    expect_protocol_death(&a, MSG_GENERATE, 0);
    a = ask_op(1, MSG_TOKENIZE);
    ask_add(&a, MSG_PROMPT_IDS, 0, "abcd", 4);
    expect_protocol_death(&a, MSG_TEXT, 0);
}

static void an_id_that_is_in_use_is_a_protocol_death(void)
{
    struct loop_bench *b = open_bench(1, 100);
    struct err e;
    for (int i = 0; i < 2; i++) {
        struct ask a = ask_text(5, "endless");
        a.m.flags |= MSG_IGNORE_EOS;
        peer_send(&b->peer, &a);
    }
    CHECK_INT(loop_turn(b->loop, &e), ERR_PROTOCOL);
    loop_bench_close(b);
}

static void a_memfd_that_lies_is_a_protocol_death(void)
{
    for (int kind = 0; kind < 4; kind++) {
        struct loop_bench *b = open_bench(1, 100);
        struct err e;
        struct buf payload;
        buf_init(&payload, 0);
        struct ask a = ask_text(kind == 0 ? 2 : 1, "x");
        ask_encode(&a, &payload);
        payload.len -= kind == 1 ? 8 : 0;
        send_note(b, 1, kind == 2 ? MSG_TEXT : MSG_GENERATE, payload.len);
        if (kind == 3) { /* not sealed against writing */
            int fd = memfd_create_shared("test", payload.len);
            struct msg_bulk m = {.request = 1, .bytes = payload.len};
            CHECK_INT(channel_send(&b->supervisor, MSG_BULK, 7, &m, sizeof(m), &fd, 1), 0);
            close(fd);
        } else {
            send_bulk(b, 1, &payload);
        }
        int got = loop_turn(b->loop, &e);
        got = got == 0 ? loop_turn(b->loop, &e) : got; /* control comes before the ring */
        CHECK_INT(got, ERR_PROTOCOL);
        buf_finish(&payload);
        loop_bench_close(b);
    }
}

static void scribbles_never_crash(void)
{
    uint64_t rng = 77;
    for (int round = 0; round < 150; round++) {
        struct loop_bench *b = open_bench(1, 100);
        struct err e;
        struct ask a = ask_text(1, "scribble");
        a.m.max_tokens = 5;
        ask_stop(&a, "s");
        ask_add(&a, MSG_LOGIT_BIAS, 0, "abcdefgh", 8);
        struct buf payload;
        buf_init(&payload, 0);
        ask_encode(&a, &payload);
        for (uint64_t n = test_random(&rng) % 6; n-- > 0;) {
            payload.data[8 + test_random(&rng) % (payload.len - 8)] = (char)test_random(&rng);
        }
        CHECK_INT(ring_put(&b->peer.requests, MSG_GENERATE, payload.data, payload.len, NULL, 0), 0);
        peer_begin(&b->peer, 1);
        int got = 0;
        for (int i = 0; i < 200 && got >= 0 && !peer_all_over(&b->peer); i++) {
            got = loop_turn(b->loop, &e);
            CHECK(got >= 0 || got == ERR_PROTOCOL);
            peer_take(&b->peer, LOOP_BENCH_ALL);
            if (got == 0 && !peer_all_over(&b->peer)) {
                loop_sleep(b->loop);
            }
        }
        buf_finish(&payload);
        loop_bench_close(b);
    }
}

/* ---- idleness ---- */

static _Atomic pid_t loop_thread;

static void *run_loop(void *arg)
{
    struct loop_bench *b = arg;
    struct err e;
    loop_thread = gettid();
    CHECK_INT(loop_run(b->loop, &e), 0);
    return NULL;
}

static long n_wakeups(pid_t thread)
{
    char line[128];
    long n = -1;
    snprintf(line, sizeof(line), "/proc/self/task/%d/status", (int)thread);
    FILE *f = fopen(line, "r");
    CHECK(f);
    while (n < 0 && fgets(line, sizeof(line), f)) {
        sscanf(line, "voluntary_ctxt_switches: %ld", &n);
    }
    fclose(f);
    return n;
}

/* A loop in a thread of its own has answered. */
static void wait_for_answers(struct loop_bench *b)
{
    while (!peer_all_over(&b->peer)) {
        usleep(1000);
        peer_take(&b->peer, LOOP_BENCH_ALL);
    }
}

static void drain(struct loop_bench *b, pthread_t thread)
{
    struct msg_drain m = {.deadline_ms = 1000};
    CHECK_INT(channel_send(&b->supervisor, MSG_DRAIN, 7, &m, sizeof(m), NULL, 0), 0);
    pthread_join(thread, NULL);
}

static void an_idle_loop_never_wakes(void)
{
    struct loop_bench *b = open_bench(1, 100);
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, run_loop, b), 0);
    struct ask a = ask_text(1, "once<copy>");
    peer_send(&b->peer, &a);
    wait_for_answers(b);
    usleep(50000);
    long before = n_wakeups(loop_thread);
    usleep(300000);
    CHECK_INT(n_wakeups(loop_thread), before);
    drain(b, thread);
    loop_bench_close(b);
}

/* However much there is to copy from a device: it is done between requests, unasked. */
static void copies_keep_nobody_waiting(void)
{
    struct loop_bench *b = open_bench(1, 100);
    pthread_t thread;
    fake_n_unsettled = INT_MAX;
    CHECK_INT(pthread_create(&thread, NULL, run_loop, b), 0);
    struct ask a = ask_text(1, "once<copy>");
    peer_send(&b->peer, &a);
    wait_for_answers(b);
    fake_n_unsettled = 3;
    while (fake_n_unsettled > 0) {
        usleep(1000);
    }
    drain(b, thread);
    loop_bench_close(b);
}

int main(void)
{
    models_are_announced_and_answer();
    text_operations();
    chats_go_through_the_template();
    payloads_in_memfds();
    large_results_wait_for_the_reader();
    a_full_queue_says_busy();
    control_by_messages();
    draining_ends_what_runs_and_takes_nothing_new();
    a_new_gateway_gets_new_rings();
    broken_records_are_a_protocol_death();
    an_id_that_is_in_use_is_a_protocol_death();
    a_memfd_that_lies_is_a_protocol_death();
    scribbles_never_crash();
    an_idle_loop_never_wakes();
    copies_keep_nobody_waiting();
    return 0;
}
