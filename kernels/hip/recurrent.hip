/* Recurrent ops: short convolution, Mamba-2 scan, gated delta rule. Each advances its state token by token, held in registers
 * over the rows of a run, so a prompt may be cut anywhere; sums are made in one order for every cut.
 *
 * For a token, conv: width fused multiply-adds a channel; ssm: 3, delta: 5 operations for each number of the state. States
 * are read and written once a run. */
#include "kernels/hip/args.h"
#include "kernels/hip/gpu.h"

/* log(1 + exp(x)); the quotient repairs what 1 + e has rounded away. */
GPU_FN float recurrent_softplus(float x)
{
    if (x > 20.0f) {
        return x;
    }
    float e = gpu_exp(x), u = 1.0f + e;
    return u == 1.0f ? e : gpu_log2(u) * 0.693147181f * (e / (u - 1.0f));
}

/* A thread does a channel. */
GPU_KERNEL(conv, CONV_THREADS)
{
    int channel = gpu_block_x() * CONV_THREADS + gpu_thread();
    if (channel >= a.n) {
        return;
    }
    struct args_run run = a.runs[gpu_block_y()];
    float *state = a.states + run.state * a.state_stride + channel;
    float past[CONV_MAX_WIDTH] = {0}, weight[CONV_MAX_WIDTH] = {0}; /* the latest last */
    GPU_UNROLL
    for (int j = 0; j < CONV_MAX_WIDTH; j++) {
        int at = j - (CONV_MAX_WIDTH - a.width);
        weight[j] = at >= 0 ? a.weight[(int64_t)at * a.n + channel] : 0;
        past[j] = at >= 0 && at < a.width - 1 ? state[(int64_t)at * a.n] : 0;
    }
    float bias = a.bias ? a.bias[channel] : 0;
    for (int r = run.first; r < run.first + run.n; r++) {
        past[CONV_MAX_WIDTH - 1] = a.x[r * a.x_stride + channel];
        float sum = bias;
        GPU_UNROLL
        for (int j = 0; j < CONV_MAX_WIDTH; j++) {
            if (j >= CONV_MAX_WIDTH - a.width) {
                sum = gpu_fma(weight[j], past[j], sum);
            }
        }
        a.y[r * a.y_stride + channel] = a.silu ? sum * gpu_sigmoid(sum) : sum;
        GPU_UNROLL
        for (int j = 0; j + 1 < CONV_MAX_WIDTH; j++) {
            past[j] = past[j + 1];
        }
    }
    GPU_UNROLL
    for (int j = 0; j < CONV_MAX_WIDTH - 1; j++) {
        int at = j - (CONV_MAX_WIDTH - a.width);
        if (at >= 0) {
            state[(int64_t)at * a.n] = past[j];
        }
    }
}

/* A wave does a dimension of a head: lane l holds numbers l, l + 32, ... of its row of the state. */
GPU_KERNEL(ssm, SSM_THREADS)
{
    enum { OF_LANE = SSM_MAX_STATE / GPU_WAVE, WAVES = SSM_THREADS / GPU_WAVE };
    int blocks_of_head = (a.dim + WAVES - 1) / WAVES, h = gpu_block_x() / blocks_of_head;
    int i = gpu_block_x() % blocks_of_head * WAVES + gpu_uniform(gpu_thread() / GPU_WAVE);
    if (i >= a.dim) {
        return;
    }
    struct args_run run = a.runs[gpu_block_y()];
    int group = h / (a.n_head / a.n_group), lane = gpu_lane();
    float *row = a.states + run.state * a.state_stride + ((int64_t)h * a.dim + i) * a.n_state;
    float state[OF_LANE];
    GPU_UNROLL
    for (int j = 0; j < OF_LANE; j++) {
        state[j] = j * GPU_WAVE < a.n_state ? row[j * GPU_WAVE + lane] : 0;
    }
    for (int r = run.first; r < run.first + run.n; r++) {
        float dt = recurrent_softplus(a.dt[r * a.dt_stride + h] + a.dt_bias[h]);
        float x = a.x[r * a.x_stride + (int64_t)h * a.dim + i], in = dt * x;
        float decay = gpu_exp(dt * a.a[h]), sum = 0;
        const float *b = a.b + r * a.b_stride + (int64_t)group * a.n_state + lane;
        const float *c = a.c + r * a.c_stride + (int64_t)group * a.n_state + lane;
        GPU_UNROLL
        for (int j = 0; j < OF_LANE; j++) {
            if (j * GPU_WAVE < a.n_state) {
                state[j] = gpu_fma(state[j], decay, in * b[j * GPU_WAVE]);
                sum = gpu_fma(state[j], c[j * GPU_WAVE], sum);
            }
        }
        sum = gpu_sum(sum);
        if (lane == 0) {
            a.y[r * a.y_stride + (int64_t)h * a.dim + i] = gpu_fma(a.d[h], x, sum);
        }
    }
    GPU_UNROLL
    for (int j = 0; j < OF_LANE; j++) {
        if (j * GPU_WAVE < a.n_state) {
            row[j * GPU_WAVE + lane] = state[j];
        }
    }
}

/* A wave does four columns of a head's state: lane 4 p + c holds rows p, p + 8, ... of column c. */
GPU_KERNEL(delta, DELTA_THREADS)
{
    enum { PARTS = GPU_WAVE / DELTA_COLUMNS, OF_LANE = DELTA_MAX_DIM / PARTS };
    int per_block = DELTA_THREADS / PARTS, blocks_of_head = (a.dim_v + per_block - 1) / per_block;
    int h = gpu_block_x() / blocks_of_head, lane = gpu_lane(), part = lane / DELTA_COLUMNS;
    int column = gpu_block_x() % blocks_of_head * per_block +
                 gpu_thread() / GPU_WAVE * DELTA_COLUMNS + lane % DELTA_COLUMNS;
    bool is_there = column < a.dim_v; /* the others go along: the wave's sums are for all */
    struct args_run run = a.runs[gpu_block_y()];
    int key = a.tiled ? h % a.n_head_k : h / (a.n_head_v / a.n_head_k);
    float *at = a.states + run.state * a.state_stride + (int64_t)h * a.dim_k * a.dim_v + column;
    float state[OF_LANE];
    GPU_UNROLL
    for (int j = 0; j < OF_LANE; j++) {
        int k = j * PARTS + part;
        state[j] = j / 4 * GPU_WAVE < a.dim_k && is_there ? at[(int64_t)k * a.dim_v] : 0;
    }
    for (int r = run.first; r < run.first + run.n; r++) {
        float step = recurrent_softplus(a.gate[r * a.gate_stride + h] + a.dt_bias[h]);
        float decay = gpu_exp(a.a[h] * step), rate = gpu_sigmoid(a.beta[r * a.beta_stride + h]);
        float v = is_there ? a.v[r * a.v_stride + (int64_t)h * a.dim_v + column] : 0;
        const float *key_row = a.k + r * a.k_stride + (int64_t)key * a.dim_k + part;
        const float *query = a.q + r * a.q_stride + (int64_t)key * a.dim_k + part;
        float seen = 0, out = 0;
        GPU_UNROLL
        for (int j = 0; j < OF_LANE; j++) {
            if (j / 4 * GPU_WAVE < a.dim_k) {
                state[j] *= decay;
                seen = gpu_fma(state[j], key_row[j * PARTS], seen);
            }
        }
        for (int mask = DELTA_COLUMNS; mask < GPU_WAVE; mask *= 2) {
            seen += gpu_shuffle_xor(seen, mask);
        }
        float change = rate * (v - seen);
        GPU_UNROLL
        for (int j = 0; j < OF_LANE; j++) {
            if (j / 4 * GPU_WAVE < a.dim_k) {
                state[j] = gpu_fma(key_row[j * PARTS], change, state[j]);
                out = gpu_fma(state[j], query[j * PARTS], out);
            }
        }
        for (int mask = DELTA_COLUMNS; mask < GPU_WAVE; mask *= 2) {
            out += gpu_shuffle_xor(out, mask);
        }
        if (part == 0 && is_there) {
            a.y[r * a.y_stride + (int64_t)h * a.dim_v + column] = out * a.scale;
        }
    }
    GPU_UNROLL
    for (int j = 0; j < OF_LANE; j++) {
        int k = j * PARTS + part;
        if (j / 4 * GPU_WAVE < a.dim_k && is_there) {
            at[(int64_t)k * a.dim_v] = state[j];
        }
    }
}
