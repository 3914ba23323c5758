/* The ring in one process: order, wrap, limits, sleeping, and every way in which the shared memory
 * may lie. */
#include "ipc/ring.h"
#include "shared/err.h"
#include "shared/limits.h"
#include "tests/test.h"

#include <errno.h>
#include <sys/eventfd.h>

enum { CAPACITY = 65536 };

struct pair {
    void *map;
    struct ring producer, consumer;
    int bell;
};

static struct pair make(uint64_t epoch)
{
    struct pair p = {.map = aligned_alloc(4096, ring_memfd_bytes(CAPACITY))};
    CHECK(p.map);
    memset(p.map, 0, ring_memfd_bytes(CAPACITY));
    p.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ring_format(p.map, CAPACITY, epoch);
    CHECK_INT(ring_attach(&p.producer, p.map, ring_memfd_bytes(CAPACITY), epoch, p.bell), 0);
    CHECK_INT(ring_attach(&p.consumer, p.map, ring_memfd_bytes(CAPACITY), epoch, p.bell), 0);
    return p;
}

static void destroy(struct pair *p)
{
    close(p->bell);
    free(p->map);
}

static void records_come_out_as_they_went_in(void)
{
    struct pair p = make(7);
    static uint8_t data[LIMIT_RECORD_BYTES], got[LIMIT_RECORD_BYTES];
    uint64_t rng = 1;
    const size_t sizes[] = {0, 1, 15, 16, 17, 31, 33, 257, 4096, LIMIT_RECORD_BYTES};
    for (int round = 0; round < 20000; round++) {
        size_t len = sizes[test_random(&rng) % (sizeof(sizes) / sizeof(sizes[0]))];
        for (size_t i = 0; i < len; i++) {
            data[i] = (uint8_t)(round * 31 + (int)i);
        }
        size_t cut = len ? test_random(&rng) % (len + 1) : 0;
        CHECK_INT(ring_put(&p.producer, (uint32_t)round, data, cut, data + cut, len - cut), 0);
        struct ring_record r;
        CHECK_INT(ring_take(&p.consumer, got, &r), 1);
        CHECK_INT(r.len, len);
        CHECK_INT(r.type, round);
        CHECK(memcmp(data, got, len) == 0);
        CHECK_INT(ring_take(&p.consumer, got, &r), 0);
    }
    destroy(&p);
}

static void a_full_ring_says_so_and_goes_on(void)
{
    struct pair p = make(1);
    static uint8_t data[LIMIT_RECORD_BYTES + 1], got[LIMIT_RECORD_BYTES];
    struct ring_record r;
    CHECK_INT(ring_put(&p.producer, 1, data, LIMIT_RECORD_BYTES + 1, NULL, 0), -EMSGSIZE);
    CHECK_INT(ring_put(&p.producer, 1, data, 1, data, LIMIT_RECORD_BYTES), -EMSGSIZE);
    for (int round = 0; round < 10; round++) {
        int n = 0;
        while (ring_put(&p.producer, 1, data, 1000, NULL, 0) == 0) {
            n++;
        }
        CHECK_INT(ring_put(&p.producer, 1, data, 1000, NULL, 0), -EAGAIN);
        CHECK(n >= CAPACITY / 1100);
        for (int i = 0; i < n; i++) {
            CHECK_INT(ring_take(&p.consumer, got, &r), 1);
        }
        CHECK_INT(ring_take(&p.consumer, got, &r), 0);
        CHECK_INT(ring_room(&p.producer), CAPACITY);
    }
    destroy(&p);
}

static void the_bell_rings_only_for_a_sleeper(void)
{
    struct pair p = make(1);
    uint64_t count;
    uint8_t got[LIMIT_RECORD_BYTES];
    struct ring_record r;
    CHECK_INT(ring_put(&p.producer, 1, "x", 1, NULL, 0), 0);
    CHECK(read(p.bell, &count, 8) < 0);          /* awake: no bell */
    CHECK(!ring_sleep(&p.consumer));             /* not empty: no sleep */
    CHECK_INT(ring_take(&p.consumer, got, &r), 1);
    CHECK(ring_sleep(&p.consumer));
    CHECK_INT(ring_put(&p.producer, 1, "x", 1, NULL, 0), 0);
    CHECK_INT(read(p.bell, &count, 8), 8);
    CHECK_INT(ring_put(&p.producer, 1, "x", 1, NULL, 0), 0);
    ring_wake(&p.consumer);
    CHECK(read(p.bell, &count, 8) < 0); /* emptied by ring_wake */
    CHECK_INT(ring_put(&p.producer, 1, "x", 1, NULL, 0), 0);
    CHECK(read(p.bell, &count, 8) < 0);
    destroy(&p);
}

static void a_foreign_header_is_refused(void)
{
    struct pair p = make(3);
    struct ring r;
    CHECK_INT(ring_attach(&r, p.map, ring_memfd_bytes(CAPACITY), 4, -1), ERR_PROTOCOL);
    CHECK_INT(ring_attach(&r, p.map, ring_memfd_bytes(CAPACITY) - 1, 3, -1), ERR_PROTOCOL);
    CHECK_INT(ring_attach(&r, p.map, 16, 3, -1), ERR_PROTOCOL);
    for (size_t bit = 0; bit < 20 * 8; bit++) { /* magic, epoch, capacity */
        ((uint8_t *)p.map)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_INT(ring_attach(&r, p.map, ring_memfd_bytes(CAPACITY), 3, -1), ERR_PROTOCOL);
        ((uint8_t *)p.map)[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    destroy(&p);
}

/* Every bit of a record, flipped, must be noticed; and a dead ring stays dead. */
static void a_flipped_bit_kills_the_ring(void)
{
    for (size_t bit = 0; bit < (32 + 48) * 8; bit++) {
        struct pair p = make(9);
        uint8_t data[48], got[LIMIT_RECORD_BYTES];
        struct ring_record r;
        memset(data, 0x5a, sizeof(data));
        CHECK_INT(ring_put(&p.producer, 2, data, sizeof(data), NULL, 0), 0);
        p.producer.payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_INT(ring_take(&p.consumer, got, &r), ERR_PROTOCOL);
        p.producer.payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_INT(ring_take(&p.consumer, got, &r), ERR_PROTOCOL);
        CHECK_INT(ring_put(&p.consumer, 2, data, 1, NULL, 0), ERR_PROTOCOL);
        destroy(&p);
    }
}

/* A million scribbles over header lines and payload: the reader never crashes, never returns a
 * record that was not written, and a correct producer's room never becomes impossible. */
static void a_scribbling_peer_cannot_hurt(void)
{
    uint64_t rng = 42;
    static uint8_t got[LIMIT_RECORD_BYTES];
    long n_taken = 0, n_dead = 0;
    struct pair p = make(5);
    for (long i = 0; i < 1000000; i++) {
        if (i % 64 == 0 || p.consumer.dead) {
            destroy(&p);
            p = make(5);
            uint8_t data[64];
            for (int k = 0; k < 8; k++) {
                memset(data, k, sizeof(data));
                CHECK_INT(ring_put(&p.producer, 3, data, (size_t)(8 * k), NULL, 0), 0);
            }
        }
        uint8_t *bytes = p.map;
        size_t at = test_random(&rng) % 4 ? test_random(&rng) % 512
                                          : 4096 + test_random(&rng) % 1024;
        switch (test_random(&rng) % 3) {
        case 0:
            bytes[at] = (uint8_t)test_random(&rng);
            break;
        case 1: {
            uint64_t v = test_random(&rng);
            memcpy(bytes + (at & ~(size_t)7), &v, 8);
            break;
        }
        default: {
            uint32_t v = test_random(&rng) % 2 ? UINT32_MAX : (uint32_t)test_random(&rng) % 70000;
            memcpy(bytes + (at & ~(size_t)3), &v, 4);
        }
        }
        struct ring_record r;
        int err = ring_take(&p.consumer, got, &r);
        CHECK(err == 1 || err == 0 || err == ERR_PROTOCOL);
        if (err == 1) {
            n_taken++;
            CHECK(r.len % 8 == 0 && r.len < 64 && r.type == 3);
            for (size_t k = 0; k < r.len; k++) {
                CHECK_INT(got[k], r.len / 8);
            }
        }
        n_dead += err == ERR_PROTOCOL;
        CHECK(ring_room(&p.producer) <= CAPACITY);
        err = ring_put(&p.producer, 3, NULL, 0, NULL, 0);
        CHECK(err == 0 || err == -EAGAIN || err == ERR_PROTOCOL);
    }
    printf("1000000 scribbles: %ld records accepted whole, %ld protocol deaths\n", n_taken, n_dead);
    CHECK(n_taken > 1000 && n_dead > 1000);
    destroy(&p);
}

int main(void)
{
    records_come_out_as_they_went_in();
    a_full_ring_says_so_and_goes_on();
    the_bell_rings_only_for_a_sleeper();
    a_foreign_header_is_refused();
    a_flipped_bit_kills_the_ring();
    a_scribbling_peer_cannot_hurt();
    return 0;
}
