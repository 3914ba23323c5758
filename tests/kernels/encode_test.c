/* Encoders: round-trip error on normally distributed weights (and with outliers) at most that of
 * llama.cpp's default quantizer, whose figures for the same numbers stand in the table; sizes;
 * degenerate and non-finite blocks; importance. */
#include "kernels/half.h"
#include "kernels/quant.h"
#include "shared/type.h"
#include "tests/test.h"

enum { N = 256 * 64 };

/* RMS error over RMS, by llama.cpp's ggml_quantize_chunk without importance (August 2026), for
 * fill_normal(.., 7) and fill_outliers(.., 7). */
static const struct {
    enum type type;
    double normal, outliers;
} peers[] = {
    {TYPE_F16, 0.000209, 0.000215},    {TYPE_BF16, 0.001644, 0.001646},
    {TYPE_Q4_0, 0.083211, 0.136006},   {TYPE_Q4_1, 0.076485, 0.095476},
    {TYPE_Q5_0, 0.041794, 0.068080},   {TYPE_Q5_1, 0.037131, 0.046185},
    {TYPE_Q8_0, 0.005219, 0.008545},   {TYPE_Q2_K, 0.289731, 0.331125},
    {TYPE_Q3_K, 0.148464, 0.193657},   {TYPE_Q4_K, 0.069858, 0.089430},
    {TYPE_Q5_K, 0.035565, 0.045009},   {TYPE_Q6_K, 0.017325, 0.025341},
    {TYPE_IQ4_NL, 0.074492, 0.104052}, {TYPE_MXFP4, 0.117368, 0.145416},
};

/* The sum of six uniform numbers, near enough to a normal distribution. */
static void fill_normal(float *x, uint64_t seed)
{
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int k = 0; k < 6; k++) {
            sum += test_uniform(&seed);
        }
        x[i] = (float)(0.02 * sum);
    }
}

static void fill_outliers(float *x, uint64_t seed)
{
    fill_normal(x, seed);
    for (int i = 0; i < N; i++) {
        x[i] *= test_random(&seed) % 100 == 0 ? 8.0f : 1.0f;
    }
}

/* importance: what the encoder is told; weight: what the error counts (NULL: all alike). */
static double round_trip(enum type t, const float *x, const float *importance, const float *weight)
{
    static float y[N];
    size_t bytes = type_row_bytes(t, N);
    uint8_t *blocks = malloc(bytes + 1); /* exact size, misaligned */
    quant_encoder(t)(x, blocks + 1, N, importance);
    quant_decoder(t)(blocks + 1, y, N);
    free(blocks);
    double error = 0, square = 0;
    for (int i = 0; i < N; i++) {
        double w = weight ? (double)weight[i] : 1;
        error += w * pow((double)x[i] - (double)y[i], 2);
        square += w * pow((double)x[i], 2);
    }
    return sqrt(error / square);
}

static void test_quality(void)
{
    static float x[N], importance[N];
    uint64_t seed = 3;
    for (size_t i = 0; i < COUNT_OF(peers); i++) {
        enum type t = peers[i].type;
        fill_outliers(x, 7);
        double outliers = round_trip(t, x, NULL, NULL);
        fill_normal(x, 7);
        double normal = round_trip(t, x, NULL, NULL);
        printf("%-7s normal %.5f (peer %.5f)  outliers %.5f (peer %.5f)\n", type_info(t)->name,
               normal, peers[i].normal, outliers, peers[i].outliers);
        CHECK(normal <= peers[i].normal && outliers <= peers[i].outliers);
        for (int k = 0; k < N; k++) {
            double u = test_uniform(&seed);
            importance[k] = (float)(u * u * u * u);
        }
        double told = round_trip(t, x, importance, importance);
        CHECK(t == TYPE_F16 || t == TYPE_BF16 || told < round_trip(t, x, NULL, importance));
    }
}

/* What a format can hold exactly, it holds exactly. */
static void test_exact(void)
{
    float x[256], y[256];
    uint8_t blocks[1024];
    for (size_t i = 0; i < COUNT_OF(peers); i++) {
        enum type t = peers[i].type;
        memset(x, 0, sizeof x);
        memset(blocks, 0xee, sizeof blocks);
        quant_encoder(t)(x, blocks, 256, NULL);
        quant_decoder(t)(blocks, y, 256);
        for (int k = 0; k < 256; k++) {
            CHECK(fabsf(y[k]) < 1e-37f); /* MXFP4 has no zero scale */
        }
        CHECK_INT(blocks[type_row_bytes(t, 256)], 0xee);
        for (int k = 0; k < 256; k++) {
            x[k] = (float)(k % 2) * 0.5f;
        }
        quant_encoder(t)(x, blocks, 256, NULL);
        quant_decoder(t)(blocks, y, 256);
        for (int k = 0; k < 256; k++) {
            CHECK(fabsf(y[k] - x[k]) < 4e-3f);
        }
        static const float sizes[] = {1e-30f, 1e-7f, 1e4f, 3e38f};
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            for (int k = 0; k < 256; k++) {
                x[k] = sizes[s] * ((float)((k * 7 % 11) - 5) / 5);
            }
            quant_encoder(t)(x, blocks, 256, NULL);
            quant_decoder(t)(blocks, y, 256);
            for (int k = 0; k < 256; k++) {
                CHECK(!isnan(y[k]));
                CHECK(sizes[s] != 1e4f || fabsf(y[k] - x[k]) < 3500);
            }
        }
    }
}

static void test_not_finite(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT_OF(peers) * COUNT_OF(bad); i++) {
        enum type t = peers[i / 3].type;
        float x[512], y[512];
        uint8_t blocks[2048];
        for (int k = 0; k < 512; k++) {
            x[k] = (float)(k % 5);
        }
        x[300] = bad[i % 3];
        quant_encoder(t)(x, blocks, 512, NULL);
        quant_decoder(t)(blocks, y, 512);
        CHECK(!isfinite(y[300]));
        for (int k = 0; k < 256; k++) {
            CHECK(isfinite(y[k]));
        }
    }
}

int main(void)
{
    test_quality();
    test_exact();
    test_not_finite();
    return 0;
}
