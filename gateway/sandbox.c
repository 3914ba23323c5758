/* The gateway's sandbox. Once per process, before any foreign byte. */
#include "gateway/sandbox.h"
#include "shared/landlock.h"
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Address space: the rings, the journal and bodies at their limits, with room. */
#define ADDRESS_SPACE_BYTES ((rlim_t)4 << 30)

static void limit(int what, rlim_t n)
{
    struct rlimit r = {n, n};
    if (setrlimit((__rlimit_resource_t)what, &r) < 0) {
        log_warn("cannot set resource limit %d: %s", what, strerror(errno));
    }
}

size_t sandbox_prepare(bool is_traceable)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a parent that died before shows as a closed channel */
    if (!is_traceable) {
        prctl(PR_SET_DUMPABLE, 0);
    }
    limit(RLIMIT_CORE, 0);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) {
        return 256;
    }
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    return (size_t)files.rlim_cur;
}

static void enter_landlock(void)
{
    struct landlock l;
    int rc = landlock_open(LANDLOCK_ALL, &l);
    if (rc < 0) {
        log_info("no Landlock (%s); seccomp alone keeps the file system away", strerror(-rc));
        return;
    }
    rc = landlock_enter(&l);
    if (rc < 0) {
        log_warn("Landlock cannot be used: %s", strerror(-rc));
    }
}

#define CALL(name) SCMP_SYS(name)

/* Free of conditions. Grouped by who needs them. */
/* clang-format off */
static const int calls[] = {
    /* the loop */
    CALL(poll), CALL(epoll_wait), CALL(epoll_pwait), CALL(epoll_ctl), CALL(read), CALL(write), CALL(readv),
    CALL(writev), CALL(close), CALL(clock_gettime), CALL(gettimeofday), CALL(restart_syscall),
    /* connections and the channel */
    CALL(accept4), CALL(recvmsg), CALL(sendmsg), CALL(recvfrom), CALL(sendto), CALL(shutdown),
    CALL(getsockopt), CALL(getsockname), CALL(getpeername),
    /* memfds: payloads out, configuration in */
    CALL(memfd_create), CALL(ftruncate), CALL(fstat), CALL(newfstatat), CALL(pread64),
    /* memory */
    CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise),
    /* the pool and the loop */
    CALL(futex), CALL(sched_yield),
    /* randomness, the end, and the way there */
    CALL(getrandom), CALL(getpid), CALL(gettid), CALL(tgkill), CALL(rt_sigprocmask),
    CALL(rt_sigreturn), CALL(rt_sigaction), CALL(exit), CALL(exit_group),
};
/* clang-format on */

static int allow(scmp_filter_ctx f, int call)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
}

static int allow_value(scmp_filter_ctx f, int call, unsigned arg, uint64_t value)
{
    const struct scmp_arg_cmp is = {.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 1, is);
}

static int fill(scmp_filter_ctx f)
{
    static const int controls[] = {F_GETFL,     F_SETFL,     F_GETFD,        F_SETFD,
                                   F_ADD_SEALS, F_GET_SEALS, F_DUPFD_CLOEXEC};
    static const int levels[] = {6 /* IPPROTO_TCP */, 1 /* SOL_SOCKET */};
    int rc = 0;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && rc == 0; i++) {
        rc = allow(f, calls[i]);
    }
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]) && rc == 0; i++) {
        rc = allow_value(f, SCMP_SYS(fcntl), 1, (uint64_t)controls[i]);
    }
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]) && rc == 0; i++) {
        rc = allow_value(f, SCMP_SYS(setsockopt), 1, (uint64_t)levels[i]);
    }
    rc = rc ? rc : allow_value(f, SCMP_SYS(ioctl), 1, FIONBIO);
    /* Memory that is never executable. */
    const struct scmp_arg_cmp no_exec = SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    rc = rc ? rc : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, no_exec);
    rc = rc ? rc : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, no_exec);
    return rc;
}

static void start_pool(uv_work_t *w)
{
    (void)w;
}

static void on_pool_started(uv_work_t *w, int status)
{
    (void)status;
    free(w);
}

int sandbox_enter(uv_loop_t *loop, struct err *e)
{
    tzset();             /* log lines show local time */
    json_object_seed(0); /* jansson reads /dev/urandom at its first object */
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1); /* a thread's own would read a file when it shrinks */
#endif
    limit(RLIMIT_AS, ADDRESS_SPACE_BYTES);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set(e, -errno, "PR_SET_NO_NEW_PRIVS");
    }
    enter_landlock();
    /* libuv's pool begins here, under Landlock, and has begun when this returns; the filter then
     * holds for its thread, too. */
    uv_work_t *w = base_alloc(sizeof(*w));
    uv_queue_work(loop, w, start_pool, on_pool_started);
    limit(RLIMIT_NPROC, 0);
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc = f ? fill(f) : -ENOMEM;
    rc = rc ? rc : seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0) {
        rc = seccomp_load(f);
    }
    seccomp_release(f);
    return rc < 0 ? err_set(e, rc, "the system call filter") : 0;
}
