/* Stages that read files, open device nodes and ask the kernel what it can; run in the probe's
 * child. May block in the kernel; the runner keeps the time. */
#include "safety/firmware.h"
#include "safety/probe.h"
#include "shared/clock.h"
#include "shared/landlock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    RESET_WAIT_MS = 60 * 1000, /* a GPU reset that another program caused is over by then */
    RETRY_MS = 250,
};

#define KFD_PROC "/sys/class/kfd/kfd/proc"
#define GIB (1024.0 * 1024 * 1024)

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- cpu ---- */

static const char *instruction_sets(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return "no AVX2: the slow scalar code is used";
    }
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) {
        return "AVX2";
    }
    return __builtin_cpu_supports("avx512vnni") ? "AVX-512 with VNNI" : "AVX-512";
}

/* Kilobytes in a line of /proc/meminfo, as GiB. */
static double meminfo_gib(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    return line ? strtod(line + strlen(name), NULL) / (1024 * 1024) : 0;
}

/* The word in brackets: "always [madvise] never". */
static void chosen_word(const char *text, char *ret, size_t bytes)
{
    const char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;
    snprintf(ret, bytes, "%.*s", close ? (int)(close - open - 1) : 7, close ? open + 1 : "unknown");
}

static int count_cores(const char *root, int n_logical)
{
    int n = 0;
    for (int i = 0; i < n_logical; i++) {
        char path[128], first[32];
        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 i);
        if (topology_text(root, path, first, sizeof(first)) != 0) {
            return n_logical;
        }
        n += strtol(first, NULL, 10) == i; /* counted at its first thread */
    }
    return n;
}

int probe_machine_cpu(struct probe *p, struct msg_stage *out)
{
    char text[4096] = "", huge_text[64] = "", huge[16];
    cpu_set_t set;
    int n_allowed = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    int n_logical = (int)sysconf(_SC_NPROCESSORS_ONLN);
    (void)!topology_text(p->root, "/proc/meminfo", text, sizeof(text));
    (void)!topology_text(p->root, "/sys/kernel/mm/transparent_hugepage/enabled", huge_text,
                         sizeof(huge_text));
    chosen_word(huge_text, huge, sizeof(huge));
    probe_say(out->detail,
              "%s; %d cores, %d threads (%d allowed); %.1f of %.1f GiB of memory available; huge "
              "pages: %s",
              instruction_sets(), count_cores(p->root, n_logical), n_logical, n_allowed,
              meminfo_gib(text, "MemAvailable:"), meminfo_gib(text, "MemTotal:"), huge);
    return PROBE_OK;
}

/* ---- environment ---- */

int probe_machine_environment(struct probe *p, struct msg_stage *out)
{
    (void)p;
    const char *interrupt = getenv("HSA_ENABLE_INTERRUPT");
    const char *override = getenv("HSA_OVERRIDE_GFX_VERSION");
    if (interrupt && strcmp(interrupt, "0") == 0) {
        probe_say(out->detail, "HSA_ENABLE_INTERRUPT=0 turns a GPU fault into an endless wait");
        probe_say(out->remedy, "unset HSA_ENABLE_INTERRUPT");
        return ERR_CONFIG;
    }
    if (override && *override) {
        probe_say(out->detail, "HSA_OVERRIDE_GFX_VERSION=%.32s makes the card claim to be another",
                  override);
        probe_say(out->remedy, "unset it: rocmforge has kernels for every RDNA2, 3 and 4 card");
        return ERR_CONFIG;
    }
    /* With core dumps on, some ROCm versions abort at a GPU fault instead of reporting it. */
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    static const char *const slow[] = {"HIP_LAUNCH_BLOCKING", "AMD_SERIALIZE_KERNEL",
                                       "AMD_LOG_LEVEL"};
    probe_say(out->detail, "nothing that harms");
    for (size_t i = 0; i < COUNT_OF(slow); i++) {
        const char *value = getenv(slow[i]);
        if (value && *value && strcmp(value, "0") != 0) {
            probe_say(out->detail, "%s=%.32s is set: everything will be slow", slow[i], value);
        }
    }
    return PROBE_OK;
}

/* ---- sandbox ---- */

static const char *why_no_landlock(int err)
{
    return err == -ENOSYS       ? "this kernel was built without it, or is older than 5.13"
           : err == -EOPNOTSUPP ? "it is switched off"
           : err == -EPERM      ? "what this runs in, a container perhaps, forbids it"
                                : strerror(-err);
}

/* What the worker will be kept from; it starts without, too. */
int probe_machine_sandbox(struct probe *p, struct msg_stage *out)
{
    (void)p;
    struct landlock l;
    int err = landlock_open(LANDLOCK_ALL, &l);
    if (err < 0) {
        probe_say(out->detail,
                  "no Landlock (%s): the worker may write whatever files this user may",
                  why_no_landlock(err));
        probe_say(out->remedy, "%s",
                  err == -EOPNOTSUPP ? "add landlock to the kernel's parameter lsm=" : "");
        return PROBE_OK;
    }
    close(l.fd);
    probe_say(out->detail,
              "Landlock (ABI %d): the worker can read files, and write only where a GPU's driver "
              "must%s",
              l.abi,
              !(l.denied & LANDLOCK_TRUNCATE) ? "; Linux 6.2 would also keep it from cutting files "
                                                "short by their path, 6.10 from commanding devices"
              : !(l.denied & LANDLOCK_IOCTL_DEV)
                  ? "; Linux 6.10 would also keep it from commanding devices"
                  : "");
    return PROBE_OK;
}

/* ---- card ---- */

int probe_machine_card(struct probe *p, struct msg_stage *out)
{
    struct gpu gpus[TOPOLOGY_MAX_GPUS];
    int n = topology_read(p->root, gpus);
    if (n < 0) {
        probe_say(out->detail, "the driver's topology cannot be read: %s", strerror(-n));
        return ERR_NO_GPU;
    }
    if (n == 0) {
        char pci[16];
        topology_find_pci(p->root, pci);
        if (*pci) {
            probe_say(out->detail, "the AMD GPU at %s has no compute driver (no /sys/class/kfd)",
                      pci);
            probe_say(out->remedy, "sudo modprobe amdgpu; install its firmware (Debian: "
                                   "firmware-amd-graphics)");
            return ERR_NO_GPU;
        }
        probe_say(p->no_gpu, "no AMD GPU");
        probe_say(out->detail, "no AMD GPU in this machine: rocmforge computes on the CPU");
        return PROBE_SKIPPED;
    }
    if (p->device >= n) {
        probe_say(out->detail, "there is no GPU %d, only %d", p->device, n);
        return ERR_NO_GPU;
    }
    p->gpu = gpus[p->device >= 0 ? p->device : topology_choose(gpus, n)];
    probe_say(out->detail, "%s at %s, %u compute units, %.1f GiB%s", p->gpu.gfx, p->gpu.pci,
              p->gpu.n_cus, (double)p->gpu.vram_bytes / GIB,
              n > 1 ? "; the largest of several" : "");
    if (!p->gpu.is_supported) {
        probe_say(out->remedy, "rocmforge has kernels for RDNA2, RDNA3 and RDNA4 cards");
        return ERR_NO_GPU;
    }
    unsigned version = 0;
    const struct firmware_fault *fault = firmware_check(p->root, &p->gpu, &version);
    if (fault) {
        size_t len = strlen(out->detail);
        snprintf(out->detail + len, sizeof(out->detail) - len, "; its firmware (MES 0x%02x): %s",
                 version, fault->what);
        probe_say(out->remedy, "%s", fault->fix);
    }
    return PROBE_OK;
}

/* ---- lock ---- */

int probe_machine_lock(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    char dir[TOPOLOGY_PATH_BYTES];
    struct err e = {0};
    snprintf(dir, sizeof(dir), "%s" LOCK_DIR, p->root);
    int rc = lock_take(&p->lock, dir, p->gpu.pci, "doctor", 0, &e);
    if (rc != 0) {
        probe_say(out->detail, "%s", e.detail);
        probe_say(out->remedy, "%s", err_remedy(rc));
        return rc;
    }
    probe_say(out->detail, "%s is free", p->lock.path);
    return PROBE_OK;
}

/* ---- nodes ---- */

static bool is_member(const char *user, gid_t group, gid_t primary)
{
    gid_t groups[256];
    int n = COUNT_OF(groups);
    if (getgrouplist(user, primary, groups, &n) < 0) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (groups[i] == group) {
            return true;
        }
    }
    return false;
}

static int explain_access(const char *path, struct msg_stage *out)
{
    struct stat st;
    struct passwd *user = getpwuid(geteuid());
    const char *name = user ? user->pw_name : "$USER";
    if (stat(path, &st) != 0 || (st.st_mode & 0060) != 0060) {
        probe_say(out->detail, "%s: permission denied, for its group as well", path);
        probe_say(out->remedy, "reload udev's rules (sudo udevadm trigger) so that the group "
                               "'render' may use it");
        return ERR_GPU_ACCESS;
    }
    struct group *group = getgrgid(st.st_gid);
    char number[16];
    snprintf(number, sizeof(number), "%u", (unsigned)st.st_gid);
    const char *group_name = group ? group->gr_name : number;
    probe_say(out->detail, "%s: permission denied; it belongs to the group '%s'", path, group_name);
    if (user && is_member(name, st.st_gid, user->pw_gid)) {
        probe_say(out->remedy, "%s is in the group '%s', but not yet in this session: log in again",
                  name, group_name);
    } else {
        probe_say(out->remedy, "sudo usermod -aG %s %s, then log in again", group_name, name);
    }
    return ERR_GPU_ACCESS;
}

/* Opens for reading and writing, and closes. While the driver resets the GPU it says EAGAIN or
 * EINVAL. */
static int try_open(const char *path, struct msg_stage *out)
{
    uint64_t deadline_ms = clock_ms() + RESET_WAIT_MS;
    for (;;) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            close(fd);
            return PROBE_OK;
        }
        int err = errno;
        if (err == EACCES || err == EPERM) {
            return explain_access(path, out);
        }
        if ((err != EAGAIN && err != EINVAL) || clock_ms() >= deadline_ms) {
            probe_say(out->detail, "%s: %s", path, strerror(err));
            probe_say(out->remedy, err == ENOENT ? "load the driver: sudo modprobe amdgpu"
                                                 : "look into the kernel log: journalctl -k");
            return ERR_GPU_ACCESS;
        }
        sleep_ms(RETRY_MS);
    }
}

int probe_machine_nodes(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    char path[TOPOLOGY_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/dev/kfd", p->root);
    int rc = try_open(path, out);
    if (rc == 0) {
        snprintf(path, sizeof(path), "%s/dev/dri/renderD%u", p->root, p->gpu.render_minor);
        rc = try_open(path, out);
    }
    if (rc == 0) {
        probe_say(out->detail, "/dev/kfd and /dev/dri/renderD%u open%s", p->gpu.render_minor,
                  geteuid() == 0 ? " (for root, which says nothing about other users)" : "");
    }
    return rc;
}

/* ---- quiet ---- */

/* Ours that only look: the listener to rocm-smi holds /dev/kfd, and computes nothing. */
static bool is_probe(const char *root, long pid)
{
    char path[TOPOLOGY_PATH_BYTES], name[32];
    snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
    return topology_text(root, path, name, sizeof(name)) >= 0 &&
           strcmp(name, "rocmforge-probe") == 0;
}

/* Processes that the driver knows: *ret_left holds one that has ended. Returns how many live. */
static int scan_processes(const char *root, long *ret_left)
{
    char path[TOPOLOGY_PATH_BYTES];
    int n = 0;
    *ret_left = 0;
    snprintf(path, sizeof(path), "%s" KFD_PROC, root);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        long pid = strtol(e->d_name, NULL, 10);
        snprintf(path, sizeof(path), "%s/proc/%ld", root, pid);
        if (pid <= 0 || pid == getpid()) {
            continue;
        }
        if (access(path, F_OK) == 0) {
            n += !is_probe(root, pid);
        } else {
            *ret_left = pid;
        }
    }
    if (d) {
        closedir(d);
    }
    return n;
}

int probe_machine_quiet(struct probe *p, struct msg_stage *out)
{
    if (probe_skip(p, out)) {
        return PROBE_SKIPPED;
    }
    uint64_t deadline_ms = clock_ms() + p->quiet_ms;
    long left;
    int n_others;
    while (n_others = scan_processes(p->root, &left), left != 0 && clock_ms() < deadline_ms) {
        sleep_ms(RETRY_MS);
    }
    if (left != 0) {
        probe_say(out->detail, "process %ld has ended, but the driver still keeps its GPU memory",
                  left);
        probe_say(out->remedy, "wait a minute; if it stays so, restart the machine");
        return ERR_GPU_LEFTOVER;
    }
    double total = (double)p->gpu.vram_bytes / GIB, used = (double)p->gpu.vram_used_bytes / GIB;
    probe_say(out->detail, "%.1f of %.1f GiB of VRAM in use; %d other compute processes%s", used,
              total, n_others,
              used > 0.9 * total ? "; so full, the desktop stutters: close something" : "");
    return PROBE_OK;
}
