/* From answer ids to text that may be shown: characters are whole (bytes that can never become one
 * are U+FFFD), and nothing is shown that could still become part of a stop sequence. What is shown
 * after an id depends on the ids so far alone, never on when it is asked for.
 *
 * The stop sequence whose last byte comes first ends the answer; of those ending at the same byte
 * the longest, then the lowest index. */
#ifndef WORKER_DETOKENIZER_H
#define WORKER_DETOKENIZER_H

#include "shared/buf.h"
#include "shared/err.h"
#include "shared/limits.h"
#include "worker/tokenizer.h"

/* Bytes of a token's text at most: with it, what one token shows always fits a record. */
enum { DETOKENIZER_PIECE_BYTES = 4000 };

struct detokenizer_stop {
    const char *text; /* borrowed during create; UTF-8, 1..LIMIT_STOP_BYTES */
    size_t len;
};

struct detokenizer;

/* t may be NULL (a model without vocabulary): then there is never any text; nor
 * has an id beyond the vocabulary (padding of the model's outputs). is_first: the text
 * begins with the first id (see tokenizer_piece). -ENOMEM. */
MUST_CHECK int detokenizer_create(const struct tokenizer *t, const struct detokenizer_stop *stops,
                                  size_t n_stops, bool is_first, bool show_special,
                                  struct detokenizer **ret);
void detokenizer_destroy(struct detokenizer **d);

/* Takes an id and appends what may be shown now to *text. Returns 0, or 1 when a stop sequence is
 * complete
 * (*ret_stop is its index; the text before it was appended, no more ids may come).
 * Errors: -ENOMEM, ERR_MODEL_TOKENIZER (a piece above DETOKENIZER_PIECE_BYTES). */
MUST_CHECK int detokenizer_add(struct detokenizer *d, int32_t id, struct buf *text, int *ret_stop);

/* The answer ended without a stop sequence: appends all that was held back. */
void detokenizer_end(struct detokenizer *d, struct buf *text);

#endif
