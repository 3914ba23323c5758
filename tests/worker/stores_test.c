/* Stores through the engine: what one worker leaves, the next one goes on with, bit for bit; what
 * is broken, of another time or of other settings is made anew. The test is the supervisor. */
#include "tests/worker/tiny_model.h"

#include "ipc/memfd.h"
#include "shared/err.h"
#include "tests/test.h"
#include "worker/engine.h"
#include "worker/stores.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_CTX = 64, N_IDS = 40, MAX_KEPT = 8, ENGINE_STORES = 2 /* weights, KV cache */ };

struct worker { /* one life; the supervisor's end of its channel, and what it wants kept */
    struct channel own, peer;
    struct stores *stores;
};

static struct msg_store kept[MAX_KEPT];
static int kept_fds[MAX_KEPT];
static int n_kept, n_made, n_dropped;

static int find_kept(uint32_t kind, const uint8_t *key)
{
    for (int i = 0; i < n_kept; i++) {
        if (kept[i].kind == kind && (!key || memcmp(kept[i].key, key, STORE_KEY_BYTES) == 0)) {
            return i;
        }
    }
    return -1;
}

static void forget(int i)
{
    close(kept_fds[i]);
    n_kept--;
    kept[i] = kept[n_kept];
    kept_fds[i] = kept_fds[n_kept];
}

/* Takes what the worker has said. */
static void listen_to(struct worker *w)
{
    struct channel_msg m;
    n_made = n_dropped = 0;
    while (channel_recv(&w->peer, &m) == 1) {
        struct msg_store s;
        memcpy(&s, m.payload, sizeof(s));
        int i = find_kept(s.kind, s.key);
        if (m.type == MSG_DROP) {
            CHECK(i >= 0);
            forget(i);
            n_dropped++;
            continue;
        }
        CHECK_INT(m.type, MSG_STORE);
        CHECK(i < 0 && n_kept < MAX_KEPT);
        CHECK_INT(store_check(s.kind, m.fds[0], s.bytes), 0);
        kept[n_kept] = s;
        kept_fds[n_kept++] = m.fds[0];
        n_made++;
    }
}

static void start(struct worker *w, uint64_t epoch)
{
    int fds[2];
    struct channel_msg m;
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&w->own, fds[0], MSG_WORKER, MSG_SUPERVISOR);
    channel_init(&w->peer, fds[1], MSG_SUPERVISOR, MSG_WORKER);
    w->own.state = MSG_STATE_GREETED;
    w->peer.state = MSG_STATE_RUNNING;
    w->stores = stores_create(&w->own, epoch);
    for (int i = 0; i < n_kept; i++) {
        CHECK_INT(channel_send(&w->peer, MSG_STORE, epoch, &kept[i], sizeof(kept[i]), &kept_fds[i],
                               1),
                  0);
        CHECK_INT(channel_recv(&w->own, &m), 1);
        CHECK_INT(stores_receive(w->stores, &m), 0);
        CHECK_INT(m.fds[0], -1);
        channel_msg_finish(&m);
    }
}

static void stop(struct worker *w)
{
    listen_to(w);
    stores_destroy(&w->stores);
    channel_close(&w->own);
    channel_close(&w->peer);
}

static struct engine *open_in(struct worker *w, const char *path, enum type kv_type)
{
    struct engine_options o = {.n_threads = 2,
                               .isa = isa_detect(),
                               .kv_type = kv_type,
                               .n_ctx = N_CTX,
                               .n_seqs = 2,
                               .max_rows = 32,
                               .max_logits = 2,
                               .kv_memory_share = 0.5,
                               .stores = w ? w->stores : NULL};
    struct engine *en;
    struct err e = {0};
    if (engine_open(path, &o, &en, &e) != 0) {
        TEST_FAIL("%s: %s", path, e.detail);
    }
    return en;
}

static int32_t id_of(int i)
{
    return (i * 7 + 3) % TINY_VOCAB;
}

/* Computes the text, in steps that end with blocks, and copies the last logits. Returns how many of
 * its tokens were there already. */
static int64_t run(struct engine *en, float logits[TINY_VOCAB])
{
    struct engine_seq *s;
    struct engine_row rows[ENGINE_BLOCK_TOKENS];
    const float *out[1];
    struct err e = {0};
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++) {
        ids[i] = id_of(i);
    }
    CHECK_INT(engine_seq_create(en, &s), 0);
    int64_t reused = engine_seq_reuse(en, s, ids, N_IDS - 1);
    CHECK_INT(engine_seq_reserve(en, s, N_IDS - reused), 0);
    for (int64_t at = reused; at < N_IDS;) {
        int64_t n = 0;
        do {
            rows[n++] = (struct engine_row){s, ids[at], at == N_IDS - 1, 0};
            at++;
        } while (at < N_IDS && at % ENGINE_BLOCK_TOKENS != 0);
        CHECK_INT(engine_step(en, rows, n, out, &e), 0);
    }
    memcpy(logits, out[0], TINY_VOCAB * sizeof(float));
    engine_seq_destroy(en, &s);
    return reused;
}

static void forget_all(void)
{
    while (n_kept > 0) {
        forget(0);
    }
}

/* ---- tests ---- */

static void the_next_worker_goes_on(const char *model)
{
    const char *path = tiny_model_file(tiny_model_find(model), TYPE_Q8_0);
    float alone[TINY_VOCAB], first[TINY_VOCAB], next[TINY_VOCAB];
    struct engine *en = open_in(NULL, path, TYPE_F16);
    CHECK_INT(run(en, alone), 0);
    engine_close(&en);
    struct worker a, b;
    start(&a, 1);
    struct engine *killed = open_in(&a, path, TYPE_F16); /* not closed before the other begins */
    listen_to(&a);
    CHECK_INT(n_made, ENGINE_STORES);
    CHECK_INT(run(killed, first), 0);
    CHECK(memcmp(first, alone, sizeof(alone)) == 0);

    start(&b, 2);
    en = open_in(&b, path, TYPE_F16);
    CHECK_INT(run(en, next), 2 * ENGINE_BLOCK_TOKENS);
    CHECK(memcmp(next, alone, sizeof(alone)) == 0);
    CHECK_INT(engine_cache(en).n_restored, 2);
    CHECK_INT(engine_cache(en).n_broken, 0);
    listen_to(&b);
    CHECK_INT(n_made, 0);
    engine_close(&en);
    en = open_in(&b, path, TYPE_F16); /* and after the model was unloaded */
    CHECK(run(en, next) >= 2 * ENGINE_BLOCK_TOKENS);
    CHECK(memcmp(next, alone, sizeof(alone)) == 0);
    engine_close(&en);
    stop(&b);
    engine_close(&killed);
    stop(&a);
    forget_all();
}

/* A worker that leaves a text behind; what is kept of it is scribbled on by the caller. */
static const char *leave(uint64_t epoch)
{
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    float logits[TINY_VOCAB];
    struct worker w;
    start(&w, epoch);
    struct engine *en = open_in(&w, path, TYPE_F16);
    CHECK_INT(run(en, logits), 0);
    engine_close(&en);
    stop(&w);
    CHECK_INT(n_kept, ENGINE_STORES);
    return path;
}

/* The next one computes everything itself, in a cache of its own, and keeps that. */
static void expect_anew(const char *path, enum type kv_type, uint64_t epoch, int made, int dropped)
{
    float logits[TINY_VOCAB];
    struct worker w;
    start(&w, epoch);
    struct engine *en = open_in(&w, path, kv_type);
    CHECK_INT(run(en, logits), 0);
    CHECK(run(en, logits) > 0);
    engine_close(&en);
    stores_drop_unclaimed(w.stores);
    stop(&w);
    CHECK_INT(n_made, made);
    CHECK_INT(n_dropped, dropped);
    forget_all();
}

static void a_scribbled_header_is_not_believed(void)
{
    for (size_t at = 0; at < 80; at += 3) { /* magic, sizes, key, digest */
        const char *path = leave(1);
        int i = find_kept(STORE_KV, NULL);
        char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, kept_fds[i], 0);
        CHECK(map != MAP_FAILED);
        map[at] ^= 0x10;
        munmap(map, 4096);
        expect_anew(path, TYPE_F16, 2, 1, 1);
    }
}

static void a_later_epochs_store_is_not_touched(void)
{
    const char *path = leave(9);
    expect_anew(path, TYPE_F16, 8, 1, 1);
}

static void other_settings_have_other_stores(void)
{
    const char *path = leave(1);
    expect_anew(path, TYPE_F32, 2, 1, 1); /* the weights stay */
}

static void a_changed_file_has_other_stores(void)
{
    leave(1);
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0); /* written anew */
    expect_anew(path, TYPE_F16, 2, 2, 2);
}

static void weights_cannot_be_written(void)
{
    leave(1);
    int fd = kept_fds[find_kept(STORE_WEIGHTS, NULL)];
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK(pwrite(fd, "x", 1, 0) < 0 && ftruncate(fd, 1) < 0);
    fd = kept_fds[find_kept(STORE_KV, NULL)];
    CHECK(ftruncate(fd, 1) < 0 && ftruncate(fd, 1 << 30) < 0);
    forget_all();
}

/* The same file under two names: the weights are shared, a cache has one writer. */
static void two_engines_of_one_model(void)
{
    const char *path = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    float a[TINY_VOCAB], b[TINY_VOCAB];
    struct worker w;
    start(&w, 1);
    struct engine *first = open_in(&w, path, TYPE_F16), *second = open_in(&w, path, TYPE_F16);
    CHECK_INT(run(first, a), 0);
    CHECK_INT(run(second, b), 0);
    CHECK(memcmp(a, b, sizeof(a)) == 0);
    CHECK(!stores_drop_idle(w.stores)); /* both are in use */
    engine_close(&second);
    CHECK_INT(run(first, a), 2 * ENGINE_BLOCK_TOKENS + 7); /* what is its own is there still */
    engine_close(&first);
    CHECK(stores_resident_bytes(w.stores, STORE_WEIGHTS) > 0);
    CHECK(stores_drop_idle(w.stores));
    CHECK_INT(stores_resident_bytes(w.stores, STORE_WEIGHTS), 0);
    stop(&w);
    CHECK_INT(n_kept, 0);
}

static void what_is_handed_over_is_checked(void)
{
    struct worker w;
    struct channel_msg m = {.type = MSG_STORE, .n_fds = 1};
    struct msg_store s = {.kind = STORE_KV, .bytes = 8192};
    start(&w, 1);
    m.len = sizeof(s);
    m.fds[0] = memfd_create_shared("test", 4096); /* smaller than said */
    memcpy(m.payload, &s, sizeof(s));
    CHECK_INT(stores_receive(w.stores, &m), ERR_PROTOCOL);
    channel_msg_finish(&m);
    m.n_fds = 1;
    m.fds[0] =
        memfd_create_open("test", 8192); /* may yet be sealed: fine, its size cannot change */
    CHECK_INT(stores_receive(w.stores, &m), 0);
    m.n_fds = 1;
    m.fds[0] = memfd_create_shared("test", 8192);
    CHECK_INT(stores_receive(w.stores, &m), ERR_PROTOCOL); /* twice */
    channel_msg_finish(&m);
    size_t bytes;
    CHECK_INT(stores_take(w.stores, STORE_WEIGHTS, s.key, &bytes), -ENOENT);
    CHECK(stores_take(w.stores, STORE_KV, s.key, &bytes) >= 0 && bytes == 8192);
    CHECK_INT(stores_take(w.stores, STORE_KV, s.key, &bytes), -ENOENT); /* one writer */
    stores_release(w.stores, STORE_KV, s.key);
    CHECK(stores_take(w.stores, STORE_KV, s.key, &bytes) >= 0);
    channel_close(&w.peer); /* a supervisor that is gone */
    CHECK(!stores_put(w.stores, STORE_KV, (const uint8_t *)"another key of thirty-two bytes",
                      memfd_create_shared("test", 4096), 4096));
    stores_destroy(&w.stores);
    channel_close(&w.own);
}

int main(void)
{
    the_next_worker_goes_on("llama");
    the_next_worker_goes_on("qwen35");
    the_next_worker_goes_on("deepseek2");
    a_scribbled_header_is_not_believed();
    a_later_epochs_store_is_not_touched();
    other_settings_have_other_stores();
    a_changed_file_has_other_stores();
    weights_cannot_be_written();
    two_engines_of_one_model();
    what_is_handed_over_is_checked();
    return 0;
}
