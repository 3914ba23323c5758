/* Phi-1, 1.5 and 2 (Microsoft): layer norm, biases everywhere, partial rotation; attention and
 * network read the same normed input and are added together to the residual. */
#include "worker/arch/arch.h"

void arch_phi2(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        struct op_rows h = model_norm(m, x, "attn_norm");
        x = model_add(m, x, model_self_attention(m, h, &a));
        x = model_add(m, x, model_ffn(m, h, OP_GLU_GELU, ""));
    }
    model_output(m, x, 1, 0);
}
