/* The texts of a vocabulary in the order of their bytes, so that tokens with a common beginning
 * stand together. Immutable. */
#ifndef WORKER_GRAMMAR_PIECES_H
#define WORKER_GRAMMAR_PIECES_H

#include "shared/base.h"
#include "worker/tokenizer.h"

enum { PIECES_LONGEST = 255 }; /* longer tokens are left out, as are those without a text */

struct pieces {
    int32_t n, n_ids; /* of the rows; of the tokenizer */
    uint8_t *bytes;   /* owned */
    struct piece {
        uint32_t at; /* in bytes */
        int32_t id;
        uint8_t n;      /* bytes */
        uint8_t common; /* of them with the row before */
    } * rows;           /* owned */
};

/* Of a model's tokenizer; control tokens have no text. Errors: -ENOMEM, those of tokenizer_piece.
 */
MUST_CHECK int pieces_create(const struct tokenizer *t, struct pieces **ret);
void pieces_destroy(struct pieces **p);

#endif
