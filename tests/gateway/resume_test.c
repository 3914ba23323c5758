/* What becomes of requests whose worker dies: the test is the worker, record by record. */
#include "shared/clock.h"
#include "shared/limits.h"
#include "tests/gateway/rig.h"

#define TEXT "POST /v1/completions"

static _Alignas(16) uint8_t buf[LIMIT_RECORD_BYTES];

static void ask(struct client *c, const struct rig *r, const char *body)
{
    client_open(c, r);
    client_request(c, TEXT, NULL, body);
}

static void begin_epoch(struct rig *r)
{
    static struct channel_msg ready;
    rig_attach(r);
    worker_models(r);
    CHECK(rig_expect(r, MSG_READY, &ready));
}

static bool has_record(struct rig *r)
{
    usleep(30000); /* more than the gateway's turn */
    struct ring copy = r->requests;
    return !ring_sleep(&copy);
}

/* The next GENERATE; its ids of choice 0 go to ids. */
static struct msg_generate take_generate(struct rig *r, uint32_t *ret_n, int32_t ids[16])
{
    struct ring_record rec;
    struct msg_generate m;
    struct msg_section s;
    const void *data;
    worker_take(r, &rec, buf);
    CHECK_INT(rec.type, MSG_GENERATE);
    CHECK_INT(
        msg_check(rec.type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, buf, rec.len, 0),
        0);
    memcpy(&m, buf, sizeof(m));
    struct msg_cursor c = msg_sections(buf, rec.len, sizeof(m));
    *ret_n = 0;
    while (msg_next_section(&c, &s, &data) == 1) {
        if (s.kind == MSG_RESUME_IDS && s.index == m.choice_base) {
            *ret_n = (uint32_t)(s.bytes / sizeof(int32_t));
            CHECK(*ret_n <= 16);
            memcpy(ids, data, s.bytes);
        }
    }
    return m;
}

static uint64_t take(struct rig *r, uint32_t want)
{
    struct ring_record rec;
    struct msg_request m;
    worker_take(r, &rec, buf);
    if (rec.type != want) {
        TEST_FAIL("%s in place of %s", msg_info(rec.type)->name, msg_info(want)->name);
    }
    memcpy(&m, buf, sizeof(m));
    return m.request;
}

static uint64_t take_id(struct rig *r)
{
    uint32_t n;
    int32_t ids[16];
    return take_generate(r, &n, ids).request;
}

static void end(struct rig *r, uint64_t id, uint32_t n_tokens)
{
    worker_finish(r, id, 0, MSG_FINISH_STOP, n_tokens, "");
    worker_done(r, id, 3, 0, n_tokens);
}

static void expect_body(struct client *c, int status, const char *part, const char *not_part)
{
    struct response res;
    client_read(c, &res, false);
    if (res.status != status || !strstr(res.body.data, part) ||
        (not_part && strstr(res.body.data, not_part))) {
        TEST_FAIL("%d %s; expected %d, %s, and not %s", res.status, res.body.data, status, part,
                  not_part ? not_part : "-");
    }
    response_finish(&res);
    client_close(c);
}

/* Two epochs end in the middle; the client sees one answer. cached_tokens are those of the first.
 */
static void an_answer_goes_on(struct rig *r)
{
    struct client c;
    uint32_t n;
    int32_t ids[16];
    begin_epoch(r);
    ask(&c, r, "{\"prompt\":\"x\",\"seed\":9}");
    struct msg_generate m = take_generate(r, &n, ids);
    CHECK(n == 0 && m.seed == 9 && !(m.flags & (MSG_VERIFY | MSG_AGAIN)));
    worker_started(r, m.request, 3, 2);
    worker_token(r, m.request, 0, 0, "one ");
    worker_token(r, m.request, 0, 1, "two ");
    rig_worker_kill(r, 1000);
    for (int epoch = 0; epoch < 2; epoch++) {
        begin_epoch(r);
        struct msg_generate again = take_generate(r, &n, ids);
        CHECK(again.request == m.request && again.seed == 9);
        CHECK((again.flags & MSG_VERIFY) && (again.flags & MSG_AGAIN));
        CHECK_INT(n, 2 + epoch);
        for (uint32_t i = 0; i < n; i++) {
            CHECK_INT(ids[i], i);
        }
        worker_started(r, m.request, 3, 0);
        worker_token(r, m.request, 0, n, epoch ? "four" : "three ");
        if (epoch == 0) {
            rig_worker_kill(r, 1000);
        }
    }
    end(r, m.request, 5);
    struct response res;
    client_read(&c, &res, false);
    CHECK_INT(res.status, 200);
    CHECK(strstr(res.body.data, "\"text\":\"one two three four\""));
    CHECK(strstr(res.body.data, "\"completion_tokens\":5"));
    CHECK(strstr(res.body.data, "\"cached_tokens\":2") && !strstr(res.body.data, "resumed_on"));
    response_finish(&res);
    client_close(&c);
    rig_worker_kill(r, 1000);
}

/* A prompt that was echoed in part is not echoed twice. */
static void an_echo_is_heard_once(struct rig *r)
{
    struct client c;
    begin_epoch(r);
    ask(&c, r, "{\"prompt\":\"ab\",\"echo\":true}");
    uint64_t id = take_id(r);
    for (int epoch = 0; epoch < 2; epoch++) {
        worker_started(r, id, 2, 0);
        for (uint32_t i = 0; i < (epoch ? 2u : 1u); i++) {
            struct msg_token t = {.request = id, .position = i, .is_prompt = 1, .text_bytes = 1};
            worker_put(r, MSG_TOKEN, &t, sizeof(t), i ? "b" : "a", 1);
        }
        if (epoch == 0) {
            rig_worker_kill(r, 1000);
            begin_epoch(r);
            CHECK(take_id(r) == id);
        }
    }
    worker_token(r, id, 0, 0, "!");
    worker_finish(r, id, 0, MSG_FINISH_STOP, 2, "");
    worker_done(r, id, 2, 0, 2);
    expect_body(&c, 200, "\"text\":\"ab!\"", NULL);
    rig_worker_kill(r, 1000);
}

static void put_models(struct rig *r, const char *profile, int64_t created)
{
    struct msg_model m = {.n_models = 1, .n_vocab = 1000, .n_ctx = 4096, .created = created};
    snprintf(m.name, sizeof(m.name), "tiny");
    snprintf(m.device, sizeof(m.device), "the %s", profile);
    snprintf(m.profile, sizeof(m.profile), "%s", profile);
    worker_put(r, MSG_MODEL, &m, sizeof(m), NULL, 0);
}

/* On another device ids are forced, and the answer says so; another file is refused. */
static void another_profile_is_named(struct rig *r)
{
    static struct channel_msg ready;
    for (int changed = 0; changed < 2; changed++) {
        struct client c;
        uint32_t n;
        int32_t ids[16];
        rig_attach(r);
        put_models(r, "gpu", 7);
        CHECK(rig_expect(r, MSG_READY, &ready));
        ask(&c, r, "{\"prompt\":\"x\",\"stream\":true}");
        uint64_t id = take_id(r);
        worker_started(r, id, 3, 0);
        worker_token(r, id, 0, 0, "one");
        rig_worker_kill(r, 1000);
        rig_attach(r);
        put_models(r, "cpu", 7 + (uint64_t)changed);
        CHECK(rig_expect(r, MSG_READY, &ready));
        if (!changed) {
            struct msg_generate m = take_generate(r, &n, ids);
            CHECK(n == 1 && !(m.flags & MSG_VERIFY) && (m.flags & MSG_AGAIN));
            worker_started(r, id, 3, 0);
            end(r, id, 2);
        }
        expect_body(&c, 200, changed ? "\"code\":\"model_changed\"" : "\"resumed_on\":\"the cpu\"",
                    changed ? "[DONE]" : "error");
        rig_worker_kill(r, 1000);
    }
}

static void other_words_are_told(struct rig *r)
{
    struct client c;
    begin_epoch(r);
    ask(&c, r, "{\"prompt\":\"x\"}");
    uint64_t id = take_id(r);
    worker_started(r, id, 3, 0);
    worker_token(r, id, 0, 0, "one");
    rig_worker_kill(r, 1000);
    begin_epoch(r);
    CHECK(take_id(r) == id);
    worker_started(r, id, 4, 0); /* the prompt is another one */
    expect_body(&c, 500, "\"code\":\"replay_divergence\"", NULL);
    CHECK(take(r, MSG_CANCEL) == id);
    rig_worker_kill(r, 1000);
}

/* The administrator clears the list. */
static void forget_poison(struct rig *r)
{
    struct client c;
    static struct channel_msg m;
    client_open_unix(&c, r);
    client_request(&c, "DELETE /poison", NULL, NULL);
    expect_body(&c, 200, "\"poison\":[]", NULL);
    CHECK(rig_expect(r, MSG_POISON, &m));
    CHECK_INT(channel_send(&r->channel, MSG_POISON, r->epoch, m.payload, m.len, NULL, 0), 0);
}

/* Three in flight, the second is poison. */
static void suspects_are_tried_alone(struct rig *r)
{
    static const char *const bodies[] = {"{\"prompt\":\"a\",\"stream\":true}",
                                         "{\"prompt\":\"bad\",\"stream\":true,\"seed\":1}",
                                         "{\"prompt\":\"c\"}"};
    struct client c[3], later;
    uint64_t ids[3];
    begin_epoch(r);
    for (int i = 0; i < 3; i++) {
        ask(&c[i], r, bodies[i]);
        ids[i] = take_id(r);
    }
    worker_started(r, ids[1], 3, 0);
    worker_token(r, ids[1], 0, 0, "shown");
    rig_worker_crash(r);

    /* The first is innocent: it computes a token, and pauses. */
    begin_epoch(r);
    CHECK(take_id(r) == ids[0] && !has_record(r));
    ask(&later, r, "{\"prompt\":\"later\"}");
    CHECK(!has_record(r)); /* who comes now waits */
    worker_started(r, ids[0], 3, 0);
    CHECK(!has_record(r));
    worker_token(r, ids[0], 0, 0, "first ");
    CHECK(take(r, MSG_PAUSE) == ids[0]);
    CHECK(take_id(r) == ids[1] && !has_record(r));
    rig_worker_crash(r); /* alone: it is the second's fault */
    struct response res;
    client_read(&c[1], &res, false);
    CHECK(strstr(res.body.data, "shown") && strstr(res.body.data, "\"code\":\"poison_request\"") &&
          !strstr(res.body.data, "[DONE]"));
    response_finish(&res);
    client_close(&c[1]);
    static struct channel_msg told;
    CHECK(rig_expect(r, MSG_POISON, &told)); /* for the gateways to come */

    /* A kill from outside in the third's trial proves nothing. */
    begin_epoch(r);
    CHECK(take_id(r) == ids[2] && !has_record(r));
    rig_worker_kill(r, 1000);
    begin_epoch(r);
    CHECK(take_id(r) == ids[2] && !has_record(r));
    worker_started(r, ids[2], 3, 0);
    worker_token(r, ids[2], 0, 0, "third");
    CHECK(take_id(r) == ids[0]); /* all are judged: all go on */
    uint64_t later_id = take_id(r);
    worker_started(r, ids[0], 3, 0);
    worker_started(r, later_id, 3, 0);
    end(r, later_id, 1);
    end(r, ids[2], 2);
    worker_token(r, ids[0], 0, 1, "again");
    end(r, ids[0], 3);
    expect_body(&c[0], 200, "[DONE]", "error");
    expect_body(&c[2], 200, "\"text\":\"third\"", NULL);
    expect_body(&later, 200, "\"completion_tokens\":1", NULL);

    /* What an earlier gateway refused, this one refuses as well. */
    static struct channel_msg cleared;
    struct msg_poison m;
    memcpy(&m, told.payload, sizeof(m));
    uint64_t now_ms = clock_ms();
    CHECK(m.until_ms > now_ms + 3500 * 1000 && m.until_ms <= now_ms + 3600 * 1000);
    forget_poison(r);
    CHECK_INT(channel_send(&r->channel, MSG_POISON, r->epoch, &m, sizeof(m), NULL, 0), 0);

    /* The same request is refused, whatever its seed, until the list is cleared. */
    char v[256];
    client_once(r, TEXT, NULL, "{\"prompt\":\"bad\",\"stream\":true,\"seed\":2}", &res);
    CHECK_INT(res.status, 500);
    CHECK(strstr(res.body.data, "\"code\":\"poison_request\""));
    CHECK_STR(response_header(&res, "x-should-retry", v), "false");
    response_finish(&res);
    client_once(r, "GET /poison", NULL, NULL, &res);
    CHECK_INT(res.status, 403); /* not for everybody */
    response_finish(&res);
    static const char *const hows[] = {"GET /poison", "DELETE /poison", "GET /poison"};
    for (int i = 0; i < 3; i++) {
        client_open_unix(&later, r);
        client_request(&later, hows[i], NULL, NULL);
        expect_body(&later, 200, i ? "\"poison\":[]" : "\"refused\":1}]", NULL);
    }
    CHECK(rig_expect(r, MSG_POISON, &cleared));
    memcpy(&m, cleared.payload, sizeof(m));
    CHECK_INT(m.until_ms, 0);
    /* What the supervisor said before it heard that is not believed; what it says after its answer
     * is. */
    struct msg_poison again;
    memcpy(&again, told.payload, sizeof(again));
    CHECK_INT(channel_send(&r->channel, MSG_POISON, r->epoch, &again, sizeof(again), NULL, 0), 0);
    client_open_unix(&later, r);
    client_request(&later, "GET /poison", NULL, NULL);
    expect_body(&later, 200, "\"poison\":[]", NULL);
    CHECK_INT(channel_send(&r->channel, MSG_POISON, r->epoch, &m, sizeof(m), NULL, 0), 0);
    CHECK_INT(channel_send(&r->channel, MSG_POISON, r->epoch, &again, sizeof(again), NULL, 0), 0);
    client_open_unix(&later, r);
    client_request(&later, "GET /poison", NULL, NULL);
    expect_body(&later, 200, "\"refused\":0}]", NULL);
    forget_poison(r);
    ask(&later, r, bodies[1]);
    uint64_t id = take_id(r);
    worker_started(r, id, 3, 0);
    end(r, id, 1);
    expect_body(&later, 200, "[DONE]", NULL);
    rig_worker_kill(r, 1000);
}

static void wait_health(struct rig *r, const char *part, const char *not_part)
{
    bool is_so = false;
    for (int i = 0; i < 5000 && !is_so; i++) {
        struct response res;
        client_once(r, "GET /health", NULL, NULL, &res);
        is_so = strstr(res.body.data, part) && !strstr(res.body.data, not_part);
        response_finish(&res);
        usleep(is_so ? 0 : 1000);
    }
    CHECK(is_so);
}

/* Suspects whose clients leave are judged all the same: the innocent one is cancelled then; the
 * other is convicted, and with it the same request that was sent again meanwhile. */
static void who_leaves_is_judged(struct rig *r)
{
    struct client c[2], again;
    static struct channel_msg told;
    uint64_t ids[2];
    begin_epoch(r);
    ask(&c[0], r, "{\"prompt\":\"fine\",\"total_timeout\":5}");
    ids[0] = take_id(r);
    ask(&c[1], r, "{\"prompt\":\"worse\"}");
    ids[1] = take_id(r);
    client_close(&c[1]); /* before its worker dies */
    CHECK(take(r, MSG_CANCEL) == ids[1]);
    rig_worker_crash(r);
    client_close(&c[0]); /* after that */
    wait_health(r, "\"crashed\"", "\"waiting\"");
    begin_epoch(r);
    uint32_t n;
    int32_t tokens[16];
    struct msg_generate m = take_generate(r, &n, tokens);
    CHECK(m.request == ids[0]);
    worker_started(r, ids[0], 3, 0);
    worker_token(r, ids[0], 0, 0, "first");
    CHECK(take(r, MSG_CANCEL) == ids[0]);
    CHECK(take(r, MSG_PAUSE) == ids[0]);
    CHECK(take_id(r) == ids[1]);
    ask(&again, r, "{\"prompt\":\"worse\"}");
    wait_health(r, "\"waiting\":1", "\"crashed\"");
    CHECK(!has_record(r));
    rig_worker_crash(r);
    expect_body(&again, 500, "\"code\":\"poison_request\"", NULL);
    CHECK(rig_expect(r, MSG_POISON, &told));
    begin_epoch(r);
    CHECK(!has_record(r));
    ask(&again, r, "{\"prompt\":\"worse\"}");
    expect_body(&again, 500, "\"code\":\"poison_request\"", NULL);
    forget_poison(r);
    rig_worker_kill(r, 1000);
}

/* A worker that died before it had read what it was sent cannot have died of it. */
static void what_was_not_read_is_no_fault(struct rig *r)
{
    struct client c;
    begin_epoch(r);
    ask(&c, r, "{\"prompt\":\"x\"}");
    uint64_t id = take_id(r);
    rig_worker_crash(r);
    begin_epoch(r);
    CHECK(has_record(r));
    rig_worker_crash(r);
    begin_epoch(r);
    CHECK(take_id(r) == id);
    worker_started(r, id, 3, 0);
    end(r, id, 1);
    expect_body(&c, 200, "\"completion_tokens\":1", NULL);
    rig_worker_kill(r, 1000);
}

static void patience_ends(void)
{
    struct rig r;
    const struct rig_options o = {.config = "log_level=error\nresume_timeout=0.4\n"};
    struct client c;
    rig_start(&r, &o);
    begin_epoch(&r);
    ask(&c, &r, "{\"prompt\":\"x\",\"stream\":true}");
    uint64_t id = take_id(&r);
    worker_started(&r, id, 3, 0);
    worker_token(&r, id, 0, 0, "one");
    client_read_until(&c, "one");
    uint64_t begin = clock_ms();
    rig_worker_kill(&r, 100000);
    expect_body(&c, 200, "\"code\":\"worker_down\"", "[DONE]");
    CHECK(clock_ms() - begin >= 350 && clock_ms() - begin < 2000);
    begin_epoch(&r);
    CHECK(!has_record(&r));
    rig_stop(&r);
}

/* A request's own time limits hold as well while there is no worker to mind them. */
static void time_limits_without_a_worker(void)
{
    struct rig r;
    struct client queued, first, total;
    rig_start(&r, NULL);
    begin_epoch(&r);
    ask(&queued, &r, "{\"prompt\":\"x\",\"queue_timeout\":0.3}");
    take_id(&r);
    ask(&first, &r, "{\"prompt\":\"x\",\"first_timeout\":0.3}");
    worker_started(&r, take_id(&r), 3, 0);
    ask(&total, &r,
        "{\"prompt\":\"x\",\"first_timeout\":0.3,\"total_timeout\":0.4,\"stream\":true}");
    uint64_t id = take_id(&r);
    worker_started(&r, id, 3, 0);
    worker_token(&r, id, 0, 0, "one");
    client_read_until(&total, "one");
    uint64_t begin = clock_ms();
    rig_worker_kill(&r, 100000);
    expect_body(&queued, 504, "\"code\":\"queue_timeout\"", NULL);
    expect_body(&first, 504, "\"code\":\"first_token_timeout\"", NULL);
    expect_body(&total, 200, "\"code\":\"total_timeout\"", "[DONE]");
    CHECK(clock_ms() - begin < 2000);
    begin_epoch(&r);
    CHECK(!has_record(&r));
    rig_stop(&r);
}

int main(void)
{
    struct rig r;
    rig_start(&r, NULL);
    an_answer_goes_on(&r);
    an_echo_is_heard_once(&r);
    another_profile_is_named(&r);
    other_words_are_told(&r);
    suspects_are_tried_alone(&r);
    who_leaves_is_judged(&r);
    what_was_not_read_is_no_fault(&r);
    rig_stop(&r);
    patience_ends();
    time_limits_without_a_worker();
    return 0;
}
