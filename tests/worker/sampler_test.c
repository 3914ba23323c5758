/* Sampling against brute force in double precision: every filter's survivors, the distribution of
 * the draws (chi-square, fixed seeds), penalties by their published formulas, reports, ties,
 * determinism. */
#include "worker/sampler.h"
#include "worker/scan.h"
#include "shared/philox.h"
#include "tests/test.h"

#include <errno.h>

static struct msg_generate plain(void)
{
    return (struct msg_generate){
        .seed = 42,
        .n_choices = 1,
        .temperature = 1,
        .top_p = 1,
        .typical_p = 1,
        .repeat_penalty = 1,
        .repeat_last_n = 64,
    };
}

static struct sampler *make(const struct msg_generate *p, int64_t n_vocab)
{
    struct sampler *s;
    CHECK_INT(sampler_create(p, NULL, 0, 0, n_vocab, &s, NULL), 0);
    return s;
}

/* ---- the oracle: everything in double, sorted lists, straight from the definitions ---- */

struct item {
    int id;
    double logit, p, key;
};

static int by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key ? 1 : x->id - y->id;
}

static void normalize(struct item *v, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        max = fmax(max, v[i].logit);
    }
    for (int i = 0; i < n; i++) {
        sum += v[i].p = exp(v[i].logit - max);
    }
    for (int i = 0; i < n; i++) {
        v[i].p /= sum;
    }
}

/* Takes the items in the order of their keys until their mass reaches `mass`. */
static int take_mass(struct item *v, int n, double mass, double *ret_margin)
{
    qsort(v, (size_t)n, sizeof(*v), by_key);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double before = sum;
        sum += v[i].p;
        if (sum >= mass) {
            *ret_margin = fmin(*ret_margin, fmin(sum - mass, i ? mass - before : 1));
            return i + 1;
        }
    }
    return n;
}

/* ret_p: the final probability of every id. Returns how near a border came to an item: a test whose
 * margin is below what float arithmetic resolves says nothing. */
static double oracle(const struct msg_generate *p, const float *logits, int n_vocab, double *ret_p)
{
    struct item *v = malloc((size_t)n_vocab * sizeof(*v));
    double margin = 1;
    int n = n_vocab;
    for (int i = 0; i < n; i++) {
        v[i] = (struct item){.id = i, .logit = (double)logits[i]};
    }
    if (p->top_k > 0) {
        for (int i = 0; i < n; i++) {
            v[i].key = -v[i].logit;
        }
        qsort(v, (size_t)n, sizeof(*v), by_key);
        n = MIN(n, p->top_k);
    }
    normalize(v, n);
    if (p->typical_p < 1) {
        double entropy = 0;
        for (int i = 0; i < n; i++) {
            entropy -= v[i].p > 0 ? v[i].p * log(v[i].p) : 0;
        }
        for (int i = 0; i < n; i++) {
            v[i].key = fabs(-log(v[i].p) - entropy);
        }
        n = take_mass(v, n, (double)p->typical_p, &margin);
        normalize(v, n);
    }
    if (p->top_p < 1) {
        for (int i = 0; i < n; i++) {
            v[i].key = -v[i].logit;
        }
        n = take_mass(v, n, (double)p->top_p, &margin);
        normalize(v, n);
    }
    double best = 0;
    for (int i = 0; i < n; i++) {
        best = fmax(best, v[i].p);
    }
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (p->min_p > 0) {
            margin = fmin(margin, fabs(v[i].p / best - (double)p->min_p));
        }
        if (v[i].p >= (double)p->min_p * best) {
            v[kept++] = v[i];
        }
    }
    for (int i = 0; i < kept; i++) {
        v[i].logit /= (double)p->temperature;
    }
    normalize(v, kept);
    memset(ret_p, 0, (size_t)n_vocab * sizeof(*ret_p));
    for (int i = 0; i < kept; i++) {
        ret_p[v[i].id] = v[i].p;
    }
    free(v);
    return margin;
}

/* Draws go by rising id: at u the id is the first whose cumulated probability exceeds u. */
static int n_checked, n_near;

static void check_draws(const struct msg_generate *p, const float *logits, int n_vocab, int n_draws)
{
    double *prob = malloc((size_t)n_vocab * sizeof(*prob));
    double margin = oracle(p, logits, n_vocab, prob);
    struct sampler *s = make(p, n_vocab);
    n_checked++;
    n_near += margin <= 1e-5;
    for (int pos = 0; pos < n_draws; pos++) {
        int32_t id = sampler_draw(s, logits, (uint32_t)pos, 0, NULL);
        CHECK(id >= 0 && id < n_vocab);
        double u = philox_uniform(p->seed, 0, (uint32_t)pos, 0), sum = 0;
        for (int i = 0; i < id; i++) {
            sum += prob[i];
        }
        if (margin > 1e-5 && !(u > sum - 1e-5 && u < sum + prob[id] + 1e-5 && prob[id] > 0)) {
            TEST_FAIL("u %.9g gave id %d, which holds [%.9g, %.9g) (margin %g)", u, id, sum,
                      sum + prob[id], margin);
        }
    }
    sampler_destroy(&s);
    free(prob);
}

static void fill(float *x, int n, int kind, uint64_t *rng)
{
    for (int i = 0; i < n; i++) {
        double u = test_uniform(rng);
        x[i] = (float)(kind == 0   ? 4 * u
                       : kind == 1 ? 12 * u * u * u /* peaked */
                       : kind == 2 ? floor(3 * u)   /* many ties */
                                   : -2 * log((double)i + 1) + u);
    }
}

static void survivors_equal_brute_force(void)
{
    static const int sizes[] = {1, 2, 31, 33, 257, 512, 513, 2050};
    static const float fractions[] = {0.0f, 0.05f, 0.3f, 0.5f, 0.9f, 0.99f, 1.0f};
    static float x[2050];
    uint64_t rng = 7;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (int round = 0; round < 60; round++) {
            int n = sizes[i];
            fill(x, n, round % 4, &rng);
            struct msg_generate p = plain();
            p.seed = test_random(&rng);
            p.temperature = round % 3 ? 0.25f + (float)(test_random(&rng) % 8) * 0.25f : 1;
            p.top_k = round % 2 ? 0 : (int32_t)(test_random(&rng) % 50);
            p.top_p = fractions[test_random(&rng) % COUNT_OF(fractions)];
            p.typical_p = round % 5 ? 1 : fractions[1 + test_random(&rng) % 6];
            p.min_p = round % 7 ? 0 : fractions[test_random(&rng) % 5];
            check_draws(&p, x, n, 20);
        }
    }
    CHECK(n_near * 10 < n_checked);
}

/* The chance of a chi-square at least as large (Wilson and Hilferty's cube root of it is normal).
 */
static double chi_square_tail(double chi2, double dof)
{
    double z = (cbrt(chi2 / dof) - (1 - 2 / (9 * dof))) / sqrt(2 / (9 * dof));
    return 0.5 * erfc(z / sqrt(2));
}

static void draws_follow_the_distribution(void)
{
    enum { V = 700, DRAWS = 40000 };
    static float x[V];
    static double prob[V], count[V];
    uint64_t rng = 99;
    for (int round = 0; round < 6; round++) {
        fill(x, V, 3, &rng);
        struct msg_generate p = plain();
        p.seed = 1000 + (uint64_t)round;
        p.temperature = round % 2 ? 0.7f : 1.3f;
        p.top_k = round == 2 ? 40 : 0;
        p.top_p = round == 3 ? 0.9f : 1;
        p.min_p = round == 4 ? 0.02f : 0;
        p.typical_p = round == 5 ? 0.8f : 1;
        CHECK(oracle(&p, x, V, prob) > 1e-7);
        struct sampler *s = make(&p, V);
        memset(count, 0, sizeof(count));
        for (uint32_t pos = 0; pos < DRAWS; pos++) {
            count[sampler_draw(s, x, pos, 0, NULL)]++;
        }
        double chi2 = 0, rest_p = 0, rest_n = 0, dof = -1;
        for (int i = 0; i < V; i++) {
            CHECK(prob[i] > 0 || count[i] == 0);
            if (prob[i] * DRAWS >= 10) {
                double d = count[i] - prob[i] * DRAWS;
                chi2 += d * d / (prob[i] * DRAWS);
                dof++;
            } else {
                rest_p += prob[i];
                rest_n += count[i];
            }
        }
        if (rest_p * DRAWS >= 10) {
            double d = rest_n - rest_p * DRAWS;
            chi2 += d * d / (rest_p * DRAWS);
            dof++;
        }
        double tail = chi_square_tail(chi2, dof);
        if (!(tail > 1e-3)) {
            TEST_FAIL("round %d: chi-square %g with %g degrees of freedom: p = %g", round, chi2,
                      dof, tail);
        }
        sampler_destroy(&s);
    }
}

/* The largest k of n in order, lower ids first among equals. */
static int64_t largest(const float *x, int n, int k, float *values, int32_t *ids)
{
    int64_t found = 0;
    for (; found < k && found < n; found++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            bool is_after = found == 0 || x[i] < values[found - 1] ||
                            (x[i] == values[found - 1] && i > ids[found - 1]);
            best = is_after && (best < 0 || x[i] > x[best]) ? i : best;
        }
        values[found] = x[best];
        ids[found] = best;
    }
    return found;
}

static void the_largest_alone_give_the_same_ids(void)
{
    enum { V = 1500 };
    static float x[V], values[SAMPLER_TOP];
    static int32_t ids[SAMPLER_TOP];
    uint64_t rng = 21;
    int n_asked = 0, n_decided = 0, n_draws = 0;
    for (int round = 0; round < 600; round++) {
        int n = round % 9 == 0 ? 30 : V;
        fill(x, n, round % 4, &rng);
        struct msg_generate p = plain();
        p.seed = test_random(&rng);
        p.temperature = round % 3 ? 0.8f : 0;
        p.top_k = (int32_t)(test_random(&rng) % 80);
        p.top_p = round % 4 ? 0.9f : 1;
        p.typical_p = round % 6 ? 1 : 0.9f;
        p.min_p = round % 5 ? 0 : 0.05f;
        p.repeat_penalty = round % 2 ? 1 : 1.2f;
        p.presence_penalty = round % 7 ? 0 : 0.3f;
        p.frequency_penalty = round % 8 ? 0 : round % 16 ? 0.2f : -0.2f;
        struct msg_logit_bias bias[] = {{(int32_t)(test_random(&rng) % (uint64_t)n), -INFINITY},
                                        {7, round % 11 ? -2.0f : 2.0f}};
        struct sampler *s;
        CHECK_INT(sampler_create(&p, bias, (size_t)(round % 3), 0, n, &s, NULL), 0);
        /* Often what is about to be drawn: then the largest are those that are penalized. */
        int64_t n_seen = largest(x, n, 40, values, ids);
        for (int64_t i = 0; i < n_seen && round % 10 < 5; i += 2) {
            sampler_accept(s, ids[i], i % 4 == 0);
        }
        int32_t n_top = sampler_n_top(s);
        CHECK(n_top >= 0 && n_top <= SAMPLER_TOP);
        struct sampler_top top = {values, ids, largest(x, n, n_top, values, ids)};
        for (uint32_t pos = 0; pos < 10 && n_top > 0; pos++) {
            int32_t id = sampler_draw_top(s, &top, pos);
            CHECK(id == -1 || id == sampler_draw(s, x, pos, 0, NULL));
            n_draws++;
            n_decided += id >= 0;
        }
        n_asked += n_top > 0;
        sampler_destroy(&s);
    }
    CHECK(n_asked > 200 && n_decided * 10 > n_draws * 7 && n_decided < n_draws);
}

static void greedy_takes_the_lowest_id_of_the_best(void)
{
    static float x[3000];
    struct msg_generate p = plain();
    p.temperature = 0;
    for (int n = 1; n < 3000; n += 97) {
        struct sampler *s = make(&p, n);
        for (int at = 0; at < n; at += 31) {
            for (int i = 0; i < n; i++) {
                x[i] = -1;
            }
            x[at] = x[n - 1] = x[(at + n) / 2] = 5;
            CHECK_INT(sampler_draw(s, x, 0, 0, NULL), at);
        }
        sampler_destroy(&s);
    }
}

static void penalties_are_the_published_formulas(void)
{
    enum { V = 1200 };
    static float x[V];
    static double want[V];
    uint64_t rng = 5;
    for (int round = 0; round < 40; round++) {
        struct msg_generate p = plain();
        p.temperature = 0;
        p.repeat_penalty = round % 2 ? 1.3f : 1;
        p.frequency_penalty = round % 3 ? 0.7f : 0;
        p.presence_penalty = round % 4 ? -0.4f : 0.6f;
        p.repeat_last_n = round % 5 == 0 ? -1 : round % 5 == 1 ? 0 : 7 * (round % 5);
        struct msg_logit_bias bias[] = {{3, 1.5f}, {700, -100}, {3, 0.25f}};
        struct sampler *s;
        CHECK_INT(sampler_create(&p, bias, 3, 0, V, &s, NULL), 0);
        int32_t history[60];
        int n_prompt = round, n = 60;
        for (int i = 0; i < n; i++) {
            history[i] = (int32_t)(test_random(&rng) % 15) * 80;
            sampler_accept(s, history[i], i < n_prompt);
        }
        fill(x, V, 0, &rng);
        int best = 0;
        for (int id = 0; id < V; id++) {
            int in_window = 0, in_answer = 0;
            for (int i = 0; i < n; i++) {
                in_window += history[i] == id && (p.repeat_last_n < 0 || i >= n - p.repeat_last_n);
                in_answer += history[i] == id && i >= n_prompt;
            }
            want[id] = (double)x[id];
            if (in_window) {
                want[id] = want[id] > 0 ? want[id] / (double)p.repeat_penalty
                                        : want[id] * (double)p.repeat_penalty;
            }
            want[id] -= in_answer * (double)p.frequency_penalty;
            want[id] -= in_answer > 0 ? (double)p.presence_penalty : 0;
            want[id] += id == 3 ? 1.75 : id == 700 ? -100 : 0;
            best = want[id] > want[best] ? id : best;
        }
        /* Once as the best of all, then as the best after everything better was banned by the
         * oracle's own order: the whole ranking is seen, not only its head. */
        CHECK_INT(sampler_draw(s, x, 0, 0, NULL), best);
        sampler_destroy(&s);
        struct msg_generate q = p;
        q.temperature = 1;
        q.seed = (uint64_t)round;
        CHECK_INT(sampler_create(&q, bias, 3, 0, V, &s, NULL), 0);
        for (int i = 0; i < n; i++) {
            sampler_accept(s, history[i], i < n_prompt);
        }
        double total = 0;
        for (int id = 0; id < V; id++) {
            total += exp(want[id]);
        }
        for (uint32_t pos = 0; pos < 50; pos++) {
            int32_t id = sampler_draw(s, x, pos, 0, NULL);
            double u = philox_uniform(q.seed, 0, pos, 0), sum = 0;
            for (int i = 0; i < id; i++) {
                sum += exp(want[i]) / total;
            }
            CHECK(u > sum - 1e-5 && u < sum + exp(want[id]) / total + 1e-5);
        }
        sampler_destroy(&s);
    }
}

static void a_banned_id_is_never_drawn(void)
{
    enum { V = 600 };
    static float x[V];
    struct msg_generate p = plain();
    struct msg_logit_bias bias[] = {{511, -INFINITY}, {5, -INFINITY}};
    x[511] = 50;
    x[5] = 49;
    for (int kind = 0; kind < 3; kind++) {
        p.temperature = kind ? 1 : 0;
        p.top_p = kind == 2 ? 0.5f : 1;
        struct sampler *s;
        CHECK_INT(sampler_create(&p, bias, 2, 0, V, &s, NULL), 0);
        for (uint32_t pos = 0; pos < 2000; pos++) {
            int32_t id = sampler_draw(s, x, pos, 0, NULL);
            CHECK(id != 511 && id != 5);
        }
        sampler_destroy(&s);
    }
}

static void reports_are_log_softmax(void)
{
    static const int sizes[] = {1, 2, 33, 1500};
    static float x[1500];
    uint64_t rng = 3;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        int n = sizes[i];
        for (int kind = 0; kind < 4; kind++) {
            fill(x, n, kind, &rng);
            double max = -INFINITY, total = 0;
            for (int k = 0; k < n; k++) {
                max = fmax(max, (double)x[k]);
            }
            for (int k = 0; k < n; k++) {
                total += exp((double)x[k] - max);
            }
            uint32_t n_ret = (uint32_t)MIN(21, n + 1);
            struct msg_logprob got[21];
            int32_t id = (int32_t)(test_random(&rng) % (uint64_t)n);
            sampler_report(x, n, id, n_ret, got);
            CHECK_INT(got[0].id, id);
            bool seen[1500] = {false};
            for (uint32_t k = 0; k < n_ret; k++) {
                double want = (double)x[got[k].id] - max - log(total);
                CHECK(fabs((double)got[k].logprob - want) < 2e-6 * (1 + fabs(want)));
                CHECK_INT(got[k].piece_bytes, 0);
            }
            for (uint32_t k = 1; k < n_ret; k++) {
                CHECK(!seen[got[k].id]);
                seen[got[k].id] = true;
                if (k > 1) { /* descending, lower ids first */
                    CHECK(x[got[k - 1].id] > x[got[k].id] ||
                          (x[got[k - 1].id] == x[got[k].id] && got[k - 1].id < got[k].id));
                }
            }
            for (int k = 0; k < n && n_ret > 1; k++) { /* nothing better was left out */
                CHECK(seen[k] || x[k] < x[got[n_ret - 1].id] ||
                      (x[k] == x[got[n_ret - 1].id] && k > got[n_ret - 1].id));
            }
        }
    }
}

static void draws_depend_on_seed_choice_and_position_only(void)
{
    enum { V = 900 };
    static float x[V];
    uint64_t rng = 11;
    fill(x, V, 0, &rng);
    struct msg_generate p = plain();
    struct sampler *a, *b, *c;
    CHECK_INT(sampler_create(&p, NULL, 0, 1, V, &a, NULL), 0);
    CHECK_INT(sampler_create(&p, NULL, 0, 1, V, &b, NULL), 0);
    CHECK_INT(sampler_create(&p, NULL, 0, 2, V, &c, NULL), 0);
    int32_t forward[200];
    int n_same = 0;
    for (uint32_t i = 0; i < 200; i++) {
        forward[i] = sampler_draw(a, x, i, 0, NULL);
        n_same += forward[i] == sampler_draw(c, x, i, 0, NULL);
    }
    CHECK(n_same < 20);
    for (uint32_t i = 200; i-- > 0;) {
        struct msg_logprob top[5];
        CHECK_INT(sampler_draw(b, x, i, 5, top), forward[i]);
        CHECK_INT(top[0].id, forward[i]);
    }
    sampler_destroy(&a);
    sampler_destroy(&b);
    sampler_destroy(&c);
}

static void bad_parameters_are_named(void)
{
    struct sampler *s;
    struct err e;
    struct msg_generate p = plain();
    p.temperature = -1;
    CHECK_INT(sampler_create(&p, NULL, 0, 0, 10, &s, &e), ERR_BAD_FIELD);
    CHECK(strstr(e.detail, "temperature"));
    p = plain();
    p.repeat_penalty = 0;
    CHECK_INT(sampler_create(&p, NULL, 0, 0, 10, &s, &e), ERR_BAD_FIELD);
    p = plain();
    struct msg_logit_bias bias = {10, 1};
    CHECK_INT(sampler_create(&p, &bias, 1, 0, 10, &s, &e), ERR_BAD_TOKEN);
    bias.id = -1;
    CHECK_INT(sampler_create(&p, &bias, 1, 0, 10, &s, &e), ERR_BAD_TOKEN);
}

static void exp_is_near_exact(void)
{
    double worst = 0;
    for (int i = 0; i <= 870000; i++) {
        float x = (float)i * -1e-4f;
        worst = fmax(worst, fabs((double)scan_exp(x) / exp((double)x) - 1));
    }
    CHECK(worst < 2e-7);
    CHECK(scan_exp(0) == 1);
    CHECK(scan_exp(-100) == 0);
    CHECK(scan_exp(-INFINITY) == 0);
    static float x[1000];
    for (int i = 0; i < 1000; i++) {
        x[i] = -0.037f * (float)i;
    }
    for (int n = 0; n < 1000; n += 33) { /* lanes and tail give the same terms */
        double want = 0;
        for (int i = 0; i < n; i++) {
            want += x[i] < -20 ? 0 : (double)scan_exp((x[i] - 0) * 0.5f);
        }
        CHECK(fabs(scan_exp_sum(x, n, 0, 0.5f, -20) - want) <= 1e-13 * want);
    }
}

int main(void)
{
    exp_is_near_exact();
    the_largest_alone_give_the_same_ids();
    greedy_takes_the_lowest_id_of_the_best();
    survivors_equal_brute_force();
    draws_follow_the_distribution();
    penalties_are_the_published_formulas();
    a_banned_id_is_never_drawn();
    reports_are_log_softmax();
    draws_depend_on_seed_choice_and_position_only();
    bad_parameters_are_named();
    return 0;
}
