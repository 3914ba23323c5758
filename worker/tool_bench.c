/* `bench`: prefill and decode rates of a model through the engine, beside what the memory and the
 * arithmetic of this machine can deliver in the same run, and beside an earlier run. Random tokens
 * from a fixed seed; medians, with the spread. */
#include "kernels/cpu/peak.h"
#include "shared/clock.h"
#include "shared/limits.h"
#include "shared/num.h"
#include "shared/philox.h"
#include "shared/progress.h"
#include "worker/bench_result.h"
#include "worker/profile.h"
#include "worker/setup.h"
#include "worker/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 16, MAX_REPEAT = 99, MAX_MACHINES = MAX_LIST };

struct list {
    int64_t v[MAX_LIST];
    size_t n;
};

struct words {
    char v[MAX_LIST][24];
    size_t n;
};

struct plan { /* what the command line asks for */
    struct list prompts, generates, depths, batches;
    struct words kv_types, threads;
    int64_t repeat;
};

struct measure { /* of each repetition, sorted */
    double s[MAX_REPEAT];           /* seconds */
    double plain_bytes[MAX_REPEAT]; /* what a plain loop would have read in them; decode */
    size_t n;
};

struct bench {
    struct engine *engine;
    struct engine_options options;
    const struct engine_info *info;
    struct engine_seq *seqs[LIMIT_SLOTS];
    struct engine_row *rows; /* owned */
    uint32_t draws;
    struct bench_machine machines[MAX_MACHINES]; /* one for each thread count */
    size_t n_machines;
    struct bench_baseline *baseline; /* owned; NULL: none */
    struct progress progress;
    double slower, tolerance; /* the worst ratio to the baseline, and what is allowed */
    bool json, profile, is_first;
};

static int parse_words(const char *name, const char *text, struct words *ret, struct err *e)
{
    ret->n = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ",");
        if (ret->n == MAX_LIST || n == 0 || n >= sizeof(ret->v[0])) {
            return err_set(e, ERR_USAGE, "--%s: '%s' is not a list of at most %d words", name, text,
                           MAX_LIST);
        }
        snprintf(ret->v[ret->n++], sizeof(ret->v[0]), "%.*s", (int)n, p);
        p += n + (p[n] == ',');
    }
    return 0;
}

static int parse_list(const char *name, const char *text, int64_t min, int64_t max,
                      struct list *ret, struct err *e)
{
    struct words words;
    int err = parse_words(name, text, &words, e);
    ret->n = 0;
    for (size_t i = 0; err == 0 && i < words.n; i++) {
        if (!num_parse_i64(words.v[i], &ret->v[ret->n]) || ret->v[ret->n] < min ||
            ret->v[ret->n] > max) {
            return err_set(e, ERR_USAGE, "--%s: '%s' is not a number of %lld to %lld", name,
                           words.v[i], (long long)min, (long long)max);
        }
        ret->n++;
    }
    return err;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values; of an even number the mean of the two in the middle. */
static double median_of(const double *values, size_t n)
{
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static int32_t random_token(struct bench *b)
{
    return (int32_t)(philox_uniform(1, 0, b->draws++, 0) * (double)b->info->n_vocab);
}

/* Appends tokens to a sequence; ids NULL: random ones. */
static int append(struct bench *b, size_t seq, const int32_t *ids, int64_t n, struct err *e)
{
    const float *logits[1];
    for (int64_t done = 0; done < n;) {
        int64_t rows = MIN(n - done, b->options.max_rows);
        for (int64_t i = 0; i < rows; i++) {
            b->rows[i] = (struct engine_row){.seq = b->seqs[seq],
                                             .token = ids ? ids[done + i] : random_token(b),
                                             .want_logits = done + i + 1 == n};
        }
        int err = engine_seq_reserve(b->engine, b->seqs[seq], rows);
        err = err < 0 ? err : engine_step(b->engine, b->rows, rows, logits, e);
        if (err < 0) {
            return err;
        }
        done += rows;
    }
    return 0;
}

static int prefill(struct bench *b, size_t n_seqs, int64_t n, struct err *e)
{
    int err = 0;
    for (size_t s = 0; s < n_seqs && err == 0; s++) {
        err = append(b, s, NULL, n, e);
    }
    return err;
}

/* Brings fresh sequences to that depth. Their tokens are the same in every repetition, so that only
 * the first computes them where the cache keeps them. */
static int fill(struct bench *b, size_t n_seqs, int64_t depth, struct err *e)
{
    int32_t *ids = malloc((size_t)MAX(depth, (int64_t)1) * sizeof(*ids));
    int err = ids ? 0 : -ENOMEM;
    for (size_t s = 0; s < n_seqs && err == 0; s++) {
        for (int64_t i = 0; i < depth; i++) {
            ids[i] = (int32_t)(philox_uniform(2, (uint32_t)s, (uint32_t)i, 0) *
                               (double)b->info->n_vocab);
        }
        int64_t done = engine_seq_reuse(b->engine, b->seqs[s], ids,
                                        MIN(depth, b->info->n_ctx));
        err = append(b, s, ids + done, depth - done, e);
    }
    free(ids);
    return err;
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
            /* As for a greedy request. */
            b->rows[s] = (struct engine_row){
                .seq = b->seqs[s], .token = random_token(b), .want_logits = true, .n_top = 1};
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

/* n tokens at that depth, for n_seqs sequences at once; token by token where there is a plain loop
 * to compare with, which reads right before and right after: what memory gives does not stay. */
static int run(struct bench *b, const struct peak_read *plain, size_t n_seqs, int64_t n,
               int64_t depth, int64_t repeat, struct measure *ret, struct err *e)
{
    ret->n = 0;
    for (int64_t r = -1; r < repeat; r++) { /* the first round warms up */
        progress_show(&b->progress, (uint64_t)(r + 1), (uint64_t)repeat + 1);
        int err = 0;
        size_t made = 0;
        for (; made < n_seqs && err == 0; made += err == 0) {
            err = engine_seq_create(b->engine, &b->seqs[made]);
        }
        if (err == 0 && depth > 0) {
            err = fill(b, n_seqs, depth, e);
            if (engine_profile(b->engine)) {
                profile_clear(engine_profile(b->engine)); /* what stands before is not the test's */
            }
        }
        double before = plain && r >= 0 ? peak_read_now(plain) : 0;
        uint64_t start = clock_ns();
        if (err == 0) {
            err = plain ? decode(b, n_seqs, n, e) : prefill(b, n_seqs, n, e);
        }
        double s = (double)(clock_ns() - start) * 1e-9;
        double after = plain && r >= 0 ? peak_read_now(plain) : 0;
        close_seqs(b, made);
        if (err < 0) {
            return err == -ENOSPC ? err_set(e, ERR_CONFIG,
                                            "%zu sequences of %lld tokens do not fit the KV cache "
                                            "(raise --ctx-size or --kv-memory-share)",
                                            n_seqs, (long long)(depth + n))
                                  : err;
        }
        if (r >= 0) {
            ret->plain_bytes[ret->n] = s * (before + after) / 2;
            ret->s[ret->n++] = s;
        }
    }
    qsort(ret->s, ret->n, sizeof(ret->s[0]), by_value);
    qsort(ret->plain_bytes, ret->n, sizeof(ret->plain_bytes[0]), by_value);
    return 0;
}

static int run_decode(struct bench *b, const struct bench_machine *machine, size_t n_seqs,
                      int64_t n, int64_t depth, int64_t repeat, struct measure *ret, struct err *e)
{
    struct pool *pool;
    struct peak_read plain;
    int err = pool_create((int)machine->n_threads, &pool);
    if (err < 0) {
        return err_set(e, err, "thread pool");
    }
    err = peak_read_open(&plain, pool);
    if (err == 0) {
        err = run(b, &plain, n_seqs, n, depth, repeat, ret, e);
        peak_read_close(&plain);
    }
    pool_destroy(&pool);
    return err;
}

/* Bytes and multiply-adds of the matrices that a step of so many rows works on: the embedding only
 * where it also serves as the output; of experts those that may be expected to be chosen. */
static void step_work(const struct engine *en, double n_rows, double *ret_bytes, double *ret_macs)
{
    const struct gguf *g = engine_gguf(en);
    bool is_tied = !gguf_find_tensor(g, "output.weight");
    char key[96];
    uint64_t n_expert = 0, n_used = 0;
    snprintf(key, sizeof(key), "%s.expert_count", engine_info(en)->arch);
    bool has_experts = gguf_get_u64(g, key, 1, UINT32_MAX, 0, &n_expert, NULL) == 0 && n_expert > 0;
    snprintf(key, sizeof(key), "%s.expert_used_count", engine_info(en)->arch);
    has_experts = has_experts && gguf_get_u64(g, key, 1, n_expert, 0, &n_used, NULL) == 0;
    double chosen = has_experts ? (double)n_used / (double)n_expert : 1;
    *ret_bytes = *ret_macs = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (t->n_dims < 2 || (!is_tied && strcmp(t->name, "token_embd.weight") == 0)) {
            continue;
        }
        bool is_expert = has_experts && strstr(t->name, "_exps.");
        double values = (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2];
        *ret_bytes += (double)t->n_bytes * (is_expert ? 1 - pow(1 - chosen, n_rows) : 1);
        *ret_macs += values * (is_expert ? chosen : 1);
    }
}

static void report(struct bench *b, bool is_decode, int64_t batch, int64_t n, int64_t depth,
                   const char *kv_type, const struct bench_machine *machine,
                   const struct measure *m)
{
    double tokens = (double)n * (double)batch, bytes, macs;
    struct bench_result r = {.is_decode = is_decode,
                             .n_tokens = n,
                             .depth = depth,
                             .batch = batch,
                             .n_threads = machine->n_threads,
                             .kv_type = kv_type,
                             .median = tokens / median_of(m->s, m->n),
                             .least = tokens / m->s[m->n - 1],
                             .most = tokens / m->s[0],
                             .repeats = (int64_t)m->n};
    step_work(b->engine, (double)batch, &bytes, &macs);
    r.ops_per_s = r.median * 2 * macs;
    if (is_decode) {
        double kv_per_token = (double)b->info->kv_bytes /
                              ((double)b->info->n_blocks * ENGINE_BLOCK_TOKENS);
        double kv_bytes = kv_per_token * ((double)depth + (double)n / 2) * (double)batch;
        r.bytes_per_s = r.median / (double)batch * (bytes + kv_bytes);
        r.plain_bytes_per_s = median_of(m->plain_bytes, m->n) / median_of(m->s, m->n);
    }
    double earlier = bench_baseline_find(b->baseline, &r);
    if (earlier > 0) {
        b->slower = fmin(b->slower, r.median / earlier);
    }
    struct buf out;
    buf_init(&out, 0);
    if (b->json) {
        buf_str(&out, b->is_first ? "\n  " : ",\n  ");
        bench_put_json(&out, &r, machine);
    } else {
        bench_put_line(&out, &r, machine, earlier);
    }
    struct profile *profile = engine_profile(b->engine);
    if (profile && !b->json) {
        profile_put_table(profile, &out);
        profile_clear(profile);
    }
    progress_clear(&b->progress);
    fwrite(out.data, 1, out.len, stdout);
    fflush(stdout);
    buf_finish(&out);
    b->is_first = false;
}

static int run_all(struct bench *b, const struct plan *p, const char *kv_type,
                   const struct bench_machine *machine, struct err *e)
{
    struct measure m;
    for (size_t d = 0; d < p->depths.n; d++) {
        int64_t depth = p->depths.v[d];
        for (size_t i = 0; i < p->prompts.n; i++) {
            if (p->prompts.v[i] == 0) {
                continue;
            }
            int err = run(b, NULL, 1, p->prompts.v[i], depth, p->repeat, &m, e);
            if (err < 0) {
                return err;
            }
            report(b, false, 1, p->prompts.v[i], depth, kv_type, machine, &m);
        }
        for (size_t i = 0; i < p->generates.n; i++) {
            for (size_t k = 0; k < p->batches.n && p->generates.v[i] > 0; k++) {
                int64_t batch = p->batches.v[k];
                int err = run_decode(b, machine, (size_t)batch, p->generates.v[i], depth,
                                     p->repeat, &m, e);
                if (err < 0) {
                    return err;
                }
                report(b, true, batch, p->generates.v[i], depth, kv_type, machine, &m);
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

/* The ceilings with so many threads, measured once. */
static const struct bench_machine *find_machine(struct bench *b, struct err *e)
{
    struct pool *pool;
    int err = pool_create(b->options.n_threads, &pool);
    if (err < 0) {
        err_set(e, err, "thread pool");
        return NULL;
    }
    int n_threads = pool_threads(pool);
    size_t i = 0;
    while (i < b->n_machines && b->machines[i].n_threads != n_threads) {
        i++;
    }
    if (i == b->n_machines) {
        b->machines[b->n_machines++] =
            (struct bench_machine){.n_threads = n_threads,
                                   .dot_ops_per_s = peak_dot_rate(pool, b->options.isa)};
    }
    pool_destroy(&pool);
    return &b->machines[i];
}

static void put_model(struct bench *b, const char *name, const struct bench_machine *machine)
{
    if (!b->json) {
        printf("%s%s: %s %s, %.1f MiB of weights; %s; 8-bit dot products %.2f TOP/s\n",
               b->is_first ? "" : "\n", name, b->info->arch, b->info->quant,
               (double)b->info->weight_bytes / 1048576, b->info->device,
               machine->dot_ops_per_s * 1e-12);
    }
    if (b->json && b->is_first) {
        printf("{\"version\":\"" ROCMFORGE_VERSION "\",\"model\":\"%s\",\"arch\":\"%s\",\"quant\":"
               "\"%s\",\"device\":\"%s\",\"results\":[", name, b->info->arch, b->info->quant,
               b->info->device);
    }
    if (!b->json && b->is_first) {
        struct buf head;
        buf_init(&head, 0);
        bench_put_head(&head, b->baseline != NULL);
        fwrite(head.data, 1, head.len, stdout);
        buf_finish(&head);
    }
}

/* One KV type and thread count. */
static int bench_engine(struct bench *b, struct config *c, const struct plan *p, const char *name,
                        const char *path, struct err *e)
{
    int err = setup_engine(c, &b->options, e);
    if (err < 0) {
        return err;
    }
    if (b->options.n_ctx == 0) {
        b->options.n_ctx = largest(&p->depths) + MAX(largest(&p->prompts), largest(&p->generates));
    }
    b->options.n_seqs = largest(&p->batches);
    b->options.max_logits = b->options.n_seqs;
    b->options.profile_every = b->profile;
    const struct bench_machine *machine = find_machine(b, e);
    struct device device;
    err = machine ? tool_open(c, path, &b->options, &device, &b->engine, e) : -ENOMEM;
    if (err < 0) {
        if (machine) {
            tool_close(&device, &b->engine);
        }
        return err;
    }
    b->info = engine_info(b->engine);
    b->rows = calloc((size_t)MAX(b->options.max_rows, LIMIT_SLOTS), sizeof(*b->rows));
    put_model(b, name, machine);
    err = b->rows ? run_all(b, p, type_info((uint32_t)b->options.kv_type)->name, machine, e)
                  : -ENOMEM;
    free(b->rows);
    b->rows = NULL;
    tool_close(&device, &b->engine);
    return err;
}

static int bench(struct config *c, struct bench *b, const struct plan *p, struct err *e)
{
    char *name, *path;
    int err = setup_model(c, &name, &path, e);
    if (err < 0) {
        return err;
    }
    progress_start(&b->progress);
    b->is_first = true;
    b->slower = INFINITY;
    for (size_t k = 0; k < p->kv_types.n && err == 0; k++) {
        for (size_t t = 0; t < p->threads.n && err == 0; t++) {
            err = config_set(c, "kv_type", p->kv_types.v[k], CONFIG_FROM_FLAG, e);
            err = err < 0 ? err : config_set(c, "threads", p->threads.v[t], CONFIG_FROM_FLAG, e);
            err = err < 0 ? err : bench_engine(b, c, p, name, path, e);
        }
    }
    progress_clear(&b->progress);
    if (b->json && !b->is_first) {
        printf("\n]}\n");
    }
    free(name);
    free(path);
    if (err == 0 && b->slower < 1 - b->tolerance / 100) {
        err = err_set(e, ERR_SLOWER, "the worst test is x %.3f of the baseline (--tolerance %g %%)",
                      b->slower, b->tolerance);
    }
    return err;
}

int tool_bench(int argc, char **argv)
{
    const char *prompts = "512", *generates = "128", *depths = "0", *batches = "1";
    const char *kv_types = NULL, *threads = NULL, *baseline = NULL;
    struct plan p = {.repeat = 5};
    struct bench b = {.tolerance = 5};
    const struct option_spec specs[] = {
        {"prompt", 'p', OPTION_STR, &prompts, 0, 0,
         "prefill lengths, comma-separated; 0: none (512)"},
        {"generate", 'n', OPTION_STR, &generates, 0, 0, "decode lengths; 0: none (128)"},
        {"depth", 'd', OPTION_STR, &depths, 0, 0, "tokens that stand before (0)"},
        {"batch", 'b', OPTION_STR, &batches, 0, 0, "sequences decoded together (1)"},
        {"kv-types", 0, OPTION_STR, &kv_types, 0, 0, "KV types, one after the other (--kv-type)"},
        {"thread-counts", 0, OPTION_STR, &threads, 0, 0, "thread counts, likewise (--threads)"},
        {"repeat", 'r', OPTION_INT, &p.repeat, 1, MAX_REPEAT, "repetitions of each test (5)"},
        {"profile", 0, OPTION_FLAG, &b.profile, 0, 0, "the time of each op under every test"},
        {"baseline", 0, OPTION_STR, &baseline, 0, 0, "compare with what --json printed before"},
        {"tolerance", 0, OPTION_NUM, &b.tolerance, 0, 100,
         "percent below the baseline that are no error (5)"},
        {"json", 0, OPTION_FLAG, &b.json, 0, 0, "print JSON"},
    };
    struct options o = {
        .usage = "bench -m MODEL [options]",
        .summary =
            "Measures prefill and decode rates of a model. A server is measured with --server "
            "URL\n('rocmforge bench --server URL --help').",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = setup_keys,
        .n_keys = setup_n_keys,
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1) {
        char n_threads[24];
        snprintf(n_threads, sizeof(n_threads), "%lld", (long long)c.v[CONFIG_threads].i);
        err = parse_list("prompt", prompts, 0, 1 << 20, &p.prompts, &e);
        err = err < 0 ? err : parse_list("generate", generates, 0, 1 << 20, &p.generates, &e);
        if (err == 0 && largest(&p.prompts) + largest(&p.generates) == 0) {
            err = err_set(&e, ERR_USAGE, "--prompt 0 and --generate 0 leave nothing to measure");
        }
        err = err < 0 ? err : parse_list("depth", depths, 0, 1 << 20, &p.depths, &e);
        err = err < 0 ? err : parse_list("batch", batches, 1, LIMIT_SLOTS, &p.batches, &e);
        err = err < 0 ? err
                      : parse_words("kv-types", kv_types ? kv_types : c.v[CONFIG_kv_type].str,
                                    &p.kv_types, &e);
        err = err < 0 ? err
                      : parse_words("thread-counts", threads ? threads : n_threads, &p.threads, &e);
        err = err < 0 || !baseline ? err : bench_baseline_open(baseline, &b.baseline, &e);
        err = err < 0 ? err : bench(&c, &b, &p, &e);
        bench_baseline_close(&b.baseline);
    }
    return tool_finish("bench", &c, err, &e);
}
