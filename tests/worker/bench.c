#include "tests/worker/bench.h"
#include "shared/clock.h"
#include "tests/test.h"
#include "worker/prepare.h"

struct bench *bench_around(struct models *m)
{
    struct bench *b = calloc(1, sizeof(*b));
    CHECK(b);
    b->models = *m;
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
    models_finish(&b->models);
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
