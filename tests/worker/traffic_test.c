/* Sequences and the prefix cache under random traffic against a naive reference: admission with
 * reuse, steps of many, forks, ends (of which preemption is one), steps that fail, blocks that run
 * out. After every operation: each sequence holds its tokens (read back through the block table),
 * exactly the blocks are taken that a reference with whole texts counts, and every invariant of the
 * pool holds. Usage: traffic_test [operations]. */
#include "tests/test.h"
#include "tests/worker/fake_engine.h"
#include "tests/worker/fake_tokenizer.h"

enum { N_SEQS = 10, CHUNK = 40, N_CTX = 400, N_TEXTS = 24, POISON = FAKE_NEVER };

struct text {
    int32_t ids[N_CTX];
    int64_t n;
};

struct live { /* the reference's sequence */
    struct engine_seq *seq;
    struct text text;
    uint64_t part; /* who shares the last, partly filled block has the same */
};

static struct {
    struct models models;
    struct engine *en;
    uint64_t rng;
    struct live live[N_SEQS];
    int n_live;
    uint64_t n_parts;
    struct text texts[N_TEXTS]; /* seen before: others go on from them */
    int64_t n_blocks;
    struct {
        uint64_t admitted, reused_tok, forked, ended, failed, full, steps, rows;
    } count;
} t;

static uint64_t below(uint64_t n)
{
    return test_random(&t.rng) % n;
}

static int64_t n_common(const struct text *a, const struct text *b, int64_t most)
{
    int64_t n = 0;
    most = MIN(most, MIN(a->n, b->n));
    while (n < most && a->ids[n] == b->ids[n]) {
        n++;
    }
    return n;
}

/* ---- checks ---- */

static int64_t blocks_counted(void)
{
    int64_t n = 0;
    for (int i = 0; i < t.n_live; i++) {
        const struct live *l = &t.live[i];
        int64_t shared = 0;
        bool is_part_counted = l->text.n % ENGINE_BLOCK_TOKENS == 0;
        for (int k = 0; k < i; k++) {
            int64_t same = n_common(&l->text, &t.live[k].text, N_CTX) / ENGINE_BLOCK_TOKENS;
            shared = MAX(shared, same);
            is_part_counted = is_part_counted || t.live[k].part == l->part;
        }
        n += l->text.n / ENGINE_BLOCK_TOKENS - shared + !is_part_counted;
    }
    return n;
}

static void check_tokens(const struct live *l)
{
    int64_t n;
    const int32_t *ids = fake_tokens(l->seq, &n);
    CHECK_INT(n, l->text.n);
    CHECK(n == 0 || memcmp(ids, l->text.ids, (size_t)n * sizeof(*ids)) == 0);
}

static void check_all(void)
{
    fake_check(t.en);
    CHECK_INT(fake_stats(t.en).n_seqs, t.n_live);
    CHECK_INT(engine_free_blocks(t.en), engine_cache(t.en).n_blocks - blocks_counted());
}

/* ---- operations ---- */

static void end(int i)
{
    struct live *l = &t.live[i];
    engine_seq_destroy(t.en, &l->seq);
    t.texts[below(N_TEXTS)] = l->text;
    t.live[i] = t.live[--t.n_live];
    t.count.ended++;
}

/* Few different tokens, so that texts part and meet everywhere. */
static int32_t some_id(int64_t place)
{
    return FAKE_BYTE + 'a' + (int32_t)(below(12) ? (uint64_t)place / 7 % 3 : below(3));
}

/* A text that goes on from one seen before, or from nothing. */
static void write_text(struct text *x)
{
    const struct text *from = &t.texts[below(N_TEXTS)];
    x->n = below(6) ? (int64_t)below((uint64_t)from->n + 1) : 0;
    memcpy(x->ids, from->ids, (size_t)x->n * sizeof(x->ids[0]));
    int64_t n = x->n + 1 + (int64_t)below(below(4) ? 20 : 90);
    n = MIN(n, (int64_t)N_CTX - 60);
    for (; x->n < n; x->n++) {
        x->ids[x->n] = some_id(x->n);
    }
}

static void check_reuse(const struct text *x, int64_t most, int64_t got)
{
    int64_t best = 0;
    for (int i = 0; i < t.n_live; i++) { /* (the fresh one is not among them yet) */
        int64_t same = n_common(x, &t.live[i].text, most);
        best = MAX(best, same / ENGINE_BLOCK_TOKENS * ENGINE_BLOCK_TOKENS);
    }
    /* What is running is findable to its last full block; states only where they were kept. */
    CHECK(got <= most && (fake_n_snapshots > 0 || got >= best));
}

static void admit(void)
{
    struct live *l = &t.live[t.n_live];
    struct text x;
    if (t.n_live == N_SEQS) {
        end((int)below(N_SEQS));
        return;
    }
    write_text(&x);
    int64_t most = x.n - (int64_t)below(2), held;
    int64_t cached = engine_cached(t.en, x.ids, most, &held),
            free_before = engine_free_blocks(t.en);
    CHECK(engine_seq_create(t.en, &l->seq) == 0);
    int64_t n = engine_seq_reuse(t.en, l->seq, x.ids, most);
    CHECK(n >= cached && n < cached + ENGINE_BLOCK_TOKENS);
    CHECK_INT(free_before - engine_free_blocks(t.en),
              cached / ENGINE_BLOCK_TOKENS - held + (n > cached));
    check_reuse(&x, most, n);
    l->text = x;
    l->text.n = n;
    l->part = ++t.n_parts;
    t.n_live++;
    t.count.admitted++;
    t.count.reused_tok += (uint64_t)n;
    check_tokens(l);
}

static void fork_one(void)
{
    if (t.n_live == 0 || t.n_live == N_SEQS) {
        return;
    }
    struct live *from = &t.live[below((uint64_t)t.n_live)], *l = &t.live[t.n_live++];
    *l = *from;
    CHECK(engine_seq_fork(t.en, from->seq, &l->seq) == 0);
    check_tokens(l);
    t.count.forked++;
}

static void append(struct live *l, const struct engine_row *rows, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        l->text.ids[l->text.n++] = rows[i].token;
    }
    l->part = ++t.n_parts; /* whoever writes has the block for itself */
}

static void step(void)
{
    struct engine_row rows[N_SEQS * CHUNK];
    const float *logits[N_SEQS];
    int64_t n = 0, first[N_SEQS + 1];
    int who[N_SEQS], n_who = 0;
    bool fails = below(50) == 0;
    for (int i = 0; i < t.n_live; i++) {
        int64_t more = below(3) ? 1 : 1 + (int64_t)below(CHUNK);
        if (below(3) == 0 || t.live[i].text.n + more > N_CTX) {
            continue;
        }
        if (engine_seq_reserve(t.en, t.live[i].seq, more) < 0) {
            t.count.full++;
            continue;
        }
        first[n_who] = n;
        who[n_who++] = i;
        for (int64_t k = 0; k < more; k++) {
            int64_t at = t.live[i].text.n + k;
            int32_t id = some_id(at);
            rows[n++] = (struct engine_row){t.live[i].seq, id, k == more - 1, 0};
        }
    }
    if (n == 0) {
        if (t.n_live > 0) {
            end((int)below((uint64_t)t.n_live)); /* the blocks are all taken */
        }
        return;
    }
    first[n_who] = n;
    if (fails) {
        rows[below((uint64_t)n)].token = POISON;
    }
    struct err e;
    int err = engine_step(t.en, rows, n, logits, &e);
    CHECK_INT(err, fails ? ERR_NUMERIC : 0);
    t.count.steps++;
    t.count.rows += (uint64_t)n;
    for (int k = n_who; k-- > 0;) {
        struct live *l = &t.live[who[k]];
        append(l, rows + first[k], first[k + 1] - first[k]);
        if (fails) { /* as the scheduler does: they begin again */
            engine_seq_destroy(t.en, &l->seq);
            t.live[who[k]] = t.live[--t.n_live];
            t.count.failed++;
        } else {
            check_tokens(l);
        }
    }
}

static void run(int64_t n_blocks, int32_t n_snapshots, uint64_t seed, uint64_t n_ops)
{
    fake_n_snapshots = n_snapshots;
    fake_poison = POISON;
    memset(&t, 0, sizeof(t));
    t.rng = seed;
    t.n_blocks = n_blocks;
    fake_models_init(&t.models, 1, N_SEQS, N_SEQS * CHUNK, n_blocks, N_CTX);
    t.en = t.models.v[0].engine;
    for (uint64_t i = 0; i < n_ops; i++) {
        uint64_t what = below(20);
        if (what < 3) {
            admit();
        } else if (what == 3) {
            fork_one();
        } else if (what == 4 && t.n_live > 0) {
            end((int)below((uint64_t)t.n_live));
        } else if (what == 5 &&
                   below(4) == 0) { /* the cache gets smaller and larger under all of them */
            engine_resize_kv(t.en,
                             below(3) == 0 ? n_blocks : (int64_t)below((uint64_t)n_blocks + 1));
        } else {
            step();
        }
        check_all();
    }
    while (t.n_live > 0) {
        end(0);
        check_all();
    }
    printf("%4lld blocks, %2d snapshots: %llu admitted, %.1f tokens reused each; %llu forks, %llu "
           "ends, %llu lost to failed steps; %llu steps of %.1f rows; %llu times no room\n",
           (long long)n_blocks, n_snapshots, (unsigned long long)t.count.admitted,
           (double)t.count.reused_tok / (double)t.count.admitted,
           (unsigned long long)t.count.forked, (unsigned long long)t.count.ended,
           (unsigned long long)t.count.failed, (unsigned long long)t.count.steps,
           (double)t.count.rows / (double)t.count.steps, (unsigned long long)t.count.full);
    CHECK(t.count.reused_tok > 0 && t.count.failed > 0);
    CHECK(n_blocks > 200 || t.count.full > 0);
    fake_models_finish(&t.models);
}

int main(int argc, char **argv)
{
    uint64_t n_ops = argc > 1 ? strtoull(argv[1], NULL, 10) : 40 * 1000;
    setvbuf(stdout, NULL, _IOLBF, 0);
    run(40, 0, 1, n_ops * 3 / 10);
    run(40, 5, 2, n_ops * 3 / 10);
    run(90, 0, 3, n_ops / 10);
    run(90, 20, 4, n_ops / 10);
    run(300, 0, 5, n_ops / 10);
    run(300, 40, 6, n_ops / 10);
    return 0;
}
