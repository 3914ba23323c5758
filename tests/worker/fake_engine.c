#include "tests/worker/fake_engine.h"
#include "tests/test.h"
#include "tests/worker/fake_tokenizer.h"

#include <errno.h>

enum { MAX_SEQS = 64, MAX_BLOCKS = 4096, MAX_CTX = 8192 };

struct engine_seq {
    bool is_used;
    int64_t n;        /* tokens */
    int64_t n_blocks; /* held */
    int blocks[MAX_CTX / ENGINE_BLOCK_TOKENS];
    int32_t tokens[MAX_CTX];
};

struct engine {
    struct engine_info info;
    int64_t max_rows, max_logits;
    struct engine_seq seqs[MAX_SEQS];
    int64_t n_seqs;
    int refs[MAX_BLOCKS];
    int64_t n_free;
    float *logits;
    struct fake_stats stats;
};

void (*fake_on_step)(const struct engine_row *rows, int64_t n);
int32_t fake_poison = -1;

void fake_logits(const int32_t *tokens, int64_t n, float *ret)
{
    uint64_t h = 1469598103934665603u;
    int64_t copy = -1, bos = -1;
    for (int64_t i = 0; i < n; i++) {
        h = (h ^ (uint64_t)tokens[i]) * 1099511628211u;
        copy = tokens[i] == FAKE_COPY && copy < 0 ? i : copy;
        bos = tokens[i] == FAKE_BOS && copy < 0 ? i : bos;
    }
    for (int i = 0; i < FAKE_VOCAB; i++) {
        ret[i] = (float)(2 * test_uniform(&h));
    }
    ret[FAKE_END] = -3; /* rare by itself */
    ret[FAKE_NEVER] = -60;
    if (copy >= 0) {
        int64_t at = bos + 1 + (n - copy - 1);
        ret[at < copy ? tokens[at] : FAKE_END] = 9;
    }
}

static int take_block(struct engine *en)
{
    CHECK(en->n_free > 0);
    for (int i = 0; i < en->info.n_blocks; i++) {
        if (en->refs[i] == 0) {
            en->refs[i] = 1;
            en->n_free--;
            return i;
        }
    }
    TEST_FAIL("no free block");
}

static void drop_block(struct engine *en, int b)
{
    CHECK(en->refs[b] > 0);
    en->n_free += --en->refs[b] == 0;
}

static struct engine_seq *free_seq(struct engine *en)
{
    for (int64_t i = 0; i < en->n_seqs; i++) {
        if (!en->seqs[i].is_used) {
            en->stats.n_seqs++;
            en->seqs[i].is_used = true;
            en->seqs[i].n = en->seqs[i].n_blocks = 0;
            return &en->seqs[i];
        }
    }
    return NULL;
}

int engine_seq_create(struct engine *en, struct engine_seq **ret)
{
    *ret = free_seq(en);
    return *ret ? 0 : -ENOSPC;
}

int engine_seq_fork(struct engine *en, const struct engine_seq *from, struct engine_seq **ret)
{
    struct engine_seq *s = free_seq(en);
    if (!s) {
        return -ENOSPC;
    }
    en->stats.n_forks++;
    s->n = from->n;
    memcpy(s->tokens, from->tokens, (size_t)from->n * sizeof(from->tokens[0]));
    s->n_blocks = (from->n + ENGINE_BLOCK_TOKENS - 1) / ENGINE_BLOCK_TOKENS;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        s->blocks[i] = from->blocks[i];
        en->refs[s->blocks[i]]++;
    }
    *ret = s;
    return 0;
}

void engine_seq_destroy(struct engine *en, struct engine_seq **at)
{
    struct engine_seq *s = *at;
    if (s) {
        CHECK(s->is_used);
        for (int64_t i = 0; i < s->n_blocks; i++) {
            drop_block(en, s->blocks[i]);
        }
        s->is_used = false;
        en->stats.n_seqs--;
        *at = NULL;
    }
}

int64_t engine_seq_length(const struct engine_seq *s)
{
    return s->n;
}

int engine_seq_reserve(struct engine *en, struct engine_seq *s, int64_t n)
{
    CHECK(n >= 0);
    if (s->n + n > en->info.n_ctx) {
        return -ENOSPC;
    }
    int64_t need = (s->n + n + ENGINE_BLOCK_TOKENS - 1) / ENGINE_BLOCK_TOKENS - s->n_blocks;
    int64_t last = s->n / ENGINE_BLOCK_TOKENS;
    bool copies = n > 0 && s->n % ENGINE_BLOCK_TOKENS != 0 && en->refs[s->blocks[last]] > 1;
    if (MAX(need, 0) + copies > en->n_free) {
        return -ENOSPC;
    }
    if (copies) {
        drop_block(en, s->blocks[last]);
        s->blocks[last] = take_block(en);
    }
    for (; need > 0; need--) {
        s->blocks[s->n_blocks++] = take_block(en);
    }
    return 0;
}

int64_t engine_free_blocks(const struct engine *en)
{
    return en->n_free;
}

const int32_t *fake_tokens(const struct engine_seq *s, int64_t *ret_n)
{
    *ret_n = s->n;
    return s->tokens;
}

int engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                const float **ret_logits, struct err *e)
{
    int64_t n_out = 0;
    bool is_poisoned = false;
    CHECK(n >= 1 && n <= en->max_rows);
    if (fake_on_step) {
        fake_on_step(rows, n);
    }
    for (int64_t i = 0; i < n; i++) {
        struct engine_seq *s = rows[i].seq;
        CHECK(s->is_used && rows[i].token >= 0 && rows[i].token < FAKE_VOCAB);
        for (int64_t k = 0; k < i - 1; k++) { /* rows of a sequence stand together */
            CHECK(rows[k].seq != s || rows[i - 1].seq == s);
        }
        CHECK(s->n < s->n_blocks * ENGINE_BLOCK_TOKENS);
        CHECK_INT(en->refs[s->blocks[s->n / ENGINE_BLOCK_TOKENS]],
                  1); /* nobody else sees the write */
        s->tokens[s->n++] = rows[i].token;
        is_poisoned = is_poisoned || rows[i].token == fake_poison;
        if (rows[i].want_logits) {
            CHECK(n_out < en->max_logits);
            float *x = en->logits + n_out * FAKE_VOCAB;
            fake_logits(s->tokens, s->n, x);
            ret_logits[n_out++] = x;
        }
    }
    en->stats.n_steps++;
    en->stats.n_rows += n;
    en->stats.max_rows = MAX(en->stats.max_rows, n);
    return is_poisoned ? err_set(e, ERR_NUMERIC, "a poisoned row") : 0;
}

struct fake_stats fake_stats(const struct engine *en)
{
    struct fake_stats s = en->stats;
    s.n_free_blocks = en->n_free;
    return s;
}

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}

const struct gguf *engine_gguf(const struct engine *en)
{
    (void)en;
    return NULL;
}

int engine_open(const char *path, const struct engine_options *o, struct engine **ret,
                struct err *e)
{
    (void)path;
    (void)o;
    (void)ret;
    return err_set(e, ERR_GGUF_MAGIC, "a fake opens no file");
}

void engine_close(struct engine **en)
{
    if (*en) {
        CHECK_INT((*en)->stats.n_seqs, 0);
        CHECK_INT((*en)->n_free, (*en)->info.n_blocks);
        free((*en)->logits);
        free(*en);
        *en = NULL;
    }
}

void fake_models_init(struct models *m, size_t n, int64_t n_seqs, int64_t chunk_rows,
                      int64_t n_blocks, int64_t n_ctx)
{
    CHECK(n_seqs <= MAX_SEQS && n_blocks <= MAX_BLOCKS && n_ctx <= MAX_CTX);
    *m = (struct models){
        .n = n, .n_seqs = n_seqs, .chunk_rows = chunk_rows, .max_logits = n_seqs + 16};
    for (size_t i = 0; i < n; i++) {
        struct engine *en = calloc(1, sizeof(*en));
        CHECK(en);
        en->info = (struct engine_info){.arch = "fake",
                                        .name = "fake",
                                        .quant = "F32",
                                        .device = "test",
                                        .n_vocab = FAKE_VOCAB,
                                        .n_ctx = n_ctx,
                                        .n_ctx_train = n_ctx,
                                        .n_blocks = n_blocks};
        en->max_rows = n_seqs + chunk_rows;
        en->max_logits = m->max_logits;
        en->n_seqs = n_seqs;
        en->n_free = n_blocks;
        en->logits = calloc((size_t)m->max_logits * FAKE_VOCAB, sizeof(float));
        struct model *v = &m->v[i];
        v->engine = en;
        char warn[160];
        CHECK_INT(tokenizer_create(NULL, &v->tokenizer, warn, NULL), 0);
        v->name = strdup(i ? "second" : "first");
        v->path = strdup("/dev/null");
        v->bos_text = strdup("<s>");
        v->eos_text = strdup("</s>");
        v->end_ids = malloc(sizeof(int32_t));
        v->end_ids[0] = FAKE_END;
        v->n_end_ids = 1;
        v->n_vocab = FAKE_VOCAB;
        v->n_ctx = MIN(n_ctx, n_blocks * ENGINE_BLOCK_TOKENS);
    }
}

void fake_models_finish(struct models *m)
{
    models_finish(m);
}
