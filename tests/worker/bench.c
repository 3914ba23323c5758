#include "tests/worker/bench.h"
#include "shared/clock.h"
#include "tests/test.h"
#include "worker/prepare.h"

const struct bench_shape bench_roomy = {16, 512, 4096, 4096};

struct bench *bench_open(struct bench_shape s)
{
    struct bench *b = calloc(1, sizeof(*b));
    CHECK(b);
    fake_models_init(&b->models, 1, s.n_seqs, s.chunk_rows, s.n_blocks, s.n_ctx);
    peer_init(&b->peer, 1 << 20);
    events_init(&b->events);
    b->events.ring = &b->peer.attach.events;
    b->scheduler = scheduler_create(&b->models, 0, &b->events);
    b->take = BENCH_ALL;
    return b;
}

void bench_close(struct bench *b)
{
    CHECK(!b->live);
    scheduler_destroy(&b->scheduler);
    events_finish(&b->events);
    fake_models_finish(&b->models);
    peer_finish(&b->peer);
    free(b);
}

struct request *bench_submit(struct bench *b, struct ask *a)
{
    struct buf payload;
    buf_init(&payload, 0);
    uint64_t id = a->m.request;
    ask_encode(a, &payload);
    b->events.now_ns = clock_ns() + b->time_ns;
    struct request *r = request_create(id, MSG_GENERATE, ++b->n_arrived, b->events.now_ns);
    CHECK_INT(request_read(r, payload.data, payload.len, false, &b->models), 0);
    prepare_now(r);
    peer_begin(&b->peer, id);
    r->next_live = b->live;
    b->live = r;
    if (r->err.code < 0) {
        events_fail(&b->events, r, &r->err);
    } else {
        scheduler_add(b->scheduler, r);
    }
    return r;
}

struct request *bench_find(struct bench *b, uint64_t id)
{
    struct request *r = b->live;
    while (r && r->id != id) {
        r = r->next_live;
    }
    CHECK(r);
    return r;
}

void bench_pause(struct bench *b, uint64_t id, bool is_paused)
{
    struct request *r = bench_find(b, id);
    r->is_paused = is_paused;
    r->stalled_ns = is_paused ? b->events.now_ns : 0;
}

void bench_cancel(struct bench *b, uint64_t id)
{
    struct request *r = bench_find(b, id);
    peer_answer(&b->peer, id)->is_cancelled = true;
    scheduler_cancel(b->scheduler, r);
}

bool bench_step(struct bench *b)
{
    b->events.now_ns = clock_ns() + b->time_ns;
    enum status_phase phase = scheduler_plan(b->scheduler);
    if (phase != STATUS_IDLE) {
        scheduler_run(b->scheduler);
        b->n_steps++;
    }
    peer_take(&b->peer, b->take);
    for (struct request **link = &b->live; *link;) {
        struct request *r = *link;
        if (r->pending.len > 0) {
            events_flush(&b->events, r);
        }
        if (r->stage == REQUEST_ENDED && r->pending.len == 0) {
            *link = r->next_live;
            request_destroy(&r);
        } else {
            link = &r->next_live;
        }
    }
    CHECK_INT(b->events.err, 0);
    return phase != STATUS_IDLE;
}

void bench_run(struct bench *b)
{
    for (int i = 0; b->live; i++) {
        CHECK(i < 200 * 1000);
        bench_step(b);
    }
    peer_take(&b->peer, BENCH_ALL);
    CHECK(peer_all_over(&b->peer));
}

const struct answer_choice *bench_choice(struct bench *b, uint64_t id, uint32_t number)
{
    const struct answer *an = peer_answer(&b->peer, id);
    CHECK(an && an->choices[number]);
    return an->choices[number];
}

/* ---- mixtures of random requests ---- */

struct ask bench_mixed(const struct bench_mix *mix, uint64_t n)
{
    uint64_t rng = mix->seed * 1000003 + n;
    char text[700];
    size_t len = 1 + test_random(&rng) % (n % 5 ? 60 : 600);
    for (size_t i = 0; i < len; i++) {
        text[i] = (char)('a' + test_random(&rng) % 26);
    }
    text[len] = 0;
    if (n % 3 == 0) {
        strcat(text, "<copy>");
    }
    struct ask a = ask_text(n + 1, text);
    a.m.max_tokens = 1 + (uint32_t)(test_random(&rng) % 80);
    a.m.temperature = n % 2 ? 0.9f : 0;
    a.m.top_p = n % 4 == 1 ? 0.8f : 1;
    a.m.top_k = n % 4 == 3 ? 20 : 0;
    a.m.presence_penalty = n % 7 == 0 ? 0.5f : 0;
    a.m.repeat_penalty = n % 11 == 0 ? 1.2f : 1;
    if (n % 2) {
        a.m.flags |= MSG_LOGPROBS;
        a.m.top_logprobs = (uint32_t)(n % 4);
    }
    if (n % 4 == 0) {
        ask_stop(&a, "e");
        ask_stop(&a, "xy");
    }
    if (mix->with_choices && n % 3 == 1) {
        a.m.n_choices = 1 + (uint32_t)(test_random(&rng) % 5);
        a.m.choice_base = (uint32_t)(n % 3);
    }
    if (mix->with_echo && n % 5 == 2) {
        a.m.flags |= MSG_ECHO;
    }
    return a;
}

struct bench *bench_alone(const struct bench_mix *mix, uint64_t n)
{
    struct bench *b = bench_open(bench_roomy);
    for (uint64_t i = 0; i < n; i++) {
        struct ask a = bench_mixed(mix, i);
        bench_submit(b, &a);
        bench_run(b);
    }
    return b;
}

static void check_same_buf(const struct buf *a, const struct buf *b)
{
    CHECK_INT(a->len, b->len);
    CHECK(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

void bench_check_same(struct bench *want, struct bench *got, uint64_t id)
{
    struct answer *x = peer_answer(&want->peer, id), *y = peer_answer(&got->peer, id);
    CHECK(x && y && x->is_over && y->is_over);
    CHECK_INT(x->err, y->err);
    for (int i = 0; i < LIMIT_CHOICES; i++) {
        const struct answer_choice *c = x->choices[i], *d = y->choices[i];
        CHECK(!c == !d);
        if (c) {
            CHECK_INT(c->n_ids, d->n_ids);
            CHECK(memcmp(c->ids, d->ids, c->n_ids * sizeof(c->ids[0])) == 0);
            CHECK(memcmp(c->text_at, d->text_at, c->n_ids * sizeof(c->text_at[0])) == 0);
            CHECK_INT(c->n_echo, d->n_echo);
            CHECK_INT(c->reason, d->reason);
            CHECK_INT(c->n_tokens, d->n_tokens);
            CHECK_INT(c->stop_index, d->stop_index);
            check_same_buf(&c->text, &d->text);
        }
    }
    if (y->choices[1] == NULL) { /* (several choices interleave) */
        check_same_buf(&x->logprobs, &y->logprobs);
        check_same_buf(&x->pieces, &y->pieces);
    }
}
