/* Qwen 2, 2.5 and 3: as LLaMA with rotation of half-apart pairs; Qwen 2 has biases on q, k and v,
 * Qwen 3 norms the heads of q and k instead. Both show in the file's tensors. */
#include "worker/arch/arch.h"

void arch_qwen(struct model *m)
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
