/* Falcon 7B to 180B (Almazrouei et al. 2023): layer norm, attention and network side by side; the
 * larger ones norm attention's input apart. */
#include "worker/arch/arch.h"

void arch_falcon(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        struct op_rows h = model_norm(m, x, "attn_norm"), attn_in = h;
        if (model_has(m, "attn_norm_2.weight")) {
            attn_in = model_norm(m, x, "attn_norm_2");
        }
        x = model_add(m, x, model_self_attention(m, attn_in, &a));
        x = model_add(m, x, model_ffn(m, h, OP_GLU_GELU, ""));
    }
    model_output(m, x, 1, 0);
}
