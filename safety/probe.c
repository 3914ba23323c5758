/* `rocmforge-probe`: the runner. It keeps the time while its child runs the stages, shows the
 * results (doctor: a table or JSON lines; preflight: messages to the supervisor), and never blocks
 * for longer than the deadlines of the table. */
#include "safety/probe.h"
#include "safety/probe_smi.h"
#include "safety/probe_watch.h"
#include "safety/remember.h"
#include "safety/report.h"
#include "safety/reporter.h"
#include "ipc/channel.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/num.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct stage {
    const char *name;
    probe_stage_fn *run;
    int deadline_ms;
    bool is_doctors; /* not part of the preflight: the worker holds the lock by then */
} stages[] = {
    {"cpu", probe_machine_cpu, 2000, true},
    {"environment", probe_machine_environment, 1000, false},
    {"sandbox", probe_machine_sandbox, 1000, true},
    {"card", probe_machine_card, 2000, false},
    {"lock", probe_machine_lock, 1000, true},
    {"nodes", probe_machine_nodes, 62 * 1000, false}, /* sits out a reset of the GPU */
    {"quiet", probe_machine_quiet, 7000, false},
    {"smi", probe_smi, 13 * 1000, true}, /* gives up by itself, and long before */
    {"runtime", probe_hip_runtime, 10 * 1000, false},
    {"see", probe_hip_see, 5000, false},
    {"copy", probe_hip_copy, 2000, false},
    {"kernel", probe_hip_kernel, 3000, false},
};

enum { REAP_MS = 1000, TABLE_COLUMN = 31, TABLE_WIDTH = 100 };

struct options {
    struct probe probe;
    bool is_preflight; /* run by the supervisor */
    bool is_json;
    uint64_t epoch;
};

void probe_say(char text[MSG_DETAIL_BYTES], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, MSG_DETAIL_BYTES, fmt, ap);
    va_end(ap);
}

int probe_skip(const struct probe *p, struct msg_stage *out)
{
    if (*p->no_gpu) {
        probe_say(out->detail, "%s", p->no_gpu);
        return PROBE_SKIPPED;
    }
    return PROBE_OK;
}

/* ---- the child ---- */

static bool is_wanted(const struct options *o, size_t i)
{
    return !o->is_preflight || !stages[i].is_doctors;
}

NORETURN static void run_stages(struct options *o, int out_fd, pid_t runner)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != runner) {
        _exit(EXIT_PARENT_DIED);
    }
    lock_init(&o->probe.lock);
    for (size_t i = 0; i < COUNT_OF(stages); i++) {
        if (!is_wanted(o, i)) {
            continue;
        }
        struct msg_stage s = {.stage = (uint32_t)i};
        snprintf(s.name, sizeof(s.name), "%s", stages[i].name);
        uint64_t t0 = clock_ns();
        s.status = stages[i].run(&o->probe, &s);
        s.ns = clock_ns() - t0;
        if (write(out_fd, &s, sizeof(s)) != sizeof(s) || s.status < 0) { /* at once: < PIPE_BUF */
            break;
        }
    }
    lock_release(&o->probe.lock);
    _exit(EXIT_OK); /* no destructors: HIP's can hang */
}

/* ---- the runner ---- */

/* How the child ended, if it does within REAP_MS; a child that the kernel holds is left to it. */
static void describe_end(pid_t child, char *ret, size_t bytes)
{
    uint64_t deadline_ms = clock_ms() + REAP_MS;
    int status;
    pid_t got;
    while ((got = waitpid(child, &status, WNOHANG)) == 0 && clock_ms() < deadline_ms) {
        (void)poll(NULL, 0, 5);
    }
    if (got != child) {
        snprintf(ret, bytes, "it cannot be killed: the kernel holds it");
    } else if (WIFSIGNALED(status)) {
        snprintf(ret, bytes, "it was ended by SIG%s", sigabbrev_np(WTERMSIG(status)));
    } else {
        snprintf(ret, bytes, "it ended with %d", WEXITSTATUS(status));
    }
}

/* Waits for the stage's result; makes one up when it does not come. */
static void await_stage(size_t i, int in_fd, pid_t child, struct msg_stage *ret)
{
    struct pollfd p = {.fd = in_fd, .events = POLLIN};
    uint64_t t0 = clock_ns();
    int n;
    do {
        int64_t left_ms = stages[i].deadline_ms - (int64_t)((clock_ns() - t0) / 1000000);
        n = poll(&p, 1, (int)MAX(left_ms, 0));
    } while (n < 0 && errno == EINTR);
    if (n > 0 && read(in_fd, ret, sizeof(*ret)) == sizeof(*ret) && ret->stage == i) {
        return;
    }
    char end[64];
    *ret = (struct msg_stage){.stage = (uint32_t)i, .ns = clock_ns() - t0};
    snprintf(ret->name, sizeof(ret->name), "%s", stages[i].name);
    if (n == 0) {
        (void)kill(child, SIGKILL);
        describe_end(child, end, sizeof(end));
        ret->status = ERR_GPU_STALLED;
        probe_say(ret->detail, "no answer within %.1f s; %s", stages[i].deadline_ms / 1000.0, end);
    } else {
        describe_end(child, end, sizeof(end));
        ret->status = ERR_NO_GPU;
        probe_say(ret->detail, "the stage brought its process down: %s", end);
    }
    probe_say(ret->remedy, "%s", err_remedy(ret->status));
}

/* ---- output ---- */

static const char *result_word(const struct msg_stage *s)
{
    return s->status == PROBE_OK ? "ok" : s->status == PROBE_SKIPPED ? "skipped" : "FAILED";
}

/* Words of text, wrapped, from TABLE_COLUMN on. */
static void print_wrapped(const char *text)
{
    size_t at = TABLE_COLUMN;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " ");
        if (at > TABLE_COLUMN && at + 1 + n > TABLE_WIDTH) {
            printf("\n%*s", TABLE_COLUMN, "");
            at = TABLE_COLUMN;
        } else if (at > TABLE_COLUMN) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)n, p);
        at += n;
        p += n + (p[n] == ' ');
    }
    putchar('\n');
}

static void print_row(const struct msg_stage *s)
{
    printf("%-12s %-8s %7.1f  ", s->name, result_word(s), (double)s->ns / 1e6);
    print_wrapped(s->detail);
    if (*s->remedy) {
        char text[MSG_DETAIL_BYTES + 16];
        snprintf(text, sizeof(text), "-> %s", s->remedy);
        printf("%*s", TABLE_COLUMN, "");
        print_wrapped(text);
    }
    fflush(stdout);
}

static void print_json(const struct msg_stage *s)
{
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "{\"stage\":\"%s\",\"result\":\"%s\",\"code\":", s->name, result_word(s));
    const char *code = s->status < 0 ? err_code(s->status) : "";
    json_put_string(&b, code, strlen(code));
    buf_printf(&b, ",\"ms\":%.3f,\"detail\":", (double)s->ns / 1e6);
    json_put_string(&b, s->detail, strlen(s->detail));
    buf_str(&b, ",\"remedy\":");
    json_put_string(&b, s->remedy, strlen(s->remedy));
    buf_str(&b, "}\n");
    fputs(b.failed ? "" : b.data, stdout);
    fflush(stdout);
    buf_finish(&b);
}

static void greet(struct channel *c, uint64_t epoch)
{
    struct msg_hello m = {
        .protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid(), .epoch = epoch};
    snprintf(m.version, sizeof(m.version), "%s", ROCMFORGE_VERSION);
    channel_init(c, CHANNEL_CHILD_FD, MSG_PROBE, MSG_SUPERVISOR);
    if (channel_send(c, MSG_HELLO, epoch, &m, sizeof(m), NULL, 0) != 0) {
        _exit(EXIT_PARENT_DIED);
    }
    c->state = MSG_STATE_GREETED;
}

/* The GPU may be used only if every stage of the preflight was passed. */
static int judge(const struct msg_stage *s, struct msg_verdict *v)
{
    if (v->err == 0 && s->status != PROBE_OK) {
        v->err = s->status < 0 ? s->status : ERR_NO_GPU;
        probe_say(v->detail, "%s: %.300s", s->name, s->detail);
    }
    return v->err;
}

static int run(struct options *o)
{
    int ends[2];
    if (pipe(ends) != 0) {
        fprintf(stderr, "rocmforge-probe: pipe: %s\n", strerror(errno));
        return EXIT_GENERAL;
    }
    pid_t runner = getpid(), child = fork();
    if (child == 0) {
        close(ends[0]);
        run_stages(o, ends[1], runner);
    }
    close(ends[1]);
    if (child < 0) {
        fprintf(stderr, "rocmforge-probe: fork: %s\n", strerror(errno));
        return EXIT_GENERAL;
    }
    struct channel c;
    struct msg_verdict verdict = {0};
    struct msg_stage s = {0};
    if (o->is_preflight) {
        greet(&c, o->epoch);
    } else if (!o->is_json) {
        printf("%-12s %-8s %7s  %s\n", "STAGE", "RESULT", "MS", "WHAT");
    }
    for (size_t i = 0; i < COUNT_OF(stages) && s.status >= 0; i++) {
        if (!is_wanted(o, i)) {
            continue;
        }
        await_stage(i, ends[0], child, &s);
        if (stages[i].run != probe_smi) { /* which nothing depends on */
            judge(&s, &verdict);
        }
        if (!o->is_preflight) {
            o->is_json ? print_json(&s) : print_row(&s);
        } else if (channel_send(&c, MSG_STAGE, o->epoch, &s, sizeof(s), NULL, 0) != 0) {
            return EXIT_PARENT_DIED;
        }
    }
    (void)waitpid(child, NULL, WNOHANG);
    if (o->is_preflight) {
        return channel_send(&c, MSG_VERDICT, o->epoch, &verdict, sizeof(verdict), NULL, 0) == 0
                   ? EXIT_OK
                   : EXIT_PARENT_DIED;
    }
    if (!o->is_json) {
        printf("\n%s\n", verdict.err == 0 ? "The GPU can be used."
                         : s.status < 0   ? "The GPU cannot be used until this is solved; "
                                            "--device cpu serves without it."
                                          : "rocmforge computes on the CPU here.");
    }
    return s.status < 0 ? err_exit_code(s.status) : EXIT_OK;
}

/* ---- command line ---- */

static int usage(FILE *to)
{
    fprintf(to,
            "usage: rocmforge doctor [--device N] [--json]\n"
            "Checks in steps whether and how rocmforge can compute here; the first failure ends "
            "the run.\n\n"
            "      --device N  check this GPU instead of the one with the most memory\n"
            "      --kernel-dir DIR  folder of the GPU kernels\n"
            "      --json      one JSON object a line\n\n"
            "Exit code: 0, or that of the stage that failed (see rocmforge --help).\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

int main(int argc, char **argv)
{
    struct options o = {.probe = {.root = topology_root(), .device = -1, .quiet_ms = 5000}};
    if (argc == 3 && strcmp(argv[1], "--report") == 0) { /* by the supervisor */
        return reporter_write(argv[2]);
    } else if (argc == 3 && strcmp(argv[1], "--reports") == 0) { /* the same */
        return reporter_answer(argv[2]);
    } else if (argc >= 3 && strcmp(argv[1], "--watch") == 0) { /* the same */
        bool is_wedged = argc == 4 && strcmp(argv[3], "wedged") == 0;
        return probe_watch(topology_root(), (pid_t)strtol(argv[2], NULL, 10), is_wedged);
    } else if (argc == 4 && strcmp(argv[1], "--remember") == 0) { /* the same */
        int fd = report_open_dir(argv[2]); /* which makes the folder */
        return fd >= 0 && remember_write(argv[2], argv[3]) == 0 ? EXIT_OK : EXIT_GENERAL;
    } else if (argc >= 3 && strcmp(argv[1], "report") == 0) { /* by the command line */
        return reporter_command(argv[2], argc - 3, argv + 3);
    }
    for (int i = 1; i < argc; i++) {
        uint64_t n = 0;
        bool has_value = i + 1 < argc, is_number = has_value && num_parse_u64(argv[i + 1], &n);
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return usage(stdout);
        } else if (strcmp(argv[i], "--json") == 0) {
            o.is_json = true;
        } else if (strcmp(argv[i], "--device") == 0 && is_number && n < TOPOLOGY_MAX_GPUS) {
            o.probe.device = (int)n;
            i++;
        } else if (strcmp(argv[i], "--epoch") == 0 && is_number) { /* by the supervisor */
            o.epoch = n;
            o.is_preflight = true;
            i++;
        } else if (strcmp(argv[i], "--root") == 0 && has_value) { /* for tests: instead of "/" */
            o.probe.root = argv[++i];
        } else if (strcmp(argv[i], "--kernel-dir") == 0 && has_value) {
            o.probe.kernel_dir = argv[++i];
        } else if (strcmp(argv[i], "--quiet-ms") == 0 && is_number) { /* for tests */
            o.probe.quiet_ms = n;
            i++;
        } else {
            fprintf(stderr, "rocmforge doctor: unknown or incomplete option '%s'\n", argv[i]);
            return usage(stderr);
        }
    }
    return run(&o);
}
