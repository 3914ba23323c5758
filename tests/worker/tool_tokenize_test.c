/* The commands tokenize and detokenize as a user runs them: on the demo model, and against the
 * reference vectors of real vocabularies. argv[1] is the program; without it, the one of the build
 * tree. */
#include "shared/buf.h"
#include "tests/test.h"

#include <libgen.h>
#include <sys/wait.h>

#define DEMO "-m deploy/demo/forge-tiny-Q8_0.gguf"

static const char *program;

/* Runs a shell line in which "@" is the program; its standard output, and its exit code. */
static struct buf run(const char *line, int *ret_code)
{
    struct buf cmd, out;
    char part[65536];
    buf_init(&cmd, 0);
    buf_init(&out, 0);
    for (; *line; line++) {
        if (*line == '@') {
            buf_str(&cmd, program);
        } else {
            buf_char(&cmd, *line);
        }
    }
    FILE *f = popen(cmd.data, "r");
    CHECK(f);
    for (size_t n; (n = fread(part, 1, sizeof(part), f)) > 0;) {
        buf_add(&out, part, n);
    }
    buf_str(&out, "");
    *ret_code = WEXITSTATUS(pclose(f));
    buf_finish(&cmd);
    return out;
}

static void expect(const char *line, int code, const char *text)
{
    int got;
    struct buf out = run(line, &got);
    if (got != code || (text && strcmp(out.data, text) != 0)) {
        TEST_FAIL("%s: exit %d with '%s', expected %d with '%s'", line, got, out.data, code,
                  text ? text : "anything");
    }
    buf_finish(&out);
}

static void texts_come_back(void)
{
    expect("@ tokenize " DEMO " -p 'What is 17 + 25?' | @ detokenize " DEMO, 0,
           "What is 17 + 25?\n");
    expect("printf 'one\\n--\\ntwo\\nlines\\n--\\n' | @ tokenize " DEMO " --separator -- | "
           "@ detokenize " DEMO " --separator --",
           0, "one\n--\ntwo\nlines\n--\n");
    expect("printf 'a\\n--\\n\\n--\\nb' | @ tokenize " DEMO " --separator -- | wc -l", 0, "3\n");
    expect("@ tokenize " DEMO " -p ''", 0, "\n");
    expect("@ detokenize " DEMO " 2047", 0, "<|im_end|>\n");
    expect("@ tokenize " DEMO " --special -p '<|im_end|>'", 0, "2047\n");
    expect("@ tokenize " DEMO " -p '<|im_end|>' | wc -w | grep -qx 1", 1, "");
}

static void mistakes_have_exit_codes(void)
{
    expect("@ tokenize -p x 2>/dev/null", 2, "");
    expect("@ tokenize " DEMO " --nonsense 2>/dev/null", 2, "");
    expect("@ detokenize " DEMO " 12x 2>/dev/null", 2, "");
    expect("@ detokenize " DEMO " 2048 2>/dev/null", 1, "");
    expect("@ tokenize -m README.md -p x 2>/dev/null", 16, "");
    expect("@ tokenize " DEMO " -p x > /dev/full 2>/dev/null", 1, "");
    expect("@ nothing 2>/dev/null", 2, "");
    expect("@ --version", 0, "rocmforge-worker " ROCMFORGE_VERSION "\n");
    expect("@ tokenize --help | head -c 26", 0, "usage: rocmforge tokenize ");
}

static void vectors(const char *dir, const char *name, const char *texts, const char *ids)
{
    char line[4096];
    /* (The recorded ids have a space before each line or not.) */
    snprintf(line, sizeof(line),
             "@ tokenize -m %s/%s.gguf --file %s/%s --separator __ggml_vocab_test__ >$TMP_IDS; "
             "sed 's/^ //' %s/%s | cmp - $TMP_IDS",
             dir, name, dir, texts, dir, ids);
    expect(line, 0, "");
}

static void ids_are_the_recorded_ones(void)
{
    static const char *const names[] = {"llama-spm", "llama-bpe", "qwen2", "gpt-2", "bert-bge"};
    char dir[1024], texts[64], ids[64], tmp[] = "/tmp/rocmforge-tokenize-XXXXXX";
    snprintf(dir, sizeof(dir), "%s/tokenizers", test_data_dir());
    int fd = mkstemp(tmp);
    CHECK(fd >= 0);
    close(fd);
    setenv("TMP_IDS", tmp, 1);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(texts, sizeof(texts), "%s.inp", names[i]);
        snprintf(ids, sizeof(ids), "%s.out", names[i]);
        vectors(dir, names[i], texts, ids);
        snprintf(ids, sizeof(ids), "%s.more.out", names[i]);
        vectors(dir, names[i], "more.inp", ids);
    }
    unlink(tmp);
}

int main(int argc, char **argv)
{
    static char beside[8192], self[4096];
    snprintf(self, sizeof(self), "%s", argv[0]);
    snprintf(beside, sizeof(beside), "%s/../bin/rocmforge-worker", dirname(self));
    program = argc > 1 ? argv[1] : beside;
    texts_come_back();
    mistakes_have_exit_codes();
    ids_are_the_recorded_ones();
    return 0;
}
