#include "tests/worker/fake_engine.h"
#include "tests/test.h"
#include "tests/worker/fake_tokenizer.h"
#include "worker/canary.h"
#include "worker/engine_state.h"
#include "worker/kv_tree.h"

enum { MAX_CTX = 8192, STATE_FLOATS = 2, MAX_LOGITS = 1024 };

struct fake {
    struct engine en; /* first: a struct engine is a struct fake */
    struct kv_layer layer;
    struct op_state state;
    float *logits;
    int32_t n_top[MAX_LOGITS]; /* of the last step */
    struct fake_stats stats;
};

void (*fake_on_step)(const struct engine_row *rows, int64_t n);
int32_t fake_poison = -1;
bool fake_has_ways;
static bool is_other_way; /* until a step gives logits */
int32_t fake_n_snapshots;
uint64_t fake_block_bytes;
_Atomic int fake_n_unsettled;
static const struct engine *newest; /* opened or stepped last: of the sequences that are asked for */

static struct fake *fake_of(struct engine *en)
{
    return (struct fake *)(void *)en;
}

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

/* --- what stands in the cache: K is the token, V its position --------------------------------------*/

bool engine_mark_ops(struct engine *en, _Atomic uint32_t *mark)
{
    en->op_mark = mark;
    return true;
}

struct pace_rates engine_glance(struct engine *en)
{
    (void)en;
    return (struct pace_rates){0};
}

static float *cell(const struct engine *en, const struct engine_seq *s, int64_t i)
{
    float *k = (float *)(void *)kv_head(&en->program.kv[0], s->blocks[i / KV_BLOCK], 0);
    return k + i % KV_BLOCK;
}

static const int32_t *read_tokens(const struct engine *en, const struct engine_seq *s, int64_t n)
{
    static int32_t tokens[MAX_CTX];
    for (int64_t i = 0; i < n; i++) {
        const float *k = cell(en, s, i);
        tokens[i] = (int32_t)k[0];
        CHECK_INT((int64_t)k[KV_BLOCK], i);
    }
    return tokens;
}

const int32_t *fake_tokens(const struct engine_seq *s, int64_t *ret_n)
{
    *ret_n = s->n_tokens;
    return read_tokens(newest, s, s->n_tokens);
}

/* The recurrent state: a hash of the tokens. */
static uint64_t next_state(uint64_t h, int32_t token)
{
    return (h ^ (uint64_t)(token + 1)) * 1099511628211u;
}

static void advance_state(struct fake *f, const struct engine_seq *s, int32_t token)
{
    float *at = f->state.data + s->slot * STATE_FLOATS;
    uint64_t h;
    memcpy(&h, at, sizeof h);
    h = next_state(h, token);
    memcpy(at, &h, sizeof h);
}

static void check_state(const struct fake *f, const struct engine_seq *s, const int32_t *tokens,
                        int64_t n)
{
    uint64_t h, expected = 0;
    memcpy(&h, f->state.data + s->slot * STATE_FLOATS, sizeof h);
    for (int64_t i = 0; i < n; i++) {
        expected = next_state(expected, tokens[i]);
    }
    CHECK(h == expected);
}

/* --- steps -----------------------------------------------------------------------------------------*/

static void compute_row(struct fake *f, const struct engine_row *row, int64_t pos)
{
    struct engine *en = &f->en;
    struct engine_seq *s = row->seq;
    CHECK(s->is_used && row->token >= 0 && row->token < FAKE_VOCAB);
    CHECK(pos < s->n_blocks * KV_BLOCK);
    const struct kv_block *b = &en->kv.blocks[s->blocks[pos / KV_BLOCK]];
    CHECK(b->n_refs == 1 && b->n_ids == 0); /* nobody else sees the write */
    float *k = cell(en, s, pos);
    k[0] = (float)row->token;
    k[KV_BLOCK] = (float)pos;
    if (en->program.n_states > 0) {
        advance_state(f, s, row->token);
    }
}

int engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                const float **ret_logits, struct err *e)
{
    struct fake *f = fake_of(en);
    int32_t ids[2 * MAX_CTX];
    bool is_poisoned = false;
    int64_t n_out = 0;
    CHECK(n >= 1 && n <= en->options.max_rows && n <= (int64_t)COUNT_OF(ids));
    newest = en;
    if (fake_on_step) {
        fake_on_step(rows, n);
    }
    for (int64_t i = 0; i < n; i++) {
        ids[i] = rows[i].token;
        is_poisoned = is_poisoned || (ids[i] == fake_poison && !is_other_way);
    }
    uint64_t seen = 0;
    for (int64_t first = 0, end; first < n; first = end) {
        struct engine_seq *s = rows[first].seq;
        CHECK(!(seen >> s->slot & 1)); /* rows of a sequence stand together */
        seen |= (uint64_t)1 << s->slot;
        for (end = first; end < n && rows[end].seq == s; end++) {
            int64_t pos = s->n_tokens + end - first;
            compute_row(f, &rows[end], pos);
            if (rows[end].want_logits) {
                CHECK(n_out < en->options.max_logits && n_out < MAX_LOGITS);
                float *x = f->logits + n_out * FAKE_VOCAB;
                const int32_t *tokens = read_tokens(en, s, pos + 1);
                if (en->program.n_states > 0) {
                    check_state(f, s, tokens, pos + 1);
                }
                fake_logits(tokens, pos + 1, x);
                f->n_top[n_out] = rows[end].n_top;
                ret_logits[n_out++] = rows[end].n_top > 0 ? NULL : x;
            }
        }
        s->is_spoiled = s->is_spoiled || is_poisoned;
        engine_seq_advance(en, s, ids + first, end - first);
    }
    f->stats.n_steps++;
    f->stats.n_rows += n;
    f->stats.max_rows = MAX(f->stats.max_rows, n);
    is_other_way = is_poisoned ? fake_has_ways : is_other_way && n_out == 0;
    return is_poisoned ? err_set(e, ERR_NUMERIC, "a poisoned row") : 0;
}

/* As on a device: who asked for the largest gets these, and the others when they are fetched. */
struct engine_top engine_top(const struct engine *en, int64_t i)
{
    static float values[ENGINE_TOP];
    static int32_t ids[ENGINE_TOP];
    const struct fake *f = (const struct fake *)(const void *)en;
    const float *x = f->logits + i * FAKE_VOCAB;
    struct engine_top top = {.values = values, .ids = ids};
    CHECK(f->n_top[i] > 0 && f->n_top[i] <= ENGINE_TOP);
    for (; top.n < MIN(f->n_top[i], FAKE_VOCAB); top.n++) {
        int32_t best = -1;
        for (int32_t k = 0; k < FAKE_VOCAB; k++) {
            bool is_after = top.n == 0 || x[k] < values[top.n - 1] ||
                            (x[k] == values[top.n - 1] && k > ids[top.n - 1]);
            best = is_after && (best < 0 || x[k] > x[best]) ? k : best;
        }
        values[top.n] = x[best];
        ids[top.n] = best;
    }
    return top;
}

const float *engine_logits(struct engine *en, int64_t i)
{
    CHECK(fake_of(en)->n_top[i] > 0);
    return fake_of(en)->logits + i * FAKE_VOCAB;
}

struct fake_stats fake_stats(const struct engine *en)
{
    struct fake_stats s = ((const struct fake *)(const void *)en)->stats;
    for (int64_t i = 0; i < en->options.n_seqs; i++) {
        s.n_seqs += en->seqs[i].is_used;
    }
    return s;
}

/* --- invariants ------------------------------------------------------------------------------------*/

static void check_blocks(const struct kv_pool *p, const int32_t *n_refs, const int32_t *n_children)
{
    int64_t n_idle = 0, n_free = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        const struct kv_block *b = &p->blocks[i];
        CHECK_INT(b->n_refs, n_refs[i]);
        n_idle += b->n_refs == 0 && b->n_ids > 0;
        n_free += i < p->limit && b->n_refs == 0 && b->n_ids == 0;
        CHECK(i < p->limit || (b->n_refs == 0 && b->n_ids == 0));
        if (b->n_ids > 0) {
            CHECK_INT(b->n_children, n_children[i]);
            CHECK(b->n_refs == 0 || b->parent == kv_root(p) || p->blocks[b->parent].n_refs > 0);
            if (b->n_ids == KV_BLOCK) {
                CHECK_INT(kv_tree_find(p, b->parent, p->ids + (int64_t)i * KV_BLOCK), i);
            } else {
                CHECK(b->n_refs == 0 && b->n_children == 0);
            }
        }
    }
    CHECK_INT(n_idle, p->n_idle);
    CHECK_INT(n_free, p->n_free);
}

void fake_check(const struct engine *en)
{
    const struct kv_pool *p = &en->kv;
    int32_t *n_refs = calloc((size_t)p->n_blocks, sizeof *n_refs);
    int32_t *n_children = calloc((size_t)p->n_blocks + 1, sizeof *n_children);
    CHECK(n_refs && n_children);
    for (int64_t i = 0; i < en->options.n_seqs; i++) {
        const struct engine_seq *s = &en->seqs[i];
        for (int64_t k = 0; s->is_used && k < s->n_blocks; k++) {
            n_refs[s->blocks[k]]++;
        }
    }
    for (int64_t i = 0; i < p->n_blocks; i++) {
        if (p->blocks[i].n_ids > 0) {
            n_children[p->blocks[i].parent]++;
        }
    }
    check_blocks(p, n_refs, n_children);
    CHECK_INT(p->blocks[kv_root(p)].n_children, n_children[p->n_blocks]);
    for (int32_t i = 0; i < p->n_snapshots; i++) {
        int32_t b = p->snapshots[i].block;
        CHECK(b == KV_NONE || (p->blocks[b].n_ids == KV_BLOCK && p->blocks[b].snapshot == i));
    }
    free(n_refs);
    free(n_children);
}

/* --- life ------------------------------------------------------------------------------------------*/

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}

void engine_put_profile(struct engine *en, struct buf *b)
{
    (void)en;
    buf_str(b, "null");
}

void engine_put_placement(const struct engine *en, struct buf *b)
{
    (void)en;
    buf_str(b, "null");
}

const struct gguf *engine_gguf(const struct engine *en)
{
    (void)en;
    return NULL;
}

void engine_claim_stores(const struct engine_options *o, const uint8_t fingerprint[32])
{
    (void)o;
    (void)fingerprint;
}

void engine_drop_stores(const struct engine_options *o, const uint8_t fingerprint[32],
                        bool keeps_cache)
{
    (void)o;
    (void)fingerprint;
    (void)keeps_cache;
}

uint64_t engine_vram_bytes(const struct engine *en)
{
    return fake_block_bytes * (uint64_t)en->kv.limit + 4 * fake_block_bytes;
}

uint64_t engine_vram_block_bytes(const struct engine *en)
{
    (void)en;
    return fake_block_bytes;
}

const char *engine_way(const struct engine *en)
{
    (void)en;
    return "fake";
}

uint32_t engine_n_ways_off(const struct engine *en)
{
    (void)en;
    return 0;
}

void engine_put_ways(const struct engine *en, struct buf *b)
{
    (void)en;
    buf_str(b, "[]");
}

bool engine_can_retry(const struct engine *en)
{
    (void)en;
    return is_other_way;
}

bool engine_settle(struct engine *en)
{
    (void)en;
    return fake_n_unsettled > 0 && --fake_n_unsettled > 0;
}

void canary_check(struct engine *en)
{
    (void)en;
}

int64_t engine_resize_kv(struct engine *en, int64_t n_blocks)
{
    return engine_seq_limit(en, n_blocks);
}

int engine_open(const char *path, const struct engine_options *o, struct engine **ret,
                struct err *e)
{
    (void)path;
    (void)o;
    (void)ret;
    return err_set(e, ERR_GGUF_MAGIC, "a fake opens no file");
}

int engine_estimate(const struct gguf *g, const struct engine_options *o, struct engine_info *ret,
                    struct err *e)
{
    (void)g;
    (void)o;
    (void)ret;
    return err_set(e, ERR_GGUF_MAGIC, "a fake opens no file");
}

void engine_close(struct engine **at)
{
    if (!*at) {
        return;
    }
    struct fake *f = fake_of(*at);
    struct engine *en = *at;
    CHECK_INT(fake_stats(en).n_seqs, 0);
    CHECK_INT(engine_free_blocks(en), en->kv.limit);
    fake_check(en);
    kv_pool_finish(&en->kv);
    free(en->tables);
    free(en->seqs);
    free(en->states);
    free(f->logits);
    free(f);
    *at = NULL;
}

static struct engine *open_fake(int64_t n_seqs, int64_t max_rows, int64_t max_logits,
                                int64_t n_blocks, int64_t n_ctx)
{
    struct fake *f = calloc(1, sizeof(*f));
    CHECK(f);
    struct engine *en = &f->en;
    f->layer = (struct kv_layer){.type = TYPE_F32, .n_head = 1, .dim_k = 1, .dim_v = 1};
    en->info = (struct engine_info){.arch = "fake",
                                    .name = "fake",
                                    .quant = "F32",
                                    .device = "test",
                                    .n_vocab = FAKE_VOCAB,
                                    .n_ctx = n_ctx,
                                    .n_ctx_train = n_ctx,
                                    .n_blocks = n_blocks,
                                    .n_snapshots = fake_n_snapshots};
    en->options = (struct engine_options){
        .n_seqs = n_seqs, .max_rows = max_rows, .max_logits = max_logits};
    CHECK_INT(kv_pool_init(&en->kv, &f->layer, 1, n_blocks, fake_n_snapshots, 7), 0);
    newest = en;
    en->program.kv = &f->layer;
    en->program.states = &f->state;
    en->program.n_states = fake_n_snapshots > 0;
    en->max_blocks = n_ctx / KV_BLOCK + 1;
    en->tables = calloc((size_t)(n_seqs * en->max_blocks), sizeof *en->tables);
    en->seqs = calloc((size_t)n_seqs, sizeof *en->seqs);
    en->states = calloc((size_t)(n_seqs + fake_n_snapshots), STATE_FLOATS * sizeof(float));
    f->logits = calloc((size_t)max_logits * FAKE_VOCAB, sizeof(float));
    CHECK(en->tables && en->seqs && en->states && f->logits);
    f->state = (struct op_state){.data = en->states, .slot_floats = STATE_FLOATS};
    en->snapshots = en->states + n_seqs * STATE_FLOATS;
    en->snapshot_floats = STATE_FLOATS;
    for (int32_t i = 0; i < n_seqs; i++) {
        en->seqs[i].slot = i;
        en->seqs[i].blocks = en->tables + i * en->max_blocks;
    }
    return en;
}

void fake_models_init(struct models *m, size_t n, int64_t n_seqs, int64_t chunk_rows,
                      int64_t n_blocks, int64_t n_ctx)
{
    CHECK(n_seqs <= LIMIT_SLOTS && n_ctx <= MAX_CTX);
    *m = (struct models){
        .n = n, .max_loaded = n, .n_seqs = n_seqs, .chunk_rows = chunk_rows, .max_logits = n_seqs + 16};
    for (size_t i = 0; i < n; i++) {
        struct model *v = &m->v[i];
        v->engine = open_fake(n_seqs, n_seqs + chunk_rows, m->max_logits, n_blocks, n_ctx);
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
        models_describe(v);
    }
}

void fake_models_finish(struct models *m)
{
    models_finish(m);
}
