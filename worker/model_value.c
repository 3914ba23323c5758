/* Building programs: the plain values, from embedding to logits. */
#include "worker/model_tensor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 128 };

struct op_rows model_none(void)
{
    return (struct op_rows){.buf = -1};
}

bool model_is_none(struct op_rows x)
{
    return x.buf < 0;
}

struct op_rows model_slice(struct op_rows x, int64_t col, int64_t n)
{
    x.col += (int32_t)col;
    x.n = (int32_t)n;
    return x;
}

struct op_rows model_new_rows(struct model *m, const char *name, int64_t n, int64_t mult,
                              bool is_out)
{
    if (m->status < 0) {
        return model_none();
    }
    name = arena_str(&m->p->arena, name, strlen(name));
    int buf = name ? program_add_buffer(m->p, name, m->layer, n, mult, is_out) : -ENOMEM;
    if (buf < 0 || n > INT32_MAX) {
        model_fail(m, -ENOMEM, "program of %s", m->arch);
        return model_none();
    }
    return program_rows(m->p, buf);
}

struct op_rows model_new(struct model *m, const char *name, int64_t n, struct op_rows like)
{
    if (m->status < 0 || model_is_none(like)) {
        return model_none();
    }
    const struct program_buffer *b = &m->p->bufs[like.buf];
    return model_new_rows(m, name, n, b->mult, b->is_out);
}

void model_emit(struct model *m, enum op_code code, const struct op *op)
{
    if (m->status < 0) {
        return;
    }
    struct op copy = *op;
    copy.code = code;
    copy.layer = (int16_t)m->layer;
    if (program_add_op(m->p, &copy) < 0) {
        model_fail(m, -ENOMEM, "program of %s", m->arch);
    }
}

struct op_rows model_embed(struct model *m, double scale)
{
    struct op op = {0};
    struct op_embed *o = &op.u.embed;
    const struct gguf_tensor *t = model_tensor(m, "token_embd.weight");
    if (!t || t->ne[0] != (uint64_t)m->n_embd || t->ne[1] != (uint64_t)m->n_vocab) {
        model_fail(m, ERR_MODEL_TENSOR, "tensor 'token_embd.weight' is not %lld x %lld",
                   (long long)m->n_embd, (long long)m->n_vocab);
        return model_none();
    }
    struct matmul_weight *w = model_alloc(m, sizeof *w);
    if (!w) {
        return model_none();
    }
    *w = (struct matmul_weight){
        .type = t->type, .n_rows = m->n_vocab, .n_cols = m->n_embd, .data = t->data};
    *o = (struct op_embed){.table = w, .scale = (float)scale};
    o->y = model_new_rows(m, "embed", m->n_embd, 1, false);
    model_emit(m, OP_embed, &op);
    return o->y;
}

struct op_rows model_norm_groups(struct model *m, struct op_rows x, const char *name,
                                 enum op_norm_kind kind, int64_t n_groups, int64_t n,
                                 int64_t x_group)
{
    struct op op = {0};
    struct op_norm *o = &op.u.norm;
    *o = (struct op_norm){.x = x,
                          .kind = (int32_t)kind,
                          .n_groups = (int32_t)n_groups,
                          .n = (int32_t)n,
                          .x_group = (int32_t)x_group,
                          .eps = m->norm_eps};
    if (name) {
        char full[NAME_BYTES];
        snprintf(full, sizeof full, "%s.weight", name);
        const struct gguf_tensor *t = model_tensor(m, full);
        o->per_group = t && n_groups > 1 && t->ne[0] * t->ne[1] != (uint64_t)n;
        o->weight = model_vec(m, full, o->per_group ? n * n_groups : n);
        snprintf(full, sizeof full, "%s.bias", name);
        o->bias = model_vec_maybe(m, full, o->per_group ? n * n_groups : n);
    }
    o->y = model_new(m, name ? name : "norm", n_groups * n, x);
    model_emit(m, OP_norm, &op);
    return o->y;
}

struct op_rows model_norm(struct model *m, struct op_rows x, const char *name)
{
    return model_norm_groups(m, x, name, m->norm_kind, 1, x.n, x.n);
}

struct op_rows model_copy(struct model *m, struct op_rows x, int64_t n_groups, int64_t n,
                          int64_t x_group)
{
    struct op op = {.u.copy = {.x = x,
                               .y = model_new(m, "copy", n_groups * n, x),
                               .n_groups = (int32_t)n_groups,
                               .n = (int32_t)n,
                               .x_group = (int32_t)x_group}};
    model_emit(m, OP_copy, &op);
    return op.u.copy.y;
}

struct op_rows model_scale(struct model *m, struct op_rows x, double scale, double cap)
{
    if (scale == 1.0 && cap == 0.0) {
        return x;
    }
    struct op op = {.u.scale = {.x = x,
                                .y = model_new(m, "scaled", x.n, x),
                                .n = x.n,
                                .scale = (float)scale,
                                .cap = (float)cap}};
    model_emit(m, OP_scale, &op);
    return op.u.scale.y;
}

struct op_rows model_linear(struct model *m, struct op_rows x, const char *name, int64_t n_out)
{
    char full[NAME_BYTES];
    struct op op = {0};
    struct op_matmul *o = &op.u.matmul;
    if (m->status == 0 && (x.col != 0 || x.n != m->p->bufs[x.buf].n_cols)) {
        x = model_copy(m, x, 1, x.n, x.n); /* products read dense rows */
    }
    snprintf(full, sizeof full, "%s.bias", name);
    *o = (struct op_matmul){.x = x, .add = model_none()};
    o->bias = model_vec_maybe(m, full, n_out);
    snprintf(full, sizeof full, "%s.weight", name);
    o->w = model_matrix(m, full, x.n, n_out, 1);
    o->y = model_new(m, name, n_out, x);
    snprintf(full, sizeof full, "%s.scale", name);
    const float *scale = model_vec_maybe(m, full, 1);
    if (scale && o->bias) {
        model_fail(m, ERR_MODEL_TENSOR, "tensor '%s' has both a scale and a bias", name);
    }
    model_emit(m, OP_matmul, &op);
    return scale ? model_scale(m, o->y, (double)*scale, 0) : o->y;
}

struct op_rows model_add_scaled(struct model *m, struct op_rows a, struct op_rows b, double scale)
{
    struct op op = {.u.add = {.a = a,
                              .b = b,
                              .y = model_new(m, "sum", a.n, a),
                              .n = a.n,
                              .a_scale = 1.0f,
                              .b_scale = (float)scale}};
    model_emit(m, OP_add, &op);
    return op.u.add.y;
}

struct op_rows model_add(struct model *m, struct op_rows a, struct op_rows b)
{
    return model_add_scaled(m, a, b, 1.0);
}

struct op_rows model_glu(struct model *m, enum op_glu_kind kind, struct op_rows gate,
                         struct op_rows up)
{
    int32_t n = model_is_none(up) ? gate.n : up.n;
    struct op op = {.u.glu = {.gate = gate,
                              .up = up,
                              .y = model_new(m, "glu", n, gate),
                              .kind = (int32_t)kind,
                              .n_groups = 1,
                              .n = n}};
    model_emit(m, OP_glu, &op);
    return op.u.glu.y;
}

void model_output(struct model *m, struct op_rows x, double scale, double cap)
{
    m->layer = -1;
    struct op op = {.u.gather = {.x = x, .y = model_new_rows(m, "out", x.n, 1, true)}};
    model_emit(m, OP_gather, &op);
    x = model_norm(m, op.u.gather.y, model_has(m, "output_norm.weight") ? "output_norm"
                                                                        : "token_embd_norm");
    const char *head = model_has(m, "output.weight") ? "output" : "token_embd";
    m->p->result = model_scale(m, model_linear(m, x, head, m->n_vocab), scale, cap);
}

struct op_rows model_concat(struct model *m, int64_t n_groups, struct op_rows a, int64_t a_n,
                            int64_t a_group, struct op_rows b, int64_t b_n, int64_t b_group)
{
    struct op op = {.u.concat = {.a = a,
                                 .b = b,
                                 .y = model_new(m, "concat", n_groups * (a_n + b_n), a),
                                 .n_groups = (int32_t)n_groups,
                                 .a_n = (int32_t)a_n,
                                 .a_group = (int32_t)a_group,
                                 .b_n = (int32_t)b_n,
                                 .b_group = (int32_t)b_group}};
    model_emit(m, OP_concat, &op);
    return op.u.concat.y;
}

struct op_rows model_heads(struct model *m, struct op_rows x, const char *name, int64_t n_groups,
                           int64_t x_group, int64_t n_in, int64_t n_out)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.weight", name);
    struct op op = {.u.heads = {.x = x,
                                .y = model_new(m, name, n_groups * n_out, x),
                                .w = model_matrix(m, full, n_in, n_out, n_groups),
                                .n_groups = (int32_t)n_groups,
                                .x_group = (int32_t)x_group}};
    model_emit(m, OP_heads, &op);
    return op.u.heads.y;
}

/* --- recurrent ---------------------------------------------------------------------------------*/

int model_state(struct model *m, int64_t floats)
{
    int index = m->status < 0 ? 0 : program_add_state(m->p, floats);
    if (index < 0) {
        model_fail(m, index, "program of %s", m->arch);
    }
    return index;
}

struct op_rows model_conv(struct model *m, struct op_rows x, const char *name, int64_t width,
                          bool silu)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.weight", name);
    const float *w = model_vec(m, full, width * x.n);
    float *by_tap = model_alloc(m, (size_t)MAX(width * x.n, (int64_t)1) * sizeof *by_tap);
    if (!w || !by_tap) {
        return model_none();
    }
    for (int64_t c = 0; c < x.n; c++) {
        for (int64_t j = 0; j < width; j++) {
            by_tap[j * x.n + c] = w[c * width + j];
        }
    }
    snprintf(full, sizeof full, "%s.bias", name);
    struct op op = {.u.conv = {.x = x,
                               .y = model_new(m, "conv", x.n, x),
                               .weight = by_tap,
                               .bias = model_vec_maybe(m, full, x.n),
                               .state = model_state(m, (width - 1) * x.n),
                               .n = x.n,
                               .width = (int32_t)width,
                               .silu = silu}};
    model_emit(m, OP_conv, &op);
    return op.u.conv.y;
}
