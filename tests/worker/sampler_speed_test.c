/* What a draw costs at a vocabulary of 152,000 (printed), and that greedy stays below 0.1 ms, so
 * that sampling sixteen streams costs less than a decode step. */
#include "worker/sampler.h"
#include "shared/clock.h"
#include "tests/test.h"

enum { V = 152064, ROUNDS = 50 };

static double us_per_draw(struct msg_generate p, uint32_t n_ret, bool has_history)
{
    static float x[V];
    uint64_t rng = 1;
    for (int i = 0; i < V; i++) { /* shaped like a model's: a few likely ids, a wide floor */
        double u = test_uniform(&rng) + test_uniform(&rng) + test_uniform(&rng);
        x[i] = (float)(2.5 * u + (i % 5000 == 77 ? 14 : 0));
    }
    struct sampler *s;
    struct msg_logprob top[LIMIT_TOP_LOGPROBS + 1];
    CHECK_INT(sampler_create(&p, NULL, 0, 0, V, &s, NULL), 0);
    for (int i = 0; has_history && i < 4000; i++) {
        sampler_accept(s, (int32_t)(test_random(&rng) % V), i < 2000);
    }
    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint64_t start = clock_ns();
        sampler_draw(s, x, i, n_ret, top);
        best = MIN(best, clock_ns() - start);
    }
    sampler_destroy(&s);
    return (double)best / 1000;
}

int main(void)
{
    const struct msg_generate base = {
        .temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
    struct msg_generate p = base;
    p.temperature = 0;
    double greedy = us_per_draw(p, 0, false);
    printf("greedy                 %7.1f us\n", greedy);
    printf("greedy, 20 logprobs    %7.1f us\n", us_per_draw(p, 21, false));
    p.presence_penalty = 0.5f;
    printf("greedy, penalties      %7.1f us\n", us_per_draw(p, 0, true));
    p = base;
    printf("temperature            %7.1f us\n", us_per_draw(p, 0, false));
    p.top_k = 40;
    printf("top-k 40               %7.1f us\n", us_per_draw(p, 0, false));
    p.top_p = 0.95f;
    p.min_p = 0.05f;
    printf("top-k, top-p, min-p    %7.1f us\n", us_per_draw(p, 0, false));
    p = base;
    p.top_p = 0.9f;
    printf("top-p 0.9              %7.1f us\n", us_per_draw(p, 0, false));
    p = base;
    p.typical_p = 0.9f;
    printf("typical 0.9            %7.1f us\n", us_per_draw(p, 0, false));
    CHECK(greedy < 100);
    return 0;
}
