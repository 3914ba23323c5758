/* Sampling (see sampler.h for order and formulas). One thread at a time; blocks never.
 *
 * Logits are read in blocks of SCAN_BLOCK ids. A block with penalized or biased ids is copied to a
 * small buffer and changed there, so nobody's logits are touched and no copy of the vocabulary is
 * made. Without top-k, typical and top-p, nothing is gathered at all; otherwise the survivors stand
 * in `pool`, always by rising id. All memory is taken at creation; the kernel backs only what is
 * used. */
#include "worker/sampler_state.h"

#include "shared/philox.h"
#include "worker/scan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    RADIX_BITS = 11,
    RADIX_BINS = SAMPLER_BINS,
};

/* ---- reading logits ---- */

struct reader {
    const struct penalty *penalty; /* NULL: the logits as they are */
    const float *logits;
    int64_t n_vocab, n_blocks;
    float copy[SCAN_BLOCK];
};

static void reader_init(struct reader *r, const struct penalty *penalty, const float *logits,
                        int64_t n_vocab)
{
    r->penalty = penalty;
    r->logits = logits;
    r->n_vocab = n_vocab;
    r->n_blocks = (n_vocab + SCAN_BLOCK - 1) / SCAN_BLOCK;
}

static int64_t block_length(const struct reader *r, int64_t block)
{
    return MIN(r->n_vocab - block * SCAN_BLOCK, (int64_t)SCAN_BLOCK);
}

/* Valid until the next call. */
static const float *block_logits(struct reader *r, int64_t block)
{
    const float *x = r->logits + block * SCAN_BLOCK;
    return r->penalty ? penalty_apply(r->penalty, x, block, block_length(r, block), r->copy) : x;
}

static float find_max(struct reader *r, int32_t *ret_id)
{
    float best = -INFINITY;
    int64_t best_block = 0;
    for (int64_t b = 0; b < r->n_blocks; b++) {
        float m = scan_max(block_logits(r, b), block_length(r, b));
        if (m > best) {
            best = m;
            best_block = b;
        }
    }
    const float *x = block_logits(r, best_block);
    int64_t n = block_length(r, best_block), i = 0;
    while (i < n - 1 && x[i] != best) {
        i++;
    }
    *ret_id = (int32_t)(best_block * SCAN_BLOCK + i);
    return best;
}

/* ---- the best k ---- */

static bool is_worse(const struct candidate *a, const struct candidate *b)
{
    return a->logit < b->logit || (a->logit == b->logit && a->id > b->id);
}

/* heap[0] is the worst; restores that order downwards from i. */
static void sift_down(struct candidate *heap, int64_t n, int64_t i)
{
    for (;;) {
        int64_t worst = i;
        for (int64_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++) {
            worst = is_worse(&heap[c], &heap[worst]) ? c : worst;
        }
        if (worst == i) {
            return;
        }
        struct candidate t = heap[i];
        heap[i] = heap[worst];
        heap[worst] = t;
        i = worst;
    }
}

/* Fills heap with the k best, heap[0] the worst of them. */
static void best_k(struct reader *r, struct candidate *heap, int64_t k)
{
    int64_t n = 0;
    for (int64_t b = 0; b < r->n_blocks; b++) {
        const float *x = block_logits(r, b);
        int64_t len = block_length(r, b);
        if (n == k && !(scan_max(x, len) > heap[0].logit)) {
            continue;
        }
        for (int64_t i = 0; i < len; i++) {
            struct candidate c = {.id = (int32_t)(b * SCAN_BLOCK + i), .logit = x[i]};
            if (n < k) {
                heap[n++] = c;
                for (int64_t j = n == k ? k / 2 : 0; j-- > 0;) {
                    sift_down(heap, k, j);
                }
            } else if (x[i] > heap[0].logit) { /* an equal one has a higher id: worse */
                heap[0] = c;
                sift_down(heap, k, 0);
            }
        }
    }
}

/* ---- filters over the pool ---- */

/* Gathers what lies at or above `floor`, of those equal to it only ids up to last_id. */
static void gather(struct sampler *s, struct reader *r, float max, float floor, int32_t last_id)
{
    s->n_pool = 0;
    for (int64_t b = 0; b < r->n_blocks; b++) {
        const float *x = block_logits(r, b);
        int64_t len = block_length(r, b);
        if (!(scan_max(x, len) >= floor)) {
            continue;
        }
        for (int64_t i = 0; i < len; i++) {
            int32_t id = (int32_t)(b * SCAN_BLOCK + i);
            if (x[i] > floor || (x[i] == floor && id <= last_id)) {
                ASSERT(s->n_pool < s->pool_max);
                s->pool[s->n_pool++] =
                    (struct candidate){.id = id, .logit = x[i], .weight = scan_exp(x[i] - max)};
            }
        }
    }
}

/* Maps a float to an unsigned number of the same order. */
static uint32_t ordered_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* Keeps the candidates of the smallest keys (lower ids first among equals) whose mass reaches
 * `mass`, at least one. The key at the border is found digit by digit, so no sort is needed. */
static void keep_mass(struct sampler *s, double mass)
{
    uint32_t prefix = 0, mask = 0;
    double below = 0; /* mass of the keys before the prefix */
    for (int shift = 32 - RADIX_BITS; shift > -RADIX_BITS; shift -= RADIX_BITS) {
        int at = MAX(shift, 0);
        memset(s->bins, 0, sizeof(s->bins));
        for (int64_t i = 0; i < s->n_pool; i++) {
            uint32_t u = ordered_bits(s->pool[i].key);
            if ((u & mask) == prefix) {
                s->bins[u >> at & (RADIX_BINS - 1)] += (double)s->pool[i].weight;
            }
        }
        uint32_t bin = 0, last = 0;
        for (; bin < RADIX_BINS && (s->bins[bin] == 0 || below + s->bins[bin] < mass); bin++) {
            below += s->bins[bin];
            last = s->bins[bin] > 0 ? bin : last;
        }
        if (bin == RADIX_BINS) { /* rounding: the whole is a hair less than asked for */
            bin = last;
            below -= s->bins[bin];
        }
        prefix = (prefix & ~((uint32_t)(RADIX_BINS - 1) << at)) | bin << at;
        mask |= (uint32_t)(RADIX_BINS - 1) << at;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_pool; i++) {
        uint32_t u = ordered_bits(s->pool[i].key);
        if (u < prefix || (u == prefix && (below < mass || n == 0))) {
            below += u == prefix ? (double)s->pool[i].weight : 0;
            s->pool[n++] = s->pool[i];
        }
    }
    s->n_pool = n;
}

double sampler_pool_mass(const struct sampler *s)
{
    double sum = 0;
    for (int64_t i = 0; i < s->n_pool; i++) {
        sum += (double)s->pool[i].weight;
    }
    return sum;
}

static void filter_typical(struct sampler *s, float max)
{
    double total = sampler_pool_mass(s), log_total = log(total), entropy = 0;
    for (int64_t i = 0; i < s->n_pool; i++) {
        const struct candidate *c = &s->pool[i];
        double surprise = log_total - ((double)c->logit - (double)max);
        entropy += c->weight > 0 ? (double)c->weight / total * surprise : 0;
    }
    for (int64_t i = 0; i < s->n_pool; i++) {
        struct candidate *c = &s->pool[i];
        double surprise = log_total - ((double)c->logit - (double)max);
        c->key = (float)fabs(surprise - entropy);
    }
    keep_mass(s, total * (double)s->params.typical_p);
}

static void filter_top_p(struct sampler *s, double total)
{
    for (int64_t i = 0; i < s->n_pool; i++) {
        s->pool[i].key = -s->pool[i].logit;
    }
    keep_mass(s, total * (double)s->params.top_p);
}

static float pool_max_logit(const struct sampler *s)
{
    float max = s->pool[0].logit;
    for (int64_t i = 1; i < s->n_pool; i++) {
        max = s->pool[i].logit > max ? s->pool[i].logit : max;
    }
    return max;
}

/* ---- drawing ---- */

/* The logit of min-p's border: probability in proportion to e^logit. */
static float min_p_floor(const struct sampler *s, float max)
{
    float p = s->params.min_p;
    return p > 0 ? MIN(max, max + (float)log((double)p)) : -INFINITY;
}

static float inverse_temperature(const struct sampler *s)
{
    return 1.0f / MAX(s->params.temperature, 1e-6f);
}

static double uniform(const struct sampler *s, uint32_t position)
{
    return philox_uniform(s->params.seed, s->choice, position, 0);
}

static int32_t draw_from_all(struct sampler *s, struct reader *r, float max, uint32_t position)
{
    float scale = inverse_temperature(s), floor = min_p_floor(s, max);
    double total = 0;
    for (int64_t b = 0; b < r->n_blocks; b++) {
        s->block_mass[b] = scan_exp_sum(block_logits(r, b), block_length(r, b), max, scale, floor);
        total += s->block_mass[b];
    }
    double left = uniform(s, position) * total;
    int64_t b = 0,
            last = 0; /* the last block with any mass stands in where rounding runs past the end */
    for (; b < r->n_blocks && left >= s->block_mass[b]; b++) {
        left -= s->block_mass[b];
        last = s->block_mass[b] > 0 ? b : last;
    }
    b = b < r->n_blocks ? b : last;
    const float *x = block_logits(r, b);
    int64_t n = block_length(r, b), chosen = 0;
    for (int64_t i = 0; i < n; i++) {
        float w = x[i] < floor ? 0.0f : scan_exp((x[i] - max) * scale);
        if (w > 0) {
            chosen = i;
            left -= (double)w;
            if (left < 0) {
                break;
            }
        }
    }
    return (int32_t)(b * SCAN_BLOCK + chosen);
}

static int32_t draw_from_pool(struct sampler *s, uint32_t position)
{
    float max = pool_max_logit(s), scale = inverse_temperature(s);
    float floor = min_p_floor(s, max);
    double total = 0;
    for (int64_t i = 0; i < s->n_pool; i++) {
        struct candidate *c = &s->pool[i];
        c->weight = c->logit < floor ? 0.0f : scan_exp((c->logit - max) * scale);
        total += (double)c->weight;
    }
    double left = uniform(s, position) * total;
    int32_t chosen = s->pool[0].id;
    for (int64_t i = 0; i < s->n_pool; i++) {
        if (s->pool[i].weight > 0) {
            chosen = s->pool[i].id;
            left -= (double)s->pool[i].weight;
            if (left < 0) {
                break;
            }
        }
    }
    return chosen;
}

int32_t sampler_draw_pool(struct sampler *s, float max, double total, uint32_t position)
{
    if (s->params.typical_p < 1) {
        filter_typical(s, max);
        total = sampler_pool_mass(s);
    }
    if (s->params.top_p < 1) {
        filter_top_p(s, total);
    }
    return draw_from_pool(s, position);
}

static int32_t draw(struct sampler *s, const float *logits, uint32_t position)
{
    const struct msg_generate *p = &s->params;
    struct reader r;
    int32_t best_id;
    reader_init(&r, &s->penalty, logits, s->n_vocab);
    float max = find_max(&r, &best_id);
    if (p->temperature == 0) {
        return best_id;
    }
    if (!s->pool) {
        return draw_from_all(s, &r, max, position);
    }
    double total;
    if (p->top_k > 0 && p->top_k < s->n_vocab) {
        best_k(&r, s->pool, p->top_k);
        gather(s, &r, max, s->pool[0].logit, s->pool[0].id);
        total = sampler_pool_mass(s);
    } else {
        total = 0;
        for (int64_t b = 0; b < r.n_blocks; b++) {
            total += scan_exp_sum(block_logits(&r, b), block_length(&r, b), max, 1, -INFINITY);
        }
        /* Ids below (1 - p) / n_vocab have less than 1 - p of the mass together, so top-p never
         * reaches them: the pool stays small. The order of typical knows no such border. */
        bool is_all = p->typical_p < 1;
        double share = (1 - (double)p->top_p) / (double)s->n_vocab;
        float floor = is_all || share <= 0 ? -INFINITY : max + (float)log(total * share) - 0.01f;
        gather(s, &r, max, MIN(floor, max), INT32_MAX);
    }
    if (s->n_pool == 0) {
        return best_id; /* nothing compares: not one number among the logits */
    }
    return sampler_draw_pool(s, max, total, position);
}

void sampler_report(const float *logits, int64_t n_vocab, int32_t id, uint32_t n_ret,
                    struct msg_logprob *ret)
{
    ASSERT(n_ret >= 1 && n_ret <= LIMIT_TOP_LOGPROBS + 1 && (int64_t)n_ret - 1 <= n_vocab);
    struct candidate best[LIMIT_TOP_LOGPROBS + 1];
    struct reader r;
    int32_t best_id;
    reader_init(&r, NULL, logits, n_vocab);
    float max = find_max(&r, &best_id);
    double total = 0;
    for (int64_t b = 0; b < r.n_blocks; b++) {
        total += scan_exp_sum(block_logits(&r, b), block_length(&r, b), max, 1, -INFINITY);
    }
    double log_total = log(total) + (double)max;
    ret[0] = (struct msg_logprob){.id = id, .logprob = (float)((double)logits[id] - log_total)};
    int64_t n = (int64_t)n_ret - 1;
    if (n > 0) {
        best_k(&r, best, n);
    }
    for (; n > 0; n--) { /* the worst comes off first */
        ret[n] = (struct msg_logprob){.id = best[0].id,
                                      .logprob = (float)((double)best[0].logit - log_total)};
        best[0] = best[n - 1];
        sift_down(best, n - 1, 0);
    }
}

int32_t sampler_draw(struct sampler *s, const float *logits, uint32_t position, uint32_t n_ret,
                     struct msg_logprob *ret)
{
    int32_t id = draw(s, logits, position);
    if (n_ret > 0) {
        sampler_report(logits, s->n_vocab, id, n_ret, ret);
    }
    return id;
}

/* ---- life ---- */

static int check_params(const struct msg_generate *p, struct err *e)
{
    const struct {
        const char *name;
        float value, min, max;
    } ranges[] = {
        {"temperature", p->temperature, 0, 100},
        {"top_p", p->top_p, 0, 1},
        {"min_p", p->min_p, 0, 1},
        {"typical_p", p->typical_p, 0, 1},
        {"presence_penalty", p->presence_penalty, -100, 100},
        {"frequency_penalty", p->frequency_penalty, -100, 100},
        {"repeat_penalty", p->repeat_penalty, 0.01f, 100},
    };
    for (size_t i = 0; i < COUNT_OF(ranges); i++) {
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) {
            return err_set(e, ERR_BAD_FIELD, "%s is %g, allowed %g to %g", ranges[i].name,
                           (double)ranges[i].value, (double)ranges[i].min, (double)ranges[i].max);
        }
    }
    return 0;
}

int sampler_create(const struct msg_generate *params, const struct msg_logit_bias *bias,
                   size_t n_bias, uint32_t choice, int64_t n_vocab, struct sampler **ret,
                   struct err *e)
{
    int err = check_params(params, e);
    for (size_t i = 0; err == 0 && i < n_bias; i++) {
        if (bias[i].id < 0 || bias[i].id >= n_vocab) {
            err = err_set(e, ERR_BAD_TOKEN, "logit_bias names token %d, the vocabulary has %lld",
                          bias[i].id, (long long)n_vocab);
        }
    }
    if (err < 0) {
        return err;
    }
    struct sampler *s = calloc(1, sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->params = *params;
    s->choice = choice;
    s->n_vocab = n_vocab;
    bool has_top_k = params->top_k > 0 && params->top_k < n_vocab;
    bool ok = penalty_init(&s->penalty, params, bias, n_bias, n_vocab) == 0;
    s->block_mass = malloc((size_t)(n_vocab / SCAN_BLOCK + 1) * sizeof(*s->block_mass));
    ok = ok && s->block_mass;
    if (params->temperature > 0 && (has_top_k || params->top_p < 1 || params->typical_p < 1)) {
        s->pool_max = has_top_k ? params->top_k : n_vocab;
        s->pool = malloc((size_t)s->pool_max * sizeof(*s->pool));
        ok = ok && s->pool;
    }
    if (!ok) {
        sampler_destroy(&s);
        return -ENOMEM;
    }
    *ret = s;
    return 0;
}

void sampler_accept(struct sampler *s, int32_t id, bool is_prompt)
{
    penalty_accept(&s->penalty, id, is_prompt);
}

void sampler_destroy(struct sampler **sp)
{
    struct sampler *s = *sp;
    if (s) {
        penalty_finish(&s->penalty);
        free(s->pool);
        free(s->block_mass);
        free(s);
        *sp = NULL;
    }
}
