/* The list of refused digests: times, order, room. */
#include "ipc/poison.h"
#include "tests/test.h"

static const uint8_t *digest(unsigned n)
{
    static uint8_t d[HASH_SHA256_BYTES];
    memset(d, 0, sizeof(d));
    memcpy(d, &n, sizeof(n));
    return d;
}

static void test_times(void)
{
    struct poison p = {0};
    poison_add(&p, digest(1), 100, 5000, 1000);
    poison_add(&p, digest(1), 200, 9000, 2000); /* is there already */
    poison_add(&p, digest(2), 300, 4000, 2000); /* never goes before an older one */
    poison_add(&p, digest(3), 400, 2000, 2000); /* is over */
    CHECK_INT(p.n, 2);
    struct poison_row *row = poison_find(&p, digest(1), 4999);
    CHECK(row && row->since_unix_s == 100 && row->until_ms == 5000);
    CHECK(poison_find(&p, digest(2), 4999));
    CHECK(!poison_find(&p, digest(3), 4999));
    CHECK(!poison_find(&p, digest(1), 5000) && !poison_find(&p, digest(2), 5000));
    CHECK_INT(p.n, 0);
}

static void test_room(void)
{
    struct poison p = {0};
    for (unsigned i = 0; i < LIMIT_POISON + 10; i++) {
        poison_add(&p, digest(i), 0, 1000 + i, 0);
    }
    CHECK_INT(p.n, LIMIT_POISON);
    CHECK(!poison_find(&p, digest(9), 0) && poison_find(&p, digest(10), 0));
    poison_clear(&p);
    CHECK(!poison_find(&p, digest(10), 0));
}

int main(void)
{
    test_times();
    test_room();
    return 0;
}
