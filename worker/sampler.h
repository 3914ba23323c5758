/* Sampling: from logits to one token id. State is only the history of ids; randomness is Philox at
 * (seed, choice, position), so a replay draws the same.
 *
 * Order: penalties and bias; temperature 0 = greedy (lowest id wins a tie); top-k; typical; top-p;
 * min-p; temperature; draw. Each filter works on the distribution that the one before it left. The
 * draw walks the survivors by rising id, so it does not depend on how a filter found them.
 * - repeat_penalty r (llama.cpp): ids among the last repeat_last_n tokens of prompt and answer: a
 *   positive logit is divided by r, another multiplied by r;
 * - frequency_penalty f, presence_penalty p (OpenAI): an id that stands c > 0 times in the answer
 *   loses c * f + p;
 * - top-k: the k largest logits, lower ids first among equals;
 * - typical (Meister et al., arXiv 2202.00666): ids in the order of |-log p - entropy| until their
 *   mass reaches typical_p;
 * - top-p (Holtzman et al., arXiv 1904.09751): the fewest most probable ids whose mass reaches
 *   top_p;
 * - min-p (arXiv 2407.01082): ids at least min_p times as probable as the most probable one. */
#ifndef WORKER_SAMPLER_H
#define WORKER_SAMPLER_H

#include "ipc/msg.h"
#include "shared/err.h"

struct sampler;

/* Copies parameters and bias. Errors: -ENOMEM; ERR_BAD_FIELD or ERR_BAD_TOKEN for a parameter
 * outside its range, named in e. */
MUST_CHECK int sampler_create(const struct msg_generate *params, const struct msg_logit_bias *bias,
                              size_t n_bias, uint32_t choice, int64_t n_vocab, struct sampler **ret,
                              struct err *e);
void sampler_destroy(struct sampler **s);

/* Tells it of a token of the prompt or of the answer (for the penalties). */
void sampler_accept(struct sampler *s, int32_t id, bool is_prompt);

/* Draws the token at answer position `position`. logits (n_vocab) are left unchanged. With n_ret >
 * 0 writes n_ret entries as sampler_report does. No allocation. */
int32_t sampler_draw(struct sampler *s, const float *logits, uint32_t position, uint32_t n_ret,
                     struct msg_logprob *ret);

/* Logits need not all be here: how many of the largest might be enough for the next draw. 0: all
 * are needed. At most SAMPLER_TOP. */
enum { SAMPLER_TOP = 64 };
int32_t sampler_n_top(const struct sampler *s);
/* The largest logits in order, lower ids first among equals; every one of them a number. */
struct sampler_top {
    const float *values;
    const int32_t *ids;
    int64_t n;
};
/* sampler_draw from these; -1: they do not decide it. */
int32_t sampler_draw_top(struct sampler *s, const struct sampler_top *top, uint32_t position);

/* Log-probabilities in the distribution that the model gave, before penalties and filters: first of
 * `id`, then of the n_ret - 1 most probable ids (piece_bytes 0). n_ret <= LIMIT_TOP_LOGPROBS + 1
 * and n_ret - 1 <= n_vocab. */
void sampler_report(const float *logits, int64_t n_vocab, int32_t id, uint32_t n_ret,
                    struct msg_logprob *ret);

#endif
