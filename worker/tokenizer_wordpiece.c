/* WordPiece (tokenizer.ggml.model "bert"): text is normalised and cut into words at white space,
 * punctuation and CJK characters; each word becomes the longest tokens that make it up, from left
 * to right, or the unknown token. In GGUF a token that begins a word is written with U+2581 before
 * it (not, as in the original, the others with ##). Devlin et al., "BERT" (2018), tokenization.py.
 *
 * Built at load, read by any thread. */
#include "worker/tokenizer_kind.h"

#include "shared/utf8.h"
#include "worker/tokenizer_trie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct wordpiece {
    struct tokenizer_trie trie;
    bool lowercase, strip_accents;
};

static void destroy(void *model)
{
    struct wordpiece *m = model;
    if (m) {
        tokenizer_trie_finish(&m->trie);
        free(m);
    }
}

static int fill(struct wordpiece *m, const struct tokenizer_vocab *v, struct tokenizer_tables kept,
                const struct gguf *g, struct err *e)
{
    int rc = gguf_get_bool(g, "tokenizer.ggml.normalizer.lowercase", true, &m->lowercase, e);
    if (rc == 0) {
        rc = gguf_get_bool(g, "tokenizer.ggml.normalizer.strip_accents", m->lowercase,
                           &m->strip_accents, e);
    }
    return rc == 0 ? tokenizer_kind_trie(v, kept, &m->trie) : rc;
}

static struct tokenizer_tables tables_of(const void *model)
{
    const struct wordpiece *m = model;
    return (struct tokenizer_tables){m->trie.packed, m->trie.packed_bytes};
}

static int create(const struct gguf *g, struct tokenizer_tables tables, struct tokenizer_vocab *v,
                  void **ret_model, char *warn, struct err *e)
{
    (void)warn;
    int rc = tokenizer_vocab_init(v, g,
                                  &(struct tokenizer_vocab_defaults){.bos = 101,
                                                                     .eos = -1,
                                                                     .unk = 100,
                                                                     .sep = 102,
                                                                     .add_bos = true,
                                                                     .add_sep = true,
                                                                     .has_escaped_space = true,
                                                                     .add_space_prefix = true},
                                  e);
    if (rc < 0) {
        return rc;
    }
    struct wordpiece *m = calloc(1, sizeof(*m));
    rc = m ? fill(m, v, tables, g, e) : -ENOMEM;
    if (rc < 0) {
        destroy(m);
        tokenizer_vocab_finish(v);
        return rc;
    }
    *ret_model = m;
    return 0;
}

/* --- words -------------------------------------------------------------------------------------
 */

static bool is_cjk(uint32_t cp)
{
    /* The blocks that BERT calls Chinese; the last but two begins late in Hugging Face's code,
     * which trained vocabularies follow. */
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
           (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B73F) ||
           (cp >= 0x2B740 && cp <= 0x2B81F) || (cp >= 0x2B920 && cp <= 0x2CEAF) ||
           (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x2F800 && cp <= 0x2FA1F);
}

enum class { WORD, SPACE, DROPPED, ALONE };

static enum class class_of(const struct wordpiece *m, uint32_t cp) {
    if ((cp >= '\t' && cp <= '\r') || cp == 0x85){return SPACE;}
if (cp == 0xFFFD)
{
    return DROPPED;
}
switch (utf8proc_category((utf8proc_int32_t)cp)) {
case UTF8PROC_CATEGORY_ZS:
case UTF8PROC_CATEGORY_ZL:
case UTF8PROC_CATEGORY_ZP:
    return SPACE;
case UTF8PROC_CATEGORY_CC:
case UTF8PROC_CATEGORY_CF:
case UTF8PROC_CATEGORY_CS:
case UTF8PROC_CATEGORY_CO:
    return DROPPED;
case UTF8PROC_CATEGORY_MN:
    return m->strip_accents ? DROPPED : WORD;
case UTF8PROC_CATEGORY_PC:
case UTF8PROC_CATEGORY_PD:
case UTF8PROC_CATEGORY_PS:
case UTF8PROC_CATEGORY_PE:
case UTF8PROC_CATEGORY_PI:
case UTF8PROC_CATEGORY_PF:
case UTF8PROC_CATEGORY_PO:
    return ALONE;
case UTF8PROC_CATEGORY_SM:
case UTF8PROC_CATEGORY_SC:
case UTF8PROC_CATEGORY_SK:
case UTF8PROC_CATEGORY_SO:
    return cp < 0x80 ? ALONE : WORD;
default:
    return is_cjk(cp) ? ALONE : WORD;
}
}

/* The word in `word`, which begins with U+2581; then only that is left in it. */
static void put_word(const struct wordpiece *m, const struct tokenizer_vocab *v, struct buf *word,
                     struct buf *ret)
{
    size_t n = word->len, mark = strlen(TOKENIZER_SPACE), before = ret->len;
    if (word->failed || n == mark) {
        return;
    }
    for (size_t from = 0; from < n;) {
        size_t longest = 0;
        int32_t id = -1;
        uint32_t node = 0;
        for (size_t i = from; i < n; i++) {
            node = tokenizer_trie_step(&m->trie, node, (unsigned char)word->data[i]);
            if (!node) {
                break;
            }
            if (m->trie.value[node] >= 0) {
                longest = i + 1 - from;
                id = m->trie.value[node];
            }
        }
        if (id < 0) {
            ret->len = before;
            if (v->unk >= 0) {
                tokenizer_kind_put(ret, v->unk);
            }
            break;
        }
        tokenizer_kind_put(ret, id);
        from += longest;
    }
    word->len = mark;
}

static void put_char(const struct wordpiece *m, const struct tokenizer_vocab *v, uint32_t cp,
                     struct buf *word, struct buf *ret)
{
    enum class class = class_of(m, cp);
    if (class == DROPPED) {
        return;
    }
    if (class != WORD) {
        put_word(m, v, word, ret);
    }
    if (class != SPACE) {
        char c[4];
        uint32_t lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
        buf_add(word, c, (size_t)utf8_encode(m->lowercase ? lower : cp, c));
    }
    if (class == ALONE) {
        put_word(m, v, word, ret);
    }
}

/* The character without what its canonical decomposition adds to it: accents, but of a Hangul
 * syllable also everything behind the first consonant, as the reference vectors have it. */
static uint32_t base_of(uint32_t cp)
{
    utf8proc_int32_t parts[8];
    int boundary = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = cp < 0x80
                             ? 0
                             : utf8proc_decompose_char((utf8proc_int32_t)cp, parts, COUNT_OF(parts),
                                                       UTF8PROC_DECOMPOSE, &boundary);
    return n > 0 ? (uint32_t)parts[0] : cp;
}

static int encode(const void *model, const struct tokenizer_vocab *v, const char *text, size_t n,
                  struct tokenizer_work *w, struct buf *ret)
{
    const struct wordpiece *m = model;
    struct buf *word = &w->text;
    buf_clear(word);
    buf_str(word, TOKENIZER_SPACE);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(text + i, n - i, &cp);
        i += (size_t)MAX(len, 1);
        if (len <= 0 || cp == 0) {
            continue; /* what is no character counts as U+FFFD, which is dropped */
        }
        put_char(m, v, m->strip_accents ? base_of(cp) : cp, word, ret);
    }
    put_word(m, v, word, ret);
    return word->failed ? -ENOMEM : 0;
}

const struct tokenizer_kind tokenizer_wordpiece = {"bert", create, tables_of, destroy, encode};
