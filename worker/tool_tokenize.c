/* `tokenize` and `detokenize`: a model file's vocabulary by hand. Only the file's metadata is read;
 * no engine. */
#include "shared/num.h"
#include "worker/setup.h"
#include "worker/tokenizer.h"
#include "worker/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 4096 }; /* on a command line */

struct vocabulary {
    struct gguf file;
    struct tokenizer *tokenizer;
};

static int open_vocabulary(const struct config *c, struct vocabulary *v, struct err *e)
{
    char *name, *path, warn[160];
    int err = setup_model(c, &name, &path, e);
    if (err < 0) {
        return err;
    }
    err = gguf_open(path, &v->file, e);
    if (err == 0) {
        err = tokenizer_create(&v->file, &v->tokenizer, warn, e);
        if (err < 0) {
            gguf_close(&v->file);
        } else if (*warn) {
            fprintf(stderr, "rocmforge: %s: %s\n", path, warn);
        }
    }
    free(name);
    free(path);
    return err;
}

static void close_vocabulary(struct vocabulary *v)
{
    tokenizer_destroy(&v->tokenizer);
    gguf_close(&v->file);
}

/* ---- tokenize ---- */

static int print_ids(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     struct err *e)
{
    struct buf ids;
    buf_init(&ids, 0);
    int err = tokenizer_encode(t, text, n, flags, &ids);
    if (err < 0) {
        err_set(e, err, "a text of %zu bytes", n);
    }
    for (size_t i = 0; err == 0 && i < ids.len; i += sizeof(int32_t)) {
        int32_t id;
        memcpy(&id, ids.data + i, sizeof(id));
        printf("%s%d", i ? " " : "", id);
    }
    if (err == 0) {
        putchar('\n');
    }
    buf_finish(&ids);
    return err;
}

/* The texts stand between lines that equal the separator; one may end the last text, too. */
static int print_texts(const struct tokenizer *t, const struct buf *in, const char *separator,
                       unsigned flags, struct err *e)
{
    const char *at = in->data ? in->data : "", *end = at + in->len;
    struct buf line;
    int err = 0;
    buf_init(&line, 0);
    buf_printf(&line, "\n%s\n", separator);
    do {
        const char *cut = memmem(at, (size_t)(end - at), line.data, line.len);
        err = print_ids(t, at, (size_t)((cut ? cut : end) - at), flags, e);
        at = cut ? cut + line.len : end;
    } while (err == 0 && at < end);
    buf_finish(&line);
    return err;
}

static int tokenize(const struct config *c, const char *prompt, const char *path,
                    const char *separator, bool special, struct err *e)
{
    unsigned flags = special ? TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL : 0;
    struct vocabulary v;
    struct buf in;
    int err = open_vocabulary(c, &v, e);
    if (err < 0) {
        return err;
    }
    buf_init(&in, TOKENIZER_MAX_TEXT_BYTES);
    if (prompt) {
        buf_str(&in, prompt);
    } else {
        err = tool_read(path, &in, e);
    }
    if (err == 0) {
        err = separator ? print_texts(v.tokenizer, &in, separator, flags, e)
                        : print_ids(v.tokenizer, in.data ? in.data : "", in.len, flags, e);
    }
    buf_finish(&in);
    close_vocabulary(&v);
    return err;
}

/* ---- detokenize ---- */

static int add_id(const char *word, struct buf *ids, struct err *e)
{
    int64_t value;
    if (!num_parse_i64(word, &value) || value < 0 || value > INT32_MAX) {
        return err_set(e, ERR_USAGE, "'%s' is no token id", word);
    }
    int32_t id = (int32_t)value;
    buf_add(ids, &id, sizeof(id));
    return 0;
}

static int print_text(const struct tokenizer *t, const struct buf *ids, const char *end,
                      struct err *e)
{
    struct buf text;
    buf_init(&text, 0);
    int err = tokenizer_decode(t, (const int32_t *)(const void *)ids->data,
                               ids->len / sizeof(int32_t), true, &text);
    if (err < 0) {
        err_set(e, err, "the vocabulary has %d tokens", tokenizer_size(t));
    } else {
        fwrite(text.data ? text.data : "", 1, text.len, stdout);
        fputs(end, stdout);
    }
    buf_finish(&text);
    return err;
}

/* Every line of ids is a text. */
static int print_lines(const struct tokenizer *t, struct buf *in, const char *end, struct err *e)
{
    struct buf ids;
    int err = 0;
    char *line = in->data, *next;
    buf_init(&ids, 0);
    for (; err == 0 && line && *line; line = next) {
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        line[len] = 0;
        buf_clear(&ids);
        char *word, *rest = line;
        while (err == 0 && (word = strsep(&rest, " ,\t\r"))) {
            err = *word ? add_id(word, &ids, e) : 0;
        }
        err = err < 0 ? err : print_text(t, &ids, end, e);
    }
    buf_finish(&ids);
    return err;
}

static int detokenize(const struct config *c, const char *path, const char *separator,
                      const char *const *words, size_t n_words, struct err *e)
{
    struct vocabulary v;
    struct buf in, ids, end;
    int err = open_vocabulary(c, &v, e);
    if (err < 0) {
        return err;
    }
    buf_init(&in, TOKENIZER_MAX_TEXT_BYTES);
    buf_init(&ids, 0);
    buf_init(&end, 0);
    buf_printf(&end, separator ? "\n%s\n" : "\n", separator);
    for (size_t i = 0; err == 0 && i < n_words; i++) {
        err = add_id(words[i], &ids, e);
    }
    if (err == 0 && n_words > 0) {
        err = print_text(v.tokenizer, &ids, end.data, e);
    } else if (err == 0) {
        err = tool_read(path, &in, e);
        err = err < 0 ? err : print_lines(v.tokenizer, &in, end.data, e);
    }
    buf_finish(&in);
    buf_finish(&ids);
    buf_finish(&end);
    close_vocabulary(&v);
    return err;
}

/* ---- command lines ---- */

static const enum config_key keys[] = {CONFIG_model};

int tool_tokenize(int argc, char **argv)
{
    const char *prompt = NULL, *path = NULL, *separator = NULL;
    bool special = false;
    const struct option_spec specs[] = {
        {"prompt", 'p', OPTION_STR, &prompt, 0, 0, "the text"},
        {"file", 'f', OPTION_STR, &path, 0, 0, "a file with the text; else standard input"},
        {"separator", 0, OPTION_STR, &separator, 0, 0, "several texts, this line between them"},
        {"special", 0, OPTION_FLAG, &special, 0, 0,
         "add BOS and EOS as the model wants; control tokens in the text become their ids"},
    };
    struct options o = {
        .usage = "tokenize -m MODEL [-p TEXT | --file F] [options]",
        .summary = "Prints the token ids of a text; of several, a line each.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = keys,
        .n_keys = COUNT_OF(keys),
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    err = err == 1 ? tokenize(&c, prompt, path, separator, special, &e) : err;
    return tool_finish("tokenize", &c, err, &e);
}

int tool_detokenize(int argc, char **argv)
{
    const char *path = NULL, *separator = NULL, *words[MAX_IDS];
    const struct option_spec specs[] = {
        {"file", 'f', OPTION_STR, &path, 0, 0,
         "a file with a line of ids a text; else standard input"},
        {"separator", 0, OPTION_STR, &separator, 0, 0, "a line to print after each text"},
    };
    struct options o = {
        .usage = "detokenize -m MODEL [--file F | ID...]",
        .summary = "Prints the text of token ids.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = keys,
        .n_keys = COUNT_OF(keys),
        .positional = words,
        .max_positional = MAX_IDS,
    };
    struct config c;
    struct err e = {0};
    int err = tool_parse(&o, argc, argv, &c, &e);
    err = err == 1 ? detokenize(&c, path, separator, words, o.n_positional, &e) : err;
    return tool_finish("detokenize", &c, err, &e);
}
