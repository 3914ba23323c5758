/* A pool whose blocks lie on a device (here an array apart from the pool's memory), and what of it
 * the next process finds: blocks whose content had come over, nothing of those on their way, and on
 * the device what was published. */
#include "tests/test.h"
#include "worker/kv_record.h"
#include "worker/kv_tree.h"

#include <stdlib.h>

enum { N_BLOCKS = 8, N_LAYERS = 2, TEXT = 4 * KV_BLOCK, MAX_SAVES = 64 };

struct device {
    struct kv_pool p;
    struct kv_layer layers[N_LAYERS];
    char *data[N_LAYERS];
    int32_t saves[MAX_SAVES];
    int n_saves, n_loads, n_copies;
};

static char *at(const struct device *d, size_t layer, int32_t block)
{
    return d->data[layer] + (size_t)block * kv_block_bytes(&d->layers[layer]);
}

static void copy(void *arg, int32_t from, int32_t to)
{
    struct device *d = arg;
    for (size_t i = 0; i < N_LAYERS; i++) {
        memcpy(at(d, i, to), at(d, i, from), kv_block_bytes(&d->layers[i]));
    }
    d->n_copies++;
}

static void save(void *arg, int32_t block)
{
    struct device *d = arg;
    CHECK(d->n_saves < MAX_SAVES);
    d->saves[d->n_saves++] = block;
}

static void load(void *arg, int32_t block)
{
    struct device *d = arg;
    for (size_t i = 0; i < N_LAYERS; i++) {
        size_t bytes = kv_block_bytes(&d->layers[i]);
        memcpy(at(d, i, block), d->p.host[i] + (size_t)block * bytes, bytes);
    }
    d->n_loads++;
}

/* The first n of what is on its way has come. */
static void arrive(struct device *d, int n)
{
    for (int k = 0; k < n; k++) {
        int32_t block = d->saves[k];
        for (size_t i = 0; i < N_LAYERS && d->p.blocks[block].is_saving; i++) {
            kv_save(&d->p, block, i, at(d, i, block));
        }
    }
    d->n_saves -= n;
    memmove(d->saves, d->saves + n, (size_t)d->n_saves * sizeof d->saves[0]);
}

static const struct kv_shape shape = {.n_blocks = N_BLOCKS, .seed = 5};

/* A process begins: its device holds nothing. */
static void begin(struct device *d, void *memory)
{
    *d = (struct device){0};
    d->layers[0] = (struct kv_layer){.type = TYPE_F16, .n_head = 1, .dim_k = 2, .dim_v = 2};
    d->layers[1] = (struct kv_layer){.type = TYPE_F32, .n_head = 2, .dim_k = 1, .dim_v = 3};
    CHECK_INT(kv_pool_init_at(&d->p, d->layers, N_LAYERS, &shape, memory), 0);
    for (size_t i = 0; i < N_LAYERS; i++) {
        d->layers[i].data = d->data[i] = calloc(N_BLOCKS, kv_block_bytes(&d->layers[i]));
        CHECK(d->data[i]);
    }
    d->p.device = (struct kv_device){copy, save, load, d, N_BLOCKS};
}

/* It is killed. */
static void end(struct device *d)
{
    kv_pool_finish(&d->p);
    for (size_t i = 0; i < N_LAYERS; i++) {
        free(d->data[i]);
    }
}

static void *new_memory(void)
{
    struct device d;
    d.layers[0] = (struct kv_layer){.type = TYPE_F16, .n_head = 1, .dim_k = 2, .dim_v = 2};
    d.layers[1] = (struct kv_layer){.type = TYPE_F32, .n_head = 2, .dim_k = 1, .dim_v = 3};
    void *m = calloc(1, kv_pool_bytes(d.layers, N_LAYERS, &shape));
    CHECK(m);
    return m;
}

/* What a block holds: one byte, by the text that ends with it. */
static char content(int first, int n)
{
    return (char)(first * 16 + n + 1);
}

/* The text of those ids: full blocks, each computed on the device and published. blocks: NULL, or
 * those that it holds, which otherwise are released. */
static void compute(struct device *d, int first, int n, int32_t *blocks)
{
    int32_t parent = kv_root(&d->p), held[N_BLOCKS];
    for (int k = 0; k < n; k++) {
        int32_t block = kv_take(&d->p);
        CHECK(block >= 0);
        for (size_t i = 0; i < N_LAYERS; i++) {
            memset(at(d, i, block), content(first, k), kv_block_bytes(&d->layers[i]));
        }
        for (int32_t i = 0; i < KV_BLOCK; i++) {
            d->p.ids[block * KV_BLOCK + i] = first * 1000 + k * KV_BLOCK + i;
        }
        held[k] = parent = kv_publish(&d->p, parent, block, KV_BLOCK);
    }
    for (int k = n; k-- > 0;) {
        if (blocks) {
            blocks[k] = held[k];
        } else {
            kv_release(&d->p, held[k]);
        }
    }
}

/* How many of its blocks are found; those hold on the device what was computed. */
static int found(struct device *d, int first, int n)
{
    int32_t parent = kv_root(&d->p), ids[KV_BLOCK];
    for (int k = 0; k < n; k++) {
        for (int32_t i = 0; i < KV_BLOCK; i++) {
            ids[i] = first * 1000 + k * KV_BLOCK + i;
        }
        parent = kv_find(&d->p, parent, ids);
        if (parent == KV_NONE) {
            return k;
        }
        for (size_t i = 0; i < N_LAYERS; i++) {
            for (size_t b = 0; b < kv_block_bytes(&d->layers[i]); b++) {
                CHECK_INT(at(d, i, parent)[b], content(first, k));
            }
        }
    }
    return n;
}

static void what_has_come_is_found(void)
{
    for (int n = 0; n <= 4; n++) {
        void *memory = new_memory();
        struct device d;
        begin(&d, memory);
        compute(&d, 1, 4, NULL);
        CHECK_INT(d.n_saves, 4);
        arrive(&d, n);
        end(&d);
        begin(&d, memory);
        CHECK_INT(d.p.stats.n_restored, n);
        CHECK_INT(d.n_loads, 0); /* what nobody asks for stays here */
        CHECK_INT(found(&d, 1, 4), n);
        CHECK_INT(found(&d, 1, 4), n);
        CHECK_INT(d.n_loads, n);
        end(&d);
        free(memory);
    }
}

/* The memory of a block that was on its way was wanted: its content, which comes then, is of
 * no use. */
static void what_was_given_up_does_not_count(void)
{
    void *memory = new_memory();
    struct device d;
    int32_t held[N_BLOCKS];
    begin(&d, memory);
    compute(&d, 1, 4, NULL);
    d.n_saves = 0; /* lost on the way */
    compute(&d, 2, N_BLOCKS, held); /* in the place of all of them */
    CHECK_INT(d.p.stats.n_evicted, 4);
    arrive(&d, 3);
    CHECK_INT(found(&d, 1, 4), 0);
    for (int k = N_BLOCKS; k-- > 0;) {
        kv_release(&d.p, held[k]);
    }
    end(&d);
    begin(&d, memory);
    CHECK_INT(found(&d, 1, 4), 0);
    CHECK_INT(found(&d, 2, N_BLOCKS), 3);
    end(&d);
    free(memory);
}

static void damage_is_noticed(void)
{
    void *memory = new_memory();
    struct device d;
    begin(&d, memory);
    compute(&d, 1, 4, NULL);
    arrive(&d, 4);
    d.p.host[1][2 * kv_block_bytes(&d.layers[1])] ^= 1;
    end(&d);
    begin(&d, memory);
    CHECK_INT(found(&d, 1, 4), 2);
    CHECK_INT(d.n_loads, 2);
    CHECK(d.p.stats.n_broken > 0);
    end(&d);
    free(memory);
}

/* Fewer blocks: copies move along with what they are copies of, whether it is on the device yet or
 * not. */
static void copies_move(void)
{
    for (int is_loaded = 0; is_loaded < 2; is_loaded++) {
        void *memory = new_memory();
        struct device d;
        begin(&d, memory);
        compute(&d, 1, 4, NULL);
        compute(&d, 2, 4, NULL);
        arrive(&d, 8);
        end(&d);
        begin(&d, memory);
        CHECK_INT(found(&d, 2, is_loaded ? 4 : 0), is_loaded ? 4 : 0);
        CHECK_INT(kv_limit(&d.p, 4), 4);
        CHECK_INT(d.n_copies, is_loaded ? 4 : 0); /* what is not there need not be moved there */
        CHECK_INT(found(&d, 2, 4), 4);
        end(&d);
        begin(&d, memory);
        CHECK_INT(d.p.stats.n_restored, 4);
        CHECK_INT(found(&d, 1, 4), 0);
        CHECK_INT(found(&d, 2, 4), 4);
        end(&d);
        free(memory);
    }
}

/* A block moves before its copy has set out: it is saved from where it is then. */
static void what_moves_is_saved_there(void)
{
    void *memory = new_memory();
    struct device d;
    begin(&d, memory);
    compute(&d, 1, 4, NULL);
    compute(&d, 2, 4, NULL);
    arrive(&d, 2);
    d.n_saves = 0; /* none of the others has set out */
    CHECK_INT(kv_limit(&d.p, 4), 4);
    CHECK_INT(d.n_saves, 4);
    arrive(&d, 4);
    for (int32_t i = 4; i < N_BLOCKS; i++) {
        CHECK(!d.p.blocks[i].is_saving);
    }
    end(&d);
    begin(&d, memory);
    CHECK_INT(found(&d, 2, 4), 4);
    end(&d);
    free(memory);
}

/* Blocks for whose copies there is no room are computed with, moved and forgotten as others are. */
static void some_have_no_room(void)
{
    void *memory = new_memory();
    struct device d;
    begin(&d, memory);
    d.p.device.n_kept = 3;
    compute(&d, 1, 4, NULL);
    compute(&d, 2, 4, NULL);
    CHECK_INT(d.n_saves, 3);
    arrive(&d, 3);
    CHECK_INT(kv_limit(&d.p, 4), 4);
    CHECK_INT(found(&d, 2, 4), 4);
    end(&d);
    begin(&d, memory);
    CHECK_INT(found(&d, 1, 4), 0);
    CHECK_INT(found(&d, 2, 4), 0);
    end(&d);
    free(memory);
}

int main(void)
{
    what_has_come_is_found();
    what_was_given_up_does_not_count();
    damage_is_noticed();
    copies_move();
    what_moves_is_saved_there();
    some_have_no_room();
    return 0;
}
