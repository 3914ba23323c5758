/* The vocabulary of a GGUF file, checked and copied once at load; read by any thread after that.
 * Invariants: every id handed out is in [0, n); at[] is ascending and ends at the size of bytes;
 * at most half of the table's slots are taken. */
#include "worker/tokenizer_vocab.h"

#include "shared/hash.h"
#include "shared/limits.h"
#include "shared/utf8.h"
#include "worker/tokenizer_special.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- GPT-2's alphabet --------------------------------------------------------------------------
 * 188 bytes stand for themselves as code points; the others, in order, are U+0100 and up
 * (bytes_to_unicode in OpenAI's gpt-2 encoder.py). */
static bool stands_for_itself(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

/* The byte that a code point stands for, -1: none. */
static int alphabet_byte(uint32_t cp)
{
    if (cp < 256) {
        return stands_for_itself(cp) ? (int)cp : -1;
    }
    uint32_t nth = cp - 256;
    return nth <= 0x20   ? (int)nth                 /* 00-20 */
           : nth <= 0x42 ? (int)(nth - 0x21 + 0x7F) /* 7F-A0 */
           : nth == 0x43 ? 0xAD
                         : -1;
}

size_t tokenizer_vocab_unalphabet(const char *s, size_t n, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        if (s[i] > ' ' && s[i] < 0x7F) { /* nearly all of them */
            out[len++] = s[i++];
            continue;
        }
        uint32_t cp;
        int k = utf8_decode(s + i, n - i, &cp);
        int b = k > 0 ? alphabet_byte(cp) : -1;
        if (b >= 0) {
            out[len++] = (char)b;
            i += (size_t)k;
        } else {
            k = MAX(k, 1);
            memmove(out + len, s + i, (size_t)k);
            len += (size_t)k;
            i += (size_t)k;
        }
    }
    return len;
}

/* --- the table from bytes to id ----------------------------------------------------------------
 */

int32_t tokenizer_vocab_find(const struct tokenizer_vocab *v, const char *s, size_t n)
{
    if (n > v->max_bytes) {
        return -1;
    }
    uint64_t h = hash64(s, n, 0);
    for (uint32_t i = (uint32_t)h & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        uint64_t slot = v->slot[i];
        if (slot == UINT64_MAX) {
            return -1;
        }
        if (slot >> 32 == h >> 32) {
            int32_t id = (int32_t)(uint32_t)slot;
            struct gguf_str t = tokenizer_vocab_bytes(v, id);
            if (t.len == n && memcmp(t.data, s, n) == 0) {
                return id;
            }
        }
    }
}

static bool is_found_by_text(const struct tokenizer_vocab_defaults *d, enum tokenizer_type type)
{
    switch (type) {
    case TOKENIZER_UNDEFINED:
    case TOKENIZER_NORMAL:
    case TOKENIZER_UNUSED:
        return true;
    case TOKENIZER_USER:
        return !d->is_byte_level;
    case TOKENIZER_UNKNOWN:
    case TOKENIZER_CONTROL:
    case TOKENIZER_BYTE:
        break;
    }
    return false;
}

static int build_table(struct tokenizer_vocab *v, const struct tokenizer_vocab_defaults *d)
{
    uint32_t slots = 64;
    while (slots < (uint32_t)v->n * 2) {
        slots *= 2;
    }
    v->slot = malloc(slots * sizeof(*v->slot));
    if (!v->slot) {
        return -ENOMEM;
    }
    memset(v->slot, 0xFF, slots * sizeof(*v->slot));
    v->slot_mask = slots - 1;
    for (int32_t id = 0; id < v->n; id++) {
        struct gguf_str t = tokenizer_vocab_bytes(v, id);
        if (t.len == 0 || !is_found_by_text(d, v->type[id])) {
            continue;
        }
        v->max_bytes = MAX(v->max_bytes, (uint32_t)t.len);
        if (tokenizer_vocab_find(v, t.data, t.len) >= 0) {
            continue; /* of equal tokens the first is meant */
        }
        uint64_t h = hash64(t.data, t.len, 0);
        uint32_t i = (uint32_t)h & v->slot_mask;
        while (v->slot[i] != UINT64_MAX) {
            i = (i + 1) & v->slot_mask;
        }
        v->slot[i] = (h >> 32 << 32) | (uint32_t)id;
    }
    return 0;
}

/* --- arrays of the file ------------------------------------------------------------------------
 */

/* The tokens' texts; the reader of the file has checked kinds and lengths already. */
static int find_tokens(const struct gguf *g, const struct gguf_kv **ret, uint64_t *ret_bytes,
                       struct err *e)
{
    const struct gguf_kv *kv = NULL;
    int rc = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, 1, LIMIT_VOCAB, &kv, e);
    if (rc < 0) {
        return rc;
    }
    if (!kv) {
        return err_set(e, ERR_MODEL_TOKENIZER, "tokenizer.ggml.tokens is missing");
    }
    uint64_t total = 0;
    for (uint64_t i = 0; i < kv->n; i++) {
        total += kv->strings[i].len; /* at most the file's size */
    }
    if (total > LIMIT_VOCAB_BYTES) {
        return err_set(e, ERR_MODEL_TOKENIZER, "the tokens have %llu bytes of text, allowed %d",
                       (unsigned long long)total, LIMIT_VOCAB_BYTES);
    }
    *ret = kv;
    *ret_bytes = total;
    return 0;
}

/* The byte of "<0x0A>", -1 when the text is not of that form. */
static int byte_of_text(struct gguf_str s)
{
    if (s.len != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>') {
        return -1;
    }
    int byte = 0;
    for (int i = 3; i < 5; i++) {
        char c = s.data[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) {
            return -1;
        }
        byte = byte * 16 + digit;
    }
    return byte;
}

/* Types: the array, or where there is none what the texts and the special ids tell. */
static int read_types(struct tokenizer_vocab *v, const struct gguf *g, const struct gguf_str *text,
                      const struct tokenizer_vocab_defaults *d, bool *ret_has_types, struct err *e)
{
    const struct gguf_kv *kv = NULL;
    uint64_t n = (uint64_t)v->n;
    int rc = gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, n, n, &kv, e);
    if (rc < 0) {
        return rc;
    }
    *ret_has_types = kv != NULL;
    for (int32_t i = 0; i < v->n; i++) {
        int64_t type = kv ? gguf_elem_i64(kv, (uint64_t)i) : TOKENIZER_NORMAL;
        int byte = byte_of_text(text[i]);
        if (!kv && d->has_escaped_space && byte >= 0) {
            type = TOKENIZER_BYTE;
        }
        if (type < TOKENIZER_UNDEFINED || type > TOKENIZER_BYTE) {
            return err_set(e, ERR_MODEL_TOKENIZER, "token %d is of unknown type %lld", i,
                           (long long)type);
        }
        if (type == TOKENIZER_BYTE && byte < 0) {
            return err_set(e, ERR_MODEL_TOKENIZER,
                           "token %d is of type byte but is not written <0xNN>", i);
        }
        if (type == TOKENIZER_BYTE && v->byte_id[byte] < 0) {
            v->byte_id[byte] = i;
        }
        v->type[i] = (uint8_t)type;
    }
    return 0;
}

static void copy_bytes(struct tokenizer_vocab *v, const struct gguf_str *text,
                       const struct tokenizer_vocab_defaults *d)
{
    uint32_t at = 0;
    for (int32_t i = 0; i < v->n; i++) {
        struct gguf_str s = text[i];
        v->at[i] = at;
        if (d->is_byte_level && is_found_by_text(d, v->type[i])) {
            at += (uint32_t)tokenizer_vocab_unalphabet(s.data, s.len, v->bytes + at);
        } else if (s.len) {
            memcpy(v->bytes + at, s.data, s.len);
            at += (uint32_t)s.len;
        }
    }
    v->at[v->n] = at;
}

static int read_scores(struct tokenizer_vocab *v, const struct gguf *g,
                       const struct tokenizer_vocab_defaults *d, struct err *e)
{
    const struct gguf_kv *kv = NULL;
    uint64_t n = (uint64_t)v->n;
    int rc = gguf_get_array(g, "tokenizer.ggml.scores", GGUF_F32, n, n, &kv, e);
    if (rc < 0 || !d->needs_scores) {
        return rc;
    }
    if (!kv) {
        return err_set(e, ERR_MODEL_TOKENIZER, "tokenizer.ggml.scores is missing");
    }
    v->score = malloc((size_t)v->n * sizeof(*v->score));
    if (!v->score) {
        return -ENOMEM;
    }
    for (int32_t i = 0; i < v->n; i++) {
        v->score[i] = (float)gguf_elem_f64(kv, (uint64_t)i);
        if (!isfinite(v->score[i])) {
            return err_set(e, ERR_MODEL_TOKENIZER, "the score of token %d is not finite", i);
        }
    }
    return 0;
}

/* --- words -------------------------------------------------------------------------------------
 */

static bool is_space_mark(const char *s, size_t n)
{
    return n >= 3 && memcmp(s, TOKENIZER_SPACE, 3) == 0;
}

/* First U+2581 at or after pos that follows something else, n: none. */
static size_t next_word(const char *s, size_t n, size_t pos)
{
    while (is_space_mark(s + pos, n - pos)) {
        pos += 3;
    }
    while (pos < n) {
        const char *p = memchr(s + pos, TOKENIZER_SPACE[0], n - pos);
        if (!p) {
            return n;
        }
        pos = (size_t)(p - s);
        if (is_space_mark(p, n - pos)) {
            return pos;
        }
        pos++;
    }
    return n;
}

size_t tokenizer_vocab_word(const struct tokenizer_vocab *v, const char *s, size_t n, size_t pos)
{
    return v->words_are_apart ? next_word(s, n, pos) : n;
}

static bool are_words_apart(const struct tokenizer_vocab *v,
                            const struct tokenizer_vocab_defaults *d)
{
    for (int32_t i = 0; i < v->n; i++) {
        struct gguf_str s = tokenizer_vocab_bytes(v, i);
        if (is_found_by_text(d, v->type[i]) && next_word(s.data, s.len, 0) < s.len) {
            return false;
        }
    }
    return true;
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static int load(struct tokenizer_vocab *v, const struct gguf *g,
                const struct tokenizer_vocab_defaults *d, struct err *e)
{
    const struct gguf_kv *kv = NULL;
    uint64_t total = 0;
    int rc = find_tokens(g, &kv, &total, e);
    if (rc < 0 || !kv) {
        return rc;
    }
    v->n = (int32_t)kv->n;
    v->bytes = malloc(total + 1);
    v->at = malloc((kv->n + 1) * sizeof(*v->at));
    v->type = malloc(kv->n);
    v->attr = calloc(kv->n, 1);
    if (!v->bytes || !v->at || !v->type || !v->attr) {
        return -ENOMEM;
    }
    bool has_types;
    rc = read_types(v, g, kv->strings, d, &has_types, e);
    if (rc == 0) {
        rc = tokenizer_special_read(v, g, kv->strings, d, has_types, e);
    }
    if (rc == 0) {
        rc = read_scores(v, g, d, e);
    }
    if (rc == 0) {
        copy_bytes(v, kv->strings, d);
        v->words_are_apart = are_words_apart(v, d);
        rc = build_table(v, d);
    }
    return rc;
}

int tokenizer_vocab_init(struct tokenizer_vocab *v, const struct gguf *g,
                         const struct tokenizer_vocab_defaults *d, struct err *e)
{
    *v = (struct tokenizer_vocab){.has_escaped_space = d->has_escaped_space};
    memset(v->byte_id, 0xFF, sizeof(v->byte_id));
    int rc = load(v, g, d, e);
    if (rc < 0) {
        tokenizer_vocab_finish(v);
    }
    return rc;
}

void tokenizer_vocab_finish(struct tokenizer_vocab *v)
{
    free(v->bytes);
    free(v->at);
    free(v->type);
    free(v->attr);
    free(v->score);
    free(v->slot);
    *v = (struct tokenizer_vocab){0};
}
