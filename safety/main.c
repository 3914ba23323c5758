/* `rocmforge`: the command line. Reads settings, then becomes the supervisor (serve, run, chat) or
 * hands over to the program that does the work. Single-threaded; nothing here touches a model or a
 * GPU. */
#include "safety/state.h"
#include "safety/supervisor.h"
#include "shared/log.h"
#include "shared/num.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command {
    const char *name, *usage, *summary;
    int (*run)(const struct command *cmd, int argc, char **argv);
};

static int run_server(const struct command *cmd, int argc, char **argv);
static int run_terminal(const struct command *cmd, int argc, char **argv);
static int run_tool(const struct command *cmd, int argc, char **argv);
static int run_bench(const struct command *cmd, int argc, char **argv);
static int run_doctor(const struct command *cmd, int argc, char **argv);
static int run_report(const struct command *cmd, int argc, char **argv);
static int run_admin(const struct command *cmd, int argc, char **argv);
static int run_config(const struct command *cmd, int argc, char **argv);

static const struct command commands[] = {
    {"serve", "-m MODEL...", "serve models over HTTP", run_server},
    {"run", "-m MODEL -p PROMPT", "answer one prompt", run_terminal},
    {"chat", "-m MODEL", "talk with a model in the terminal", run_terminal},
    {"inspect", "MODEL", "show what a model file holds and needs", run_tool},
    {"logits", "-m MODEL -p TEXT -o FILE", "write the logits of a prompt to a file", run_tool},
    {"tokenize", "-m MODEL", "print the token ids of a text", run_tool},
    {"detokenize", "-m MODEL", "print the text of token ids", run_tool},
    {"apply-template", "-m MODEL --request FILE", "print the prompt of a chat request", run_tool},
    {"bench", "-m MODEL | --server URL", "measure an engine or a server", run_bench},
    {"perplexity", "-m MODEL --file FILE", "measure how well a model predicts a text", run_tool},
    {"quantize", "IN OUT TYPE", "write a model in another type", run_tool},
    {"doctor", "", "check this machine: CPU, GPU, driver, permissions", run_doctor},
    {"report", "[NAME|last] [--out FILE]", "list crash reports, or pack one", run_report},
    {"poison", "[--clear]", "list requests refused as deadly to workers", run_admin},
    {"config", "", "show every setting, its value and where it comes from", run_config},
};

/* Options before the command; for tests. */
static char program_dir[PATH_MAX]; /* --libexec DIR: where the other programs stand */
static uint64_t calm_ms;           /* --calm-ms N: until the ceiling of VRAM may rise */
static uint64_t stall_ms;          /* --stall-ms N: deadline for missing progress */
static uint64_t reap_ms;           /* --reap-ms N: how long SIGKILL may take */

static void print_help(void)
{
    printf("rocmforge %s: a local LLM server for AMD GPUs\n\n"
           "usage: rocmforge COMMAND [options]\n\n",
           ROCMFORGE_VERSION);
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        printf("  %-16s%s\n", commands[i].name, commands[i].summary);
    }
    printf("\n'rocmforge COMMAND --help' lists a command's options; -m MODEL -p PROMPT\n"
           "alone is 'run'. Settings come from flags, ROCMFORGE_* variables and\n"
           "~/.config/rocmforge/rocmforge.conf, in this order ('rocmforge config').\n\n"
           "Exit codes: 0 ok, 1 error, 2 usage, 10 GPU lock busy, 11 configuration,\n"
           "12-15 GPU access, device, memory, kernel, 16 model file, 17 memory, 18 VRAM,\n"
           "19 the model's disk, 20 GPU fault, 24 NaN in the model, 30 programs do not\n"
           "fit, 75 already running\n");
}

static int fail(const struct err *e)
{
    char text[512];
    fprintf(stderr, "rocmforge: %s\n", err_format(e, text, sizeof(text)));
    return err_exit_code(e->code);
}

static int fail_usage(const struct command *cmd, const char *what, const char *arg)
{
    fprintf(stderr, "rocmforge: %s '%s'; see 'rocmforge %s --help'\n", what, arg, cmd->name);
    return EXIT_USAGE;
}

/* Becomes rocmforge-<name>. */
static int hand_over(const char *name, char **argv)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/rocmforge-%s", program_dir, name);
    fflush(stdout);
    execv(path, argv);
    fprintf(stderr, "rocmforge: cannot start %s: %s; install all rocmforge programs together\n",
            path, strerror(errno));
    return EXIT_GENERAL;
}

/* ---- settings from the command line ---- */

struct arguments {
    int argc; /* what follows the command */
    char **argv;
    bool keeps_unknown;  /* run, chat: what is no setting belongs to the front */
    char **rest;         /* out: there, ended by NULL; room for argc + 1 */
    size_t n_rest;       /* out */
    const char *unknown; /* out: first argument that is no setting */
    bool wants_help;     /* out */
};

/* Options of the front whose value is free text, and so may look like a setting. */
static bool takes_text(const char *arg)
{
    static const char *const names[] = {"-p", "--prompt", "--system", "--stop", "--file", "-f"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (strcmp(arg, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Reads all sources into *c, which the caller owns on success only. */
static int read_settings(struct arguments *a, struct config *c, struct err *e)
{
    const char *file = NULL;
    int rc = 0;
    a->n_rest = 0;
    a->unknown = NULL;
    config_init(c);
    for (int i = 0; rc >= 0 && i < a->argc;) {
        char *arg = a->argv[i];
        rc = config_take_flag(c, a->argc, a->argv, i, e);
        if (rc != 0) {
            i += MAX(rc, 0);
            continue;
        }
        if (strcmp(arg, "--config") == 0 && i + 1 < a->argc) {
            file = a->argv[i + 1];
            i += 2;
            continue;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            a->wants_help = true;
        } else if (!a->unknown) {
            a->unknown = arg;
        }
        int n = takes_text(arg) && i + 1 < a->argc ? 2 : 1;
        for (int j = 0; a->keeps_unknown && j < n; j++) {
            a->rest[a->n_rest++] = a->argv[i + j];
        }
        i += n;
    }
    if (rc >= 0 && !a->wants_help) {
        rc = config_load(c, file, e);
    }
    if (rc < 0) {
        config_finish(c);
    }
    return MIN(rc, 0);
}

/* For the supervisor, at SIGHUP. */
static int load(void *arg, struct config *ret, struct err *e)
{
    return read_settings(arg, ret, e);
}

static void start_log(const struct config *c)
{
    log_open_terminal();
    log_init("supervisor", (enum log_level)c->v[CONFIG_log_level].i,
             (enum log_format)c->v[CONFIG_log_format].i);
}

static void print_usage(const struct command *cmd)
{
    printf("usage: rocmforge %s %s%s[options]\n%s\n\n", cmd->name, cmd->usage,
           *cmd->usage ? " " : "", cmd->summary);
}

static void print_settings(const enum config_key *keys, size_t n)
{
    struct buf b;
    buf_init(&b, 0);
    config_help(keys, n, &b);
    printf("%s      --config FILE          read settings from this file\n", b.failed ? "" : b.data);
    buf_finish(&b);
}

static int supervise(struct arguments *a, struct config *c, char *const *front_argv,
                     bool is_terminal)
{
    if (c->v[CONFIG_model].list.n == 0) {
        struct err e;
        err_set(&e, ERR_USAGE, "no model is named; give --model FILE.gguf");
        config_finish(c);
        return fail(&e);
    }
    start_log(c);
    char state[PATH_MAX];
    state_dir(c->v[CONFIG_state_dir].str, state, sizeof(state));
    struct supervisor_options o = {.program_dir = program_dir,
                                   .state_dir = state,
                                   .front_argv = front_argv,
                                   .is_terminal = is_terminal,
                                   .stall_ms = stall_ms,
                                   .calm_ms = calm_ms,
                                   .reap_ms = reap_ms,
                                   .load = load,
                                   .load_arg = a};
    int code = supervisor_run(c, &o);
    config_finish(c);
    return code;
}

/* ---- commands ---- */

static int run_server(const struct command *cmd, int argc, char **argv)
{
    struct arguments a = {.argc = argc, .argv = argv};
    struct config c;
    struct err e = {0};
    if (read_settings(&a, &c, &e) < 0) {
        return fail(&e);
    }
    if (a.wants_help) {
        enum config_key keys[CONFIG_COUNT];
        for (size_t i = 0; i < CONFIG_COUNT; i++) {
            keys[i] = (enum config_key)i;
        }
        print_usage(cmd);
        print_settings(keys, CONFIG_COUNT);
        printf("\nSignals: TERM or INT finish the running requests and end (twice: at once);\n"
               "HUP reads settings and API keys again.\n");
    } else if (!a.unknown) {
        char name[] = "rocmforge-gateway";
        char *front_argv[] = {name, NULL};
        return supervise(&a, &c, front_argv, false);
    }
    config_finish(&c);
    return a.wants_help ? EXIT_OK : fail_usage(cmd, "unknown option", a.unknown);
}

static int run_terminal(const struct command *cmd, int argc, char **argv)
{
    char name[] = "rocmforge-gateway", terminal[] = "--terminal", help[] = "--help";
    char **front_argv = base_alloc(((size_t)argc + 5) * sizeof(*front_argv));
    front_argv[0] = name;
    front_argv[1] = terminal;
    front_argv[2] = strdup(cmd->name);
    struct arguments a = {
        .argc = argc, .argv = argv, .keeps_unknown = true, .rest = front_argv + 3};
    struct config c;
    struct err e = {0};
    int code;
    if (read_settings(&a, &c, &e) < 0) {
        code = fail(&e);
    } else if (a.wants_help) { /* the front tells */
        config_finish(&c);
        front_argv[3] = help;
        front_argv[4] = NULL;
        code = hand_over("gateway", front_argv);
    } else {
        /* What stands in the terminal is the answer; problems still show. */
        int rc = config_set(&c, "log_level", "warn", CONFIG_FROM_DEFAULT, &e);
        ASSERT(rc == 0);
        code = supervise(&a, &c, front_argv, true);
    }
    free(front_argv[2]);
    free(front_argv);
    return code;
}

/* argv[-1] is the command's own name. */
static int run_tool(const struct command *cmd, int argc, char **argv)
{
    (void)cmd;
    char name[] = "rocmforge-worker";
    char **worker_argv = base_alloc(((size_t)argc + 3) * sizeof(*worker_argv));
    worker_argv[0] = name;
    memcpy(worker_argv + 1, argv - 1, ((size_t)argc + 1) * sizeof(*worker_argv));
    int code = hand_over("worker", worker_argv);
    free(worker_argv);
    return code;
}

/* What talks to a server is done by the program that speaks HTTP; argv[-1] as above. */
static int run_client(char *mode, int argc, char **argv)
{
    char name[] = "rocmforge-gateway";
    char **gateway_argv = base_alloc(((size_t)argc + 4) * sizeof(*gateway_argv));
    gateway_argv[0] = name;
    gateway_argv[1] = mode;
    memcpy(gateway_argv + 2, argv - 1, ((size_t)argc + 1) * sizeof(*gateway_argv));
    int code = hand_over("gateway", gateway_argv);
    free(gateway_argv);
    return code;
}

/* An engine is measured by the worker's program, a server by that which speaks HTTP. */
static int run_bench(const struct command *cmd, int argc, char **argv)
{
    bool is_server = false;
    for (int i = 0; i < argc; i++) {
        is_server |= strncmp(argv[i], "--server", 8) == 0;
        if (strcmp(argv[i], "--help") == 0) { /* is no server's address */
            char *first = argv[0];
            argv[0] = argv[i];
            argv[i] = first;
        }
    }
    if (!is_server) {
        return run_tool(cmd, argc, argv);
    }
    char mode[] = "--load";
    return run_client(mode, argc, argv);
}

/* A command that asks a running server. */
static int run_admin(const struct command *cmd, int argc, char **argv)
{
    (void)cmd;
    char mode[] = "--admin";
    return run_client(mode, argc, argv);
}

static int run_doctor(const struct command *cmd, int argc, char **argv)
{
    (void)cmd;
    (void)argc;
    char name[] = "rocmforge doctor";
    argv[-1] = name;
    return hand_over("probe", argv - 1);
}

/* What is no setting belongs to the probe, which does the work. */
static int run_report(const struct command *cmd, int argc, char **argv)
{
    char name[] = "rocmforge-probe", word[] = "report", state[PATH_MAX];
    char **rest = base_alloc(((size_t)argc + 5) * sizeof(*rest));
    struct arguments a = {.argc = argc, .argv = argv, .keeps_unknown = true, .rest = rest + 3};
    struct config c;
    struct err e = {0};
    int code = EXIT_OK;
    if (read_settings(&a, &c, &e) < 0) {
        free(rest);
        return fail(&e);
    }
    state_dir(c.v[CONFIG_state_dir].str, state, sizeof(state));
    if (a.wants_help) {
        static const enum config_key keys[] = {CONFIG_state_dir};
        print_usage(cmd);
        printf("Without a name it lists them, newest first; with one ('last': the newest) it packs "
               "it into\nNAME.tar, or into FILE ('-': standard output). A report holds no prompts "
               "and no keys.\n\n");
        print_settings(keys, COUNT_OF(keys));
    } else {
        rest[0] = name;
        rest[1] = word;
        rest[2] = state;
        rest[3 + a.n_rest] = NULL;
        code = hand_over("probe", rest);
    }
    config_finish(&c);
    free(rest);
    return code;
}

static int run_config(const struct command *cmd, int argc, char **argv)
{
    struct arguments a = {.argc = argc, .argv = argv};
    struct config c;
    struct err e = {0};
    if (read_settings(&a, &c, &e) < 0) {
        return fail(&e);
    }
    int code = EXIT_OK;
    if (a.wants_help) {
        print_usage(cmd);
        printf("Takes the settings of 'serve' and shows what they come to.\n");
    } else if (a.unknown) {
        code = fail_usage(cmd, "unknown option", a.unknown);
    } else {
        struct buf b;
        buf_init(&b, 0);
        config_print(&c, &b);
        fputs(b.failed ? "" : b.data, stdout);
        buf_finish(&b);
    }
    config_finish(&c);
    return code;
}

/* ---- start ---- */

/* 0, 1 and 2 are open in every program that follows, or a socket would take their place. */
static void open_standard_fds(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

static bool find_programs(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0) {
        return false;
    }
    self[n] = '\0';
    snprintf(program_dir, sizeof(program_dir), "%s", dirname(self));
    return true;
}

/* Returns the index of the first argument that is none. */
static int take_test_options(int argc, char **argv)
{
    int i = 1;
    for (; i + 1 < argc; i += 2) {
        uint64_t *number = strcmp(argv[i], "--stall-ms") == 0  ? &stall_ms
                           : strcmp(argv[i], "--reap-ms") == 0 ? &reap_ms
                           : strcmp(argv[i], "--calm-ms") == 0 ? &calm_ms
                                                               : NULL;
        if (strcmp(argv[i], "--libexec") == 0) {
            snprintf(program_dir, sizeof(program_dir), "%s", argv[i + 1]);
        } else if (!number || !num_parse_u64(argv[i + 1], number)) {
            break;
        }
    }
    return i;
}

int main(int argc, char **argv)
{
    open_standard_fds();
    int i = take_test_options(argc, argv);
    if (!*program_dir && !find_programs()) {
        fprintf(stderr, "rocmforge: /proc is not there: %s\n", strerror(errno));
        return EXIT_GENERAL;
    }
    const char *word = i < argc ? argv[i] : "--help";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help();
        return i < argc ? EXIT_OK : EXIT_USAGE;
    }
    if (strcmp(word, "--version") == 0) {
        printf("rocmforge %s\n", ROCMFORGE_VERSION);
        return EXIT_OK;
    }
    if (*word == '-') {
        word = "run";
        i--;
    }
    for (size_t j = 0; j < COUNT_OF(commands); j++) {
        if (strcmp(word, commands[j].name) == 0) {
            return commands[j].run(&commands[j], argc - i - 1, argv + i + 1);
        }
    }
    fprintf(stderr, "rocmforge: there is no command '%s'; see 'rocmforge --help'\n", word);
    return EXIT_USAGE;
}
