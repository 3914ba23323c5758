/* Philox4x32-10 against the known answers of Random123 (kat_vectors), and the uniform numbers drawn
 * from it. */
#include "tests/test.h"
#include "shared/philox.h"

static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof(kat) / sizeof(kat[0]); i++) {
        uint32_t r[4];
        philox4x32(kat[i].counter, kat[i].key, r);
        for (size_t j = 0; j < 4; j++) {
            CHECK_INT(r[j], kat[i].expected[j]);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The bits of the first answer: 0x6627e8d5e169c58d >> 11, over 2^53. */
static void uniform_is_the_top_bits(void)
{
    CHECK(philox_uniform(0, 0, 0, 0) == (double)(0x6627e8d5e169c58du >> 11) / 9007199254740992.0);
}

/* Kolmogorov-Smirnov at 1e-3 over 4,096 values, for each of the four things that count. */
static void uniform_is_uniform(void)
{
    enum { N = 4096 };
    static double u[N];
    for (int what = 0; what < 4; what++) {
        for (uint32_t i = 0; i < N; i++) {
            u[i] = philox_uniform(what == 0 ? i : 42, what == 1 ? i : 0, what == 2 ? i : 3000,
                                  what == 3 ? i : 0);
            CHECK(u[i] >= 0 && u[i] < 1);
        }
        qsort(u, N, sizeof(u[0]), by_value);
        double worst = 0;
        for (int i = 0; i < N; i++) {
            CHECK(i == 0 || u[i] != u[i - 1]);
            worst = fmax(worst, fabs(u[i] - (i + 0.5) / N));
        }
        CHECK(worst < 1.95 / sqrt(N));
    }
}

static void high_seed_bits_count(void)
{
    CHECK(philox_uniform(1, 0, 0, 0) != philox_uniform(1 | UINT64_C(1) << 63, 0, 0, 0));
}

int main(void)
{
    known_answers();
    uniform_is_the_top_bits();
    uniform_is_uniform();
    high_seed_bits_count();
    return 0;
}
