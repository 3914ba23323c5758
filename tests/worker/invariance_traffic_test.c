/* Invariance under the real scheduler: the logits behind a text are the same bits, whatever was
 * computed beside it, in whatever pieces, on however many threads; whether its sequence was put
 * back and computed again, taken from the prefix cache or forked. Every step's logits are noted
 * under the text of their row; a text that is seen again must have the same ones. Batches of 1 to
 * 16, chunks around block and vector borders, pools too small, readers that stall; attention of all
 * kinds, experts, recurrent layers. Usage: invariance_traffic_test [all]. */
#include "shared/hash.h"
#include "tests/test.h"
#include "tests/worker/bench.h"
#include "tests/worker/tiny_model.h"
#include "worker/engine_state.h"
#include "worker/scheduler_state.h"

enum { N_REQUESTS = 14, N_CTX = 200, TABLE = 1 << 16 };

/* ---- what was seen ---- */

static struct {
    const char *what; /* model and configuration, for messages */
    struct {
        uint64_t text, logits; /* hashes; text 0: free */
    } seen[TABLE];
    uint64_t n_texts, n_again, n_cached;
    uint64_t answers[N_REQUESTS]; /* hash of all its ids */
} t;

static void note(uint64_t text, uint64_t logits)
{
    size_t at = text % TABLE;
    while (t.seen[at].text && t.seen[at].text != text) {
        at = (at + 1) % TABLE;
    }
    if (!t.seen[at].text) {
        CHECK(++t.n_texts < TABLE / 2);
        t.seen[at].text = text;
        t.seen[at].logits = logits;
        return;
    }
    t.n_again++;
    if (t.seen[at].logits != logits) {
        TEST_FAIL("%s: other logits behind the same text", t.what);
    }
}

static uint64_t hash_on(uint64_t h, int32_t token)
{
    return hash64(&token, sizeof(token), h) | 1;
}

int __real_engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                       const float **ret_logits, struct err *e);
int __wrap_engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                       const float **ret_logits, struct err *e);

int __wrap_engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                       const float **ret_logits, struct err *e)
{
    uint64_t h = 0, texts[512];
    int64_t n_out = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct engine_seq *s = rows[i].seq;
        for (int64_t k = 0; (i == 0 || rows[i - 1].seq != s) && k < s->n_tokens; k++) {
            int64_t at = (int64_t)s->blocks[k / KV_BLOCK] * KV_BLOCK + k % KV_BLOCK;
            h = hash_on(k ? h : 0, en->kv.ids[at]);
        }
        h = hash_on(s->n_tokens || (i > 0 && rows[i - 1].seq == s) ? h : 0, rows[i].token);
        if (rows[i].want_logits) {
            CHECK(n_out < (int64_t)COUNT_OF(texts));
            texts[n_out++] = h;
        }
    }
    int err = __real_engine_step(en, rows, n, ret_logits, e);
    for (int64_t i = 0; i < n_out; i++) {
        note(texts[i], hash64(ret_logits[i], TINY_VOCAB * sizeof(float), 1));
    }
    return err;
}

/* ---- requests ---- */

/* The same for every configuration: prefixes of three texts, then a tail of its own. */
static struct ask make_ask(uint64_t n)
{
    int32_t ids[N_CTX];
    uint64_t rng = 100 + n, prefix_rng = n % 3;
    size_t n_prefix = n % 5 ? test_random(&rng) % 70 : 0, n_ids = n_prefix;
    n_ids += 1 + test_random(&rng) % (n % 4 ? 30 : 100);
    for (size_t i = 0; i < n_ids; i++) {
        ids[i] = (int32_t)(test_random(i < n_prefix ? &prefix_rng : &rng) % TINY_VOCAB);
    }
    struct ask a = ask_ids(n + 1, ids, n_ids);
    a.m.flags |= MSG_IGNORE_EOS;
    if (n % 3 == 1) { /* the prompt's own logits, too */
        a.m.flags |= MSG_ECHO | MSG_LOGPROBS;
    }
    a.m.n_choices = n % 4 == 2 ? 3 : 1;
    a.m.temperature = 1;
    a.m.max_tokens = 6 + (uint32_t)(test_random(&rng) % 25);
    return a;
}

static uint64_t answer_hash(struct bench *b, uint64_t id)
{
    uint64_t h = 1;
    const struct answer *an = peer_answer(&b->peer, id);
    CHECK(an->is_over && an->err == 0);
    for (int k = 0; k < LIMIT_CHOICES; k++) {
        const struct answer_choice *c = an->choices[k];
        h = c ? hash64(c->ids, c->n_ids * sizeof(c->ids[0]), h) : h;
    }
    return h;
}

/* ---- engines ---- */

struct setup {
    int n_threads;
    int64_t n_seqs, chunk;
    bool is_tight;
};

/* The least memory that holds one whole context and half of another. */
static uint64_t tight_bytes(const struct gguf *g, struct engine_options o)
{
    struct engine_info i = {0};
    struct err e;
    o.n_ctx = N_CTX;
    for (o.kv_memory_bytes = 4096;; o.kv_memory_bytes += o.kv_memory_bytes / 16) {
        if (engine_estimate(g, &o, &i, &e) == 0 && i.n_blocks >= N_CTX / KV_BLOCK * 3 / 2) {
            return o.kv_memory_bytes;
        }
        CHECK(o.kv_memory_bytes < 1u << 30);
    }
}

static struct bench *open_real(const char *path, const struct setup *s, enum type kv_type)
{
    struct err e = {0};
    struct engine_options o = {.n_threads = s->n_threads,
                               .isa = isa_detect(),
                               .kv_type = kv_type,
                               .n_ctx = N_CTX,
                               .n_seqs = s->n_seqs,
                               .max_rows = s->chunk + s->n_seqs,
                               .max_logits = s->n_seqs + 16,
                               .kv_memory_bytes = 64 << 20};
    struct gguf g;
    CHECK_INT(gguf_open(path, &g, &e), 0);
    if (s->is_tight && s->n_seqs > 1) {
        o.kv_memory_bytes = tight_bytes(&g, o);
    }
    gguf_close(&g);
    struct models m = {.n = 1,
                       .max_loaded = 1,
                       .n_seqs = s->n_seqs,
                       .chunk_rows = s->chunk,
                       .max_logits = MIN(o.max_logits, o.max_rows)};
    struct model *v = &m.v[0];
    if (engine_open(path, &o, &v->engine, &e) < 0) {
        TEST_FAIL("%s: %s", t.what, e.detail);
    }
    v->name = strdup("tiny");
    v->path = strdup(path);
    v->bos_text = strdup("");
    v->eos_text = strdup("");
    v->n_vocab = TINY_VOCAB;
    v->n_ctx = MIN((int64_t)N_CTX, engine_info(v->engine)->n_blocks * KV_BLOCK);
    models_describe(v);
    return bench_around(&m);
}

/* Readers stall now and then, for long enough that others get their slots. */
static void disturb(struct bench *b, const struct setup *s, uint64_t *rng)
{
    if (s->chunk == 1) { /* a row a step is less than what stalling loses */
        return;
    }
    b->time_ns += test_random(rng) % 300000000;
    for (struct request *r = b->live; r; r = r->next_live) {
        if (r->stage == REQUEST_ACTIVE && r->is_paused != (test_random(rng) % 8 == 0)) {
            bench_pause(b, r->id, !r->is_paused);
        }
    }
}

static uint64_t run(const struct setup *s, const char *path, enum type kv_type, bool is_first)
{
    struct bench *b = open_real(path, s, kv_type);
    uint64_t rng = (uint64_t)(s->n_seqs * 1000 + s->chunk);
    for (uint64_t n = 0; n < N_REQUESTS; n++) {
        struct ask a = make_ask(n);
        bench_submit(b, &a);
        for (uint64_t k = test_random(&rng) % 4; k > 0; k--) {
            bench_step(b);
        }
        if (is_first) { /* each alone */
            bench_run(b);
        } else {
            disturb(b, s, &rng);
        }
    }
    for (int i = 0; b->live; i++) {
        CHECK(i < 100 * 1000);
        disturb(b, s, &rng);
        bench_step(b);
    }
    bench_step(b);
    for (uint64_t n = 0; n < N_REQUESTS; n++) {
        uint64_t h = answer_hash(b, n + 1);
        CHECK(is_first || h == t.answers[n]);
        t.answers[n] = h;
    }
    uint64_t n_preempted = scheduler_stats(b->scheduler).n_preempted;
    t.n_cached += scheduler_stats(b->scheduler).n_cached_tok;
    bench_close(b);
    return n_preempted;
}

static void check_model(const struct tiny_model *m, enum type matrix, enum type kv_type, bool all)
{
    static const int64_t chunks[] = {512, 16, 33,  15, 64, 17, 1,   32,
                                     48,  31, 257, 47, 7,  49, 256, 255};
    static const int few[] = {2, 5, 7, 16}; /* batches; every chunk and thread count is in one */
    const char *path = tiny_model_file(m, matrix);
    uint64_t n_preempted = 0;
    char what[96];
    memset(&t, 0, sizeof(t));
    t.what = what;
    snprintf(what, sizeof(what), "%s alone", m->name);
    run(&(struct setup){1, 1, 512, false}, path, kv_type, true);
    for (int i = 0; i < (all ? 16 : (int)COUNT_OF(few)); i++) {
        int n_seqs = all ? i + 1 : few[i];
        struct setup s = {1 + i % 4, n_seqs, chunks[n_seqs - 1], i % 3 != 2};
        snprintf(what, sizeof(what), "%s, batch %d, chunk %lld, %d threads%s", m->name, n_seqs,
                 (long long)s.chunk, s.n_threads, s.is_tight ? ", few blocks" : "");
        n_preempted += run(&s, path, kv_type, false);
    }
    printf("%-18s %-5s kv %-5s %llu texts, %llu times seen again, %llu times put back\n", m->name,
           type_info((uint32_t)matrix)->name, type_info((uint32_t)kv_type)->name,
           (unsigned long long)t.n_texts, (unsigned long long)t.n_again,
           (unsigned long long)n_preempted);
    CHECK(n_preempted > 0 && t.n_again > t.n_texts && t.n_cached > 0);
}

int main(int argc, char **argv)
{
    static const char *const few[] = {"llama",        "gemma3", "deepseek2",
                                      "gpt-oss-yarn", "qwen35", "mamba2"};
    static const enum type kv_types[] = {TYPE_F16, TYPE_Q8_0, TYPE_F32, TYPE_Q8_0, TYPE_BF16};
    bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < (all ? tiny_n_models : COUNT_OF(few)); i++) {
        const struct tiny_model *m = all ? &tiny_models[i] : tiny_model_find(few[i]);
        check_model(m, i % 2 ? TYPE_Q4_0 : TYPE_Q8_0, kv_types[i % COUNT_OF(kv_types)], all);
    }
    return 0;
}
