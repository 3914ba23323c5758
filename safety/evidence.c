/* Collecting evidence (see evidence.h); runs in the reporter and its children, which may block. */
#include "safety/evidence.h"
#include "safety/report.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/num.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_BYTES = 256 * 1024, DUMP_BYTES = 16 * 1024 * 1024, KERNEL_AGE_S = 600 };

/* ---- symptoms ---- */

static const struct symptom {
    const char *name, *text, *meaning;
} symptoms[] = {
#define SYMPTOM(name, text, meaning) {#name, text, meaning},
#include "safety/symptom.def"
#undef SYMPTOM
};

void evidence_symptoms(const char *text, size_t n, struct buf *ret)
{
    bool is_first = true;
    buf_char(ret, '{');
    for (size_t i = 0; i < COUNT_OF(symptoms); i++) {
        const struct symptom *s = &symptoms[i];
        if (n > 0 && memmem(text, n, s->text, strlen(s->text))) {
            buf_printf(ret, "%s\"%s\":\"%s\"", is_first ? "" : ",", s->name, s->meaning);
            is_first = false;
        }
    }
    buf_char(ret, '}');
}

bool evidence_is_telling(const char *line, size_t n)
{
    static const char *const words[] = {"amdgpu", "kfd", "[drm",   "rocmforge", "oom",
                                        "mce",    "MCE", "AMD-Vi", "IOMMU",     "devcoredump"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (memmem(line, n, words[i], strlen(words[i]))) {
            return true;
        }
    }
    for (size_t i = 0; i < COUNT_OF(symptoms); i++) {
        if (memmem(line, n, symptoms[i].text, strlen(symptoms[i].text))) {
            return true;
        }
    }
    return false;
}

/* ---- files ---- */

static int open_at(const struct evidence *ev, const char *path, int flags)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s%s", ev->root, path);
    int fd = open(full, O_RDONLY | O_CLOEXEC | flags);
    return fd < 0 ? -errno : fd;
}

/* "== path", the text, an empty line; nothing where it cannot be read. */
static void put_file(const struct evidence *ev, const char *path, struct buf *ret)
{
    char text[8192];
    int fd = open_at(ev, path, O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (fd >= 0) {
        close(fd);
    }
    if (n > 0) {
        buf_printf(ret, "== %s\n", path);
        for (ssize_t i = 0; i < n; i++) { /* cmdline separates by NUL */
            buf_char(ret, text[i] ? text[i] : ' ');
        }
        buf_str(ret, text[n - 1] == '\n' ? "\n" : "\n\n");
    }
}

/* The files of that name in every folder below path whose name begins with prefix. */
static void put_each(const struct evidence *ev, const char *path, const char *prefix,
                     const char *const *files, size_t n_files, struct buf *ret)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s%s", ev->root, path);
    DIR *d = opendir(full);
    if (!d) {
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        for (size_t i = 0; i < n_files; i++) {
            char file[1024];
            snprintf(file, sizeof(file), "%.400s/%.200s/%.200s", path, e->d_name, files[i]);
            put_file(ev, file, ret);
        }
    }
    closedir(d);
}

/* ---- the kinds: 0, or -errno where there is nothing ---- */

static int collect_process(const struct evidence *ev, struct buf *ret)
{
    static const char *const whole[] = {"status", "io", "limits"};
    static const char *const threads[] = {"comm", "stat", "wchan", "syscall", "stack"};
    char path[64];
    for (size_t i = 0; i < COUNT_OF(whole); i++) {
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)ev->pid, whole[i]);
        put_file(ev, path, ret);
    }
    snprintf(path, sizeof(path), "/proc/%d/task", (int)ev->pid);
    put_each(ev, path, "", threads, COUNT_OF(threads), ret);
    return ret->len ? 0 : -ESRCH;
}

/* A record is "priority,number,microseconds,flags;text", and lines that begin with a space. */
static bool is_recent(const char *line, size_t n, uint64_t now_us)
{
    const char *p = memchr(line, ',', n);
    p = p ? memchr(p + 1, ',', n - (size_t)(p + 1 - line)) : NULL;
    char number[24] = {0};
    uint64_t us;
    for (size_t i = 0; p && i < sizeof(number) - 1 && p + 1 + i < line + n; i++) {
        if (p[1 + i] == ',' || p[1 + i] == ';') {
            break;
        }
        number[i] = p[1 + i];
    }
    return p && num_parse_u64(number, &us) && us + (uint64_t)KERNEL_AGE_S * 1000000 >= now_us;
}

static void take_record(const char *line, size_t n, uint64_t now_us, struct buf *ret)
{
    const char *text = memchr(line, ';', n);
    if (!text || !is_recent(line, n, now_us)) {
        return;
    }
    text++;
    size_t len = n - (size_t)(text - line);
    if (!evidence_is_telling(text, len)) {
        return;
    }
    if (ret->len + len + 64 > TEXT_BYTES) { /* the newest lines are those that matter */
        buf_consume(ret, MIN(ret->len, len + TEXT_BYTES / 4));
    }
    buf_add(ret, text, len);
    buf_char(ret, '\n');
}

static int collect_kernel(const struct evidence *ev, struct buf *ret)
{
    char records[16 * 1024]; /* a read of the device brings one, of a test's file many */
    int fd = open_at(ev, "/dev/kmsg", O_NONBLOCK);
    if (fd < 0) {
        return fd;
    }
    uint64_t now_us = clock_ns() / 1000;
    ssize_t n;
    while ((n = read(fd, records, sizeof(records))) > 0 || (n < 0 && errno == EPIPE)) {
        for (const char *at = records; n > 0;) {
            const char *end = memchr(at, '\n', (size_t)n);
            size_t len = end ? (size_t)(end - at) : (size_t)n;
            take_record(at, len, now_us, ret);
            at += len + 1;
            n -= (ssize_t)len + 1;
        }
    }
    int err = n < 0 && errno != EAGAIN ? -errno : 0;
    close(fd);
    return err;
}

static int collect_system(const struct evidence *ev, struct buf *ret)
{
    static const char *const files[] = {"/proc/cmdline",
                                        "/proc/loadavg",
                                        "/proc/meminfo",
                                        "/proc/pressure/memory",
                                        "/sys/module/amdgpu/version",
                                        "/sys/module/amdgpu/parameters/cwsr_enable",
                                        "/sys/module/amdgpu/parameters/gpu_recovery",
                                        "/sys/module/amdgpu/parameters/lockup_timeout",
                                        "/sys/module/amdgpu/parameters/mes",
                                        "/opt/rocm/.info/version"};
    static const char *const card[] = {"device/vendor",
                                       "device/device",
                                       "device/revision",
                                       "device/mem_info_vram_total",
                                       "device/mem_info_vram_used",
                                       "device/mem_info_gtt_used",
                                       "device/gpu_busy_percent",
                                       "device/fw_version/mes_fw_version",
                                       "device/fw_version/mes_kiq_fw_version",
                                       "device/fw_version/mec_fw_version",
                                       "device/fw_version/sdma_fw_version",
                                       "device/fw_version/smc_fw_version",
                                       "device/fw_version/rlc_fw_version",
                                       "device/vbios_version"};
    struct utsname u;
    if (uname(&u) == 0) {
        buf_printf(ret, "== kernel\n%s %s %s\n\n", u.release, u.version, u.machine);
    }
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        put_file(ev, files[i], ret);
    }
    put_each(ev, "/sys/class/drm", "card", card, COUNT_OF(card), ret);
    return 0;
}

static int read_dump(const struct evidence *ev, const char *folder, const char *prefix,
                     const char *tail, struct buf *ret)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s%s", ev->root, folder);
    DIR *d = opendir(full);
    int rc = -ENOENT;
    for (struct dirent *e; d && rc == -ENOENT && (e = readdir(d));) {
        char path[512], chunk[64 * 1024];
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%.200s/%s", folder, e->d_name, tail);
        int fd = open_at(ev, path, 0);
        rc = fd < 0 ? fd : 0;
        ssize_t n;
        while (fd >= 0 && ret->len < DUMP_BYTES && (n = read(fd, chunk, sizeof(chunk))) > 0) {
            buf_add(ret, chunk, (size_t)n);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (d) {
        closedir(d);
    }
    return rc;
}

static int collect_dump(const struct evidence *ev, struct buf *ret)
{
    int rc = read_dump(ev, "/sys/class/drm", "card", "device/devcoredump/data", ret);
    return rc == -ENOENT ? read_dump(ev, "/sys/class/devcoredump", "devcd", "data", ret) : rc;
}

/* ---- with a deadline ---- */

static const struct {
    const char *file;
    int (*run)(const struct evidence *ev, struct buf *ret);
    int deadline_ms;
} kinds[EVIDENCE_KINDS] = {
    [EVIDENCE_PROCESS] = {"process.txt", collect_process, 300},
    [EVIDENCE_KERNEL] = {"kernel.txt", collect_kernel, 2000},
    [EVIDENCE_SYSTEM] = {"system.txt", collect_system, 1500},
    [EVIDENCE_DUMP] = {"devcoredump.bin", collect_dump, 5000},
};

const char *evidence_file(enum evidence_kind kind)
{
    return kinds[kind].file;
}

NORETURN static void run(const struct evidence *ev, enum evidence_kind kind, int report_fd,
                         int out_fd, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_PARENT_DIED);
    }
    struct buf b;
    buf_init(&b, 2 * DUMP_BYTES);
    int rc = kinds[kind].run(ev, &b);
    if (rc == 0 && b.len > 0) {
        rc = b.failed ? -ENOMEM : report_write(report_fd, kinds[kind].file, b.data, b.len);
    } else if (rc == 0) {
        rc = -ENODATA;
    }
    ssize_t n = write(out_fd, &rc, sizeof(rc));
    _exit(n == sizeof(rc) ? 0 : 1);
}

void evidence_collect(const struct evidence *ev, enum evidence_kind kind, int report_fd,
                      struct evidence_result *ret)
{
    int ends[2], rc = -EIO;
    *ret = (struct evidence_result){0};
    if (pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(ret->why_not, sizeof(ret->why_not), "pipe: %s", strerror(errno));
        return;
    }
    pid_t self = getpid(), pid = fork();
    if (pid == 0) {
        run(ev, kind, report_fd, ends[1], self);
    }
    close(ends[1]);
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    bool is_late = pid >= 0 && poll(&p, 1, kinds[kind].deadline_ms) == 0;
    if (pid < 0) {
        snprintf(ret->why_not, sizeof(ret->why_not), "fork: %s", strerror(errno));
    } else if (is_late) {
        (void)kill(pid, SIGKILL);
        snprintf(ret->why_not, sizeof(ret->why_not), "no answer within %d ms",
                 kinds[kind].deadline_ms);
    } else if (read(ends[0], &rc, sizeof(rc)) != sizeof(rc)) {
        snprintf(ret->why_not, sizeof(ret->why_not), "collecting it crashed");
    } else if (rc == -ENODATA) {
        snprintf(ret->why_not, sizeof(ret->why_not), "nothing of it there");
    } else if (rc != 0) {
        snprintf(ret->why_not, sizeof(ret->why_not), "%s", err_text(rc));
    }
    ret->is_there = !ret->why_not[0];
    close(ends[0]);
    if (pid > 0) { /* one that the kernel holds is left to it */
        (void)waitpid(pid, NULL, is_late ? WNOHANG : 0);
    }
}
