/* OLMoE (Muennighoff et al. 2024): every layer of experts, weights not normalised; q and k normed
 * over the whole row before they are cut into heads. */
#include "worker/arch/arch.h"

void arch_olmoe(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct model_moe moe = {.scale = 1, .kind = OP_GLU_SILU};
    model_moe_read(m, &moe);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        x = model_add(m, x, model_experts(m, model_norm(m, x, "ffn_norm"), &moe));
    }
    model_output(m, x, 1, 0);
}
