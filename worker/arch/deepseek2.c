/* DeepSeek V2, V2-Lite, V3 and R1, and what shares their plan: multi-head latent attention
 * (DeepSeek-AI 2024, section 2.1) and experts with a shared one. The cache holds one latent vector
 * per token. Files that have k_b and v_b apart are computed in the absorbed form: queries go into
 * the latent space, all heads share one KV head, and v_b brings each head back. Older files (kv_b
 * in one) are unfolded into plain heads. */
#include "worker/arch/arch.h"

#include <math.h>

enum { MAX_RANK = 1 << 16, MAX_HEAD = 1024 };

struct shape {
    int64_t n_head, rank, dim_nope, dim_rope, dim_v;
};

/* The scale of scores: the file's YaRN multiplier raises it. */
static double score_scale(struct model *m, const struct shape *s)
{
    double factor = model_yarn_factor(m);
    double log_mul = model_num(m, "rope.scaling.yarn_log_multiplier", 0, 1e3, 0);
    double attn = model_num(m, "rope.scaling.attn_factor", 0, 1e6, 1);
    /* The key holds a tenth of the paper's mscale_all_dim. */
    double mscale = attn * (log_mul > 0 ? 1 + log_mul * log(factor) : 1 + 0.1 * log(factor));
    return mscale * mscale / sqrt((double)(s->dim_nope + s->dim_rope));
}

static struct op_rows attention(struct model *m, struct op_rows x, const struct shape *s,
                                const struct model_rope *rope)
{
    int64_t dim = s->dim_nope + s->dim_rope;
    struct op_rows q = x;
    if (model_has(m, "attn_q_a.weight")) {
        q = model_linear(m, x, "attn_q_a", model_dim(m, "attn_q_a.weight", 1));
        q = model_linear(m, model_norm(m, q, "attn_q_a_norm"), "attn_q_b", s->n_head * dim);
    } else {
        q = model_linear(m, x, "attn_q", s->n_head * dim);
    }
    struct op_rows down = model_linear(m, x, "attn_kv_a_mqa", s->rank + s->dim_rope);
    struct op_rows latent = model_norm(m, model_slice(down, 0, s->rank), "attn_kv_a_norm");
    struct op_rows k_rope = model_rotate(m, model_slice(down, s->rank, s->dim_rope), 1, s->dim_rope,
                                         s->dim_rope, rope);
    struct op_rows q_tail = model_slice(q, s->dim_nope, q.n - (int32_t)s->dim_nope);
    struct op_rows q_rope = model_rotate(m, q_tail, s->n_head, s->dim_rope, dim, rope);
    struct model_attention a = {
        .n_head = s->n_head, .n_head_kv = 1, .dim_v = s->rank, .scale = score_scale(m, s)};
    if (model_has(m, "attn_k_b.weight")) {
        a.dim_k = s->rank + s->dim_rope;
        q = model_heads(m, q, "attn_k_b", s->n_head, dim, s->dim_nope, s->rank);
        q = model_concat(m, s->n_head, q, s->rank, s->rank, q_rope, s->dim_rope, s->dim_rope);
        struct op_rows k =
            model_concat(m, 1, latent, s->rank, 0, k_rope, s->dim_rope, 0);
        struct op_rows y = model_attend(m, q, k, model_none(), &a, true);
        y = model_heads(m, y, "attn_v_b", s->n_head, s->rank, s->rank, s->dim_v);
        return model_linear(m, y, "attn_output", m->n_embd);
    }
    int64_t pair = s->dim_nope + s->dim_v;
    a.n_head_kv = s->n_head;
    a.dim_k = dim;
    a.dim_v = s->dim_v;
    struct op_rows kv = model_linear(m, latent, "attn_kv_b", s->n_head * pair);
    struct op_rows k =
        model_concat(m, s->n_head, kv, s->dim_nope, pair, k_rope, s->dim_rope, 0);
    struct op_rows v = model_copy(m, model_slice(kv, s->dim_nope, kv.n - (int32_t)s->dim_nope),
                                  s->n_head, s->dim_v, pair);
    q = model_concat(m, s->n_head, q, s->dim_nope, dim, q_rope, s->dim_rope, s->dim_rope);
    return model_linear(m, model_attend(m, q, k, v, &a, false), "attn_output", m->n_embd);
}

static struct shape read_shape(struct model *m)
{
    struct shape s = {.n_head = model_int(m, "attention.head_count", 1, MAX_HEAD, MODEL_REQUIRED),
                      .rank = model_int(m, "attention.kv_lora_rank", 1, MAX_RANK, MODEL_REQUIRED),
                      .dim_rope =
                          model_int(m, "rope.dimension_count", 2, MAX_HEAD, MODEL_REQUIRED)};
    /* Without the _mla keys the plain ones mean the unfolded heads. */
    bool is_mla = model_has_key(m, "attention.key_length_mla");
    int64_t dim_k = model_int(m, is_mla ? "attention.key_length_mla" : "attention.key_length", 1,
                              MAX_HEAD, MODEL_REQUIRED);
    s.dim_v = model_int(m, is_mla ? "attention.value_length_mla" : "attention.value_length", 1,
                        MAX_HEAD, MODEL_REQUIRED);
    s.dim_nope = dim_k - s.dim_rope;
    if (s.dim_nope < 1 || s.dim_rope % 2 != 0) {
        model_fail(m, ERR_GGUF_KEY, "heads of %lld with %lld rotated dimensions", (long long)dim_k,
                   (long long)s.dim_rope);
        s.dim_nope = 1;
    }
    return s;
}

void arch_deepseek2(struct model *m)
{
    struct shape s = read_shape(m);
    bool has_log_mul = model_has_key(m, "rope.scaling.yarn_log_multiplier");
    struct model_rope_spec spec = {
        .n_rot = s.dim_rope,
        .adjacent = true,
        .base = model_num(m, "rope.freq_base", 1.0000001, 1e15, 10000),
        .magnitude = has_log_mul ? model_num(m, "rope.scaling.attn_factor", 0, 1e6, 1) : 0};
    struct model_rope rope = model_rope(m, &spec);
    int64_t n_dense = model_int(m, "leading_dense_block_count", 0, m->n_layer, 0);
    struct model_moe moe = {.scale = 1, .kind = OP_GLU_SILU};
    model_moe_read(m, &moe);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        x = model_add(m, x, attention(m, model_norm(m, x, "attn_norm"), &s, &rope));
        struct op_rows h = model_norm(m, x, "ffn_norm");
        if (m->layer < n_dense) {
            x = model_add(m, x, model_ffn(m, h, OP_GLU_SILU, ""));
        } else {
            x = model_add(m, x, model_experts(m, h, &moe));
            x = model_add(m, x, model_shared_expert(m, h, OP_GLU_SILU));
        }
    }
    model_output(m, x, 1, 0);
}
