/* Sampling: from logits to one token id. State is only the history of ids; randomness is Philox at
 * (seed, choice, position), so a replay draws the same. Order of the filters: penalties and bias,
 * temperature 0 = greedy (lowest id wins a tie), top-k, typical, top-p, min-p, temperature, draw. */
#ifndef WORKER_SAMPLER_H
#define WORKER_SAMPLER_H

#include "ipc/msg.h"
#include "shared/err.h"

struct sampler;

/* Copies parameters and bias. */
MUST_CHECK int sampler_create(const struct msg_generate *params, const struct msg_logit_bias *bias,
                              size_t n_bias, uint32_t choice, int64_t n_vocab,
                              struct sampler **ret);
void sampler_destroy(struct sampler **s);

/* Tells it of a token of the prompt or of the answer (for the penalties). */
void sampler_accept(struct sampler *s, int32_t id, bool is_prompt);

/* Draws the token at answer position `position`. logits (n_vocab) are left unchanged. With n_ret >
 * 0 writes n_ret entries: the drawn token first, then the best, from the unfiltered distribution
 * (piece_bytes 0). No allocation. */
int32_t sampler_draw(struct sampler *s, const float *logits, uint32_t position, uint32_t n_ret,
                     struct msg_logprob *ret);

/* The same report for a given token (prompt logprobs). n_ret <= LIMIT_TOP_LOGPROBS + 1. */
void sampler_report(const float *logits, int64_t n_vocab, int32_t id, uint32_t n_ret,
                    struct msg_logprob *ret);

#endif
