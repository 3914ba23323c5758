/* Command R and R+ (Cohere): layer norm without bias, attention and network side by side, scaled
 * logits; the larger one norms each head of q and k by its own weights. */
#include "worker/arch/arch.h"

void arch_command_r(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, true);
    struct model_rope rope = model_rope(m, &spec);
    double logit_scale = model_num(m, "logit_scale", 0, 1e6, 1);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        a.qk_norm = OP_NORM_LAYER;
        struct op_rows h = model_norm(m, x, "attn_norm");
        x = model_add(m, x, model_self_attention(m, h, &a));
        x = model_add(m, x, model_ffn(m, h, OP_GLU_SILU, ""));
    }
    model_output(m, x, logit_scale == 0 ? 1 : logit_scale, 0);
}
