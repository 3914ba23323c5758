/* The worker's system call filter, and what it may write. Once per process, in its only thread,
 * before the models are opened. The filter's program is written here and not by libseccomp, so that
 * the worker builds on machines that have none. */
#include "worker/sandbox.h"
#include "shared/landlock.h"
#include "shared/log.h"

#include <errno.h>
#include <glob.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature) /* clang says it so, gcc by a macro */
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(IS_SANITIZED) || !defined(__x86_64__)
#define HAS_FILTER 0 /* LeakSanitizer clones and traces at the end */
#else
#define HAS_FILTER 1
#endif

#if HAS_FILTER
/* clang-format off */
static const unsigned denied[] = {
    /* the network: the one socket it needs is open */
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4,
    /* other programs and processes; it never forks (a fork of a process with a GPU can hang) */
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork, SYS_ptrace, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_tkill,
    SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    /* what many holes of kernels were found in */
    SYS_bpf, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_perf_event_open, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_personality, SYS_vmsplice,
    SYS_fanotify_init, SYS_name_to_handle_at, SYS_open_by_handle_at,
    /* the machine */
    SYS_mount, SYS_umount2, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount,
    SYS_fspick, SYS_pivot_root, SYS_chroot, SYS_setns, SYS_unshare, SYS_swapon, SYS_swapoff,
    SYS_reboot, SYS_kexec_load, SYS_kexec_file_load, SYS_init_module, SYS_finit_module,
    SYS_delete_module, SYS_acct, SYS_quotactl, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex,
    SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname, SYS_syslog, SYS_iopl, SYS_ioperm,
};
/* clang-format on */

enum { X32_CALLS = 0x40000000, MAX_INSTRUCTIONS = 2 * COUNT_OF(denied) + 40 };

struct program {
    struct sock_filter code[MAX_INSTRUCTIONS];
    unsigned short n;
};

static void put(struct program *p, struct sock_filter f)
{
    ASSERT(p->n < MAX_INSTRUCTIONS);
    p->code[p->n++] = f;
}

static void put_load(struct program *p, size_t offset)
{
    put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void put_return(struct program *p, unsigned what)
{
    put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}

/* Where test is true of the loaded word: the next instruction, else the one after it. */
static void put_if(struct program *p, unsigned test, unsigned value)
{
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value, 0, 1));
}

static void put_unless(struct program *p, unsigned test, unsigned value)
{
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value, 1, 0));
}

enum { DENY = SECCOMP_RET_ERRNO | EPERM };

/* Of this call the argument (its low half) decides: where it is not as wanted, it is denied. Leaves
 * the call's number loaded, as every part of the program does. */
static void put_argument(struct program *p, unsigned call, unsigned argument, unsigned test,
                         unsigned value)
{
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4));
    put_load(p, offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t));
    put_unless(p, test, value);
    put_return(p, DENY);
    put_load(p, offsetof(struct seccomp_data, nr));
}

static void write_program(struct program *p)
{
    put_load(p, offsetof(struct seccomp_data, arch));
    put_unless(p, BPF_JEQ, AUDIT_ARCH_X86_64);
    put_return(p, SECCOMP_RET_KILL_PROCESS);
    put_load(p, offsetof(struct seccomp_data, nr));
    put_if(p, BPF_JGE, X32_CALLS);
    put_return(p, DENY);
    for (size_t i = 0; i < COUNT_OF(denied); i++) {
        put_if(p, BPF_JEQ, denied[i]);
        put_return(p, DENY);
    }
    /* Its flags are in memory, where a filter cannot look; libc takes clone instead. */
    put_if(p, BPF_JEQ, SYS_clone3);
    put_return(p, SECCOMP_RET_ERRNO | ENOSYS);
    put_argument(p, SYS_clone, 0, BPF_JSET, CLONE_THREAD);
    put_argument(p, SYS_kill, 0, BPF_JEQ, (unsigned)getpid());
    put_argument(p, SYS_tgkill, 0, BPF_JEQ, (unsigned)getpid());
    static const unsigned keyboards[] = {TIOCSTI, TIOCLINUX}; /* they type for the user */
    for (size_t i = 0; i < COUNT_OF(keyboards); i++) {
        put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4));
        put_load(p, offsetof(struct seccomp_data, args) + sizeof(uint64_t));
        put_if(p, BPF_JEQ, keyboards[i]);
        put_return(p, DENY);
        put_load(p, offsetof(struct seccomp_data, nr));
    }
    put_return(p, SECCOMP_RET_ALLOW);
}

static int filter_calls(void)
{
    static struct program p;
    p.n = 0;
    write_program(&p);
    struct sock_fprog f = {.len = p.n, .filter = p.code};
    long got = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &f);
    return got == 0 ? 0 : got < 0 ? -errno : -EBUSY; /* positive: a thread that could not take it */
}
#endif

/* ---- files ---- */

enum {
    /* Reading is nowhere denied: a driver's libraries may lie in any folder, and a model's link may
     * be turned to another disk while the worker runs. */
    DENIED = LANDLOCK_ALL & ~(LANDLOCK_READ_FILE | LANDLOCK_READ_DIR),
    DEVICE = LANDLOCK_WRITE_FILE | LANDLOCK_IOCTL_DEV,
    LOCK = LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE | LANDLOCK_MAKE_REG,
    FOLDER = LOCK | LANDLOCK_REMOVE_FILE | LANDLOCK_REMOVE_DIR | LANDLOCK_MAKE_DIR |
             LANDLOCK_MAKE_SYM | LANDLOCK_REFER,
};

/* What is not on this machine needs no rule. */
static void allow(struct landlock *l, const char *path, unsigned rights)
{
    int rc = path && *path ? landlock_allow(l, path, rights) : 0;
    if (rc < 0 && rc != -ENOENT) {
        log_debug("Landlock: no rule for %s: %s", path, strerror(-rc));
    }
}

/* The driver's nodes: ROCm's; WSL's; HIP's where the card is another maker's. */
static void allow_nodes(struct landlock *l)
{
    static const char *const patterns[] = {"/dev/kfd", "/dev/dri", "/dev/dxg", "/dev/nvidia*"};
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        glob_t g;
        if (glob(patterns[i], 0, NULL, &g) == 0) {
            for (size_t k = 0; k < g.gl_pathc; k++) {
                allow(l, g.gl_pathv[k], DEVICE);
            }
            globfree(&g);
        }
    }
}

/* ROCm's own: locks and counters that processes share, what its compiler makes of kernels built in
 * source form (comgr: in the folder that LLVM takes for temporary files), and the cache of that. A
 * cache that is not there yet is the probe's to make; without one comgr compiles again. */
static void allow_rocm(struct landlock *l)
{
    allow(l, "/dev/shm", FOLDER);
    allow(l, "/tmp", FOLDER);
    static const char *const variables[] = {"TMPDIR", "TMP", "TEMP", "TEMPDIR",
                                            "AMD_COMGR_CACHE_DIR"};
    for (size_t i = 0; i < COUNT_OF(variables); i++) {
        allow(l, getenv(variables[i]), FOLDER);
    }
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool is_xdg = xdg && *xdg;
    char cache[4096];
    int n = snprintf(cache, sizeof(cache), "%s%s/comgr_cache", is_xdg ? xdg : home ? home : "",
                     is_xdg ? "" : "/.cache");
    if (n > 0 && (size_t)n < sizeof(cache) && (is_xdg || home)) {
        allow(l, cache, FOLDER);
    }
}

static void guard_files(const char *lock_dir)
{
    struct landlock l;
    int rc = landlock_open(DENIED, &l);
    if (rc < 0) {
        log_info("no Landlock (%s): files are guarded by their owners' rights alone",
                 strerror(-rc));
        return;
    }
    allow(&l, "/dev/null", DEVICE);
    if (lock_dir) {
        allow(&l, lock_dir, LOCK);
        allow_nodes(&l);
        allow_rocm(&l);
    }
    rc = landlock_enter(&l);
    if (rc < 0) {
        log_warn("Landlock cannot be used: %s", strerror(-rc));
    } else {
        log_info("Landlock (ABI %d): files can be read, %s", l.abi,
                 lock_dir ? "written only where the GPU's driver must" : "none written");
    }
}

int sandbox_enter(const char *lock_dir, struct err *e)
{
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set(e, -errno, "PR_SET_NO_NEW_PRIVS");
    }
    guard_files(lock_dir);
    int rc = 0;
#if HAS_FILTER
    rc = filter_calls();
#endif
    return rc < 0 ? err_set(e, rc, "the system call filter of the worker") : 0;
}
