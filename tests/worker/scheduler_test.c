/* The scheduler with a fake engine and the real rings: whatever is run together, in whatever order,
 * with however few blocks, every answer equals the one that its request gets alone. */
#include "worker/scheduler.h"
#include "shared/clock.h"
#include "tests/test.h"
#include "tests/worker/fake_engine.h"
#include "tests/worker/fake_tokenizer.h"
#include "tests/worker/peer.h"
#include "worker/prepare.h"

enum { NO_LIMIT = 1000 * 1000 };

struct bench {
    struct models models;
    struct peer peer;
    struct events events;
    struct scheduler *scheduler;
    struct request *live; /* linked by next_live */
    uint64_t n_arrived;
    uint64_t n_steps;
    uint64_t time_ns; /* added to the clock */
    size_t take;      /* events that the reader takes after a step */
};

struct shape {
    int64_t n_seqs, chunk_rows, n_blocks, n_ctx;
};
static const struct shape roomy = {16, 512, 4096, 4096};

static struct bench *open_bench(struct shape s)
{
    struct bench *b = calloc(1, sizeof(*b));
    CHECK(b);
    fake_models_init(&b->models, 1, s.n_seqs, s.chunk_rows, s.n_blocks, s.n_ctx);
    peer_init(&b->peer, 1 << 20);
    events_init(&b->events);
    b->events.ring = &b->peer.attach.events;
    b->scheduler = scheduler_create(&b->models, 0, &b->events);
    b->take = NO_LIMIT;
    return b;
}

static void close_bench(struct bench *b)
{
    CHECK(!b->live);
    scheduler_destroy(&b->scheduler);
    events_finish(&b->events);
    fake_models_finish(&b->models);
    peer_finish(&b->peer);
    free(b);
}

static struct request *submit(struct bench *b, struct ask *a)
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

static struct request *find(struct bench *b, uint64_t id)
{
    struct request *r = b->live;
    while (r && r->id != id) {
        r = r->next_live;
    }
    CHECK(r);
    return r;
}

static void set_paused(struct bench *b, uint64_t id, bool is_paused)
{
    struct request *r = find(b, id);
    r->is_paused = is_paused;
    r->stalled_ns = is_paused ? b->events.now_ns : 0;
}

static void cancel(struct bench *b, uint64_t id)
{
    struct request *r = find(b, id);
    peer_answer(&b->peer, id)->is_cancelled = true;
    scheduler_cancel(b->scheduler, r);
}

/* What the loop does in a turn. True when something was computed. */
static bool step(struct bench *b)
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

static void run_all(struct bench *b)
{
    for (int i = 0; b->live; i++) {
        CHECK(i < 200 * 1000);
        step(b);
    }
    peer_take(&b->peer, NO_LIMIT);
    CHECK(peer_all_over(&b->peer));
}

static const struct answer_choice *choice(struct bench *b, uint64_t id, uint32_t number)
{
    const struct answer *an = peer_answer(&b->peer, id);
    CHECK(an && an->choices[number]);
    return an->choices[number];
}

/* ---- single requests ---- */

static void an_answer_ends_with_the_model(void)
{
    struct bench *b = open_bench(roomy);
    struct ask a = ask_text(1, "hello<copy>");
    submit(b, &a);
    run_all(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "hello");
    CHECK_INT(choice(b, 1, 0)->reason, MSG_FINISH_STOP);
    CHECK_INT(choice(b, 1, 0)->stop_index, -1);
    CHECK_INT(choice(b, 1, 0)->n_tokens, 6);
    CHECK_INT(peer_answer(&b->peer, 1)->started.n_prompt, 7); /* BOS, five letters, <copy> */
    CHECK_INT(b->n_steps, 6);
    close_bench(b);
}

static void limits_end_an_answer(void)
{
    struct bench *b = open_bench((struct shape){4, 64, 64, 100});
    struct ask a = ask_text(1, "hello<copy>");
    a.m.max_tokens = 3;
    submit(b, &a);
    a = ask_text(2, "xyz"); /* goes on for ever */
    a.m.flags |= MSG_IGNORE_EOS;
    submit(b, &a);
    a = ask_text(3, "ab<copy>");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.max_tokens = 20;
    submit(b, &a);
    char longest[200] = "";
    memset(longest, 'x', 98);
    a = ask_text(4, longest); /* 99 with BOS: one more fits */
    submit(b, &a);
    longest[98] = 'x';
    a = ask_text(5, longest);
    submit(b, &a);
    run_all(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "hel");
    CHECK_INT(choice(b, 1, 0)->reason, MSG_FINISH_LENGTH);
    CHECK_INT(choice(b, 2, 0)->n_ids, 96);
    CHECK_INT(choice(b, 2, 0)->reason, MSG_FINISH_LENGTH);
    CHECK_INT(choice(b, 3, 0)->n_ids, 20);
    CHECK(strncmp(peer_text(&b->peer, 3, 0), "ab", 2) == 0);
    CHECK_INT(choice(b, 4, 0)->n_ids, 1);
    CHECK_INT(peer_answer(&b->peer, 5)->err, ERR_CONTEXT_LENGTH);
    CHECK(strstr(peer_answer(&b->peer, 5)->detail, "100 tokens, the context is 100"));
    close_bench(b);
}

static void bad_parameters_fail_the_request_alone(void)
{
    struct bench *b = open_bench(roomy);
    struct ask a = ask_text(1, "x");
    a.m.temperature = 1000;
    submit(b, &a);
    int32_t ids[] = {5, FAKE_VOCAB};
    a = ask_ids(2, ids, 2);
    submit(b, &a);
    a = ask_ids(3, ids, 0);
    submit(b, &a);
    a = ask_text(4, "ok<copy>");
    submit(b, &a);
    run_all(b);
    CHECK_INT(peer_answer(&b->peer, 1)->err, ERR_BAD_FIELD);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_BAD_TOKEN);
    CHECK_INT(peer_answer(&b->peer, 3)->err, ERR_BAD_FIELD);
    CHECK_STR(peer_text(&b->peer, 4, 0), "ok");
    close_bench(b);
}

static void stop_sequences_end_an_answer(void)
{
    struct bench *b = open_bench(roomy);
    struct ask a = ask_text(1, "one two three<copy>");
    ask_stop(&a, "twelve");
    ask_stop(&a, "o th");
    submit(b, &a);
    run_all(b);
    CHECK_STR(peer_text(&b->peer, 1, 0), "one tw");
    CHECK_INT(choice(b, 1, 0)->stop_index, 1);
    CHECK_INT(choice(b, 1, 0)->reason, MSG_FINISH_STOP);
    CHECK_INT(choice(b, 1, 0)->n_ids, 10);
    /* Held back at the token that could begin "twelve" or "o th", shown when it does not. */
    CHECK_INT(choice(b, 1, 0)->text_at[4], 4);
    CHECK_INT(choice(b, 1, 0)->text_at[5], 4);
    CHECK_INT(choice(b, 1, 0)->text_at[6], 6);
    close_bench(b);
}

/* ---- mixtures of random requests ---- */

struct mix { /* the n-th request of a mixture, always the same */
    uint64_t seed;
    bool with_choices, with_echo;
};

static struct ask mixed(const struct mix *mix, uint64_t n)
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

/* Every request of the mixture alone, in a bench with room. Request n has the id n + 1. */
static struct bench *alone(const struct mix *mix, uint64_t n)
{
    struct bench *b = open_bench(roomy);
    for (uint64_t i = 0; i < n; i++) {
        struct ask a = mixed(mix, i);
        submit(b, &a);
        run_all(b);
    }
    return b;
}

static void check_same_buf(const struct buf *a, const struct buf *b)
{
    CHECK_INT(a->len, b->len);
    CHECK(a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void check_same(struct bench *want, struct bench *got, uint64_t id)
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

static void results_do_not_depend_on_company(void)
{
    static const struct shape shapes[] = {
        {16, 512, 4096, 4096}, /* room for all */
        {16, 17, 4096, 4096},  /* small chunks */
        {3, 64, 4096, 4096},   /* few slots */
        {16, 64, 50, 800},     /* few blocks: preemption */
        {16, 1, 45, 720},      /* both */
        {1, 33, 45, 720},      /* one at a time */
        {64, 100, 60, 900},    /* many slots, few blocks: forks are preempted */
    };
    const struct mix mix = {1, true, true};
    int64_t n_rows[COUNT_OF(shapes)];
    const uint64_t n = 40;
    struct bench *want = alone(&mix, n);
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct bench *b = open_bench(shapes[i]);
        for (uint64_t k = 0; k < n; k++) {
            struct ask a = mixed(&mix, k);
            submit(b, &a);
            for (uint64_t s = 0; s < k % 4; s++) {
                step(b);
            }
        }
        run_all(b);
        for (uint64_t k = 0; k < n; k++) {
            check_same(want, b, k + 1);
        }
        struct fake_stats stats = fake_stats(b->models.v[0].engine);
        CHECK(stats.max_rows <= shapes[i].n_seqs + shapes[i].chunk_rows);
        n_rows[i] = stats.n_rows;
        CHECK((scheduler_stats(b->scheduler).n_preempted > 0) == (i >= 3 && i != 5));
        close_bench(b);
    }
    CHECK_INT(n_rows[1], n_rows[0]); /* nothing twice */
    CHECK(n_rows[3] > n_rows[0]);    /* some was computed again */
    close_bench(want);
}

/* ---- order and fairness ---- */

static void requests_start_in_order_of_arrival(void)
{
    struct bench *b = open_bench((struct shape){3, 64, 4096, 4096});
    const struct mix mix = {2, false, false};
    for (uint64_t k = 0; k < 30; k++) {
        struct ask a = mixed(&mix, k);
        submit(b, &a);
    }
    uint64_t n_started = 0;
    while (b->live) {
        step(b);
        while (n_started < 30 && peer_answer(&b->peer, n_started + 1)->is_started) {
            n_started++;
        }
        for (uint64_t k = n_started; k < 30; k++) {
            CHECK(!peer_answer(&b->peer, k + 1)->is_started);
        }
    }
    close_bench(b);
}

static void a_long_prompt_stalls_nobody(void)
{
    struct bench *b = open_bench((struct shape){8, 64, 4096, 8000});
    struct ask a = ask_text(1, "stream");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.max_tokens = 400;
    submit(b, &a);
    step(b);
    static char prompt[6401];
    memset(prompt, 'p', 6400);
    a = ask_text(2, prompt);
    a.m.max_tokens = 5;
    submit(b, &a);
    step(b);
    a = ask_text(3, "short");
    a.m.max_tokens = 5;
    submit(b, &a);
    for (size_t i = 0; i < 90; i++) {
        size_t before = choice(b, 1, 0)->n_ids;
        step(b);
        CHECK_INT(choice(b, 1, 0)->n_ids, before + 1); /* a token in every step */
        if (i == 1) { /* the short one had its turn beside the long one */
            CHECK(peer_answer(&b->peer, 3)->choices[0] != NULL);
        }
    }
    CHECK(peer_answer(&b->peer, 2)->n_prefilled > 80);
    run_all(b);
    close_bench(b);
}

static uint64_t turn_log[64];
static size_t n_turns;

static void log_turn(const struct engine_row *rows, int64_t n)
{
    int64_t len;
    (void)n;
    const int32_t *t = fake_tokens(rows[0].seq, &len);
    if (n_turns < COUNT_OF(turn_log)) {
        turn_log[n_turns++] = (uint64_t)(len ? t[1] : rows[1].token); /* its first letter */
    }
}

static void prompts_take_turns(void)
{
    struct bench *b = open_bench((struct shape){8, 50, 4096, 4096});
    static char prompt[501];
    for (int i = 0; i < 3; i++) {
        memset(prompt, 'a' + i, 499);
        struct ask a = ask_text((uint64_t)i + 1, prompt);
        a.m.max_tokens = 1;
        submit(b, &a);
    }
    n_turns = 0;
    fake_on_step = log_turn;
    run_all(b);
    fake_on_step = NULL;
    CHECK_INT(n_turns, 30);
    for (size_t i = 0; i < 30; i++) {
        CHECK_INT(turn_log[i], FAKE_BYTE + 'a' + i % 3);
    }
    close_bench(b);
}

static void a_client_with_little_running_goes_first(void)
{
    struct bench *b = open_bench((struct shape){2, 64, 4096, 4096});
    for (uint64_t id = 1; id <= 6; id++) { /* one client floods, another asks once, last */
        struct ask a = ask_text(id, id % 2 ? "odd" : "even");
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 10 + 3 * (uint32_t)id;
        a.m.client = id == 6 ? 2 : 1;
        submit(b, &a);
    }
    while (!peer_answer(&b->peer, 1)->is_over) {
        step(b);
    }
    step(b);
    CHECK(peer_answer(&b->peer, 6)->is_started && !peer_answer(&b->peer, 3)->is_started);
    run_all(b);
    close_bench(b);
}

static void nobody_is_overtaken_for_ever(void)
{
    struct bench *b = open_bench((struct shape){1, 64, 4096, 4096});
    struct ask a = ask_text(1, "first");
    a.m.client = 1;
    a.m.max_tokens = 3;
    submit(b, &a);
    step(b);
    a = ask_text(2, "second");
    a.m.client = 1;
    a.m.max_tokens = 3;
    submit(b, &a);
    for (uint64_t id = 10; !peer_answer(&b->peer, 2)->is_started; id++) { /* always another */
        CHECK(id < 40);
        a = ask_text(id, "other");
        a.m.client = id;
        a.m.max_tokens = 3;
        submit(b, &a);
        b->time_ns += 1000000000u;
        for (int i = 0; i < 4; i++) {
            step(b);
        }
    }
    run_all(b);
    close_bench(b);
}

/* ---- time limits ---- */

static void time_limits_end_requests(void)
{
    struct bench *b = open_bench((struct shape){1, 16, 4096, 4096});
    struct ask a = ask_text(1, "goes on");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.total_ms = 5000;
    submit(b, &a);
    step(b);
    static char prompt[1001];
    memset(prompt, 'p', 1000);
    for (uint64_t id = 2; id <= 5; id++) {
        a = ask_text(id, prompt);
        a.m.max_tokens = 2;
        a.m.queue_ms = id == 2 ? 3000 : 0;
        a.m.first_ms = id == 3 ? 7000 : 0;
        a.m.total_ms = id == 4 ? 4000 : 0;
        submit(b, &a);
    }
    step(b);
    CHECK_INT(peer_answer(&b->peer, 2)->err, 0);
    b->time_ns += 3500000000u;
    step(b);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_QUEUE_TIMEOUT);
    CHECK(!peer_answer(&b->peer, 4)->is_over);
    b->time_ns += 1000000000u;
    step(b);
    CHECK_INT(peer_answer(&b->peer, 4)->err, ERR_TOTAL_TIMEOUT);
    size_t had = choice(b, 1, 0)->n_ids;
    CHECK(had > 0 && !choice(b, 1, 0)->is_finished);
    b->time_ns += 1000000000u;
    step(b); /* the third begins its prompt */
    CHECK_INT(choice(b, 1, 0)->reason, MSG_FINISH_TIMEOUT);
    CHECK_INT(choice(b, 1, 0)->n_ids, had);
    CHECK(peer_answer(&b->peer, 1)->is_over && peer_answer(&b->peer, 3)->is_started);
    b->time_ns += 2000000000u;
    step(b);
    CHECK_INT(peer_answer(&b->peer, 3)->err, ERR_FIRST_TOKEN_TIMEOUT);
    run_all(b);
    CHECK_INT(choice(b, 5, 0)->n_ids, 2);
    close_bench(b);
}

/* ---- the prefix cache ---- */

static void a_conversation_computes_only_what_is_new(void)
{
    for (fake_n_snapshots = 0; fake_n_snapshots <= 8; fake_n_snapshots += 8) {
        struct bench *b = open_bench((struct shape){4, 64, 400, 4096});
        static int32_t ids[4096];
        int64_t n = 1, known = 0;
        ids[0] = FAKE_BOS;
        for (uint64_t turn = 1; turn <= 20; turn++) {
            for (uint64_t i = 0; i < 20 + turn; i++) {
                ids[n++] = FAKE_BYTE + (int32_t)('a' + (turn * turn + i * i) % 26);
            }
            struct ask a = ask_ids(turn, ids, (size_t)n);
            a.m.flags |= MSG_IGNORE_EOS;
            a.m.max_tokens = 30;
            int64_t rows = fake_stats(b->models.v[0].engine).n_rows;
            submit(b, &a);
            run_all(b);
            const struct answer *an = peer_answer(&b->peer, turn);
            rows = fake_stats(b->models.v[0].engine).n_rows - rows;
            CHECK_INT(rows, n - an->started.n_cached + 29);
            CHECK_INT(an->done.n_cached, an->started.n_cached);
            if (fake_n_snapshots == 0) {
                CHECK_INT(an->started.n_cached, known);
            } else { /* its states stand at the ends of blocks */
                CHECK(an->started.n_cached + 2 * ENGINE_BLOCK_TOKENS > known);
            }
            memcpy(ids + n, an->choices[0]->ids, 30 * sizeof(*ids));
            n += 30;
            known = n - 1; /* the last id drawn was not computed */
        }
        close_bench(b);
    }
    fake_n_snapshots = 0;
}

static void twins_become_one(void)
{
    struct bench *b = open_bench((struct shape){8, 64, 4096, 4096});
    static char prompt[801];
    memset(prompt, 't', 800);
    for (uint64_t id = 1; id <= 8; id++) { /* all compute the same text side by side */
        struct ask a = ask_text(id, prompt);
        a.m.max_tokens = 40;
        a.m.flags |= MSG_IGNORE_EOS;
        submit(b, &a);
    }
    while (!peer_answer(&b->peer, 8)->choices[0]) {
        step(b);
    }
    int64_t used = 4096 - engine_free_blocks(b->models.v[0].engine);
    CHECK(used < 51 + 8 * 4);
    run_all(b);
    for (uint64_t id = 2; id <= 8; id++) {
        peer_check_same(&b->peer, 1, id, 0);
    }
    close_bench(b);
}

/* ---- blocks ---- */

static void when_blocks_run_out_the_oldest_goes_on(void)
{
    struct bench *b = open_bench((struct shape){8, 64, 24, 384});
    for (uint64_t id = 1; id <= 8; id++) { /* each will need 20 blocks of 24 */
        struct ask a = ask_text(id, "grow");
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 300;
        submit(b, &a);
    }
    size_t before = 0;
    for (int i = 0; !peer_answer(&b->peer, 1)->is_over; i++) {
        step(b);
        CHECK(choice(b, 1, 0)->n_ids == before + 1);
        before++;
    }
    CHECK_INT(before, 300);
    run_all(b);
    for (uint64_t id = 2; id <= 8; id++) {
        CHECK_INT(choice(b, id, 0)->n_ids, 300);
        peer_check_same(&b->peer, 1, id, 0);
    }
    close_bench(b);
}

static void one_sequence_may_fill_the_pool(void)
{
    struct bench *b = open_bench((struct shape){4, 64, 10, 4096}); /* context = 160 */
    struct ask a = ask_text(1, "x");
    a.m.flags |= MSG_IGNORE_EOS;
    submit(b, &a);
    a = ask_text(2, "y");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.n_choices = 4;
    submit(b, &a);
    run_all(b);
    CHECK_INT(choice(b, 1, 0)->n_ids, 158);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_INT(choice(b, 2, i)->n_ids, 158);
    }
    close_bench(b);
}

/* ---- choices ---- */

static void choices_share_one_prompt(void)
{
    struct bench *b = open_bench((struct shape){16, 512, 4096, 4096});
    static char prompt[901];
    memset(prompt, 'q', 900);
    struct ask a = ask_text(1, prompt);
    a.m.n_choices = 5;
    a.m.choice_base = 2;
    a.m.temperature = 1;
    a.m.seed = 77;
    a.m.max_tokens = 30;
    submit(b, &a);
    run_all(b);
    struct fake_stats s = fake_stats(b->models.v[0].engine);
    CHECK(s.n_rows <= 901 + 5 * 29);
    for (uint32_t i = 0; i < 5; i++) { /* choice k of many is choice k alone */
        a = ask_text(10 + i, prompt);
        a.m.choice_base = 2 + i;
        a.m.temperature = 1;
        a.m.seed = 77;
        a.m.max_tokens = 30;
        submit(b, &a);
        run_all(b);
        peer_check_same(&b->peer, 1, 10 + i, 2 + i);
    }
    close_bench(b);
}

/* ---- slow readers, cancellation ---- */

static void a_paused_request_computes_nothing(void)
{
    struct bench *b = open_bench(roomy);
    struct ask a = ask_text(1, "abcdefgh<copy>");
    submit(b, &a);
    a = ask_text(2, "abcdefgh<copy>");
    submit(b, &a);
    step(b);
    step(b);
    set_paused(b, 1, true);
    size_t had = choice(b, 1, 0)->n_ids;
    while (!peer_answer(&b->peer, 2)->is_over) {
        step(b);
    }
    CHECK(!step(b));
    CHECK_INT(choice(b, 1, 0)->n_ids, had);
    set_paused(b, 1, false);
    run_all(b);
    peer_check_same(&b->peer, 1, 2, 0);
    close_bench(b);
}

static void a_long_pause_gives_its_slot_to_others(void)
{
    struct bench *b = open_bench((struct shape){1, 64, 4096, 4096});
    struct ask a = ask_text(1, "abcdefgh<copy>");
    submit(b, &a);
    step(b);
    step(b);
    set_paused(b, 1, true);
    a = ask_text(2, "abcdefgh<copy>");
    submit(b, &a);
    CHECK(!step(b)); /* a short one keeps it */
    CHECK_INT(scheduler_n_waiting(b->scheduler), 1);
    b->time_ns += 2000000000u;
    while (!peer_answer(&b->peer, 2)->is_over) {
        CHECK(step(b));
    }
    CHECK_INT(scheduler_n_waiting(b->scheduler), 0); /* owed nothing: its reader is slow */
    set_paused(b, 1, false);
    run_all(b);
    peer_check_same(&b->peer, 1, 2, 0);
    close_bench(b);
}

static void a_full_ring_pauses_and_loses_nothing(void)
{
    const struct mix mix = {3, true, true};
    struct bench *want = alone(&mix, 20);
    struct bench *b = open_bench((struct shape){16, 64, 4096, 4096});
    peer_finish(&b->peer);
    peer_init(&b->peer, 32768); /* two large records */
    b->events.ring = &b->peer.attach.events;
    uint64_t rng = 9;
    for (uint64_t k = 0; k < 20; k++) {
        struct ask a = mixed(&mix, k);
        submit(b, &a);
    }
    size_t most_pending = 0;
    while (b->live) {
        b->take = test_random(&rng) % 4 ? 0 : test_random(&rng) % 40;
        step(b);
        for (struct request *r = b->live; r; r = r->next_live) {
            most_pending = MAX(most_pending, r->pending.len);
        }
    }
    peer_take(&b->peer, NO_LIMIT);
    CHECK(most_pending > 0 && most_pending < 64 * 1024);
    for (uint64_t k = 0; k < 20; k++) {
        check_same(want, b, k + 1);
    }
    close_bench(b);
    close_bench(want);
}

static void cancellation_takes_effect_at_once(void)
{
    for (int when = 0; when < 8; when++) {
        struct bench *b = open_bench((struct shape){4, 8, 4096, 4096});
        struct ask a = ask_text(1, "a prompt of some length<copy>");
        a.m.n_choices = when % 2 ? 3 : 1;
        submit(b, &a);
        a = ask_text(2, "other<copy>");
        submit(b, &a);
        for (int i = 0; i < when; i++) {
            step(b);
        }
        cancel(b, 1);
        int64_t rows = fake_stats(b->models.v[0].engine).n_rows;
        peer_take(&b->peer, NO_LIMIT);
        CHECK(peer_answer(&b->peer, 1)->is_over);
        CHECK(fake_stats(b->models.v[0].engine).n_seqs <= 1);
        run_all(b);
        CHECK_STR(peer_text(&b->peer, 2, 0), "other");
        CHECK(fake_stats(b->models.v[0].engine).n_rows - rows <= 12);
        close_bench(b);
    }
}

/* ---- faults ---- */

static void a_step_that_fails_fails_its_culprit_alone(void)
{
    const struct mix mix = {4, true, false};
    struct bench *want = alone(&mix, 12);
    struct bench *b = open_bench((struct shape){16, 64, 4096, 4096});
    int32_t poison = FAKE_NEVER;
    fake_poison = poison;
    for (uint64_t k = 0; k < 12; k++) {
        struct ask a = mixed(&mix, k);
        submit(b, &a);
        if (k == 5) {
            int32_t ids[] = {FAKE_BYTE + 'x', poison, FAKE_BYTE + 'y'};
            a = ask_ids(100, ids, 3);
            submit(b, &a);
        }
    }
    run_all(b);
    fake_poison = -1;
    CHECK_INT(peer_answer(&b->peer, 100)->err, ERR_NUMERIC);
    for (uint64_t k = 0; k < 12; k++) {
        check_same(want, b, k + 1);
    }
    close_bench(b);
    close_bench(want);
}

/* ---- replay ---- */

/* Every request of a mixture, cut after some of its ids and sent again with them: what comes is the
 * rest. */
static void a_replay_goes_on_where_the_answer_was(void)
{
    const struct mix mix = {5, true, true};
    const uint64_t n = 60;
    struct bench *want = alone(&mix, n);
    struct bench *b = open_bench((struct shape){16, 64, 200, 2000});
    uint64_t rng = 21;
    for (uint64_t k = 0; k < n; k++) {
        struct ask a = mixed(&mix, k);
        struct answer *was = peer_answer(&want->peer, k + 1);
        size_t cuts[LIMIT_CHOICES] = {0};
        bool any = false;
        for (uint32_t i = 0; i < LIMIT_CHOICES; i++) {
            const struct answer_choice *c = was->choices[i];
            if (c) {
                cuts[i] = k % 7 == 0 ? c->n_ids : test_random(&rng) % (c->n_ids + 1);
                any = any || cuts[i] > 0;
                ask_add(&a, MSG_RESUME_IDS, i, c->ids, cuts[i] * sizeof(c->ids[0]));
            }
        }
        a.m.flags |= k % 5 < 4 ? MSG_VERIFY | MSG_AGAIN : MSG_AGAIN;
        submit(b, &a);
        run_all(b);
        struct answer *is = peer_answer(&b->peer, k + 1);
        CHECK_INT(is->err, 0);
        for (uint32_t i = 0; i < LIMIT_CHOICES; i++) {
            const struct answer_choice *c = was->choices[i], *d = is->choices[i];
            if (!c) {
                continue;
            }
            CHECK(d && d->is_finished);
            CHECK_INT(d->n_ids, c->n_ids - cuts[i]);
            CHECK(memcmp(d->ids, c->ids + cuts[i], d->n_ids * sizeof(d->ids[0])) == 0);
            CHECK_INT(d->reason, c->reason);
            CHECK_INT(d->n_tokens, c->n_tokens);
            CHECK_INT(d->stop_index, c->stop_index);
            if (any) { /* nothing that was shown comes again */
                size_t shown = cuts[i] ? c->text_at[cuts[i] - 1] : 0;
                size_t echoed = c->n_echo && !cuts[i] ? c->n_echo - 1 : 0;
                CHECK_INT(d->n_echo, 0);
                CHECK_STR(peer_text(&b->peer, k + 1, i),
                          peer_text(&want->peer, k + 1, i) + (cuts[i] ? shown : echoed));
            }
        }
        CHECK_INT(is->done.n_completion, was->done.n_completion);
    }
    close_bench(b);
    close_bench(want);
}

/* Of three choices the second had ended: nothing of it comes again, the others go on, and the end
 * counts them all. With all three at their end only the count is left to say. */
static void what_had_ended_is_over(void)
{
    struct bench *b = open_bench(roomy);
    struct ask a = ask_text(1, "some words");
    a.m.seed = 1;
    a.m.n_choices = 3;
    a.m.max_tokens = 12;
    a.m.temperature = 0.9f;
    submit(b, &a);
    run_all(b);
    for (uint64_t id = 2; id < 4; id++) {
        a = ask_text(id, "some words");
        a.m.n_choices = 3;
        a.m.max_tokens = 12;
        a.m.temperature = 0.9f;
        a.m.flags |= MSG_VERIFY;
        a.m.seed = 1; /* as of the first */
        uint32_t n_before = 0;
        for (uint32_t i = 0; i < 3; i++) {
            const struct answer_choice *c = choice(b, 1, i);
            struct msg_resume_end end = {.n_tokens = c->n_tokens};
            bool is_over = i == 1 || id == 3;
            ask_add(&a, MSG_RESUME_IDS, i, c->ids, (is_over ? c->n_ids : 2) * sizeof(c->ids[0]));
            if (is_over) {
                ask_add(&a, MSG_RESUME_END, i, &end, sizeof(end));
                n_before += c->n_tokens;
            }
        }
        submit(b, &a);
        peer_answer(&b->peer, id)->n_before = n_before;
        run_all(b);
        struct answer *is = peer_answer(&b->peer, id);
        CHECK_INT(is->err, 0);
        CHECK_INT(is->done.n_completion, peer_answer(&b->peer, 1)->done.n_completion);
        for (uint32_t i = 0; i < 3; i++) {
            CHECK((is->choices[i] != NULL) == (i != 1 && id == 2));
        }
    }
    close_bench(b);
}

/* An id that the model would not give again, anywhere in the answer, is found; unless it is to be
 * believed. */
static void a_replay_that_diverges_is_told(void)
{
    static const float temperatures[] = {0, 0.9f};
    for (int t = 0; t < 2; t++) {
        for (size_t wrong = 0; wrong < 9; wrong++) {
            struct bench *b = open_bench((struct shape){2, 16, 4096, 4096});
            for (uint64_t id = 1; id < 4; id++) {
                struct ask a = ask_text(id, "some words");
                a.m.flags |= MSG_IGNORE_EOS;
                a.m.max_tokens = 12;
                a.m.n_choices = 2;
                a.m.temperature = temperatures[t];
                a.m.seed = 1;
                if (id > 1) {
                    const struct answer_choice *c = choice(b, 1, 1);
                    int32_t ids[10];
                    memcpy(ids, c->ids, sizeof(ids));
                    ids[wrong] = ids[wrong] == FAKE_BYTE + 'q' ? FAKE_BYTE + 'z' : FAKE_BYTE + 'q';
                    ask_add(&a, MSG_RESUME_IDS, 1, ids, sizeof(ids));
                    a.m.flags |= id == 2 ? MSG_VERIFY : 0;
                }
                submit(b, &a);
                run_all(b);
            }
            CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_REPLAY_DIVERGENCE);
            CHECK_INT(peer_answer(&b->peer, 3)->err, 0);
            close_bench(b);
        }
    }
}

static void a_replay_that_cannot_be_is_refused(void)
{
    struct bench *b = open_bench(roomy);
    int32_t ids[] = {FAKE_BYTE + 'a', FAKE_BYTE + 'b', FAKE_BYTE + 'c'};
    struct ask a = ask_text(1, "x");
    a.m.max_tokens = 2;
    ask_add(&a, MSG_RESUME_IDS, 0, ids, sizeof(ids));
    submit(b, &a);
    a = ask_text(2, "x");
    ids[1] = FAKE_VOCAB;
    ask_add(&a, MSG_RESUME_IDS, 0, ids, sizeof(ids));
    submit(b, &a);
    run_all(b);
    CHECK_INT(peer_answer(&b->peer, 1)->err, ERR_INTERNAL);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_BAD_TOKEN);
    close_bench(b);
}

/* ---- echo and logprobs ---- */

static void prompt_logprobs_are_those_of_the_model(void)
{
    static const int64_t chunks[] = {1, 7, 16, 512};
    static const char text[] = "what is a prompt";
    for (size_t k = 0; k < COUNT_OF(chunks); k++) {
        struct bench *b = open_bench((struct shape){2, chunks[k], 4096, 4096});
        struct ask a = ask_text(1, text);
        a.m.flags |= MSG_ECHO | MSG_LOGPROBS;
        a.m.top_logprobs = 3;
        a.m.max_tokens = 4;
        a.m.n_choices = 2;
        submit(b, &a);
        run_all(b);
        int32_t tokens[64] = {FAKE_BOS};
        int64_t n = 1 + (int64_t)strlen(text);
        for (int64_t i = 1; i < n; i++) {
            tokens[i] = FAKE_BYTE + text[i - 1];
        }
        const struct answer_choice *c = choice(b, 1, 0);
        CHECK_INT(c->n_echo, n);
        CHECK_INT(choice(b, 1, 1)->n_echo, n);
        CHECK(strncmp(peer_text(&b->peer, 1, 0), text, strlen(text)) == 0);
        CHECK(strncmp(peer_text(&b->peer, 1, 1), text, strlen(text)) == 0);
        memcpy(tokens + n, c->ids, c->n_ids * sizeof(c->ids[0]));
        const struct answer *an = peer_answer(&b->peer, 1);
        /* Two choices, four entries for every prompt token but the first, and for each sampled one.
         */
        CHECK_INT(an->logprobs.len / sizeof(struct msg_logprob), 2 * 4 * (n - 1 + 4));
        for (int64_t i = 1; i < n; i++) {
            float x[FAKE_VOCAB];
            double total = 0;
            fake_logits(tokens, i, x);
            for (int v = 0; v < FAKE_VOCAB; v++) {
                total += exp((double)x[v]);
            }
            struct msg_logprob got[8];
            memcpy(got, an->logprobs.data + (size_t)(i - 1) * sizeof(got), sizeof(got));
            CHECK_INT(got[0].id, tokens[i]);
            CHECK(fabs((double)got[0].logprob - ((double)x[tokens[i]] - log(total))) < 1e-5);
            CHECK(got[1].logprob >= got[2].logprob && got[2].logprob >= got[3].logprob);
            CHECK(memcmp(got, got + 4, sizeof(got) / 2) == 0);
        }
        close_bench(b);
    }
}

/* ---- anything at any time ---- */

static void random_traffic_leaves_nothing_behind(void)
{
    uint64_t rng = 31;
    const struct mix mix = {6, true, true};
    struct bench *b = open_bench((struct shape){12, 40, 48, 760});
    uint64_t n = 0;
    for (int i = 0; i < 6000; i++) {
        uint64_t what = test_random(&rng) % 20, pick = 0;
        for (struct request *r = b->live; r && pick == 0; r = r->next_live) {
            pick = r->stage == REQUEST_ACTIVE && test_random(&rng) % 4 == 0 ? r->id : 0;
        }
        if (what < 3 && n < PEER_MAX - 1) {
            struct ask a = mixed(&mix, n++);
            submit(b, &a);
        } else if (what == 3 && pick) {
            cancel(b, pick);
        } else if (what < 6 && pick) {
            set_paused(b, pick, !find(b, pick)->is_paused);
        }
        b->take = what % 3 ? NO_LIMIT : 2;
        b->time_ns += test_random(&rng) % 100000000u;
        step(b);
        CHECK(scheduler_n_running(b->scheduler) <= 12);
        CHECK_INT(fake_stats(b->models.v[0].engine).n_seqs, scheduler_n_running(b->scheduler));
    }
    b->take = NO_LIMIT;
    for (struct request *r = b->live; r; r = r->next_live) {
        r->is_paused = false;
        r->stalled_ns = r->pending.len ? r->stalled_ns : 0;
    }
    run_all(b);
    CHECK(n > 300);
    close_bench(b);
}

int main(void)
{
    an_answer_ends_with_the_model();
    limits_end_an_answer();
    bad_parameters_fail_the_request_alone();
    stop_sequences_end_an_answer();
    results_do_not_depend_on_company();
    requests_start_in_order_of_arrival();
    a_long_prompt_stalls_nobody();
    prompts_take_turns();
    a_client_with_little_running_goes_first();
    nobody_is_overtaken_for_ever();
    time_limits_end_requests();
    a_conversation_computes_only_what_is_new();
    twins_become_one();
    when_blocks_run_out_the_oldest_goes_on();
    one_sequence_may_fill_the_pool();
    choices_share_one_prompt();
    a_paused_request_computes_nothing();
    a_long_pause_gives_its_slot_to_others();
    a_full_ring_pauses_and_loses_nothing();
    cancellation_takes_effect_at_once();
    a_step_that_fails_fails_its_culprit_alone();
    a_replay_goes_on_where_the_answer_was();
    what_had_ended_is_over();
    a_replay_that_diverges_is_told();
    a_replay_that_cannot_be_is_refused();
    prompt_logprobs_are_those_of_the_model();
    random_traffic_leaves_nothing_behind();
    return 0;
}
