/* Parameters on the device (see gpu_weight.h). The thread that loads, and the pool. */
#include "worker/gpu/gpu_weight.h"

#include "kernels/hip/pack.h"
#include "worker/memory.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef void vector_fn(void *arg, const float **v, int64_t n);

/* Calls fn for every vector of an op that is there, with its length. */
static void each_vector(struct op *op, vector_fn *fn, void *arg)
{
    struct {
        const float **v;
        int64_t n;
    } all[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    switch (op->code) {
    case OP_norm: {
        struct op_norm *o = &op->u.norm;
        int64_t n = (int64_t)o->n * (o->per_group ? o->n_groups : 1);
        all[0].v = &o->weight;
        all[1].v = &o->bias;
        all[0].n = all[1].n = n;
        break;
    }
    case OP_matmul:
        all[0].v = &op->u.matmul.bias;
        all[0].n = op->u.matmul.w->n_rows;
        break;
    case OP_experts:
        all[0].v = &op->u.experts.bias;
        all[0].n = op->u.experts.w->n_rows * op->u.experts.n_expert;
        break;
    case OP_attention:
        all[0].v = &op->u.attention.sinks;
        all[1].v = &op->u.attention.alibi;
        all[0].n = all[1].n = op->u.attention.n_head;
        break;
    case OP_route:
        all[0].v = &op->u.route.bias;
        all[0].n = op->u.route.n_expert;
        break;
    case OP_conv:
        all[0].v = &op->u.conv.weight;
        all[0].n = (int64_t)op->u.conv.width * op->u.conv.n;
        all[1].v = &op->u.conv.bias;
        all[1].n = op->u.conv.n;
        break;
    case OP_ssm:
        all[0].v = &op->u.ssm.dt_bias;
        all[1].v = &op->u.ssm.a;
        all[2].v = &op->u.ssm.d;
        all[0].n = all[1].n = all[2].n = op->u.ssm.n_head;
        break;
    case OP_delta:
        all[0].v = &op->u.delta.dt_bias;
        all[1].v = &op->u.delta.a;
        all[0].n = all[1].n = op->u.delta.n_head_v;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        if (all[i].v && *all[i].v) {
            fn(arg, all[i].v, all[i].n);
        }
    }
}

struct planning {
    struct gpu_weights *w;
    struct gpu_arena *a;
};

static void plan_vector(void *arg, const float **v, int64_t n)
{
    struct planning *to = arg;
    struct gpu_weights *w = to->w;
    for (size_t i = 0; i < w->n_vectors; i++) {
        if (w->vectors[i].host == *v && w->vectors[i].n == n) {
            return;
        }
    }
    float *device = gpu_arena_take(to->a, GPU_LABEL_VECTORS, (size_t)n * sizeof(float));
    w->vectors[w->n_vectors++] = (struct gpu_vector){.host = *v, .device = device, .n = n};
}

static int plan_matrix(struct gpu_weights *w, const struct matmul_weight *m, int64_t n,
                       struct gpu_arena *a)
{
    struct pack_layout layout;
    for (size_t i = 0; i < w->n_matrices; i++) {
        const struct gpu_matrix *known = &w->matrices[i];
        if (known->w->data == m->data && known->n == n && known->w->n_rows == m->n_rows) {
            return (int)i;
        }
    }
    int err = pack_layout(m->type, m->n_rows, m->n_cols, &layout);
    if (err < 0) {
        return err;
    }
    void *data = gpu_arena_take(a, GPU_LABEL_WEIGHTS, (size_t)layout.n_bytes * (size_t)n);
    w->matrices[w->n_matrices] = (struct gpu_matrix){
        .w = m,
        .n = n,
        .device = {.data = data,
                   .scale_at = layout.scale_at,
                   .super_at = layout.super_at,
                   .each_bytes = layout.n_bytes,
                   .n_rows = (int32_t)m->n_rows},
    };
    return (int)w->n_matrices++;
}

int gpu_weights_plan(struct gpu_weights *w, const struct program *p, struct gpu_arena *a)
{
    gpu_weights_finish(w);
    w->matrices = malloc((p->n_ops + 1) * sizeof *w->matrices);
    w->vectors = malloc((3 * p->n_ops + 1) * sizeof *w->vectors);
    w->matrix_of_op = malloc((p->n_ops + 1) * sizeof *w->matrix_of_op);
    if (!w->matrices || !w->vectors || !w->matrix_of_op) {
        return -ENOMEM;
    }
    struct planning to = {w, a};
    for (size_t i = 0; i < p->n_ops; i++) {
        int64_t n;
        const struct matmul_weight *m = program_matrices(&p->ops[i], &n);
        w->matrix_of_op[i] = -1;
        if (p->ops[i].place != OP_ON_GPU) {
            continue;
        }
        w->matrix_of_op[i] = m ? plan_matrix(w, m, n, a) : -1;
        if (m && w->matrix_of_op[i] < 0) {
            return w->matrix_of_op[i];
        }
        each_vector(&p->ops[i], plan_vector, &to);
    }
    return 0;
}

void gpu_weights_finish(struct gpu_weights *w)
{
    free(w->matrices);
    free(w->vectors);
    free(w->matrix_of_op);
    *w = (struct gpu_weights){0};
}

/* --- uploading ------------------------------------------------------------------------------- */

static void use_device(void *arg, const float **v, int64_t n)
{
    const struct gpu_weights *w = arg;
    for (size_t i = 0; i < w->n_vectors; i++) {
        if (w->vectors[i].host == *v && w->vectors[i].n == n) {
            *v = w->vectors[i].device;
            return;
        }
    }
}

struct packing {
    const struct matmul_weight *w;
    struct pack_layout layout;
    void *buffer;
};

static void pack_panels(void *arg, int64_t lo, int64_t hi, int thread)
{
    const struct packing *k = arg;
    (void)thread;
    int64_t first = lo * ARGS_PANEL, end = MIN(hi * ARGS_PANEL, k->w->n_rows);
    const char *data =
        (const char *)k->w->data + (size_t)first * type_row_bytes(k->w->type, (size_t)k->w->n_cols);
    pack_rows(k->w->type, &k->layout, data, first, end - first, k->w->n_cols, k->buffer);
}

static int upload_matrix(const struct gpu_matrix *m, struct door *d, struct pool *pool,
                         struct err *e)
{
    for (int64_t i = 0; i < m->n; i++) {
        struct packing k = {.w = &m->w[i]};
        size_t row_bytes = type_row_bytes(k.w->type, (size_t)k.w->n_cols);
        int err = memory_check_file(k.w->data, (size_t)k.w->n_rows * row_bytes, e);
        err = err < 0 ? err : pack_layout(k.w->type, k.w->n_rows, k.w->n_cols, &k.layout);
        k.buffer = err < 0 ? NULL : calloc(1, (size_t)k.layout.n_bytes);
        if (!k.buffer) {
            return err < 0 ? err : -ENOMEM;
        }
        pool_run(pool, (k.w->n_rows + ARGS_PANEL - 1) / ARGS_PANEL, 1, pack_panels, &k);
        /* The address of a device is only counted with. */
        uint8_t *to = (uint8_t *)(uintptr_t)m->device.data + i * m->device.each_bytes;
        door_upload_now(d, to, k.buffer, (size_t)k.layout.n_bytes);
        free(k.buffer);
    }
    return 0;
}

/* A page of the file that the disk does not give is an error here; read by the packing, it would be
 * the end of the process. */
int gpu_weights_upload(struct gpu_weights *w, struct program *p, struct door *d, struct pool *pool,
                       void (*progress)(void *arg, uint64_t done, uint64_t total),
                       void *progress_arg, struct err *e)
{
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < w->n_matrices; i++) {
        total += (uint64_t)(w->matrices[i].device.each_bytes * w->matrices[i].n);
    }
    for (size_t i = 0; i < w->n_vectors; i++) {
        const struct gpu_vector *v = &w->vectors[i];
        int err = memory_check_file(v->host, (size_t)v->n * sizeof(float), e);
        if (err < 0) {
            return err;
        }
        door_upload_now(d, v->device, v->host, (size_t)v->n * sizeof(float));
    }
    for (size_t i = 0; i < w->n_matrices; i++) {
        int err = upload_matrix(&w->matrices[i], d, pool, e);
        if (err < 0) {
            return err;
        }
        done += (uint64_t)(w->matrices[i].device.each_bytes * w->matrices[i].n);
        if (progress) {
            progress(progress_arg, done, total);
        }
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].place == OP_ON_GPU) {
            each_vector(&p->ops[i], use_device, w);
        }
    }
    return 0;
}
