/* Incremental text of an answer. Two stages: `tail` keeps the bytes of an unfinished character (at
 * most 3), `held` the repaired text that may be the beginning of a stop sequence (shorter than the
 * longest). Token loop and prepare thread, one at a time; blocks never; no allocation once the
 * buffers are warm. */
#include "worker/detokenizer.h"
#include "shared/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stop {
    char text[LIMIT_STOP_BYTES];
    size_t len;
};

struct detokenizer {
    const struct tokenizer *tokenizer; /* borrowed */
    bool is_first, show_special;
    size_t n_stops;
    struct stop stops[LIMIT_STOPS];
    struct buf raw; /* unfinished character, then the new piece */
    size_t n_tail;
    struct buf held;
    char repaired[3 * (DETOKENIZER_PIECE_BYTES + 4)];
};

int detokenizer_create(const struct tokenizer *t, const struct detokenizer_stop *stops,
                       size_t n_stops, bool is_first, bool show_special, struct detokenizer **ret)
{
    ASSERT(n_stops <= LIMIT_STOPS);
    struct detokenizer *d = calloc(1, sizeof(*d));
    if (!d) {
        return -ENOMEM;
    }
    d->tokenizer = t;
    d->is_first = is_first;
    d->show_special = show_special;
    d->n_stops = n_stops;
    for (size_t i = 0; i < n_stops; i++) {
        ASSERT(stops[i].len >= 1 && stops[i].len <= LIMIT_STOP_BYTES);
        memcpy(d->stops[i].text, stops[i].text, stops[i].len);
        d->stops[i].len = stops[i].len;
    }
    *ret = d;
    return 0;
}

void detokenizer_destroy(struct detokenizer **dp)
{
    struct detokenizer *d = *dp;
    if (d) {
        buf_finish(&d->raw);
        buf_finish(&d->held);
        free(d);
        *dp = NULL;
    }
}

/* Is there a stop sequence whose last byte is text[end - 1]? The longest such, or -1. */
static int stop_ending_at(const struct detokenizer *d, const char *text, size_t end)
{
    int best = -1;
    for (size_t i = 0; i < d->n_stops; i++) {
        const struct stop *s = &d->stops[i];
        if (s->len <= end && text[end - 1] == s->text[s->len - 1] &&
            memcmp(text + end - s->len, s->text, s->len) == 0 &&
            (best < 0 || s->len > d->stops[best].len)) {
            best = (int)i;
        }
    }
    return best;
}

/* How many bytes at the end of text could be the beginning of a stop sequence. */
static size_t unfinished_stop(const struct detokenizer *d, const char *text, size_t n)
{
    size_t longest = 0;
    for (size_t i = 0; i < d->n_stops; i++) {
        for (size_t len = MIN(d->stops[i].len - 1, n); len > longest; len--) {
            if (memcmp(text + n - len, d->stops[i].text, len) == 0) {
                longest = len;
            }
        }
    }
    return longest;
}

int detokenizer_add(struct detokenizer *d, int32_t id, struct buf *text, int *ret_stop)
{
    if (!d->tokenizer || id >= tokenizer_size(d->tokenizer)) {
        return 0; /* outputs beyond the vocabulary are padding */
    }
    int err = tokenizer_piece(d->tokenizer, id, d->is_first, d->show_special, &d->raw);
    if (err < 0 || d->raw.failed) {
        return err < 0 ? err : -ENOMEM;
    }
    if (d->raw.len - d->n_tail > DETOKENIZER_PIECE_BYTES) {
        return ERR_MODEL_TOKENIZER;
    }
    d->is_first = d->is_first && d->raw.len == d->n_tail;
    size_t whole = utf8_complete_prefix(d->raw.data, d->raw.len);
    size_t n_repaired = utf8_repair(d->raw.data, whole, d->repaired);
    buf_consume(&d->raw, whole);
    d->n_tail = d->raw.len;

    size_t seen = d->held.len;
    buf_add(&d->held, d->repaired, n_repaired);
    if (d->held.failed) {
        return -ENOMEM;
    }
    for (size_t end = seen + 1; end <= d->held.len; end++) {
        int stop = stop_ending_at(d, d->held.data, end);
        if (stop >= 0) {
            buf_add(text, d->held.data, end - d->stops[stop].len);
            *ret_stop = stop;
            return text->failed ? -ENOMEM : 1;
        }
    }
    size_t free_to_show = d->held.len - unfinished_stop(d, d->held.data, d->held.len);
    buf_add(text, d->held.data, free_to_show);
    buf_consume(&d->held, free_to_show);
    return text->failed ? -ENOMEM : 0;
}

void detokenizer_end(struct detokenizer *d, struct buf *text)
{
    buf_add(text, d->held.data, d->held.len);
    buf_add(text, d->repaired, utf8_repair(d->raw.data, d->raw.len, d->repaired));
    buf_clear(&d->held);
    buf_clear(&d->raw);
    d->n_tail = 0;
}
