/* What copies of a GPU's KV cache cost a step, and which of them count (worker/gpu/gpu_mirror.h): a
 * pool of a few large blocks, on the emulator. Whether its card computes is decided by a rule
 * (hip_double.h): never, as every kernel is over when it was launched, or for very long. */
#include "shared/hash.h"
#include "tests/test.h"
#include "worker/gpu/gpu_mirror.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    N_BLOCKS = 40,
    N_LAYERS = 5,
    HERE = 2, /* the layer whose blocks are on the host */
    LAYER_BYTES = 64 << 10,
    BLOCK_BYTES = (N_LAYERS - 1) * LAYER_BYTES, /* on the device */
    BATCH = (8 << 20) / BLOCK_BYTES,
    EXTRA_BYTES = 256 << 10,
    LONG_MS = 3600 * 1000
};

static struct {
    struct door *door;
    char rules[64];
    struct kv_layer layers[N_LAYERS];
    unsigned char is_here[N_LAYERS];
    void *memory; /* the pool's: outlives it */
    struct kv_pool pool;
    struct gpu_mirror mirror;
    char *device[N_LAYERS];
} t;

static const struct kv_shape shape = {.n_blocks = N_BLOCKS, .seed = 7};

static void copy(void *arg, int32_t from, int32_t to)
{
    (void)arg, (void)from, (void)to;
    TEST_FAIL("nothing is copied on the device");
}

static void save(void *arg, int32_t block)
{
    gpu_mirror_save(arg, block);
}

static void load(void *arg, int32_t block)
{
    gpu_mirror_load(arg, block);
}

static void open_pool(void)
{
    for (int i = 0; i < N_LAYERS; i++) {
        t.layers[i] =
            (struct kv_layer){.type = TYPE_F16, .n_head = 8, .dim_k = 128, .dim_v = 128};
        CHECK_INT((int64_t)kv_block_bytes(&t.layers[i]), LAYER_BYTES);
        t.is_here[i] = i == HERE;
    }
    size_t bytes = kv_pool_bytes(t.layers, N_LAYERS, &shape);
    t.memory = t.memory ? t.memory : calloc(1, bytes);
    CHECK_INT(kv_pool_init_at(&t.pool, t.layers, N_LAYERS, &shape, t.memory), 0);
    for (int i = 0; i < N_LAYERS; i++) {
        struct err e;
        if (i != HERE) {
            void *p;
            CHECK_INT(door_allocate(t.door, (size_t)N_BLOCKS * LAYER_BYTES, &p, &e), 0);
            door_zero_now(t.door, p, (size_t)N_BLOCKS * LAYER_BYTES);
            t.layers[i].data = t.device[i] = p;
        }
    }
    CHECK(gpu_mirror_open(&t.mirror, t.door, &t.pool, t.is_here));
    t.pool.device = (struct kv_device){copy, save, load, &t.mirror, N_BLOCKS};
}

static void close_pool(void)
{
    gpu_mirror_close(&t.mirror);
    kv_pool_finish(&t.pool);
    for (int i = 0; i < N_LAYERS; i++) {
        door_free(t.door, t.device[i]);
        t.device[i] = NULL;
    }
}

static void begin(void)
{
    free(t.memory);
    t.memory = NULL;
    open_pool();
}

static void fill(char *to, int text, int layer)
{
    memset(to, text + 1, LAYER_BYTES);
    to[0] = (char)layer;
}

static void ids_of(int text, int32_t ids[KV_BLOCK])
{
    for (int i = 0; i < KV_BLOCK; i++) {
        ids[i] = text * KV_BLOCK + i;
    }
}

/* A text of one block, computed; it is nobody's any longer, and can be found. */
static int32_t compute(int text)
{
    static char data[LAYER_BYTES];
    int32_t block = kv_take(&t.pool);
    CHECK(block >= 0);
    for (int i = 0; i < N_LAYERS; i++) {
        fill(data, text, i);
        char *at = t.layers[i].data + (size_t)block * LAYER_BYTES;
        if (i == HERE) {
            memcpy(at, data, LAYER_BYTES);
        } else {
            door_upload_now(t.door, at, data, LAYER_BYTES);
        }
    }
    ids_of(text, t.pool.ids + (int64_t)block * KV_BLOCK);
    CHECK_INT(kv_publish(&t.pool, kv_root(&t.pool), block, KV_BLOCK), block);
    kv_release(&t.pool, block);
    return block;
}

/* Layers on the device whose copies have begun to stand in the pool's memory. */
static int64_t n_copied(void)
{
    int64_t n = 0;
    for (int i = 0; i < N_LAYERS; i++) {
        for (int b = 0; b < N_BLOCKS && i != HERE; b++) {
            n += t.pool.host[i][(size_t)b * LAYER_BYTES + 1] != 0;
        }
    }
    return n;
}

/* By another process, in whose device what is found stands afterwards. Those that are not what
 * they were are none. */
static int n_found(int first, int n)
{
    static char expected[LAYER_BYTES], got[LAYER_BYTES];
    int sum = 0;
    close_pool();
    open_pool();
    for (int text = first; text < first + n; text++) {
        int32_t ids[KV_BLOCK];
        ids_of(text, ids);
        int32_t block = kv_find(&t.pool, kv_root(&t.pool), ids);
        sum += block != KV_NONE;
        for (int i = 0; i < N_LAYERS && block != KV_NONE; i++) {
            fill(expected, text, i);
            const char *at = t.layers[i].data + (size_t)block * LAYER_BYTES;
            if (i == HERE) {
                memcpy(got, at, LAYER_BYTES);
            } else {
                door_wait(t.door, 0);
                char *pinned = door_host_allocate(t.door, LAYER_BYTES);
                door_download(t.door, pinned, at, LAYER_BYTES);
                door_wait(t.door, 0);
                memcpy(got, pinned, LAYER_BYTES);
                door_host_free(t.door, pinned);
            }
            CHECK(memcmp(got, expected, LAYER_BYTES) == 0);
        }
    }
    CHECK_INT(t.pool.stats.n_broken, 0);
    return sum;
}

static void rule(const char *text)
{
    FILE *f = fopen(t.rules, "we");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* From now on the card computes. */
static void compute_for_long(void)
{
    void *p;
    struct err e;
    char text[64];
    CHECK_INT(door_allocate(t.door, 2 * sizeof(float), &p, &e), 0);
    door_zero_now(t.door, p, 2 * sizeof(float));
    struct copy_args a = {.x = p, .y = (float *)p + 1, .n_rows = 1, .n_groups = 1, .n = 1};
    snprintf(text, sizeof text, "slow=%d@copy", LONG_MS);
    rule(text);
    door_launch(t.door, TABLE_copy, &a);
    CHECK(!door_is_done(t.door));
    door_free(t.door, p);
}

/* --- what is promised --------------------------------------------------------------------------*/

/* A card that is never seen computing: so much a step, and all of it in so many. */
static void a_backlog_costs_each_step_little(int64_t n_rows)
{
    begin();
    for (int i = 0; i < N_BLOCKS; i++) {
        compute(i);
    }
    int64_t due = n_rows * BLOCK_BYTES / KV_BLOCK + EXTRA_BYTES, n_steps = 0, before = 0;
    int64_t most = (int64_t)N_BLOCKS * N_LAYERS * LAYER_BYTES / due + N_BLOCKS / BATCH + 2;
    while (n_copied() < (int64_t)N_BLOCKS * (N_LAYERS - 1) || t.mirror.n_batch > 0) {
        CHECK(n_steps++ < most);
        gpu_mirror_meanwhile(&t.mirror, 0);
        CHECK_INT(n_copied(), before);
        gpu_mirror_step(&t.mirror, n_rows);
        CHECK((n_copied() - before) * LAYER_BYTES <= due + LAYER_BYTES);
        before = n_copied();
    }
    CHECK_INT(n_found(0, N_BLOCKS), N_BLOCKS);
    close_pool();
}

static void what_was_given_up_does_not_count(void)
{
    begin();
    int32_t block = compute(0);
    for (int i = 1; i < N_BLOCKS; i++) {
        compute(i);
    }
    gpu_mirror_meanwhile(&t.mirror, 0);
    gpu_mirror_step(&t.mirror, 1); /* a part of the first */
    CHECK(n_copied() > 0);
    CHECK_INT(compute(N_BLOCKS), block);
    while (gpu_mirror_settle(&t.mirror)) {
    }
    CHECK_INT(n_found(0, 1), 0);
    CHECK_INT(n_found(1, N_BLOCKS), N_BLOCKS);
    close_pool();
}

static void no_more_is_on_its_way_than_a_batch(void)
{
    begin();
    for (int i = 0; i < N_BLOCKS; i++) {
        compute(i);
    }
    for (int n = BATCH; n < N_BLOCKS; n += BATCH) {
        CHECK(gpu_mirror_settle(&t.mirror));
        CHECK_INT(n_copied(), (int64_t)n * (N_LAYERS - 1));
    }
    CHECK(!gpu_mirror_settle(&t.mirror));
    CHECK_INT(n_found(0, N_BLOCKS), N_BLOCKS);
    close_pool();
}

static void without_pinned_memory_there_are_less_copies_or_none(void)
{
    for (int n = 0; n <= 6; n++) { /* so often it is refused: 32 blocks, 16, ... */
        char text[32];
        begin();
        gpu_mirror_close(&t.mirror);
        snprintf(text, sizeof text, "oom@HostMalloc*%d", n);
        if (n > 0) {
            rule(text);
        }
        CHECK(gpu_mirror_open(&t.mirror, t.door, &t.pool, t.is_here));
        unlink(t.rules);
        CHECK_INT(t.mirror.n_slots, BATCH >> n);
        for (int i = 0; i < N_BLOCKS && n < 6; i++) {
            compute(i);
        }
        while (gpu_mirror_settle(&t.mirror)) {
        }
        CHECK_INT(n_found(0, N_BLOCKS), n < 6 ? N_BLOCKS : 0);
        close_pool();
    }
}

static void what_was_left_is_loaded_without_pinned_memory(void)
{
    begin();
    for (int i = 0; i < N_BLOCKS; i++) {
        compute(i);
    }
    while (gpu_mirror_settle(&t.mirror)) {
    }
    close_pool();
    rule("oom@HostMalloc*6");
    open_pool();
    CHECK_INT(t.mirror.n_slots, 0);
    int32_t ids[KV_BLOCK];
    ids_of(1, ids);
    int32_t block = kv_find(&t.pool, kv_root(&t.pool), ids);
    CHECK(block != KV_NONE);
    char *pinned = door_host_allocate(t.door, LAYER_BYTES);
    door_download(t.door, pinned, t.layers[0].data + (size_t)block * LAYER_BYTES, LAYER_BYTES);
    door_wait(t.door, 0);
    CHECK_INT(pinned[LAYER_BYTES - 1], 2);
    door_host_free(t.door, pinned);
    close_pool();
}

/* Last: it computes for the rest of the process. */
static void while_the_card_computes_all_is_copied(void)
{
    begin();
    for (int i = 0; i < N_BLOCKS; i++) {
        compute(i);
    }
    compute_for_long();
    for (int i = 0; t.mirror.n_batch + t.mirror.n_queued > 0; i++) {
        CHECK(i < 1000); /* each takes a slice at least, or waits for one to come */
        gpu_mirror_meanwhile(&t.mirror, 0);
    }
    CHECK_INT(n_copied(), (int64_t)N_BLOCKS * (N_LAYERS - 1));
    compute(N_BLOCKS);
    gpu_mirror_meanwhile(&t.mirror, 0);
    int64_t n = n_copied();
    gpu_mirror_step(&t.mirror, 1);
    CHECK_INT(n_copied(), n); /* nothing is left for when it is done */
    close_pool();
}

int main(void)
{
    struct door_options o = {.pci = "0000:03:00.0", .kernel_dir = getenv("ROCMFORGE_KERNEL_DIR")};
    struct err e = {0};
    snprintf(t.rules, sizeof t.rules, "/tmp/mirror_pace_test-%d", (int)getpid());
    setenv("HIP_DOUBLE_FILE", t.rules, 1);
    if (door_open(&o, &t.door, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    a_backlog_costs_each_step_little(1);
    a_backlog_costs_each_step_little(512);
    what_was_given_up_does_not_count();
    no_more_is_on_its_way_than_a_batch();
    without_pinned_memory_there_are_less_copies_or_none();
    what_was_left_is_loaded_without_pinned_memory();
    while_the_card_computes_all_is_copied();
    free(t.memory);
    door_close(&t.door);
    return 0;
}
