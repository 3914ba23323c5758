/* The degrade ladder in virtual time, the settings of its rungs, and what is remembered of it. */
#include "safety/ladder.h"
#include "safety/remember.h"
#include "tests/test.h"

#include <fcntl.h>

enum { MINUTE = 60 * 1000 };

static void test_down(void)
{
    struct ladder l;
    ladder_init(&l, 0, 0, 0);
    for (uint32_t rung = 1; rung <= LADDER_cpu; rung++) {
        CHECK(!ladder_died(&l, true, LADDER_cpu, rung * MINUTE));
        CHECK(!ladder_died(&l, true, LADDER_cpu, rung * MINUTE + 1));
        CHECK(ladder_died(&l, true, LADDER_cpu, rung * MINUTE + 2));
        CHECK_INT(l.rung, rung);
    }
    for (int i = 0; i < 10; i++) { /* there is nothing below */
        CHECK(!ladder_died(&l, true, LADDER_cpu, 10 * MINUTE));
    }
    ladder_init(&l, 0, 0, 0);
    for (uint64_t i = 0; i < 100; i++) { /* rare deaths are borne */
        CHECK(!ladder_died(&l, true, LADDER_cpu, i * 6 * MINUTE));
    }
    ladder_init(&l, 0, 0, 0);
    CHECK(!ladder_died(&l, false, LADDER_cpu, 1) && ladder_died(&l, false, LADDER_cpu, 2));
    ladder_init(&l, LADDER_cpu - 1, 0, 0);
    for (int i = 0; i < 10; i++) { /* the CPU is not allowed */
        CHECK(!ladder_died(&l, true, LADDER_cpu - 1, 10));
    }
    ladder_init(&l, 0, 0, 0);
    CHECK(ladder_lose(&l, LADDER_cpu, 5) && l.rung == LADDER_cpu);
    CHECK(!ladder_lose(&l, LADDER_cpu, 6));
}

static void test_pardon(void)
{
    struct ladder l;
    ladder_init(&l, 0, 0, 0);
    for (int i = 0; i < 20; i++) { /* every second death convicts a request */
        CHECK(!ladder_died(&l, true, LADDER_cpu, 100));
        CHECK(!ladder_died(&l, true, LADDER_cpu, 101));
        ladder_pardon(&l);
    }
    CHECK_INT(l.rung, 0);
}

/* Up after quiet; a fall on trial makes the next quiet longer, up to a limit. */
static void test_up(void)
{
    struct ladder l;
    uint64_t now = 1000;
    ladder_init(&l, LADDER_cpu, 0, now);
    for (int i = 0; i < 8; i++) {
        uint64_t quiet = (uint64_t)LADDER_QUIET_MS << MIN(i, LADDER_MAX_DOUBLINGS);
        CHECK(!ladder_tick(&l, now + quiet - 1));
        now += quiet;
        CHECK(ladder_tick(&l, now));
        CHECK_INT(l.rung, LADDER_cpu - 1);
        CHECK(ladder_died(&l, true, LADDER_cpu, now + 5)); /* one is enough */
        CHECK_INT(l.rung, LADDER_cpu);
        now += 5;
    }
    while (l.rung > 0) { /* and at last it holds */
        now += ladder_quiet_ms(&l);
        CHECK(ladder_tick(&l, now));
    }
    now += ladder_quiet_ms(&l);
    CHECK(ladder_tick(&l, now));
    CHECK(!l.is_on_trial && l.n_doublings == 0);
    CHECK(!ladder_tick(&l, now + LADDER_QUIET_MS)); /* nothing is left to change */
    ladder_init(&l, 99, 0, 0);
    CHECK_INT(l.rung, 0);
    ladder_init(&l, 1, 99, 0);
    CHECK(l.rung == 0 && l.n_doublings == 0);
}

static void test_settings(void)
{
    struct config c;
    struct err e;
    config_init(&c);
    CHECK_INT(ladder_apply(LADDER_FULL, &c, &e), 0);
    CHECK_STR(c.v[CONFIG_safe_mode].str, "off");
    CHECK_INT(ladder_apply(LADDER_chunk, &c, &e), 0);
    CHECK_STR(c.v[CONFIG_safe_mode].str, "on");
    CHECK_INT(c.v[CONFIG_chunk_size].i, 64);
    CHECK_STR(c.v[CONFIG_device].str, "auto");
    CHECK_STR(c.v[CONFIG_gpu_fusion].str, "on");
    CHECK_INT(ladder_apply(LADDER_unfused, &c, &e), 0);
    CHECK_STR(c.v[CONFIG_gpu_fusion].str, "off");
    CHECK_INT(c.v[CONFIG_chunk_size].i, 64);
    CHECK_STR(c.v[CONFIG_device].str, "auto");
    CHECK_STR(c.v[CONFIG_gpu_layers].str, "auto");
    CHECK_INT(ladder_apply(LADDER_fewer, &c, &e), 0);
    CHECK_STR(c.v[CONFIG_gpu_layers].str, "auto/2");
    CHECK_STR(c.v[CONFIG_device].str, "auto");
    config_finish(&c);
    config_init(&c);
    CHECK_INT(config_set(&c, "gpu_layers", "20", CONFIG_FROM_FLAG, &e), 0);
    CHECK_INT(config_set(&c, "chunk_size", "32", CONFIG_FROM_FLAG, &e), 0);
    CHECK_INT(ladder_apply(LADDER_cpu, &c, &e), 0);
    CHECK_INT(c.v[CONFIG_chunk_size].i, 32); /* never raised */
    CHECK_STR(c.v[CONFIG_device].str, "cpu");
    CHECK_STR(c.v[CONFIG_gpu_layers].str, "20/2");
    config_finish(&c);
}

static void test_memory(void)
{
    char dir[] = "/tmp/rocmforge-ladder-XXXXXX", key[REMEMBER_KEY_BYTES], other[REMEMBER_KEY_BYTES];
    char line[REMEMBER_LINE_BYTES], path[64];
    struct config c;
    struct err e;
    struct ladder l, got;
    CHECK(mkdtemp(dir));
    config_init(&c);
    CHECK_INT(config_set(&c, "model", "a.gguf", CONFIG_FROM_FLAG, &e), 0);
    remember_key(&c, key);
    CHECK_INT(config_set(&c, "model", "b.gguf", CONFIG_FROM_FLAG, &e), 0);
    remember_key(&c, other);
    CHECK(strlen(key) == 32 && strcmp(key, other) != 0);
    config_finish(&c);
    remember_read(dir, key, &got, 7);
    CHECK_INT(got.rung, 0);
    ladder_init(&l, 2, 1, 0);
    for (int i = 0; i < 40; i++) {
        char many[REMEMBER_KEY_BYTES];
        snprintf(many, sizeof(many), "%032d", i);
        remember_line(many, &l, i, line);
        CHECK_INT(remember_write(dir, line), 0);
        remember_line(key, &l, i, line);
        CHECK_INT(remember_write(dir, line), 0);
    }
    remember_read(dir, key, &got, 7);
    CHECK(got.rung == 2 && got.n_doublings == 1 && got.quiet_since_ms == 7);
    remember_read(dir, other, &got, 7);
    CHECK_INT(got.rung, 0);
    snprintf(path, sizeof(path), "%s/ladder", dir);
    FILE *f = fopen(path, "r");
    int n = 0;
    while (fgets(line, sizeof(line), f)) {
        n++;
    }
    fclose(f);
    CHECK_INT(n, REMEMBER_LINES);
    f = fopen(path, "w"); /* scribbled */
    fprintf(f, "%s 4000000000 -1 x\n\n\xff\xff", key);
    fclose(f);
    remember_read(dir, key, &got, 7);
    CHECK_INT(got.rung, 0);
    f = fopen(path, "w"); /* an older file: a number, of a table without `fewer` */
    fprintf(f, "%s 4 1 1700000000\n", key);
    fclose(f);
    remember_read(dir, key, &got, 7);
    CHECK_INT(got.rung, LADDER_FULL);
    for (uint32_t rung = 0; rung < LADDER_RUNGS; rung++) {
        ladder_init(&l, rung, 2, 0);
        remember_line(key, &l, 1700000000, line);
        CHECK(strstr(line, ladder_name(rung)));
        CHECK_INT(remember_write(dir, line), 0);
        remember_read(dir, key, &got, 7);
        CHECK(got.rung == rung && got.n_doublings == 2);
    }
    remember_read("", key, &got, 7);
    CHECK_INT(got.rung, 0);
    remember_line(key, &l, 1, line);
    CHECK(remember_write("/proc/nothing", line) < 0);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
}

int main(void)
{
    test_down();
    test_pardon();
    test_up();
    test_settings();
    test_memory();
    return 0;
}
