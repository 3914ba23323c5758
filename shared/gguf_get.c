/* Values of a GGUF file. Pure. */
#include "shared/gguf_index.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} kinds[] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_kind_name(uint32_t kind)
{
    return kind < COUNT_OF(kinds) ? kinds[kind].name : "?";
}

size_t gguf_kind_bytes(uint32_t kind)
{
    return kind < COUNT_OF(kinds) ? kinds[kind].bytes : 0;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    int64_t i = g->index ? gguf_names_find(&g->index->keys, key, strlen(key)) : -1;
    return i < 0 ? NULL : &g->kv[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    int64_t i = g->index ? gguf_names_find(&g->index->tensors, name, strlen(name)) : -1;
    return i < 0 ? NULL : &g->tensors[i];
}

/* An integer or truth value in one form: the bits, and whether they are a negative number. */
static bool read_integer(enum gguf_kind kind, const uint8_t *p, uint64_t *ret,
                         bool *ret_is_negative)
{
    uint64_t v = 0;
    size_t n = gguf_kind_bytes(kind);
    if (n == 0 || kind == GGUF_F32 || kind == GGUF_F64) {
        return false;
    }
    memcpy(&v, p, n);
    bool is_signed = kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
    *ret_is_negative = is_signed && (v >> (8 * n - 1) & 1);
    if (*ret_is_negative && n < 8) {
        v |= ~UINT64_C(0) << 8 * n;
    }
    *ret = kind == GGUF_BOOL ? v != 0 : v;
    return true;
}

static bool read_real(enum gguf_kind kind, const uint8_t *p, double *ret)
{
    float f;
    if (kind == GGUF_F32) {
        memcpy(&f, p, sizeof(f));
        *ret = (double)f;
    } else if (kind == GGUF_F64) {
        memcpy(ret, p, sizeof(*ret));
    } else {
        return false;
    }
    return true;
}

static int wrong_kind(const struct gguf_kv *kv, const char *key, const char *wanted, struct err *e)
{
    return err_set(e, ERR_GGUF_KEY, "key '%.100s' is %s, must be %s", key, gguf_kind_name(kv->kind),
                   wanted);
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t min, uint64_t max, uint64_t def,
                 uint64_t *ret, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        *ret = def;
        return 0;
    }
    uint64_t v;
    bool is_negative;
    if (kv->kind == GGUF_BOOL || !read_integer(kv->kind, kv->data, &v, &is_negative)) {
        return wrong_kind(kv, key, "an integer", e);
    }
    if (is_negative || v < min || v > max) {
        return err_set(e, ERR_GGUF_KEY,
                       "key '%.100s' is %s%" PRIu64 ", allowed %" PRIu64 " to %" PRIu64, key,
                       is_negative ? "-" : "", is_negative ? 0 - v : v, min, max);
    }
    *ret = v;
    return 0;
}

int gguf_get_f64(const struct gguf *g, const char *key, double min, double max, double def,
                 double *ret, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        *ret = def;
        return 0;
    }
    uint64_t bits;
    bool is_negative;
    double v;
    if (read_real(kv->kind, kv->data, &v)) {
        /* as it is */
    } else if (kv->kind != GGUF_BOOL && read_integer(kv->kind, kv->data, &bits, &is_negative)) {
        v = is_negative ? -(double)(0 - bits) : (double)bits;
    } else {
        return wrong_kind(kv, key, "a number", e);
    }
    if (!(v >= min && v <= max)) { /* so that NaN is refused */
        return err_set(e, ERR_GGUF_KEY, "key '%.100s' is %.9g, allowed %.9g to %.9g", key, v, min,
                       max);
    }
    *ret = v;
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool def, bool *ret, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        *ret = def;
        return 0;
    }
    if (kv->kind != GGUF_BOOL) {
        return wrong_kind(kv, key, "bool", e);
    }
    *ret = *kv->data != 0;
    return 0;
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        *ret = (struct gguf_str){0};
        return 0;
    }
    if (kv->kind != GGUF_STRING) {
        return wrong_kind(kv, key, "a string", e);
    }
    *ret = *kv->strings;
    return 0;
}

int gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind elem, uint64_t min_n,
                   uint64_t max_n, const struct gguf_kv **ret, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        *ret = NULL;
        return 0;
    }
    if (kv->kind != GGUF_ARRAY || kv->elem_kind != elem) {
        return err_set(e, ERR_GGUF_KEY, "key '%.100s' is %s%s, must be array of %s", key,
                       kv->kind == GGUF_ARRAY ? "array of " : "", gguf_kind_name(kv->elem_kind),
                       gguf_kind_name(elem));
    }
    if (kv->n < min_n || kv->n > max_n) {
        return err_set(e, ERR_GGUF_KEY,
                       "key '%.100s' has %" PRIu64 " elements, allowed %" PRIu64 " to %" PRIu64,
                       key, kv->n, min_n, max_n);
    }
    *ret = kv;
    return 0;
}

double gguf_elem_f64(const struct gguf_kv *kv, uint64_t i)
{
    ASSERT(i < kv->n);
    const uint8_t *p = kv->data + i * gguf_kind_bytes(kv->elem_kind);
    uint64_t bits;
    bool is_negative;
    double v;
    if (read_real(kv->elem_kind, p, &v)) {
        return v;
    }
    if (!read_integer(kv->elem_kind, p, &bits, &is_negative)) {
        return NAN;
    }
    return is_negative ? -(double)(0 - bits) : (double)bits;
}

int64_t gguf_elem_i64(const struct gguf_kv *kv, uint64_t i)
{
    ASSERT(i < kv->n);
    const uint8_t *p = kv->data + i * gguf_kind_bytes(kv->elem_kind);
    uint64_t bits;
    bool is_negative;
    double v;
    if (read_real(kv->elem_kind, p, &v)) {
        return v >= 0x1p63 ? INT64_MAX : v >= -0x1p63 ? (int64_t)v : isnan(v) ? 0 : INT64_MIN;
    }
    if (!read_integer(kv->elem_kind, p, &bits, &is_negative)) {
        return 0;
    }
    return is_negative ? (int64_t)bits : (int64_t)MIN(bits, (uint64_t)INT64_MAX);
}
