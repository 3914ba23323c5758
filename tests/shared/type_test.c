/* The tensor types against the bits per weight that their formats are published with. */
#include "tests/test.h"
#include "shared/type.h"

static const struct {
    const char *name;
    int id;
    double bits;
} published[] = {
    {"F32", 0, 32},          {"F16", 1, 16},        {"Q4_0", 2, 4.5},        {"Q4_1", 3, 5},
    {"Q5_0", 6, 5.5},        {"Q5_1", 7, 6},        {"Q8_0", 8, 8.5},        {"Q8_1", 9, 9},
    {"Q2_K", 10, 2.625},     {"Q3_K", 11, 3.4375},  {"Q4_K", 12, 4.5},       {"Q5_K", 13, 5.5},
    {"Q6_K", 14, 6.5625},    {"Q8_K", 15, 9.125},   {"IQ2_XXS", 16, 2.0625}, {"IQ2_XS", 17, 2.3125},
    {"IQ3_XXS", 18, 3.0625}, {"IQ1_S", 19, 1.5625}, {"IQ4_NL", 20, 4.5},     {"IQ3_S", 21, 3.4375},
    {"IQ2_S", 22, 2.5625},   {"IQ4_XS", 23, 4.25},  {"I8", 24, 8},           {"I16", 25, 16},
    {"I32", 26, 32},         {"I64", 27, 64},       {"F64", 28, 64},         {"IQ1_M", 29, 1.75},
    {"BF16", 30, 16},        {"TQ1_0", 34, 1.6875}, {"TQ2_0", 35, 2.0625},   {"MXFP4", 39, 4.25},
    {"NVFP4", 40, 4.5},      {"Q1_0", 41, 1.125},   {"Q2_0", 42, 2.25},
};

int main(void)
{
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(published); i++) {
        const struct type_info *t = type_info((uint32_t)published[i].id);
        CHECK(t->name);
        CHECK_STR(t->name, published[i].name);
        CHECK(t->block_bytes * 8.0 / t->block_elems == published[i].bits);
        CHECK_INT(type_by_name(published[i].name), published[i].id);
        CHECK_INT(type_row_bytes((enum type)published[i].id, (size_t)t->block_elems * 33),
                  t->block_bytes * 33);
    }
    for (uint32_t id = 0; id < 1000; id++) {
        n += type_info(id)->name != NULL;
        CHECK(type_info(id)->block_elems > 0); /* never a division by zero */
    }
    CHECK_INT(n, COUNT_OF(published));
    CHECK(!type_info(UINT32_MAX)->name);
    CHECK_INT(type_by_name("q4_k"), TYPE_Q4_K);
    CHECK_INT(type_by_name("bf16"), TYPE_BF16);
    CHECK_INT(type_by_name(""), -1);
    CHECK_INT(type_by_name("Q4"), -1);
    CHECK_INT(type_by_name("Q4_0 "), -1);
    return 0;
}
