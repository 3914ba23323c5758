/* Eight published vocabularies against the ids that reference implementations give: 46 texts, 240
 * harder ones. Detokenization gives the text back (BPE and SentencePiece). */
#include "tests/test.h"
#include "worker/tokenizer.h"

static const char separator[] = "\n__ggml_vocab_test__\n";

struct file {
    char *data;
    size_t n;
};

static struct file read_file(const char *dir, const char *name, const char *suffix)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s%s", dir, name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f) {
        TEST_FAIL("cannot open %s", path);
    }
    struct file file = {0};
    fseek(f, 0, SEEK_END);
    file.n = (size_t)ftell(f);
    rewind(f);
    file.data = malloc(file.n + 1);
    CHECK(file.data && fread(file.data, 1, file.n, f) == file.n);
    file.data[file.n] = 0;
    fclose(f);
    return file;
}

/* The ids of one line of expected output. */
static size_t parse_ids(const char **line, int32_t *ids, size_t max)
{
    size_t n = 0;
    const char *p = *line;
    while (*p && *p != '\n') {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p) {
            p++;
            continue;
        }
        CHECK(n < max);
        ids[n++] = (int32_t)id;
        p = end;
    }
    *line = *p ? p + 1 : p;
    return n;
}

static void show_difference(const struct tokenizer *t, const char *what, const char *text, size_t n,
                            const int32_t *got, size_t n_got, const int32_t *want, size_t n_want)
{
    size_t i = 0;
    while (i < n_got && i < n_want && got[i] == want[i]) {
        i++;
    }
    fprintf(stderr, "%s: differs at token %zu of %zu (expected %zu)\ntext: %.*s\n", what, i, n_got,
            n_want, (int)n, text);
    const int32_t *lists[] = {got, want};
    size_t counts[] = {n_got, n_want};
    for (int k = 0; k < 2; k++) {
        fprintf(stderr, "%s", k == 0 ? "got " : "want");
        for (size_t j = i; j < MIN(i + 8, counts[k]); j++) {
            struct buf b;
            buf_init(&b, 0);
            CHECK_INT(tokenizer_piece(t, lists[k][j], false, true, &b), 0);
            fprintf(stderr, " %d[%s]", lists[k][j], b.len ? b.data : "");
            buf_finish(&b);
        }
        fputc('\n', stderr);
    }
}

static int check_file(const struct tokenizer *t, const char *what, struct file texts,
                      struct file expected, bool is_exact)
{
    int n_texts = 0, n_wrong = 0;
    const char *line = expected.data;
    const char *end = texts.data + texts.n;
    for (const char *p = texts.data; p < end;) {
        const char *sep = memmem(p, (size_t)(end - p), separator, strlen(separator));
        size_t n = (size_t)((sep ? sep : end) - p);
        static int32_t want[100000];
        size_t n_want = parse_ids(&line, want, COUNT_OF(want));
        struct buf ids, text;
        buf_init(&ids, 0);
        buf_init(&text, 0);
        CHECK_INT(tokenizer_encode(t, p, n, 0, &ids), 0);
        size_t n_got = ids.len / sizeof(int32_t);
        const int32_t *got = (const int32_t *)(void *)ids.data;
        if (n_got != n_want || (n_want && memcmp(got, want, n_want * sizeof(*want)) != 0)) {
            show_difference(t, what, p, n, got, n_got, want, n_want);
            n_wrong++;
        }
        CHECK_INT(tokenizer_decode(t, got, n_got, false, &text), 0);
        if (is_exact && (text.len != n || (n && memcmp(text.data, p, n) != 0))) {
            fprintf(stderr, "%s: text %d does not come back:\n%.*s\n%s\n", what, n_texts, (int)n, p,
                    text.data);
            n_wrong++;
        }
        buf_finish(&ids);
        buf_finish(&text);
        n_texts++;
        p = sep ? sep + strlen(separator) : end;
    }
    CHECK(*line == 0); /* every line was used */
    printf("%-24s %3d texts, %d wrong\n", what, n_texts, n_wrong);
    return n_wrong;
}

/* With the tables of another tokenizer of the same file, which is gone by then; and with tables
 * that are not whole, which are made anew. */
static int check_kept_tables(const struct gguf *g, const struct tokenizer *t, const char *name,
                             struct file in, struct file out, bool is_exact)
{
    struct tokenizer_tables tables = tokenizer_tables(t);
    int n_wrong = 0;
    for (size_t cut = 0; tables.data && cut <= 8; cut += 8) {
        char warn[160], *copy = malloc(tables.bytes);
        struct tokenizer *again;
        struct err e;
        CHECK(copy);
        memcpy(copy, tables.data, tables.bytes);
        struct tokenizer_tables kept = {copy, tables.bytes - cut};
        CHECK_INT(tokenizer_create_from(g, kept, &again, warn, &e), 0);
        CHECK((tokenizer_tables(again).data == copy) == (cut == 0));
        n_wrong += check_file(again, name, in, out, is_exact);
        tokenizer_destroy(&again);
        free(copy);
    }
    return n_wrong;
}

int main(void)
{
    static const struct {
        const char *name;
        bool is_exact; /* decoding gives the text back; WordPiece throws accents and case away */
    } vocabs[] = {{"llama-spm", true}, {"llama-bpe", true}, {"qwen2", true},
                  {"gpt-2", true},     {"phi-3", true},     {"deepseek-llm", true},
                  {"mpt", true},       {"bert-bge", false}};
    char dir[4000];
    snprintf(dir, sizeof(dir), "%s/tokenizers", test_data_dir());
    int n_wrong = 0;
    for (size_t i = 0; i < COUNT_OF(vocabs); i++) {
        char path[4096], what[64], warn[160];
        snprintf(path, sizeof(path), "%s/%s.gguf", dir, vocabs[i].name);
        struct gguf g;
        struct err e;
        struct tokenizer *t;
        CHECK_INT(gguf_open(path, &g, &e), 0);
        CHECK_INT(tokenizer_create(&g, &t, warn, &e), 0);
        CHECK_STR(warn, "");
        struct file texts = read_file(dir, vocabs[i].name, ".inp");
        struct file more = read_file(dir, "more", ".inp");
        struct file out = read_file(dir, vocabs[i].name, ".out");
        struct file more_out = read_file(dir, vocabs[i].name, ".more.out");
        n_wrong += check_file(t, vocabs[i].name, texts, out, vocabs[i].is_exact);
        snprintf(what, sizeof(what), "%s (more)", vocabs[i].name);
        n_wrong += check_file(t, what, more, more_out, vocabs[i].is_exact);
        n_wrong += check_kept_tables(&g, t, what, more, more_out, vocabs[i].is_exact);
        gguf_close(&g);
        free(texts.data);
        free(more.data);
        free(out.data);
        free(more_out.data);
        tokenizer_destroy(&t);
    }
    CHECK_INT(n_wrong, 0);
    return 0;
}
