/* Sorted texts of tokens (see pieces.h). Any thread; n log n. */
#include "worker/grammar/pieces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_bytes(const void *a, const void *b, void *bytes)
{
    const struct piece *x = a, *y = b;
    const uint8_t *base = bytes;
    int c = memcmp(base + x->at, base + y->at, MIN(x->n, y->n));
    return c ? c : x->n != y->n ? (int)x->n - (int)y->n : (x->id > y->id) - (x->id < y->id);
}

static int collect(const struct tokenizer *t, struct pieces *p, struct buf *text)
{
    for (int32_t id = 0; id < p->n_ids; id++) {
        size_t at = text->len;
        int rc = tokenizer_piece(t, id, false, false, text);
        if (rc < 0 || text->failed) {
            return rc < 0 ? rc : -ENOMEM;
        }
        size_t n = text->len - at;
        if (n == 0 || n > PIECES_LONGEST || tokenizer_is_end(t, id)) {
            text->len = at;
        } else {
            p->rows[p->n++] = (struct piece){.at = (uint32_t)at, .id = id, .n = (uint8_t)n};
        }
    }
    return 0;
}

static void sort(struct pieces *p)
{
    qsort_r(p->rows, (size_t)p->n, sizeof(*p->rows), by_bytes, p->bytes);
    for (int32_t i = 1; i < p->n; i++) {
        struct piece *x = &p->rows[i - 1], *y = &p->rows[i];
        while (y->common < MIN(x->n, y->n) &&
               p->bytes[x->at + y->common] == p->bytes[y->at + y->common]) {
            y->common++;
        }
    }
}

int pieces_create(const struct tokenizer *t, struct pieces **ret)
{
    struct pieces *p = calloc(1, sizeof(*p));
    struct buf text;
    if (!p) {
        return -ENOMEM;
    }
    buf_init(&text, 0);
    p->n_ids = tokenizer_size(t);
    p->rows = calloc((size_t)MAX(p->n_ids, 1), sizeof(*p->rows));
    int rc = p->rows ? collect(t, p, &text) : -ENOMEM;
    p->bytes = (uint8_t *)text.data;
    if (rc < 0) {
        pieces_destroy(&p);
        return rc;
    }
    sort(p);
    *ret = p;
    return 0;
}

void pieces_destroy(struct pieces **pp)
{
    if (*pp) {
        free((*pp)->rows);
        free((*pp)->bytes);
        free(*pp);
        *pp = NULL;
    }
}
