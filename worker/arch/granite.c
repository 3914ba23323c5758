/* Granite 3 (IBM), dense and with experts: as LLaMA with scales on embedding, attention, residual
 * branches and logits. Rotation may be switched off by a key. */
#include "worker/arch/arch.h"

void arch_granite(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, true);
    struct model_rope rope = model_rope(m, &spec);
    bool has_rope = model_flag(m, "rope.scaling.finetuned", true);
    double embedding_scale = model_num(m, "embedding_scale", 0, 1e6, 1);
    double residual_scale = model_num(m, "residual_scale", 0, 1e6, 1);
    double logit_scale = model_num(m, "logit_scale", 1e-6, 1e6, 1);
    residual_scale = residual_scale == 0 ? 1 : residual_scale;
    struct model_moe moe = {.normalize = true, .scale = 1, .kind = OP_GLU_SILU};
    bool is_moe = model_int(m, "expert_count", 0, 1024, 0) > 0;
    if (is_moe) {
        model_moe_read(m, &moe);
    }
    struct op_rows x = model_embed(m, embedding_scale == 0 ? 1 : embedding_scale);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = has_rope ? &rope : NULL;
        struct op_rows y = model_self_attention(m, model_norm(m, x, "attn_norm"), &a);
        x = model_add_scaled(m, x, y, residual_scale);
        struct op_rows h = model_norm(m, x, "ffn_norm");
        y = is_moe ? model_experts(m, h, &moe) : model_ffn(m, h, OP_GLU_SILU, "");
        if (model_has(m, "ffn_up_shexp.weight")) {
            y = model_add(m, y, model_shared_expert(m, h, OP_GLU_SILU));
        }
        x = model_add_scaled(m, x, y, residual_scale);
    }
    model_output(m, x, 1 / logit_scale, 0);
}
