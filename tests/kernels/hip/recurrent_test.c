/* conv, ssm and delta on the emulator against double precision: two sequences in one launch, and a
 * sequence cut in two launches: the same bits, and the same state. */
#include "tests/kernels/hip/device.h"

extern const struct gpu_host_kernel conv_kernel, ssm_kernel, delta_kernel;

enum { ROWS = 7 };
static const struct args_run whole[2] = {{.first = 0, .n = 5, .state = 1},
                                         {.first = 5, .n = 2, .state = 0}};
static const struct args_run early[1] = {{.first = 0, .n = 3, .state = 1}};
static const struct args_run late[1] = {{.first = 3, .n = 2, .state = 1}};

static double softplus(double x)
{
    return log1p(exp(x));
}
static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Buffers of one test: inputs, states (two), outputs. */
struct rig {
    float *host[8];
    void *device[8];
    int n;
};
static void *input(struct rig *r, int64_t n, float scale, uint64_t *seed)
{
    r->host[r->n] = device_random(n, scale, seed);
    r->device[r->n] = device_copy(r->host[r->n], (size_t)n * 4);
    return r->device[r->n++];
}
static void rig_free(struct rig *r)
{
    for (int i = 0; i < r->n; i++) {
        emulator_free(r->device[i]);
        free(r->host[i]);
    }
}

/* Runs all at once into y, then the first sequence again in two pieces: same output, same state. */
#define RUN(name, args, y_floats, state_floats, y_of, state_of)                                    \
    do {                                                                                           \
        void *runs[3] = {device_copy(whole, sizeof whole), device_copy(early, sizeof early),       \
                         device_copy(late, sizeof late)};                                          \
        float *was = malloc((size_t)(2 * (state_floats)) * 4);                                     \
        float *again = malloc((size_t)(y_floats)*4 + (size_t)(2 * (state_floats)) * 4);            \
        emulator_download(was, (args)->states, (size_t)(2 * (state_floats)) * 4);                  \
        for (int i = 0; i < 3; i++) {                                                              \
            (args)->runs = runs[i];                                                                \
            (args)->n_runs = i == 0 ? 2 : 1;                                                       \
            DEVICE_RUN(name, args);                                                                \
            if (i == 0) {                                                                          \
                emulator_download(y_of, (args)->y, (size_t)(y_floats)*4);                          \
                emulator_download(state_of, (args)->states, (size_t)(2 * (state_floats)) * 4);     \
                emulator_upload((args)->states, was, (size_t)(2 * (state_floats)) * 4);            \
            }                                                                                      \
        }                                                                                          \
        emulator_download(again, (args)->y, (size_t)(y_floats)*4);                                 \
        CHECK(memcmp(again, y_of, (size_t)(y_floats)*4) == 0);                                     \
        emulator_download(again, (args)->states + (state_floats), (size_t)(state_floats)*4);       \
        CHECK(memcmp(again, (state_of) + (state_floats), (size_t)(state_floats)*4) == 0);          \
        for (int i = 0; i < 3; i++) {                                                              \
            emulator_free(runs[i]);                                                                \
        }                                                                                          \
        free(was);                                                                                 \
        free(again);                                                                               \
    } while (0)

static void test_conv(int n, int width, bool silu, bool has_bias)
{
    uint64_t seed = (uint64_t)(n + width);
    struct rig g = {.n = 0};
    int n_state = (width - 1) * n;
    struct conv_args a = {.x_stride = n,
                          .y_stride = n,
                          .state_stride = n_state,
                          .n = n,
                          .width = width,
                          .silu = silu};
    a.x = input(&g, ROWS * n, 2, &seed);
    a.weight = input(&g, width * n, 1, &seed);
    a.bias = input(&g, n, 1, &seed);
    a.bias = has_bias ? a.bias : NULL;
    a.states = input(&g, 2 * n_state + 1, 2, &seed);
    a.y = input(&g, ROWS * n, 1, &seed);
    float *y = malloc((size_t)(ROWS * n) * 4), *state = malloc((size_t)(2 * n_state) * 4 + 4);
    RUN(conv, &a, ROWS * n, n_state, y, state);
    double *exact = malloc((size_t)n * sizeof *exact);
    for (int s = 0; s < 2; s++) {
        const float *past = g.host[3] + whole[s].state * n_state;
        for (int t = 0; t < whole[s].n; t++) {
            for (int i = 0; i < n; i++) {
                double sum = has_bias ? (double)g.host[2][i] : 0;
                for (int j = 0; j < width; j++) {
                    int at = t - width + 1 + j; /* row of the run; before it: the state */
                    float x = at < 0 ? past[(at + width - 1) * n + i]
                                     : g.host[0][(whole[s].first + at) * n + i];
                    sum += (double)g.host[1][j * n + i] * (double)x;
                }
                exact[i] = silu ? sum * sigmoid(sum) : sum;
            }
            device_check("conv", y + (whole[s].first + t) * n, exact, n, 2e-6);
        }
        const float *left = state + whole[s].state * n_state;
        for (int j = 0; j + 1 < width; j++) {
            int at = whole[s].n - width + 1 + j;
            for (int i = 0; i < n; i++) {
                CHECK(left[j * n + i] == (at < 0 ? past[(at + width - 1) * n + i]
                                                 : g.host[0][(whole[s].first + at) * n + i]));
            }
        }
    }
    rig_free(&g);
    free(y);
    free(state);
    free(exact);
}

static void test_ssm(int n_head, int dim, int n_state, int n_group)
{
    uint64_t seed = (uint64_t)(dim + n_state);
    struct rig g = {.n = 0};
    int width = n_head * dim, all = width * n_state, of_group = n_group * n_state;
    struct ssm_args a = {.x_stride = width,
                         .b_stride = of_group,
                         .c_stride = of_group,
                         .dt_stride = n_head,
                         .y_stride = width,
                         .state_stride = all,
                         .n_head = n_head,
                         .dim = dim,
                         .n_state = n_state,
                         .n_group = n_group};
    a.x = input(&g, ROWS * width, 2, &seed);
    a.b = input(&g, ROWS * of_group, 1, &seed);
    a.c = input(&g, ROWS * of_group, 1, &seed);
    a.dt = input(&g, ROWS * n_head, 3, &seed);
    a.dt_bias = input(&g, 3 * n_head, 1, &seed);
    a.a = a.dt_bias + n_head;
    a.d = a.dt_bias + 2 * n_head;
    a.states = input(&g, 2 * all, 1, &seed);
    a.y = input(&g, ROWS * width, 1, &seed);
    float *y = malloc((size_t)(ROWS * width) * 4), *state = malloc((size_t)(2 * all) * 4);
    RUN(ssm, &a, ROWS * width, all, y, state);
    double *exact = malloc((size_t)width * sizeof *exact), *s = malloc((size_t)all * sizeof *s);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < all; i++) {
            s[i] = (double)g.host[5][whole[k].state * all + i];
        }
        for (int r = whole[k].first; r < whole[k].first + whole[k].n; r++) {
            for (int h = 0; h < n_head; h++) {
                const float *p = g.host[4];
                double dt = softplus((double)g.host[3][r * n_head + h] + (double)p[h]);
                double decay = exp(dt * (double)p[n_head + h]);
                int at = r * of_group + h / (n_head / n_group) * n_state;
                for (int i = h * dim; i < (h + 1) * dim; i++) {
                    double x = (double)g.host[0][r * width + i];
                    exact[i] = (double)p[2 * n_head + h] * x;
                    for (int j = 0; j < n_state; j++) {
                        double *of = &s[i * n_state + j];
                        *of = *of * decay + dt * x * (double)g.host[1][at + j];
                        exact[i] += *of * (double)g.host[2][at + j];
                    }
                }
            }
            device_check("ssm", y + r * width, exact, width, 1e-5);
        }
        device_check("ssm state", state + whole[k].state * all, s, all, 1e-5);
    }
    rig_free(&g);
    free(y);
    free(state);
    free(exact);
    free(s);
}

static void test_delta(int n_head_k, int n_head_v, int dim_k, int dim_v, bool tiled)
{
    uint64_t seed = (uint64_t)(dim_k + dim_v + tiled);
    struct rig g = {.n = 0};
    int n_k = n_head_k * dim_k, n_v = n_head_v * dim_v, all = n_head_v * dim_k * dim_v;
    struct delta_args a = {.q_stride = n_k,
                           .k_stride = n_k,
                           .v_stride = n_v,
                           .gate_stride = 2 * n_head_v,
                           .beta_stride = 2 * n_head_v,
                           .y_stride = n_v,
                           .state_stride = all,
                           .n_head_k = n_head_k,
                           .n_head_v = n_head_v,
                           .dim_k = dim_k,
                           .dim_v = dim_v,
                           .tiled = tiled,
                           .scale = 0.25f};
    a.q = input(&g, ROWS * n_k, 0.5f, &seed);
    a.k = input(&g, ROWS * n_k, 1 / sqrtf((float)dim_k), &seed);
    a.v = input(&g, ROWS * n_v, 2, &seed);
    a.gate = input(&g, ROWS * 2 * n_head_v, 2, &seed);
    a.beta = a.gate + n_head_v;
    a.dt_bias = input(&g, 2 * n_head_v, 1, &seed);
    a.a = a.dt_bias + n_head_v;
    a.states = input(&g, 2 * all, 1, &seed);
    a.y = input(&g, ROWS * n_v, 1, &seed);
    float *y = malloc((size_t)(ROWS * n_v) * 4), *state = malloc((size_t)(2 * all) * 4);
    RUN(delta, &a, ROWS * n_v, all, y, state);
    double *exact = malloc((size_t)n_v * sizeof *exact), *s = malloc((size_t)all * sizeof *s);
    for (int w = 0; w < 2; w++) {
        for (int i = 0; i < all; i++) {
            s[i] = (double)g.host[5][whole[w].state * all + i];
        }
        for (int r = whole[w].first; r < whole[w].first + whole[w].n; r++) {
            for (int i = 0; i < n_v; i++) {
                int h = i / dim_v, c = i % dim_v;
                int key = tiled ? h % n_head_k : h / (n_head_v / n_head_k);
                const float *k = g.host[1] + r * n_k + key * dim_k,
                            *q = g.host[0] + r * n_k + key * dim_k;
                const float *of_head = g.host[3] + r * 2 * n_head_v + h, *p = g.host[4] + h;
                double decay =
                    exp((double)p[n_head_v] * softplus((double)of_head[0] + (double)p[0]));
                double seen = 0;
                for (int j = 0; j < dim_k; j++) {
                    s[(h * dim_k + j) * dim_v + c] *= decay;
                    seen += s[(h * dim_k + j) * dim_v + c] * (double)k[j];
                }
                double change =
                    sigmoid((double)of_head[n_head_v]) * ((double)g.host[2][r * n_v + i] - seen);
                exact[i] = 0;
                for (int j = 0; j < dim_k; j++) {
                    s[(h * dim_k + j) * dim_v + c] += (double)k[j] * change;
                    exact[i] += s[(h * dim_k + j) * dim_v + c] * (double)q[j] * (double)a.scale;
                }
            }
            device_check("delta", y + r * n_v, exact, n_v, 1e-5);
        }
        device_check("delta state", state + whole[w].state * all, s, all, 1e-5);
    }
    rig_free(&g);
    free(y);
    free(state);
    free(exact);
    free(s);
}

int main(void)
{
    test_conv(1, 1, false, false);
    test_conv(257, 4, true, true);
    test_conv(31, 8, false, true);
    test_ssm(1, 1, 32, 1);
    test_ssm(4, 9, 96, 2);
    test_ssm(2, 5, 256, 1);
    test_delta(1, 1, 32, 1, false);
    test_delta(2, 4, 96, 37, false);
    test_delta(2, 4, 128, 64, true);
    test_delta(1, 1, 256, 5, false);
    return 0;
}
