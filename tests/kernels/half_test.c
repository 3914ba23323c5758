/* Half and bfloat16: all 65,536 patterns by arithmetic of the formats' definitions; rounding of
 * floats around every boundary. */
#include "kernels/half.h"
#include "tests/test.h"

static double value(uint16_t h, int mantissa_bits, int bias)
{
    int exponent = (h & 0x7fff) >> mantissa_bits;
    int mantissa = h & ((1 << mantissa_bits) - 1);
    int top = 0x7fff >> mantissa_bits;
    double v = exponent == top ? (mantissa ? NAN : INFINITY)
               : exponent == 0
                   ? ldexp(mantissa, 1 - bias - mantissa_bits)
                   : ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    return h & 0x8000 ? -v : v;
}

static void check_round(double v, uint16_t below, uint16_t above, uint16_t (*from)(float))
{
    double lo = from == half_from_f32 ? value(below, 10, 15) : value(below, 7, 127);
    double hi = from == half_from_f32 ? value(above, 10, 15) : value(above, 7, 127);
    uint16_t expected = v - lo < hi - v || (v - lo == hi - v && !(below & 1)) ? below : above;
    CHECK_INT(from((float)v), expected);
    CHECK_INT(from(-(float)v), expected | 0x8000);
}

int main(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        double f16 = value((uint16_t)h, 10, 15), bf16 = value((uint16_t)h, 7, 127);
        float got16 = half_to_f32((uint16_t)h), gotb = half_bf16_to_f32((uint16_t)h);
        CHECK(isnan(f16) ? isnan(got16) : got16 == f16 && !signbit(got16) == !signbit(f16));
        CHECK(isnan(bf16) ? isnan(gotb) : gotb == bf16 && !signbit(gotb) == !signbit(bf16));
        CHECK(isnan(f16) ? isnan(half_to_f32(half_from_f32(got16))) : half_from_f32(got16) == h);
        CHECK(isnan(bf16) ? isnan(half_bf16_to_f32(half_bf16_from_f32(gotb)))
                          : half_bf16_from_f32(gotb) == h);
    }
    for (uint16_t h = 0; h < 0x7bff; h++) { /* quarter, middle, three quarters of every gap */
        double lo = value(h, 10, 15), hi = value((uint16_t)(h + 1), 10, 15);
        for (int q = 1; q < 4; q++) {
            check_round(lo + (hi - lo) * q / 4, h, (uint16_t)(h + 1), half_from_f32);
        }
    }
    for (uint16_t h = 0; h < 0x7f7f; h++) {
        double lo = value(h, 7, 127), hi = value((uint16_t)(h + 1), 7, 127);
        for (int q = 1; q < 4; q++) {
            check_round(lo + (hi - lo) * q / 4, h, (uint16_t)(h + 1), half_bf16_from_f32);
        }
    }
    CHECK_INT(half_from_f32(65519.99f), 0x7bff);
    CHECK_INT(half_from_f32(65520.0f), 0x7c00);
    CHECK_INT(half_from_f32(3e38f), 0x7c00);
    CHECK_INT(half_from_f32(0x1p-25f), 0);
    CHECK_INT(half_from_f32(0x1.000002p-25f), 1);
    CHECK_INT(half_bf16_from_f32(3.4e38f), 0x7f80);
    return 0;
}
