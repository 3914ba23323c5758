/* Qwen 2 and 3 with experts: Qwen 2 adds a gated shared expert and keeps the router's probabilities
 * as they are, Qwen 3 normalises them over the chosen. */
#include "worker/arch/arch.h"

static void build(struct model *m, bool normalize, bool has_shared)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct model_moe moe = {.normalize = normalize, .scale = 1, .kind = OP_GLU_SILU};
    model_moe_read(m, &moe);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        struct op_rows h = model_norm(m, x, "ffn_norm"), y = model_experts(m, h, &moe);
        if (has_shared) {
            y = model_add(m, y, model_shared_expert(m, h, OP_GLU_SILU));
        }
        x = model_add(m, x, y);
    }
    model_output(m, x, 1, 0);
}

void arch_qwen2moe(struct model *m)
{
    build(m, false, true);
}

void arch_qwen3moe(struct model *m)
{
    build(m, true, false);
}
