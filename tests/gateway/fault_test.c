/* What clients see when things go wrong behind the gateway, and in front of it: workers that die,
 * stall, break the protocol or fill up; clients that leave, read slowly or half-close; shutdown and
 * reload. */
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "shared/limits.h"
#include "tests/gateway/rig.h"

#include <signal.h>
#include <sys/socket.h>

#define CHAT "POST /v1/chat/completions"
#define TEXT "POST /v1/completions"

static void ask(struct client *c, const struct rig *r, const char *body)
{
    client_open(c, r);
    client_request(c, TEXT, NULL, body);
}

static void expect_answer(struct client *c, int status, const char *part)
{
    struct response res;
    client_read(c, &res, false);
    if (res.status != status || !strstr(res.body.data, part)) {
        TEST_FAIL("status %d (expected %d): %s (expected %s)", res.status, status, res.body.data,
                  part);
    }
    response_finish(&res);
    client_close(c);
}

static void check_alive(const struct rig *r)
{
    free(client_body(r, "GET /health", NULL, 200));
}

/* ---- workers ---- */

static void worker_dies(struct rig *r)
{
    struct client stream, whole, waiting;
    struct response res;
    char v[256];
    ask(&stream, r, "{\"prompt\":\"die 2\",\"stream\":true}");
    ask(&whole, r, "{\"prompt\":\"die 2\"}");
    client_read_until(&stream, "\"text\":\"1 \"");
    RIG_WAIT(r->n_generates == 2);
    rig_worker_kill(r, 0); /* and none is to come */
    client_read(&stream, &res, false);
    CHECK_INT(res.status, 200);
    const char *end = strstr(res.body.data, "data: {\"error\":{\"message\":");
    CHECK(end && strstr(end, "\"code\":\"worker_down\"}}\n\n") && !strstr(end, "[DONE]"));
    response_finish(&res);
    client_close(&stream);
    client_read(&whole, &res, false);
    CHECK_INT(res.status, 503);
    CHECK_STR(response_header(&res, "Retry-After", v), "2");
    CHECK_STR(response_header(&res, "x-should-retry", v), "true");
    response_finish(&res);
    client_close(&whole);
    rig_worker_start(r);
    /* Expected back soon: what comes now waits for it. */
    rig_worker_kill(r, 3000);
    char *health = client_body(r, "GET /health", NULL, 200);
    CHECK(strstr(health, "\"state\":\"stopped\"") && strstr(health, "killed by the test"));
    free(health);
    free(client_body(r, "GET /ready", NULL, 503));
    ask(&waiting, r, "{\"prompt\":\"say back\"}");
    usleep(100000);
    rig_worker_start(r);
    expect_answer(&waiting, 200, "\"text\":\"back\"");
    free(client_body(r, "GET /ready", NULL, 200));
    /* Not expected, or not soon: an answer at once. Models are known from before. */
    static const struct {
        uint32_t retry_ms;
        const char *retry_after;
    } rows[] = {{0, "2"}, {20000, "20"}, {3600000, "59"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rig_worker_kill(r, rows[i].retry_ms);
        uint64_t begin = clock_ms();
        client_once(r, TEXT, NULL, "{\"prompt\":\"say a\"}", &res);
        CHECK_INT(res.status, 503);
        CHECK(clock_ms() - begin < 1000);
        CHECK_STR(response_header(&res, "Retry-After", v), rows[i].retry_after);
        response_finish(&res);
        char *models = client_body(r, "GET /v1/models", NULL, 200);
        CHECK(strstr(models, "\"tiny\""));
        free(models);
        rig_worker_start(r);
    }
    /* The reason that the supervisor gave is the client's. */
    rig_detach(r, ERR_GPU_BUSY, 0, "held by pid 7");
    char *got = client_body(r, TEXT, "{\"prompt\":\"say a\"}", 503);
    CHECK(strstr(got, "\"code\":\"gpu_busy\"") && strstr(got, "held by pid 7"));
    free(got);
    rig_worker_start(r);
}

/* A worker that stops between records: what it had said is still delivered. */
static void last_words_count(struct rig *r)
{
    struct client c;
    struct response res;
    struct ring_record rec;
    static _Alignas(16) uint8_t buf[LIMIT_RECORD_BYTES];
    struct msg_generate m;
    rig_attach(r);
    worker_models(r);
    struct channel_msg ready;
    CHECK(rig_expect(r, MSG_READY, &ready));
    ask(&c, r, "{\"prompt\":\"x\",\"stream\":true}");
    worker_take(r, &rec, buf);
    memcpy(&m, buf, sizeof(m));
    r->events.bell = -1; /* and nobody hears a bell */
    worker_started(r, m.request, 3, 0);
    worker_token(r, m.request, 0, 0, "last");
    rig_worker_kill(r, 0);
    client_read(&c, &res, false);
    CHECK(strstr(res.body.data, "\"text\":\"last\"") && strstr(res.body.data, "worker_down"));
    response_finish(&res);
    client_close(&c);
}

/* A worker that cannot be killed, so that no other may begin: every request learns it at once. */
static void worker_is_abandoned(struct rig *r)
{
    struct client running;
    static const char *const asked[] = {TEXT, CHAT, "POST /tokenize", "GET /slots",
                                        "POST /apply-template"};
    ask(&running, r, "{\"prompt\":\"hang\"}");
    RIG_WAIT(r->n_generates > 0);
    rig_detach(r, ERR_GPU_STALLED, 0, "the worker is held by the kernel (state D)");
    expect_answer(&running, 503, "held by the kernel");
    double slowest = 0;
    for (int i = 0; i < 60; i++) {
        struct client c;
        struct response res;
        char v[256];
        uint64_t begin = clock_ns();
        client_open(&c, r);
        client_request(&c, asked[i % 5], NULL, i % 5 == 3 ? NULL : "{\"prompt\":\"say a\"}");
        client_read(&c, &res, false);
        double took = (double)(clock_ns() - begin) * 1e-6;
        slowest = took > slowest ? took : slowest;
        CHECK_INT(res.status, 503);
        CHECK(strstr(res.body.data, "\"code\":\"gpu_stalled\"") &&
              strstr(res.body.data, "held by the kernel (state D)"));
        int after = atoi(response_header(&res, "Retry-After", v) ? v : "0");
        CHECK(after >= 1 && after <= 59);
        CHECK_STR(response_header(&res, "x-should-retry", v), "true");
        response_finish(&res);
        client_close(&c);
    }
    printf("without a worker to be had: answered in at most %.2f ms\n", slowest);
    CHECK(slowest < 500); /* the machine may be busy; by itself it is a fraction of 10 ms */
    char *health = client_body(r, "GET /health", NULL, 200);
    CHECK(strstr(health, "\"state\":\"abandoned\",\"since\":") && strstr(health, "state D"));
    free(health);
    free(client_body(r, "GET /ready", NULL, 503));
    rig_worker_start(r);
    ask(&running, r, "{\"prompt\":\"say back\"}");
    expect_answer(&running, 200, "back");
}

static void bell_is_lost(struct rig *r)
{
    struct client c;
    struct ring_record rec;
    static _Alignas(16) uint8_t buf[LIMIT_RECORD_BYTES];
    struct msg_generate m;
    rig_attach(r);
    r->events.bell = -1;
    worker_models(r);
    struct channel_msg ready;
    CHECK(rig_expect(r, MSG_READY, &ready));
    ask(&c, r, "{\"prompt\":\"x\"}");
    worker_take(r, &rec, buf);
    memcpy(&m, buf, sizeof(m));
    worker_started(r, m.request, 3, 0);
    worker_token(r, m.request, 0, 0, "heard");
    worker_finish(r, m.request, 0, MSG_FINISH_STOP, 2, "");
    worker_done(r, m.request, 3, 0, 2);
    expect_answer(&c, 200, "heard");
    rig_worker_kill(r, 0);
}

enum breach {
    UNKNOWN_REQUEST,
    UNKNOWN_CHOICE,
    POSITION_SKIPPED,
    POSITION_REPEATED,
    OUTSIDE_VOCABULARY,
    BEFORE_STARTED,
    STARTED_TWICE,
    AFTER_FINISH,
    FINISH_TWICE,
    FINISH_COUNT,
    CANCELLED_UNASKED,
    DONE_EARLY,
    DONE_COUNT,
    RESULT_FOR_GENERATE,
    LOGPROBS_UNASKED,
    ECHO_UNASKED,
    TEXT_TOO_LONG,
    MODEL_AGAIN,
    MODEL_TOO_LARGE,
    GATEWAYS_OWN_MESSAGE,
    RING_DAMAGED,
    BREACHES
};

static void commit_breach(struct rig *r, enum breach b, uint64_t id)
{
    struct msg_token t = {.request = id, .choice = 0, .position = 1};
    struct msg_model model = {.n_models = 1, .n_vocab = 1, .n_ctx = 1, .name = "late"};
    struct msg_result result = {.request = id, .is_last = 1};
    struct msg_request request = {.request = id};
    struct {
        struct msg_token t;
        struct msg_logprob p;
    } with = {.t = {.request = id, .position = 1, .n_top = 1}};
    if (b != BEFORE_STARTED) {
        worker_started(r, id, 3, 0);
        worker_token(r, id, 0, 0, "a");
    }
    switch (b) {
    case UNKNOWN_REQUEST:
        worker_token(r, id + 1, 0, 1, "b");
        break;
    case UNKNOWN_CHOICE:
        worker_token(r, id, 1, 0, "b");
        break;
    case POSITION_SKIPPED:
        worker_token(r, id, 0, 2, "b");
        break;
    case POSITION_REPEATED:
        worker_token(r, id, 0, 0, "b");
        break;
    case OUTSIDE_VOCABULARY:
        t.id = 1000;
        worker_put(r, MSG_TOKEN, &t, sizeof(t), NULL, 0);
        break;
    case BEFORE_STARTED:
        worker_token(r, id, 0, 0, "b");
        break;
    case STARTED_TWICE:
        worker_started(r, id, 3, 0);
        break;
    case AFTER_FINISH:
        worker_finish(r, id, 0, MSG_FINISH_STOP, 2, "");
        worker_token(r, id, 0, 1, "b");
        break;
    case FINISH_TWICE:
        worker_finish(r, id, 0, MSG_FINISH_STOP, 2, "");
        worker_finish(r, id, 0, MSG_FINISH_STOP, 2, "");
        break;
    case FINISH_COUNT:
        worker_finish(r, id, 0, MSG_FINISH_STOP, 3, "");
        break;
    case CANCELLED_UNASKED:
        worker_finish(r, id, 0, MSG_FINISH_CANCEL, 1, "");
        break;
    case DONE_EARLY:
        worker_done(r, id, 3, 0, 1);
        break;
    case DONE_COUNT:
        worker_finish(r, id, 0, MSG_FINISH_STOP, 2, "");
        worker_done(r, id, 3, 0, 5);
        break;
    case RESULT_FOR_GENERATE:
        worker_put(r, MSG_RESULT, &result, sizeof(result), NULL, 0);
        break;
    case LOGPROBS_UNASKED:
        worker_put(r, MSG_TOKEN, &with, sizeof(with.t) + sizeof(with.p), NULL, 0);
        break;
    case ECHO_UNASKED:
        t.is_prompt = 1;
        t.position = 0;
        worker_put(r, MSG_TOKEN, &t, sizeof(t), NULL, 0);
        break;
    case TEXT_TOO_LONG:
        t.text_bytes = 100;
        worker_put(r, MSG_TOKEN, &t, sizeof(t), NULL, 0);
        break;
    case MODEL_AGAIN:
        worker_put(r, MSG_MODEL, &model, sizeof(model), NULL, 0);
        break;
    case MODEL_TOO_LARGE: /* news of the one that is there, with more than memory can follow */
        model.n_ctx = UINT32_MAX;
        snprintf(model.name, sizeof(model.name), "tiny");
        worker_put(r, MSG_MODEL, &model, sizeof(model), NULL, 0);
        break;
    case GATEWAYS_OWN_MESSAGE:
        worker_put(r, MSG_CANCEL, &request, sizeof(request), NULL, 0);
        break;
    default:
        r->events.seq += 7;
        worker_token(r, id, 0, 1, "b");
    }
}

/* Each ends the epoch, is reported to the supervisor, and harms nobody else. */
static void protocol_breaches(struct rig *r)
{
    static _Alignas(16) uint8_t buf[LIMIT_RECORD_BYTES];
    for (int b = 0; b < BREACHES; b++) {
        struct client c;
        struct ring_record rec;
        struct msg_generate m;
        static struct channel_msg msg;
        struct response res;
        rig_attach(r);
        worker_models(r);
        CHECK(rig_expect(r, MSG_READY, &msg));
        ask(&c, r, "{\"prompt\":\"x\",\"stream\":true}");
        worker_take(r, &rec, buf);
        memcpy(&m, buf, sizeof(m));
        commit_breach(r, (enum breach)b, m.request);
        CHECK(rig_expect(r, MSG_BREACH, &msg));
        struct msg_breach said;
        memcpy(&said, msg.payload, sizeof(said));
        CHECK(said.epoch == r->epoch && said.detail[0]);
        check_alive(r);
        rig_worker_kill(r, 0); /* and none is to come */
        client_read(&c, &res, false);
        if (!strstr(res.body.data, "\"code\":\"worker_down\"")) {
            TEST_FAIL("breach %d: %s", b, res.body.data);
        }
        response_finish(&res);
        client_close(&c);
    }
}

/* More requests than the ring holds: they wait in the gateway, in order, and all are answered. */
static void ring_is_full(struct rig *r)
{
    enum { MANY = 120 };
    static struct client c[MANY];
    static struct channel_msg msg;
    rig_attach(r);
    worker_models(r);
    CHECK(rig_expect(r, MSG_READY, &msg));
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"prompt\":\"say through\\n");
    for (int i = 0; i < 15000; i++) {
        buf_char(&b, 'x');
    }
    buf_str(&b, "\"}");
    for (int i = 0; i < MANY; i++) {
        ask(&c[i], r, b.data);
    }
    RIG_WAIT(ring_room(&r->requests) > 0); /* attached as consumer: room says nothing, time does */
    usleep(100000);
    atomic_store(&r->worker_stops, false);
    CHECK(pthread_create(&r->worker, NULL, worker_run, r) == 0);
    r->has_worker = true;
    for (int i = 0; i < MANY; i++) {
        expect_answer(&c[i], 200, "\"text\":\"through\"");
    }
    CHECK_INT(r->n_bulks, 0);
    buf_finish(&b);
}

/* /ready tells the truth about a worker that lives and does not move. */
static void stalled(struct rig *r)
{
    struct client c;
    ask(&c, r, "{\"prompt\":\"hang\",\"stream\":true}");
    RIG_WAIT(r->status->n_active == 1);
    status_beat(r->status, STATUS_DECODE);
    free(client_body(r, "GET /ready", NULL, 200));
    atomic_store(&r->status->beat_ns, clock_ns() - 3000000000u);
    char *got = client_body(r, "GET /ready", NULL, 503);
    CHECK(strstr(got, "\"state\":\"stalled\""));
    free(got);
    status_beat(r->status, STATUS_PREFILL);
    free(client_body(r, "GET /ready", NULL, 200));
    status_beat(r->status, STATUS_IDLE);
    client_close(&c);
    RIG_WAIT(r->n_cancels == 1);
}

/* ---- clients ---- */

static void clients_leave(struct rig *r)
{
    static const char *const bodies[] = {
        "{\"prompt\":\"flood\",\"stream\":true}",
        "{\"prompt\":\"hang\",\"stream\":true}",
        "{\"prompt\":\"hang\"}",
        "{\"prompt\":\"silent\"}",
        "{\"prompt\":[\"hang\",\"hang\"]}",
    };
    unsigned n_cancels = r->n_cancels;
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct client c;
        unsigned n = r->n_generates;
        ask(&c, r, bodies[i]);
        RIG_WAIT(r->n_generates > n);
        uint64_t begin = clock_ms();
        client_close(&c);
        n_cancels += i == 4 ? 2 : 1;
        RIG_WAIT(r->n_cancels == n_cancels);
        CHECK(clock_ms() - begin < 1000);
    }
    /* Half a close is no leaving: the rest of the answer still comes. */
    for (int i = 0; i < 2; i++) {
        struct client c;
        ask(&c, r, i ? "{\"prompt\":\"slow 20\",\"stream\":true}" : "{\"prompt\":\"slow 20\"}");
        shutdown(c.fd, SHUT_WR);
        expect_answer(&c, 200, i ? "data: [DONE]" : " 18 19 ");
    }
    CHECK_INT(r->n_cancels, n_cancels);
}

static void slow_reader(struct rig *r)
{
    struct client slow;
    const int small = 128 * 1024;
    long before = rig_gateway_kib(r);
    client_open(&slow, r);
    setsockopt(slow.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    client_request(&slow, TEXT, NULL, "{\"prompt\":\"flood\",\"stream\":true}");
    RIG_WAIT(r->n_pauses == 1);
    usleep(50000);
    if (!rig_is_unsandboxed()) { /* a ring full of tokens as events, at most */
        CHECK(rig_gateway_kib(r) - before < 8192);
    }
    for (int i = 0; i < 5; i++) { /* nobody waits for it */
        free(client_body(r, TEXT, "{\"prompt\":\"say a\"}", 200));
    }
    char chunk[65536];
    for (int i = 0; i < 200 && r->n_resumes == 0; i++) {
        ssize_t n = recv(slow.fd, chunk, sizeof(chunk), 0);
        CHECK(n > 0);
    }
    RIG_WAIT(r->n_resumes >= 1);
    client_close(&slow);
}

/* ---- shutdown and reload ---- */

static void drains(void)
{
    struct rig r;
    struct client running, hanging, idle;
    struct response res;
    static struct channel_msg msg;
    rig_start(&r, NULL);
    rig_worker_start(&r);
    client_open(&idle, &r);
    client_request(&idle, "GET /health", NULL, NULL);
    client_read(&idle, &res, false);
    response_finish(&res);
    ask(&running, &r, "{\"prompt\":\"slow 10\",\"stream\":true}");
    ask(&hanging, &r, "{\"prompt\":\"die 1\",\"stream\":true}");
    client_read_until(&hanging, "\"text\":\"0 \"");
    struct msg_drain d = {.deadline_ms = 600};
    CHECK_INT(channel_send(&r.channel, MSG_DRAIN, r.epoch, &d, sizeof(d), NULL, 0), 0);
    CHECK(client_is_closed(&idle));
    client_close(&idle);
    client_read(&running, &res, false);
    CHECK(res.status == 200 && strstr(res.body.data, "[DONE]"));
    response_finish(&res);
    CHECK(client_is_closed(&running));
    client_close(&running);
    client_read(&hanging, &res, false);
    CHECK(strstr(res.body.data, "\"code\":\"shutting_down\"") && !strstr(res.body.data, "[DONE]"));
    response_finish(&res);
    client_close(&hanging);
    CHECK(rig_expect(&r, MSG_DRAINED, &msg));
    CHECK(kill(r.pid, SIGTERM) == 0); /* nothing is left to do: it goes */
    CHECK(!rig_expect(&r, MSG_STAGE, &msg));
    rig_stop(&r);
}

/* SIGTERM to the whole unit: what is under way is finished. */
static void terminated(void)
{
    struct rig r;
    struct client c;
    struct response res;
    rig_start(&r, NULL);
    rig_worker_start(&r);
    ask(&c, &r, "{\"prompt\":\"slow 10\",\"stream\":true}");
    client_read_until(&c, "\"text\":\"0 \"");
    CHECK(kill(r.pid, SIGTERM) == 0 && kill(r.pid, SIGINT) == 0 && kill(r.pid, SIGHUP) == 0);
    client_read(&c, &res, false);
    CHECK(strstr(res.body.data, "[DONE]"));
    response_finish(&res);
    client_close(&c);
    rig_stop(&r);
}

static void send_config(struct rig *r, const char *config, const char *keys)
{
    struct msg_config m = {.generation = 2};
    int fds[2] = {memfd_create_const("config", config, strlen(config)),
                  memfd_create_const("keys", keys, strlen(keys))};
    CHECK_INT(channel_send(&r->channel, MSG_CONFIG, 0, &m, sizeof(m), fds, 2), 0);
    close(fds[0]);
    close(fds[1]);
}

static int status_with_key(const struct rig *r, const char *key)
{
    char header[64];
    struct response res;
    snprintf(header, sizeof(header), "Authorization: Bearer %s\r\n", key);
    client_once(r, "GET /v1/models", header, NULL, &res);
    response_finish(&res);
    return res.status;
}

/* New keys take effect; a broken configuration changes nothing. */
static void reloads(void)
{
    struct rig r;
    const struct rig_options o = {.keys = "old\n"};
    rig_start(&r, &o);
    rig_worker_start(&r);
    CHECK_INT(status_with_key(&r, "old"), 200);
    send_config(&r, "log_level=error\napi_key_file=keys\n", "new\n");
    RIG_WAIT(status_with_key(&r, "new") == 200);
    CHECK_INT(status_with_key(&r, "old"), 401);
    send_config(&r, "log_level=error\napi_key_file=keys\n", "# empty\n");
    send_config(&r, "nonsense", "other\n");
    usleep(50000);
    CHECK_INT(status_with_key(&r, "new"), 200);
    CHECK_INT(status_with_key(&r, "other"), 401);
    rig_stop(&r);
}

int main(void)
{
    struct rig r;
    rig_start(&r, NULL);
    rig_worker_start(&r);
    worker_dies(&r);
    worker_is_abandoned(&r);
    stalled(&r);
    clients_leave(&r);
    slow_reader(&r);
    rig_worker_kill(&r, 0);
    last_words_count(&r);
    bell_is_lost(&r);
    protocol_breaches(&r);
    ring_is_full(&r);
    check_alive(&r);
    rig_stop(&r);
    drains();
    terminated();
    reloads();
    return 0;
}
