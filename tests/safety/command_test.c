/* The command line: help that fits a screen, what is handed to which program, exit codes. */
#include "tests/safety/rig.h"
#include "shared/err.h"

#include <fcntl.h>
#include <sys/wait.h>

static const char *program;
static char output[1 << 16];

/* Runs with stdout and stderr in `output`; returns the exit code. */
static int command(const char *const args[])
{
    int fds[2], status;
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        const char *argv[16] = {program};
        for (size_t i = 0; i < 15 && args[i]; i++) {
            argv[i + 1] = args[i];
        }
        dup2(fds[1], STDOUT_FILENO);
        dup2(fds[1], STDERR_FILENO);
        setenv("XDG_CONFIG_HOME", rig_dir(), 1);
        char *copy[17] = {0};
        for (size_t i = 0; argv[i]; i++) {
            copy[i] = strdup(argv[i]);
        }
        execv(program, copy);
        _exit(127);
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fds[0], output + n, sizeof(output) - 1 - n)) > 0;) {
        n += (size_t)got;
    }
    output[n] = '\0';
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}
#define COMMAND(...) command((const char *const[]){__VA_ARGS__, NULL})

static void check_says(const char *text)
{
    if (!strstr(output, text)) {
        TEST_FAIL("\"%s\" is not in:\n%s", text, output);
    }
}

static void check_fits(size_t max_lines)
{
    size_t n_lines = 0;
    for (const char *line = output; *line; n_lines++) {
        size_t n = strcspn(line, "\n");
        if (n > 80) {
            TEST_FAIL("longer than 80 columns: %.*s", (int)n, line);
        }
        line += n + (line[n] == '\n');
    }
    if (n_lines > max_lines) {
        TEST_FAIL("%zu lines, at most %zu fit", n_lines, max_lines);
    }
}

static void test_help(void)
{
    CHECK_INT(COMMAND("--help"), 0);
    check_fits(30);
    static const char *const names[] = {
        "serve",    "run",        "chat",   "inspect", "logits",
        "tokenize", "detokenize", "doctor", "config",  "75 already running"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        check_says(names[i]);
    }
    CHECK_INT(COMMAND("serve", "--help"), 0);
    check_fits(100);
    check_says("--api-key-file");
    CHECK_INT(COMMAND("config", "--help"), 0);
    CHECK_INT(COMMAND("--version"), 0);
    CHECK_STR(output, "rocmforge " ROCMFORGE_VERSION "\n");
}

static void test_mistakes(void)
{
    CHECK_INT(COMMAND("surve"), 2);
    check_says("there is no command 'surve'");
    CHECK_INT(COMMAND("serve"), 2);
    check_says("--model FILE.gguf");
    CHECK_INT(COMMAND("serve", "--no-such-thing"), 2);
    check_says("unknown option '--no-such-thing'");
    CHECK_INT(COMMAND("serve", "-m", "x", "--port", "99999"), 11);
    check_says("'port' is '99999', allowed is a whole number from 0 to 65535");
    CHECK_INT(COMMAND("serve", "--config", "/nonexistent", "-m", "x"), 1);
    check_says("/nonexistent");
    CHECK_INT(COMMAND("config", "--nonsense"), 2);
}

static void test_config(void)
{
    CHECK_INT(COMMAND("config", "--queue-size", "7"), 0);
    check_says("queue_size        7                  flag");
}

static void test_tools(void)
{
    CHECK_INT(COMMAND("--libexec", rig_dir(), "inspect", "x.gguf", "--help"), 31);
    check_says("@worker arg inspect\n@worker arg x.gguf\n@worker arg --help\n");
    /* The front tells what it takes. */
    CHECK_INT(COMMAND("--libexec", rig_dir(), "run", "--help"), 31);
    check_says("@gateway arg --terminal\n@gateway arg run\n@gateway arg --help\n");
    CHECK_INT(COMMAND("--libexec", rig_dir(), "poison", "--clear"), 31);
    check_says("@gateway arg --admin\n@gateway arg poison\n@gateway arg --clear\n");
    CHECK_INT(COMMAND("--libexec", "/nonexistent", "inspect", "x"), 1);
    check_says("cannot start /nonexistent/rocmforge-worker: No such file");
}

int main(int argc, char **argv)
{
    rig_init(argc, argv);
    program = argv[1];
    setenv("DUMMY_WORKER", "", 1);
    setenv("DUMMY_GATEWAY", "", 1);
    test_help();
    test_mistakes();
    test_config();
    test_tools();
    rig_clean();
    return 0;
}
