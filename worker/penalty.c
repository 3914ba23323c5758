/* Penalties and bias by id. The ids that are known of hang in a list per block of the vocabulary:
 * the list finds an id quickly and also says which blocks of logits need changing at all. */
#include "worker/penalty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WHOLE_CONTEXT = 4 * 1024 * 1024 }; /* a window longer than any context */

static struct penalty_id *find(struct penalty *p, int32_t id)
{
    int32_t *link = &p->first[id / SCAN_BLOCK];
    for (; *link >= 0; link = &p->ids[*link].next) {
        if (p->ids[*link].id == id) {
            return &p->ids[*link];
        }
    }
    *link = p->n_ids++;
    struct penalty_id *i = &p->ids[*link];
    *i = (struct penalty_id){.id = id, .next = -1};
    return i;
}

void penalty_accept(struct penalty *p, int32_t id, bool is_prompt)
{
    if (!p->keeps_counts || id < 0 || id >= p->n_vocab) {
        return;
    }
    struct penalty_id *i = find(p, id);
    i->n_answer += !is_prompt;
    if (p->last_n == 0) {
        return;
    }
    i->n_window++;
    if (p->window) {
        int32_t *slot = &p->window[p->n_seen % (size_t)p->last_n];
        if (p->n_seen++ >= (size_t)p->last_n) {
            find(p, *slot)->n_window--;
        }
        *slot = id;
    }
}

static float apply(const struct penalty *p, const struct penalty_id *i, float l)
{
    if (i->n_window > 0) {
        l = l > 0 ? l / p->repeat : l * p->repeat;
    }
    if (i->n_answer > 0) {
        l -= (float)i->n_answer * p->frequency + p->presence;
    }
    l += i->bias;
    return l > 3e38f ? 3e38f : l; /* two infinities would have no difference */
}

const float *penalty_apply(const struct penalty *p, const float *x, int64_t block, int64_t n,
                           float copy[SCAN_BLOCK])
{
    if (p->first[block] < 0) {
        return x;
    }
    memcpy(copy, x, (size_t)n * sizeof(*x));
    for (int32_t i = p->first[block]; i >= 0; i = p->ids[i].next) {
        int64_t at = p->ids[i].id - block * SCAN_BLOCK;
        copy[at] = apply(p, &p->ids[i], x[at]);
    }
    return copy;
}

float penalty_of(const struct penalty *p, int32_t id, float logit)
{
    for (int32_t i = p->first[id / SCAN_BLOCK]; i >= 0; i = p->ids[i].next) {
        if (p->ids[i].id == id) {
            return apply(p, &p->ids[i], logit);
        }
    }
    return logit;
}

int64_t penalty_n_ids(const struct penalty *p)
{
    return p->n_ids;
}

bool penalty_only_lowers(const struct penalty *p)
{
    return p->only_lowers;
}

int penalty_init(struct penalty *p, const struct msg_generate *params,
                 const struct msg_logit_bias *bias, size_t n_bias, int64_t n_vocab)
{
    *p = (struct penalty){
        .repeat = params->repeat_penalty,
        .frequency = params->frequency_penalty,
        .presence = params->presence_penalty,
        .last_n = params->repeat_last_n < WHOLE_CONTEXT ? params->repeat_last_n : -1,
        .n_vocab = n_vocab,
    };
    p->keeps_counts = p->repeat != 1 || p->presence != 0 || p->frequency != 0;
    size_t n_blocks = (size_t)((n_vocab + SCAN_BLOCK - 1) / SCAN_BLOCK);
    size_t n_ids = p->keeps_counts ? (size_t)n_vocab : MIN(n_bias, (size_t)n_vocab);
    p->first = malloc(n_blocks * sizeof(*p->first));
    p->ids = malloc(MAX(n_ids, (size_t)1) * sizeof(*p->ids));
    bool ok = p->first && p->ids;
    if (p->keeps_counts && p->last_n > 0) {
        p->window = malloc((size_t)p->last_n * sizeof(*p->window));
        ok = ok && p->window;
    }
    if (!ok) {
        penalty_finish(p);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n_blocks; i++) {
        p->first[i] = -1;
    }
    p->only_lowers = p->repeat >= 1 && p->frequency >= 0 && p->presence >= 0;
    for (size_t i = 0; i < n_bias; i++) {
        find(p, bias[i].id)->bias += bias[i].bias;
        p->only_lowers = p->only_lowers && bias[i].bias <= 0;
    }
    return 0;
}

void penalty_finish(struct penalty *p)
{
    free(p->ids);
    free(p->first);
    free(p->window);
    *p = (struct penalty){0};
}
