/* Gemma 1, 2 and 3 (Google): embedding scaled by sqrt(width), gated GELU. Gemma 2 and 3 norm each
 * branch's result too and alternate windowed with full layers; Gemma 2 caps scores and logits,
 * Gemma 3 norms the heads of q and k and turns windowed layers by a base of their own. (The "1 +"
 * of the norm weights is in the files' weights.) */
#include "worker/arch/arch.h"

#include <math.h>

/* The 27B models scale scores by the width per head, not by the head's size; no key says so. */
static double score_scale(const struct model *m, const struct model_attention *a,
                          int64_t layers_27b)
{
    return m->n_layer == layers_27b ? 1 / sqrt((double)m->n_embd / (double)a->n_head) : a->scale;
}

static struct op_rows block(struct model *m, struct op_rows x, const struct model_attention *a)
{
    struct op_rows y = model_self_attention(m, model_norm(m, x, "attn_norm"), a);
    if (model_has(m, "post_attention_norm.weight")) {
        y = model_norm(m, y, "post_attention_norm");
    }
    x = model_add(m, x, y);
    y = model_ffn(m, model_norm(m, x, "ffn_norm"), OP_GLU_GELU, "");
    if (model_has(m, "post_ffw_norm.weight")) {
        y = model_norm(m, y, "post_ffw_norm");
    }
    return model_add(m, x, y);
}

void arch_gemma(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, sqrt((double)m->n_embd));
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        x = block(m, x, &a);
    }
    model_output(m, x, 1, 0);
}

void arch_gemma2(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    struct op_rows x = model_embed(m, sqrt((double)m->n_embd));
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.rope = &rope;
        a.scale = score_scale(m, &a, 46);
        a.softcap = model_num(m, "attn_logit_softcapping", 0, 1e6, 50);
        a.window = model_window(m, 2, 4096);
        x = block(m, x, &a);
    }
    model_output(m, x, 1, model_num(m, "final_logit_softcapping", 0, 1e6, 30));
}

void arch_gemma3(struct model *m)
{
    struct model_rope_spec spec = model_rope_read(m, false);
    struct model_rope rope = model_rope(m, &spec);
    spec.base = model_num(m, "rope.freq_base_swa", 1.0000001, 1e15, 10000);
    spec.is_plain = true;
    struct model_rope rope_windowed = model_rope(m, &spec);
    struct op_rows x = model_embed(m, sqrt((double)m->n_embd));
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct model_attention a = model_attention_read(m);
        a.scale = score_scale(m, &a, 62);
        a.window = model_window(m, 6, 0);
        a.rope = a.window > 0 ? &rope_windowed : &rope;
        x = block(m, x, &a);
    }
    model_output(m, x, 1, model_num(m, "final_logit_softcapping", 0, 1e6, 0));
}
