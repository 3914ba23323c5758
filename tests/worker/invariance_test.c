/* Invariance: a row's logits are the same bits whatever else is in the step, wherever the prompt
 * was cut, however many threads compute, and whether the sequence was forked or taken from the
 * prefix cache; past position 2048, over window and split borders, for attention, latent attention,
 * experts and recurrent layers. */
#include "tests/worker/tiny_model.h"

#include "shared/num.h"
#include "tests/test.h"
#include "worker/engine.h"

enum { LONG = 2200, SHORT = 540, MAX_ROWS = 600, N_SEQS = 9, EVERY = 31 };

static int32_t token_at(int64_t i, int64_t seed)
{
    return (int32_t)((i * i * 7 + i * (3 + seed) + 11 * seed) % TINY_VOCAB);
}

static struct engine *open_model(const char *path, enum isa isa, enum type kv_type, int n_threads)
{
    struct err e = {0};
    struct engine_options o = {.n_threads = n_threads,
                               .isa = isa,
                               .kv_type = kv_type,
                               .n_ctx = LONG + 64,
                               .n_seqs = N_SEQS,
                               .max_rows = MAX_ROWS,
                               .max_logits = MAX_ROWS,
                               .kv_memory_share = 0.5};
    struct engine *en;
    int err = engine_open(path, &o, &en, &e);
    if (err != 0) {
        TEST_FAIL("%s", e.detail);
    }
    return en;
}

/* The logits of a sequence's rows, all of them. */
struct log {
    float *rows; /* LONG x vocab */
};

struct feed { /* a sequence and where it is in its text */
    struct engine_seq *seq;
    int64_t at, seed;
};

static int64_t add_rows(struct feed *f, int64_t n, struct engine_row *rows)
{
    for (int64_t i = 0; i < n; i++) {
        rows[i] = (struct engine_row){f->seq, token_at(f->at + i, f->seed), true, 0};
    }
    return n;
}

static void step(struct engine *en, const struct engine_row *rows, int64_t n, const float **logits)
{
    struct err e = {0};
    if (engine_step(en, rows, n, logits, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

/* Runs one sequence alone, cut as `chunk` says (0: growing pieces). */
static void run_alone(struct engine *en, int64_t n_tokens, int64_t chunk, float *ret)
{
    static struct engine_row rows[MAX_ROWS];
    static const float *logits[MAX_ROWS];
    struct feed f = {NULL, 0, 1};
    CHECK(engine_seq_create(en, &f.seq) == 0);
    for (int64_t piece = 1; f.at < n_tokens; piece = piece % 67 + 1) {
        int64_t n = MIN(chunk ? chunk : piece, n_tokens - f.at);
        CHECK(engine_seq_reserve(en, f.seq, n) == 0);
        step(en, rows, add_rows(&f, n, rows), logits);
        for (int64_t i = 0; i < n; i++) {
            memcpy(ret + (f.at + i) * TINY_VOCAB, logits[i], TINY_VOCAB * sizeof *ret);
        }
        f.at += n;
    }
    engine_seq_destroy(en, &f.seq);
}

/* The first sequence among n_others, which advance by other amounts and come and go. */
static void run_among(struct engine *en, int64_t n_tokens, int n_others, float *ret)
{
    static struct engine_row rows[MAX_ROWS];
    static const float *logits[MAX_ROWS];
    struct feed f = {NULL, 0, 1}, other[N_SEQS] = {{NULL, 0, 0}};
    uint64_t random = (uint64_t)n_others;
    CHECK(engine_seq_create(en, &f.seq) == 0);
    while (f.at < n_tokens) {
        int64_t n = 0, piece = (int64_t)(test_random(&random) % 40) + 1;
        int64_t mine = MIN(piece, n_tokens - f.at);
        int64_t place = (int64_t)(test_random(&random) % (uint64_t)(n_others + 1)), first = 0;
        for (int i = 0; i <= n_others; i++) {
            if (i == place) {
                first = n;
                CHECK(engine_seq_reserve(en, f.seq, mine) == 0);
                n += add_rows(&f, mine, rows + n);
            }
            struct feed *o = &other[i];
            if (i == n_others || test_random(&random) % 4 == 0) {
                continue;
            }
            if (o->seq && o->at > 300) {
                engine_seq_destroy(en, &o->seq);
            }
            if (!o->seq) {
                CHECK(engine_seq_create(en, &o->seq) == 0);
                *o = (struct feed){o->seq, 0, (int64_t)(test_random(&random) % 100)};
            }
            int64_t theirs =
                (int64_t)(test_random(&random) % 3 == 0 ? test_random(&random) % 30 : 0);
            CHECK(engine_seq_reserve(en, o->seq, theirs + 1) == 0);
            n += add_rows(o, theirs + 1, rows + n);
            o->at += theirs + 1;
        }
        step(en, rows, n, logits);
        for (int64_t i = 0; i < mine; i++) {
            memcpy(ret + (f.at + i) * TINY_VOCAB, logits[first + i], TINY_VOCAB * sizeof *ret);
        }
        f.at += mine;
    }
    for (int i = 0; i < n_others; i++) {
        engine_seq_destroy(en, &other[i].seq);
    }
    engine_seq_destroy(en, &f.seq);
}

/* Forks in the middle of a block; both sides go on as if alone. */
static void run_forked(struct engine *en, int64_t n_tokens, float *ret)
{
    static struct engine_row rows[MAX_ROWS];
    static const float *logits[MAX_ROWS];
    int64_t cut = n_tokens / 2 | 5, free_before = engine_free_blocks(en);
    struct feed f = {NULL, 0, 1}, g;
    CHECK(engine_seq_create(en, &f.seq) == 0);
    while (f.at < n_tokens) {
        int64_t n = MIN((int64_t)100, (f.at < cut ? cut : n_tokens) - f.at);
        CHECK(engine_seq_reserve(en, f.seq, n) == 0);
        step(en, rows, add_rows(&f, n, rows), logits);
        for (int64_t i = 0; i < n; i++) {
            memcpy(ret + (f.at + i) * TINY_VOCAB, logits[i], TINY_VOCAB * sizeof *ret);
        }
        f.at += n;
        if (f.at == cut) { /* another text in the fork, then the first sequence goes on */
            int64_t free_now = engine_free_blocks(en);
            g = (struct feed){NULL, cut, 2};
            CHECK(engine_seq_fork(en, f.seq, &g.seq) == 0);
            CHECK_INT(engine_free_blocks(en), free_now);
            CHECK_INT(engine_seq_length(g.seq), cut);
            CHECK(engine_seq_reserve(en, g.seq, 50) == 0);
            step(en, rows, add_rows(&g, 50, rows), logits);
            engine_seq_destroy(en, &g.seq);
        }
    }
    engine_seq_destroy(en, &f.seq);
    CHECK_INT(engine_free_blocks(en), free_before);
}

/* Goes on from what the cache has of the first `cut` tokens, and lets another text part from them
 * there. A model of attention alone finds them all. */
static void run_reused(struct engine *en, int64_t n_tokens, int64_t cut, float *ret)
{
    static struct engine_row rows[MAX_ROWS];
    static const float *logits[MAX_ROWS];
    static int32_t ids[LONG];
    int64_t free_before = engine_free_blocks(en), held;
    for (int64_t i = 0; i < n_tokens; i++) {
        ids[i] = token_at(i, 1);
    }
    for (int64_t seed = 2; seed >= 1; seed--) {
        struct feed f = {NULL, 0, seed};
        CHECK(engine_seq_create(en, &f.seq) == 0);
        int64_t known = engine_cached(en, ids, cut, &held);
        f.at = engine_seq_reuse(en, f.seq, ids, cut);
        CHECK(f.at == engine_seq_length(f.seq) && f.at >= known && held == 0);
        if (engine_info(en)->n_snapshots == 0) {
            CHECK_INT(f.at, cut);
        } else {
            CHECK(f.at == known && known == cut / 48 * 48);
        }
        int64_t n = MIN((int64_t)60, n_tokens - f.at);
        CHECK(engine_seq_reserve(en, f.seq, n) == 0);
        step(en, rows, add_rows(&f, n, rows), logits);
        for (int64_t i = 0; i < n && seed == 1; i++) {
            memcpy(ret + (f.at + i) * TINY_VOCAB, logits[i], TINY_VOCAB * sizeof *ret);
        }
        engine_seq_destroy(en, &f.seq);
    }
    CHECK_INT(engine_free_blocks(en), free_before);
}

static void compare(const char *model, const char *how, int64_t parameter, const float *a,
                    const float *b, int64_t n_tokens)
{
    for (int64_t i = 0; i < n_tokens; i++) {
        if (memcmp(a + i * TINY_VOCAB, b + i * TINY_VOCAB, TINY_VOCAB * sizeof *a) != 0) {
            TEST_FAIL("%s, %s %lld: row %lld differs", model, how, (long long)parameter,
                      (long long)i);
        }
    }
}

static void check_model(const struct tiny_model *m, enum isa isa, enum type matrix,
                        enum type kv_type, int64_t n_tokens)
{
    static const int64_t chunks[] = {0, 257, 511, 513, 1, 15, 16, 17, 255, 256};
    static const int64_t cuts[] = {0,   1,   15,  16,  17,   47,   48,  49,
                                   143, 160, 271, 272, 2047, 2049, LONG};
    bool is_long = n_tokens == LONG; /* fewer ways: the borders are the same in short texts */
    const char *path = tiny_model_file(m, matrix);
    size_t bytes = (size_t)(n_tokens * TINY_VOCAB) * sizeof(float);
    float *expected = malloc(bytes), *got = malloc(bytes);
    CHECK(expected && got);
    struct engine *en = open_model(path, isa, kv_type, 1);
    run_alone(en, n_tokens, 512, expected);
    for (size_t i = 0; i < (is_long ? 2 : COUNT_OF(chunks)); i++) {
        run_alone(en, n_tokens, chunks[i], got);
        compare(m->name, "chunk", chunks[i], got, expected, n_tokens);
    }
    run_forked(en, n_tokens, got);
    compare(m->name, "forked", 0, got, expected, n_tokens);
    engine_close(&en);
    en = open_model(path, isa, kv_type, 2);
    run_alone(en, n_tokens, 48, got);
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        int64_t cut = MIN(cuts[i], n_tokens - 1);
        run_reused(en, n_tokens, cut, got);
        compare(m->name, "reused", cut, got, expected, n_tokens);
    }
    engine_close(&en);
    for (int threads = 1; threads <= 4; threads++) {
        en = open_model(path, isa, kv_type, threads);
        for (int others = threads - 1; others < N_SEQS; others += is_long ? N_SEQS : 5) {
            run_among(en, n_tokens, others, got);
            compare(m->name, "sequences beside it", others, got, expected, n_tokens);
        }
        run_alone(en, MIN(n_tokens, 270), 1, got);
        compare(m->name, "one row, threads", threads, got, expected, MIN(n_tokens, 270));
        engine_close(&en);
    }
    printf("%-12s %-7s %-5s kv %-5s %d tokens\n", m->name, isa_name(isa),
           type_info((uint32_t)matrix)->name, type_info((uint32_t)kv_type)->name, (int)n_tokens);
    free(expected);
    free(got);
}

/* The prefix cache alone, quick enough for every architecture. */
static void check_reuse(const struct tiny_model *m, enum isa isa)
{
    enum { N = 110 };
    static float expected[N * TINY_VOCAB], got[N * TINY_VOCAB];
    struct engine *en = open_model(tiny_model_file(m, TYPE_Q8_0), isa, TYPE_F16, 1);
    run_alone(en, N, 48, expected);
    memcpy(got, expected, sizeof(got));
    for (int64_t cut = 0; cut < N; cut += 7) {
        run_reused(en, N, cut, got);
        compare(m->name, "reused", cut, got, expected, N);
    }
    engine_close(&en);
}

int main(void)
{
    static const char *const short_ones[] = {"gemma3", "gpt-oss-yarn", "baichuan-13b", "deepseek2",
                                             "qwen35", "lfm2moe", "mamba2", "stablelm"};
    enum isa best = isa_detect();
    setvbuf(stdout, NULL, _IOLBF, 0);
    check_model(tiny_model_find("llama"), best, TYPE_Q8_0, TYPE_F16, LONG);
    for (size_t i = 0; i < COUNT_OF(short_ones); i++) {
        /* Forty layers for ALiBi are enough work in a shorter text. */
        check_model(tiny_model_find(short_ones[i]), best, TYPE_Q4_0, TYPE_F16, i == 2 ? 60 : 280);
    }
    for (int isa = ISA_SCALAR; isa < (int)best; isa++) {
        check_model(tiny_model_find("llama"), (enum isa)isa, TYPE_Q8_0, TYPE_BF16, 280);
        check_model(tiny_model_find("qwen35"), (enum isa)isa, TYPE_F16, TYPE_F32, 100);
    }
    check_model(tiny_model_find("gpt-oss-yarn"), best, TYPE_F32, TYPE_F32, SHORT);
    check_model(tiny_model_find("gemma3"), best, TYPE_F32, TYPE_Q8_0, 280);
    check_model(tiny_model_find("deepseek2"), ISA_SCALAR, TYPE_F16, TYPE_Q8_0, 60);
    for (size_t i = 0; i < tiny_n_models; i++) {
        check_reuse(&tiny_models[i], best);
    }
    return 0;
}
