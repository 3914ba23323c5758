/* Crash reports on disk: names, whole files, bounds, the archive; and what is collected on a
 * made-up machine, with what hangs or is missing. */
#include "safety/evidence.h"
#include "safety/report.h"
#include "safety/reporter.h"
#include "safety/state.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "tests/test.h"

#include <fcntl.h>
#include <sys/stat.h>

static char dir[] = "/tmp/rocmforge-report-XXXXXX";

static void write_text(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", dir, path);
    for (char *p = full + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            mkdir(full, 0755);
            *p = '/';
        }
    }
    FILE *f = fopen(full, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) {
        n++;
    }
    return n;
}

static void make(int crashes, int64_t unix_ms, const char *who, size_t n_bytes,
                 char name[MSG_NAME_BYTES])
{
    char *data = calloc(1, n_bytes + 1);
    memset(data, 'x', n_bytes);
    int fd = report_create(crashes, unix_ms, who, 7, name);
    CHECK(fd >= 0);
    CHECK_INT(report_write(fd, "stderr.txt", data, n_bytes), 0);
    snprintf(data, n_bytes, "{\"name\":\"%s\"}", name);
    CHECK_INT(report_write(fd, "summary.json", data, strlen(data)), 0);
    CHECK_INT(report_write(fd, "report.json", data, strlen(data)), 0);
    close(fd);
    free(data);
}

static void test_names_and_bounds(void)
{
    char state[128], name[MSG_NAME_BYTES], first[MSG_NAME_BYTES];
    struct buf b;
    snprintf(state, sizeof(state), "%s/a/b", dir);
    buf_init(&b, 0);
    CHECK_INT(report_list(state, &b), 0); /* nothing there yet: none */
    CHECK(strstr(b.data, "\"crashes\":[]"));
    CHECK_INT(report_show(state, "20260101T000000.000Z-worker-1", &b), ERR_NO_REPORTS);
    int crashes = report_open_dir(state);
    CHECK(crashes >= 0);
    make(crashes, 1000000000000, "worker", 5000, first);
    CHECK_STR(first, "20010909T014640.000Z-worker-7");
    make(crashes, 1000000000000, "worker", 5000, name); /* at the same moment */
    CHECK_STR(name, "20010909T014640.000Z-worker-7-2");
    for (int i = 1; i < 6; i++) {
        make(crashes, 1000000000000 + i, "worker", 5000, name);
    }
    CHECK(mkdirat(crashes, "somebody elses", 0755) == 0);
    CHECK(mkdirat(crashes, "20010909T014640.000Z-worker-7/inner", 0755) == 0);
    buf_clear(&b);
    CHECK_INT(report_list(state, &b), 0);
    CHECK_INT(count(b.data, "\"name\""), 7);
    CHECK(strstr(b.data, name) < strstr(b.data, first)); /* newest first */
    report_prune(crashes, 4, 1 << 20);
    buf_clear(&b);
    CHECK_INT(report_list(state, &b), 0);
    CHECK_INT(count(b.data, "\"name\""), 4);
    CHECK(!strstr(b.data, first) && strstr(b.data, name));
    report_prune(crashes, 4, 1); /* no room even for one: the newest stays */
    buf_clear(&b);
    CHECK_INT(report_list(state, &b), 0);
    CHECK_INT(count(b.data, "\"name\""), 1);
    CHECK(strstr(b.data, name));
    struct stat st;
    CHECK(fstatat(crashes, "somebody elses", &st, 0) == 0);
    static const char *const bad[] = {"",
                                      "..",
                                      "../x",
                                      "20010909T014640.000Z",
                                      "20010909T014640.000Z-../..",
                                      "20010909T014640.000Z-worker-99",
                                      "somebody elses"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        CHECK_INT(report_show(state, bad[i], &b), ERR_REPORT_NOT_FOUND);
    }
    /* A link out of the folder is not followed. */
    CHECK(symlinkat("/etc", crashes, "20260101T000000.000Z-worker-1") == 0);
    CHECK(report_show(state, "20260101T000000.000Z-worker-1", &b) < 0);
    close(crashes);
    buf_finish(&b);
}

/* One report that was damaged does not hide the others; of too many, the newest are seen. */
static void test_damage_and_masses(void)
{
    char state[128], name[MSG_NAME_BYTES];
    struct buf b;
    snprintf(state, sizeof(state), "%s/damage", dir);
    buf_init(&b, 0);
    int crashes = report_open_dir(state);
    make(crashes, 1700000000000, "worker", 100, name);
    int fd = openat(crashes, name, O_RDONLY | O_DIRECTORY);
    CHECK_INT(report_write(fd, "summary.json", "{\"name\":\"cut sho", 17), 0);
    close(fd);
    make(crashes, 1700000000001, "worker", 100, name);
    CHECK_INT(report_list(state, &b), 0);
    CHECK_INT(count(b.data, "\"name\""), 2);
    CHECK(strstr(b.data, "\"20231114T221320.000Z-worker-7\",\"is_damaged\":true"));
    json_t *v;
    CHECK_INT(json_parse(b.data, b.len, &v, NULL), 0);
    json_decref(v);
    for (int i = 0; i < 2 * REPORT_MAX + 9; i++) { /* older ones */
        char old[MSG_NAME_BYTES];
        snprintf(old, sizeof(old), "2001%04dT000000.000Z-worker-%d", i % 10000, i);
        CHECK(mkdirat(crashes, old, 0700) == 0);
    }
    CHECK_INT(report_find(state, "", name), 0);
    CHECK_STR(name, "20231114T221320.001Z-worker-7");
    buf_finish(&b);
    close(crashes);
}

/* Read by another program. */
static void test_archive(void)
{
    char state[128], name[MSG_NAME_BYTES], command[512], line[256] = {0};
    snprintf(state, sizeof(state), "%s/tar", dir);
    int crashes = report_open_dir(state);
    make(crashes, 1700000000000, "worker", 1000, name);
    make(crashes, 1700000000001, "gateway", 513, name);
    close(crashes);
    char path[160], found[MSG_NAME_BYTES];
    snprintf(path, sizeof(path), "%s/x.tar", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK_INT(report_pack(state, "", fd, found), 0);
    CHECK_STR(found, name);
    close(fd);
    snprintf(command, sizeof(command), "tar xOf %s %s/stderr.txt | wc -c; tar tf %s | wc -l", path,
             name, path);
    FILE *p = popen(command, "r");
    CHECK(fgets(line, sizeof(line), p) && atoi(line) == 513);
    CHECK(fgets(line, sizeof(line), p) && atoi(line) == 3);
    CHECK(pclose(p) == 0);
    CHECK_INT(report_pack(state, "20260101T000000.000Z-worker-1", 1, found), ERR_REPORT_NOT_FOUND);
}

static char *read_all(int report_fd, const char *file)
{
    static char text[1 << 16];
    int fd = openat(report_fd, file, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

static void test_evidence(void)
{
    char state[128], root[128], name[MSG_NAME_BYTES], kernel[4096];
    struct evidence_result got;
    snprintf(state, sizeof(state), "%s/e", dir);
    snprintf(root, sizeof(root), "%s/root", dir);
    int crashes = report_open_dir(state), fd = report_create(crashes, 1, "worker", 1, name);
    struct evidence ev = {.root = root, .pid = 77};
    for (int i = 0; i < EVIDENCE_KINDS; i++) { /* an empty machine */
        evidence_collect(&ev, (enum evidence_kind)i, fd, &got);
        CHECK(got.is_there == (i == EVIDENCE_SYSTEM)); /* which always knows its kernel */
        CHECK((got.why_not[0] == '\0') == got.is_there);
    }
    unsigned long long now_us = clock_ns() / 1000;
    snprintf(kernel, sizeof(kernel),
             "4,1,%llu,-;amdgpu 0000:03:00.0: amdgpu: [gfxhub] page fault (src_id:0 ring:24)\n"
             " SUBSYSTEM=pci\n"
             "4,2,%llu,-;amdgpu: MES failed to respond to msg=REMOVE_QUEUE\n"
             "6,3,%llu,-;usb 1-1: new device\n"
             "4,4,%llu,-;amdgpu: GPU reset begin!\n" /* long ago */
             "garbage without anything\n",
             now_us, now_us, now_us, now_us > 700000000 ? now_us - 700000000 : 0);
    write_text("root/dev/kmsg", kernel);
    write_text("root/proc/77/status", "State:\tD (disk sleep)\n");
    write_text("root/proc/77/task/78/wchan", "amdgpu_fence_wait");
    write_text("root/sys/class/drm/card1/device/fw_version/mes_fw_version", "0x00000083\n");
    write_text("root/sys/class/drm/card1/device/devcoredump/data", "dump of the GPU");
    for (int i = 0; i < EVIDENCE_KINDS; i++) {
        evidence_collect(&ev, (enum evidence_kind)i, fd, &got);
        CHECK(got.is_there);
    }
    char *text = read_all(fd, "kernel.txt");
    CHECK_INT(count(text, "\n"), 2);
    CHECK(strstr(text, "page fault") && !strstr(text, "GPU reset begin"));
    struct buf b;
    buf_init(&b, 0);
    evidence_symptoms(text, strlen(text), &b);
    CHECK(strstr(b.data, "\"gpu_page_fault\":") && strstr(b.data, "\"mes_silent\":"));
    CHECK(!strstr(b.data, "oom"));
    buf_finish(&b);
    CHECK(strstr(read_all(fd, "process.txt"), "D (disk sleep)"));
    CHECK(strstr(read_all(fd, "process.txt"), "amdgpu_fence_wait"));
    CHECK(strstr(read_all(fd, "system.txt"), "0x00000083"));
    CHECK_STR(read_all(fd, "devcoredump.bin"), "dump of the GPU");
    close(fd);
    close(crashes);
}

/* sysfs that does not answer: here a pipe that nobody writes to. */
static void test_deadline(void)
{
    char path[160], state[128], root[128], name[MSG_NAME_BYTES];
    struct evidence_result got;
    snprintf(state, sizeof(state), "%s/d", dir);
    snprintf(root, sizeof(root), "%s/hang", dir);
    write_text("hang/proc/77/x", "");
    snprintf(path, sizeof(path), "%s/hang/proc/77/status", dir);
    CHECK(mkfifo(path, 0600) == 0);
    int writer = open(path, O_RDWR); /* so that it opens, and a blocking read waits */
    CHECK(writer >= 0);
    int crashes = report_open_dir(state), fd = report_create(crashes, 1, "worker", 1, name);
    struct evidence ev = {.root = root, .pid = 77};
    write_text("hang/sys/class/drm/card0/device/devcoredump/x", "");
    snprintf(path, sizeof(path), "%s/hang/sys/class/drm/card0/device/devcoredump/data", dir);
    CHECK(mkfifo(path, 0600) == 0);
    int dump = open(path, O_RDWR);
    uint64_t t0 = clock_ms();
    evidence_collect(&ev, EVIDENCE_PROCESS, fd, &got);
    CHECK(!got.is_there);
    CHECK(clock_ms() - t0 < 1000);
    close(writer);
    close(dump);
    close(fd);
    close(crashes);
}

static void test_state_dir(void)
{
    char got[64];
    unsetenv("STATE_DIRECTORY");
    setenv("XDG_STATE_HOME", "/x", 1);
    setenv("HOME", "/home/u", 1);
    state_dir("/set", got, sizeof(got));
    CHECK_STR(got, "/set");
    state_dir("", got, sizeof(got));
    CHECK_STR(got, "/x/rocmforge");
    setenv("STATE_DIRECTORY", "/var/lib/rocmforge:/other", 1);
    state_dir("", got, sizeof(got));
    CHECK_STR(got, "/var/lib/rocmforge");
    unsetenv("STATE_DIRECTORY");
    setenv("XDG_STATE_HOME", "relative", 1);
    state_dir("", got, sizeof(got));
    CHECK_STR(got, "/home/u/.local/state/rocmforge");
    state_dir("", got, 10);
    CHECK_STR(got, "");
    unsetenv("HOME");
    state_dir("", got, sizeof(got));
    CHECK_STR(got, "");
}

/* What the user named to write into stays as it was when there is nothing to write. */
static void test_command(void)
{
    char state[128], out[128], text[16] = "", word_out[] = "--out", last[] = "last";
    char unknown[] = "20260101T000000.000Z-worker-1";
    char *names[] = {last, unknown};
    snprintf(out, sizeof(out), "%s/kept", dir);
    write_text("kept", "precious");
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(state, sizeof(state), "%s/%s", dir, i == 0 ? "nowhere" : "tar");
        char *argv[] = {names[i], word_out, out};
        CHECK_INT(reporter_command(state, 3, argv), EXIT_GENERAL);
        CHECK_INT(reporter_command(state, 1, argv), EXIT_GENERAL);
    }
    FILE *f = fopen(out, "r");
    CHECK(f && fgets(text, sizeof(text), f) && fclose(f) == 0);
    CHECK_STR(text, "precious");
    char *argv[] = {last, word_out, out};
    CHECK_INT(reporter_command(state, 3, argv), EXIT_OK);
    struct stat st;
    CHECK(stat(out, &st) == 0 && st.st_size >= 1024);
}

int main(void)
{
    char command[64];
    CHECK(mkdtemp(dir));
    test_names_and_bounds();
    test_damage_and_masses();
    test_archive();
    test_command();
    test_evidence();
    test_deadline();
    test_state_dir();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) == 0 ? 0 : 1;
}
