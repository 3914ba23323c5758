/* The largest logits, on the device (see gpu_top.h). The token loop's thread; submits, does not
 * wait. */
#include "worker/gpu/gpu_top.h"

enum { FEW = 8 }; /* for a few ids that are banned */

static int32_t n_parts(const struct gpu_top *t)
{
    return (int32_t)TABLE_CEIL(t->n_vocab, (int64_t)TOP_PART);
}

static bool is_possible(const struct gpu_top *t)
{
    return t->n_vocab <= (int64_t)TOP_PART * (TOP_FOLD / TOP_MAX);
}

/* Of values, ids and bad, for n rows of k. */
static size_t results_bytes(int64_t n, int32_t k)
{
    return (size_t)(n * (2 * k + 1)) * sizeof(int32_t);
}

void gpu_top_take(struct gpu_top *t, struct gpu_arena *a, int64_t n_rows, int64_t n_vocab)
{
    t->n_rows = n_rows;
    t->n_vocab = n_vocab;
    if (!is_possible(t)) {
        return;
    }
    size_t parts = (size_t)(n_rows * n_parts(t));
    t->part_values = gpu_arena_take(a, GPU_LABEL_SCRATCH, parts * TOP_MAX * sizeof(float));
    t->part_ids = gpu_arena_take(a, GPU_LABEL_SCRATCH, parts * TOP_MAX * sizeof(int32_t));
    t->part_bad = gpu_arena_take(a, GPU_LABEL_SCRATCH, parts * sizeof(int32_t));
    t->results = gpu_arena_take(a, GPU_LABEL_SCRATCH, results_bytes(n_rows, TOP_MAX));
}

bool gpu_top_take_host(struct gpu_top *t, struct door *d)
{
    t->host = door_host_allocate(d, results_bytes(t->n_rows, TOP_MAX));
    return t->host;
}

void gpu_top_finish(struct gpu_top *t, struct door *d)
{
    door_host_free(d, t->host);
    t->host = NULL;
}

int32_t gpu_top_round(const struct gpu_top *t, int32_t n)
{
    return n == 0 || !is_possible(t) ? 0 : n == 1 ? 1 : n <= FEW ? FEW : TOP_MAX;
}

void gpu_top_emit(struct gpu_top *t, struct door *d, const struct op_rows *logits, int64_t n_rows,
                  int32_t k)
{
    char *values = t->results, *ids = values + n_rows * k * 4, *bad = ids + n_rows * k * 4;
    struct top_args a = {
        .x = logits->data,
        .part_values = t->part_values,
        .part_ids = t->part_ids,
        .part_bad = t->part_bad,
        .values = (float *)(void *)values,
        .ids = (int32_t *)(void *)ids,
        .bad = (int32_t *)(void *)bad,
        .x_stride = logits->stride,
        .n_rows = (int32_t)n_rows,
        .n = (int32_t)t->n_vocab,
        .k = k,
        .n_parts = n_parts(t),
    };
    door_launch(d, TABLE_top_part, &a);
    door_launch(d, TABLE_top_fold, &a);
}

void gpu_top_download(struct gpu_top *t, struct door *d, int64_t n_rows, int32_t k)
{
    t->k = k;
    t->last_rows = n_rows;
    door_download(d, t->host, t->results, results_bytes(n_rows, k));
}

struct engine_top gpu_top_of(const struct gpu_top *t, int64_t row)
{
    const float *values = (const float *)(void *)t->host;
    const int32_t *ids = (const int32_t *)(void *)t->host + t->last_rows * t->k;
    struct engine_top top = {.values = values + row * t->k, .ids = ids + row * t->k};
    while (top.n < t->k && top.ids[top.n] >= 0) {
        top.n++;
    }
    return top;
}

bool gpu_top_is_finite(const struct gpu_top *t, int64_t row)
{
    return ((const int32_t *)(void *)t->host)[2 * t->last_rows * t->k + row] == 0;
}

/* The k largest in order, lower ids first among equals; -1 behind the last. */
static void pick(const float *x, int64_t n, int32_t k, int32_t *ids)
{
    int32_t n_ids = 0;
    for (int32_t i = 0; i < n; i++) {
        if (n_ids == k && !(x[i] > x[ids[k - 1]])) {
            continue;
        }
        int32_t at = n_ids < k ? n_ids++ : k - 1;
        for (; at > 0 && x[i] > x[ids[at - 1]]; at--) {
            ids[at] = ids[at - 1];
        }
        ids[at] = i;
    }
    for (; n_ids < k; n_ids++) {
        ids[n_ids] = -1;
    }
}

bool gpu_top_redo(struct gpu_top *t, const float *logits)
{
    float *values = (float *)(void *)t->host;
    int32_t *ids = (int32_t *)(void *)t->host + t->last_rows * t->k, right[TOP_MAX];
    bool is_same = true;
    for (int64_t r = 0; r < t->last_rows; r++, logits += t->n_vocab) {
        if (!gpu_top_is_finite(t, r)) {
            continue;
        }
        pick(logits, t->n_vocab, t->k, right);
        for (int64_t i = 0; i < t->k; i++) {
            float *value = &values[r * t->k + i];
            int32_t *id = &ids[r * t->k + i];
            is_same = is_same && *id == right[i] && (right[i] < 0 || *value == logits[right[i]]);
            *id = right[i];
            *value = right[i] < 0 ? *value : logits[right[i]];
        }
    }
    return is_same;
}
