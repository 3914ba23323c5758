/* What is different about single ids: repeat, frequency and presence penalties, and bias (formulas
 * in sampler.h). One thread; all memory is taken at init, and only pages in use are backed. */
#ifndef WORKER_PENALTY_H
#define WORKER_PENALTY_H

#include "ipc/msg.h"
#include "worker/scan.h"

struct penalty_id { /* one id that is known of */
    int32_t id;
    int32_t next; /* of the same block of SCAN_BLOCK ids; -1 ends */
    float bias;
    uint32_t n_window; /* times among the last repeat_last_n tokens */
    uint32_t n_answer; /* times in the answer */
};

struct penalty {
    float repeat, frequency, presence;
    int32_t last_n; /* negative: everything */
    bool keeps_counts;
    bool only_lowers; /* no logit is ever raised */
    int64_t n_vocab;
    struct penalty_id *ids; /* owned */
    int32_t n_ids;
    int32_t *first;  /* owned; of each block; -1 none */
    int32_t *window; /* owned; the last last_n ids, round; NULL: nothing ever leaves */
    size_t n_seen;
};

/* Ids of bias are below n_vocab. -ENOMEM. */
MUST_CHECK int penalty_init(struct penalty *p, const struct msg_generate *params,
                            const struct msg_logit_bias *bias, size_t n_bias, int64_t n_vocab);
void penalty_finish(struct penalty *p);

void penalty_accept(struct penalty *p, int32_t id, bool is_prompt);

/* Logits x of a block (n of them) with everything applied: x itself where nothing is, else copy. */
const float *penalty_apply(const struct penalty *p, const float *x, int64_t block, int64_t n,
                           float copy[SCAN_BLOCK]);

/* What becomes of one logit. */
float penalty_of(const struct penalty *p, int32_t id, float logit);
int64_t penalty_n_ids(const struct penalty *p); /* of no others is a logit changed */
bool penalty_only_lowers(const struct penalty *p); /* no logit is ever raised */

#endif
