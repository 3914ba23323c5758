/* Building programs: feed-forward networks, dense and of experts. */
#include "worker/model_tensor.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 64, MAX_FFN = 1 << 24 };

struct op_rows model_ffn(struct model *m, struct op_rows x, enum op_glu_kind kind,
                         const char *suffix)
{
    char gate[NAME_BYTES], up[NAME_BYTES], down[NAME_BYTES], name[NAME_BYTES + 8];
    snprintf(gate, sizeof gate, "ffn_gate%s", suffix);
    snprintf(up, sizeof up, "ffn_up%s", suffix);
    snprintf(down, sizeof down, "ffn_down%s", suffix);
    snprintf(name, sizeof name, "%s.weight", down);
    int64_t n_ff = model_dim(m, name, 0);
    snprintf(name, sizeof name, "%s.weight", up);
    int64_t n_up = model_dim(m, name, 1);
    snprintf(name, sizeof name, "%s.weight", gate);
    bool has_gate = model_has(m, name);
    if (n_ff > MAX_FFN || (n_up != n_ff && (has_gate || n_up != 2 * n_ff))) {
        model_fail(m, ERR_MODEL_TENSOR, "layer %d: '%s' has %lld rows, '%s' %lld columns", m->layer,
                   up, (long long)n_up, down, (long long)n_ff);
        return model_none();
    }
    struct op_rows g = has_gate ? model_linear(m, x, gate, n_ff) : model_none();
    struct op_rows u = model_linear(m, x, up, n_up);
    if (n_up == 2 * n_ff) {
        g = model_slice(u, 0, n_ff);
        u = model_slice(u, n_ff, n_ff);
    }
    struct op_rows h = model_is_none(g) ? model_glu(m, kind, u, model_none())
                                        : model_glu(m, kind, g, u);
    return model_linear(m, h, down, m->n_embd);
}

/* --- experts -----------------------------------------------------------------------------------*/

enum { MAX_EXPERTS = 1024 };

void model_moe_read(struct model *m, struct model_moe *moe)
{
    moe->n_expert = model_int(m, "expert_count", 1, MAX_EXPERTS, MODEL_REQUIRED);
    moe->n_used = model_int(m, "expert_used_count", 1, moe->n_expert, MODEL_REQUIRED);
    switch (model_int(m, "expert_gating_func", 0, 3, 0)) {
    case 1:
        moe->gating = OP_ROUTE_SOFTMAX;
        break;
    case 2:
        moe->gating = OP_ROUTE_SIGMOID;
        break;
    case 3:
        moe->gating = OP_ROUTE_SOFTMAX_CHOSEN;
        break;
    default:
        break;
    }
    moe->normalize = model_flag(m, "expert_weights_norm", moe->normalize);
    double scale = model_num(m, "expert_weights_scale", 0, 1e6, moe->scale);
    moe->scale = scale == 0 ? 1 : scale;
    moe->n_group = model_int(m, "expert_group_count", 0, moe->n_expert, 0);
    moe->n_group_used = model_int(m, "expert_group_used_count", 0, MAX_EXPERTS, 0);
    if (moe->n_group > 1 && (moe->n_expert % moe->n_group != 0 || moe->n_group_used < 1 ||
                             moe->n_group_used > moe->n_group ||
                             moe->n_used > moe->n_expert / moe->n_group * moe->n_group_used)) {
        model_fail(m, ERR_GGUF_KEY,
                   "%lld experts in %lld groups, %lld groups and %lld experts used",
                   (long long)moe->n_expert, (long long)moe->n_group, (long long)moe->n_group_used,
                   (long long)moe->n_used);
    }
}

struct sorted { /* rows of a step, sorted by expert */
    struct op_rows route, order;
    const struct model_moe *moe;
};

static struct sorted route(struct model *m, struct op_rows x, const struct model_moe *moe)
{
    struct sorted s = {.moe = moe};
    struct op op = {0};
    int64_t e = moe->n_expert, k = moe->n_used;
    op.u.route = (struct op_route){
        .x = model_linear(m, x, "ffn_gate_inp", e),
        .y = model_new(m, "route", 2 * k, x),
        .bias = model_vec_maybe(m, "exp_probs_b.bias", e),
        .n_expert = (int32_t)e,
        .n_used = (int32_t)k,
        .gating = (int32_t)moe->gating,
        .n_group = (int32_t)moe->n_group,
        .n_group_used = (int32_t)moe->n_group_used,
        .normalize = moe->normalize,
        .scale = (float)moe->scale,
    };
    s.route = op.u.route.y;
    model_emit(m, OP_route, &op);
    op.u.order = (struct op_order){.route = s.route,
                                   .y = model_new(m, "order", e + 1 + 2 * k, x),
                                   .n_expert = (int32_t)e,
                                   .n_used = (int32_t)k};
    s.order = op.u.order.y;
    model_emit(m, OP_order, &op);
    return s;
}

/* One matrix for each expert, over sorted rows. */
static struct op_rows expert_linear(struct model *m, struct op_rows x, const struct sorted *s,
                                    const char *name, int64_t n_out)
{
    char full[NAME_BYTES];
    struct op op = {0};
    snprintf(full, sizeof full, "%s.weight", name);
    op.u.experts = (struct op_experts){.x = x,
                                       .order = s->order,
                                       .y = model_new(m, name, n_out, x),
                                       .w = model_matrix(m, full, x.n, n_out, s->moe->n_expert),
                                       .n_expert = (int32_t)s->moe->n_expert};
    snprintf(full, sizeof full, "%s.bias", name);
    op.u.experts.bias = model_vec_maybe(m, full, s->moe->n_expert * n_out);
    snprintf(full, sizeof full, "%s.scale", name);
    if (model_has(m, full)) {
        model_fail(m, ERR_MODEL_TENSOR, "layer %d: '%s' is not supported", m->layer, full);
    }
    model_emit(m, OP_experts, &op);
    return op.u.experts.y;
}

struct op_rows model_experts(struct model *m, struct op_rows x, const struct model_moe *moe)
{
    struct sorted s = route(m, x, moe);
    int64_t n_ff = model_dim(m, "ffn_down_exps.weight", 0);
    struct op op = {0};
    if (m->status < 0) {
        return model_none();
    }
    const struct program_buffer *b = &m->p->bufs[x.buf];
    op.u.dispatch = (struct op_dispatch){
        .x = x,
        .order = s.order,
        .y = model_new_rows(m, "dispatch", x.n, b->mult * moe->n_used, b->is_out),
        .n_expert = (int32_t)moe->n_expert,
        .n_used = (int32_t)moe->n_used,
        .n = x.n,
    };
    struct op_rows each = op.u.dispatch.y, gate, up;
    model_emit(m, OP_dispatch, &op);
    if (model_has(m, "ffn_gate_up_exps.weight")) {
        struct op_rows both = expert_linear(m, each, &s, "ffn_gate_up_exps", 2 * n_ff);
        gate = model_slice(both, 0, n_ff);
        up = model_slice(both, n_ff, n_ff);
    } else {
        gate = expert_linear(m, each, &s, "ffn_gate_exps", n_ff);
        up = expert_linear(m, each, &s, "ffn_up_exps", n_ff);
    }
    op.u.glu = (struct op_glu){.gate = gate,
                               .up = up,
                               .y = model_new(m, "glu", n_ff, each),
                               .kind = (int32_t)moe->kind,
                               .n_groups = 1,
                               .n = (int32_t)n_ff,
                               .alpha = (float)moe->alpha,
                               .limit = (float)moe->limit};
    struct op_rows h = op.u.glu.y;
    model_emit(m, OP_glu, &op);
    h = expert_linear(m, h, &s, "ffn_down_exps", m->n_embd);
    op.u.combine = (struct op_combine){.x = h,
                                       .route = s.route,
                                       .order = s.order,
                                       .add = model_none(),
                                       .y = model_new(m, "combine", m->n_embd, x),
                                       .n_expert = (int32_t)moe->n_expert,
                                       .n_used = (int32_t)moe->n_used,
                                       .n = (int32_t)m->n_embd};
    h = op.u.combine.y;
    model_emit(m, OP_combine, &op);
    return h;
}

struct op_rows model_shared_expert(struct model *m, struct op_rows x, enum op_glu_kind kind)
{
    struct op_rows y = model_ffn(m, x, kind, "_shexp");
    if (!model_has(m, "ffn_gate_inp_shexp.weight")) {
        return y;
    }
    return model_glu(m, OP_GLU_SIGMOID, model_linear(m, x, "ffn_gate_inp_shexp", 1), y);
}
