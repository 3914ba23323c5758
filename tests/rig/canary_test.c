/* The canary (worker/canary.h), on the emulator: the watchdog is told of every step; and where the
 * card is not believed, nor are the KV caches that it wrote, of whatever model. */
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "kernels/cpu/isa.h"
#include "tests/test.h"
#include "tests/worker/tiny_model.h"
#include "worker/canary.h"
#include "worker/gpu/door.h"
#include "worker/gpu/gpu_emit.h"
#include "worker/stores.h"

#include <sys/wait.h>
#include <unistd.h>

static struct {
    struct status_page page;
    struct door *door;
    struct channel own, peer; /* the peer's end stands for the supervisor */
    struct stores *stores;
    struct engine *engine;
    char rules[64];
} t;

static void open_door(void)
{
    struct door_options o = {.pci = "0000:03:00.0",
                             .kernel_dir = getenv("ROCMFORGE_KERNEL_DIR"),
                             .status = &t.page};
    struct err e = {0};
    if (door_open(&o, &t.door, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

static void open_engine(void)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = TYPE_F16,
                               .n_ctx = 2 * ENGINE_BLOCK_TOKENS,
                               .n_seqs = 1,
                               .max_rows = 2 * ENGINE_BLOCK_TOKENS,
                               .max_logits = 1,
                               .kv_memory_bytes = 1 << 20,
                               .kv_memory_share = 0.5,
                               .door = t.door,
                               .vram_bytes = 1u << 30,
                               .gpu_layers = -1,
                               .is_gpu_required = true,
                               .stores = t.stores};
    struct err e = {0};
    const char *model = tiny_model_file(tiny_model_find("llama"), TYPE_Q8_0);
    if (engine_open(model, &o, &t.engine, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
}

static void open_stores(void)
{
    int fds[2];
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&t.own, fds[0], MSG_WORKER, MSG_SUPERVISOR);
    channel_init(&t.peer, fds[1], MSG_SUPERVISOR, MSG_WORKER);
    t.own.state = MSG_STATE_GREETED;
    t.peer.state = MSG_STATE_RUNNING;
    t.stores = stores_create(&t.own, 1);
}

static void close_stores(void)
{
    stores_destroy(&t.stores);
    channel_close(&t.own);
    channel_close(&t.peer);
}

/* How many stores of a kind the supervisor is to keep. */
static int n_kept(enum store_kind kind)
{
    struct channel_msg m;
    int n = 0;
    while (channel_recv(&t.peer, &m) == 1) {
        struct msg_store store;
        memcpy(&store, m.payload, sizeof store);
        CHECK(m.type == MSG_STORE || m.type == MSG_DROP);
        n += store.kind != kind ? 0 : m.type == MSG_STORE ? 1 : -1;
        channel_msg_finish(&m);
    }
    return n;
}

/* Another model's. */
static void keep_another(void)
{
    static const uint8_t key[STORE_KEY_BYTES] = {1};
    int fd = memfd_create_shared("rocmforge-kv", 4096);
    CHECK(fd >= 0);
    CHECK(stores_put(t.stores, STORE_KV, key, fd, 4096));
    stores_release(t.stores, STORE_KV, key);
}

static void each_step_is_told(void)
{
    open_door();
    open_engine();
    uint64_t before = atomic_load(&t.page.beat);
    canary_check(t.engine);
    CHECK(atomic_load(&t.page.beat) >= before + 5);
    CHECK_INT(atomic_load(&t.page.phase), STATUS_LOADING);
    engine_close(&t.engine);
    door_close(&t.door);
}

static void what_a_distrusted_card_wrote_is_not_kept(void)
{
    open_stores();
    pid_t pid = fork();
    if (pid == 0) {
        open_door();
        open_engine();
        keep_another();
        FILE *f = fopen(t.rules, "we");
        CHECK(f && fputs("wrong@norm:3", f) >= 0 && fclose(f) == 0);
        canary_check(t.engine);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    unlink(t.rules);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), EXIT_GPU_FAULT);
    CHECK_INT(n_kept(STORE_KV), 0);
    close_stores();
}

static void what_a_sound_card_wrote_is_kept(void)
{
    open_stores();
    open_door();
    open_engine();
    keep_another();
    canary_check(t.engine);
    CHECK_INT(n_kept(STORE_KV), 2);
    engine_close(&t.engine);
    door_close(&t.door);
    close_stores();
}

int main(void)
{
    snprintf(t.rules, sizeof t.rules, "/tmp/canary_test-%d", (int)getpid());
    setenv("HIP_DOUBLE_FILE", t.rules, 1);
    what_a_distrusted_card_wrote_is_not_kept();
    what_a_sound_card_wrote_is_kept();
    each_step_is_told();
    return 0;
}
