/* Qwen 3-Next, 3.5 and 3.6, dense and with experts: three of four layers are gated delta nets (Yang
 * et al. 2024), the others attention whose result is gated by a second half of the query
 * projection. */
#include "worker/arch/arch.h"

#include <math.h>

struct net { /* the delta net */
    int64_t width, inner, dim, n_k, n_v;
    bool tiled; /* value head h reads key head h % n_k; else neighbours share one */
};

static struct net read_net(struct model *m, bool tiled)
{
    struct net n = {.width = model_int(m, "ssm.conv_kernel", 2, 64, MODEL_REQUIRED),
                    .inner = model_int(m, "ssm.inner_size", 1, 1 << 20, MODEL_REQUIRED),
                    .dim = model_int(m, "ssm.state_size", 1, 1024, MODEL_REQUIRED),
                    .n_v = model_int(m, "ssm.time_step_rank", 1, 1024, MODEL_REQUIRED),
                    .tiled = tiled};
    n.n_k = model_int(m, "ssm.group_count", 1, n.n_v, MODEL_REQUIRED);
    if (n.inner != n.n_v * n.dim || n.n_v % n.n_k != 0) {
        model_fail(m, ERR_GGUF_KEY, "%lld channels in %lld value and %lld key heads of %lld",
                   (long long)n.inner, (long long)n.n_v, (long long)n.n_k, (long long)n.dim);
    }
    return n;
}

static bool is_recurrent(struct model *m)
{
    if (model_has_key(m, "attention.recurrent_layers")) {
        return model_int(m, "attention.recurrent_layers", 0, 1, 0) == 1;
    }
    return (m->layer + 1) % model_int(m, "full_attention_interval", 1, 4096, 4) != 0;
}

/* Queries, keys, values side by side (for the convolution), and the output's gate z. */
static struct op_rows project(struct model *m, struct op_rows x, const struct net *n,
                              struct op_rows *ret_z)
{
    int64_t n_key = n->n_k * n->dim;
    if (model_has(m, "attn_qkv.weight")) {
        *ret_z = model_linear(m, x, "attn_gate", n->inner);
        return model_linear(m, x, "attn_qkv", 2 * n_key + n->inner);
    }
    /* One matrix, dealt by key head: q, k, then the values and gates of the value heads it
     * serves. */
    int64_t n_value = n->inner / n->n_k, group = 2 * n->dim + 2 * n_value;
    struct op_rows all = model_linear(m, x, "ssm_in", n->n_k * group);
    struct op_rows part[4]; /* q, k, v, z */
    for (int i = 0; i < 4; i++) {
        int64_t col = i < 2 ? i * n->dim : 2 * n->dim + (i - 2) * n_value;
        part[i] = model_copy(m, model_slice(all, col, all.n - (int32_t)col), n->n_k,
                             i < 2 ? n->dim : n_value, group);
    }
    struct op_rows qk = model_concat(m, 1, part[0], n_key, 0, part[1], n_key, 0);
    *ret_z = part[3];
    return model_concat(m, 1, qk, 2 * n_key, 0, part[2], n->inner, 0);
}

static struct op_rows delta_net(struct model *m, struct op_rows x, const struct net *n)
{
    int64_t n_key = n->n_k * n->dim, share = n->n_v / n->n_k;
    struct op_rows z = model_none(), beta, alpha;
    struct op_rows qkv = model_conv(m, project(m, x, n, &z), "ssm_conv1d", n->width, true);
    struct op_rows q = model_norm_groups(m, model_slice(qkv, 0, n_key), NULL, OP_NORM_L2, n->n_k,
                                         n->dim, n->dim);
    struct op_rows k = model_norm_groups(m, model_slice(qkv, n_key, n_key), NULL, OP_NORM_L2,
                                         n->n_k, n->dim, n->dim);
    if (model_has(m, "ssm_ba.weight")) {
        struct op_rows ba = model_linear(m, x, "ssm_ba", 2 * n->n_v);
        beta = model_copy(m, ba, n->n_k, share, 2 * share);
        alpha = model_copy(m, model_slice(ba, share, ba.n - (int32_t)share), n->n_k, share,
                           2 * share);
    } else {
        beta = model_linear(m, x, "ssm_beta", n->n_v);
        alpha = model_linear(m, x, "ssm_alpha", n->n_v);
    }
    struct op op = {.u.delta = {.q = q,
                                .k = k,
                                .v = model_slice(qkv, 2 * n_key, n->inner),
                                .gate = alpha,
                                .beta = beta,
                                .y = model_new(m, "delta", n->inner, qkv),
                                .dt_bias = model_vec(m, "ssm_dt.bias", n->n_v),
                                .a = model_vec(m, "ssm_a", n->n_v),
                                .state = model_state(m, n->n_v * n->dim * n->dim),
                                .n_head_k = (int32_t)n->n_k,
                                .n_head_v = (int32_t)n->n_v,
                                .dim_k = (int32_t)n->dim,
                                .dim_v = (int32_t)n->dim,
                                .tiled = n->tiled,
                                .scale = (float)(1 / sqrt((double)n->dim))}};
    model_emit(m, OP_delta, &op);
    struct op_rows y = model_norm_groups(m, op.u.delta.y, "ssm_norm", OP_NORM_RMS, n->n_v, n->dim,
                                         n->dim);
    return model_linear(m, model_glu(m, OP_GLU_SILU, z, y), "ssm_out", m->n_embd);
}

/* attn_q holds for each head its query and its gate. */
static struct op_rows gated_attention(struct model *m, struct op_rows x,
                                      const struct model_attention *a)
{
    int64_t n_q = a->n_head * a->dim_k, n_kv = a->n_head_kv * a->dim_k, pair = 2 * a->dim_k;
    struct op_rows both = model_linear(m, x, "attn_q", 2 * n_q);
    struct op_rows q = model_norm_groups(m, both, "attn_q_norm", OP_NORM_RMS, a->n_head, a->dim_k,
                                         pair);
    struct op_rows k = model_linear(m, x, "attn_k", n_kv);
    k = model_norm_groups(m, k, "attn_k_norm", OP_NORM_RMS, a->n_head_kv, a->dim_k, a->dim_k);
    struct op_rows v = model_linear(m, x, "attn_v", a->n_head_kv * a->dim_v);
    q = model_rotate(m, q, a->n_head, a->dim_k, a->dim_k, a->rope);
    k = model_rotate(m, k, a->n_head_kv, a->dim_k, a->dim_k, a->rope);
    struct op_rows y = model_attend(m, q, k, v, a, false);
    struct op op = {.u.glu = {.gate = model_slice(both, a->dim_k, both.n - (int32_t)a->dim_k),
                              .up = y,
                              .y = model_new(m, "gated", n_q, y),
                              .kind = OP_GLU_SIGMOID,
                              .n_groups = (int32_t)a->n_head,
                              .n = (int32_t)a->dim_k,
                              .gate_group = (int32_t)pair}};
    if (a->dim_k != a->dim_v) {
        model_fail(m, ERR_GGUF_KEY, "keys of %lld and values of %lld", (long long)a->dim_k,
                   (long long)a->dim_v);
    }
    model_emit(m, OP_glu, &op);
    return model_linear(m, op.u.glu.y, "attn_output", m->n_embd);
}

static void build(struct model *m, bool tiled)
{
    struct net net = read_net(m, tiled);
    struct model_rope_spec spec = model_rope_read(m, false);
    spec.sections = MODEL_ROPE_INTERLEAVED;
    struct model_rope rope = model_rope(m, &spec);
    struct model_moe moe = {.normalize = true, .scale = 1, .kind = OP_GLU_SILU};
    bool is_moe = model_int(m, "expert_count", 0, 1024, 0) > 0;
    if (is_moe) {
        model_moe_read(m, &moe);
    }
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct op_rows h = model_norm(m, x, "attn_norm");
        if (is_recurrent(m)) {
            x = model_add(m, x, delta_net(m, h, &net));
        } else {
            struct model_attention a = model_attention_read(m);
            a.rope = &rope;
            x = model_add(m, x, gated_attention(m, h, &a));
        }
        h = model_norm(m, x, "post_attention_norm");
        if (is_moe && model_has(m, "ffn_gate_inp.weight")) {
            x = model_add(m, x, model_experts(m, h, &moe));
            x = model_add(m, x, model_shared_expert(m, h, OP_GLU_SILU));
        } else {
            x = model_add(m, x, model_ffn(m, h, OP_GLU_SILU, ""));
        }
    }
    model_output(m, x, 1, 0);
}

void arch_qwen35(struct model *m)
{
    build(m, true);
}

void arch_qwen3next(struct model *m)
{
    build(m, false);
}
