/* GLM-4 (2025 releases): norms before and after each branch, gate and up in one matrix, partial
 * rotation of adjacent pairs; of half-apart pairs where the file deals them to sections (vision
 * models). */
#include "worker/arch/arch.h"

void arch_glm4(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, true);
    if (model_has_key(m, "rope.dimension_sections")) {
        spec.adjacent = false;
        spec.sections = MODEL_ROPE_SECTIONS;
    }
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        struct op_rows y = model_self_attention(m, model_norm(m, x, "attn_norm"), &a);
        x = model_add(m, x, model_norm(m, y, "post_attention_norm"));
        y = model_ffn(m, model_norm(m, x, "ffn_norm"), OP_GLU_SILU, "");
        x = model_add(m, x, model_norm(m, y, "post_ffw_norm"));
    }
    model_output(m, x, 1, 0);
}
