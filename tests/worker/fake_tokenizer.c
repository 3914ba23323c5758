#include "tests/worker/fake_tokenizer.h"
#include "tests/test.h"

#include <errno.h>

struct tokenizer {
    int n_named;
    struct {
        char bytes[8192];
        size_t n;
    } named[FAKE_VOCAB - FAKE_NAMED];
};

static struct tokenizer the_one;
static const char *const special[] = {"<s>", "</s>", "<copy>"};

const struct tokenizer *fake_tokenizer(void)
{
    return &the_one;
}

void fake_tokenizer_reset(void)
{
    the_one.n_named = 0;
}

int32_t fake_tokenizer_name(const char *bytes, size_t n)
{
    int i = the_one.n_named++;
    CHECK(i < FAKE_VOCAB - FAKE_NAMED && n <= sizeof(the_one.named[i].bytes));
    memcpy(the_one.named[i].bytes, bytes, n);
    the_one.named[i].n = n;
    return FAKE_NAMED + i;
}

int tokenizer_create(const struct gguf *g, struct tokenizer **ret, char warn[160], struct err *e)
{
    (void)g;
    (void)e;
    warn[0] = 0;
    *ret = &the_one;
    return 0;
}

int tokenizer_create_from(const struct gguf *g, struct tokenizer_tables tables,
                          struct tokenizer **ret, char warn[160], struct err *e)
{
    (void)tables;
    return tokenizer_create(g, ret, warn, e);
}

struct tokenizer_tables tokenizer_tables(const struct tokenizer *t)
{
    (void)t;
    return (struct tokenizer_tables){0};
}

void tokenizer_destroy(struct tokenizer **t)
{
    *t = NULL;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     struct buf *ret)
{
    (void)t;
    int32_t id = FAKE_BOS;
    bool has_bos = (flags & TOKENIZER_PARSE_SPECIAL) && n >= 3 && memcmp(text, "<s>", 3) == 0;
    if ((flags & TOKENIZER_ADD_SPECIAL) && !has_bos) {
        buf_add(ret, &id, sizeof(id));
    }
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        id = FAKE_BYTE + (unsigned char)text[i];
        for (int k = 0; k < 3 && (flags & TOKENIZER_PARSE_SPECIAL); k++) {
            if (n - i >= strlen(special[k]) &&
                memcmp(text + i, special[k], strlen(special[k])) == 0) {
                id = k;
                len = strlen(special[k]);
            }
        }
        buf_add(ret, &id, sizeof(id));
        i += len;
    }
    return ret->failed ? -ENOMEM : 0;
}

int tokenizer_piece(const struct tokenizer *t, int32_t id, bool is_first, bool show_special,
                    struct buf *ret)
{
    (void)is_first;
    CHECK(id >= 0 && id < FAKE_VOCAB);
    if (id < FAKE_BYTE) {
        buf_str(ret, show_special ? special[id] : "");
    } else if (id < FAKE_NAMED) {
        buf_char(ret, (char)(id - FAKE_BYTE));
    } else if (id - FAKE_NAMED < t->n_named) {
        buf_add(ret, t->named[id - FAKE_NAMED].bytes, t->named[id - FAKE_NAMED].n);
    }
    return ret->failed ? -ENOMEM : 0;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool show_special,
                     struct buf *ret)
{
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(tokenizer_piece(t, ids[i], i == 0, show_special, ret), 0);
    }
    return 0;
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    (void)t;
    return FAKE_VOCAB;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    (void)t;
    return FAKE_BOS;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    (void)t;
    return FAKE_END;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    (void)t;
    return id == FAKE_END;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    (void)t;
    return id < FAKE_BYTE;
}
