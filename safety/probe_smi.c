/* Asking rocm-smi (see probe_smi.h): a child by fork() of the probe's child or of the monitor, both
 * of which have one thread. Who asked waits for no longer than its deadline and leaves a child that
 * does not die to the kernel. */
#include "safety/probe_smi.h"
#include "shared/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    OUT_FD = 3,
    ASK_MS = 3000,
    PERIOD_MS = 1000,
    SHORT_MS = 100,           /* between looks at events, where waiting for them does not wait */
    SILENCE_MS = 10 * 1000,   /* of a listener: it hangs */
    AGAIN_MS = 60 * 1000,
    DIFFERENT_BYTES = 1 << 30, /* of VRAM in use, which changes between two looks */
};

typedef void child_fn(const char *pci, int out_fd);

/* fork(); the child runs f and ends. Its pid and the reading end of its pipe, or -errno. Nothing
 * else is open in it: one that hangs keeps neither the supervisor's channel nor the machine's sleep
 * waiting. */
static pid_t start(child_fn *f, const char *pci, int *ret_fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -errno;
    }
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)fcntl(ends[1], F_SETFL, 0);
        int out = ends[1] == OUT_FD ? OUT_FD : dup2(ends[1], OUT_FD);
        if (out == OUT_FD && close_range(OUT_FD + 1, ~0u, 0) == 0 && getppid() == parent) {
            f(pci, out);
        }
        _exit(EXIT_OK);
    }
    int err = errno;
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return -err;
    }
    *ret_fd = ends[0];
    return child;
}

static void tell(int fd, const struct probe_smi_news *news)
{
    if (write(fd, news, sizeof(*news)) != sizeof(*news)) { /* at once: < PIPE_BUF */
        _exit(EXIT_PARENT_DIED);
    }
}

NORETURN static void give_up(int fd, const struct err *e)
{
    struct probe_smi_news news = {.kind = PROBE_SMI_FAILED};
    snprintf(news.text, sizeof(news.text), "%.150s", e->detail);
    tell(fd, &news);
    _exit(EXIT_GENERAL);
}

static void open_and_read(const char *pci, int fd, struct smi *h, struct smi_reading *ret)
{
    struct err e = {0};
    uint32_t device = 0;
    if (smi_load(h, &e) != 0 || smi_open(h, pci, &device, &e) != 0 ||
        smi_read(h, device, ret, &e) != 0) {
        give_up(fd, &e);
    }
}

/* ---- once, for doctor ---- */

static void ask(const char *pci, int fd)
{
    struct smi h;
    struct probe_smi_news news = {.kind = PROBE_SMI_READING};
    open_and_read(pci, fd, &h, &news.reading);
    snprintf(news.text, sizeof(news.text), "%s", h.soname);
    tell(fd, &news);
}

/* What became of a child that said nothing. */
static void explain(pid_t child, bool is_late, char *ret, size_t bytes)
{
    int status = 0;
    if (is_late) {
        (void)kill(child, SIGKILL);
        snprintf(ret, bytes, "no answer within %.1f s", ASK_MS / 1000.0);
    } else if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
        snprintf(ret, bytes, "it was ended by SIG%s", sigabbrev_np(WTERMSIG(status)));
    } else {
        snprintf(ret, bytes, "it ended without an answer");
    }
}

/* Sums and differences that a user should know of, behind what was read. */
static void compare(const struct gpu *g, const struct smi_reading *r, struct msg_stage *out)
{
    uint64_t known = g->vram_bytes, used = g->vram_used_bytes;
    uint64_t off = r->used_bytes > used ? r->used_bytes - used : used - r->used_bytes;
    const char *says = known == 0                ? "; sysfs says nothing of it"
                       : known != r->total_bytes ? "; sysfs says another size"
                       : off > DIFFERENT_BYTES   ? "; sysfs says otherwise of what is in use"
                                                 : "; sysfs agrees";
    char busy[32] = "", warm[32] = "";
    if (r->busy_percent >= 0) {
        snprintf(busy, sizeof(busy), ", %d %% busy", (int)r->busy_percent);
    }
    if (r->celsius > 0) {
        snprintf(warm, sizeof(warm), ", %d degrees", (int)r->celsius);
    }
    size_t len = strlen(out->detail);
    snprintf(out->detail + len, sizeof(out->detail) - len, "%.1f of %.1f GiB of VRAM in use%s%s%s",
             (double)r->used_bytes / (1 << 30), (double)r->total_bytes / (1 << 30), busy, warm,
             says);
}

int probe_smi(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    int fd = -1;
    pid_t child = start(ask, p->gpu.pci, &fd);
    if (child < 0) {
        probe_say(out->detail, "rocm-smi is not asked: %s", strerror(-child));
        return PROBE_SKIPPED;
    }
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    struct probe_smi_news news;
    int n = poll(&polled, 1, ASK_MS);
    bool is_told = n > 0 && read(fd, &news, sizeof(news)) == sizeof(news);
    close(fd);
    if (is_told && news.kind == PROBE_SMI_READING) {
        probe_say(out->detail, "%.30s: ", news.text);
        compare(&p->gpu, &news.reading, out);
        return PROBE_OK;
    }
    char why[64];
    if (!is_told) {
        explain(child, n == 0, why, sizeof(why));
    }
    probe_say(out->detail, "rocm-smi is of no use here: %s; sysfs says what is needed",
              is_told ? news.text : why);
    return PROBE_SKIPPED;
}

/* ---- as long as the monitor lives ---- */

static void watch(const char *pci, int fd)
{
    struct smi h;
    struct err e = {0};
    struct probe_smi_news news = {.kind = PROBE_SMI_READING};
    open_and_read(pci, fd, &h, &news.reading);
    uint32_t device = news.reading.device;
    bool hears = smi_listen(&h, device, &e) == 0;
    for (uint64_t due_ms = clock_ms();; due_ms = clock_ms() + PERIOD_MS) {
        tell(fd, &news);
        for (uint64_t now_ms; (now_ms = clock_ms()) < due_ms + PERIOD_MS;) {
            struct probe_smi_news one = {.kind = PROBE_SMI_EVENT};
            int left_ms = (int)(due_ms + PERIOD_MS - now_ms);
            int n = hears ? smi_wait(&h, left_ms, &one.event, &e) : 0;
            if (n < 0) {
                give_up(fd, &e);
            }
            if (n > 0 && one.event.device == device) {
                tell(fd, &one);
            }
            if (n == 0 && clock_ms() - now_ms < SHORT_MS) {
                (void)poll(NULL, 0, MIN(left_ms, SHORT_MS));
            }
        }
        if (smi_read(&h, device, &news.reading, &e) != 0) {
            give_up(fd, &e);
        }
    }
}

static struct {
    pid_t pid; /* 0: none */
    int fd;
    uint64_t heard_ms, again_ms;
} listener = {.fd = -1};

static void stop(uint64_t now_ms)
{
    if (listener.fd >= 0) {
        close(listener.fd);
        listener.fd = -1;
        (void)kill(listener.pid, SIGKILL);
        listener.again_ms = now_ms + AGAIN_MS;
    }
}

void probe_smi_tend(const char *pci, uint64_t now_ms)
{
    if (listener.fd >= 0 && (!pci || now_ms - listener.heard_ms > SILENCE_MS)) {
        stop(now_ms);
    }
    if (listener.pid > 0 && listener.fd < 0 && waitpid(listener.pid, NULL, WNOHANG) != 0) {
        listener.pid = 0;
    }
    listener.again_ms = pci ? listener.again_ms : now_ms;
    if (!pci || listener.pid > 0 || now_ms < listener.again_ms) {
        return; /* one that does not die is enough */
    }
    pid_t pid = start(watch, pci, &listener.fd);
    listener.pid = MAX(pid, 0);
    listener.heard_ms = now_ms;
    listener.again_ms = now_ms + AGAIN_MS;
}

int probe_smi_fd(void)
{
    return listener.fd;
}

int probe_smi_next(struct probe_smi_news *ret, uint64_t now_ms)
{
    if (listener.fd < 0) {
        return 0;
    }
    ssize_t n = read(listener.fd, ret, sizeof(*ret));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n != sizeof(*ret)) {
        stop(now_ms);
        return 0;
    }
    listener.heard_ms = now_ms;
    return 1;
}
