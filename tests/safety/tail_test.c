/* The worker's stderr: what is kept, what is passed on, that nobody waits. */
#include "safety/tail.h"
#include "tests/test.h"

#include <fcntl.h>

static int in[2], out[2];

static void open_pipes(void)
{
    CHECK(pipe2(in, O_NONBLOCK) == 0 && pipe2(out, O_NONBLOCK) == 0);
}

static void close_pipes(void)
{
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
}

static void say(const char *text)
{
    CHECK(write(in[1], text, strlen(text)) == (ssize_t)strlen(text));
}

static void test_lines_pass(void)
{
    static struct tail t;
    char got[256] = {0}, kept[TAIL_BYTES];
    open_pipes();
    tail_start(&t);
    say("Memory access fault\n");
    tail_read(&t, in[0], out[1], false, 0);
    say("by GPU node-1");
    tail_read(&t, in[0], out[1], true, 1);
    CHECK(read(out[0], got, sizeof(got) - 1) > 0);
    CHECK_STR(got, "Memory access fault\nby GPU node-1");
    CHECK_INT(tail_copy(&t, kept), strlen(got));
    CHECK(memcmp(kept, got, strlen(got)) == 0);
    close_pipes();
}

/* The end is kept, whatever came before. */
static void test_ring(void)
{
    static struct tail t;
    static char kept[TAIL_BYTES], line[32];
    open_pipes();
    tail_start(&t);
    for (int i = 0; i < 5000; i++) {
        snprintf(line, sizeof(line), "line %06d\n", i);
        say(line);
        tail_read(&t, in[0], out[1], false, 0);
        char drop[64];
        CHECK(read(out[0], drop, sizeof(drop)) == 12);
    }
    CHECK_INT(tail_copy(&t, kept), TAIL_BYTES);
    CHECK(memcmp(kept + TAIL_BYTES - 12, "line 004999\n", 12) == 0);
    CHECK(memcmp(kept + TAIL_BYTES - 24, "line 004998\n", 12) == 0);
    close_pipes();
}

/* A reader that does not read, and a worker that writes too much. */
static void test_nobody_waits(void)
{
    static struct tail t;
    static char flood[4096];
    open_pipes();
    tail_start(&t);
    memset(flood, 'x', sizeof(flood));
    for (int i = 0; i < 1000; i++) { /* our stderr holds 64 KiB */
        CHECK(write(in[1], flood, sizeof(flood)) == sizeof(flood));
        tail_read(&t, in[0], out[1], false, 0);
    }
    CHECK_INT(t.n, 1000 * sizeof(flood));
    CHECK(t.n_dropped >= 900 * sizeof(flood) && t.n_second <= 64 * 1024);
    tail_start(&t);
    size_t passed = 0;
    for (int i = 0; i < 1000; i++) { /* it reads, but there is a measure */
        CHECK(write(in[1], flood, sizeof(flood)) == sizeof(flood));
        tail_read(&t, in[0], out[1], false, 5000);
        static char drop[1 << 17];
        ssize_t n = read(out[0], drop, sizeof(drop));
        passed += n > 0 ? (size_t)n : 0;
    }
    CHECK(passed <= TAIL_BYTES_PER_S + 64 * 1024 && passed > TAIL_BYTES_PER_S / 2);
    close_pipes();
}

int main(void)
{
    test_lines_pass();
    test_ring();
    test_nobody_waits();
    return 0;
}
