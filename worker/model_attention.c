/* Building programs: rotary embedding, attention. */
#include "worker/model_tensor.h"

#include "shared/limits.h"

#include <math.h>
#include <stdio.h>

/* --- RoPE --------------------------------------------------------------------------------------*/

/* Divisors of the frequencies that come with the file: Llama 3's, LongRoPE's for long and short. */
static const float *freq_factors(struct model *m, int64_t n_pairs, int64_t n_ctx_original)
{
    const char *name = m->n_ctx > n_ctx_original ? "rope_factors_long.weight"
                                                 : "rope_factors_short.weight";
    const float *factors = model_vec_maybe(m, name, n_pairs);
    model_tensor_maybe(m, "rope_factors_long.weight");
    model_tensor_maybe(m, "rope_factors_short.weight");
    return factors ? factors : model_vec_maybe(m, "rope_freqs.weight", n_pairs);
}

/* YaRN (Peng et al. 2023): the pair index at which a wave makes `turns` turns in the original
 * context. */
static double yarn_pair(double n_rot, double n_ctx, double turns, double base)
{
    return n_rot * log(n_ctx / (turns * 2 * M_PI)) / (2 * log(base));
}

static double yarn_magnitude(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

enum { MAX_SECTION = 1 << 16 };

/* Whether pair i stands still in text: it belongs to the fourth section. */
static bool stands_still(struct model *m, const struct model_rope_spec *spec, int64_t i)
{
    const struct gguf_kv *kv = model_find(m, "rope.dimension_sections");
    if (spec->sections == MODEL_ROPE_ONE || !kv || kv->kind != GGUF_ARRAY || kv->n < 3 ||
        kv->elem_kind == GGUF_STRING) {
        return false;
    }
    int64_t size[4] = {0}, total = 0; /* the sections repeat when there are more pairs */
    for (uint64_t k = 0; k < MIN(kv->n, (uint64_t)4); k++) {
        double v = gguf_elem_f64(kv, k);
        size[k] = v >= 0 && v <= MAX_SECTION ? (int64_t)v : 0;
        total += size[k];
    }
    int64_t at = total > 0 ? i % total : i;
    return spec->sections == MODEL_ROPE_INTERLEAVED ? at >= 3 * size[at % 3]
                                                    : at >= size[0] + size[1] + size[2];
}

double model_yarn_factor(struct model *m)
{
    bool is_yarn = model_key_is(m, "rope.scaling.type", "yarn");
    double factor = model_num(m, "rope.scaling.factor", 0, 1e6, 1);
    return is_yarn && factor > 1 ? factor : 1;
}

struct model_rope model_rope(struct model *m, const struct model_rope_spec *spec)
{
    struct model_rope rope = {.n_rot = (int32_t)spec->n_rot, .adjacent = spec->adjacent};
    int64_t n_rot = spec->n_rot, n = n_rot / 2;
    double base = spec->base;
    bool is_plain = spec->is_plain;
    double *inv_freq = model_alloc(m, (size_t)MAX(n, (int64_t)1) * sizeof *inv_freq);
    if (!inv_freq || m->status < 0) {
        return rope;
    }
    int64_t n_orig = model_int(m, "rope.scaling.original_context_length", 1, INT32_MAX,
                               m->n_ctx_train);
    double factor = model_num(m, "rope.scaling.factor", 0, 1e6,
                              model_num(m, "rope.scale_linear", 0, 1e6, 1));
    factor = factor == 0 || is_plain || model_key_is(m, "rope.scaling.type", "none") ? 1 : factor;
    bool is_yarn = !is_plain && model_key_is(m, "rope.scaling.type", "yarn");
    const float *divisor = is_plain ? NULL : freq_factors(m, n, n_orig);
    double slow = model_num(m, "rope.scaling.yarn_beta_slow", 0, 1e6, 1);
    double fast = model_num(m, "rope.scaling.yarn_beta_fast", 0, 1e6, 32);
    double low = floor(yarn_pair((double)n_rot, (double)n_orig, fast, base));
    double high = ceil(yarn_pair((double)n_rot, (double)n_orig, slow, base));
    low = fmax(low, 0);
    high = fmin(high, (double)n_rot - 1);

    for (int64_t i = 0; i < n; i++) {
        double freq = pow(base, -2.0 * (double)i / (double)n_rot);
        freq = divisor ? freq / (double)divisor[i] : freq;
        double scaled = freq / factor;
        if (is_yarn) {
            double ramp = ((double)i - low) / fmax(0.001, high - low);
            double keep = 1 - fmin(1, fmax(0, ramp));
            scaled = scaled * (1 - keep) + freq * keep;
        }
        inv_freq[i] = stands_still(m, spec, i) ? 0 : scaled;
    }
    double mscale = is_plain ? 1 : model_num(m, "rope.scaling.attn_factor", 0, 1e6, 1);
    if (is_yarn) {
        double log_mul = model_num(m, "rope.scaling.yarn_log_multiplier", 0, 1e6, 0);
        mscale *= yarn_magnitude(factor, 1) / yarn_magnitude(factor, log_mul);
    }
    mscale = spec->magnitude > 0 ? spec->magnitude : mscale;
    struct op op = {
        .u.rope_table = {.inv_freq = inv_freq, .n = (int32_t)n, .mscale = (float)mscale}};
    op.u.rope_table.y = model_new_rows(m, "rope_table", 2 * n, 1, false);
    model_emit(m, OP_rope_table, &op);
    rope.table = op.u.rope_table.y;
    return rope;
}

struct model_rope_spec model_rope_read(struct model *m, bool adjacent)
{
    struct model_attention a = model_attention_read(m);
    struct model_rope_spec spec = {
        .n_rot = model_int(m, "rope.dimension_count", 2, a.dim_k, a.dim_k),
        .adjacent = adjacent,
        .base = model_num(m, "rope.freq_base", 1.0000001, 1e15, 10000),
    };
    if (spec.n_rot % 2 != 0) {
        model_fail(m, ERR_GGUF_KEY, "key '%s.rope.dimension_count': %lld is odd", m->arch,
                   (long long)spec.n_rot);
    }
    return spec;
}

int64_t model_window(struct model *m, int64_t period, int64_t def)
{
    const struct gguf_kv *kv = model_find(m, "attention.sliding_window_pattern");
    int64_t window = model_int(m, "attention.sliding_window", 0, INT32_MAX, def);
    if (kv && kv->kind == GGUF_ARRAY) { /* one flag per layer */
        return model_int(m, "attention.sliding_window_pattern", 0, 1, 0) ? window : 0;
    }
    period = model_int(m, "attention.sliding_window_pattern", 0, LIMIT_LAYERS, period);
    return period == 0 || m->layer % period < period - 1 ? window : 0;
}

struct op_rows model_rotate(struct model *m, struct op_rows x, int64_t n_groups, int64_t n,
                            int64_t x_group, const struct model_rope *rope)
{
    struct op op = {.u.rope = {.x = x,
                               .table = rope->table,
                               .y = model_new(m, "rope", n_groups * n, x),
                               .n_groups = (int32_t)n_groups,
                               .n = (int32_t)n,
                               .x_group = (int32_t)x_group,
                               .n_rot = rope->n_rot,
                               .adjacent = rope->adjacent}};
    if (rope->n_rot > n) {
        model_fail(m, ERR_GGUF_KEY, "RoPE over %d dimensions in heads of %lld", rope->n_rot,
                   (long long)n);
    }
    model_emit(m, OP_rope, &op);
    return op.u.rope.y;
}

/* --- attention ---------------------------------------------------------------------------------*/

enum { MAX_HEADS = 1024, MAX_HEAD_DIM = 1024 };

struct model_attention model_attention_read(struct model *m)
{
    struct model_attention a = {.n_head = 1, .n_head_kv = 1, .dim_k = 1, .dim_v = 1};
    a.n_head = model_int(m, "attention.head_count", 1, MAX_HEADS, MODEL_REQUIRED);
    a.n_head_kv = model_int(m, "attention.head_count_kv", 1, a.n_head, a.n_head);
    int64_t dim = MIN(MAX(m->n_embd / a.n_head, (int64_t)1), (int64_t)MAX_HEAD_DIM);
    a.dim_k = model_int(m, "attention.key_length", 1, MAX_HEAD_DIM, dim);
    a.dim_v = model_int(m, "attention.value_length", 1, MAX_HEAD_DIM, dim);
    double scale = model_num(m, "attention.scale", 0, 1e6, 0);
    a.scale = scale != 0 ? scale : 1 / sqrt((double)a.dim_k);
    if (a.n_head % a.n_head_kv != 0) {
        model_fail(m, ERR_GGUF_KEY, "%lld heads cannot share %lld KV heads", (long long)a.n_head,
                   (long long)a.n_head_kv);
        a.n_head_kv = a.n_head;
    }
    return a;
}

/* Press, Smith, Lewis 2021: a geometric sequence; head counts that are no power of two interleave
 * the sequence of twice as many. */
const float *model_alibi(struct model *m, int64_t n_head, double max_bias)
{
    float *slope = model_alloc(m, (size_t)n_head * sizeof *slope);
    int64_t power = 1;
    while (2 * power <= n_head) {
        power *= 2;
    }
    for (int64_t h = 0; slope && h < n_head; h++) {
        double exponent = h < power ? (double)(h + 1) / (double)power
                                    : (double)(2 * (h - power) + 1) / (double)(2 * power);
        slope[h] = (float)pow(2, -max_bias * exponent);
    }
    return slope;
}

struct op_rows model_attend(struct model *m, struct op_rows q, struct op_rows k, struct op_rows v,
                            const struct model_attention *a, bool v_in_k)
{
    struct kv_layer layer = {.type = m->kv_type,
                             .n_head = (int32_t)a->n_head_kv,
                             .dim_k = (int32_t)a->dim_k,
                             .dim_v = (int32_t)a->dim_v,
                             .v_in_k = v_in_k};
    int index = m->status < 0 ? 0 : program_add_kv(m->p, &layer);
    if (index < 0) {
        model_fail(m, index, "program of %s", m->arch);
    }
    struct op write = {.u.kv_write = {.k = k, .v = v, .layer = index}};
    model_emit(m, OP_kv_write, &write);
    struct op op = {.u.attention = {.q = q,
                                    .y = model_new(m, "attention", a->n_head * a->dim_v, q),
                                    .sinks = a->sinks,
                                    .alibi = a->alibi,
                                    .layer = index,
                                    .n_head = (int32_t)a->n_head,
                                    .window = (int32_t)a->window,
                                    .scale = (float)a->scale,
                                    .softcap = (float)a->softcap}};
    model_emit(m, OP_attention, &op);
    return op.u.attention.y;
}

/* QK norm: one weight for all heads, one per head, or one over the whole row. */
static struct op_rows qk_norm(struct model *m, struct op_rows x, const char *name, int64_t n_head,
                              int64_t dim, enum op_norm_kind kind)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    if (!model_has(m, full)) {
        return x;
    }
    const struct gguf_tensor *t = model_tensor(m, full);
    bool is_whole = t && t->n_dims == 1 && t->ne[0] == (uint64_t)(n_head * dim) && n_head > 1;
    return is_whole ? model_norm_groups(m, x, name, kind, 1, n_head * dim, n_head * dim)
                    : model_norm_groups(m, x, name, kind, n_head, dim, dim);
}

struct op_rows model_self_attention(struct model *m, struct op_rows x,
                                    const struct model_attention *a)
{
    int64_t n_q = a->n_head * a->dim_k, n_k = a->n_head_kv * a->dim_k;
    int64_t n_v = a->n_head_kv * a->dim_v;
    struct op_rows q, k, v;
    if (model_has(m, "attn_qkv.weight")) {
        struct op_rows qkv = model_linear(m, x, "attn_qkv", n_q + n_k + n_v);
        q = model_slice(qkv, 0, n_q);
        k = model_slice(qkv, n_q, n_k);
        v = model_slice(qkv, n_q + n_k, n_v);
    } else {
        q = model_linear(m, x, "attn_q", n_q);
        k = model_linear(m, x, "attn_k", n_k);
        v = model_linear(m, x, "attn_v", n_v);
    }
    if (!a->norm_after_rope) {
        q = qk_norm(m, q, "attn_q_norm", a->n_head, a->dim_k, a->qk_norm);
        k = qk_norm(m, k, "attn_k_norm", a->n_head_kv, a->dim_k, a->qk_norm);
    }
    if (a->rope) {
        q = model_rotate(m, q, a->n_head, a->dim_k, a->dim_k, a->rope);
        k = model_rotate(m, k, a->n_head_kv, a->dim_k, a->dim_k, a->rope);
    }
    if (a->norm_after_rope) {
        q = qk_norm(m, q, "attn_q_norm", a->n_head, a->dim_k, a->qk_norm);
        k = qk_norm(m, k, "attn_k_norm", a->n_head_kv, a->dim_k, a->qk_norm);
    }
    return model_linear(m, model_attend(m, q, k, v, a, false), "attn_output", m->n_embd);
}
