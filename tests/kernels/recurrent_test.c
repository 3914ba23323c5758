/* Recurrent ops against double precision, over enough tokens for errors to add up; cutting the
 * tokens into steps changes no bit; each sequence keeps its own state. */
#include "shared/num.h"
#include "tests/kernels/ops_rig.h"

enum { N_TOKENS = 70 };

static double exact_softplus(double x)
{
    return log1p(exp(x));
}

/* Runs fn over the tokens of slot 1, cut at `cut`, and compares both ways bit for bit. */
static void check_cut(struct rig *g, const float *once, const float *cut_result, size_t n)
{
    if (memcmp(once, cut_result, n * sizeof *once) != 0) {
        TEST_FAIL("%s: cutting the tokens changes the result", isa_name(g->step.isa));
    }
}

static void check_conv(int64_t n, int64_t width, bool silu, bool has_bias)
{
    uint64_t seed = (uint64_t)(n + width);
    struct rig g;
    struct rig_rows x = rig_random(N_TOKENS, n, 2, &seed);
    float *w = rig_vec(n * width, 0, 0.7, &seed), *b = rig_vec(n, 0, 0.5, &seed);
    double *exact = malloc((size_t)n * sizeof *exact);
    rig_init(&g, N_TOKENS, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(N_TOKENS, n), z = rig_rows(N_TOKENS, n);
        struct op_state state = {.slot_floats = (width - 1) * n};
        struct op_conv o = {.x = x.r, .y = y.r, .weight = w, .bias = has_bias ? b : NULL,
                            .n = (int32_t)n, .width = (int32_t)width, .silu = silu};
        state.data = calloc((size_t)(2 * state.slot_floats + 1), sizeof(float));
        g.step.states = &state;
        g.run = (struct op_run){.first = 0, .n = N_TOKENS, .state = 1};
        op_conv_run(&o, &g.step, N_TOKENS);
        for (int64_t i = 0; i < state.slot_floats; i++) {
            CHECK(state.data[i] == 0); /* slot 0 is another sequence's */
        }
        o.y = z.r;
        memset(state.data, 0, (size_t)(2 * state.slot_floats) * sizeof(float));
        for (int64_t first = 0, piece; first < N_TOKENS; first += piece) {
            piece = MIN(first + 1, N_TOKENS - first);
            g.run = (struct op_run){.first = first, .n = piece, .state = 1};
            op_conv_run(&o, &g.step, piece);
        }
        check_cut(&g, y.r.data, z.r.data, y.n);
        for (int64_t t = 0; t < N_TOKENS; t++) {
            for (int64_t c = 0; c < n; c++) {
                double s = has_bias ? (double)b[c] : 0;
                for (int64_t j = 0; j < width; j++) {
                    int64_t from = t - width + 1 + j;
                    s += from < 0 ? 0 : (double)w[j * n + c] * (double)rig_at(&x, from)[c];
                }
                exact[c] = silu ? s / (1 + exp(-s)) : s;
            }
            rig_compare("conv", g.step.isa, rig_at(&y, t), exact, n,
                        (double)ops_error_limit(OP_conv));
        }
        free(state.data);
        rig_free(&y);
        rig_free(&z);
    }
    rig_free(&x);
    free(w);
    free(b);
    free(exact);
}

static void check_ssm(int64_t n_head, int64_t dim, int64_t n_state, int64_t n_group)
{
    uint64_t seed = (uint64_t)(dim + n_state);
    struct rig g;
    struct rig_rows x = rig_random(N_TOKENS, n_head * dim, 1, &seed);
    struct rig_rows b = rig_random(N_TOKENS, n_group * n_state, 1, &seed);
    struct rig_rows c = rig_random(N_TOKENS, n_group * n_state, 1, &seed);
    struct rig_rows dt = rig_random(N_TOKENS, n_head, 3, &seed);
    float *dt_bias = rig_vec(n_head, 0, 1, &seed), *a = rig_vec(n_head, -0.6, 0.5, &seed);
    float *d = rig_vec(n_head, 0, 1, &seed);
    int64_t n_y = n_head * dim, n_floats = n_y * n_state;
    double *exact = calloc((size_t)(N_TOKENS * n_y), sizeof *exact);
    double *s = calloc((size_t)n_floats, sizeof *s);
    for (int64_t t = 0; t < N_TOKENS; t++) {
        for (int64_t i = 0; i < n_y; i++) {
            int64_t h = i / dim, group = h / (n_head / n_group);
            double step = exact_softplus((double)rig_at(&dt, t)[h] + (double)dt_bias[h]);
            double decay = exp(step * (double)a[h]), in = (double)rig_at(&x, t)[i];
            double *y = &exact[t * n_y + i];
            for (int64_t j = 0; j < n_state; j++) {
                double *at = &s[i * n_state + j];
                *at = *at * decay + step * in * (double)rig_at(&b, t)[group * n_state + j];
                *y += *at * (double)rig_at(&c, t)[group * n_state + j];
            }
            *y += (double)d[h] * in;
        }
    }
    rig_init(&g, N_TOKENS, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(N_TOKENS, n_y), z = rig_rows(N_TOKENS, n_y);
        struct op_state state = {.slot_floats = n_floats};
        struct op_ssm o = {.x = x.r, .b = b.r, .c = c.r, .dt = dt.r, .y = y.r, .dt_bias = dt_bias,
                           .a = a, .d = d, .n_head = (int32_t)n_head, .dim = (int32_t)dim,
                           .n_state = (int32_t)n_state, .n_group = (int32_t)n_group};
        state.data = calloc((size_t)(2 * n_floats), sizeof(float));
        g.step.states = &state;
        g.run = (struct op_run){.first = 0, .n = N_TOKENS, .state = 0};
        op_ssm_run(&o, &g.step, N_TOKENS);
        o.y = z.r;
        for (int64_t first = 0, piece; first < N_TOKENS; first += piece) {
            piece = MIN(first + 1, N_TOKENS - first);
            g.run = (struct op_run){.first = first, .n = piece, .state = 1};
            op_ssm_run(&o, &g.step, piece);
        }
        check_cut(&g, y.r.data, z.r.data, y.n);
        for (int64_t t = 0; t < N_TOKENS; t++) {
            rig_compare("ssm", g.step.isa, rig_at(&y, t), exact + t * n_y, n_y,
                        (double)ops_error_limit(OP_ssm));
        }
        free(state.data);
        rig_free(&y);
        rig_free(&z);
    }
    rig_free(&x);
    rig_free(&b);
    rig_free(&c);
    rig_free(&dt);
    free(dt_bias);
    free(a);
    free(d);
    free(exact);
    free(s);
}

/* Keys of unit length, as the model feeds them: the rule is stable then. */
static void normalise(struct rig_rows *k, int64_t n_head, int64_t dim)
{
    for (int64_t t = 0; t < N_TOKENS; t++) {
        for (int64_t h = 0; h < n_head; h++) {
            float *v = rig_at(k, t) + h * dim;
            double sum = 0;
            for (int64_t i = 0; i < dim; i++) {
                sum += (double)v[i] * (double)v[i];
            }
            for (int64_t i = 0; i < dim; i++) {
                v[i] = (float)((double)v[i] / sqrt(sum));
            }
        }
    }
}

static void check_delta(int64_t n_k, int64_t n_v, int64_t dim_k, int64_t dim_v, bool tiled)
{
    uint64_t seed = (uint64_t)(dim_k + dim_v);
    struct rig g;
    struct rig_rows q = rig_random(N_TOKENS, n_k * dim_k, 1, &seed);
    struct rig_rows k = rig_random(N_TOKENS, n_k * dim_k, 1, &seed);
    struct rig_rows v = rig_random(N_TOKENS, n_v * dim_v, 1, &seed);
    struct rig_rows gate = rig_random(N_TOKENS, n_v, 2, &seed);
    struct rig_rows beta = rig_random(N_TOKENS, n_v, 2, &seed);
    float *dt_bias = rig_vec(n_v, 0, 1, &seed), *a = rig_vec(n_v, -0.6, 0.5, &seed);
    int64_t n_y = n_v * dim_v, n_floats = n_v * dim_k * dim_v;
    double *exact = calloc((size_t)(N_TOKENS * n_y), sizeof *exact);
    double *s = calloc((size_t)n_floats, sizeof *s);
    normalise(&q, n_k, dim_k);
    normalise(&k, n_k, dim_k);
    for (int64_t t = 0; t < N_TOKENS; t++) {
        for (int64_t i = 0; i < n_y; i++) {
            int64_t h = i / dim_v, col = i % dim_v, key = tiled ? h % n_k : h * n_k / n_v;
            double up = exact_softplus((double)rig_at(&gate, t)[h] + (double)dt_bias[h]);
            double decay = exp((double)a[h] * up), seen = 0, out = 0;
            double rate = 1 / (1 + exp(-(double)rig_at(&beta, t)[h]));
            double *column = s + h * dim_k * dim_v + col;
            for (int64_t j = 0; j < dim_k; j++) {
                column[j * dim_v] *= decay;
                seen += column[j * dim_v] * (double)rig_at(&k, t)[key * dim_k + j];
            }
            for (int64_t j = 0; j < dim_k; j++) {
                column[j * dim_v] += (double)rig_at(&k, t)[key * dim_k + j] * rate *
                                     ((double)rig_at(&v, t)[i] - seen);
                out += column[j * dim_v] * (double)rig_at(&q, t)[key * dim_k + j];
            }
            exact[t * n_y + i] = out * 0.125;
        }
    }
    rig_init(&g, N_TOKENS, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(N_TOKENS, n_y), z = rig_rows(N_TOKENS, n_y);
        struct op_state state = {.slot_floats = n_floats};
        struct op_delta o = {.q = q.r, .k = k.r, .v = v.r, .gate = gate.r, .beta = beta.r,
                             .y = y.r, .dt_bias = dt_bias, .a = a, .n_head_k = (int32_t)n_k,
                             .n_head_v = (int32_t)n_v, .dim_k = (int32_t)dim_k,
                             .dim_v = (int32_t)dim_v, .tiled = tiled, .scale = 0.125f};
        state.data = calloc((size_t)(2 * n_floats), sizeof(float));
        g.step.states = &state;
        g.run = (struct op_run){.first = 0, .n = N_TOKENS, .state = 0};
        op_delta_run(&o, &g.step, N_TOKENS);
        o.y = z.r;
        for (int64_t first = 0, piece; first < N_TOKENS; first += piece) {
            piece = MIN(first + 1, N_TOKENS - first);
            g.run = (struct op_run){.first = first, .n = piece, .state = 1};
            op_delta_run(&o, &g.step, piece);
        }
        check_cut(&g, y.r.data, z.r.data, y.n);
        for (int64_t t = 0; t < N_TOKENS; t++) {
            rig_compare("delta", g.step.isa, rig_at(&y, t), exact + t * n_y, n_y,
                        (double)ops_error_limit(OP_delta));
        }
        free(state.data);
        rig_free(&y);
        rig_free(&z);
    }
    rig_free(&q);
    rig_free(&k);
    rig_free(&v);
    rig_free(&gate);
    rig_free(&beta);
    free(dt_bias);
    free(a);
    free(exact);
    free(s);
}

int main(void)
{
    check_conv(300, 4, true, true);
    check_conv(33, 3, false, false);
    check_conv(16, 2, true, false);
    check_ssm(4, 8, 128, 2);
    check_ssm(3, 5, 17, 1);
    check_delta(2, 4, 64, 64, true);
    check_delta(2, 4, 16, 80, false);
    check_delta(1, 1, 33, 31, false);
    return 0;
}
