/* Byte-pair encoding (tokenizer.ggml.model "gpt2", "gemma4"): text is cut into pieces by the
 * pre-tokenizer, and in each piece neighbouring tokens are merged in the order of the file's list
 * of merges. Bytes are the first tokens; with the flag RAW characters are, and bytes only stand in
 * for those that have no token. Sennrich et al., "Neural machine translation of rare words with
 * subword units" (2016); byte level: Radford et al. (2019).
 *
 * Built at load, read by any thread. Invariant: every id in the merge table is in the vocabulary,
 * and at most half of its slots are taken. */
#include "worker/tokenizer_kind.h"

#include "shared/limits.h"
#include "shared/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A slot holds left id (20 bits), right id (20 bits) and rank (24 bits). */
enum { ID_BITS = 20, RANK_BITS = 24 };
_Static_assert(LIMIT_VOCAB <= 1 << ID_BITS && LIMIT_MERGES < 1 << RANK_BITS, "a slot is 64 bits");

/* The tables: this head, n_slots slots, then the tokens that the merges make. Most of the time that
 * a big vocabulary takes to load is spent in them. */
struct merges {
    uint64_t n_slots; /* a power of two */
    uint64_t n_merges;
};

struct bpe {
    struct tokenizer_pretokenize *split; /* owned */
    bool ignore_merges, is_raw;
    struct tokenizer_tables tables;
    void *own_tables;     /* owned; NULL: they are borrowed */
    const uint64_t *slot; /* part of the tables; ~0: free */
    uint64_t slot_mask;
    const int32_t *merged; /* part of the tables; by rank: the token that the merge makes */
    int32_t first_id[256]; /* the token of one byte, -1: none */
};

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)left << ID_BITS | (uint64_t)right;
}

static uint64_t pair_slot(const struct bpe *b, uint64_t key)
{
    return (key * 0x9e3779b97f4a7c15u) >> 32 & b->slot_mask;
}

static uint32_t find_rank(const struct bpe *b, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return TOKENIZER_MERGE_NEVER;
    }
    uint64_t key = pair_key(left, right);
    for (uint64_t i = pair_slot(b, key);; i = (i + 1) & b->slot_mask) {
        if (b->slot[i] == UINT64_MAX) {
            return TOKENIZER_MERGE_NEVER;
        }
        if (b->slot[i] >> RANK_BITS == key) {
            return (uint32_t)(b->slot[i] & ((1u << RANK_BITS) - 1));
        }
    }
}

/* --- loading -----------------------------------------------------------------------------------
 */

static size_t merges_bytes(uint64_t n_slots, uint64_t n_merges)
{
    return sizeof(struct merges) + n_slots * sizeof(uint64_t) + n_merges * sizeof(int32_t);
}

static void use_tables(struct bpe *b, const void *data, size_t bytes)
{
    const struct merges *m = data;
    b->tables = (struct tokenizer_tables){data, bytes};
    b->slot = (const uint64_t *)(const void *)(m + 1);
    b->slot_mask = m->n_slots - 1;
    b->merged = (const int32_t *)(const void *)(b->slot + m->n_slots);
}

/* A merge is "left right". One whose parts or whole are no tokens can never be used: skipped. */
static int add_merge(const struct bpe *b, const struct tokenizer_vocab *v, struct gguf_str text,
                     uint32_t rank, char *scratch, uint64_t *slot, int32_t *merged, struct err *e)
{
    const char *gap = text.len > 1 ? memchr(text.data + 1, ' ', text.len - 1) : NULL;
    if (!gap || text.len > 2 * LIMIT_TOKEN_BYTES) {
        return err_set(e, ERR_MODEL_TOKENIZER, "merge %u is not two tokens with a space between",
                       rank);
    }
    size_t n_left = (size_t)(gap - text.data), n_right = text.len - n_left - 1;
    size_t len, left_len;
    if (b->is_raw) {
        memcpy(scratch, text.data, n_left);
        memcpy(scratch + n_left, gap + 1, n_right);
        left_len = n_left;
        len = n_left + n_right;
    } else {
        left_len = tokenizer_vocab_unalphabet(text.data, n_left, scratch);
        len = left_len + tokenizer_vocab_unalphabet(gap + 1, n_right, scratch + left_len);
    }
    int32_t left = tokenizer_vocab_find(v, scratch, left_len);
    int32_t right = tokenizer_vocab_find(v, scratch + left_len, len - left_len);
    int32_t whole = tokenizer_vocab_find(v, scratch, len);
    if (left < 0 || right < 0 || whole < 0 || find_rank(b, left, right) != TOKENIZER_MERGE_NEVER) {
        return 0;
    }
    uint64_t key = pair_key(left, right);
    uint64_t i = pair_slot(b, key);
    while (b->slot[i] != UINT64_MAX) {
        i = (i + 1) & b->slot_mask;
    }
    slot[i] = key << RANK_BITS | rank;
    merged[rank] = whole;
    return 0;
}

static int read_merges(struct bpe *b, const struct tokenizer_vocab *v, const struct gguf *g,
                       struct tokenizer_tables kept, struct err *e)
{
    const struct gguf_kv *kv = NULL;
    int rc = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, 0, LIMIT_MERGES, &kv, e);
    if (rc < 0) {
        return rc;
    }
    if (!kv) {
        return err_set(e, ERR_MODEL_TOKENIZER, "tokenizer.ggml.merges is missing");
    }
    struct merges head = {.n_slots = 64, .n_merges = kv->n};
    while (head.n_slots < kv->n * 2) {
        head.n_slots *= 2;
    }
    size_t bytes = merges_bytes(head.n_slots, head.n_merges);
    if (kept.data && kept.bytes == bytes && memcmp(kept.data, &head, sizeof(head)) == 0) {
        use_tables(b, kept.data, bytes);
        return 0;
    }
    b->own_tables = malloc(bytes);
    char *scratch = malloc(2 * LIMIT_TOKEN_BYTES);
    if (!b->own_tables || !scratch) {
        free(scratch);
        return -ENOMEM;
    }
    memcpy(b->own_tables, &head, sizeof(head));
    use_tables(b, b->own_tables, bytes);
    uint64_t *slot = (uint64_t *)(void *)((struct merges *)b->own_tables + 1);
    int32_t *merged = (int32_t *)(void *)(slot + head.n_slots);
    memset(slot, 0xFF, head.n_slots * sizeof(*slot));
    memset(merged, 0, head.n_merges * sizeof(*merged));
    for (uint32_t i = 0; rc == 0 && i < kv->n; i++) {
        rc = add_merge(b, v, kv->strings[i], i, scratch, slot, merged, e);
    }
    free(scratch);
    return rc;
}

static struct tokenizer_tables tables_of(const void *model)
{
    const struct bpe *b = model;
    return b->tables;
}

static const struct tokenizer_pretokenize_rule *choose_rule(const struct gguf *g, char *warn,
                                                            int *ret_rc, struct err *e)
{
    struct gguf_str model, pre;
    *ret_rc = gguf_get_str(g, "tokenizer.ggml.model", &model, e);
    if (*ret_rc == 0) {
        *ret_rc = gguf_get_str(g, "tokenizer.ggml.pre", &pre, e);
    }
    if (*ret_rc < 0) {
        return NULL;
    }
    if (model.len == 6 && memcmp(model.data, "gemma4", 6) == 0) {
        return tokenizer_pretokenize_find(model.data, model.len);
    }
    const struct tokenizer_pretokenize_rule *rule = tokenizer_pretokenize_find(pre.data, pre.len);
    if (!rule) {
        snprintf(warn, TOKENIZER_WARN_BYTES,
                 pre.len
                     ? "the pre-tokenizer '%.*s' is not known; the default is used, and answers "
                       "may be worse"
                     : "the file names no pre-tokenizer%.*s; the default is used, and answers "
                       "may be worse",
                 (int)MIN(pre.len, (size_t)40), pre.len ? pre.data : "");
        rule = tokenizer_pretokenize_find("default", strlen("default"));
    }
    return rule;
}

static void destroy(void *model)
{
    struct bpe *b = model;
    if (b) {
        tokenizer_pretokenize_destroy(&b->split);
        free(b->own_tables);
        free(b);
    }
}

static int create(const struct gguf *g, struct tokenizer_tables tables, struct tokenizer_vocab *v,
                  void **ret_model, char *warn, struct err *e)
{
    int rc;
    const struct tokenizer_pretokenize_rule *rule = choose_rule(g, warn, &rc, e);
    if (!rule) {
        return rc;
    }
    bool is_raw = rule->flags & TOKENIZER_PRETOKENIZE_RAW;
    rc = tokenizer_vocab_init(
        v, g,
        &(struct tokenizer_vocab_defaults){.bos = -1,
                                           .eos = -1,
                                           .unk = -1,
                                           .sep = -1,
                                           .add_bos = rule->flags & TOKENIZER_PRETOKENIZE_ADD_BOS,
                                           .is_byte_level = !is_raw,
                                           .has_escaped_space = is_raw},
        e);
    if (rc < 0) {
        return rc;
    }
    struct bpe *b = calloc(1, sizeof(*b));
    rc = -ENOMEM;
    if (b) {
        b->is_raw = is_raw;
        b->ignore_merges = rule->flags & TOKENIZER_PRETOKENIZE_IGNORE_MERGES;
        rc = tokenizer_pretokenize_create(rule, &b->split);
    }
    if (rc == 0) {
        rc = read_merges(b, v, g, tables, e);
    }
    if (rc < 0) {
        destroy(b);
        tokenizer_vocab_finish(v);
        return rc;
    }
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        b->first_id[i] = tokenizer_vocab_find(v, &byte, 1);
    }
    *ret_model = b;
    return 0;
}

/* --- encoding ----------------------------------------------------------------------------------
 */

static uint32_t rank_of_pair(const void *ctx, const struct tokenizer_symbol *left,
                             const struct tokenizer_symbol *right, uint32_t end, int32_t *ret_id)
{
    (void)end;
    const struct bpe *b = ctx;
    uint32_t rank = find_rank(b, left->id, right->id);
    if (rank != TOKENIZER_MERGE_NEVER) {
        *ret_id = b->merged[rank];
    }
    return rank;
}

/* A byte that no token covers is written as U+FFFD, as text decoders do. */
static void put_stray_byte(const struct bpe *b, const struct tokenizer_vocab *v, struct buf *ret)
{
    static const unsigned char replacement[] = {0xEF, 0xBF, 0xBD};
    for (size_t i = 0; i < sizeof(replacement); i++) {
        if (b->first_id[replacement[i]] < 0) {
            if (v->unk >= 0) {
                tokenizer_kind_put(ret, v->unk);
            }
            return;
        }
    }
    for (size_t i = 0; i < sizeof(replacement); i++) {
        tokenizer_kind_put(ret, b->first_id[replacement[i]]);
    }
}

/* One symbol per byte, or per character of a raw vocabulary. */
static uint32_t first_symbols(const struct bpe *b, const struct tokenizer_vocab *v, const char *s,
                              uint32_t n, struct tokenizer_symbol *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; count++) {
        out[count].start = i;
        if (b->is_raw) {
            uint32_t cp;
            int len = MAX(utf8_decode(s + i, n - i, &cp), 1);
            out[count].id = tokenizer_vocab_find(v, s + i, (size_t)len);
            i += (uint32_t)len;
        } else {
            out[count].id = b->first_id[(unsigned char)s[i++]];
        }
    }
    return count;
}

static int encode_piece(const struct bpe *b, const struct tokenizer_vocab *v, const char *s,
                        uint32_t n, struct tokenizer_work *w, struct buf *ret)
{
    /* Published merges of raw vocabularies cannot hold a line end; their runs are whole tokens. */
    if (b->ignore_merges || (b->is_raw && s[0] == '\n')) {
        int32_t id = tokenizer_vocab_find(v, s, n);
        if (id >= 0) {
            tokenizer_kind_put(ret, id);
            return 0;
        }
    }
    struct tokenizer_symbol *symbols = tokenizer_room_get(&w->symbols, n * sizeof(*symbols));
    if (!symbols) {
        return -ENOMEM;
    }
    uint32_t count = first_symbols(b, v, s, n, symbols);
    int rc = tokenizer_merge(symbols, count, n, rank_of_pair, b, &w->heap);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t i = 0; i != TOKENIZER_MERGE_NONE; i = symbols[i].next) {
        if (symbols[i].id >= 0) {
            tokenizer_kind_put(ret, symbols[i].id);
        } else if (b->is_raw) {
            uint32_t next = symbols[i].next;
            uint32_t end = next == TOKENIZER_MERGE_NONE ? n : symbols[next].start;
            tokenizer_kind_put_unknown(v, s + symbols[i].start, end - symbols[i].start, ret);
        } else {
            put_stray_byte(b, v, ret);
        }
    }
    return 0;
}

static int encode(const void *model, const struct tokenizer_vocab *v, const char *text, size_t n,
                  struct tokenizer_work *w, struct buf *ret)
{
    const struct bpe *b = model;
    if (b->is_raw) {
        tokenizer_kind_mark_spaces(v, text, n, &w->text);
        if (w->text.failed) {
            return -ENOMEM;
        }
        text = w->text.data;
        n = w->text.len;
    }
    int rc = tokenizer_pretokenize_split(b->split, text, n, &w->pieces);
    uint32_t from = 0;
    for (size_t i = 0; rc == 0 && i < w->pieces.n; i++) {
        uint32_t to = w->pieces.end[i];
        rc = encode_piece(b, v, text + from, to - from, w, ret);
        from = to;
    }
    return rc;
}

const struct tokenizer_kind tokenizer_bpe = {"gpt2 gemma4", create, tables_of, destroy, encode};
