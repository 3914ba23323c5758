/* The reporter: a process that may block on disk and on a GPU's sysfs, so that the supervisor need
 * not. It writes first what can be lost (page, stderr, the living process), says CRASHED, waits for
 * the end of a worker that is to be ended, and then takes its time for the rest. Invariant:
 * whatever hangs or fails, report.json says what is there and why the rest is not. */
#include "safety/reporter.h"
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "ipc/status.h"
#include "safety/evidence.h"
#include "safety/report.h"
#include "safety/topology.h"
#include "shared/clock.h"
#include "shared/config.h"
#include "shared/json.h"
#include "shared/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 10 * 1000, STDERR_BYTES = 64 * 1024, TEXT_BYTES = 1024 * 1024 };

struct reporter {
    const char *dir;
    struct channel channel;
    struct channel_msg msg;
    struct config config;
    struct msg_crash facts;
    struct status_page page; /* a copy */
    bool has_page;
    uint64_t seen_ns; /* when it was copied */
    struct buf tail;  /* of stderr */
    int crashes_fd, report_fd;
    char name[MSG_NAME_BYTES];
    struct evidence_result evidence[EVIDENCE_KINDS];
};

/* ---- the dialog ---- */

static int greet(struct reporter *r)
{
    struct msg_hello m = {.protocol = MSG_PROTOCOL_VERSION, .pid = (uint32_t)getpid()};
    snprintf(m.version, sizeof(m.version), "%s", ROCMFORGE_VERSION);
    channel_init(&r->channel, CHANNEL_CHILD_FD, MSG_PROBE, MSG_SUPERVISOR);
    int rc = channel_send(&r->channel, MSG_HELLO, 0, &m, sizeof(m), NULL, 0);
    r->channel.state = MSG_STATE_GREETED;
    return rc;
}

static int take_config(struct reporter *r)
{
    void *map;
    size_t bytes;
    int rc = memfd_map(r->msg.fds[0], 0, TEXT_BYTES, true, false, &map, &bytes);
    if (rc == 0) {
        rc = config_decode(&r->config, map, bytes, NULL);
        memfd_unmap(map, bytes);
    }
    return rc;
}

/* Waits for a message of that type; CONFIG is taken on the way. 0 or a negative error. */
static int await(struct reporter *r, uint32_t type, uint64_t wait_ms)
{
    uint64_t deadline = clock_ms() + wait_ms;
    for (;;) {
        int rc = channel_recv(&r->channel, &r->msg);
        if (rc == 1 && r->msg.type == MSG_CONFIG) {
            rc = take_config(r);
        } else if (rc == 1 && r->msg.type == type) {
            return 0; /* the caller finishes it */
        }
        channel_msg_finish(&r->msg);
        if (rc < 0) {
            return rc;
        }
        uint64_t now = clock_ms();
        if (now >= deadline) {
            return -ETIMEDOUT;
        }
        struct pollfd p = {.fd = r->channel.fd, .events = POLLIN};
        (void)poll(&p, 1, (int)(deadline - now));
    }
}

/* ---- what the supervisor gave ---- */

static void take_page(struct reporter *r, int fd)
{
    void *map;
    size_t bytes;
    if (memfd_map(fd, STATUS_PAGE_BYTES, STATUS_PAGE_BYTES, false, false, &map, &bytes) == 0) {
        memcpy(&r->page, map, sizeof(r->page));
        memfd_unmap(map, bytes);
        r->has_page = true;
        r->seen_ns = clock_ns();
    }
}

static void take_tail(struct reporter *r, int fd)
{
    void *map;
    size_t bytes;
    if (memfd_map(fd, 1, STDERR_BYTES, true, false, &map, &bytes) == 0) {
        buf_clear(&r->tail);
        buf_add(&r->tail, map, bytes);
        memfd_unmap(map, bytes);
    }
}

static int take_facts(struct reporter *r)
{
    int n = 0;
    memcpy(&r->facts, r->msg.payload, sizeof(r->facts));
    int want = !!(r->facts.flags & MSG_CRASH_PAGE) + !!(r->facts.flags & MSG_CRASH_STDERR);
    if (want != r->msg.n_fds) {
        channel_msg_finish(&r->msg);
        return ERR_PROTOCOL;
    }
    if (r->facts.flags & MSG_CRASH_PAGE) {
        take_page(r, r->msg.fds[n++]);
    }
    if (r->facts.flags & MSG_CRASH_STDERR) {
        take_tail(r, r->msg.fds[n++]);
    }
    channel_msg_finish(&r->msg);
    return 0;
}

/* ---- report.json ---- */

static void put_text(struct buf *b, const char *key, const char *text)
{
    buf_printf(b, "\"%s\":", key);
    json_put_string(b, text, strlen(text));
    buf_char(b, ',');
}

/* "killed by SIGSEGV", "exited with 20" */
static void describe_end(const struct msg_crash *f, char *ret, size_t bytes)
{
    const char *name = f->signal ? sigabbrev_np(f->signal) : NULL;
    if (!(f->flags & MSG_CRASH_IS_OVER)) {
        snprintf(ret, bytes, "about to be ended");
    } else if (f->flags & MSG_CRASH_STUCK) {
        snprintf(ret, bytes, "hangs in the kernel and cannot be killed");
    } else if (f->signal) {
        snprintf(ret, bytes, "killed by SIG%s%s", name ? name : "?",
                 f->flags & MSG_CRASH_OOM ? " (the kernel was out of memory)" : "");
    } else {
        snprintf(ret, bytes, "exited with %d", f->exit_code);
    }
}

static void put_head(const struct reporter *r, struct buf *b)
{
    const struct msg_crash *f = &r->facts;
    char when[32], end[80];
    struct tm tm;
    time_t t = (time_t)(f->unix_ms / 1000);
    gmtime_r(&t, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    describe_end(f, end, sizeof(end));
    put_text(b, "name", r->name);
    put_text(b, "time", when);
    put_text(b, "version", ROCMFORGE_VERSION);
    put_text(b, "process", f->who);
    put_text(b, "end", end);
    put_text(b, "whose_fault", f->blame);
    put_text(b, "reason", f->reason);
    buf_printf(b, "\"epoch\":%llu,\"pid\":%u,\"signal\":%d,\"exit_code\":%d,\"lived_s\":%.3f",
               (unsigned long long)f->epoch, f->pid, f->signal, f->exit_code,
               (double)f->life_ms / 1000);
}

/* The worker's words are not believed but as text. */
static void put_breadcrumb(const struct reporter *r, struct buf *b)
{
    const struct status_page *p = &r->page;
    uint64_t beat_ns = p->beat_ns, n_requests = MIN(p->n_requests, (uint32_t)STATUS_REQUESTS);
    buf_printf(b, ",\"breadcrumb\":{\"phase\":\"%s\",\"step\":%llu,\"beat\":%llu,",
               status_phase_name(p->phase), (unsigned long long)p->step,
               (unsigned long long)p->beat);
    buf_printf(b, "\"since_beat_s\":%.3f,\"op\":%u,\"active\":%u,\"queued\":%u,",
               r->seen_ns > beat_ns ? (double)(r->seen_ns - beat_ns) / 1e9 : 0.0, p->op,
               p->n_active, p->n_queued);
    buf_printf(b, "\"loaded_bytes\":%llu,\"total_bytes\":%llu,\"kv_blocks\":%llu,\"kv_used\":%llu,",
               (unsigned long long)p->load_done_bytes, (unsigned long long)p->load_total_bytes,
               (unsigned long long)p->kv_blocks, (unsigned long long)p->kv_used);
    buf_str(b, "\"requests\":[");
    for (uint64_t i = 0; i < n_requests; i++) {
        buf_printf(b, "%s%llu", i ? "," : "", (unsigned long long)p->requests[i]);
    }
    buf_str(b, "]},\"last_words\":");
    json_put_string(b, p->words, MIN(p->words_len, sizeof(p->words)));
}

static void put_evidence(const struct reporter *r, struct buf *b)
{
    buf_printf(b, ",\"evidence\":{\"stderr.txt\":%s", r->tail.len ? "\"there\"" : "\"empty\"");
    for (int i = 0; i < EVIDENCE_KINDS; i++) {
        const struct evidence_result *e = &r->evidence[i];
        buf_printf(b, ",\"%s\":", evidence_file((enum evidence_kind)i));
        const char *word = e->is_there ? "there" : e->why_not[0] ? e->why_not : "not yet";
        json_put_string(b, word, strlen(word));
    }
    buf_char(b, '}');
}

static void put_symptoms(const struct reporter *r, struct buf *b)
{
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    buf_add(&text, r->tail.data ? r->tail.data : "", r->tail.len);
    int fd = openat(r->report_fd, evidence_file(EVIDENCE_KERNEL), O_RDONLY | O_CLOEXEC);
    char chunk[16 * 1024];
    ssize_t n;
    while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0) {
        buf_add(&text, chunk, (size_t)n);
    }
    if (fd >= 0) {
        close(fd);
    }
    buf_str(b, ",\"symptoms\":");
    evidence_symptoms(text.data, text.len, b);
    buf_finish(&text);
}

/* report.json, and summary.json for the list. */
static int write_json(struct reporter *r)
{
    const struct msg_crash *f = &r->facts;
    struct buf b;
    buf_init(&b, TEXT_BYTES);
    buf_char(&b, '{');
    put_head(r, &b);
    if (r->has_page) {
        put_breadcrumb(r, &b);
    }
    put_symptoms(r, &b);
    struct buf whole;
    buf_init(&whole, TEXT_BYTES);
    buf_add(&whole, b.data, b.len);
    buf_char(&b, '}');
    buf_printf(&whole, ",\"was_ready\":%s,\"held_gpu\":%s,\"rung\":%u,\"unreported_before\":%u,",
               f->flags & MSG_CRASH_READY ? "true" : "false",
               f->flags & MSG_CRASH_GPU ? "true" : "false", f->rung, f->n_skipped);
    buf_str(&whole, "\"next\":");
    json_put_string(&whole, f->next, strlen(f->next));
    put_evidence(r, &whole);
    buf_char(&whole, '}');
    int rc = b.failed || whole.failed
                 ? -ENOMEM
                 : report_write(r->report_fd, "report.json", whole.data, whole.len);
    rc = rc == 0 ? report_write(r->report_fd, "summary.json", b.data, b.len) : rc;
    buf_finish(&whole);
    buf_finish(&b);
    return rc;
}

/* ---- one report ---- */

static int write_config(struct reporter *r)
{
    struct buf b;
    buf_init(&b, TEXT_BYTES);
    config_print(&r->config, &b); /* settings hold no secrets: keys are in a file of their own */
    int rc = b.failed ? -ENOMEM : report_write(r->report_fd, "config.txt", b.data, b.len);
    buf_finish(&b);
    return rc;
}

static void collect(struct reporter *r, enum evidence_kind kind)
{
    struct evidence ev = {
        .root = topology_root(), .pid = (pid_t)r->facts.pid, .life_ms = r->facts.life_ms};
    evidence_collect(&ev, kind, r->report_fd, &r->evidence[kind]);
}

/* What can be lost. */
static int write_first(struct reporter *r)
{
    const struct msg_crash *f = &r->facts;
    r->crashes_fd = report_open_dir(r->dir);
    if (r->crashes_fd < 0) {
        return r->crashes_fd;
    }
    r->report_fd = report_create(r->crashes_fd, f->unix_ms, f->who, f->epoch, r->name);
    if (r->report_fd < 0) {
        return r->report_fd;
    }
    if (f->flags & MSG_CRASH_IS_OVER) {
        snprintf(r->evidence[EVIDENCE_PROCESS].why_not, sizeof(r->evidence[0].why_not),
                 "the process had ended");
    } else {
        collect(r, EVIDENCE_PROCESS);
    }
    int rc = r->tail.len ? report_write(r->report_fd, "stderr.txt", r->tail.data, r->tail.len) : 0;
    rc = rc == 0 ? write_config(r) : rc;
    return rc == 0 ? write_json(r) : rc;
}

static void write_rest(struct reporter *r)
{
    static const enum evidence_kind rest[] = {EVIDENCE_KERNEL, EVIDENCE_SYSTEM, EVIDENCE_DUMP};
    (void)setpriority(PRIO_PROCESS, 0, 10);
    for (size_t i = 0; i < COUNT_OF(rest); i++) {
        collect(r, rest[i]);
    }
    if (r->tail.len) {
        (void)!report_write(r->report_fd, "stderr.txt", r->tail.data, r->tail.len);
    }
    (void)!write_json(r);
    report_prune(r->crashes_fd, (size_t)r->config.v[CONFIG_crash_reports].i,
                 (uint64_t)r->config.v[CONFIG_crash_megabytes].i << 20);
}

int reporter_write(const char *dir)
{
    static struct reporter r;
    r.dir = dir;
    r.report_fd = r.crashes_fd = -1;
    buf_init(&r.tail, STDERR_BYTES);
    config_init(&r.config);
    int rc = greet(&r);
    rc = rc == 0 ? await(&r, MSG_CRASH, WAIT_MS) : rc;
    rc = rc == 0 ? take_facts(&r) : rc;
    if (rc != 0) {
        return EXIT_PARENT_DIED;
    }
    if (r.facts.flags & MSG_CRASH_IS_OVER) {
        (void)setpriority(PRIO_PROCESS, 0, 10); /* nobody waits for us; the next worker loads */
    }
    rc = write_first(&r);
    struct msg_crashed said = {.err = rc};
    memcpy(said.name, r.name, sizeof(said.name));
    (void)!channel_send(&r.channel, MSG_CRASHED, 0, &said, sizeof(said), NULL, 0);
    if (rc != 0) {
        return EXIT_GENERAL;
    }
    if (!(r.facts.flags & MSG_CRASH_IS_OVER) && await(&r, MSG_CRASH, WAIT_MS) == 0) {
        int64_t unix_ms = r.facts.unix_ms; /* of the hang, which is when it happened */
        (void)!take_facts(&r);
        r.facts.unix_ms = unix_ms;
    }
    write_rest(&r);
    return EXIT_OK;
}

/* ---- the gateway's questions ---- */

int reporter_answer(const char *dir)
{
    static struct reporter r;
    struct msg_ask ask;
    config_init(&r.config);
    int rc = greet(&r);
    rc = rc == 0 ? await(&r, MSG_ASK, WAIT_MS) : rc;
    if (rc != 0) {
        return EXIT_PARENT_DIED;
    }
    memcpy(&ask, r.msg.payload, sizeof(ask));
    channel_msg_finish(&r.msg);
    struct buf b;
    buf_init(&b, LIMIT_BULK_BYTES);
    rc = *ask.name ? report_show(dir, ask.name, &b) : report_list(dir, &b);
    int fd = rc == 0 ? memfd_create_const("rocmforge-crashes", b.data, b.len) : -1;
    struct msg_told told = {.ask = ask.ask, .err = rc != 0 ? rc : MIN(fd, 0)};
    rc = channel_send(&r.channel, MSG_TOLD, 0, &told, sizeof(told), &fd, fd >= 0 ? 1 : 0);
    return rc == 0 ? EXIT_OK : EXIT_GENERAL;
}

/* ---- the command ---- */

/* Of all reports, or of the one named. */
static int complain(const char *dir, const char *name, int rc)
{
    struct err e;
    char text[512];
    err_set(&e, rc, "%s/crashes%s%s", dir, *name ? "/" : "", name);
    fprintf(stderr, "rocmforge report: %s\n", err_format(&e, text, sizeof(text)));
    return EXIT_GENERAL;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* What a worker left may hold anything that a terminal would obey. */
static void print_tame(const char *text)
{
    char out[3 * 1024];
    size_t n = utf8_tame(text, strnlen(text, sizeof(out) / 3), out);
    fwrite(out, 1, n, stdout);
}

static void print_summary(const json_t *one)
{
    print_tame(text_of(one, "name"));
    if (json_is_true(json_object_get(one, "is_damaged"))) {
        printf("  what it says of itself is damaged\n");
        return;
    }
    const struct {
        const char *before, *key;
    } parts[] = {{"  ", "process"},
                 {" ", "end"},
                 {", ", "whose_fault"},
                 {": ", "reason"},
                 {"; last words: ", "last_words"}};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        const char *text = text_of(one, parts[i].key);
        if (*text) {
            fputs(parts[i].before, stdout);
            print_tame(text);
        }
    }
    putchar('\n');
    json_t *symptoms = json_object_get(one, "symptoms");
    for (void *at = json_object_iter(symptoms); at; at = json_object_iter_next(symptoms, at)) {
        const char *meaning = json_string_value(json_object_iter_value(at));
        fputs("    ", stdout);
        print_tame(json_object_iter_key(at));
        fputs(": ", stdout);
        print_tame(meaning ? meaning : "");
        putchar('\n');
    }
}

static int list(const char *dir)
{
    struct buf b;
    struct err e;
    json_t *all = NULL;
    buf_init(&b, LIMIT_BULK_BYTES);
    int rc = report_list(dir, &b);
    rc = rc == 0 ? json_parse(b.data, b.len, &all, &e) : rc;
    buf_finish(&b);
    if (rc != 0) {
        return complain(dir, "", rc);
    }
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(all, "crashes"), i, one)
    {
        print_summary(one);
    }
    if (i == 0) {
        printf("there are no crash reports in %s/crashes\n", dir);
    } else {
        printf("\n'rocmforge report NAME' packs one into NAME.tar ('last': the newest)\n");
    }
    json_decref(all);
    return EXIT_OK;
}

/* The user's own file is touched only for a report that exists, and never removed. Ours has a name
 * that nobody has prepared for us. */
static int pack(const char *dir, const char *name, const char *out)
{
    char part[256], found[MSG_NAME_BYTES], target[MSG_NAME_BYTES + 8];
    const char *wanted = strcmp(name, "last") == 0 ? "" : name;
    int rc = report_find(dir, wanted, found);
    if (rc != 0) {
        return complain(dir, wanted, rc);
    }
    snprintf(part, sizeof(part), ".rocmforge-report-%d.part", (int)getpid());
    snprintf(target, sizeof(target), "%s.tar", found);
    bool to_stdout = out && strcmp(out, "-") == 0;
    const char *file = out ? out : part;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (out ? O_TRUNC : O_EXCL | O_NOFOLLOW);
    int fd = to_stdout ? STDOUT_FILENO : open(file, flags, 0600);
    if (fd < 0) {
        fprintf(stderr, "rocmforge report: %s: %s\n", file, strerror(errno));
        return EXIT_GENERAL;
    }
    char packed[MSG_NAME_BYTES];
    rc = report_pack(dir, found, fd, packed);
    rc = !to_stdout && close(fd) != 0 && rc == 0 ? -errno : rc;
    rc = rc == 0 && !out && rename(part, target) != 0 ? -errno : rc;
    if (rc != 0) {
        if (!out) {
            (void)unlink(part);
        }
        return complain(dir, wanted, rc);
    }
    if (!to_stdout) {
        printf("%s\n", out ? out : target);
    }
    return EXIT_OK;
}

int reporter_command(const char *dir, int argc, char **argv)
{
    const char *name = NULL, *out = NULL;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--out") == 0 && i + 1 < argc) {
            out = argv[++i];
        } else if (argv[i][0] != '-' && !name) {
            name = argv[i];
        } else {
            fprintf(stderr, "rocmforge report: unknown or incomplete option '%s'\n", argv[i]);
            return EXIT_USAGE;
        }
    }
    return name ? pack(dir, name, out) : list(dir);
}
