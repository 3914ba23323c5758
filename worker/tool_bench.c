/* `bench`: prefill and decode rates of a model through the engine, beside what the memory of this
 * machine can deliver in the same run. Random tokens from a fixed seed; medians, with the spread. */
#include "kernels/cpu/pool.h"
#include "shared/clock.h"
#include "shared/num.h"
#include "shared/philox.h"
#include "shared/limits.h"
#include "worker/setup.h"
#include "worker/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16, MAX_REPEAT = 99, STREAM_BYTES = 512 * 1024 * 1024 };

struct list {
    int64_t v[MAX_LIST];
    size_t n;
};

struct measure { /* seconds of each repetition */
    double s[MAX_REPEAT];
    size_t n;
};

struct bench {
    struct engine *engine;
    struct engine_options options;
    const struct engine_info *info;
    struct engine_seq *seqs[LIMIT_SLOTS];
    struct engine_row *rows; /* owned */
    uint32_t draws;
    double stream_bytes_per_s;
    uint64_t step_bytes; /* weights that one step reads */
    bool json, is_first;
};

static int parse_list(const char *name, const char *text, int64_t min, int64_t max,
                      struct list *ret, struct err *e)
{
    char item[24];
    ret->n = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ",");
        int64_t v;
        snprintf(item, sizeof(item), "%.*s", (int)MIN(n, sizeof(item) - 1), p);
        if (ret->n == MAX_LIST || !num_parse_i64(item, &v) || v < min || v > max) {
            return err_set(e, ERR_USAGE, "--%s: '%s' is not a number of %lld to %lld", name, item,
                           (long long)min, (long long)max);
        }
        ret->v[ret->n++] = v;
        p += n + (p[n] == ',');
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct stream_job {
    const uint64_t *data;
    uint64_t *sums; /* per thread, 64 bytes apart */
};

static void stream_slice(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct stream_job *j = arg;
    uint64_t sum[8] = {0};
    for (int64_t i = lo; i < hi; i += 8) {
        for (int k = 0; k < 8; k++) {
            sum[k] += j->data[i + k];
        }
    }
    for (int k = 0; k < 8; k++) {
        j->sums[thread * 8] += sum[k];
    }
}

/* Bytes per second that the same number of threads read from memory in a plain loop. */
static double stream_rate(int n_threads)
{
    struct pool *pool;
    if (pool_create(n_threads, &pool) < 0) {
        return NAN;
    }
    struct stream_job j = {.data = aligned_alloc(4096, STREAM_BYTES),
                           .sums = calloc((size_t)pool_threads(pool) * 8, sizeof(uint64_t))};
    double best = INFINITY;
    if (j.data && j.sums) {
        memset((void *)(uintptr_t)j.data, 1, STREAM_BYTES);
        for (int i = 0; i < 7; i++) {
            uint64_t start = clock_ns();
            pool_run(pool, STREAM_BYTES / 8, 1 << 15, stream_slice, &j);
            best = fmin(best, (double)(clock_ns() - start) * 1e-9);
        }
    }
    free((void *)(uintptr_t)j.data);
    free(j.sums);
    pool_destroy(&pool);
    return STREAM_BYTES / best;
}

static int32_t random_token(struct bench *b)
{
    return (int32_t)(philox_uniform(1, 0, b->draws++, 0) * (double)b->info->n_vocab);
}

/* Appends n random tokens to each of the first n_seqs sequences, one sequence after the other. */
static int prefill(struct bench *b, size_t n_seqs, int64_t n, struct err *e)
{
    const float *logits[1];
    for (size_t s = 0; s < n_seqs; s++) {
        for (int64_t done = 0; done < n;) {
            int64_t rows = MIN(n - done, b->options.max_rows);
            for (int64_t i = 0; i < rows; i++) {
                b->rows[i] = (struct engine_row){.seq = b->seqs[s],
                                                 .token = random_token(b),
                                                 .want_logits = done + i + 1 == n};
            }
            int err = engine_seq_reserve(b->engine, b->seqs[s], rows);
            err = err < 0 ? err : engine_step(b->engine, b->rows, rows, logits, e);
            if (err < 0) {
                return err;
            }
            done += rows;
        }
    }
    return 0;
}

static int decode(struct bench *b, size_t n_seqs, int64_t n, struct err *e)
{
    const float *logits[LIMIT_SLOTS];
    for (int64_t i = 0; i < n; i++) {
        for (size_t s = 0; s < n_seqs; s++) {
            int err = engine_seq_reserve(b->engine, b->seqs[s], 1);
            if (err < 0) {
                return err;
            }
            b->rows[s] = (struct engine_row){
                .seq = b->seqs[s], .token = random_token(b), .want_logits = true};
        }
        int err = engine_step(b->engine, b->rows, (int64_t)n_seqs, logits, e);
        if (err < 0) {
            return err;
        }
    }
    return 0;
}

static void close_seqs(struct bench *b, size_t n)
{
    for (size_t s = 0; s < n; s++) {
        engine_seq_destroy(b->engine, &b->seqs[s]);
    }
}

/* n tokens at that depth, for n_seqs sequences at once; is_decode: token by token. */
static int run(struct bench *b, bool is_decode, size_t n_seqs, int64_t n, int64_t depth,
               int64_t repeat, struct measure *ret, struct err *e)
{
    ret->n = 0;
    for (int64_t r = -1; r < repeat; r++) { /* the first round warms up */
        int err = 0;
        size_t made = 0;
        for (; made < n_seqs && err == 0; made += err == 0) {
            err = engine_seq_create(b->engine, &b->seqs[made]);
        }
        if (err == 0 && depth > 0) {
            err = prefill(b, n_seqs, depth, e);
        }
        uint64_t start = clock_ns();
        if (err == 0) {
            err = is_decode ? decode(b, n_seqs, n, e) : prefill(b, n_seqs, n, e);
        }
        double s = (double)(clock_ns() - start) * 1e-9;
        close_seqs(b, made);
        if (err < 0) {
            return err == -ENOSPC ? err_set(e, ERR_CONFIG,
                                            "%zu sequences of %lld tokens do not fit the KV cache "
                                            "(raise --ctx-size or --kv-memory-share)",
                                            n_seqs, (long long)(depth + n))
                                  : err;
        }
        if (r >= 0) {
            ret->s[ret->n++] = s;
        }
    }
    qsort(ret->s, ret->n, sizeof(ret->s[0]), by_value);
    return 0;
}

static void report(struct bench *b, bool is_decode, size_t n_seqs, int64_t n, int64_t depth,
                   const struct measure *m)
{
    double tokens = (double)n * (double)n_seqs;
    double median = tokens / m->s[m->n / 2];
    double lo = tokens / m->s[m->n - 1], hi = tokens / m->s[0];
    double kv_per_token = (double)b->info->kv_bytes /
                          ((double)b->info->n_blocks * ENGINE_BLOCK_TOKENS);
    double kv_bytes = kv_per_token * ((double)depth + (double)n / 2) * (double)n_seqs;
    double rate = median / (double)n_seqs * ((double)b->step_bytes + kv_bytes);
    char test[48];
    snprintf(test, sizeof(test), "%s %lld", is_decode ? "decode" : "prefill", (long long)n);
    if (b->json) {
        printf("%s\n  {\"test\":\"%s\",\"tokens\":%lld,\"depth\":%lld,\"batch\":%zu,"
               "\"tokens_per_s\":%.3f,\"min\":%.3f,\"max\":%.3f,\"repeats\":%zu}",
               b->is_first ? "" : ",", is_decode ? "decode" : "prefill", (long long)n,
               (long long)depth, n_seqs, median, lo, hi, m->n);
        b->is_first = false;
        return;
    }
    printf("%-14s %7lld %6zu %12.2f %9.2f .. %-9.2f", test, (long long)depth, n_seqs, median, lo,
           hi);
    if (is_decode) {
        printf(" %7.1f GB/s %4.0f %%", rate * 1e-9, rate / b->stream_bytes_per_s * 100);
    }
    putchar('\n');
    fflush(stdout);
}

static int run_all(struct bench *b, const struct list *prompts, const struct list *generates,
                   const struct list *depths, const struct list *batches, int64_t repeat,
                   struct err *e)
{
    struct measure m;
    for (size_t d = 0; d < depths->n; d++) {
        for (size_t i = 0; i < prompts->n; i++) {
            int err = run(b, false, 1, prompts->v[i], depths->v[d], repeat, &m, e);
            if (err < 0) {
                return err;
            }
            report(b, false, 1, prompts->v[i], depths->v[d], &m);
        }
        for (size_t i = 0; i < generates->n; i++) {
            for (size_t k = 0; k < batches->n; k++) {
                size_t n_seqs = (size_t)batches->v[k];
                int err = run(b, true, n_seqs, generates->v[i], depths->v[d], repeat, &m, e);
                if (err < 0) {
                    return err;
                }
                report(b, true, n_seqs, generates->v[i], depths->v[d], &m);
            }
        }
    }
    return 0;
}

static int64_t largest(const struct list *l)
{
    int64_t best = 0;
    for (size_t i = 0; i < l->n; i++) {
        best = MAX(best, l->v[i]);
    }
    return best;
}

/* Bytes of the matrices a step reads: the embedding only where it also serves as the output. */
static uint64_t step_bytes(const struct gguf *g)
{
    bool is_tied = !gguf_find_tensor(g, "output.weight");
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (is_tied || strcmp(g->tensors[i].name, "token_embd.weight") != 0) {
            sum += g->tensors[i].n_bytes;
        }
    }
    return sum;
}

static int bench(struct config *c, struct bench *b, const char *const texts[4], int64_t repeat,
                 struct err *e)
{
    struct list prompts, generates, depths, batches;
    char *name, *path;
    int err = parse_list("prompt", texts[0], 1, 1 << 20, &prompts, e);
    err = err < 0 ? err : parse_list("generate", texts[1], 1, 1 << 20, &generates, e);
    err = err < 0 ? err : parse_list("depth", texts[2], 0, 1 << 20, &depths, e);
    err = err < 0 ? err : parse_list("batch", texts[3], 1, LIMIT_SLOTS, &batches, e);
    err = err < 0 ? err : setup_engine(c, &b->options, e);
    err = err < 0 ? err : setup_model(c, &name, &path, e);
    if (err < 0) {
        return err;
    }
    int64_t need = largest(&depths) + MAX(largest(&prompts), largest(&generates));
    if (b->options.n_ctx == 0) {
        b->options.n_ctx = need;
    }
    b->options.n_seqs = largest(&batches);
    b->options.max_logits = b->options.n_seqs;
    err = engine_open(path, &b->options, &b->engine, e);
    if (err == 0) {
        b->info = engine_info(b->engine);
        b->rows = calloc((size_t)MAX(b->options.max_rows, LIMIT_SLOTS), sizeof(*b->rows));
        b->stream_bytes_per_s = stream_rate(b->options.n_threads);
        b->step_bytes = step_bytes(engine_gguf(b->engine));
        if (b->json) {
            printf("{\"model\":\"%s\",\"arch\":\"%s\",\"quant\":\"%s\",\"device\":\"%s\","
                   "\"stream_gb_per_s\":%.2f,\"results\":[",
                   name, b->info->arch, b->info->quant, b->info->device,
                   b->stream_bytes_per_s * 1e-9);
        } else {
            printf("%s: %s %s, %.1f MiB of weights; %s; plain read %.1f GB/s\n", name,
                   b->info->arch, b->info->quant, (double)b->info->weight_bytes / 1048576,
                   b->info->device, b->stream_bytes_per_s * 1e-9);
            printf("%-14s %7s %6s %12s %23s %18s\n", "test", "depth", "batch", "tokens/s",
                   "slowest .. fastest", "of plain read");
        }
        b->is_first = true;
        err = b->rows ? run_all(b, &prompts, &generates, &depths, &batches, repeat, e) : -ENOMEM;
        if (b->json) {
            printf("\n]}\n");
        }
        free(b->rows);
        engine_close(&b->engine);
    }
    free(name);
    free(path);
    return err;
}

int tool_bench(int argc, char **argv)
{
    const char *texts[4] = {"512", "128", "0", "1"};
    int64_t repeat = 5;
    struct bench b = {0};
    const struct option_spec specs[] = {
        {"prompt", 'p', OPTION_STR, &texts[0], 0, 0, "prefill lengths, comma-separated (512)"},
        {"generate", 'n', OPTION_STR, &texts[1], 0, 0, "decode lengths (128)"},
        {"depth", 'd', OPTION_STR, &texts[2], 0, 0, "tokens that stand before (0)"},
        {"batch", 'b', OPTION_STR, &texts[3], 0, 0, "sequences decoded together (1)"},
        {"repeat", 'r', OPTION_INT, &repeat, 1, MAX_REPEAT, "repetitions of each test (5)"},
        {"json", 0, OPTION_FLAG, &b.json, 0, 0, "print JSON"},
    };
    struct options o = {
        .usage = "bench -m MODEL [options]",
        .summary = "Measures prefill and decode rates of a model.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = setup_keys,
        .n_keys = setup_n_keys,
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1) {
        err = bench(&c, &b, texts, repeat, &e);
    }
    return tool_finish("bench", &c, err, &e);
}
