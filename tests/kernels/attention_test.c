/* Attention with its cache against double precision: cache types, grouped heads, head sizes that
 * are no multiple of a vector, windows, sinks, soft caps, ALiBi, values inside keys, scattered
 * blocks, positions past 2048, scores far above the first ones; and each row alone, which must have
 * the same bits. The oracle reads keys and values as the cache's type rounds them. */
#include "kernels/cpu/kv_q8.h"
#include "kernels/cpu/ops_job.h"
#include "kernels/half.h"
#include "shared/num.h"
#include "tests/kernels/ops_rig.h"

struct setup {
    enum type type;
    int64_t n_head, n_kv, dim_k, dim_v, pos, n_rows, window;
    bool v_in_k, has_sinks, has_alibi;
    double softcap;
    double loud; /* queries so many times larger; 0: once */
};

static double rounded(enum type t, float v)
{
    return t == TYPE_F32   ? (double)v
           : t == TYPE_F16 ? (double)half_to_f32(half_from_f32(v))
                           : (double)half_bf16_to_f32(half_bf16_from_f32(v));
}

/* What a cache of this type gives back of n_tokens times n_heads vectors. */
static double *as_cached(enum type type, const struct rig_rows *x, int64_t n_tokens,
                         int64_t n_heads, int64_t dim)
{
    double *y = malloc((size_t)(n_tokens * n_heads * dim) * sizeof *y), *to = y;
    CHECK(y);
    for (int64_t i = 0; i < n_tokens * n_heads; i++, to += dim) {
        const float *from = rig_at(x, i / n_heads) + i % n_heads * dim;
        for (int64_t d = 0; d < dim && type != TYPE_Q8_0; d++) {
            to[d] = rounded(type, from[d]);
        }
        for (int64_t g = 0; g < dim && type == TYPE_Q8_0; g += 32) {
            float most = 0;
            for (int64_t d = g; d < MIN(g + 32, dim); d++) {
                most = fmaxf(most, fabsf(from[d]));
            }
            float unit = half_to_f32(half_from_f32(most / 127));
            for (int64_t d = g; d < MIN(g + 32, dim); d++) {
                double code = unit > 0 ? nearbyint((double)(from[d] * (1 / unit))) : 0;
                to[d] = fmin(fmax(code, -127), 127) * (double)unit;
            }
        }
    }
    return y;
}

/* One head of one row, over the keys and values of all positions. */
static void exact_head(const struct setup *s, const float *q, int64_t pos, int64_t head,
                       const double *k, const double *v, const float *sinks, const float *alibi,
                       double scale, double *y)
{
    int64_t kv = head / (s->n_head / s->n_kv);
    int64_t first = s->window > 0 ? MAX(pos - s->window + 1, (int64_t)0) : 0;
    double *p = calloc((size_t)pos + 1, sizeof *p), max = -INFINITY, sum = 0;
    CHECK(p);
    for (int64_t t = first; t <= pos; t++) {
        for (int64_t d = 0; d < s->dim_k; d++) {
            p[t] += (double)q[d] * k[(t * s->n_kv + kv) * s->dim_k + d];
        }
        p[t] *= scale;
        p[t] = s->softcap > 0 ? s->softcap * tanh(p[t] / s->softcap) : p[t];
        p[t] += alibi ? (double)alibi[head] * (double)(t - pos) : 0;
        max = fmax(max, p[t]);
    }
    max = sinks ? fmax(max, (double)sinks[head]) : max;
    memset(y, 0, (size_t)s->dim_v * sizeof *y);
    for (int64_t t = first; t <= pos; t++) {
        double w = exp(p[t] - max);
        sum += w;
        for (int64_t d = 0; d < s->dim_v; d++) {
            y[d] += w * (s->v_in_k ? k[(t * s->n_kv + kv) * s->dim_k + d]
                                   : v[(t * s->n_kv + kv) * s->dim_v + d]);
        }
    }
    sum += sinks ? exp((double)sinks[head] - max) : 0;
    for (int64_t d = 0; d < s->dim_v; d++) {
        y[d] /= sum;
    }
    free(p);
}

static void exact(const struct setup *s, enum type type, const struct rig_rows *q,
                  const struct rig_rows *k, const struct rig_rows *v, const float *sinks,
                  const float *alibi, double scale, double *ret)
{
    int64_t n_tokens = s->pos + s->n_rows;
    double *keys = as_cached(type, k, n_tokens, s->n_kv, s->dim_k);
    double *values = as_cached(type, v, n_tokens, s->n_kv, s->dim_v);
    for (int64_t r = 0; r < s->n_rows; r++) {
        for (int64_t h = 0; h < s->n_head; h++) {
            exact_head(s, rig_at(q, r) + h * s->dim_k, s->pos + r, h, keys, values, sinks, alibi,
                       scale, ret + (r * s->n_head + h) * s->dim_v);
        }
    }
    free(keys);
    free(values);
}

/* What rounding keys and values to 8 bits costs, whoever computes: relative to exact attention over
 * the exact keys and values. */
static void check_q8_error(const struct setup *s, const struct rig_rows *q,
                           const struct rig_rows *k, const struct rig_rows *v, double scale,
                           const double *with_q8)
{
    int64_t n = s->n_rows * s->n_head * s->dim_v;
    double *with_f32 = malloc((size_t)n * sizeof *with_f32), error = 0, size = 0;
    CHECK(with_f32);
    exact(s, TYPE_F32, q, k, v, NULL, NULL, scale, with_f32);
    for (int64_t i = 0; i < n; i++) {
        error += (with_q8[i] - with_f32[i]) * (with_q8[i] - with_f32[i]);
        size += with_f32[i] * with_f32[i];
    }
    printf("Q8_0 cache, %d dimensions, %d tokens: relative error of attention %.4f\n",
           (int)s->dim_k, (int)(s->pos + s->n_rows), sqrt(error / size));
    CHECK(sqrt(error / size) < 0.02);
    free(with_f32);
}

/* Rows one at a time, as in decode, against the rows together. */
static void check_alone(const struct setup *s, const struct op_attention *together,
                        const struct op_step *step, const int32_t *table)
{
    for (int64_t r = 0; r < s->n_rows; r++) {
        struct rig_rows y = rig_rows(1, s->n_head * s->dim_v);
        struct op_run run = {.n = 1, .pos = s->pos + r, .blocks = table};
        struct op_step one = *step;
        struct op_attention o = *together;
        one.runs = &run;
        o.q.data += r * o.q.stride;
        o.y = y.r;
        op_attention_run(&o, &one, 1);
        CHECK(memcmp(y.r.data, together->y.data + r * together->y.stride,
                     (size_t)(s->n_head * s->dim_v) * sizeof(float)) == 0);
        rig_free(&y);
    }
}

/* Fills the cache with everything before pos by one write, then writes and reads the rows
 * themselves. */
static void check(const struct setup *s)
{
    uint64_t seed = (uint64_t)(s->pos * 131 + s->n_head);
    int64_t n_tokens = s->pos + s->n_rows, n_blocks = (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
    double scale = 1 / sqrt((double)s->dim_k), loud = s->loud > 0 ? s->loud : 1;
    struct rig_rows q = rig_random(s->n_rows, s->n_head * s->dim_k, 2 * loud, &seed);
    struct rig_rows k = rig_random(n_tokens, s->n_kv * s->dim_k, 1.5, &seed);
    struct rig_rows v = rig_random(n_tokens, s->n_kv * s->dim_v, 1, &seed);
    float *sinks = rig_vec(s->n_head, 1, 2, &seed), *alibi = rig_vec(s->n_head, 0.1, 0.1, &seed);
    double *all = malloc((size_t)(s->n_rows * s->n_head * s->dim_v) * sizeof *all);
    struct kv_layer layer = {.type = s->type,
                             .n_head = (int32_t)s->n_kv,
                             .dim_k = (int32_t)s->dim_k,
                             .dim_v = (int32_t)s->dim_v,
                             .v_in_k = s->v_in_k};
    int32_t *table = malloc((size_t)n_blocks * sizeof *table);
    size_t cache_bytes = kv_block_bytes(&layer) * (size_t)(2 * n_blocks + 1);
    CHECK(all && table);
    for (int64_t i = 0; i < n_blocks; i++) {
        table[i] = (int32_t)(i % 2 ? i : 2 * n_blocks - i); /* neither in order nor dense */
    }
    exact(s, s->type, &q, &k, &v, s->has_sinks ? sinks : NULL, s->has_alibi ? alibi : NULL, scale,
          all);
    if (s->type == TYPE_Q8_0) {
        check_q8_error(s, &q, &k, &v, scale, all);
    }
    struct rig g;
    rig_init(&g, s->n_rows, s->pos);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(s->n_rows, s->n_head * s->dim_v);
        struct op_attention o = {.q = q.r,
                                 .y = y.r,
                                 .sinks = s->has_sinks ? sinks : NULL,
                                 .alibi = s->has_alibi ? alibi : NULL,
                                 .n_head = (int32_t)s->n_head,
                                 .window = (int32_t)s->window,
                                 .scale = (float)scale,
                                 .softcap = (float)s->softcap};
        layer.data = malloc(cache_bytes);
        size_t scratch = op_attention_scratch(&o, &layer, n_tokens, g.n_threads);
        g.step.scratch = malloc(scratch);
        CHECK(layer.data && g.step.scratch);
        memset(layer.data, 0xff, cache_bytes); /* NaN in every type: nobody's tokens */
        g.step.kv = &layer;
        struct op_run rows = {.first = 0, .n = s->n_rows, .pos = s->pos, .blocks = table};
        struct op_run past = {.first = 0, .n = s->pos, .pos = 0, .blocks = table};
        struct op_kv_write w = {.k = k.r, .v = s->v_in_k ? (struct op_rows){.buf = -1} : v.r};
        g.step.runs = &past;
        op_kv_write_run(&w, &g.step, s->pos);
        w.k.data = rig_at(&k, s->pos);
        w.v.data = s->v_in_k ? NULL : rig_at(&v, s->pos);
        g.step.runs = &rows;
        op_kv_write_run(&w, &g.step, s->n_rows);
        op_attention_run(&o, &g.step, s->n_rows);
        for (int64_t r = 0; r < s->n_rows; r++) {
            for (int64_t h = 0; h < s->n_head; h++) {
                rig_compare("attention", g.step.isa, rig_at(&y, r) + h * s->dim_v,
                            all + (r * s->n_head + h) * s->dim_v, s->dim_v,
                            loud * (double)ops_error_limit(OP_attention));
            }
        }
        check_alone(s, &o, &g.step, table);
        free(layer.data);
        free(g.step.scratch);
        rig_free(&y);
    }
    rig_free(&q);
    rig_free(&k);
    rig_free(&v);
    free(sinks);
    free(alibi);
    free(all);
    free(table);
}

/* A group's extremes: what is not finite stays so, what is too small becomes 0, nothing
 * overflows. */
static void check_q8_extremes(void)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    float x[KV_Q8_GROUP] = {0};
    int8_t q[KV_Q8_GROUP];
    CHECK(half_to_f32(kv_q8_put(q, 1, x, KV_Q8_GROUP)) == 0 && q[0] == 0);
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        x[31] = odd[i];
        float back = half_to_f32(kv_q8_put(q, 1, x, KV_Q8_GROUP)) * (float)q[31];
        CHECK(isnan(back));
    }
    x[31] = 1e-40f;
    CHECK(half_to_f32(kv_q8_put(q, 1, x, KV_Q8_GROUP)) * (float)q[31] == 0);
    x[31] = -3e38f; /* past what a binary16 scale reaches: the largest that it does */
    CHECK(half_to_f32(kv_q8_put(q, 1, x, KV_Q8_GROUP)) * (float)q[31] == -65504.0f * 127);
}

int main(void)
{
    check_q8_extremes();
    static const struct setup setups[] = {
        {TYPE_F32, 1, 1, 1, 1, 0, 1, 0, false, false, false, 0, 0},
        {TYPE_F32, 4, 2, 64, 64, 0, 33, 0, false, false, false, 0, 0},
        {TYPE_F16, 7, 1, 64, 64, 250, 17, 0, false, false, false, 0, 0},
        {TYPE_BF16, 4, 4, 80, 80, 31, 3, 0, false, false, false, 0, 0},
        {TYPE_F16, 2, 1, 40, 24, 300, 5, 0, false, false, false, 0, 0},
        {TYPE_F32, 2, 2, 33, 31, 15, 2, 0, false, false, false, 0, 0},
        {TYPE_F16, 8, 2, 64, 64, 2100, 1, 0, false, false, false, 0, 0},
        {TYPE_F16, 8, 2, 64, 64, 2100, 9, 0, false, true, false, 0, 0},
        {TYPE_F16, 4, 2, 64, 64, 1000, 40, 300, false, true, false, 0, 0},
        {TYPE_F32, 4, 2, 64, 64, 500, 20, 16, false, false, false, 50, 0},
        {TYPE_F32, 5, 5, 32, 32, 280, 4, 0, false, false, true, 0, 0},
        {TYPE_F16, 40, 1, 96, 64, 260, 3, 0, true, false, false, 0, 0},
        {TYPE_F16, 140, 4, 16, 16, 40, 2, 0, false, false, false, 0, 0},
        {TYPE_F32, 16, 1, 72, 64, 10, 2, 0, true, false, false, 0, 0},
        {TYPE_F16, 2, 2, 256, 256, 511, 2, 1, false, false, false, 0, 0},
        {TYPE_Q8_0, 8, 2, 64, 64, 2100, 3, 0, false, false, false, 0, 0},
        {TYPE_Q8_0, 4, 2, 80, 80, 300, 70, 0, false, false, false, 0, 0},
        {TYPE_Q8_0, 2, 2, 33, 31, 15, 2, 0, false, false, false, 0, 0},
        {TYPE_Q8_0, 1, 1, 1, 1, 0, 1, 0, false, false, false, 0, 0},
        {TYPE_Q8_0, 40, 1, 96, 64, 260, 3, 0, true, false, false, 0, 0},
        {TYPE_F16, 8, 2, 64, 64, 1300, 3, 0, false, true, false, 0, 40},
        {TYPE_F32, 4, 2, 64, 64, 1300, 20, 100, false, false, false, 0, 40},
    };
    for (size_t i = 0; i < COUNT_OF(setups); i++) {
        check(&setups[i]);
    }
    return 0;
}
