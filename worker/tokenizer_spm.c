/* SentencePiece's byte-pair kind (tokenizer.ggml.model "llama"): characters are joined to the token
 * of the best score, leftmost first, until no two neighbours make a token; a character without a
 * token becomes its bytes. Kudo and Richardson, "SentencePiece" (2018).
 *
 * Stateless beside the vocabulary; any thread. Words are done one by one where no token spans two.
 */
#include "worker/tokenizer_kind.h"

#include "shared/utf8.h"

#include <errno.h>
#include <string.h>

static int create(const struct gguf *g, struct tokenizer_tables tables, struct tokenizer_vocab *v,
                  void **ret_model, char *warn, struct err *e)
{
    (void)tables;
    (void)warn;
    *ret_model = NULL;
    return tokenizer_vocab_init(v, g,
                                &(struct tokenizer_vocab_defaults){.bos = 1,
                                                                   .eos = 2,
                                                                   .unk = 0,
                                                                   .sep = -1,
                                                                   .add_bos = true,
                                                                   .has_escaped_space = true,
                                                                   .add_space_prefix = true,
                                                                   .needs_scores = true},
                                e);
}

static void destroy(void *model)
{
    (void)model;
}

/* Floats as integers in reverse order, so that the best score has the lowest rank. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits;
    score += 0.0f; /* no -0 */
    memcpy(&bits, &score, sizeof(bits));
    uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

struct word {
    const struct tokenizer_vocab *v;
    const char *text;
};

static uint32_t rank_of_pair(const void *ctx, const struct tokenizer_symbol *left,
                             const struct tokenizer_symbol *right, uint32_t end, int32_t *ret_id)
{
    (void)right;
    const struct word *word = ctx;
    int32_t id = tokenizer_vocab_find(word->v, word->text + left->start, end - left->start);
    if (id < 0) {
        return TOKENIZER_MERGE_NEVER;
    }
    *ret_id = id;
    return rank_of_score(word->v->score[id]); /* finite, so never NEVER */
}

static int encode_word(const struct tokenizer_vocab *v, const char *s, uint32_t n,
                       struct tokenizer_work *w, struct buf *ret)
{
    struct tokenizer_symbol *symbols = tokenizer_room_get(&w->symbols, n * sizeof(*symbols));
    if (!symbols) {
        return -ENOMEM;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t cp;
        symbols[count++] = (struct tokenizer_symbol){.start = i, .id = -1};
        i += (uint32_t)MAX(utf8_decode(s + i, n - i, &cp), 1);
    }
    struct word word = {v, s};
    int rc = tokenizer_merge(symbols, count, n, rank_of_pair, &word, &w->heap);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; i != TOKENIZER_MERGE_NONE; i = symbols[i].next) {
        uint32_t next = symbols[i].next;
        uint32_t len = (next == TOKENIZER_MERGE_NONE ? n : symbols[next].start) - symbols[i].start;
        int32_t id = symbols[i].id; /* known where something was joined */
        id = id >= 0 ? id : tokenizer_vocab_find(v, s + symbols[i].start, len);
        if (id >= 0) {
            tokenizer_kind_put(ret, id);
        } else {
            tokenizer_kind_put_unknown(v, s + symbols[i].start, len, ret);
        }
    }
    return 0;
}

static int encode(const void *model, const struct tokenizer_vocab *v, const char *text, size_t n,
                  struct tokenizer_work *w, struct buf *ret)
{
    (void)model;
    tokenizer_kind_mark_spaces(v, text, n, &w->text);
    if (w->text.failed) {
        return -ENOMEM;
    }
    int rc = 0;
    for (size_t from = 0; rc == 0 && from < w->text.len;) {
        size_t to = tokenizer_vocab_word(v, w->text.data, w->text.len, from);
        rc = encode_word(v, w->text.data + from, (uint32_t)(to - from), w, ret);
        from = to;
    }
    return rc;
}

const struct tokenizer_kind tokenizer_spm = {"llama", create, NULL, destroy, encode};
