/* Writing a step's keys and values into the KV cache. */
#include "kernels/cpu/kv_q8.h"
#include "kernels/cpu/ops_job.h"
#include "kernels/cpu/vec.h"

#include <string.h>

struct job {
    const struct op_kv_write *o;
    const struct op_step *s;
    const struct kv_layer *layer;
    const struct op_run *run;
};

enum { PIECE = 256 }; /* dimensions converted at a time, on the stack */

/* One head's K is a column of the block's transposed tile: its values stand KV_BLOCK apart. */
static void write_k(const struct job *j, const float *k, char *tile, int64_t slot)
{
    const struct kv_layer *l = j->layer;
    const struct vec *vec = vec_get(j->s->isa);
    if (l->type == TYPE_F32) {
        float *column = (float *)(void *)tile + slot;
        for (int64_t d = 0; d < l->dim_k; d++) {
            column[d * KV_BLOCK] = k[d];
        }
        return;
    }
    uint16_t half[PIECE], *column = (uint16_t *)(void *)tile + slot;
    for (int64_t first = 0; first < l->dim_k; first += PIECE) {
        int64_t n = MIN((int64_t)PIECE, l->dim_k - first);
        vec->narrow(half, k + first, l->type, n);
        for (int64_t d = 0; d < n; d++) {
            column[(first + d) * KV_BLOCK] = half[d];
        }
    }
}

/* Scales and bytes of one token: K's columns, or V's row. */
static void write_q8(const float *x, char *tile, int64_t slot, int64_t dim, bool is_k)
{
    int64_t n_groups = (int64_t)kv_q8_groups(dim);
    uint16_t *scales = (uint16_t *)(void *)tile;
    int8_t *q = (int8_t *)(scales + n_groups * KV_BLOCK);
    for (int64_t g = 0; g < n_groups; g++) {
        int64_t first = g * KV_Q8_GROUP, n = MIN((int64_t)KV_Q8_GROUP, dim - first);
        if (is_k) {
            scales[g * KV_BLOCK + slot] =
                kv_q8_put(q + first * KV_BLOCK + slot, KV_BLOCK, x + first, n);
        } else {
            scales[slot * n_groups + g] = kv_q8_put(q + slot * dim + first, 1, x + first, n);
        }
    }
}

static void rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    const struct kv_layer *l = j->layer;
    size_t elem = type_info((uint32_t)l->type)->block_bytes;
    for (int64_t i = lo; i < hi; i++) {
        int64_t row = j->run->first + i, pos = j->run->pos + i, slot = pos % KV_BLOCK;
        for (int64_t h = 0; h < l->n_head; h++) {
            char *tile = kv_head(l, j->run->blocks[pos / KV_BLOCK], h);
            char *values = tile + kv_tile_bytes(l->type, l->dim_k);
            const float *k = op_row(&j->o->k, row) + h * l->dim_k;
            const float *v = l->v_in_k ? NULL : op_row(&j->o->v, row) + h * l->dim_v;
            if (l->type == TYPE_Q8_0) {
                write_q8(k, tile, slot, l->dim_k, true);
                if (v) {
                    write_q8(v, values, slot, l->dim_v, false);
                }
                continue;
            }
            write_k(j, k, tile, slot);
            if (v) {
                vec_get(j->s->isa)->narrow(values + (size_t)(slot * l->dim_v) * elem, v, l->type,
                                           l->dim_v);
            }
        }
    }
}

void op_kv_write_run(const struct op_kv_write *o, const struct op_step *s, int64_t n)
{
    (void)n;
    const struct kv_layer *l = &s->kv[o->layer];
    for (int64_t i = 0; i < s->n_runs; i++) {
        struct job j = {o, s, l, &s->runs[i]};
        ops_job(s, j.run->n, (int64_t)l->n_head * (l->dim_k + l->dim_v), rows, &j);
    }
}
