/* Invariance of the GPU engine: logits are the same bits for 1, 3 and 8 sequences side by side,
 * however their prompts are cut, behind a reused prefix (of recurrent models: a state kept at the
 * border of a block, put back) and in a fork. And what a model's logits are is printed, so that
 * another implementation of the same kernels can be compared line by line: this program runs on the
 * emulator and, unchanged, on the CUDA rig's card (tests/rig/cuda).
 *
 * Usage: bits_test [--all] [FILE.gguf...]; without files small models, made on the spot, and two
 * recurrent ones of the reference data; without --all fewer of them, and fewer ways. The HIP
 * runtime is found through LD_LIBRARY_PATH; ROCMFORGE_KERNEL_DIR names the folder of code objects,
 * where it reads them. */
#include "kernels/cpu/isa.h"
#include "shared/hash.h"
#include "shared/num.h"
#include "tests/test.h"
#include "tests/worker/tiny_model.h"
#include "worker/engine.h"
#include "worker/gpu/door.h"

enum {
    N_SEQS = 8,
    LONGEST = 250, /* prompt; each sequence's is a ninth of it shorter than the one's before */
    N_DECODE = 10, /* of the first over position 256, where attention's second split begins */
    BRIEF = 24,    /* prompt, where a model would take long on the emulator */
    N_CTX = LONGEST + N_DECODE + 6,
    MAX_ROWS = N_SEQS * LONGEST
};

enum way { ALONE, REUSED, FORKED };

static struct {
    bool is_all;
    const char *model;
    struct engine *engine;
    int64_t n_vocab, longest;
    uint64_t logits[N_SEQS][N_CTX]; /* hash of those after a position; 0: not seen yet */
} t;

struct text { /* a sequence and how far it is */
    struct engine_seq *seq;
    int64_t at, n_prompt;
    bool is_forked;
};

static int32_t token_at(int sequence, int64_t i)
{
    return (int32_t)((i * i * 7 + i * (3 + sequence) + 11 * sequence) % t.n_vocab);
}

/* Not of every row: the output is the largest matrix. */
static bool is_wanted(const struct text *x, int64_t at)
{
    return at % 8 == 7 || at >= x->n_prompt - 1;
}

static void check(const char *what, int sequence, int64_t at, const float *logits)
{
    uint64_t hash = hash64(logits, (size_t)t.n_vocab * sizeof *logits, 1) | 1;
    uint64_t *known = &t.logits[sequence][at];
    if (*known && *known != hash) {
        TEST_FAIL("%s, %s: other logits of sequence %d behind position %lld", t.model, what,
                  sequence, (long long)at);
    }
    *known = hash;
}

/* The sequence goes on in a fork of it, in the middle of a block. */
static void fork_now(struct text *x)
{
    struct engine_seq *other;
    CHECK(engine_seq_fork(t.engine, x->seq, &other) == 0);
    engine_seq_destroy(t.engine, &x->seq);
    x->seq = other;
    x->is_forked = true;
}

/* All but the last token of the prompt, as far as they are known. */
static int64_t reuse(struct text *x, int sequence)
{
    int32_t ids[LONGEST];
    for (int64_t i = 0; i < x->n_prompt; i++) {
        ids[i] = token_at(sequence, i);
    }
    x->at = engine_seq_reuse(t.engine, x->seq, ids, x->n_prompt - 1);
    CHECK(x->at >= 0 && x->at < x->n_prompt);
    CHECK(engine_info(t.engine)->n_snapshots == 0 || x->at % ENGINE_BLOCK_TOKENS == 0);
    return x->at;
}

static int64_t add_rows(struct text *x, int sequence, int64_t chunk, struct engine_row *rows)
{
    int64_t n = x->at < x->n_prompt ? MIN(chunk, x->n_prompt - x->at) : 1;
    n = x->at < x->n_prompt + N_DECODE ? n : 0;
    CHECK(engine_seq_reserve(t.engine, x->seq, n) == 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = x->at + i;
        rows[i] = (struct engine_row){x->seq, token_at(sequence, at), is_wanted(x, at), 0};
    }
    return n;
}

static void step(const char *what, const struct engine_row *rows, int64_t n,
                 const struct text *of, int n_seqs)
{
    static const float *logits[MAX_ROWS];
    struct err e = {0};
    if (engine_step(t.engine, rows, n, logits, &e) != 0) {
        TEST_FAIL("%s, %s: %s", t.model, what, e.detail);
    }
    int64_t n_out = 0;
    for (int64_t i = 0, at = 0; i < n; i++, at++) {
        int s = 0;
        while (s < n_seqs && of[s].seq != rows[i].seq) {
            s++;
        }
        CHECK(s < n_seqs);
        at = i == 0 || rows[i - 1].seq != rows[i].seq ? of[s].at : at;
        if (rows[i].want_logits) {
            check(what, s, at, logits[n_out++]);
        }
    }
}

/* The first n_seqs sequences, side by side, each a step behind the one before, prompts in pieces of
 * `chunk`. */
static void run(int n_seqs, int64_t chunk, enum way way)
{
    static struct engine_row rows[MAX_ROWS];
    struct text x[N_SEQS] = {{0}};
    char what[80];
    int64_t n_reused = 0;
    snprintf(what, sizeof what, "batch %d, chunks of %lld%s", n_seqs, (long long)chunk,
             way == REUSED ? ", reused" : way == FORKED ? ", forked" : "");
    for (int s = 0; s < n_seqs; s++) {
        CHECK(engine_seq_create(t.engine, &x[s].seq) == 0);
        x[s].n_prompt = t.longest - t.longest / 9 * s;
        n_reused += way == REUSED ? reuse(&x[s], s) : 0;
    }
    CHECK(way != REUSED || n_reused > 0);
    for (int64_t n = 1, round = 0; n > 0; round++) {
        int64_t of[N_SEQS] = {0};
        n = 0;
        for (int s = 0; s < n_seqs && s <= round; s++) {
            if (way == FORKED && !x[s].is_forked && x[s].at > x[s].n_prompt / 2) {
                fork_now(&x[s]);
            }
            of[s] = add_rows(&x[s], s, chunk, rows + n);
            n += of[s];
        }
        if (n > 0) {
            step(what, rows, n, x, n_seqs);
        }
        for (int s = 0; s < n_seqs; s++) {
            x[s].at += of[s];
        }
    }
    for (int s = 0; s < n_seqs; s++) {
        engine_seq_destroy(t.engine, &x[s].seq);
    }
    printf("%s: %s", t.model, what);
    printf(way == REUSED ? " %lld tokens: equal\n" : ": equal\n", (long long)n_reused);
}

/* In safe mode too, without any of the fast ways (worker/gpu/gpu_route.def): what was seen with
 * them is known. */
static void run_plainly(const char *path, const struct engine_options *o)
{
    struct engine_options plain = *o;
    struct err e = {0};
    plain.is_safe = true;
    if (engine_open(path, &plain, &t.engine, &e) != 0) {
        TEST_FAIL("%s: %s", t.model, e.detail);
    }
    printf("%s: in safe mode\n", t.model);
    for (int n = t.is_all ? 1 : 3; n <= 3; n += 2) {
        run(n, 25, ALONE);
        CHECK_STR(engine_way(t.engine), "plain");
    }
    engine_close(&t.engine);
}

static void run_model(struct door *door, const char *path, enum type kv_type)
{
    struct engine_options o = {.n_threads = 1,
                               .isa = isa_detect(),
                               .kv_type = kv_type,
                               .n_ctx = N_CTX,
                               .n_seqs = N_SEQS + 1,
                               .max_rows = MAX_ROWS,
                               .max_logits = MAX_ROWS / 4,
                               .kv_memory_bytes = 256u << 20,
                               .door = door,
                               .vram_bytes = 4ull << 30,
                               .gpu_layers = -1,
                               .is_gpu_required = true};
    static const struct {
        int n_seqs;
        int64_t chunk;
        bool is_quick;
    } ways[] = {
        {1, LONGEST, true}, {1, 25, false}, {1, 19, false}, {1, 16, false}, {1, 1, false},
        {3, LONGEST, false}, {3, 25, true}, {3, 19, false}, {3, 16, false}, {3, 1, false},
        {8, LONGEST, false}, {8, 25, false}, {8, 19, false}, {8, 1, false}, {8, 16, true},
    };
    struct err e = {0};
    memset(t.logits, 0, sizeof t.logits);
    if (engine_open(path, &o, &t.engine, &e) != 0) {
        TEST_FAIL("%s: %s", t.model, e.detail);
    }
    t.n_vocab = engine_info(t.engine)->n_vocab;
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        if (t.is_all || ways[i].is_quick) {
            run(ways[i].n_seqs, ways[i].chunk, ALONE);
        }
    }
    for (int n = t.is_all ? 1 : N_SEQS; n <= N_SEQS; n += 7) {
        run(n, 19, REUSED);
        if (t.is_all) {
            run(n, 19, FORKED);
        }
    }
    for (int s = 0; s < N_SEQS; s++) {
        printf("%s: sequence %d %016" PRIx64 "\n", t.model, s,
               hash64(t.logits[s], sizeof t.logits[s], 1));
    }
    engine_close(&t.engine);
    run_plainly(path, &o);
    fflush(stdout);
}

/* Models that are made on the spot. */
static void run_tiny(struct door *door)
{
    static const struct {
        const char *name;
        enum type matrix, kv_type;
    } models[] = {
        {"llama", TYPE_Q4_0, TYPE_F16},          {"gemma3", TYPE_Q8_0, TYPE_Q8_0},
        {"olmoe", TYPE_Q8_0, TYPE_F16},          {"gpt-oss-yarn", TYPE_BF16, TYPE_F16},
        {"deepseek2", TYPE_F16, TYPE_F16},
    };
    t.longest = LONGEST;
    for (size_t i = 0; i < (t.is_all ? COUNT_OF(models) : 1); i++) {
        t.model = models[i].name;
        run_model(door, tiny_model_file(tiny_model_find(t.model), models[i].matrix),
                  models[i].kv_type);
    }
}

static void run_file(struct door *door, const char *path)
{
    const char *slash = strrchr(path, '/');
    t.model = slash ? slash + 1 : path;
    t.longest = BRIEF;
    run_model(door, path, TYPE_F16);
}

int main(int argc, char **argv)
{
    const char *dir = getenv("ROCMFORGE_KERNEL_DIR");
    struct door_options o = {.pci = "0000:03:00.0", .kernel_dir = dir ? dir : ""};
    struct door *door;
    struct err e = {0};
    if (door_open(&o, &door, &e) != 0) {
        TEST_FAIL("%s", e.detail);
    }
    t.is_all = argc > 1 && strcmp(argv[1], "--all") == 0;
    int first = t.is_all ? 2 : 1;
    for (int i = first; i < argc; i++) {
        run_file(door, argv[i]);
    }
    if (first == argc) {
        char path[400];
        run_tiny(door);
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/archs/%s-dense-F16.gguf", test_data_dir(),
                     i == 0 ? "qwen35" : "mamba2");
            run_file(door, path);
        }
    }
    door_close(&door);
    return 0;
}
