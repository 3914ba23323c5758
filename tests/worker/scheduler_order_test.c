/* Whom the scheduler serves when: order, fairness, time limits; what is computed once only:
 * prefixes and the prompt of several choices; who goes on when blocks run out. */
#include "tests/worker/bench.h"
#include "tests/test.h"

/* ---- order and fairness ---- */

static void requests_start_in_order_of_arrival(void)
{
    struct bench *b = bench_open((struct bench_shape){3, 64, 4096, 4096});
    const struct bench_mix mix = {2, false, false};
    for (uint64_t k = 0; k < 30; k++) {
        struct ask a = bench_mixed(&mix, k);
        bench_submit(b, &a);
    }
    uint64_t n_started = 0;
    while (b->live) {
        bench_step(b);
        while (n_started < 30 && peer_answer(&b->peer, n_started + 1)->is_started) {
            n_started++;
        }
        for (uint64_t k = n_started; k < 30; k++) {
            CHECK(!peer_answer(&b->peer, k + 1)->is_started);
        }
    }
    bench_close(b);
}

static void a_long_prompt_stalls_nobody(void)
{
    struct bench *b = bench_open((struct bench_shape){8, 64, 4096, 8000});
    struct ask a = ask_text(1, "stream");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.max_tokens = 400;
    bench_submit(b, &a);
    bench_step(b);
    static char prompt[6401];
    memset(prompt, 'p', 6400);
    a = ask_text(2, prompt);
    a.m.max_tokens = 5;
    bench_submit(b, &a);
    bench_step(b);
    a = ask_text(3, "short");
    a.m.max_tokens = 5;
    bench_submit(b, &a);
    for (size_t i = 0; i < 90; i++) {
        size_t before = bench_choice(b, 1, 0)->n_ids;
        bench_step(b);
        CHECK_INT(bench_choice(b, 1, 0)->n_ids, before + 1); /* a token in every step */
        if (i == 1) { /* the short one had its turn beside the long one */
            CHECK(peer_answer(&b->peer, 3)->choices[0] != NULL);
        }
    }
    CHECK(peer_answer(&b->peer, 2)->n_prefilled > 80);
    bench_run(b);
    bench_close(b);
}

static int64_t slow_rows;

static void take_a_millisecond_a_row(const struct engine_row *rows, int64_t n)
{
    (void)rows;
    slow_rows = n;
    usleep((useconds_t)n * 1000);
}

/* A step beside a stream takes a fifth of a second, however large the chunk; without one it may
 * take longer. */
static void beside_streams_prompts_are_cut_by_time(void)
{
    struct bench *b = bench_open((struct bench_shape){8, 512, 4096, 4096});
    static char prompt[901];
    memset(prompt, 'p', 900);
    fake_on_step = take_a_millisecond_a_row;
    prompt[400] = 0;
    struct ask a = ask_text(1, prompt);
    a.m.flags |= MSG_IGNORE_EOS;
    bench_submit(b, &a);
    bench_step(b);
    CHECK_INT(slow_rows, 401);
    prompt[400] = 'q';
    a = ask_text(2, prompt);
    bench_submit(b, &a);
    for (int i = 0; i < 2; i++) {
        bench_step(b);
        CHECK(slow_rows > 32 && slow_rows <= 201);
    }
    fake_on_step = NULL;
    bench_cancel(b, 1);
    bench_cancel(b, 2);
    bench_run(b);
    bench_close(b);
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
    struct bench *b = bench_open((struct bench_shape){8, 50, 4096, 4096});
    static char prompt[501];
    for (int i = 0; i < 3; i++) {
        memset(prompt, 'a' + i, 499);
        struct ask a = ask_text((uint64_t)i + 1, prompt);
        a.m.max_tokens = 1;
        bench_submit(b, &a);
    }
    n_turns = 0;
    fake_on_step = log_turn;
    bench_run(b);
    fake_on_step = NULL;
    CHECK_INT(n_turns, 30);
    for (size_t i = 0; i < 30; i++) {
        CHECK_INT(turn_log[i], FAKE_BYTE + 'a' + i % 3);
    }
    bench_close(b);
}

static void a_client_with_little_running_goes_first(void)
{
    struct bench *b = bench_open((struct bench_shape){2, 64, 4096, 4096});
    for (uint64_t id = 1; id <= 6; id++) { /* one client floods, another asks once, last */
        struct ask a = ask_text(id, id % 2 ? "odd" : "even");
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 10 + 3 * (uint32_t)id;
        a.m.client = id == 6 ? 2 : 1;
        bench_submit(b, &a);
    }
    while (!peer_answer(&b->peer, 1)->is_over) {
        bench_step(b);
    }
    bench_step(b);
    CHECK(peer_answer(&b->peer, 6)->is_started && !peer_answer(&b->peer, 3)->is_started);
    bench_run(b);
    bench_close(b);
}

static void nobody_is_overtaken_for_ever(void)
{
    struct bench *b = bench_open((struct bench_shape){1, 64, 4096, 4096});
    struct ask a = ask_text(1, "first");
    a.m.client = 1;
    a.m.max_tokens = 3;
    bench_submit(b, &a);
    bench_step(b);
    a = ask_text(2, "second");
    a.m.client = 1;
    a.m.max_tokens = 3;
    bench_submit(b, &a);
    for (uint64_t id = 10; !peer_answer(&b->peer, 2)->is_started; id++) { /* always another */
        CHECK(id < 40);
        a = ask_text(id, "other");
        a.m.client = id;
        a.m.max_tokens = 3;
        bench_submit(b, &a);
        b->time_ns += 1000000000u;
        for (int i = 0; i < 4; i++) {
            bench_step(b);
        }
    }
    bench_run(b);
    bench_close(b);
}

/* ---- time limits ---- */

static void time_limits_end_requests(void)
{
    struct bench *b = bench_open((struct bench_shape){1, 16, 4096, 4096});
    struct ask a = ask_text(1, "goes on");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.total_ms = 5000;
    bench_submit(b, &a);
    bench_step(b);
    static char prompt[1001];
    memset(prompt, 'p', 1000);
    for (uint64_t id = 2; id <= 5; id++) {
        a = ask_text(id, prompt);
        a.m.max_tokens = 2;
        a.m.queue_ms = id == 2 ? 3000 : 0;
        a.m.first_ms = id == 3 ? 7000 : 0;
        a.m.total_ms = id == 4 ? 4000 : 0;
        bench_submit(b, &a);
    }
    bench_step(b);
    CHECK_INT(peer_answer(&b->peer, 2)->err, 0);
    b->time_ns += 3500000000u;
    bench_step(b);
    CHECK_INT(peer_answer(&b->peer, 2)->err, ERR_QUEUE_TIMEOUT);
    CHECK(!peer_answer(&b->peer, 4)->is_over);
    b->time_ns += 1000000000u;
    bench_step(b);
    CHECK_INT(peer_answer(&b->peer, 4)->err, ERR_TOTAL_TIMEOUT);
    size_t had = bench_choice(b, 1, 0)->n_ids;
    CHECK(had > 0 && !bench_choice(b, 1, 0)->is_finished);
    b->time_ns += 1000000000u;
    bench_step(b); /* the third begins its prompt */
    CHECK_INT(bench_choice(b, 1, 0)->reason, MSG_FINISH_TIMEOUT);
    CHECK_INT(bench_choice(b, 1, 0)->n_ids, had);
    CHECK(peer_answer(&b->peer, 1)->is_over && peer_answer(&b->peer, 3)->is_started);
    b->time_ns += 2000000000u;
    bench_step(b);
    CHECK_INT(peer_answer(&b->peer, 3)->err, ERR_FIRST_TOKEN_TIMEOUT);
    bench_run(b);
    CHECK_INT(bench_choice(b, 5, 0)->n_ids, 2);
    bench_close(b);
}

/* ---- the prefix cache ---- */

static void a_conversation_computes_only_what_is_new(void)
{
    for (fake_n_snapshots = 0; fake_n_snapshots <= 8; fake_n_snapshots += 8) {
        struct bench *b = bench_open((struct bench_shape){4, 64, 400, 4096});
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
            bench_submit(b, &a);
            bench_run(b);
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
        bench_close(b);
    }
    fake_n_snapshots = 0;
}

static void twins_become_one(void)
{
    struct bench *b = bench_open((struct bench_shape){8, 64, 4096, 4096});
    static char prompt[801];
    memset(prompt, 't', 800);
    for (uint64_t id = 1; id <= 8; id++) { /* all compute the same text side by side */
        struct ask a = ask_text(id, prompt);
        a.m.max_tokens = 40;
        a.m.flags |= MSG_IGNORE_EOS;
        bench_submit(b, &a);
    }
    while (!peer_answer(&b->peer, 8)->choices[0]) {
        bench_step(b);
    }
    int64_t used = 4096 - engine_free_blocks(b->models.v[0].engine);
    CHECK(used < 51 + 8 * 4);
    bench_run(b);
    for (uint64_t id = 2; id <= 8; id++) {
        peer_check_same(&b->peer, 1, id, 0);
    }
    bench_close(b);
}

/* ---- blocks ---- */

static void when_blocks_run_out_the_oldest_goes_on(void)
{
    struct bench *b = bench_open((struct bench_shape){8, 64, 24, 384});
    for (uint64_t id = 1; id <= 8; id++) { /* each will need 20 blocks of 24 */
        struct ask a = ask_text(id, "grow");
        a.m.flags |= MSG_IGNORE_EOS;
        a.m.max_tokens = 300;
        bench_submit(b, &a);
    }
    size_t before = 0;
    for (int i = 0; !peer_answer(&b->peer, 1)->is_over; i++) {
        bench_step(b);
        CHECK(bench_choice(b, 1, 0)->n_ids == before + 1);
        before++;
    }
    CHECK_INT(before, 300);
    bench_run(b);
    for (uint64_t id = 2; id <= 8; id++) {
        CHECK_INT(bench_choice(b, id, 0)->n_ids, 300);
        peer_check_same(&b->peer, 1, id, 0);
    }
    bench_close(b);
}

static void one_sequence_may_fill_the_pool(void)
{
    struct bench *b = bench_open((struct bench_shape){4, 64, 10, 4096}); /* context = 160 */
    struct ask a = ask_text(1, "x");
    a.m.flags |= MSG_IGNORE_EOS;
    bench_submit(b, &a);
    a = ask_text(2, "y");
    a.m.flags |= MSG_IGNORE_EOS;
    a.m.n_choices = 4;
    bench_submit(b, &a);
    bench_run(b);
    CHECK_INT(bench_choice(b, 1, 0)->n_ids, 158);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_INT(bench_choice(b, 2, i)->n_ids, 158);
    }
    bench_close(b);
}

/* ---- choices ---- */

static void choices_share_one_prompt(void)
{
    struct bench *b = bench_open((struct bench_shape){16, 512, 4096, 4096});
    static char prompt[901];
    memset(prompt, 'q', 900);
    struct ask a = ask_text(1, prompt);
    a.m.n_choices = 5;
    a.m.choice_base = 2;
    a.m.temperature = 1;
    a.m.seed = 77;
    a.m.max_tokens = 30;
    bench_submit(b, &a);
    bench_run(b);
    struct fake_stats s = fake_stats(b->models.v[0].engine);
    CHECK(s.n_rows <= 901 + 5 * 29);
    for (uint32_t i = 0; i < 5; i++) { /* choice k of many is choice k alone */
        a = ask_text(10 + i, prompt);
        a.m.choice_base = 2 + i;
        a.m.temperature = 1;
        a.m.seed = 77;
        a.m.max_tokens = 30;
        bench_submit(b, &a);
        bench_run(b);
        peer_check_same(&b->peer, 1, 10 + i, 2 + i);
    }
    bench_close(b);
}

int main(void)
{
    requests_start_in_order_of_arrival();
    a_long_prompt_stalls_nobody();
    beside_streams_prompts_are_cut_by_time();
    prompts_take_turns();
    a_client_with_little_running_goes_first();
    nobody_is_overtaken_for_ever();
    time_limits_end_requests();
    a_conversation_computes_only_what_is_new();
    twins_become_one();
    when_blocks_run_out_the_oldest_goes_on();
    one_sequence_may_fill_the_pool();
    choices_share_one_prompt();
    return 0;
}
