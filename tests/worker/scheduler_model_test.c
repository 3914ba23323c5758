/* The scheduler on its real sequences and cache, under random traffic, against a reference that
 * knows nothing of either: what a request says is computed token by token when it is made, from its
 * text alone. Operations: requests of one or many choices that go on from earlier texts, replays,
 * requests whose step fails, time limits, cancellation, readers that stall, a gateway that is gone,
 * steps. The pools are too small, so sequences are put back and come again, and cached blocks are
 * evicted all the time. After every operation: the running sequences hold the reference's tokens,
 * exactly the blocks are taken that a count over whole texts gives, every choice is in one place,
 * sums of tokens agree, and every invariant of the pool holds. Usage: scheduler_model_test
 * [operations]. */
#include "tests/test.h"
#include "tests/worker/bench.h"
#include "worker/engine_state.h"
#include "worker/scheduler_state.h"

enum { N_CTX = 240, MAX_PLANS = 24, MAX_CHOICES = 5, N_TEXTS = 24, POISON = FAKE_NEVER };

struct text {
    int32_t ids[N_CTX];
    int64_t n;
};

struct plan { /* a request and what must become of it */
    uint64_t id;
    bool is_poison, has_limits, is_cancelled, is_counted, is_replay;
    struct text prompt;
    uint32_t n_choices, base;
    struct {
        struct text whole; /* prompt and answer */
        uint32_t n_tokens, reason;
        size_t cut; /* ids that it was sent with */
    } choices[MAX_CHOICES];
};

static struct {
    struct bench *b;
    uint64_t rng, n_sent;
    struct plan plans[MAX_PLANS];
    size_t n_plans;
    struct text texts[N_TEXTS];
    uint64_t n_prompt_tok;         /* of requests that started */
    uint64_t rowless[LIMIT_SLOTS]; /* steps since the slot's sequence had a row */
    struct {
        uint64_t whole, cut_short, replayed, failed, dropped, choices, ids;
    } count;
} t;

static uint64_t below(uint64_t n)
{
    return test_random(&t.rng) % n;
}

/* ---- the reference ---- */

static int32_t most_likely(const float *x)
{
    int32_t best = 0;
    for (int32_t i = 1; i < FAKE_VOCAB; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

static void foretell(struct plan *p, uint32_t k, const struct msg_generate *g)
{
    struct text *x = &p->choices[k].whole;
    struct sampler *sampler = NULL;
    struct err e;
    int64_t n_max = MIN((int64_t)g->max_tokens, N_CTX - p->prompt.n);
    *x = p->prompt;
    if (g->temperature > 0) {
        CHECK_INT(sampler_create(g, NULL, 0, p->base + k, FAKE_VOCAB, &sampler, &e), 0);
    }
    for (int64_t n = 0;; n++) {
        float logits[FAKE_VOCAB];
        fake_logits(x->ids, x->n, logits);
        int32_t id =
            sampler ? sampler_draw(sampler, logits, (uint32_t)n, 0, NULL) : most_likely(logits);
        if (id == FAKE_END) {
            p->choices[k].n_tokens = (uint32_t)n + 1;
            p->choices[k].reason = MSG_FINISH_STOP;
            break;
        }
        x->ids[x->n++] = id;
        if (n + 1 == n_max) {
            p->choices[k].n_tokens = (uint32_t)n_max;
            p->choices[k].reason = MSG_FINISH_LENGTH;
            break;
        }
    }
    sampler_destroy(&sampler);
}

static struct plan *plan_of(uint64_t id)
{
    for (size_t i = 0; i < t.n_plans; i++) {
        if (t.plans[i].id == id) {
            return &t.plans[i];
        }
    }
    TEST_FAIL("request %llu is unknown", (unsigned long long)id);
}

static void forget(struct plan *p)
{
    for (uint32_t k = 0; k < p->n_choices && !p->is_poison; k++) {
        t.texts[below(N_TEXTS)] = p->choices[k].whole;
    }
    peer_forget_one(&t.b->peer, p->id);
    *p = t.plans[--t.n_plans];
}

/* ---- checks ---- */

static void check_choice(const struct plan *p, uint32_t k, const struct answer *an, bool is_whole)
{
    const struct answer_choice *c = an->choices[p->base + k];
    size_t cut = p->choices[k].cut, n = (size_t)(p->choices[k].whole.n - p->prompt.n);
    const int32_t *ids = p->choices[k].whole.ids + p->prompt.n;
    if (!c) {
        CHECK(!is_whole);
        return;
    }
    CHECK(c->n_ids + cut <= n && c->is_finished >= is_whole);
    CHECK(c->n_ids == 0 || memcmp(c->ids, ids + cut, c->n_ids * sizeof(*ids)) == 0);
    if (is_whole) {
        CHECK_INT(c->n_ids + cut, n);
        CHECK_INT(c->reason, p->choices[k].reason);
        CHECK_INT(c->n_tokens, p->choices[k].n_tokens);
    }
    t.count.choices++;
    t.count.ids += c->n_ids;
}

static void check_answer(const struct plan *p, const struct answer *an)
{
    uint32_t n_late = 0, n_tokens = 0;
    for (uint32_t k = 0; k < p->n_choices; k++) {
        const struct answer_choice *c = an->choices[p->base + k];
        n_late += c && c->reason == MSG_FINISH_TIMEOUT;
        n_tokens += p->choices[k].n_tokens;
    }
    bool is_late = n_late > 0 || an->err == ERR_QUEUE_TIMEOUT ||
                   an->err == ERR_FIRST_TOKEN_TIMEOUT || an->err == ERR_TOTAL_TIMEOUT;
    CHECK(!is_late || p->has_limits);
    CHECK(an->err == 0 || is_late || (p->is_poison && an->err == ERR_NUMERIC));
    CHECK(!p->is_poison || an->err || p->is_cancelled || is_late);
    bool is_whole = !p->is_poison && !p->is_cancelled && !is_late;
    for (uint32_t k = 0; k < p->n_choices; k++) {
        check_choice(p, k, an, is_whole);
    }
    if (is_whole) {
        CHECK_INT(an->done.n_prompt, p->prompt.n);
        CHECK_INT(an->done.n_completion, n_tokens);
        CHECK_INT(an->done.n_cached, an->started.n_cached);
        CHECK(an->done.n_cached <
              an->done.n_prompt + p->is_replay); /* its next id needs no prompt */
    }
    t.count.whole += is_whole;
    t.count.cut_short += p->is_cancelled || is_late;
    t.count.failed += an->err == ERR_NUMERIC;
}

static void check_over(void)
{
    for (size_t i = t.n_plans; i-- > 0;) {
        const struct answer *an = peer_answer(&t.b->peer, t.plans[i].id);
        if (an->is_over) {
            check_answer(&t.plans[i], an);
            forget(&t.plans[i]);
        }
    }
}

static int64_t n_common(const struct text *a, int64_t n_a, const struct text *b, int64_t n_b)
{
    int64_t n = 0;
    while (n < MIN(n_a, n_b) && a->ids[n] == b->ids[n]) {
        n++;
    }
    return n;
}

/* Blocks that are taken: the full ones by their texts, each once; behind them what the sequences'
 * tables name. */
static int64_t count_blocks(const struct scheduler *s)
{
    int64_t n = 0;
    bool is_seen[512] = {0};
    const struct text *texts[LIMIT_SLOTS];
    for (int i = 0; i < s->n_running; i++) {
        const struct choice *c = s->running[i];
        const struct plan *p = plan_of(c->request->id);
        int64_t full = c->seq->n_tokens / KV_BLOCK, shared = 0;
        texts[i] = &p->choices[c - c->request->choices].whole;
        for (int k = 0; k < i; k++) {
            int64_t same =
                n_common(texts[i], c->seq->n_tokens, texts[k], s->running[k]->seq->n_tokens);
            shared = MAX(shared, same / KV_BLOCK);
        }
        n += full - shared;
        for (int64_t at = full; at < c->seq->n_blocks; at++) {
            n += !is_seen[c->seq->blocks[at]];
            is_seen[c->seq->blocks[at]] = true;
        }
    }
    return n;
}

static void check_places(const struct scheduler *s)
{
    int64_t n_choices = 0, n_ended = 0, n_unborn = 0, n_queued = 0, n_waiting = 0;
    for (const struct request *r = t.b->live; r; r = r->next_live) {
        for (uint32_t k = 0; r->stage == REQUEST_ACTIVE && k < r->generate.n_choices; k++) {
            const struct choice *c = &r->choices[k];
            n_choices++;
            n_ended += c->reason != 0;
            n_unborn += c->is_unborn;
            CHECK((c->reason != 0) + c->is_unborn + (c->seq != NULL) <= 1);
        }
    }
    for (const struct choice *c = s->head; c; c = c->next) {
        n_queued++;
        n_waiting += !request_is_stalled(c->request);
        CHECK(!c->seq && !c->reason && !c->is_unborn);
        CHECK(!c->next || choice_is_older(c, c->next));
    }
    for (int i = 1; i < s->n_running; i++) {
        CHECK(choice_is_older(s->running[i - 1], s->running[i]));
    }
    CHECK_INT(n_choices, n_ended + n_unborn + n_queued + s->n_running);
    CHECK_INT(scheduler_n_waiting(s), n_waiting);
    CHECK_INT(fake_stats(s->engine).n_seqs, s->n_running);
    CHECK(s->n_running <= s->n_seqs);
}

static void check_all(void)
{
    struct scheduler *s = t.b->scheduler;
    fake_check(s->engine);
    check_places(s);
    for (int i = 0; i < s->n_running; i++) {
        const struct choice *c = s->running[i];
        const struct text *x = &plan_of(c->request->id)->choices[c - c->request->choices].whole;
        int64_t n;
        const int32_t *ids = fake_tokens(c->seq, &n);
        CHECK(n <= x->n && (n == 0 || memcmp(ids, x->ids, (size_t)n * sizeof(*ids)) == 0));
    }
    CHECK_INT(engine_free_blocks(s->engine), engine_cache(s->engine).n_blocks - count_blocks(s));
    CHECK_INT(scheduler_stats(s).n_prompt_tok, t.n_prompt_tok);
    CHECK(scheduler_stats(s).n_cached_tok <= t.n_prompt_tok);
}

/* Called in a step, before anything of it can end. */
static void count_started(void)
{
    for (const struct request *r = t.b->live; r; r = r->next_live) {
        struct plan *p = plan_of(r->id);
        if (r->started_ns && !p->is_counted) {
            p->is_counted = true;
            t.n_prompt_tok += (uint64_t)p->prompt.n;
        }
    }
}

/* Within a step: a row for whoever needs just one, prompts within the chunk and in turns. */
static void on_step(const struct engine_row *rows, int64_t n)
{
    const struct scheduler *s = t.b->scheduler;
    int64_t n_of[LIMIT_SLOTS] = {0}, n_prompt = 0;
    bool is_alone = false;
    count_started();
    for (int64_t i = 0; i < n; i++) {
        n_of[rows[i].seq->slot]++;
    }
    for (int i = 0; i < s->n_running; i++) {
        is_alone = is_alone || (s->running[i]->is_suspect && n_of[s->running[i]->seq->slot] > 0);
    }
    for (int i = 0; i < s->n_running; i++) {
        const struct choice *c = s->running[i];
        int64_t got = n_of[c->seq->slot];
        uint64_t *rowless = &t.rowless[c->seq->slot];
        bool is_stalled = request_is_stalled(c->request);
        CHECK(!is_stalled || got == 0);
        if (!is_alone && !is_stalled && choice_n_missing(c) == 1) {
            CHECK_INT(got, 1);
        } else {
            n_prompt += got;
        }
        *rowless = got > 0 || is_stalled || is_alone ? 0 : *rowless + 1;
        CHECK(*rowless < 2 * LIMIT_SLOTS);
    }
    CHECK(n_prompt <= s->chunk_rows);
}

/* ---- operations ---- */

/* A text that goes on from one seen before, or from nothing. */
static void write_prompt(struct text *x)
{
    const struct text *from = &t.texts[below(N_TEXTS)];
    x->n = below(5) ? (int64_t)below((uint64_t)from->n + 1) : 0;
    memcpy(x->ids, from->ids, (size_t)x->n * sizeof(x->ids[0]));
    int64_t n = x->n + 1 + (int64_t)below(below(4) ? 12 : 100);
    n = MIN(n, (int64_t)N_CTX - 60);
    x->n = MIN(x->n, n - 1);
    for (; x->n < n; x->n++) {
        x->ids[x->n] = below(60) ? FAKE_BYTE + 'a' + (int32_t)below(3) : FAKE_COPY;
    }
}

static void add_replay(struct plan *p, struct ask *a)
{
    for (uint32_t k = 0; k < p->n_choices; k++) {
        size_t n = (size_t)(p->choices[k].whole.n - p->prompt.n);
        size_t cut = below(6) ? below(n + 1) : n;
        p->choices[k].cut = cut;
        ask_add(a, MSG_RESUME_IDS, p->base + k, p->choices[k].whole.ids + p->prompt.n,
                cut * sizeof(int32_t));
    }
    a->m.flags |= MSG_VERIFY | MSG_AGAIN;
    p->is_replay = true;
    t.count.replayed++;
}

static void send(void)
{
    if (t.n_plans == MAX_PLANS) {
        return;
    }
    struct plan *p = &t.plans[t.n_plans++];
    *p = (struct plan){.id = ++t.n_sent, .base = (uint32_t)below(3)};
    p->n_choices = below(3) ? 1 : 1 + (uint32_t)below(MAX_CHOICES);
    p->is_poison = below(60) == 0;
    write_prompt(&p->prompt);
    if (p->is_poison) {
        p->prompt.ids[below((uint64_t)p->prompt.n)] = POISON;
    }
    struct ask a = ask_ids(p->id, p->prompt.ids, (size_t)p->prompt.n);
    a.m.n_choices = p->n_choices;
    a.m.choice_base = p->base;
    a.m.client = below(4);
    a.m.temperature = below(2) ? 0 : 0.9f;
    a.m.top_k = 20;
    a.m.max_tokens = 1 + (uint32_t)below(below(3) ? 20 : 120);
    p->has_limits = below(12) == 0;
    if (p->has_limits) {
        a.m.queue_ms = (uint32_t)below(2) * 3000;
        a.m.first_ms = (uint32_t)below(2) * 4000;
        a.m.total_ms = 1 + (uint32_t)below(8000);
    }
    for (uint32_t k = 0; k < p->n_choices; k++) {
        foretell(p, k, &a.m);
    }
    if (!p->is_poison && below(6) == 0) {
        add_replay(p, &a);
    }
    const struct request *r = bench_submit(t.b, &a);
    p->is_counted = r->started_ns != 0; /* a replay that had ended computes nothing of a prompt */
}

static struct request *some_request(void)
{
    size_t n = 0;
    struct request *pick = NULL;
    for (struct request *r = t.b->live; r; r = r->next_live) {
        pick = r->stage == REQUEST_ACTIVE && below(++n) == 0 ? r : pick;
    }
    return pick;
}

/* The gateway is gone: nobody is told of anything. */
static void drop(void)
{
    while (t.b->live) {
        struct request *r = t.b->live;
        t.b->live = r->next_live;
        if (r->stage == REQUEST_ACTIVE) {
            scheduler_remove(t.b->scheduler, r);
        }
        request_destroy(&r);
        t.count.dropped++;
    }
    peer_take(&t.b->peer, BENCH_ALL);
    while (t.n_plans > 0) {
        forget(&t.plans[0]);
    }
}

static void operate(void)
{
    uint64_t what = below(400);
    struct request *r = what < 80 ? some_request() : NULL;
    if (what == 0 && below(20) == 0) {
        drop();
    } else if (what < 6 && r) {
        plan_of(r->id)->is_cancelled = true;
        bench_cancel(t.b, r->id);
    } else if (what < 40 && r) {
        bench_pause(t.b, r->id, !r->is_paused);
    } else if (what < 80 && r && r->is_paused) {
        bench_pause(t.b, r->id, false);
    } else if (what < 160) {
        send();
    } else if (what <
               161) { /* the cache gets smaller or larger; who is alone takes back what it needs */
        struct engine *en = t.b->scheduler->engine;
        engine_resize_kv(en, (int64_t)below((uint64_t)engine_info(en)->n_blocks * 3 / 2));
    } else {
        t.b->take = below(20) ? BENCH_ALL : below(6);
        t.b->time_ns += below(100000000);
        bench_step(t.b);
    }
}

static void run(struct bench_shape shape, int32_t n_snapshots, uint64_t seed, uint64_t n_ops)
{
    memset(&t, 0, sizeof(t));
    t.rng = seed;
    fake_n_snapshots = n_snapshots;
    fake_poison = POISON;
    fake_on_step = on_step;
    t.b = bench_open(shape);
    for (uint64_t i = 0; i < n_ops; i++) {
        operate();
        check_all();
        check_over();
    }
    t.b->take = BENCH_ALL;
    for (struct request *r = t.b->live; r; r = r->next_live) {
        r->is_paused = false;
        r->stalled_ns = r->pending.len ? r->stalled_ns : 0;
    }
    bench_run(t.b);
    check_over();
    CHECK_INT(t.n_plans, 0);
    struct scheduler_stats s = scheduler_stats(t.b->scheduler);
    struct engine_cache c = engine_cache(t.b->models.v[0].engine);
    printf("%2lld slots, %3lld blocks, chunk %2lld, %2d snapshots: %llu requests (%llu whole, %llu "
           "cut short, %llu replays, %llu failed, %llu dropped), %llu ids, %llu preempted, %llu "
           "evicted, %.0f %% of the prompts cached\n",
           (long long)shape.n_seqs, (long long)shape.n_blocks, (long long)shape.chunk_rows,
           (int)n_snapshots, (unsigned long long)t.n_sent, (unsigned long long)t.count.whole,
           (unsigned long long)t.count.cut_short, (unsigned long long)t.count.replayed,
           (unsigned long long)t.count.failed, (unsigned long long)t.count.dropped,
           (unsigned long long)t.count.ids, (unsigned long long)s.n_preempted,
           (unsigned long long)c.n_evicted,
           100.0 * (double)s.n_cached_tok / (double)s.n_prompt_tok);
    CHECK(t.count.whole > 0 && t.count.cut_short > 0 && t.count.replayed > 0);
    CHECK(s.n_preempted > 0 && c.n_evicted > 0 && (n_snapshots > 0 || s.n_cached_tok > 0));
    bench_close(t.b);
}

int main(int argc, char **argv)
{
    uint64_t n_ops = argc > 1 ? strtoull(argv[1], NULL, 10) : 50 * 1000;
    setvbuf(stdout, NULL, _IOLBF, 0);
    run((struct bench_shape){8, 40, 24, N_CTX}, 0, 1, n_ops / 3);
    run((struct bench_shape){8, 40, 24, N_CTX}, 6, 2, n_ops / 3);
    run((struct bench_shape){3, 17, 16, N_CTX}, 0, 3, n_ops / 12);
    run((struct bench_shape){16, 8, 60, N_CTX}, 0, 4, n_ops / 12);
    run((struct bench_shape){16, 64, 60, N_CTX}, 20, 5, n_ops / 12);
    run((struct bench_shape){5, 23, 90, N_CTX}, 3, 6, n_ops - 2 * (n_ops / 3) - 3 * (n_ops / 12));
    return 0;
}
