/* What several kinds of tokenizer do in the same way. */
#include "worker/tokenizer_kind.h"
#include "worker/tokenizer_trie.h"

#include <string.h>

bool tokenizer_kind_is_named(const char *names, const char *name, size_t n)
{
    for (const char *p = names; n > 0 && *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && memcmp(p, name, n) == 0) {
            return true;
        }
        p += len + (p[len] == ' ');
    }
    return false;
}

bool tokenizer_kind_put_unknown(const struct tokenizer_vocab *v, const char *s, size_t n,
                                struct buf *ret)
{
    for (size_t i = 0; i < n; i++) {
        if (v->byte_id[(unsigned char)s[i]] < 0) {
            if (v->unk >= 0) {
                tokenizer_kind_put(ret, v->unk);
            }
            return true;
        }
    }
    for (size_t i = 0; i < n; i++) {
        tokenizer_kind_put(ret, v->byte_id[(unsigned char)s[i]]);
    }
    return false;
}

void tokenizer_kind_mark_spaces(const struct tokenizer_vocab *v, const char *text, size_t n,
                                struct buf *ret)
{
    buf_clear(ret);
    if (v->merge_spaces) {
        while (n > 0 && text[n - 1] == ' ') {
            n--;
        }
        while (n > 0 && text[0] == ' ') {
            text++;
            n--;
        }
    }
    if (v->add_space_prefix && n > 0) {
        buf_str(ret, TOKENIZER_SPACE);
    }
    for (size_t i = 0; i < n;) {
        const char *space = memchr(text + i, ' ', n - i);
        size_t word = space ? (size_t)(space - (text + i)) : n - i;
        buf_add(ret, text + i, word);
        i += word;
        if (i < n) {
            buf_str(ret, TOKENIZER_SPACE);
            i++;
            while (v->merge_spaces && text[i] == ' ') { /* ends: the last byte is no space */
                i++;
            }
        }
    }
}

int tokenizer_kind_trie(const struct tokenizer_vocab *v, struct tokenizer_tables kept,
                        struct tokenizer_trie *ret)
{
    if (tokenizer_trie_use(ret, kept.data, kept.bytes, v->n)) {
        return 0;
    }
    int rc = tokenizer_trie_init(ret);
    for (int32_t id = 0; rc == 0 && id < v->n; id++) {
        struct gguf_str s = tokenizer_vocab_bytes(v, id);
        if (tokenizer_vocab_find(v, s.data, s.len) == id) {
            rc = tokenizer_trie_insert(ret, s.data, s.len, id);
        }
    }
    return rc == 0 ? tokenizer_trie_pack(ret) : rc;
}
