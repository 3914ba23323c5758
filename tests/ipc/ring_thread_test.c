/* Producer and consumer as two threads of one process: what ThreadSanitizer can see. */
#include "ipc/ring.h"
#include "shared/err.h"
#include "shared/limits.h"
#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

enum { CAPACITY = 8192, N = 200000 };

static void *map;
static int bell;

static void *produce(void *arg)
{
    struct ring r;
    (void)arg;
    CHECK_INT(ring_attach(&r, map, ring_memfd_bytes(CAPACITY), 1, bell), 0);
    for (uint64_t i = 0; i < N; i++) {
        int err;
        while ((err = ring_put(&r, 1, &i, sizeof(i), &i, i % 8)) == -EAGAIN) {
            sched_yield();
        }
        CHECK_INT(err, 0);
    }
    return NULL;
}

int main(void)
{
    static uint8_t buf[LIMIT_RECORD_BYTES];
    map = aligned_alloc(4096, ring_memfd_bytes(CAPACITY));
    memset(map, 0, ring_memfd_bytes(CAPACITY));
    bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ring_format(map, CAPACITY, 1);
    struct ring r;
    CHECK_INT(ring_attach(&r, map, ring_memfd_bytes(CAPACITY), 1, bell), 0);
    pthread_t t;
    CHECK_INT(pthread_create(&t, NULL, produce, NULL), 0);
    for (uint64_t i = 0; i < N;) {
        struct ring_record rec;
        int n = ring_take(&r, buf, &rec);
        CHECK(n >= 0);
        if (n == 1) {
            CHECK_INT(rec.len, 8 + i % 8);
            CHECK(memcmp(buf, &i, 8) == 0);
            i++;
        } else if (ring_sleep(&r)) {
            struct pollfd p = {.fd = bell, .events = POLLIN};
            poll(&p, 1, -1);
            ring_wake(&r);
        }
    }
    CHECK_INT(pthread_join(t, NULL), 0);
    free(map);
    close(bell);
    return 0;
}
