/* Mamba-2 (Dao, Gu 2024): no attention; each layer is a short convolution and a selective scan with
 * one decay per head, gated and normed in groups. */
#include "worker/arch/arch.h"

enum { MAX_DIM = 1 << 20 };

void arch_mamba2(struct model *m)
{
    int64_t width = model_int(m, "ssm.conv_kernel", 2, 64, MODEL_REQUIRED);
    int64_t inner = model_int(m, "ssm.inner_size", 1, MAX_DIM, MODEL_REQUIRED);
    int64_t n_state = model_int(m, "ssm.state_size", 1, 4096, MODEL_REQUIRED);
    int64_t n_head = model_int(m, "ssm.time_step_rank", 1, inner, MODEL_REQUIRED);
    int64_t n_group = model_int(m, "ssm.group_count", 1, n_head, MODEL_REQUIRED);
    if (inner % n_head != 0 || n_head % n_group != 0) {
        model_fail(m, ERR_GGUF_KEY, "%lld channels in %lld heads in %lld groups", (long long)inner,
                   (long long)n_head, (long long)n_group);
        return;
    }
    int64_t n_bc = n_group * n_state, conv = inner + 2 * n_bc, dim = inner / n_head;
    struct op_rows x = model_embed(m, 1);
    for (m->layer = 0; m->layer < m->n_layer; m->layer++) {
        struct op_rows h = model_norm(m, x, "attn_norm");
        struct op_rows in = model_linear(m, h, "ssm_in", inner + conv + n_head);
        struct op_rows xbc =
            model_conv(m, model_slice(in, inner, conv), "ssm_conv1d", width, true);
        struct op op = {.u.ssm = {.x = model_slice(xbc, 0, inner),
                                  .b = model_slice(xbc, inner, n_bc),
                                  .c = model_slice(xbc, inner + n_bc, n_bc),
                                  .dt = model_slice(in, inner + conv, n_head),
                                  .y = model_new(m, "ssm", inner, xbc),
                                  .dt_bias = model_vec(m, "ssm_dt.bias", n_head),
                                  .a = model_vec(m, "ssm_a", n_head),
                                  .d = model_vec(m, "ssm_d", n_head),
                                  .state = model_state(m, inner * n_state),
                                  .n_head = (int32_t)n_head,
                                  .dim = (int32_t)dim,
                                  .n_state = (int32_t)n_state,
                                  .n_group = (int32_t)n_group}};
        model_emit(m, OP_ssm, &op);
        struct op_rows y = model_glu(m, OP_GLU_SILU, model_slice(in, 0, inner), op.u.ssm.y);
        y = model_norm_groups(m, y, "ssm_norm", OP_NORM_RMS, n_group, inner / n_group,
                              inner / n_group);
        x = model_add(m, x, model_linear(m, y, "ssm_out", m->n_embd));
    }
    model_output(m, x, 1, 0);
}
