/* `logits`: the logits of a prompt and of its greedy continuation as a golden file, so that any
 * other implementation can be compared with. The file: one line of JSON
 *   {"golden":1,"n_vocab":V,"n_prompt":P,"n_rows":R,"full":true,"top":K,"prompt":[...],"greedy":[...]}
 * then R rows, row i after token i: V float32, or with "full":false the float32 log-sum-exp and K
 * pairs of int32 id and float32 logit, best first. An end-of-text id ends the list and has no
 * row. */
#include "shared/buf.h"
#include "shared/limits.h"
#include "shared/num.h"
#include "worker/setup.h"
#include "worker/tokenizer.h"
#include "worker/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOP = 1024 };

struct job {
    struct engine *engine;
    const struct engine_info *info;
    struct tokenizer *tokenizer; /* NULL: the file has no vocabulary */
    struct engine_seq *seq;
    int64_t n_gen, n_top, max_rows;
    struct buf ids;  /* int32: prompt, then greedy */
    struct buf rows; /* the file's rows */
    int64_t n_prompt, n_rows, n_greedy;
};

struct entry { /* as it stands in the file */
    int32_t id;
    float logit;
};

static const int32_t *ids_of(const struct job *j)
{
    return (const int32_t *)(const void *)j->ids.data; /* malloc'ed, so aligned */
}

/* "1,2,3", with white space anywhere between. */
static int parse_ids(const char *text, struct buf *ret, struct err *e)
{
    char word[24];
    for (const char *p = text; *p;) {
        size_t skip = strspn(p, ", \t\r\n"), n = strcspn(p + skip, ", \t\r\n");
        int64_t v;
        p += skip;
        if (n == 0) {
            break;
        }
        snprintf(word, sizeof word, "%.*s", (int)MIN(n, sizeof word - 1), p);
        if (n >= sizeof word || !num_parse_i64(word, &v) || v < 0 || v > INT32_MAX) {
            return err_set(e, ERR_USAGE, "'%s' is not a token id", word);
        }
        int32_t id = (int32_t)v;
        buf_add(ret, &id, sizeof id);
        p += n;
    }
    return ret->failed ? -ENOMEM : 0;
}

static int read_prompt(struct job *j, const char *tokens, const char *file, const char *text,
                       struct err *e)
{
    struct buf content;
    char warn[160];
    int err = tokenizer_create(engine_gguf(j->engine), &j->tokenizer, warn, e);
    if (err == ERR_NO_TOKENIZER && !text) {
        err = 0;
    }
    buf_init(&content, 0);
    if (err == 0 && file) {
        err = tool_read(file, &content, e);
        buf_char(&content, 0);
        tokens = content.data;
    }
    if (err == 0) {
        err = text ? tokenizer_encode(j->tokenizer, text, strlen(text),
                                      TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &j->ids)
                   : parse_ids(tokens, &j->ids, e);
    }
    buf_finish(&content);
    j->n_prompt = (int64_t)(j->ids.len / sizeof(int32_t));
    if (err == 0 && j->n_prompt == 0) {
        err = err_set(e, ERR_USAGE, "the prompt is empty");
    }
    return err;
}

static int32_t best_id(const float *logits, int64_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static void add_row(struct job *j, const float *logits)
{
    int64_t n = j->info->n_vocab, n_kept = 0;
    j->n_rows++;
    if (j->n_top == 0) {
        buf_add(&j->rows, logits, (size_t)n * sizeof *logits);
        return;
    }
    struct entry top[MAX_TOP];
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        max = fmax(max, (double)logits[i]);
        int64_t at = n_kept;
        while (at > 0 && logits[i] > top[at - 1].logit) {
            at--;
        }
        if (at < j->n_top) {
            n_kept = MIN(n_kept + 1, j->n_top);
            memmove(&top[at + 1], &top[at], (size_t)(n_kept - at - 1) * sizeof *top);
            top[at] = (struct entry){i, logits[i]};
        }
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)logits[i] - max);
    }
    float log_sum = (float)(max + log(sum));
    buf_add(&j->rows, &log_sum, sizeof log_sum);
    buf_add(&j->rows, top, (size_t)j->n_top * sizeof *top);
}

/* Tokens [first, end) of the list, in steps. *ret_next: the best id after the last. */
static int run(struct job *j, int64_t first, int64_t end, int32_t *ret_next, struct err *e)
{
    struct engine_row *rows = calloc((size_t)j->max_rows, sizeof *rows);
    const float **logits = calloc((size_t)j->max_rows, sizeof *logits);
    int err = rows && logits ? engine_seq_reserve(j->engine, j->seq, end - first) : -ENOMEM;
    if (err == -ENOSPC) {
        err_set(e, ERR_CONTEXT_LENGTH, "%lld tokens, the context holds %lld", (long long)end,
                (long long)j->info->n_ctx);
        err = ERR_CONTEXT_LENGTH;
    }
    for (int64_t at = first; at < end && err == 0;) {
        int64_t n = MIN(j->max_rows, end - at);
        for (int64_t i = 0; i < n; i++) {
            rows[i] = (struct engine_row){
                .seq = j->seq, .token = ids_of(j)[at + i], .want_logits = true};
        }
        err = engine_step(j->engine, rows, n, logits, e);
        for (int64_t i = 0; i < n && err == 0; i++) {
            add_row(j, logits[i]);
            *ret_next = best_id(logits[i], j->info->n_vocab);
        }
        at += n;
    }
    free(rows);
    free(logits);
    return err < 0 ? err : j->rows.failed ? -ENOMEM : 0;
}

static int compute(struct job *j, struct err *e)
{
    int32_t next = 0;
    int err = engine_seq_create(j->engine, &j->seq);
    err = err < 0 ? err : run(j, 0, j->n_prompt, &next, e);
    while (err == 0 && j->n_greedy < j->n_gen) {
        buf_add(&j->ids, &next, sizeof next);
        j->n_greedy++;
        if (j->ids.failed || (j->tokenizer && tokenizer_is_end(j->tokenizer, next))) {
            err = j->ids.failed ? -ENOMEM : 0;
            break;
        }
        int64_t at = j->n_prompt + j->n_greedy;
        err = run(j, at - 1, at, &next, e);
    }
    engine_seq_destroy(j->engine, &j->seq);
    return err;
}

static void put_ids(FILE *f, const char *name, const int32_t *ids, int64_t n)
{
    fprintf(f, ",\"%s\":[", name);
    for (int64_t i = 0; i < n; i++) {
        fprintf(f, "%s%d", i ? "," : "", ids[i]);
    }
    fputc(']', f);
}

static int write_file(const struct job *j, const char *path, struct err *e)
{
    FILE *f = fopen(path, "wbe");
    if (!f) {
        return err_set(e, -errno, "%s", path);
    }
    fprintf(
        f,
        "{\"golden\":1,\"n_vocab\":%lld,\"n_prompt\":%lld,\"n_rows\":%lld,\"full\":%s,\"top\":%lld",
        (long long)j->info->n_vocab, (long long)j->n_prompt, (long long)j->n_rows,
        j->n_top ? "false" : "true", (long long)j->n_top);
    put_ids(f, "prompt", ids_of(j), j->n_prompt);
    put_ids(f, "greedy", ids_of(j) + j->n_prompt, j->n_greedy);
    fputs("}\n", f);
    bool ok = fwrite(j->rows.data, 1, j->rows.len, f) == j->rows.len;
    if (fclose(f) != 0 || !ok) {
        return err_set(e, -errno, "writing %s", path);
    }
    return 0;
}

static int logits(const struct config *c, struct job *j, const char *tokens, const char *file,
                  const char *text, const char *out, struct err *e)
{
    struct engine_options o;
    char *name, *model;
    int err = setup_engine(c, &o, e);
    err = err < 0 ? err : setup_model(c, &name, &model, e);
    if (err < 0) {
        return err;
    }
    struct device device;
    o.n_seqs = 1;
    o.max_logits = j->max_rows = o.max_rows;
    buf_init(&j->ids, 0);
    buf_init(&j->rows, 0);
    err = tool_open(c, model, &o, &device, &j->engine, e);
    if (err == 0) {
        j->info = engine_info(j->engine);
        j->n_top = MIN(j->n_top, j->info->n_vocab);
        err = read_prompt(j, tokens, file, text, e);
        err = err < 0 ? err : compute(j, e);
        err = err < 0 ? err : write_file(j, out, e);
    }
    tokenizer_destroy(&j->tokenizer);
    tool_close(&device, &j->engine);
    buf_finish(&j->ids);
    buf_finish(&j->rows);
    free(name);
    free(model);
    return err;
}

int tool_logits(int argc, char **argv)
{
    const char *tokens = NULL, *file = NULL, *text = NULL, *out = NULL;
    struct job j = {0};
    const struct option_spec specs[] = {
        {"tokens", 0, OPTION_STR, &tokens, 0, 0, "token ids: 1,2,3"},
        {"tokens-file", 0, OPTION_STR, &file, 0, 0, "a file of token ids"},
        {"prompt", 'p', OPTION_STR, &text, 0, 0, "a text"},
        {"gen", 0, OPTION_INT, &j.n_gen, 0, 1e9, "greedy tokens after the prompt"},
        {"top", 0, OPTION_INT, &j.n_top, 0, MAX_TOP, "only the best K of each row; 0: all"},
        {"output", 'o', OPTION_STR, &out, 0, 0, "the file to write"},
    };
    struct options o = {
        .usage = "logits -m MODEL (--tokens IDS | --tokens-file FILE | -p TEXT) [--gen N] -o FILE",
        .summary = "Writes the logits of a prompt and of its greedy continuation to a file.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = setup_keys,
        .n_keys = setup_n_keys,
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1 && (!out || (tokens != NULL) + (file != NULL) + (text != NULL) != 1)) {
        err = err_set(&e, ERR_USAGE, "give one prompt and an output; usage: rocmforge %s", o.usage);
    }
    if (err == 1) {
        err = logits(&c, &j, tokens, file, text, out, &e);
    }
    return tool_finish("logits", &c, err, &e);
}
