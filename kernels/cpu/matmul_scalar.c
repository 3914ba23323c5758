/* The reference: weights decoded to F32, F32 activations, products summed in double precision in
 * eight lanes (element k in lane k mod 8), lanes added pairwise. Every tensor type, every size. */
#include "kernels/cpu/matmul_kernel.h"
#include "kernels/quant.h"

#include <string.h>

enum {
    LANES = 8,
    CHUNK = 256, /* a multiple of every type's block length */
    TOKENS = 32, /* tokens that share one decoding of a row */
};

static double lanes_sum(const double *a)
{
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

static void row_times_tokens(const struct matmul *m, int64_t row, int64_t token, int n)
{
    const struct matmul_weight *w = m->w;
    quant_decode_fn *decode = quant_decoder(w->type);
    size_t chunk_bytes = type_row_bytes(w->type, CHUNK);
    const char *blocks = (const char *)w->data + (size_t)row * w->row_bytes;
    const float *x = (const float *)m->x + token * w->n_cols;
    double acc[TOKENS][LANES] = {0};
    float f[CHUNK];
    for (int64_t k = 0; k < w->n_cols; k += CHUNK, blocks += chunk_bytes) {
        int64_t len = MIN(CHUNK, w->n_cols - k);
        decode(blocks, f, len);
        for (int t = 0; t < n; t++) {
            const float *xt = x + t * w->n_cols + k;
            int64_t i = 0;
            for (; i + LANES <= len; i += LANES) {
                for (int l = 0; l < LANES; l++) {
                    acc[t][l] += (double)f[i + l] * (double)xt[i + l];
                }
            }
            for (; i < len; i++) {
                acc[t][i % LANES] += (double)f[i] * (double)xt[i];
            }
        }
    }
    for (int t = 0; t < n; t++) {
        int64_t at = (token + t) * m->y_stride + row;
        float y = (float)lanes_sum(acc[t]);
        if (m->bias) {
            y += m->bias[row];
        }
        if (m->add) {
            y += m->add[at];
        }
        m->y[at] = y;
    }
}

void matmul_scalar_rows(const struct matmul *m, int64_t lo, int64_t hi)
{
    for (int64_t row = lo; row < hi; row++) {
        for (int64_t t = 0; t < m->n_tokens; t += TOKENS) {
            row_times_tokens(m, row, t, (int)MIN(TOKENS, m->n_tokens - t));
        }
    }
}
