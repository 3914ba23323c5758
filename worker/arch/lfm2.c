/* LFM2 (Liquid AI 2025), dense and with experts: most layers are gated short convolutions; those
 * with KV heads are attention. */
#include "worker/arch/arch.h"

static struct op_rows short_conv(struct model *m, struct op_rows x, int64_t width)
{
    int64_t n = m->n_embd;
    struct op_rows bcx = model_linear(m, x, "shortconv.in_proj", 3 * n);
    struct op_rows b = model_slice(bcx, 0, n), c = model_slice(bcx, n, n);
    struct op_rows y = model_glu(m, OP_GLU_NONE, b, model_slice(bcx, 2 * n, n));
    y = model_conv(m, y, "shortconv.conv", width, false);
    return model_linear(m, model_glu(m, OP_GLU_NONE, c, y), "shortconv.out_proj", n);
}

static bool is_attention(struct model *m)
{
    return model_int(m, "attention.head_count_kv", 0, 1024, MODEL_REQUIRED) > 0;
}

void arch_lfm2(struct model *m)
{
    int64_t width = model_int(m, "shortconv.l_cache", 2, 64, MODEL_REQUIRED);
    struct model_rope rope = {.n_rot = 0};
    struct model_moe moe = {
        .gating = OP_ROUTE_SIGMOID, .normalize = true, .scale = 1, .kind = OP_GLU_SILU};
    int64_t n_dense = m->n_layer;
    if (model_int(m, "expert_count", 0, 1024, 0) > 0) {
        model_moe_read(m, &moe);
        n_dense = model_int(m, "leading_dense_block_count", 0, m->n_layer, 0);
    }
    /* Head sizes stand in the first attention layer. */
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        if (is_attention(m)) {
            struct model_rope_spec spec = model_rope_read(m, false);
            m->layer = -1;
            rope = model_rope(m, &spec);
            break;
        }
    }
    m->layer = -1;
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct op_rows h = model_norm(m, x, "attn_norm"), y;
        if (is_attention(m)) {
            struct model_attention a = model_attention_read(m);
            a.rope = &rope;
            a.window = model_int(m, "attention.sliding_window", 0, INT32_MAX, 0);
            y = model_self_attention(m, h, &a);
        } else {
            y = short_conv(m, h, width);
        }
        x = model_add(m, x, y);
        h = model_norm(m, x, "ffn_norm");
        x = model_add(m, x, m->layer < n_dense ? model_ffn(m, h, OP_GLU_SILU, "")
                                               : model_experts(m, h, &moe));
    }
    model_output(m, x, 1, 0);
}
