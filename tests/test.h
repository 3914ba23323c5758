/* The test vocabulary: every test is one executable whose main calls CHECKs; the first failure ends
 * it with the place and the values. Oracles are independent of the code under test. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEST_FAIL(...)                                                                             \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        exit(1);                                                                                   \
    } while (0)
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            TEST_FAIL("check failed: %s", #cond);                                                  \
        }                                                                                          \
    } while (0)
#define CHECK_INT(a, b)                                                                            \
    do {                                                                                           \
        long long a_ = (long long)(a), b_ = (long long)(b);                                        \
        if (a_ != b_) {                                                                            \
            TEST_FAIL("%s is %lld, expected %s = %lld", #a, a_, #b, b_);                           \
        }                                                                                          \
    } while (0)
#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *a_ = (a), *b_ = (b);                                                           \
        if (strcmp(a_, b_) != 0) {                                                                 \
            TEST_FAIL("%s is \"%s\", expected \"%s\"", #a, a_, b_);                                \
        }                                                                                          \
    } while (0)
/* Ends the test as skipped; CTest counts it. */
#define TEST_SKIP(...)                                                                             \
    do {                                                                                           \
        printf("skipped: ");                                                                       \
        printf(__VA_ARGS__);                                                                       \
        putchar('\n');                                                                             \
        exit(77);                                                                                  \
    } while (0)

/* The folder of reference data that stands beside a developer's checkout, or a skip without it.
 * Tests run with the repository as working directory. */
static inline const char *test_data_dir(void)
{
    const char *dir = getenv("ROCMFORGE_TEST_DATA");
    if (!dir) {
        dir = "../shared/data";
    }
    if (access(dir, R_OK) != 0) {
        TEST_SKIP("no reference data (%s is not there; set ROCMFORGE_TEST_DATA)", dir);
    }
    return dir;
}

/* A deterministic generator for test inputs (splitmix64). */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline double test_uniform(uint64_t *state) /* [-1, 1) */
{
    return (double)(test_random(state) >> 11) * 0x1p-52 - 1.0;
}

#endif
