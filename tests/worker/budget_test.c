/* Giving back device memory: what is freed in which order, what sequences keep, and that it grows
 * again. */
#include "tests/test.h"
#include "tests/worker/fake_engine.h"
#include "tests/worker/fake_tokenizer.h"
#include "worker/budget.h"

enum { BLOCK = 1000, BLOCKS = 64, OTHER = 4 * BLOCK, N_CTX = 512 };

static struct models models;
static struct fleet fleet;
static struct events events;

static struct msg_gave apply(uint64_t ceiling, uint64_t ours)
{
    struct budget b = {0};
    struct msg_gave m;
    uint64_t held = 0;
    for (size_t i = 0; i < models.n; i++) {
        held += models.v[i].engine ? engine_vram_bytes(models.v[i].engine) : 0;
    }
    struct msg_budget asked = {
        .round = 7, .ceiling_bytes = ceiling, .overhead_bytes = ours - MIN(ours, held)};
    CHECK(!budget_apply(&b, &fleet, true, &m)); /* nothing is due */
    budget_take(&b, &asked);
    CHECK(budget_apply(&b, &fleet, true, &m));
    CHECK(!budget_apply(&b, &fleet, true, &m));
    CHECK_INT(m.round, 7);
    return m;
}

static void begin(size_t n_models)
{
    fake_block_bytes = BLOCK;
    fake_models_init(&models, n_models, 4, 32, BLOCKS, N_CTX);
    memset(&fleet, 0, sizeof fleet);
    fleet.models = &models;
    fleet.events = &events;
    fleet.loader = loader_create(&models, -1);
}

static void end(void)
{
    loader_destroy(&fleet.loader);
    fake_models_finish(&models);
}

static struct engine *engine(int i)
{
    return models.v[i].engine;
}

static void the_cache_shrinks_and_grows(void)
{
    begin(1);
    uint64_t full = OTHER + BLOCKS * BLOCK;
    CHECK_INT(engine_vram_bytes(engine(0)), full);
    struct msg_gave m = apply(full + 5000, full + 5000); /* 5000 are the runtime's */
    CHECK(m.freed_bytes == 0 && m.given_bytes == 0 && m.left_bytes == 0 && m.held_bytes == full);
    m = apply(full + 5000 - 1, full + 5000); /* one byte: a sixteenth of the cache */
    CHECK_INT(engine_cache(engine(0)).n_blocks, 60);
    CHECK(m.freed_bytes == 4 * BLOCK && m.given_bytes == 4 * BLOCK && m.left_bytes == 0);
    m = apply(full + 4999 - 4 * BLOCK, full + 5000 - 4 * BLOCK);
    CHECK_INT(engine_cache(engine(0)).n_blocks, 56);
    m = apply(OTHER + 20 * BLOCK, engine_vram_bytes(engine(0)));
    CHECK_INT(engine_cache(engine(0)).n_blocks, 20);
    m = apply(OTHER + 23 * BLOCK, m.held_bytes); /* not for every block */
    CHECK_INT(engine_cache(engine(0)).n_blocks, 20);
    m = apply(OTHER + 31 * BLOCK, m.held_bytes);
    CHECK_INT(engine_cache(engine(0)).n_blocks, 28);
    m = apply(10 * full, m.held_bytes);
    CHECK(m.given_bytes == 0 && m.held_bytes == full);
    end();
}

static void sequences_keep_their_blocks(void)
{
    struct engine_seq *s;
    struct engine_row rows[32];
    const float *logits[1];
    struct err e;
    begin(1);
    CHECK(engine_seq_create(engine(0), &s) == 0);
    for (int round = 0; round < 10; round++) { /* 320 tokens: 20 blocks */
        CHECK(engine_seq_reserve(engine(0), s, 32) == 0);
        for (int i = 0; i < 32; i++) {
            rows[i] = (struct engine_row){.seq = s, .token = FAKE_BYTE + i, .want_logits = i == 31};
        }
        CHECK(engine_step(engine(0), rows, 32, logits, &e) == 0);
    }
    fleet.is_used[0] = true;
    struct msg_gave m = apply(OTHER, engine_vram_bytes(engine(0)));
    CHECK_INT(engine_cache(engine(0)).n_used, 20);
    CHECK_INT(engine_cache(engine(0)).n_blocks, 24); /* and some to grow into */
    CHECK_INT(m.left_bytes, 24 * BLOCK);
    fake_check(engine(0));
    engine_seq_destroy(engine(0), &s);
    end();
}

static void idle_models_are_unloaded(void)
{
    begin(2);
    fleet.is_used[0] = true;
    models.v[1].used_ns = 5;
    uint64_t full = OTHER + BLOCKS * BLOCK;
    struct msg_gave m = apply(full, 2 * full); /* the idle one's cache goes first */
    CHECK_INT(m.left_bytes, 0);
    CHECK(engine_cache(engine(1)).n_blocks == 4 && engine_cache(engine(0)).n_blocks == 56);
    m = apply(2 * OTHER, m.held_bytes); /* then it goes itself */
    CHECK(engine(1) == NULL && m.n_unloaded == 1);
    CHECK_INT(m.left_bytes, 4 * BLOCK - OTHER);
    m = apply(10 * full, m.held_bytes);
    CHECK_INT(engine_cache(engine(0)).n_blocks, BLOCKS);
    end();
}

int main(void)
{
    the_cache_shrinks_and_grows();
    sequences_keep_their_blocks();
    idle_models_are_unloaded();
    return 0;
}
