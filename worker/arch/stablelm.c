/* StableLM 3B, 2 1.6B and 2 12B (Stability AI): layer norm, partial rotation; the 12B norms each
 * head of q and k by its own weights and puts attention and network side by side (it has no
 * ffn_norm). */
#include "worker/arch/arch.h"

void arch_stablelm(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        a.qk_norm = OP_NORM_LAYER;
        struct op_rows h = model_norm(m, x, "attn_norm");
        x = model_add(m, x, model_self_attention(m, h, &a));
        if (model_has(m, "ffn_norm.weight")) {
            h = model_norm(m, x, "ffn_norm");
        }
        x = model_add(m, x, model_ffn(m, h, OP_GLU_SILU, ""));
    }
    model_output(m, x, 1, 0);
}
