/* Tokenizers: choosing the kind, special tokens in text, and the way back from ids to bytes. Runs
 * in the worker; nothing blocks. Immutable after creation: each call has its own scratch memory.
 *
 * Special tokens are found in one pass over the text: where one begins, the longest is taken. */
#include "worker/tokenizer.h"

#include "worker/tokenizer_kind.h"
#include "worker/tokenizer_trie.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenizer {
    const struct tokenizer_kind *kind;
    void *model; /* owned; the kind's */
    struct tokenizer_vocab vocab;
    struct tokenizer_trie literals; /* control, unknown and user-defined tokens by their text */
};

/* --- making one --------------------------------------------------------------------------------
 */

static const struct tokenizer_kind *const kinds[] = {&tokenizer_bpe, &tokenizer_spm,
                                                     &tokenizer_wordpiece, &tokenizer_unigram};

static const struct tokenizer_kind *find_kind(struct gguf_str model)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (tokenizer_kind_is_named(kinds[i]->model, model.data, model.len)) {
            return kinds[i];
        }
    }
    return NULL;
}

static bool is_literal(uint8_t type)
{
    return type == TOKENIZER_CONTROL || type == TOKENIZER_UNKNOWN || type == TOKENIZER_USER;
}

static int fill_literals(struct tokenizer *t)
{
    int rc = tokenizer_trie_init(&t->literals);
    for (int32_t id = 0; rc == 0 && id < t->vocab.n; id++) {
        struct gguf_str s = tokenizer_vocab_bytes(&t->vocab, id);
        if (is_literal(t->vocab.type[id]) && s.len > 0) {
            rc = tokenizer_trie_insert(&t->literals, s.data, s.len, id);
        }
    }
    return rc;
}

int tokenizer_create(const struct gguf *g, struct tokenizer **ret, char warn[160], struct err *e)
{
    return tokenizer_create_from(g, (struct tokenizer_tables){0}, ret, warn, e);
}

struct tokenizer_tables tokenizer_tables(const struct tokenizer *t)
{
    return t->kind->tables ? t->kind->tables(t->model) : (struct tokenizer_tables){0};
}

int tokenizer_create_from(const struct gguf *g, struct tokenizer_tables tables,
                          struct tokenizer **ret, char warn[160], struct err *e)
{
    _Static_assert(TOKENIZER_WARN_BYTES == 160, "as declared");
    warn[0] = 0;
    struct gguf_str model;
    int rc = gguf_get_str(g, "tokenizer.ggml.model", &model, e);
    if (rc < 0) {
        return rc;
    }
    if (model.len == 0 || (model.len == 8 && memcmp(model.data, "no_vocab", 8) == 0) ||
        (model.len == 4 && memcmp(model.data, "none", 4) == 0)) {
        return err_set(e, ERR_NO_TOKENIZER, "tokenizer.ggml.model is %s",
                       model.len ? "'no_vocab'" : "missing");
    }
    const struct tokenizer_kind *kind = find_kind(model);
    if (!kind) {
        return err_set(e, ERR_MODEL_TOKENIZER, "vocabularies of the kind '%.*s' are not supported",
                       (int)MIN(model.len, (size_t)40), model.data);
    }
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (!t) {
        return -ENOMEM;
    }
    rc = kind->create(g, tables, &t->vocab, &t->model, warn, e);
    if (rc < 0) {
        free(t);
        return rc;
    }
    t->kind = kind;
    rc = fill_literals(t);
    if (rc < 0) {
        tokenizer_destroy(&t);
        return rc;
    }
    *ret = t;
    return 0;
}

void tokenizer_destroy(struct tokenizer **t)
{
    if (*t) {
        (*t)->kind->destroy((*t)->model);
        tokenizer_vocab_finish(&(*t)->vocab);
        tokenizer_trie_finish(&(*t)->literals);
        free(*t);
        *t = NULL;
    }
}

/* --- from text to ids --------------------------------------------------------------------------
 */

struct literal { /* a special token in the text */
    size_t at, len;
    int32_t id; /* -1: none */
};

/* The first special token at or after pos; the longest of those that begin there. */
static struct literal find_literal(const struct tokenizer *t, const char *text, size_t n,
                                   size_t pos, bool with_control)
{
    for (size_t at = pos; at < n; at++) {
        struct literal found = {.at = at, .id = -1};
        uint32_t node = 0;
        for (size_t i = at; i < n; i++) {
            node = tokenizer_trie_step(&t->literals, node, (unsigned char)text[i]);
            if (!node) {
                break;
            }
            int32_t id = t->literals.value[node];
            if (id >= 0 && (with_control || t->vocab.type[id] == TOKENIZER_USER)) {
                found.len = i + 1 - at;
                found.id = id;
            }
        }
        if (found.id >= 0) {
            return found;
        }
    }
    return (struct literal){.at = n, .id = -1};
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode_text(const struct tokenizer *t, const char *text, size_t n, bool with_control,
                       struct tokenizer_work *w, struct buf *ret)
{
    const struct tokenizer_vocab *v = &t->vocab;
    for (size_t pos = 0; pos < n;) {
        struct literal l = find_literal(t, text, n, pos, with_control);
        size_t end = l.at;
        while (l.id >= 0 && v->attr[l.id] & TOKENIZER_LSTRIP && end > pos &&
               is_space(text[end - 1])) {
            end--;
        }
        if (end > pos) {
            int rc = t->kind->encode(t->model, v, text + pos, end - pos, w, ret);
            if (rc < 0) {
                return rc;
            }
        }
        pos = l.at;
        if (l.id >= 0) {
            tokenizer_kind_put(ret, l.id);
            pos += l.len;
            while (v->attr[l.id] & TOKENIZER_RSTRIP && pos < n && is_space(text[pos])) {
                pos++;
            }
        }
    }
    return 0;
}

static void put_unless_there(struct buf *ret, size_t begin, bool at_end, int32_t id)
{
    if (id < 0 || ret->failed) {
        return;
    }
    size_t n = (ret->len - begin) / sizeof(id);
    if (n > 0) {
        int32_t there;
        memcpy(&there, ret->data + (at_end ? ret->len - sizeof(id) : begin), sizeof(there));
        if (there == id) {
            return;
        }
    }
    tokenizer_kind_put(ret, id);
    if (!at_end && !ret->failed) {
        memmove(ret->data + begin + sizeof(id), ret->data + begin, n * sizeof(id));
        memcpy(ret->data + begin, &id, sizeof(id));
    }
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     struct buf *ret)
{
    if (n > TOKENIZER_MAX_TEXT_BYTES) {
        return -EFBIG;
    }
    size_t begin = ret->len;
    struct tokenizer_work w = {0};
    int rc = encode_text(t, text, n, flags & TOKENIZER_PARSE_SPECIAL, &w, ret);
    tokenizer_pieces_finish(&w.pieces);
    tokenizer_room_finish(&w.symbols);
    tokenizer_room_finish(&w.heap);
    tokenizer_room_finish(&w.path);
    buf_finish(&w.text);
    const struct tokenizer_vocab *v = &t->vocab;
    if (rc == 0 && flags & TOKENIZER_ADD_SPECIAL) {
        put_unless_there(ret, begin, false, v->add_bos ? v->bos : -1);
        put_unless_there(ret, begin, true, v->add_sep ? v->sep : -1);
        put_unless_there(ret, begin, true, v->add_eos ? v->eos : -1);
    }
    rc = rc == 0 && ret->failed ? -ENOMEM : rc;
    if (rc < 0 && ret->len > begin) {
        ret->len = begin;
    }
    return rc;
}

/* --- and back ----------------------------------------------------------------------------------
 */

static void put_unescaped(struct gguf_str s, struct buf *ret)
{
    for (size_t i = 0; i < s.len;) {
        if (s.len - i >= 3 && memcmp(s.data + i, TOKENIZER_SPACE, 3) == 0) {
            buf_char(ret, ' ');
            i += 3;
        } else {
            buf_char(ret, s.data[i++]);
        }
    }
}

/* The value of the two hexadecimal digits of "<0x0A>", which were checked at load. */
static char byte_of(const char *text)
{
    int value = 0;
    for (int i = 3; i < 5; i++) {
        value = value * 16 + (text[i] <= '9' ? text[i] - '0' : text[i] - 'A' + 10);
    }
    return (char)value;
}

int tokenizer_piece(const struct tokenizer *t, int32_t id, bool is_first, bool show_special,
                    struct buf *ret)
{
    const struct tokenizer_vocab *v = &t->vocab;
    if (id < 0 || id >= v->n) {
        return ERR_BAD_TOKEN;
    }
    struct gguf_str s = tokenizer_vocab_bytes(v, id);
    switch ((enum tokenizer_type)v->type[id]) {
    case TOKENIZER_CONTROL:
    case TOKENIZER_UNKNOWN:
    case TOKENIZER_UNUSED:
        if (show_special) {
            buf_add(ret, s.data, s.len);
        }
        break;
    case TOKENIZER_USER:
        buf_add(ret, s.data, s.len);
        break;
    case TOKENIZER_BYTE:
        buf_char(ret, byte_of(s.data));
        break;
    case TOKENIZER_UNDEFINED:
    case TOKENIZER_NORMAL:
        if (!v->has_escaped_space) {
            buf_add(ret, s.data, s.len);
            break;
        }
        if (is_first && v->add_space_prefix && s.len >= 3 &&
            memcmp(s.data, TOKENIZER_SPACE, 3) == 0) {
            s.data += 3;
            s.len -= 3;
        }
        put_unescaped(s, ret);
        break;
    }
    return ret->failed ? -ENOMEM : 0;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool show_special,
                     struct buf *ret)
{
    /* A space is put before the text, and again before what follows a special token. */
    size_t begin = ret->len;
    bool is_first = true;
    for (size_t i = 0; i < n; i++) {
        int rc = tokenizer_piece(t, ids[i], is_first, show_special, ret);
        if (rc < 0) {
            ret->len = MIN(begin, ret->len);
            return rc;
        }
        is_first = is_literal(t->vocab.type[ids[i]]);
    }
    return 0;
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->vocab.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->vocab.bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->vocab.eos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n && t->vocab.attr[id] & TOKENIZER_END;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n && t->vocab.type[id] == TOKENIZER_CONTROL;
}
