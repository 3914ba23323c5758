/* Recurrent models on the GPU engine, whose steps cannot be done twice, as their states have gone
 * on: replayed steps of several sequences are not compared when they are new, so here they are; and
 * where a step gives no numbers, the next ones, from the beginning, take other ways. On the
 * emulator. */
#include "kernels/cpu/isa.h"
#include "shared/hash.h"
#include "tests/test.h"
#include "tests/worker/tiny_model.h"
#include "worker/engine.h"
#include "worker/gpu/door.h"

#include <unistd.h>

enum {
    N_SEQS = 3,
    N_PROMPT = 5,
    N_TOKENS = 12,
    N_LONG = 40, /* in one step, too many for a replay, which is compared when it is new */
};

static struct {
    struct door *door;
    char rules[64];
    struct engine *engine;
    int64_t n_vocab;
} t;

static void open_engine(const char *model, bool is_safe)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = TYPE_F16,
                               .n_ctx = 64,
                               .n_seqs = N_SEQS,
                               .max_rows = N_LONG,
                               .max_logits = N_SEQS,
                               .kv_memory_bytes = 1 << 20,
                               .door = t.door,
                               .vram_bytes = 1u << 30,
                               .gpu_layers = -1,
                               .is_gpu_required = true,
                               .is_safe = is_safe};
    struct err e = {0};
    if (engine_open(model, &o, &t.engine, &e) != 0) {
        TEST_FAIL("%s: %s", model, e.detail);
    }
    t.n_vocab = engine_info(t.engine)->n_vocab;
}

static struct engine_row row(struct engine_seq *s, int text, int64_t at)
{
    return (struct engine_row){s, (int32_t)((at * at + 5 * text + 3 * at * text) % t.n_vocab),
                               at >= N_PROMPT - 1, 0};
}

/* The texts first to first + n, side by side; hashes the logits of all tokens from the prompt's
 * last on. */
static void run(int first, int n, uint64_t ret[][N_TOKENS])
{
    struct engine_seq *s[N_SEQS];
    struct engine_row rows[N_PROMPT * N_SEQS];
    const float *logits[N_SEQS];
    struct err e = {0};
    for (int i = 0; i < n; i++) {
        CHECK_INT(engine_seq_create(t.engine, &s[i]), 0);
        CHECK_INT(engine_seq_reserve(t.engine, s[i], N_TOKENS), 0);
    }
    for (int64_t at = 0, end = N_PROMPT; at < N_TOKENS; at = end++) {
        int64_t n_rows = 0;
        for (int i = 0; i < n; i++) {
            for (int64_t k = at; k < end; k++) {
                rows[n_rows++] = row(s[i], first + i, k);
            }
        }
        CHECK_INT(engine_step(t.engine, rows, n_rows, logits, &e), 0);
        for (int i = 0; i < n; i++) {
            ret[first + i][end - 1] = hash64(logits[i], (size_t)t.n_vocab * sizeof(float), 1);
        }
    }
    for (int i = 0; i < n; i++) {
        engine_seq_destroy(t.engine, &s[i]);
    }
}

static void replays_of_several_runs_are_as_each_alone(const char *model)
{
    static uint64_t plain[N_SEQS][N_TOKENS], got[N_SEQS][N_TOKENS];
    open_engine(model, true);
    for (int i = 0; i < N_SEQS; i++) {
        run(i, 1, plain);
    }
    CHECK_STR(engine_way(t.engine), "plain");
    engine_close(&t.engine);
    open_engine(model, false);
    run(0, N_SEQS, got);
    CHECK(strstr(engine_way(t.engine), "replay"));
    CHECK_INT(engine_n_ways_off(t.engine), 0);
    CHECK(memcmp(plain, got, sizeof plain) == 0);
    engine_close(&t.engine);
}

static void rule(const char *text)
{
    FILE *f = fopen(t.rules, "we");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* A text of one step. */
static int compute(void)
{
    struct engine_seq *s;
    struct engine_row rows[N_LONG];
    const float *logits;
    struct err e = {0};
    CHECK_INT(engine_seq_create(t.engine, &s), 0);
    CHECK_INT(engine_seq_reserve(t.engine, s, N_LONG), 0);
    for (int64_t at = 0; at < N_LONG; at++) {
        rows[at] = row(s, 1, at);
        rows[at].want_logits = at == N_LONG - 1;
    }
    int err = engine_step(t.engine, rows, N_LONG, &logits, &e);
    engine_seq_destroy(t.engine, &s);
    return err;
}

static void without_numbers_other_ways_are_taken(const char *model)
{
    open_engine(model, false);
    CHECK_INT(compute(), 0);
    CHECK(strcmp(engine_way(t.engine), "plain") != 0);

    rule("nan@norm*0"); /* whatever way: no way is blamed */
    CHECK_INT(compute(), ERR_NUMERIC);
    CHECK(engine_can_retry(t.engine));
    CHECK_INT(compute(), ERR_NUMERIC);
    CHECK_STR(engine_way(t.engine), "plain");
    CHECK(!engine_can_retry(t.engine));
    unlink(t.rules);
    CHECK_INT(compute(), 0);
    CHECK(strcmp(engine_way(t.engine), "plain") != 0);
    CHECK_INT(engine_n_ways_off(t.engine), 0);

    rule("nan@norm"); /* once */
    CHECK_INT(compute(), ERR_NUMERIC);
    CHECK(engine_can_retry(t.engine));
    CHECK_INT(compute(), 0);
    CHECK(!engine_can_retry(t.engine));
    CHECK(engine_n_ways_off(t.engine) > 0);
    CHECK_INT(compute(), 0);
    CHECK_STR(engine_way(t.engine), "plain");
    engine_close(&t.engine);
}

int main(void)
{
    struct door_options o = {.pci = "0000:03:00.0", .kernel_dir = getenv("ROCMFORGE_KERNEL_DIR")};
    struct err e = {0};
    char path[400];
    snprintf(t.rules, sizeof t.rules, "/tmp/recurrent_test-%d", (int)getpid());
    setenv("HIP_DOUBLE_FILE", t.rules, 1);
    if (door_open(&o, &t.door, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    const char *tiny = tiny_model_file(tiny_model_find("lfm2moe"), TYPE_Q8_0);
    replays_of_several_runs_are_as_each_alone(tiny);
    without_numbers_other_ways_are_taken(tiny);
    snprintf(path, sizeof path, "%s/archs/mamba2-dense-F16.gguf", test_data_dir());
    replays_of_several_runs_are_as_each_alone(path);
    door_close(&t.door);
    return 0;
}
