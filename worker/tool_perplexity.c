/* `perplexity`: how well a model predicts a text, in chunks as llama.cpp's tool makes them, so that
 * figures compare: the text is cut into chunks of N tokens, each computed alone; where the model
 * wants a BOS it replaces a chunk's first token; the second half of each chunk counts.
 *
 * Stored distributions (--save, --kl): a header, then for every counted row a float lo, a float
 * step and n_vocab uint16, log p = lo + step * value. */
#include "shared/clock.h"
#include "worker/setup.h"
#include "worker/tokenizer.h"
#include "worker/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE_MAGIC 0x31626c6b66726f72u /* "rorfklb1" */

struct base_header {
    uint64_t magic;
    uint32_t n_vocab, n_ctx, n_chunks, reserved;
};

struct sums { /* over counted tokens */
    double nll, nll2, kl, same_top;
    uint64_t n;
};

struct job {
    struct engine *engine;
    const struct engine_info *info;
    int32_t *ids; /* owned */
    size_t n_ids;
    int64_t n_ctx, n_chunks, max_rows;
    int32_t bos;     /* replaces a chunk's first token; -1: none */
    FILE *save, *kl; /* owned */
    double *log_p;   /* owned: one row */
    uint16_t *coded; /* owned: one row */
    struct sums sums;
};

static int save_row(struct job *j, struct err *e)
{
    double lo = j->log_p[0], hi = lo;
    for (int64_t i = 1; i < j->info->n_vocab; i++) {
        lo = fmin(lo, j->log_p[i]);
        hi = fmax(hi, j->log_p[i]);
    }
    float head[2] = {(float)lo, (float)((hi - lo) / 65535)};
    for (int64_t i = 0; i < j->info->n_vocab; i++) {
        double v = head[1] > 0 ? (j->log_p[i] - lo) / (double)head[1] : 0;
        j->coded[i] = (uint16_t)fmin(fmax(round(v), 0), 65535);
    }
    if (fwrite(head, sizeof(head), 1, j->save) != 1 ||
        fwrite(j->coded, sizeof(uint16_t), (size_t)j->info->n_vocab, j->save) !=
            (size_t)j->info->n_vocab) {
        return err_set(e, -errno, "writing the distributions");
    }
    return 0;
}

/* Adds KL(base || ours) of this row. */
static int compare_row(struct job *j, struct err *e)
{
    float head[2];
    size_t n = (size_t)j->info->n_vocab;
    if (fread(head, sizeof(head), 1, j->kl) != 1 || fread(j->coded, 2, n, j->kl) != n) {
        return err_set(e, ERR_CONFIG, "the file of distributions is cut short");
    }
    double kl = 0, best_base = -INFINITY, best = -INFINITY;
    size_t top_base = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        double base = (double)head[0] + (double)head[1] * j->coded[i];
        kl += exp(base) * (base - j->log_p[i]);
        if (base > best_base) {
            best_base = base;
            top_base = i;
        }
        if (j->log_p[i] > best) {
            best = j->log_p[i];
            top = i;
        }
    }
    j->sums.kl += kl;
    j->sums.same_top += top == top_base;
    return 0;
}

static int count_row(struct job *j, const float *logits, int32_t next, struct err *e)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < j->info->n_vocab; i++) {
        max = fmax(max, (double)logits[i]);
    }
    for (int64_t i = 0; i < j->info->n_vocab; i++) {
        sum += exp((double)logits[i] - max);
    }
    double log_sum = max + log(sum);
    double nll = log_sum - (double)logits[next];
    j->sums.nll += nll;
    j->sums.nll2 += nll * nll;
    j->sums.n++;
    if (!j->save && !j->kl) {
        return 0;
    }
    for (int64_t i = 0; i < j->info->n_vocab; i++) {
        j->log_p[i] = (double)logits[i] - log_sum;
    }
    int err = j->save ? save_row(j, e) : 0;
    return err < 0 || !j->kl ? err : compare_row(j, e);
}

static int run_chunk(struct job *j, int64_t chunk, struct engine_row *rows, const float **logits,
                     struct err *e)
{
    const int32_t *ids = j->ids + chunk * j->n_ctx;
    int64_t first = j->n_ctx / 2; /* the first row whose prediction counts */
    struct engine_seq *seq;
    int err = engine_seq_create(j->engine, &seq);
    for (int64_t at = 0; at < j->n_ctx && err == 0;) {
        int64_t n = MIN(j->max_rows, j->n_ctx - at);
        int64_t counted = 0;
        for (int64_t i = 0; i < n; i++) {
            bool want = at + i >= first && at + i + 1 < j->n_ctx;
            int32_t id = at + i == 0 && j->bos >= 0 ? j->bos : ids[at + i];
            rows[i] = (struct engine_row){.seq = seq, .token = id, .want_logits = want};
        }
        err = engine_seq_reserve(j->engine, seq, n);
        err = err < 0 ? err : engine_step(j->engine, rows, n, logits, e);
        for (int64_t i = 0; i < n && err == 0; i++) {
            if (rows[i].want_logits) {
                err = count_row(j, logits[counted++], ids[at + i + 1], e);
            }
        }
        at += n;
    }
    engine_seq_destroy(j->engine, &seq);
    return err;
}

static void print_result(const struct job *j)
{
    double n = (double)j->sums.n;
    double mean = j->sums.nll / n;
    double deviation = sqrt(fmax(j->sums.nll2 / n - mean * mean, 0) / fmax(n - 1, 1));
    printf("perplexity %.4f +- %.4f over %llu tokens of %lld chunks of %lld\n", exp(mean),
           exp(mean) * deviation, (unsigned long long)j->sums.n, (long long)j->n_chunks,
           (long long)j->n_ctx);
    if (j->kl) {
        printf("KL divergence from the stored distributions %.6f, same first choice %.3f %%\n",
               j->sums.kl / n, j->sums.same_top / n * 100);
    }
}

static int run_chunks(struct job *j, struct err *e)
{
    struct engine_row *rows = calloc((size_t)j->max_rows, sizeof(*rows));
    const float **logits = calloc((size_t)j->max_rows, sizeof(*logits));
    j->log_p = calloc((size_t)j->info->n_vocab, sizeof(double));
    j->coded = calloc((size_t)j->info->n_vocab, sizeof(uint16_t));
    int err = rows && logits && j->log_p && j->coded ? 0 : -ENOMEM;
    uint64_t start = clock_ns();
    for (int64_t c = 0; c < j->n_chunks && err == 0; c++) {
        err = run_chunk(j, c, rows, logits, e);
        double s = (double)(clock_ns() - start) * 1e-9;
        fprintf(stderr, "\r%lld of %lld chunks, %.4f so far, %.0f tokens/s ", (long long)c + 1,
                (long long)j->n_chunks, exp(j->sums.nll / (double)MAX(j->sums.n, 1u)),
                (double)((c + 1) * j->n_ctx) / s);
    }
    fputc('\n', stderr);
    free(rows);
    free(logits);
    free(j->log_p);
    free(j->coded);
    return err;
}

static int open_base(struct job *j, const char *save, const char *kl, struct err *e)
{
    struct base_header want = {.magic = BASE_MAGIC,
                               .n_vocab = (uint32_t)j->info->n_vocab,
                               .n_ctx = (uint32_t)j->n_ctx,
                               .n_chunks = (uint32_t)j->n_chunks};
    struct base_header got;
    if (save && (!(j->save = fopen(save, "wb")) || fwrite(&want, sizeof(want), 1, j->save) != 1)) {
        return err_set(e, -errno, "%s", save);
    }
    if (kl && !(j->kl = fopen(kl, "rb"))) {
        return err_set(e, -errno, "%s", kl);
    }
    if (kl && (fread(&got, sizeof(got), 1, j->kl) != 1 || memcmp(&got, &want, sizeof(got)) != 0)) {
        return err_set(e, ERR_CONFIG,
                       "%s holds distributions of another vocabulary, text or chunk size", kl);
    }
    return 0;
}

static int tokenize(struct job *j, const char *path, struct err *e)
{
    struct tokenizer *t;
    char warn[160];
    struct buf text, ids;
    int err = tokenizer_create(engine_gguf(j->engine), &t, warn, e);
    if (err < 0) {
        return err;
    }
    if (*warn) {
        fprintf(stderr, "%s\n", warn);
    }
    buf_init(&text, 0);
    buf_init(&ids, 0);
    err = tool_read(path, &text, e);
    err = err < 0 ? err : tokenizer_encode(t, text.data ? text.data : "", text.len,
                                           TOKENIZER_ADD_SPECIAL, &ids);
    j->ids = (int32_t *)(void *)ids.data; /* malloc'ed, so aligned */
    j->n_ids = ids.len / sizeof(int32_t);
    bool adds_bos = err == 0 && j->n_ids > 0 && j->ids[0] == tokenizer_bos(t);
    j->bos = adds_bos ? tokenizer_bos(t) : -1;
    buf_finish(&text);
    tokenizer_destroy(&t);
    return err;
}

static int perplexity(const struct config *c, struct job *j, const char *path, const char *save,
                      const char *kl, int64_t max_chunks, struct err *e)
{
    struct engine_options o;
    char *name, *model;
    int err = setup_engine(c, &o, e);
    err = err < 0 ? err : setup_model(c, &name, &model, e);
    if (err < 0) {
        return err;
    }
    struct device device;
    j->n_ctx = o.n_ctx ? o.n_ctx : 512;
    o.n_ctx = j->n_ctx;
    o.n_seqs = 1;
    o.max_logits = o.max_rows = j->max_rows = MIN(o.max_rows, j->n_ctx);
    err = tool_open(c, model, &o, &device, &j->engine, e);
    if (err == 0) {
        j->info = engine_info(j->engine);
        err = tokenize(j, path, e);
        j->n_chunks = (int64_t)j->n_ids / j->n_ctx;
        j->n_chunks = max_chunks ? MIN(max_chunks, j->n_chunks) : j->n_chunks;
        if (err == 0 && (j->n_chunks == 0 || j->n_ctx < 4)) {
            err = err_set(e, ERR_USAGE, "the text has %zu tokens, too few for a chunk of %lld",
                          j->n_ids, (long long)j->n_ctx);
        }
        err = err < 0 ? err : open_base(j, save, kl, e);
        err = err < 0 ? err : run_chunks(j, e);
        if (err == 0) {
            print_result(j);
        }
        free(j->ids);
        if (j->save && fclose(j->save) != 0 && err == 0) {
            err = err_set(e, -errno, "%s", save);
        }
        if (j->kl) {
            fclose(j->kl);
        }
    }
    tool_close(&device, &j->engine);
    free(name);
    free(model);
    return err;
}

int tool_perplexity(int argc, char **argv)
{
    const char *path = NULL, *save = NULL, *kl = NULL;
    int64_t max_chunks = 0;
    struct job j = {0};
    const struct option_spec specs[] = {
        {"file", 'f', OPTION_STR, &path, 0, 0, "the text"},
        {"chunks", 0, OPTION_INT, &max_chunks, 1, 1e9, "use only the first N chunks"},
        {"save", 0, OPTION_STR, &save, 0, 0, "store the distributions in a file"},
        {"kl", 0, OPTION_STR, &kl, 0, 0, "divergence from stored distributions"},
    };
    struct options o = {
        .usage = "perplexity -m MODEL -f TEXT [-c CHUNK] [options]",
        .summary = "How well a model predicts a text, in chunks of --ctx-size tokens (512).",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = setup_keys,
        .n_keys = setup_n_keys,
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1 && !path) {
        err = err_set(&e, ERR_USAGE, "no text given (-f FILE); usage: rocmforge %s", o.usage);
    }
    if (err == 1) {
        err = perplexity(&c, &j, path, save, kl, max_chunks, &e);
    }
    return tool_finish("perplexity", &c, err, &e);
}
