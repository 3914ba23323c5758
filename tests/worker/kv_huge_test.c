/* Huge pages under a KV pool: each page that blocks come to lie in is made once, ahead of its first
 * block but not far, and never more at once than is asked for. */
#include "tests/test.h"
#include "worker/kv.h"
#include "worker/memory.h"

#include <string.h>

enum { N_LAYERS = 3, N_BLOCKS = 768, BLOCK_BYTES = 8192, MAX_PAGES = 64 };

static char *made[MAX_PAGES];
static int n_made;

static void fake_collapse(char *at)
{
    CHECK((uintptr_t)at % MEMORY_HUGE_BYTES == 0);
    for (int i = 0; i < n_made; i++) {
        CHECK(made[i] != at);
    }
    CHECK(n_made < MAX_PAGES);
    made[n_made++] = at;
}

static bool is_made(const char *at)
{
    for (int i = 0; i < n_made; i++) {
        if (at >= made[i] && at < made[i] + MEMORY_HUGE_BYTES) {
            return true;
        }
    }
    return false;
}

static void open_pool(struct kv_pool *p, struct kv_layer *layers)
{
    for (int i = 0; i < N_LAYERS; i++) {
        layers[i] = (struct kv_layer){.type = TYPE_F16, .n_head = 1, .dim_k = 128, .dim_v = 128};
        CHECK_INT(kv_block_bytes(&layers[i]), BLOCK_BYTES);
    }
    CHECK_INT(kv_pool_init(p, layers, N_LAYERS, N_BLOCKS, 0, 1), 0);
    n_made = 0;
    kv_use_huge_pages(p, fake_collapse);
}

/* Pages at the ends of the memory are not all the pool's. */
static bool can_be_made(const struct kv_pool *p, const char *at)
{
    const char *page = at - (uintptr_t)at % MEMORY_HUGE_BYTES;
    return page >= p->memory && page + MEMORY_HUGE_BYTES <= p->memory + p->bytes;
}

static void pages_are_made_one_by_one_before_they_are_needed(void)
{
    struct kv_pool p;
    struct kv_layer layers[N_LAYERS];
    open_pool(&p, layers);
    for (int64_t b = 0; b < N_BLOCKS; b++) {
        CHECK_INT(kv_take(&p), b);
        for (int i = 0; i < N_LAYERS; i++) {
            char *data = layers[i].data + b * BLOCK_BYTES;
            CHECK(is_made(data) || !can_be_made(&p, data));
        }
        for (int k = 0; k < n_made; k++) { /* nothing far ahead is touched */
            bool is_near = false;
            for (int i = 0; i < N_LAYERS; i++) {
                char *end = layers[i].data + (b + KV_HUGE_AHEAD + 1) * BLOCK_BYTES;
                is_near =
                    is_near || (made[k] < end && made[k] + MEMORY_HUGE_BYTES > layers[i].data);
            }
            CHECK(is_near);
        }
        int before = n_made;
        kv_make_huge(&p, 1); /* a decode step */
        CHECK(n_made <= before + 1);
    }
    kv_pool_finish(&p);
}

static void a_page_that_is_needed_sooner_is_made_later(void)
{
    struct kv_pool p;
    struct kv_layer layers[N_LAYERS];
    open_pool(&p, layers);
    int at_start = n_made;
    for (int64_t b = 0; b < N_BLOCKS; b++) {
        CHECK_INT(kv_take(&p), b);
    }
    CHECK_INT(n_made, at_start); /* taking is no time for it */
    for (int i = 1; i <= 4; i++) {
        kv_make_huge(&p, 1);
        CHECK_INT(n_made, at_start + i);
    }
    kv_make_huge(&p, MAX_PAGES);
    int all = n_made;
    for (int64_t b = 0; b < N_BLOCKS; b++) {
        for (int i = 0; i < N_LAYERS; i++) {
            char *data = layers[i].data + b * BLOCK_BYTES;
            CHECK(is_made(data) || !can_be_made(&p, data));
        }
    }
    for (int32_t b = N_BLOCKS; b-- > 0;) {
        kv_release(&p, b);
    }
    for (int64_t b = 0; b < N_BLOCKS; b++) {
        CHECK(kv_take(&p) >= 0);
    }
    kv_make_huge(&p, MAX_PAGES);
    CHECK_INT(n_made, all); /* none twice */
    kv_pool_finish(&p);
}

/* The system's own, on shared memory and with content: it stays what it was. */
static void content_outlives_the_change(void)
{
    size_t bytes = 3 * MEMORY_HUGE_BYTES;
    struct kv_pool p;
    struct kv_layer layer = {.type = TYPE_F16, .n_head = 1, .dim_k = 128, .dim_v = 128};
    CHECK_INT(kv_pool_init(&p, &layer, 1, (int64_t)(bytes / BLOCK_BYTES), 0, 1), 0);
    for (size_t i = 0; i < bytes; i += 512) {
        layer.data[i] = (char)(i / 512 % 251);
    }
    kv_use_huge_pages(&p, memory_collapse);
    while (kv_take(&p) >= 0) {
        kv_make_huge(&p, 1);
    }
    for (size_t i = 0; i < bytes; i += 512) {
        CHECK(layer.data[i] == (char)(i / 512 % 251));
    }
    kv_pool_finish(&p);
}

int main(void)
{
    pages_are_made_one_by_one_before_they_are_needed();
    a_page_that_is_needed_sooner_is_made_later();
    content_outlives_the_change();
    return 0;
}
