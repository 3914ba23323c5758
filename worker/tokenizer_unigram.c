/* SentencePiece's unigram kind (tokenizer.ggml.model "t5"): of all ways to cut the normalised text
 * into tokens, the one with the greatest sum of scores (Viterbi). Kudo, "Subword regularization"
 * (2018).
 *
 * Built at load, read by any thread. Words are done one by one where no token spans two. */
#include "worker/tokenizer_kind.h"

#include "shared/utf8.h"
#include "worker/tokenizer_charsmap.h"
#include "worker/tokenizer_trie.h"

#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

/* How much worse than the worst token a character without one is (SentencePiece's kUnkPenalty). */
#define UNKNOWN_PENALTY 10.0

struct unigram {
    struct tokenizer_charsmap map;
    struct tokenizer_trie trie;
    double unknown_score;
};

static void destroy(void *model)
{
    struct unigram *m = model;
    if (m) {
        tokenizer_charsmap_finish(&m->map);
        tokenizer_trie_finish(&m->trie);
        free(m);
    }
}

static int fill(struct unigram *m, const struct tokenizer_vocab *v, struct tokenizer_tables kept,
                const struct gguf *g, struct err *e)
{
    int rc = tokenizer_charsmap_init(&m->map, g, e);
    rc = rc == 0 ? tokenizer_kind_trie(v, kept, &m->trie) : rc;
    double worst = 0;
    for (int32_t id = 0; rc == 0 && id < v->n; id++) {
        if (v->type[id] == TOKENIZER_NORMAL) {
            worst = MIN(worst, v->score[id]);
        }
    }
    m->unknown_score = worst - UNKNOWN_PENALTY;
    return rc;
}

static struct tokenizer_tables tables_of(const void *model)
{
    const struct unigram *m = model;
    return (struct tokenizer_tables){m->trie.packed, m->trie.packed_bytes};
}

static int create(const struct gguf *g, struct tokenizer_tables tables, struct tokenizer_vocab *v,
                  void **ret_model, char *warn, struct err *e)
{
    (void)warn;
    int rc = tokenizer_vocab_init(v, g,
                                  &(struct tokenizer_vocab_defaults){.bos = -1,
                                                                     .eos = 1,
                                                                     .unk = 2,
                                                                     .sep = -1,
                                                                     .add_eos = true,
                                                                     .has_escaped_space = true,
                                                                     .needs_scores = true},
                                  e);
    if (rc < 0) {
        return rc;
    }
    struct unigram *m = calloc(1, sizeof(*m));
    rc = m ? fill(m, v, tables, g, e) : -ENOMEM;
    if (rc < 0) {
        destroy(m);
        tokenizer_vocab_finish(v);
        return rc;
    }
    *ret_model = m;
    return 0;
}

/* The text with everything replaced that the map replaces, and U+FFFD for what is not UTF-8. */
static void normalise(const struct unigram *m, const char *text, size_t n, struct buf *ret)
{
    buf_clear(ret);
    for (size_t i = 0; i < n;) {
        const char *replacement;
        size_t len = tokenizer_charsmap_match(&m->map, text + i, n - i, &replacement);
        if (len > 0) {
            buf_str(ret, replacement);
            i += len;
            continue;
        }
        uint32_t cp;
        int k = utf8_decode(text + i, n - i, &cp);
        if (k > 0) {
            buf_add(ret, text + i, (size_t)k);
        } else {
            buf_str(ret, "\uFFFD");
        }
        i += (size_t)MAX(k, 1);
    }
}

/* The best way to reach a position. */
struct best {
    double score;
    int32_t id;    /* of the token that ends here, -1: a character without one */
    uint32_t from; /* where that begins; then, going back, where the next one begins */
};

static int encode_word(const struct unigram *m, const struct tokenizer_vocab *v, const char *s,
                       uint32_t n, bool *was_unknown, struct tokenizer_work *w, struct buf *ret)
{
    struct best *best = tokenizer_room_get(&w->path, ((size_t)n + 1) * sizeof(*best));
    if (!best) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i <= n; i++) {
        best[i] = (struct best){.score = i == 0 ? 0 : -DBL_MAX};
    }
    for (uint32_t at = 0; at < n;) {
        uint32_t cp;
        uint32_t len = (uint32_t)MAX(utf8_decode(s + at, n - at, &cp), 1);
        bool has_token = false;
        uint32_t node = 0;
        for (uint32_t i = at; i < n; i++) {
            node = tokenizer_trie_step(&m->trie, node, (unsigned char)s[i]);
            if (!node) {
                break;
            }
            int32_t id = m->trie.value[node];
            if (id < 0) {
                continue;
            }
            has_token |= i + 1 == at + len;
            double score =
                best[at].score + (v->type[id] == TOKENIZER_USER ? 0.0 : (double)v->score[id]);
            if (score > best[i + 1].score) {
                best[i + 1] = (struct best){score, id, at};
            }
        }
        double score = best[at].score + m->unknown_score;
        if (!has_token && score > best[at + len].score) {
            best[at + len] = (struct best){score, -1, at};
        }
        at += len;
    }
    /* The path leads backwards; turn it around in place: from becomes the next token's end. */
    uint32_t end = n;
    for (uint32_t i = n, next = n; i > 0;) {
        uint32_t from = best[i].from;
        best[i].from = next;
        next = end = i;
        i = from;
    }
    for (uint32_t from = 0; from < n;) {
        uint32_t to = end;
        if (best[to].id >= 0) {
            tokenizer_kind_put(ret, best[to].id);
            *was_unknown = false;
        } else {
            size_t before = ret->len;
            bool is_unknown = tokenizer_kind_put_unknown(v, s + from, to - from, ret);
            if (is_unknown && *was_unknown) {
                ret->len = before; /* neighbours without a token make one unknown token */
            }
            *was_unknown = is_unknown;
        }
        from = to;
        end = best[to].from;
    }
    return 0;
}

static int encode(const void *model, const struct tokenizer_vocab *v, const char *text, size_t n,
                  struct tokenizer_work *w, struct buf *ret)
{
    const struct unigram *m = model;
    struct buf plain;
    /* NFKC makes a text at most 11 times longer; a hostile map must not fill the memory. */
    buf_init(&plain, MIN(32 * n, (size_t)1 << 29));
    normalise(m, text, n, &plain);
    tokenizer_kind_mark_spaces(v, plain.data, plain.len, &w->text);
    int rc = plain.failed || w->text.failed ? -ENOMEM : 0;
    buf_finish(&plain);
    bool was_unknown = false;
    for (size_t from = 0; rc == 0 && from < w->text.len;) {
        size_t to = tokenizer_vocab_word(v, w->text.data, w->text.len, from);
        rc = encode_word(m, v, w->text.data + from, (uint32_t)(to - from), &was_unknown, w, ret);
        from = to;
    }
    return rc;
}

const struct tokenizer_kind tokenizer_unigram = {"t5", create, tables_of, destroy, encode};
