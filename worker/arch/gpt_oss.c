/* gpt-oss (OpenAI 2025): experts with biases and a clamped gate, attention sinks, every other layer
 * windowed, YaRN. */
#include "worker/arch/arch.h"

void arch_gpt_oss(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct model_moe moe = {.gating = OP_ROUTE_SOFTMAX_CHOSEN,
                            .scale = 1,
                            .kind = OP_GLU_SILU_CLAMPED,
                            .alpha = 1.702,
                            .limit = 7};
    model_moe_read(m, &moe);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        a.window = model_window(m, 2, 0);
        a.sinks = model_vec(m, "attn_sinks.weight", a.n_head);
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        x = model_add(m, x, model_experts(m, model_norm(m, x, "post_attention_norm"), &moe));
    }
    model_output(m, x, 1, 0);
}
