/* Merging: a chain of symbols whose best neighbouring pair is joined again and again until no pair
 * may be. Byte-pair encoding and SentencePiece differ only in how they rank a pair. */
#ifndef WORKER_TOKENIZER_MERGE_H
#define WORKER_TOKENIZER_MERGE_H

#include "shared/base.h"

#define TOKENIZER_MERGE_NEVER UINT32_MAX /* rank of a pair that may not be joined */
#define TOKENIZER_MERGE_NONE UINT32_MAX  /* no neighbour */

struct tokenizer_symbol {
    uint32_t start; /* first byte in the text */
    uint32_t prev;  /* neighbours in the chain, TOKENIZER_MERGE_NONE at its ends */
    uint32_t next;
    int32_t id;        /* its token, -1: none known */
    uint32_t rank;     /* of the pair with next */
    int32_t joined_id; /* the token which that pair makes */
};

/* Memory that grows and is used again; what was in it is lost when it grows. */
struct tokenizer_room {
    void *data; /* owned */
    size_t bytes;
};
/* At least `bytes` of it; NULL without memory. */
void *tokenizer_room_get(struct tokenizer_room *r, size_t bytes);
void tokenizer_room_finish(struct tokenizer_room *r);

/* The rank (lower is joined earlier) of joining a and b, whose bytes end before `end`; with a rank
 * other than NEVER *ret_id is the joined token. */
typedef uint32_t tokenizer_merge_rank(const void *ctx, const struct tokenizer_symbol *a,
                                      const struct tokenizer_symbol *b, uint32_t end,
                                      int32_t *ret_id);

/* Joins pairs in order of (rank, position). s: n symbols in text order with start and id set, n >
 * 0; the text ends at `end`. Afterwards the chain from s[0] along next holds the result. Time is n
 * log n. heap: memory for the queue. Errors: -ENOMEM. */
MUST_CHECK int tokenizer_merge(struct tokenizer_symbol *s, uint32_t n, uint32_t end,
                               tokenizer_merge_rank *rank, const void *ctx,
                               struct tokenizer_room *heap);

#endif
