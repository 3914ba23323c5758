/* Baichuan 1 and 2: as LLaMA; the 13B (40 layers) has ALiBi in place of rotation, which no key
 * says. */
#include "worker/arch/arch.h"

enum { LAYERS_WITH_ALIBI = 40, MAX_BIAS = 8 };

void arch_baichuan(struct model *m)
{
    bool is_alibi = m->n_layer == LAYERS_WITH_ALIBI;
    struct model_rope_spec spec = model_rope_read(m, true);
    struct model_rope rope = {.n_rot = 0};
    const float *alibi = NULL;
    if (is_alibi) {
        alibi = model_alibi(m, model_attention_read(m).n_head, MAX_BIAS);
    } else {
        rope = model_rope(m, &spec);
    }
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = is_alibi ? NULL : &rope;
        a.alibi = alibi;
        x = model_add(m, x, model_self_attention(m, model_norm(m, x, "attn_norm"), &a));
        x = model_add(m, x, model_ffn(m, model_norm(m, x, "ffn_norm"), OP_GLU_SILU, ""));
    }
    model_output(m, x, 1, 0);
}
