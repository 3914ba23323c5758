/* Copies of a GPU's KV cache (worker/gpu/gpu_mirror.h), on the emulator: what had come over when a
 * worker was killed is what the next one finds, and with it the same logits; what another placement
 * computed is not believed. */
#include "kernels/cpu/isa.h"
#include "shared/hash.h"
#include "tests/test.h"
#include "tests/worker/tiny_model.h"
#include "worker/engine.h"
#include "worker/gpu/door.h"
#include "worker/stores.h"

#include <sys/stat.h>
#include <unistd.h>

enum {
    N_SEQS = 5,
    MAX_ROWS = ENGINE_BLOCK_TOKENS,
    ALL_LAYERS = -1,
    LONG_CTX = 16384
};

static struct {
    struct door *door;
    struct channel own, peer; /* the peer's end stands for the supervisor */
    struct stores *stores;
    const char *model;
    struct engine *engine;
    int fd; /* the pool's memory */
    struct status_page page;
} t;

static void open_engine(int layers, struct stores *stores)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = TYPE_F16,
                               .n_ctx = 2 * ENGINE_BLOCK_TOKENS,
                               .n_seqs = N_SEQS,
                               .max_rows = MAX_ROWS,
                               .max_logits = N_SEQS,
                               .kv_memory_bytes = 1 << 20,
                               .kv_memory_share = 0.5,
                               .door = t.door,
                               .vram_bytes = 1u << 30,
                               .gpu_layers = layers,
                               .is_gpu_required = true,
                               .stores = stores};
    struct err e = {0};
    if (engine_open(t.model, &o, &t.engine, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

static void begin(void)
{
    int fds[2];
    struct channel_msg m;
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&t.own, fds[0], MSG_WORKER, MSG_SUPERVISOR);
    channel_init(&t.peer, fds[1], MSG_SUPERVISOR, MSG_WORKER);
    t.own.state = MSG_STATE_GREETED;
    t.peer.state = MSG_STATE_RUNNING;
    t.stores = stores_create(&t.own, 1);
    open_engine(ALL_LAYERS, t.stores);
    CHECK_INT(channel_recv(&t.peer, &m), 1);
    CHECK(m.type == MSG_STORE && m.n_fds == 1);
    t.fd = m.fds[0];
}

static void end(void)
{
    engine_close(&t.engine);
    stores_destroy(&t.stores);
    channel_close(&t.own);
    channel_close(&t.peer);
    close(t.fd);
}

/* It goes, and what stood in its pool's memory is what it was at this moment. */
static void kill_engine(void)
{
    struct stat st;
    CHECK_INT(fstat(t.fd, &st), 0);
    char *then = malloc((size_t)st.st_size);
    CHECK(then && pread(t.fd, then, (size_t)st.st_size, 0) == st.st_size);
    engine_close(&t.engine);
    CHECK(pwrite(t.fd, then, (size_t)st.st_size, 0) == st.st_size);
    free(then);
}

static void step(const struct engine_row *rows, int64_t n, const float **ret_logits)
{
    struct err e = {0};
    if (engine_step(t.engine, rows, n, ret_logits, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

static int32_t id_of(int text, int64_t i)
{
    return (int32_t)((i * 7 + i * i * text + 3 * text) % TINY_VOCAB);
}

/* N_SEQS texts of n tokens (a block, or one more), their last ones in one step. Hashes the logits
 * behind them. Returns how many blocks were found. */
static int run(int64_t n, uint64_t ret_logits[N_SEQS])
{
    struct engine_seq *s[N_SEQS];
    struct engine_row rows[MAX_ROWS];
    const float *logits[N_SEQS];
    int n_found = 0;
    for (int i = 0; i < N_SEQS; i++) {
        int32_t ids[ENGINE_BLOCK_TOKENS + 1];
        int64_t n_rows = 0;
        for (int64_t k = 0; k < n; k++) {
            ids[k] = id_of(i, k);
        }
        CHECK_INT(engine_seq_create(t.engine, &s[i]), 0);
        int64_t at = engine_seq_reuse(t.engine, s[i], ids, n - 1);
        n_found += at == ENGINE_BLOCK_TOKENS;
        CHECK_INT(engine_seq_reserve(t.engine, s[i], n - at), 0);
        for (; at < n - 1; at++) {
            rows[n_rows++] = (struct engine_row){s[i], ids[at], false, 0};
        }
        if (n_rows > 0) {
            step(rows, n_rows, NULL);
        }
    }
    for (int i = 0; i < N_SEQS; i++) {
        rows[i] = (struct engine_row){s[i], id_of(i, n - 1), true, 0};
    }
    step(rows, N_SEQS, logits);
    for (int i = 0; i < N_SEQS; i++) {
        ret_logits[i] = hash64(logits[i], TINY_VOCAB * sizeof(float), 1);
        engine_seq_destroy(t.engine, &s[i]);
    }
    return n_found;
}

/* What a step completed sets out behind it: it has come after the next one, or when nothing is
 * computed. */
static void what_has_come_is_found(const uint64_t expected[N_SEQS])
{
    enum { AT_ONCE, AFTER_A_STEP, AFTER_A_WHILE, N_KILLS };
    for (int n = 0; n < N_KILLS; n++) {
        uint64_t logits[N_SEQS];
        int n_come = n == AT_ONCE ? 0 : N_SEQS;
        begin();
        CHECK_INT(run(ENGINE_BLOCK_TOKENS, logits), 0);
        if (n == AFTER_A_STEP) {
            CHECK_INT(run(ENGINE_BLOCK_TOKENS + 1, logits), N_SEQS);
        } else if (n == AFTER_A_WHILE) {
            CHECK(!engine_settle(t.engine));
        }
        kill_engine();
        open_engine(ALL_LAYERS, t.stores);
        CHECK_INT(engine_cache(t.engine).n_restored, n_come);
        CHECK_INT(run(ENGINE_BLOCK_TOKENS + 1, logits), n_come);
        CHECK_INT(engine_cache(t.engine).n_broken, 0);
        CHECK(memcmp(logits, expected, sizeof logits) == 0);
        end();
    }
}

static void another_placement_is_not_believed(void)
{
    uint64_t logits[N_SEQS];
    begin();
    CHECK_INT(run(ENGINE_BLOCK_TOKENS, logits), 0);
    engine_close(&t.engine);
    open_engine(1, t.stores);
    CHECK_INT(engine_cache(t.engine).n_restored, 0);
    CHECK_INT(engine_cache(t.engine).n_broken, 0);
    CHECK_INT(run(ENGINE_BLOCK_TOKENS + 1, logits), 0);
    end();
}

/* A long text is loaded in one go. */
static void each_block_that_is_loaded_is_told(void)
{
    uint64_t logits[N_SEQS];
    begin();
    CHECK_INT(run(ENGINE_BLOCK_TOKENS, logits), 0);
    engine_close(&t.engine);
    open_engine(ALL_LAYERS, t.stores);
    uint64_t before = atomic_load(&t.page.beat);
    for (int i = 0; i < N_SEQS; i++) {
        int32_t ids[ENGINE_BLOCK_TOKENS];
        int64_t held;
        for (int64_t k = 0; k < ENGINE_BLOCK_TOKENS; k++) {
            ids[k] = id_of(i, k);
        }
        CHECK_INT(engine_cached(t.engine, ids, ENGINE_BLOCK_TOKENS, &held), ENGINE_BLOCK_TOKENS);
    }
    CHECK_INT(atomic_load(&t.page.beat) - before, N_SEQS);
    end();
}

/* The same model of a context that need not fit. */
static const char *long_model(void)
{
    static const char key[] = "llama.context_length";
    static char data[1 << 20];
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    FILE *f = fopen(path, "r+e");
    CHECK(f);
    size_t n = fread(data, 1, sizeof data, f);
    const char *at = memmem(data, n, key, sizeof key - 1);
    const uint32_t value = LONG_CTX;
    CHECK(n < sizeof data && at);
    long place = at - data + (long)sizeof key - 1 + (long)sizeof(uint32_t); /* its type */
    CHECK(fseek(f, place, SEEK_SET) == 0 && fwrite(&value, sizeof value, 1, f) == 1);
    CHECK(fclose(f) == 0);
    return path;
}

static void open_automatic(uint64_t vram_bytes)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = TYPE_F16,
                               .n_seqs = 1,
                               .max_rows = MAX_ROWS,
                               .max_logits = 1,
                               .kv_memory_share = 0.5,
                               .door = t.door,
                               .vram_bytes = vram_bytes,
                               .gpu_layers = ALL_LAYERS,
                               .is_gpu_required = true,
                               .stores = t.stores};
    struct err e = {0};
    if (engine_open(t.model, &o, &t.engine, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

/* A kept cache says how long a context the program is for; the card's memory, how long a one may
 * be promised. */
static void no_longer_context_is_promised_than_fits(void)
{
    enum { SHORT_BY = 100 };
    begin();
    engine_close(&t.engine);
    t.model = long_model();
    open_automatic(1u << 30);
    const struct engine_info *i = engine_info(t.engine);
    CHECK_INT(i->n_ctx, LONG_CTX);
    CHECK_INT(i->n_device_blocks, LONG_CTX / ENGINE_BLOCK_TOKENS);
    uint64_t one = i->vram_kv_bytes / (uint64_t)i->n_device_blocks;
    uint64_t vram_bytes = i->vram_bytes - SHORT_BY * one;
    engine_close(&t.engine);
    open_automatic(vram_bytes);
    i = engine_info(t.engine);
    CHECK_INT(i->n_blocks, LONG_CTX / ENGINE_BLOCK_TOKENS); /* the cache that was kept */
    CHECK(i->n_device_blocks < i->n_blocks && i->n_device_blocks > i->n_blocks - 2 * SHORT_BY);
    CHECK_INT(i->n_ctx, i->n_device_blocks * ENGINE_BLOCK_TOKENS);
    engine_close(&t.engine);
    open_automatic(1u << 30);
    CHECK_INT(engine_info(t.engine)->n_ctx, LONG_CTX);
    end();
}

int main(void)
{
    struct door_options o = {.pci = "0000:03:00.0",
                             .kernel_dir = getenv("ROCMFORGE_KERNEL_DIR"),
                             .status = &t.page};
    struct err e = {0};
    uint64_t logits[N_SEQS];
    unsetenv("GPU_MAX_HW_QUEUES");
    if (door_open(&o, &t.door, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    const char *queues = getenv("GPU_MAX_HW_QUEUES"); /* as the runtime saw it */
    CHECK(queues && strcmp(queues, "1") == 0);
    t.model = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    open_engine(ALL_LAYERS, NULL);
    CHECK_INT(run(ENGINE_BLOCK_TOKENS + 1, logits), 0);
    engine_close(&t.engine);
    what_has_come_is_found(logits);
    another_placement_is_not_believed();
    each_block_that_is_loaded_is_told();
    no_longer_context_is_promised_than_fits();
    door_close(&t.door);
    return 0;
}
