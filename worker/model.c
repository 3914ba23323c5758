/* Building programs: metadata, tensors, plain values. Pure but for memory; runs once at load. */
#include "kernels/quant.h"
#include "shared/limits.h"
#include "shared/num.h"
#include "worker/arch/arch.h"
#include "worker/model_tensor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128 };

void model_fail(struct model *m, int code, const char *fmt, ...)
{
    if (m->status < 0) {
        return;
    }
    char text[ERR_DETAIL_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    m->status = err_set(m->e, code, "%s", text);
}

void *model_alloc(struct model *m, size_t bytes)
{
    void *p = arena_alloc(&m->p->arena, bytes);
    if (!p) {
        model_fail(m, -ENOMEM, "program of %s", m->arch);
    }
    return p;
}

/* --- metadata ----------------------------------------------------------------------------------*/

static const char *full_key(const struct model *m, const char *key, char buf[NAME_BYTES])
{
    snprintf(buf, NAME_BYTES, "%s.%s", m->arch, key);
    return buf;
}

const struct gguf_kv *model_find(struct model *m, const char *key)
{
    char name[NAME_BYTES];
    return gguf_find(m->g, full_key(m, key, name));
}

bool model_has_key(struct model *m, const char *key)
{
    return model_find(m, key) != NULL;
}

/* A number of an array key that has one value per layer. */
static bool layer_elem(struct model *m, const char *name, double *ret)
{
    const struct gguf_kv *kv = gguf_find(m->g, name);
    if (!kv || kv->kind != GGUF_ARRAY || kv->elem_kind == GGUF_STRING ||
        kv->elem_kind == GGUF_ARRAY) {
        return false;
    }
    uint64_t i = (uint64_t)MAX(m->layer, 0);
    if (i >= kv->n) {
        model_fail(m, ERR_GGUF_KEY, "key '%s' has %llu values, layer %llu needs one", name,
                   (unsigned long long)kv->n, (unsigned long long)i);
        *ret = 0;
        return true;
    }
    *ret = gguf_elem_f64(kv, i);
    return true;
}

double model_num(struct model *m, const char *key, double min, double max, double def)
{
    char name[NAME_BYTES];
    double v = min;
    if (m->status < 0) {
        return min;
    }
    full_key(m, key, name);
    if (layer_elem(m, name, &v)) {
        if (!(v >= min && v <= max)) {
            model_fail(m, ERR_GGUF_KEY, "key '%s', layer %d: %g is not in [%g, %g]", name, m->layer,
                       v, min, max);
        }
    } else if (def == (double)MODEL_REQUIRED && !gguf_find(m->g, name)) {
        model_fail(m, ERR_GGUF_KEY, "key '%s' is missing", name);
    } else {
        int err = gguf_get_f64(m->g, name, min, max, def, &v, m->e);
        m->status = err < 0 ? err : 0;
    }
    return m->status < 0 ? min : v;
}

int64_t model_int(struct model *m, const char *key, int64_t min, int64_t max, int64_t def)
{
    char name[NAME_BYTES];
    double elem;
    uint64_t v = 0;
    if (m->status < 0) {
        return min;
    }
    full_key(m, key, name);
    if (layer_elem(m, name, &elem)) {
        if (elem >= (double)min && elem <= (double)max) {
            return (int64_t)elem;
        }
        model_fail(m, ERR_GGUF_KEY, "key '%s', layer %d: %g is not in [%lld, %lld]", name, m->layer,
                   elem, (long long)min, (long long)max);
        return min;
    }
    if (!gguf_find(m->g, name)) {
        if (def == MODEL_REQUIRED) {
            model_fail(m, ERR_GGUF_KEY, "key '%s' is missing", name);
            return min;
        }
        return def;
    }
    int err = gguf_get_u64(m->g, name, (uint64_t)min, (uint64_t)max, 0, &v, m->e);
    if (err < 0) {
        m->status = err;
        return min;
    }
    return (int64_t)v;
}

bool model_flag(struct model *m, const char *key, bool def)
{
    char name[NAME_BYTES];
    bool v = def;
    if (m->status < 0) {
        return def;
    }
    int err = gguf_get_bool(m->g, full_key(m, key, name), def, &v, m->e);
    m->status = err < 0 ? err : 0;
    return v;
}

bool model_key_is(struct model *m, const char *key, const char *text)
{
    char name[NAME_BYTES];
    struct gguf_str s = {0};
    if (m->status < 0) {
        return false;
    }
    int err = gguf_get_str(m->g, full_key(m, key, name), &s, m->e);
    m->status = err < 0 ? err : 0;
    return s.data && s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* --- tensors -----------------------------------------------------------------------------------*/

static const char *full_name(const struct model *m, const char *name, char buf[NAME_BYTES])
{
    if (m->layer >= 0) {
        snprintf(buf, NAME_BYTES, "blk.%d.%s", m->layer, name);
    } else {
        snprintf(buf, NAME_BYTES, "%s", name);
    }
    return buf;
}

const struct gguf_tensor *model_tensor_maybe(struct model *m, const char *name)
{
    char full[NAME_BYTES];
    const struct gguf_tensor *t = gguf_find_tensor(m->g, full_name(m, name, full));
    if (t) {
        m->is_used[t - m->g->tensors] = 1;
    }
    return t;
}

const struct gguf_tensor *model_tensor(struct model *m, const char *name)
{
    char full[NAME_BYTES];
    const struct gguf_tensor *t = m->status < 0 ? NULL : model_tensor_maybe(m, name);
    if (!t) {
        model_fail(m, ERR_MODEL_TENSOR, "tensor '%s' is missing", full_name(m, name, full));
    } else if (!quant_decoder(t->type)) {
        model_fail(m, ERR_GGUF_TYPE, "tensor '%s' of type %s holds no weights", t->name,
                   type_info((uint32_t)t->type)->name);
        return NULL;
    }
    return t;
}

bool model_has(struct model *m, const char *name)
{
    char full[NAME_BYTES];
    return gguf_find_tensor(m->g, full_name(m, name, full)) != NULL;
}

int64_t model_dim(struct model *m, const char *name, int dim)
{
    const struct gguf_tensor *t = model_tensor(m, name);
    if (!t || t->ne[dim] == 0 || t->ne[dim] > INT32_MAX) {
        model_fail(m, ERR_MODEL_TENSOR, "tensor '%s' is empty or too large", name);
        return 1;
    }
    return (int64_t)t->ne[dim];
}

const float *model_vec_maybe(struct model *m, const char *name, int64_t n)
{
    return model_has(m, name) ? model_vec(m, name, n) : NULL;
}

const float *model_vec(struct model *m, const char *name, int64_t n)
{
    const struct gguf_tensor *t = model_tensor(m, name);
    if (!t) {
        return NULL;
    }
    uint64_t have = t->ne[0];
    if (!num_mul(have, t->ne[1], &have) || !num_mul(have, t->ne[2], &have) ||
        !num_mul(have, t->ne[3], &have) || have != (uint64_t)n) {
        model_fail(m, ERR_MODEL_TENSOR,
                   "tensor '%s' is %llu x %llu x %llu, expected %lld values in all", t->name,
                   (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                   (unsigned long long)t->ne[2], (long long)n);
        return NULL;
    }
    if (t->type == TYPE_F32 && (uintptr_t)t->data % _Alignof(float) == 0) {
        return t->data;
    }
    float *v = model_alloc(m, (size_t)n * sizeof *v);
    if (v) {
        quant_decoder(t->type)(t->data, v, n);
    }
    return v;
}

struct matmul_weight *model_matrix(struct model *m, const char *name, int64_t n_cols,
                                   int64_t n_rows, int64_t n_mat)
{
    const struct gguf_tensor *t = model_tensor(m, name);
    if (!t) {
        return NULL;
    }
    if (t->ne[0] != (uint64_t)n_cols || t->ne[1] != (uint64_t)n_rows ||
        t->ne[2] != (uint64_t)n_mat || t->ne[3] != 1) {
        model_fail(m, ERR_MODEL_TENSOR,
                   "tensor '%s' is %llu x %llu x %llu, expected %lld x %lld x %lld", t->name,
                   (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                   (unsigned long long)t->ne[2], (long long)n_cols, (long long)n_rows,
                   (long long)n_mat);
        return NULL;
    }
    struct matmul_weight *w = model_alloc(m, (size_t)n_mat * sizeof *w);
    if (!w) {
        return NULL;
    }
    size_t row_bytes = type_row_bytes(t->type, (size_t)n_cols);
    for (int64_t i = 0; i < n_mat; i++) {
        w[i] = (struct matmul_weight){
            .type = t->type,
            .n_rows = n_rows,
            .n_cols = n_cols,
            .data = (const char *)t->data + (size_t)(i * n_rows) * row_bytes,
            .row_bytes = row_bytes,
        };
    }
    if (program_add_weights(m->p, t->name, w, n_mat) < 0) {
        model_fail(m, -ENOMEM, "program of %s", m->arch);
        return NULL;
    }
    return w;
}

/* --- the whole ---------------------------------------------------------------------------------*/

int model_context_train(const struct gguf *g, int64_t *ret, struct err *e)
{
    struct gguf_str arch;
    char key[NAME_BYTES];
    uint64_t n;
    int err = gguf_get_str(g, "general.architecture", &arch, e);
    if (err < 0) {
        return err;
    }
    snprintf(key, sizeof key, "%.*s.context_length", (int)MIN(arch.len, (size_t)64),
             arch.data ? arch.data : "");
    err = gguf_get_u64(g, key, 1, INT32_MAX, 2048, &n, e);
    if (err == 0) {
        *ret = (int64_t)n;
    }
    return err;
}

static void read_common(struct model *m)
{
    uint64_t n_tokens = 0;
    const struct gguf_tensor *embed = model_tensor(m, "token_embd.weight");
    if (!embed || embed->ne[1] > LIMIT_VOCAB) {
        model_fail(m, ERR_MODEL_TENSOR, "tensor 'token_embd.weight' has too many rows");
        return;
    }
    n_tokens = embed->ne[1];
    m->n_vocab = (int64_t)n_tokens;
    m->n_layer = model_int(m, "block_count", 1, LIMIT_LAYERS, MODEL_REQUIRED);
    /* Blocks that only predict further tokens stand at the end; they are not run. */
    m->n_layer -= model_int(m, "nextn_predict_layers", 0, m->n_layer - 1, 0);
    m->n_embd = model_int(m, "embedding_length", 1, 1 << 20, MODEL_REQUIRED);
    m->n_ctx_train = model_int(m, "context_length", 1, INT32_MAX, 2048);
    bool is_layer_norm = model_has_key(m, "attention.layer_norm_epsilon");
    m->norm_kind = is_layer_norm ? OP_NORM_LAYER : OP_NORM_RMS;
    m->norm_eps = (float)model_num(m, is_layer_norm ? "attention.layer_norm_epsilon"
                                                    : "attention.layer_norm_rms_epsilon",
                                   0, 1, (double)MODEL_REQUIRED);
}

static void name_unused(const struct model *m, char warn[160])
{
    size_t n = 0, first = 0;
    for (size_t i = m->g->n_tensors; i-- > 0;) {
        const char *at = m->g->tensors[i].name;
        bool is_run = strncmp(at, "blk.", 4) != 0 || strtoll(at + 4, NULL, 10) < m->n_layer;
        if (!m->is_used[i] && is_run) {
            n++;
            first = i;
        }
    }
    if (n > 0) {
        snprintf(warn, 160, "%zu tensors are not used by architecture %s, first '%s'", n, m->arch,
                 m->g->tensors[first].name);
    }
}

int model_build(const struct gguf *g, int64_t n_ctx, enum type kv_type, struct program *p,
                char warn[160], struct err *e)
{
    struct model m = {.g = g, .p = p, .e = e, .n_ctx = n_ctx, .kv_type = kv_type, .layer = -1};
    struct gguf_str name;
    *warn = 0;
    int err = gguf_get_str(g, "general.architecture", &name, e);
    if (err < 0 || !name.data || name.len > 64) {
        return err < 0 ? err : err_set(e, ERR_GGUF_KEY, "key 'general.architecture' is missing");
    }
    m.arch = arena_str(&p->arena, name.data, name.len);
    m.is_used = calloc(g->n_tensors + 1, 1);
    if (!m.arch || !m.is_used) {
        free(m.is_used);
        return -ENOMEM;
    }
    model_arch_fn *build = arch_by_name(m.arch);
    if (!build) {
        model_fail(&m, ERR_MODEL_ARCH, "'%s'", m.arch);
    } else {
        read_common(&m);
        build(&m);
        name_unused(&m, warn);
    }
    free(m.is_used);
    return m.status;
}
