/* The engine against reference logits: every model file of the reference data that has a golden
 * file, with every instruction set of this machine, in one table.
 *
 *   golden_test [--quick | PART-OF-NAME]
 *
 * Bars: the scalar form (weights decoded, F32 everything) at most 1e-9 from `exact`; fast forms at
 * most max(1.1 x the peer's own distance, 1e-6), for the tiny random models of archs/ 5e-6; greedy
 * continuations equal where the file's weights are at least Q8_0-like. Distance: NMSE over the rows
 * of the prompt. A row of a mixture of experts whose router has a near-tie may go another way: at
 * most 2 % of the rows, and they are named. */
#include "shared/clock.h"
#include "shared/json.h"
#include "tests/test.h"
#include "worker/engine.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>

struct golden {
    int64_t n_vocab, n_prompt, n_rows, n_greedy;
    int32_t *ids; /* prompt, then greedy */
    float *rows;  /* n_rows x n_vocab */
};

static char *read_file(const char *path, size_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        return NULL;
    }
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(n + 1);
    CHECK(data && fread(data, 1, n, f) == n);
    data[n] = 0;
    fclose(f);
    *ret_n = n;
    return data;
}

static bool golden_read(const char *path, struct golden *ret)
{
    size_t n;
    char *data = read_file(path, &n);
    if (!data) {
        return false;
    }
    char *end = memchr(data, '\n', n);
    json_t *j = NULL;
    CHECK(end && json_parse(data, (size_t)(end - data), &j, NULL) == 0);
    CHECK(json_is_true(json_object_get(j, "full")));
    *ret = (struct golden){.n_vocab = json_integer_value(json_object_get(j, "n_vocab")),
                           .n_prompt = json_integer_value(json_object_get(j, "n_prompt")),
                           .n_rows = json_integer_value(json_object_get(j, "n_rows"))};
    json_t *prompt = json_object_get(j, "prompt"), *greedy = json_object_get(j, "greedy");
    CHECK_INT(json_array_size(prompt), ret->n_prompt);
    ret->n_greedy = (int64_t)json_array_size(greedy);
    ret->ids = calloc((size_t)(ret->n_prompt + ret->n_greedy + 1), sizeof *ret->ids);
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        ret->ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    }
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        ret->ids[ret->n_prompt + (int64_t)i] =
            (int32_t)json_integer_value(json_array_get(greedy, i));
    }
    size_t bytes = (size_t)(ret->n_rows * ret->n_vocab) * sizeof(float);
    CHECK_INT(n - (size_t)(end + 1 - data), bytes);
    ret->rows = malloc(bytes);
    memcpy(ret->rows, end + 1, bytes);
    json_decref(j);
    free(data);
    return true;
}

static void golden_free(struct golden *g)
{
    free(g->ids);
    free(g->rows);
}

/* Logits of all rows; negative on a model that cannot be opened. */
static int compute(const char *path, enum isa isa, const struct golden *g, float *ret,
                   struct err *e)
{
    struct engine_options o = {.n_threads = 2,
                               .isa = isa,
                               .kv_type = TYPE_F32,
                               .n_ctx = g->n_rows,
                               .n_seqs = 1,
                               .max_rows = 64,
                               .max_logits = 64,
                               .kv_memory_share = 0.5};
    struct engine *en;
    int err = engine_open(path, &o, &en, e);
    if (err < 0) {
        return err;
    }
    struct engine_seq *seq;
    CHECK(engine_seq_create(en, &seq) == 0);
    CHECK(engine_seq_reserve(en, seq, g->n_rows) == 0);
    CHECK_INT(engine_info(en)->n_vocab, g->n_vocab);
    for (int64_t first = 0; first < g->n_rows; first += o.max_rows) {
        struct engine_row rows[64];
        const float *logits[64];
        int64_t n = MIN(o.max_rows, g->n_rows - first);
        for (int64_t i = 0; i < n; i++) {
            rows[i] = (struct engine_row){seq, g->ids[first + i], true, 0};
        }
        err = engine_step(en, rows, n, logits, e);
        if (err < 0) {
            break;
        }
        for (int64_t i = 0; i < n; i++) {
            memcpy(ret + (first + i) * g->n_vocab, logits[i], (size_t)g->n_vocab * sizeof *ret);
        }
    }
    engine_seq_destroy(en, &seq);
    engine_close(&en);
    return err;
}

struct distance {
    double error, power;
};

static struct distance row_distance(const float *a, const float *b, int64_t n)
{
    struct distance d = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        d.error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        d.power += (double)b[i] * (double)b[i];
    }
    return d;
}

/* NMSE over the prompt; rows that are far off are left out when few enough, and counted. */
static double nmse(const float *a, const struct golden *g, double bar, bool may_flip,
                   int *ret_flips)
{
    double error = 0, power = 0;
    *ret_flips = 0;
    for (int64_t r = 0; r < g->n_prompt; r++) {
        struct distance d =
            row_distance(a + r * g->n_vocab, g->rows + r * g->n_vocab, g->n_vocab);
        if (may_flip && d.error / d.power > 100 * bar && *ret_flips < g->n_prompt / 50 + 1) {
            printf("    row %d: %.1e, judged by itself\n", (int)r, d.error / d.power);
            ++*ret_flips;
            continue;
        }
        error += d.error;
        power += d.power;
    }
    return error / power;
}

static int64_t argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

/* How many of the recorded continuation's ids our logits choose too, up to the first other one. */
static int64_t greedy_equal(const float *rows, const struct golden *g)
{
    for (int64_t i = 0; i < g->n_greedy; i++) {
        int64_t row = g->n_prompt - 1 + i;
        if (argmax(rows + row * g->n_vocab, g->n_vocab) != g->ids[g->n_prompt + i]) {
            return i;
        }
    }
    return g->n_greedy;
}

static bool is_fine_grained(const char *name)
{
    return strstr(name, "F32") || strstr(name, "F16") || strstr(name, "BF16") ||
           strstr(name, "Q8_0");
}

struct tally {
    int n_files, n_failed, n_unsupported;
};

static void judge(const char *dir, const char *name, bool is_arch, struct tally *t)
{
    char path[512], golden[560];
    struct golden exact, peer;
    double peer_distance = 0;
    int flips;
    snprintf(path, sizeof path, "%s/%s.gguf", dir, name);
    snprintf(golden, sizeof golden, "%s/%s.exact.golden", dir, name);
    if (!golden_read(golden, &exact)) {
        return;
    }
    snprintf(golden, sizeof golden, "%s/%s.peer.golden", dir, name);
    if (golden_read(golden, &peer)) {
        peer_distance = nmse(peer.rows, &exact, 0, false, &flips);
        golden_free(&peer);
    }
    float *rows = malloc((size_t)(exact.n_rows * exact.n_vocab) * sizeof *rows);
    t->n_files++;
    for (int isa = ISA_SCALAR; isa <= (int)isa_detect(); isa++) {
        struct err e = {0};
        int err = compute(path, (enum isa)isa, &exact, rows, &e);
        if (err == ERR_MODEL_ARCH || err == -ENOTSUP || err == ERR_GGUF_TYPE) {
            printf("%-32s not supported yet: %s: %s\n", name, err_text(err), e.detail);
            t->n_unsupported++;
            break;
        }
        if (err < 0) {
            printf("%-32s %-7s FAILED: %s: %s\n", name, isa_name((enum isa)isa), err_text(err),
                   e.detail);
            t->n_failed++;
            continue;
        }
        double bar = isa == ISA_SCALAR ? 1e-9 : is_arch ? 5e-6 : fmax(1.1 * peer_distance, 1e-6);
        double d = nmse(rows, &exact, bar, strstr(name, "moe") != NULL, &flips);
        int64_t n_equal = greedy_equal(rows, &exact);
        bool must_equal = isa == ISA_SCALAR || is_arch || is_fine_grained(name);
        bool ok = d <= bar && flips <= (int)(exact.n_prompt / 50) &&
                  (!must_equal || n_equal == exact.n_greedy);
        printf("%-32s %-7s distance %.2e  bar %.2e  peer %.2e  greedy %2d/%-2d %s\n", name,
               isa_name((enum isa)isa), d, bar, peer_distance, (int)n_equal, (int)exact.n_greedy,
               ok ? "ok" : "FAILED");
        t->n_failed += !ok;
    }
    free(rows);
    golden_free(&exact);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool is_quick(const char *name)
{
    static const char *const quick[] = {"stories260K-F32", "stories260K-x256-F16",
                                        "stories260K-x256-Q4_K_M", "stories260K-x256-Q8_0"};
    for (size_t i = 0; i < COUNT_OF(quick); i++) {
        if (strcmp(quick[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void judge_all(const char *dir, bool is_arch, bool quick, const char *only, struct tally *t)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, by_name);
    for (int i = 0; i < n; i++) {
        char *dot = strstr(names[i]->d_name, ".gguf");
        if (dot) {
            *dot = 0;
            if ((!only || strstr(names[i]->d_name, only)) &&
                (!quick || is_arch || is_quick(names[i]->d_name))) {
                judge(dir, names[i]->d_name, is_arch, t);
            }
        }
        free(names[i]);
    }
    if (n > 0) {
        free(names);
    }
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const char *only = argc > 1 && !quick ? argv[1] : NULL;
    char dir[512];
    struct tally t = {0, 0, 0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(dir, sizeof dir, "%s/quants", test_data_dir());
    judge_all(dir, false, quick, only, &t);
    snprintf(dir, sizeof dir, "%s/archs", test_data_dir());
    judge_all(dir, true, quick, only, &t);
    printf("%d files, %d failures, %d not supported yet\n", t.n_files, t.n_failed, t.n_unsupported);
    return t.n_failed > 0 || t.n_files == 0;
}
