/* Launches of ops that advance a state (see gpu_emit.h). The token loop's thread; submits, never
 * waits. A sequence's slot holds the states of all layers side by side. */
#include "worker/gpu/gpu_emit_op.h"

static void emit_conv(const struct gpu_emit *t, const struct op_conv *o)
{
    struct conv_args a = {
        .x = o->x.data,
        .weight = o->weight,
        .bias = o->bias,
        .y = o->y.data,
        .states = t->p->states[o->state].data,
        .runs = t->in.runs,
        .x_stride = o->x.stride,
        .y_stride = o->y.stride,
        .state_stride = t->state_floats,
        .n_runs = t->in.n_runs,
        .n = o->n,
        .width = o->width,
        .silu = o->silu,
    };
    door_launch(t->door, TABLE_conv, &a);
}

static void emit_ssm(const struct gpu_emit *t, const struct op_ssm *o)
{
    struct ssm_args a = {
        .x = o->x.data,
        .b = o->b.data,
        .c = o->c.data,
        .dt = o->dt.data,
        .dt_bias = o->dt_bias,
        .a = o->a,
        .d = o->d,
        .y = o->y.data,
        .states = t->p->states[o->state].data,
        .runs = t->in.runs,
        .x_stride = o->x.stride,
        .b_stride = o->b.stride,
        .c_stride = o->c.stride,
        .dt_stride = o->dt.stride,
        .y_stride = o->y.stride,
        .state_stride = t->state_floats,
        .n_runs = t->in.n_runs,
        .n_head = o->n_head,
        .dim = o->dim,
        .n_state = o->n_state,
        .n_group = o->n_group,
    };
    door_launch(t->door, TABLE_ssm, &a);
}

static void emit_delta(const struct gpu_emit *t, const struct op_delta *o)
{
    struct delta_args a = {
        .q = o->q.data,
        .k = o->k.data,
        .v = o->v.data,
        .gate = o->gate.data,
        .beta = o->beta.data,
        .dt_bias = o->dt_bias,
        .a = o->a,
        .y = o->y.data,
        .states = t->p->states[o->state].data,
        .runs = t->in.runs,
        .q_stride = o->q.stride,
        .k_stride = o->k.stride,
        .v_stride = o->v.stride,
        .gate_stride = o->gate.stride,
        .beta_stride = o->beta.stride,
        .y_stride = o->y.stride,
        .state_stride = t->state_floats,
        .n_runs = t->in.n_runs,
        .n_head_k = o->n_head_k,
        .n_head_v = o->n_head_v,
        .dim_k = o->dim_k,
        .dim_v = o->dim_v,
        .tiled = o->tiled,
        .scale = o->scale,
    };
    door_launch(t->door, TABLE_delta, &a);
}

void gpu_emit_recurrent(const struct gpu_emit *t, const struct op *op)
{
    if (op->code == OP_conv) {
        emit_conv(t, &op->u.conv);
    } else if (op->code == OP_ssm) {
        emit_ssm(t, &op->u.ssm);
    } else {
        emit_delta(t, &op->u.delta);
    }
}
