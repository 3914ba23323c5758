/* LLaMA 1-3, Mistral, Mixtral, Yi, SmolLM, InternLM2 and what else shares the plan (Touvron et al.
 * 2023): pre-norm, grouped-query attention, gated SiLU network, or experts with weights normalised
 * over the chosen. */
#include "worker/arch/arch.h"

void arch_llama(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, true);
    struct model_rope rope = model_rope(m, &spec);
    struct model_moe moe = {.normalize = true, .scale = 1, .kind = OP_GLU_SILU};
    bool is_moe = model_int(m, "expert_count", 0, 1024, 0) > 0;
    if (is_moe) {
        model_moe_read(m, &moe);
    }
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        struct op_rows h = model_norm(m, x, "ffn_norm");
        x = model_add(m, x, is_moe ? model_experts(m, h, &moe) : model_ffn(m, h, OP_GLU_SILU, ""));
    }
    model_output(m, x, 1, 0);
}
