/* `quantize IN OUT TYPE`: writes a model in another type. Streams tensor by tensor, so memory stays
 * at a few rows per thread whatever the model's size. One process, its own pool. */
#include "kernels/cpu/pool.h"
#include "kernels/quant.h"
#include "shared/ggufw.h"
#include "shared/num.h"
#include "shared/progress.h"
#include "worker/quantize.h"
#include "worker/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK_BYTES = 16 * 1024 * 1024 }; /* of encoded rows between writes */

struct job { /* one chunk of rows of one tensor */
    const struct gguf_tensor *from;
    enum type to;
    int64_t first_row, n_cols;
    uint8_t *out;
    float **rows;          /* per thread: decoded row and its re-decoded form */
    double *error, *power; /* per thread: sums of squares */
};

static void encode_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct job *j = arg;
    float *x = j->rows[thread], *y = x + j->n_cols;
    size_t in_bytes = type_row_bytes(j->from->type, (size_t)j->n_cols);
    size_t out_bytes = type_row_bytes(j->to, (size_t)j->n_cols);
    for (int64_t r = lo; r < hi; r++) {
        const uint8_t *in = (const uint8_t *)j->from->data + (size_t)(j->first_row + r) * in_bytes;
        uint8_t *out = j->out + (size_t)r * out_bytes;
        quant_decoder(j->from->type)(in, x, j->n_cols);
        if (j->to == TYPE_F32) {
            memcpy(out, x, out_bytes);
            continue;
        }
        quant_encoder(j->to)(x, out, j->n_cols, NULL);
        quant_decoder(j->to)(out, y, j->n_cols);
        for (int64_t k = 0; k < j->n_cols; k++) {
            j->error[thread] += (double)(x[k] - y[k]) * (double)(x[k] - y[k]);
            j->power[thread] += (double)x[k] * (double)x[k];
        }
    }
}

struct state {
    struct gguf in;
    struct ggufw *out;
    struct pool *pool;
    struct quantize_shape shape;
    uint64_t done_bytes, total_bytes, written_bytes;
    struct progress progress;
};

/* Re-encodes one tensor; *ret_error is the relative RMS error. */
static int write_tensor(struct state *s, const struct gguf_tensor *t, enum type to,
                        double *ret_error, struct err *e)
{
    *ret_error = 0;
    if (to == t->type) {
        s->done_bytes += t->n_bytes;
        s->written_bytes += t->n_bytes;
        return ggufw_write(s->out, t->data, t->n_bytes, e);
    }
    int n_threads = pool_threads(s->pool);
    int64_t n_cols = (int64_t)t->ne[0];
    int64_t n_rows = (int64_t)(t->ne[1] * t->ne[2] * t->ne[3]);
    size_t row_bytes = type_row_bytes(to, (size_t)n_cols);
    int64_t chunk_rows = MAX((int64_t)(CHUNK_BYTES / row_bytes), 1);
    chunk_rows = MIN(chunk_rows, n_rows);
    struct job j = {.from = t, .to = to, .n_cols = n_cols};
    j.out = malloc((size_t)chunk_rows * row_bytes);
    float *scratch = malloc((size_t)n_threads * 2 * (size_t)n_cols * sizeof(float));
    j.rows = calloc((size_t)n_threads, sizeof(*j.rows));
    j.error = calloc((size_t)n_threads * 2, sizeof(double));
    int err = -ENOMEM;
    if (!j.out || !scratch || !j.rows || !j.error) {
        goto done;
    }
    j.power = j.error + n_threads;
    for (int i = 0; i < n_threads; i++) {
        j.rows[i] = scratch + (size_t)i * 2 * (size_t)n_cols;
    }
    err = 0;
    for (int64_t row = 0; row < n_rows && err == 0; row += chunk_rows) {
        int64_t n = MIN(chunk_rows, n_rows - row);
        j.first_row = row;
        pool_run(s->pool, n, 1, encode_rows, &j);
        err = ggufw_write(s->out, j.out, (size_t)n * row_bytes, e);
        s->done_bytes += (uint64_t)n * type_row_bytes(t->type, (size_t)n_cols);
        s->written_bytes += (uint64_t)n * row_bytes;
        progress_show(&s->progress, s->done_bytes, s->total_bytes);
    }
    double error = 0, power = 0;
    for (int i = 0; i < n_threads; i++) {
        error += j.error[i];
        power += j.power[i];
    }
    *ret_error = power > 0 ? sqrt(error / power) : 0;
done:
    free(j.out);
    free(scratch);
    free(j.rows);
    free(j.error);
    return err;
}

static int read_shape(struct state *s, struct err *e)
{
    struct gguf_str arch;
    char key[160];
    uint64_t n_heads, n_kv;
    int err = gguf_get_str(&s->in, "general.architecture", &arch, e);
    if (err < 0) {
        return err;
    }
    snprintf(key, sizeof(key), "%.*s.block_count", (int)MIN(arch.len, (size_t)64), arch.data);
    err = gguf_get_u64(&s->in, key, 1, 4096, 1, &s->shape.n_layers, e);
    snprintf(key, sizeof(key), "%.*s.expert_count", (int)MIN(arch.len, (size_t)64), arch.data);
    err = err < 0 ? err : gguf_get_u64(&s->in, key, 0, 65536, 0, &s->shape.n_experts, e);
    if (err < 0) {
        return err;
    }
    /* Head counts may be arrays (one per layer); such a model counts as plain. */
    snprintf(key, sizeof(key), "%.*s.attention.head_count", (int)MIN(arch.len, (size_t)64),
             arch.data);
    if (gguf_get_u64(&s->in, key, 1, 65536, 1, &n_heads, NULL) < 0) {
        n_heads = 1;
    }
    strncat(key, "_kv", sizeof(key) - strlen(key) - 1);
    if (gguf_get_u64(&s->in, key, 1, 65536, n_heads, &n_kv, NULL) < 0) {
        n_kv = n_heads;
    }
    s->shape.n_heads_per_kv = n_heads / n_kv;
    s->shape.is_tied = !gguf_find_tensor(&s->in, "output.weight");
    return 0;
}

static bool is_replaced_key(struct gguf_str key)
{
    static const char *const keys[] = {"general.file_type", "general.quantization_version",
                                       "split.no", "split.count", "split.tensors.count"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (key.len == strlen(keys[i]) && memcmp(key.data, keys[i], key.len) == 0) {
            return true;
        }
    }
    return false;
}

static int quantize(struct state *s, const char *out_path, const struct quantize_mix *mix,
                    struct err *e)
{
    int err = read_shape(s, e);
    if (err < 0 || (err = ggufw_create(out_path, &s->out, e)) < 0) {
        return err;
    }
    for (size_t i = 0; i < s->in.n_kv; i++) {
        if (!is_replaced_key(s->in.kv[i].key)) {
            ggufw_put_kv(s->out, &s->in.kv[i]);
        }
    }
    ggufw_put_u32(s->out, "general.quantization_version", 2);
    ggufw_put_u32(s->out, "general.file_type", quantize_mix_file_type(mix));
    enum type *types = calloc(s->in.n_tensors + 1, sizeof(*types));
    if (!types) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < s->in.n_tensors; i++) {
        const struct gguf_tensor *t = &s->in.tensors[i];
        types[i] = quantize_type(mix, &s->shape, t->name, t->n_dims, t->ne, t->type);
        bool can = types[i] == t->type ||
                   (quant_decoder(t->type) && (types[i] == TYPE_F32 || quant_encoder(types[i])));
        if (!can) {
            err = err_set(e, ERR_GGUF_TYPE, "tensor %s cannot be converted from %s to %s", t->name,
                          type_info((uint32_t)t->type)->name, type_info((uint32_t)types[i])->name);
            goto done;
        }
        ggufw_declare(s->out, t->name, types[i], t->n_dims, t->ne);
        s->total_bytes += t->n_bytes;
    }
    err = ggufw_begin_data(s->out, e);
    for (size_t i = 0; i < s->in.n_tensors && err == 0; i++) {
        const struct gguf_tensor *t = &s->in.tensors[i];
        double error;
        err = write_tensor(s, t, types[i], &error, e);
        if (err == 0 && types[i] != t->type) {
            printf("%-40s %6s -> %-6s relative error %.5f\n", t->name,
                   type_info((uint32_t)t->type)->name, type_info((uint32_t)types[i])->name, error);
        }
        progress_show(&s->progress, s->done_bytes, s->total_bytes);
    }
    err = err < 0 ? err : ggufw_commit(s->out, e);
done:
    free(types);
    return err;
}

/* Writing over the file that is being read would end in nothing. */
static bool is_input(const struct gguf *in, const char *path)
{
    struct stat out, part;
    bool is_same = false;
    for (size_t i = 0; i < in->n_parts && stat(path, &out) == 0; i++) {
        is_same |= stat(in->parts[i].path, &part) == 0 && part.st_dev == out.st_dev &&
                   part.st_ino == out.st_ino;
    }
    return is_same;
}

static int run(const struct config *c, const char *const paths[3], struct err *e)
{
    struct state s = {0};
    progress_start(&s.progress);
    const struct quantize_mix *mix = quantize_mix_by_name(paths[2]);
    if (!mix) {
        return err_set(e, ERR_USAGE, "'%s' is no type", paths[2]);
    }
    int err = gguf_open(paths[0], &s.in, e);
    if (err < 0) {
        return err;
    }
    if (is_input(&s.in, paths[1])) {
        err = err_set(e, ERR_USAGE, "%s is the input file", paths[1]);
    }
    err = err < 0 ? err : pool_create((int)c->v[CONFIG_threads].i, &s.pool);
    err = err < 0 ? err : quantize(&s, paths[1], mix, e);
    ggufw_destroy(&s.out);
    pool_destroy(&s.pool);
    gguf_close(&s.in);
    progress_clear(&s.progress);
    if (err == 0) {
        printf("%.1f MiB -> %.1f MiB\n", (double)s.total_bytes / 1048576,
               (double)s.written_bytes / 1048576);
    }
    return err;
}

int tool_quantize(int argc, char **argv)
{
    const char *paths[3];
    char summary[512];
    const enum config_key keys[] = {CONFIG_threads};
    struct options o = {
        .usage = "quantize IN.gguf OUT.gguf TYPE [--threads N]",
        .summary = summary,
        .keys = keys,
        .n_keys = COUNT_OF(keys),
        .positional = paths,
        .max_positional = COUNT_OF(paths),
    };
    struct config c;
    struct err e = {0};
    snprintf(summary, sizeof(summary), "Writes a model in another type, one of\n%s.",
             quantize_mix_names());
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1 && o.n_positional != COUNT_OF(paths)) {
        err =
            err_set(&e, ERR_USAGE, "two files and a type are needed; usage: rocmforge %s", o.usage);
    }
    err = err == 1 ? run(&c, paths, &e) : err;
    return tool_finish("quantize", &c, err, &e);
}
