/* Draws from the largest logits alone, where all others stayed on a device: the same ids as from
 * all, or none. One thread at a time; blocks never, allocates nothing. */
#include "worker/sampler_state.h"

static bool is_greedy(const struct sampler *s)
{
    return s->params.temperature == 0;
}

int32_t sampler_n_top(const struct sampler *s)
{
    const struct msg_generate *p = &s->params;
    bool has_few = p->top_k > 0 && p->top_k <= SAMPLER_TOP && p->top_k < s->n_vocab;
    if ((!is_greedy(s) && !has_few) || !penalty_only_lowers(&s->penalty)) {
        return 0;
    }
    /* Among so many are the best of those that nothing is changed of; more are seldom needed. */
    int64_t n = (is_greedy(s) ? 1 : p->top_k) + penalty_n_ids(&s->penalty);
    return (int32_t)MIN(n, (int64_t)SAMPLER_TOP);
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static bool has_lower_id(const struct candidate *a, const struct candidate *b)
{
    return a->id < b->id;
}

/* They are few and nearly in order. */
static void sort(struct candidate *v, int64_t n,
                 bool (*comes_first)(const struct candidate *, const struct candidate *))
{
    for (int64_t i = 1; i < n; i++) {
        struct candidate c = v[i];
        int64_t k = i;
        for (; k > 0 && comes_first(&c, &v[k - 1]); k--) {
            v[k] = v[k - 1];
        }
        v[k] = c;
    }
}

int32_t sampler_draw_top(struct sampler *s, const struct sampler_top *top, uint32_t position)
{
    struct candidate v[SAMPLER_TOP];
    int64_t n = MIN(top->n, (int64_t)SAMPLER_TOP), k = is_greedy(s) ? 1 : s->params.top_k;
    if (sampler_n_top(s) == 0 || n < k) {
        return -1;
    }
    for (int64_t i = 0; i < n; i++) {
        v[i] = (struct candidate){
            .id = top->ids[i], .logit = penalty_of(&s->penalty, top->ids[i], top->values[i])};
    }
    sort(v, n, is_better);
    /* Nothing is raised, so no logit that is not here can come before the last that is. */
    const struct candidate last = {.id = top->ids[n - 1], .logit = top->values[n - 1]};
    if (n < s->n_vocab && is_better(&last, &v[k - 1])) {
        return -1;
    }
    if (is_greedy(s)) {
        return v[0].id;
    }
    float max = v[0].logit;
    sort(v, k, has_lower_id);
    s->n_pool = k;
    for (int64_t i = 0; i < k; i++) {
        s->pool[i] = (struct candidate){
            .id = v[i].id, .logit = v[i].logit, .weight = scan_exp(v[i].logit - max)};
    }
    return sampler_draw_pool(s, max, sampler_pool_mass(s), position);
}
