/* What of a KV pool outlives its process: a writer is stopped after every single instruction,
 * killed at random moments, and its memory is scribbled over; whoever goes on in it finds blocks
 * whose tokens and content are exactly what was published, or does not find them. */
#include "tests/test.h"
#include "worker/kv_record.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_BLOCKS = 64, N_LAYERS = 2, STATE_BYTES = 48 };

static int64_t n_blocks = 6;
static const uint64_t seed = 77;

struct pool { /* with layers of its own: several stand in one process */
    struct kv_pool p;
    struct kv_layer layers[N_LAYERS];
};

static struct kv_shape shape(void)
{
    return (struct kv_shape){n_blocks, 3, STATE_BYTES, seed};
}

static void set_layers(struct pool *pool)
{
    pool->layers[0] = (struct kv_layer){.type = TYPE_F16, .n_head = 1, .dim_k = 1, .dim_v = 1};
    pool->layers[1] = (struct kv_layer){.type = TYPE_F32, .n_head = 2, .dim_k = 1, .dim_v = 1};
}

static size_t pool_bytes(void)
{
    struct pool pool;
    struct kv_shape s = shape();
    set_layers(&pool);
    return kv_pool_bytes(pool.layers, N_LAYERS, &s);
}

static void open_at(struct pool *pool, void *memory)
{
    struct kv_shape s = shape();
    set_layers(pool);
    CHECK_INT(kv_pool_init_at(&pool->p, pool->layers, N_LAYERS, &s, memory), 0);
}

static void *new_memory(void)
{
    void *m = mmap(NULL, pool_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(m != MAP_FAILED);
    return m;
}

/* ---- content: what a block of a text must hold, by the text alone ---- */

static uint64_t text_hash(const int32_t *ids, int64_t n)
{
    uint64_t h = 1469598103934665603u; /* FNV-1a, which the pool does not use */
    for (int64_t i = 0; i < n; i++) {
        h = (h ^ (uint64_t)ids[i]) * 1099511628211u;
    }
    return h;
}

static void fill(char *to, size_t n, uint64_t h)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = (char)(h >> 8 * (i % 8)) + (char)i;
    }
}

static bool is_filled(const char *x, size_t n, uint64_t h)
{
    for (size_t i = 0; i < n; i++) {
        if (x[i] != (char)((char)(h >> 8 * (i % 8)) + (char)i)) {
            return false;
        }
    }
    return true;
}

static void write_block(struct kv_pool *p, int32_t block, const int32_t *text, int64_t n)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t bytes = kv_block_bytes(&p->layers[i]);
        fill(p->layers[i].data + (size_t)block * bytes, bytes, text_hash(text, n) + i);
    }
    memcpy(p->ids + (int64_t)block * KV_BLOCK, text + n - KV_BLOCK, KV_BLOCK * sizeof(int32_t));
}

/* Follows a text from the root; what is found must be right. Returns the blocks found. */
static int64_t follow(struct kv_pool *p, const int32_t *text, int64_t n)
{
    int32_t at = kv_root(p);
    int64_t found = 0;
    while ((found + 1) * KV_BLOCK <= n) {
        at = kv_find(p, at, text + found * KV_BLOCK);
        if (at == KV_NONE) {
            break;
        }
        found++;
        uint64_t h = text_hash(text, found * KV_BLOCK);
        for (size_t i = 0; i < p->n_layers; i++) {
            size_t bytes = kv_block_bytes(&p->layers[i]);
            CHECK(is_filled(p->layers[i].data + (size_t)at * bytes, bytes, h + i));
        }
        int32_t snapshot = kv_snapshot_of(p, at, false);
        if (snapshot != KV_NONE) {
            CHECK(is_filled(p->snapshot_data + snapshot * STATE_BYTES, STATE_BYTES, ~h));
        }
    }
    return found;
}

/* Nothing is lost or held twice, and all can be taken. */
static void check_accounts(struct kv_pool *p)
{
    CHECK_INT(p->n_free + p->n_idle, p->limit);
    for (int64_t i = 0; i < p->limit; i++) {
        CHECK(kv_take(p) >= 0); /* evicts children before their parents, or an assertion fails */
    }
    CHECK_INT(kv_take(p), -ENOSPC);
}

/* ---- a writer ---- */

enum { TEXTS = 4, TEXT_BLOCKS = 3 };

/* Texts that share their first block, two by two. */
static void make_text(int which, int32_t *text)
{
    for (int i = 0; i < TEXT_BLOCKS * KV_BLOCK; i++) {
        text[i] = i < KV_BLOCK ? which / 2 + i : which * 100 + i;
    }
}

/* Computes a text as a sequence does: takes what is there, publishes the rest, lets go. */
static void compute(struct kv_pool *p, int which)
{
    int32_t text[TEXT_BLOCKS * KV_BLOCK], held[TEXT_BLOCKS], at = kv_root(p);
    make_text(which, text);
    for (int i = 0; i < TEXT_BLOCKS; i++) {
        int32_t block = kv_find(p, at, text + i * KV_BLOCK);
        if (block != KV_NONE) {
            kv_ref(p, block);
        } else {
            int32_t own = kv_take(p);
            CHECK(own >= 0);
            write_block(p, own, text, (i + 1) * KV_BLOCK);
            block = kv_publish(p, at, own, KV_BLOCK);
        }
        held[i] = at = block;
        if (i > 0 && kv_snapshot_of(p, at, true) == KV_NONE) {
            int32_t snapshot = kv_snapshot_take(p, at);
            fill(p->snapshot_data + snapshot * STATE_BYTES, STATE_BYTES,
                 ~text_hash(text, (i + 1) * KV_BLOCK));
            kv_snapshot_commit(p, snapshot);
        }
    }
    for (int i = TEXT_BLOCKS; i-- > 0;) {
        kv_release(p, held[i]);
    }
}

/* Another process goes on in a copy of this memory. Returns the blocks that it finds. One that was
 * only stopped left nothing for the sums to find: what it had begun does not even claim to
 * stand. */
static int64_t go_on(const void *memory, void *copy, bool was_scribbled)
{
    int32_t text[TEXT_BLOCKS * KV_BLOCK];
    struct pool pool;
    int64_t found = 0;
    memcpy(copy, memory, pool_bytes());
    open_at(&pool, copy);
    for (int i = 0; i < TEXTS; i++) {
        make_text(i, text);
        found += follow(&pool.p, text, TEXT_BLOCKS * KV_BLOCK);
    }
    CHECK(was_scribbled || pool.p.stats.n_broken == 0);
    check_accounts(&pool.p);
    kv_pool_finish(&pool.p);
    return found;
}

static void stopped_after_every_instruction(void)
{
    void *memory = new_memory(), *copy = new_memory();
    char *last = calloc(1, pool_bytes());
    int64_t most = 0, n_states = 0;
    CHECK(last);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct pool pool;
        open_at(&pool, memory);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
            _exit(77);
        }
        raise(SIGSTOP);
        for (int i = 0; i < TEXTS; i++) { /* more blocks than there are: the first are evicted */
            compute(&pool.p, i);
        }
        _exit(0);
    }
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status)) {
        printf("skipped: this machine lets nobody trace\n");
        return;
    }
    while (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0) {
        CHECK_INT(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            break;
        }
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        if (memcmp(last, memory, pool_bytes()) != 0) {
            memcpy(last, memory, pool_bytes());
            int64_t found = go_on(memory, copy, false);
            most = MAX(most, found);
            n_states++;
        }
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(n_states > 1000 && most >= n_blocks);
    free(last);
    munmap(memory, pool_bytes());
    munmap(copy, pool_bytes());
}

static void killed_at_any_moment(void)
{
    void *memory = new_memory(), *copy = new_memory();
    int64_t found = 0;
    for (int round = 0; round < 60; round++) {
        pid_t pid = fork(); /* each goes on where the last one was killed */
        CHECK(pid >= 0);
        if (pid == 0) {
            struct pool pool;
            open_at(&pool, memory);
            for (uint64_t i = (uint64_t)round;;
                 i = i * 6364136223846793005u + 1442695040888963407u) {
                compute(&pool.p, (int)(i >> 33) % TEXTS);
            }
        }
        usleep((useconds_t)(300 + round * 37));
        kill(pid, SIGKILL);
        CHECK_INT(waitpid(pid, NULL, 0), pid);
        found += go_on(memory, copy, false);
    }
    CHECK(found > 0);
    munmap(memory, pool_bytes());
    munmap(copy, pool_bytes());
}

/* ---- scribbles ---- */

static void whole(void *memory)
{
    struct pool pool;
    open_at(&pool, memory);
    for (int i = 0; i < TEXTS; i++) {
        compute(&pool.p, i);
    }
    kv_pool_finish(&pool.p);
}

static void scribbled_anywhere(void)
{
    n_blocks = MAX_BLOCKS;
    void *memory = new_memory(), *broken = new_memory(), *copy = new_memory();
    uint64_t rng = 5;
    size_t bytes = pool_bytes(), n_lost = 0;
    whole(memory);
    int64_t all = go_on(memory, copy, false);
    CHECK_INT(all, TEXTS * TEXT_BLOCKS);
    for (int round = 0; round < 3000; round++) {
        memcpy(broken, memory, bytes);
        size_t n = 1 + test_random(&rng) % 40;
        for (size_t i = 0; i < n; i++) {
            /* mostly where something stands */
            size_t limit = round % 4 == 0 ? bytes : bytes / MAX_BLOCKS * 12;
            ((char *)broken)[test_random(&rng) % limit] = (char)test_random(&rng);
        }
        int64_t found = go_on(broken, copy, true);
        CHECK(found <= all);
        n_lost += found < all;
    }
    CHECK(n_lost > 100);
    memset(broken, 0xff, bytes);
    CHECK_INT(go_on(broken, copy, true), 0);
    for (size_t i = 0; i < bytes; i++) {
        ((char *)broken)[i] = (char)test_random(&rng);
    }
    CHECK_INT(go_on(broken, copy, true), 0);
    munmap(memory, bytes);
    munmap(broken, bytes);
    munmap(copy, bytes);
}

/* Of a broken block nothing is believed, nor of what is behind it; the others are none the
 * worse. */
static void a_broken_block_goes_with_all_behind_it(void)
{
    void *memory = new_memory();
    struct pool pool;
    int32_t text[2][TEXT_BLOCKS * KV_BLOCK];
    make_text(0, text[0]);
    make_text(1, text[1]);
    whole(memory);
    open_at(&pool, memory);
    int32_t first = kv_find(&pool.p, kv_root(&pool.p), text[0]);
    int32_t second = kv_find(&pool.p, first, text[0] + KV_BLOCK);
    CHECK(second >= 0);
    pool.layers[1].data[(size_t)second * kv_block_bytes(&pool.layers[1]) + 3] ^= 1;
    kv_pool_finish(&pool.p);

    open_at(&pool, memory);
    CHECK_INT(pool.p.stats.n_restored, pool.p.n_idle);
    int64_t restored = pool.p.n_idle;
    CHECK_INT(follow(&pool.p, text[0], TEXT_BLOCKS * KV_BLOCK), 1);
    CHECK_INT(pool.p.stats.n_broken, 1);
    CHECK_INT(pool.p.n_idle, restored - 2); /* it and the third of that text */
    CHECK_INT(follow(&pool.p, text[1], TEXT_BLOCKS * KV_BLOCK), TEXT_BLOCKS);
    int32_t same;
    CHECK_INT(kv_find_part(&pool.p, first, text[0] + KV_BLOCK, KV_BLOCK, &same), KV_NONE);
    compute(&pool.p, 0); /* made again */
    CHECK_INT(follow(&pool.p, text[0], TEXT_BLOCKS * KV_BLOCK), TEXT_BLOCKS);
    check_accounts(&pool.p);
    kv_pool_finish(&pool.p);
    munmap(memory, pool_bytes());
}

static void another_model_finds_nothing(void)
{
    void *memory = new_memory();
    struct pool pool;
    struct kv_shape other = shape();
    whole(memory);
    other.seed++;
    set_layers(&pool);
    CHECK_INT(kv_pool_init_at(&pool.p, pool.layers, N_LAYERS, &other, memory), 0);
    CHECK_INT(pool.p.n_free, n_blocks);
    kv_pool_finish(&pool.p);
    munmap(memory, pool_bytes());
}

/* The least recently used go first, also after a restart. */
static void use_is_remembered(void)
{
    n_blocks = TEXTS * TEXT_BLOCKS;
    void *memory = new_memory();
    struct pool pool;
    int32_t text[TEXT_BLOCKS * KV_BLOCK];
    open_at(&pool, memory);
    for (int i = 0; i < TEXTS; i++) {
        compute(&pool.p, i);
    }
    compute(&pool.p, 0); /* text 1, 2, 3 are older now */
    kv_pool_finish(&pool.p);
    open_at(&pool, memory);
    while (pool.p.n_free > 0) {
        CHECK(kv_take(&pool.p) >= 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(kv_take(&pool.p) >= 0);
    }
    make_text(0, text);
    CHECK_INT(follow(&pool.p, text, TEXT_BLOCKS * KV_BLOCK), TEXT_BLOCKS);
    make_text(1, text);
    CHECK_INT(follow(&pool.p, text, TEXT_BLOCKS * KV_BLOCK), 1); /* the block that 0 shares */
    kv_pool_finish(&pool.p);
    munmap(memory, pool_bytes());
}

/* ---- fewer blocks and more ---- */

/* While a sequence holds a text, the pool gets smaller and larger: what stays is what it was, where
 * the pool says that it is, and whoever comes next in this memory finds it there. */
static void a_pool_gives_back_blocks(void)
{
    n_blocks = TEXTS * TEXT_BLOCKS + 5;
    void *memory = new_memory(), *copy = new_memory();
    uint64_t rng = 3;
    struct pool pool;
    int32_t text[TEXT_BLOCKS * KV_BLOCK], held[TEXT_BLOCKS];
    int64_t n_moved = 0;
    open_at(&pool, memory);
    struct kv_pool *p = &pool.p;
    for (int round = 0; round < 2000; round++) {
        compute(p, (int)(test_random(&rng) % TEXTS));
        make_text((int)(test_random(&rng) % TEXTS), text);
        int64_t n_held = follow(p, text, TEXT_BLOCKS * KV_BLOCK);
        for (int32_t i = 0, at = kv_root(p); i < n_held; i++) {
            held[i] = at = kv_find(p, at, text + i * KV_BLOCK);
            kv_ref(p, at);
        }
        int32_t own = kv_take(p); /* written, and not published yet */
        write_block(p, own, text, KV_BLOCK);
        int64_t wish = (int64_t)(test_random(&rng) % (uint64_t)(n_blocks + 3));
        int64_t got = kv_limit(p, wish);
        CHECK_INT(got, MIN(MAX(wish, n_held + 1), n_blocks));
        CHECK_INT(kv_available(p), got - n_held - 1);
        n_moved += p->moved[own] != own;
        own = p->moved[own];
        CHECK(own < got && memcmp(p->ids + own * KV_BLOCK, text, KV_BLOCK * sizeof *text) == 0);
        CHECK(is_filled(p->layers[0].data + (size_t)own * kv_block_bytes(&p->layers[0]),
                        kv_block_bytes(&p->layers[0]), text_hash(text, KV_BLOCK)));
        kv_release(p, own);
        CHECK_INT(follow(p, text, n_held * KV_BLOCK), n_held);
        for (int32_t i = 0, at = kv_root(p); i < n_held; i++) {
            at = kv_find(p, at, text + i * KV_BLOCK);
            CHECK(at == p->moved[held[i]] && at < got);
        }
        for (int64_t i = n_held; i-- > 0;) {
            kv_release(p, p->moved[held[i]]);
        }
        if (round % 50 == 0) {
            int64_t found = 0;
            for (int i = 0; i < TEXTS; i++) {
                make_text(i, text);
                found += follow(p, text, TEXT_BLOCKS * KV_BLOCK);
            }
            CHECK_INT(go_on(memory, copy, false), found);
        }
        kv_limit(p, MAX(got, TEXT_BLOCKS + 1)); /* for the next text */
    }
    CHECK(n_moved > 100);
    check_accounts(p);
    kv_pool_finish(p);
    munmap(memory, pool_bytes());
    munmap(copy, pool_bytes());
}

int main(void)
{
    stopped_after_every_instruction();
    killed_at_any_moment();
    scribbled_anywhere();
    a_broken_block_goes_with_all_behind_it();
    another_model_finds_nothing();
    use_is_remembered();
    a_pool_gives_back_blocks();
    return 0;
}
