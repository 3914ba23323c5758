/* Phi-3, 3.5 and 4 mini (Microsoft): as LLaMA with half-apart pairs, q, k and v in one matrix, gate
 * and up in one matrix, LongRoPE factors in tensors. The files' window key is not used: it does not
 * hold what the models were trained with. */
#include "worker/arch/arch.h"

void arch_phi3(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        x = model_add(m, x, model_ffn(m, model_norm(m, x, "ffn_norm"), OP_GLU_SILU, ""));
    }
    model_output(m, x, 1, 0);
}
