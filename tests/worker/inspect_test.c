/* `inspect` on files made here: what it shows, that nothing in a file reaches the terminal raw, and
 * its exit codes. */
#include "tests/test.h"
#include "shared/err.h"
#include "shared/ggufw.h"
#include "worker/tool.h"

static char dir[] = "/tmp/inspect_test.XXXXXX";
static char out[65536]; /* what the last run printed */

static int inspect(const char *a, const char *b)
{
    char path[128], first[128], second[128], name[] = "inspect";
    snprintf(path, sizeof(path), "%s/out", dir);
    snprintf(first, sizeof(first), "%s", a);
    snprintf(second, sizeof(second), "%s", b ? b : "");
    char *argv[] = {name, first, second, NULL};
    fflush(stdout);
    fflush(stderr);
    int saved_out = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);
    FILE *f = fopen(path, "w+");
    CHECK(f && dup2(fileno(f), STDOUT_FILENO) >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
    int code = tool_inspect(b ? 3 : 2, argv);
    fflush(stdout);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_err, STDERR_FILENO);
    close(saved_out);
    close(saved_err);
    rewind(f);
    size_t n = fread(out, 1, sizeof(out) - 1, f);
    out[n] = 0;
    fclose(f);
    return code;
}

static void shows(const char *words)
{
    if (!strstr(out, words)) {
        TEST_FAIL("\"%s\" is not in:\n%s", words, out);
    }
}

static const char *write_model(const char *name, const char *model_name, const char *arch)
{
    static char path[128];
    static const uint64_t ne[] = {64, 3}, five[] = {5};
    static const char zeros[1024];
    static const uint32_t heads[] = {8, 8, 2};
    struct gguf_str tokens[20];
    struct ggufw *w;
    struct err e = {0};
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK_INT(ggufw_create(path, &w, &e), 0);
    ggufw_put_str(w, "general.architecture", arch, strlen(arch));
    ggufw_put_str(w, "general.name", model_name, strlen(model_name));
    char key[64];
    snprintf(key, sizeof(key), "%s.attention.head_count", arch);
    ggufw_put_array(w, key, GGUF_U32, heads, 3);
    snprintf(key, sizeof(key), "%s.expert_count", arch);
    ggufw_put_array(w, key, GGUF_U32, NULL, 0);
    ggufw_put_u64(w, "largest", UINT64_MAX);
    for (size_t i = 0; i < 20; i++) {
        tokens[i] = (struct gguf_str){"tok\x1b", i % 2 ? 3 : 4};
    }
    ggufw_put_str_array(w, "tokenizer.ggml.tokens", tokens, 20);
    ggufw_put_u32(w, "tokenizer.ggml.bos_token_id", 99);
    ggufw_declare(w, "blk.0.attn_q.weight", TYPE_Q8_0, 2, ne);
    ggufw_declare(w, "odd\x1b[2Jname", TYPE_F32, 1, five);
    CHECK_INT(ggufw_begin_data(w, &e), 0);
    CHECK_INT(ggufw_write(w, zeros, 204, &e), 0);
    CHECK_INT(ggufw_write(w, zeros, 20, &e), 0);
    CHECK_INT(ggufw_commit(w, &e), 0);
    ggufw_destroy(&w);
    return path;
}

static void nothing_raw(void)
{
    for (const char *p = out; *p; p++) {
        CHECK((unsigned char)*p >= 0x20 || *p == '\n');
    }
}

int main(void)
{
    CHECK(mkdtemp(dir) && setenv("XDG_CONFIG_HOME", dir, 1) == 0);
    const char *path = write_model("m.gguf", "a\x1b]0;title\x07\n\xFFname", "no\x1b[such");
    CHECK_INT(inspect(path, NULL), EXIT_OK);
    nothing_raw();
    shows("GGUF version 3");
    shows("in 1 file, 7 keys, 2 tensors");
    shows("a\\u001b]0;title\\u0007\\n\\xffname");
    shows("architecture           no\\u001b[such");
    shows("parameters             197\n");
    shows("query heads            2 to 8 by layer");
    shows("experts                -\n");
    shows("Q8_0           1                192     204 bytes  91.1 %");
    shows("bos 99 (outside the vocabulary)");
    shows("the model's architecture is not supported"); /* in the place of the memory estimate */
    CHECK_INT(inspect(path, "--device=gpu"), EXIT_OK);  /* an estimate is all that depends on it */
    nothing_raw();
    shows("Q8_0  ");
    shows("no estimate            ");
    shows("largest                                    u64      18446744073709551615");
    shows("... 20 in all]");

    CHECK_INT(inspect(path, "--list-tensors"), EXIT_OK);
    nothing_raw();
    shows("blk.0.attn_q.weight                      64 x 3                     Q8_0                "
          "204 ");
    shows("odd\\u001b[2Jname");

    char named[160];
    snprintf(named, sizeof(named), "--model=x=%s", path);
    CHECK_INT(inspect(named, NULL), EXIT_OK);
    shows("GGUF version 3");

    snprintf(named, sizeof(named), "%s/absent.gguf", dir);
    CHECK_INT(inspect(named, NULL), EXIT_MODEL);
    shows("absent.gguf");
    CHECK_INT(inspect(dir, NULL), EXIT_MODEL);
    shows("no regular file");
    CHECK(truncate(path, 300) == 0);
    CHECK_INT(inspect(path, NULL), EXIT_MODEL);
    shows("the GGUF file is cut short");
    CHECK_INT(inspect(path, "extra"), EXIT_USAGE);
    CHECK_INT(inspect(path, "--nonsense"), EXIT_USAGE);
    CHECK_INT(inspect("--list-tensors", NULL), EXIT_USAGE); /* no model */
    CHECK_INT(inspect("--help", NULL), EXIT_OK);
    shows("usage: rocmforge inspect MODEL");
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) != 0;
}
