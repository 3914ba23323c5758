/* Whatever parses may be read through and through, and found again by name. */
#include "tests/test.h"
#include "shared/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint64_t sink;

static void read_key(const struct gguf *g, const struct gguf_kv *kv)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < kv->n; i++) {
        sum += (uint64_t)gguf_elem_i64(kv, i) + (gguf_elem_f64(kv, i) > 0);
        for (size_t j = 0; kv->strings && j < kv->strings[i].len; j++) {
            sum += (uint8_t)kv->strings[i].data[j];
        }
    }
    for (size_t i = 0; i < kv->bytes; i++) {
        sum += kv->data[i];
    }
    sink = sum;
    char key[256];
    if (kv->key.len < sizeof(key)) {
        memcpy(key, kv->key.data, kv->key.len);
        key[kv->key.len] = 0;
        CHECK(gguf_find(g, key) == kv);
        uint64_t u;
        double f;
        bool b;
        struct gguf_str s;
        (void)!gguf_get_u64(g, key, 0, UINT64_MAX, 0, &u, NULL);
        (void)!gguf_get_f64(g, key, 0, 1e300, 0, &f, NULL);
        (void)!gguf_get_bool(g, key, 0, &b, NULL);
        (void)!gguf_get_str(g, key, &s, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct gguf g;
    struct err e = {0};
    if (gguf_parse(data, n, &g, &e) != 0) {
        CHECK(e.code < 0 && *e.detail);
        return 0;
    }
    for (size_t i = 0; i < g.n_kv; i++) {
        read_key(&g, &g.kv[i]);
    }
    for (size_t i = 0; i < g.n_tensors; i++) {
        const struct gguf_tensor *t = &g.tensors[i];
        const uint8_t *p = t->data;
        CHECK(p >= data && t->n_bytes <= n && (size_t)(p - data) <= n - t->n_bytes);
        CHECK_INT(t->n_bytes, type_row_bytes(t->type, t->ne[0]) * t->ne[1] * t->ne[2] * t->ne[3]);
        CHECK(gguf_find_tensor(&g, t->name) == t);
        sink = p[0] + p[t->n_bytes - 1];
    }
    gguf_close(&g);
    return 0;
}
