/* Decoding of every tensor type, against: another implementation's numbers for pseudo-random blocks
 * (llama.cpp's ggml, August 2026: bit for bit) and blocks computed by hand. */
#include "kernels/quant.h"

#include "tests/kernels/blocks.h"

static uint64_t hash(const float *y, int64_t n) /* of the bits, -0 taken as 0 */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < n; i++) {
        h = (h ^ half_bits(y[i] + 0.0f)) * 0x100000001b3u;
    }
    return h;
}

static void test_vectors(void)
{
    enum { N = 2048 };
    static const struct {
        enum type type;
        uint64_t hash;
        float y[3]; /* elements 1, 300, 2047: where to look when the hash differs */
    } vectors[] = {
        {TYPE_Q4_0, 0xe3f7b6e627868f25, {-0x1.634p-2, -0x1.55p-5, 0x1.c93p-4}},
        {TYPE_Q4_1, 0x6f1ff9954e60df25, {0x1.548p-3, -0x1.176p-5, -0x1.7388p-2}},
        {TYPE_Q5_0, 0xe1b3eb79b6c5e125, {-0x1.21d8p-4, 0x1.4f4p-6, 0x1.3b48p-2}},
        {TYPE_Q5_1, 0xbfc8c0d31ff2b625, {0x1.47p-3, 0x1.734p-2, 0x1.0e1ep-1}},
        {TYPE_Q8_0, 0xdce855eb20b5d1a5, {0x1.122fp+2, 0x1.ec34p+1, 0x1.2034p-2}},
        {TYPE_Q2_K, 0xa46f7dae44ff4825, {0x0p+0, 0x1.b84p-5, -0x1.35a8p-2}},
        {TYPE_Q3_K, 0x81cdc17d0b12d925, {0x1.b11ap-5, -0x1.928p-3, -0x1.a6e8p+0}},
        {TYPE_Q4_K, 0x538142522670bee5, {-0x1.a33dp+1, 0x1.329cp+1, -0x1.704d8p+3}},
        {TYPE_Q5_K, 0xdbfbe04cc06e5269, {0x1.ebdp+0, -0x1.6732bp+5, -0x1.e3768p+3}},
        {TYPE_Q6_K, 0xeac29e4202534693, {-0x1.49e8p+2, -0x1.d93dp+4, -0x1.d6168p+2}},
        {TYPE_Q8_K, 0xeadc4666670f56b0, {-0x1.66b32p-3, 0x1.624fe8p-1, 0x1.cc5ac8p+1}},
        {TYPE_IQ1_S, 0x0754c587666410e5, {0x1.c02ap-5, -0x1.9ap-6, 0x1.2321p-5}},
        {TYPE_IQ1_M, 0xd0c2c41fc81644e5, {-0x1.ae1ep-4, -0x1.30218p-4, -0x1.975f8p-2}},
        {TYPE_IQ2_XXS, 0x5b03ecbb53160175, {-0x1.a7fp-1, 0x1.7b74p-3, 0x1.4552fp+2}},
        {TYPE_IQ2_XS, 0x24d3957a936afb05, {0x1.44cf9p+0, 0x1.aeecp-3, -0x1.4c21p-2}},
        {TYPE_IQ2_S, 0x7d9673a96b983951, {0x1.83b8p-3, 0x1.6cfd8p-1, -0x1.0b90ep-2}},
        {TYPE_IQ3_XXS, 0xf731167e5734ca15, {0x1.01a08p+2, -0x1.497p-3, -0x1.dea7p-3}},
        {TYPE_IQ3_S, 0x49581691dcf5b715, {-0x1.1cap-1, -0x1.b459p+0, 0x1.ee628p+2}},
        {TYPE_IQ4_NL, 0x3e5e0b9f3f7e1e65, {-0x1.f504p-2, 0x1.8c9ap+0, -0x1.103fp+1}},
        {TYPE_IQ4_XS, 0xec4321c3e41aab77, {-0x1.a257ap+3, 0x1.36dbe8p+6, -0x1.7753p+5}},
        {TYPE_TQ1_0, 0x9b01fb0460616325, {-0x1.6d4p-5, -0x1.7b8p-5, -0x1.534p-6}},
        {TYPE_TQ2_0, 0xa1205aab2e508325, {0x1.95cp-5, -0x1.698p-5, -0x1.abcp-7}},
        {TYPE_Q1_0, 0x3e125290c8da4325, {0x1.8a8p-6, 0x1.198p-5, 0x1.4ccp-5}},
        {TYPE_Q2_0, 0x18c709b230074325, {0x0p+0, -0x1.264p-4, -0x1.864p-10}},
        {TYPE_MXFP4, 0x432d407c5beec325, {0x1.8p-3, -0x1.8p+0, -0x1p-2}},
        {TYPE_NVFP4, 0x5b855ac5c60ec325, {0x1.8p+2, 0x1.2p+2, -0x1.2p-4}},
    };
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        uint8_t blocks[N * 4];
        float y[N];
        uint64_t seed = 1000 + vectors[i].type;
        blocks_fill(vectors[i].type, blocks, N, &seed);
        quant_decoder(vectors[i].type)(blocks, y, N);
        const float *v = vectors[i].y;
        if (y[1] != v[0] || y[300] != v[1] || y[2047] != v[2] || hash(y, N) != vectors[i].hash) {
            TEST_FAIL("%s: %a %a %a, expected %a %a %a", type_info(vectors[i].type)->name,
                      (double)y[1], (double)y[300], (double)y[2047], (double)v[0], (double)v[1],
                      (double)v[2]);
        }
    }
}

static void test_by_hand(void)
{
    float y[256];
    /* d = 2; byte 0 is 0x1f: element 0 is 15 - 8, element 16 is 1 - 8. */
    uint8_t q4_0[18] = {0x00, 0x40, 0x1f};
    quant_decoder(TYPE_Q4_0)(q4_0, y, 32);
    CHECK(y[0] == 14 && y[16] == -14 && y[1] == -16);

    /* d = 1, m = -1; fifth bits of elements 0 and 31. */
    uint8_t q5_1[24] = {0x00, 0x3c, 0x00, 0xbc, 0x01, 0, 0, 0x80, 0x03};
    quant_decoder(TYPE_Q5_1)(q5_1, y, 32);
    CHECK(y[0] == 18 && y[31] == 15 && y[1] == -1);

    /* d = 1, dmin = 1. Group 0: scale 1, min 2. Group 7: scale 0x3f and min 0x21, in pieces. */
    uint8_t q4_k[144] = {0x00, 0x3c, 0x00, 0x3c, 1, 0, 0, 0xc0, 2, 0, 0, 0x80, 0, 0, 0, 0x1f};
    q4_k[16] = 5;          /* element 0 */
    q4_k[16 + 127] = 0xa0; /* element 255 */
    quant_decoder(TYPE_Q4_K)(q4_k, y, 256);
    CHECK(y[0] == 1 * 5 - 2 && y[1] == -2 && y[255] == 63 * 10 - 33 && y[224] == -33);

    /* d = 1; group 15 has scale -2; element 255 is (0xf | 3 << 4) - 32. */
    uint8_t q6_k[210] = {0};
    q6_k[127] = 0xf0;
    q6_k[128 + 63] = 0xc0;
    q6_k[192 + 15] = 0xfe;
    q6_k[209] = 0x3c;
    quant_decoder(TYPE_Q6_K)(q6_k, y, 256);
    CHECK(y[255] == -62 && y[254] == 64 && y[0] == 0);

    /* Scale 2^(127 - 127); code 7 is 6, code 9 is -1/2. */
    uint8_t mxfp4[17] = {127, 0x97};
    quant_decoder(TYPE_MXFP4)(mxfp4, y, 32);
    CHECK(y[0] == 6 && y[16] == -0.5f && y[1] == 0);
    mxfp4[0] = 0;
    quant_decoder(TYPE_MXFP4)(mxfp4, y, 32);
    CHECK(y[0] == 6 * 0x1p-127f);
    mxfp4[0] = 255;
    quant_decoder(TYPE_MXFP4)(mxfp4, y, 32);
    CHECK(isnan(y[0]) && isnan(y[1]));

    /* E4M3 0x38 is 1, 0x7e is 448, 0x01 is 2^-9, 0x7f counts as 0. */
    uint8_t nvfp4[36] = {0x38, 0x7e, 0x01, 0x7f, 0x62};
    nvfp4[4 + 8] = nvfp4[4 + 16] = nvfp4[4 + 24] = 0x07;
    quant_decoder(TYPE_NVFP4)(nvfp4, y, 64);
    CHECK(y[0] == 1 && y[8] == 4 && y[16] == 448 * 6 && y[32] == 6 * 0x1p-9f && y[48] == 0);

    /* Ternary: 5 trits of 243 * 256 / 243 ...: byte 0 is all -1, byte 255 all +1. */
    uint8_t tq1_0[54] = {0, 255};
    tq1_0[53] = 0x3c;
    quant_decoder(TYPE_TQ1_0)(tq1_0, y, 256);
    CHECK(y[0] == -1 && y[128] == -1 && y[1] == 1 && y[129] == 1 && y[255] == -1);

    uint8_t q1_0[18] = {0x00, 0x3c, 0x02};
    quant_decoder(TYPE_Q1_0)(q1_0, y, 128);
    CHECK(y[0] == -1 && y[1] == 1 && y[127] == -1);

    /* First entry of the codebook: eight 8s; one odd sign bit brings the eighth with it. */
    uint8_t iq2_xxs[66] = {0x00, 0x3c, 0, 0, 0, 0, 0x01, 0, 0, 0x70};
    quant_decoder(TYPE_IQ2_XXS)(iq2_xxs, y, 256);
    CHECK(y[0] == -7.5f * 2 && y[1] == 15 && y[7] == -15 && y[8] == 15 && y[32] == 1);
}

static void test_no_weights(void)
{
    static const enum type types[] = {TYPE_I8, TYPE_I16, TYPE_I32, TYPE_I64, TYPE_F64, TYPE_Q8_1};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        CHECK(!quant_decoder(types[i]) && !quant_encoder(types[i]));
    }
    CHECK(!quant_decoder((enum type)4) && !quant_decoder((enum type)99));
    for (int i = 0; i < BLOCKS_N_TYPES; i++) {
        CHECK(quant_decoder(blocks_types[i]));
    }
}

int main(void)
{
    test_vectors();
    test_by_hand();
    test_no_weights();
    return 0;
}
