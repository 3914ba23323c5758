/* The precompiled character map. The double array is walked with every index checked, because it
 * comes from the file; an array that leads outside of itself matches nothing.
 *
 * A unit of the array, as darts-clone (S. Yata) lays it out: bit 31: it holds a value (bits 0-30);
 * else bits 0-7 its label, bit 8: a value follows, bits 10-30 the offset to its children, shifted
 * left by eight more when bit 9 is set. A child along byte c is at index ^ offset ^ c. */
#include "worker/tokenizer_charsmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int tokenizer_charsmap_init(struct tokenizer_charsmap *m, const struct gguf *g, struct err *e)
{
    *m = (struct tokenizer_charsmap){0};
    const char *key = "tokenizer.ggml.precompiled_charsmap";
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) {
        return 0;
    }
    if (kv->kind != GGUF_ARRAY || (kv->elem_kind != GGUF_U8 && kv->elem_kind != GGUF_I8)) {
        return err_set(e, ERR_MODEL_TOKENIZER, "%s is not an array of bytes", key);
    }
    if (kv->n == 0) {
        return 0;
    }
    uint32_t bytes = 0;
    if (kv->n >= sizeof(bytes)) {
        memcpy(&bytes, kv->data, sizeof(bytes));
    }
    if (kv->n < sizeof(bytes) || bytes == 0 || bytes % sizeof(*m->unit) != 0 ||
        bytes >= kv->n - sizeof(bytes)) {
        return err_set(e, ERR_MODEL_TOKENIZER,
                       "%s: %llu bytes do not hold an array of %u and replacements", key,
                       (unsigned long long)kv->n, bytes);
    }
    m->n_units = bytes / sizeof(*m->unit);
    m->n_replacement = (size_t)kv->n - sizeof(bytes) - bytes;
    m->unit = malloc(bytes);
    m->replacement = malloc(m->n_replacement);
    if (!m->unit || !m->replacement) {
        tokenizer_charsmap_finish(m);
        return -ENOMEM;
    }
    memcpy(m->unit, kv->data + sizeof(bytes), bytes);
    memcpy(m->replacement, kv->data + sizeof(bytes) + bytes, m->n_replacement);
    if (m->replacement[m->n_replacement - 1] != 0) {
        tokenizer_charsmap_finish(m);
        return err_set(e, ERR_MODEL_TOKENIZER, "%s: the last replacement is not terminated", key);
    }
    return 0;
}

void tokenizer_charsmap_finish(struct tokenizer_charsmap *m)
{
    free(m->unit);
    free(m->replacement);
    *m = (struct tokenizer_charsmap){0};
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10 & 0x1FFFFF) << ((unit & 1u << 9) >> 6);
}

size_t tokenizer_charsmap_match(const struct tokenizer_charsmap *m, const char *s, size_t n,
                                const char **ret)
{
    size_t longest = 0;
    size_t index = m->n_units ? offset_of(m->unit[0]) : 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        index ^= c;
        if (c == 0 || index >= m->n_units || (m->unit[index] & (1u << 31 | 0xFF)) != c) {
            break;
        }
        uint32_t unit = m->unit[index];
        index ^= offset_of(unit);
        if (unit & 1u << 8 && index < m->n_units) {
            size_t at = m->unit[index] & 0x7FFFFFFF;
            if (at < m->n_replacement) {
                longest = i + 1;
                *ret = m->replacement + at;
            }
        }
    }
    return longest;
}
