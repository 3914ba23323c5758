#include "tests/test.h"
#include "shared/arena.h"

static void aligned_zeroed_and_apart(void)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 31, 33, 257, 4096, 100000, 3000000};
    struct arena a;
    arena_init(&a, 0);
    for (int round = 0; round < 3; round++) { /* a finished arena can be used again */
        uint8_t *p[200];
        size_t n[200];
        for (size_t i = 0; i < 200; i++) {
            n[i] = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
            p[i] = arena_alloc(&a, n[i]);
            CHECK(p[i] && (uintptr_t)p[i] % 16 == 0);
            for (size_t j = 0; j < n[i]; j++) {
                CHECK_INT(p[i][j], 0);
            }
            memset(p[i], (int)i + 1, n[i]); /* what a later one would find if they overlapped */
        }
        for (size_t i = 0; i < 200; i++) {
            for (size_t j = 0; j < n[i]; j++) {
                CHECK_INT(p[i][j], (uint8_t)(i + 1));
            }
        }
        arena_finish(&a);
        CHECK_INT(a.used_bytes, 0);
    }
}

static void copies(void)
{
    struct arena a;
    arena_init(&a, 0);
    CHECK_STR(arena_str(&a, "hello world", 5), "hello");
    CHECK_STR(arena_str(&a, NULL, 0), "");
    arena_finish(&a);
    CHECK(!a.chunk && a.used_bytes == 0);
}

static void limit_holds(void)
{
    struct arena a;
    arena_init(&a, 100);
    CHECK(arena_alloc(&a, 48));
    CHECK(!arena_alloc(&a, 64)); /* 112 in all */
    CHECK(arena_alloc(&a, 40));  /* a refusal leaves the rest usable; 48 + 48 */
    CHECK(!arena_alloc(&a, 16));
    CHECK_INT(a.used_bytes, 96);
    arena_finish(&a);
}

static void impossible_sizes_are_refused(void)
{
    struct arena a;
    arena_init(&a, 0);
    volatile size_t huge = SIZE_MAX;
    CHECK(!arena_alloc(&a, huge));
    CHECK(!arena_alloc(&a, huge - 15));
    CHECK(!arena_alloc(&a, huge - 64));
    CHECK(!arena_str(&a, "", huge));
    CHECK(arena_alloc(&a, 1));
    arena_finish(&a);
}

int main(void)
{
    aligned_zeroed_and_apart();
    copies();
    limit_holds();
    impossible_sizes_are_refused();
    return 0;
}
