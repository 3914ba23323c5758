/* The supervisor's part: starts the real gateway, hands it sockets and epochs. */
#include "tests/gateway/rig.h"
#include "ipc/memfd.h"
#include "shared/limits.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static int listen_tcp(int *ret_port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 512) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static int n_rigs;

static int listen_unix(char path[64])
{
    snprintf(path, 64, "/tmp/rocmforge-test-%d-%d.sock", (int)getpid(), n_rigs++);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 16) == 0);
    return fd;
}

bool rig_is_unsandboxed(void)
{
    return GATEWAY_NO_SANDBOX || getenv("ROCMFORGE_TEST_NO_SANDBOX");
}

static void spawn(struct rig *r, const struct rig_options *o, int fd)
{
    const char *argv[8] = {o->program ? o->program : GATEWAY_PROGRAM};
    int n = 1;
    if (rig_is_unsandboxed()) {
        argv[n++] = "--no-sandbox";
    }
    for (int i = 0; i < 4 && o->args[i]; i++) {
        argv[n++] = o->args[i];
    }
    r->pid = fork();
    CHECK(r->pid >= 0);
    if (r->pid == 0) {
        if (o->max_files) {
            struct rlimit l = {(rlim_t)o->max_files, (rlim_t)o->max_files};
            setrlimit(RLIMIT_NOFILE, &l);
        }
        if (fd == CHANNEL_CHILD_FD) {
            fcntl(fd, F_SETFD, 0);
        } else {
            dup2(fd, CHANNEL_CHILD_FD);
        }
        execv(argv[0], (char **)(uintptr_t)argv); /* which changes nothing in them */
        _exit(127);
    }
}

void rig_start(struct rig *r, const struct rig_options *o)
{
    static const struct rig_options none;
    int fds[2];
    o = o ? o : &none;
    memset(r, 0, sizeof(*r));
    r->bells[0] = r->bells[1] = -1;
    signal(SIGPIPE, SIG_IGN);
    CHECK_INT(channel_pair(fds), 0);
    spawn(r, o, fds[1]);
    close(fds[1]);
    channel_init(&r->channel, fds[0], MSG_SUPERVISOR, MSG_GATEWAY);
    struct channel_msg m;
    CHECK(rig_expect(r, MSG_HELLO, &m));
    r->channel.state = MSG_STATE_GREETED | MSG_STATE_RUNNING;

    struct buf config;
    buf_init(&config, 0);
    buf_str(&config, "log_level=warn\n");
    buf_str(&config, o->config ? o->config : "");
    int config_fds[2], n_fds = 1;
    if (o->keys) {
        buf_str(&config, "api_key_file=keys\n");
        config_fds[1] = memfd_create_const("keys", o->keys, strlen(o->keys));
        n_fds = 2;
    }
    config_fds[0] = memfd_create_const("config", config.data, config.len);
    struct msg_config mc = {.generation = 1};
    CHECK_INT(channel_send(&r->channel, MSG_CONFIG, 0, &mc, sizeof(mc), config_fds, n_fds), 0);
    for (int i = 0; i < n_fds; i++) {
        close(config_fds[i]);
    }
    buf_finish(&config);

    int sockets[2] = {listen_tcp(&r->port), listen_unix(r->unix_path)};
    struct msg_listen ml = {.n_tcp = 1, .n_unix = 1};
    CHECK_INT(channel_send(&r->channel, MSG_LISTEN, 0, &ml, sizeof(ml), sockets, 2), 0);
    close(sockets[0]);
    close(sockets[1]);
}

bool rig_expect(struct rig *r, uint32_t type, struct channel_msg *ret)
{
    for (;;) {
        struct pollfd p = {.fd = r->channel.fd, .events = POLLIN};
        CHECK(poll(&p, 1, 10000) == 1);
        int rc = channel_recv(&r->channel, ret);
        if (rc == ERR_PEER_GONE) {
            return false;
        }
        CHECK_INT(rc, 1);
        if (ret->type == type) {
            return true;
        }
        channel_msg_finish(ret);
    }
}

void rig_attach(struct rig *r)
{
    int fds[5];
    size_t ring_bytes = ring_memfd_bytes(LIMIT_RING_BYTES);
    r->epoch++;
    for (int i = 0; i < 3; i++) {
        size_t bytes = i < 2 ? ring_bytes : STATUS_PAGE_BYTES;
        int at = i < 2 ? i : 4;
        fds[at] = memfd_create_shared("rig", bytes);
        CHECK(fds[at] >= 0);
        CHECK_INT(memfd_map(fds[at], bytes, bytes, false, true, &r->maps[i], &r->map_bytes[i]), 0);
    }
    ring_format(r->maps[0], LIMIT_RING_BYTES, r->epoch);
    ring_format(r->maps[1], LIMIT_RING_BYTES, r->epoch);
    status_format(r->maps[2], r->epoch);
    for (int i = 0; i < 2; i++) {
        r->bells[i] = fds[2 + i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    CHECK_INT(ring_attach(&r->requests, r->maps[0], r->map_bytes[0], r->epoch, fds[2]), 0);
    CHECK_INT(ring_attach(&r->events, r->maps[1], r->map_bytes[1], r->epoch, fds[3]), 0);
    r->status = status_attach(r->maps[2], r->map_bytes[2], r->epoch);
    CHECK(r->status);
    status_beat(r->status, STATUS_IDLE);
    struct msg_attach m = {.epoch = r->epoch, .ring_bytes = LIMIT_RING_BYTES};
    CHECK_INT(channel_send(&r->channel, MSG_ATTACH, r->epoch, &m, sizeof(m), fds, 5), 0);
    close(fds[0]);
    close(fds[1]);
    close(fds[4]);
}

void rig_worker_start(struct rig *r)
{
    rig_attach(r);
    worker_models(r);
    struct channel_msg m;
    CHECK(rig_expect(r, MSG_READY, &m));
    atomic_store(&r->worker_stops, false);
    CHECK(pthread_create(&r->worker, NULL, worker_run, r) == 0);
    r->has_worker = true;
}

static void drop_epoch(struct rig *r)
{
    if (r->has_worker) {
        atomic_store(&r->worker_stops, true);
        pthread_join(r->worker, NULL);
        r->has_worker = false;
    }
    for (int i = 0; i < 3; i++) {
        memfd_unmap(r->maps[i], r->map_bytes[i]);
        r->maps[i] = NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (r->bells[i] >= 0) {
            close(r->bells[i]);
            r->bells[i] = -1;
        }
    }
}

static void detach(struct rig *r, int err, uint32_t retry_after_ms, bool is_counted,
                   const char *detail)
{
    drop_epoch(r);
    struct msg_detach m = {.epoch = r->epoch,
                           .err = err,
                           .retry_after_ms = retry_after_ms,
                           .is_counted = is_counted};
    snprintf(m.detail, sizeof(m.detail), "%s", detail);
    CHECK_INT(channel_send(&r->channel, MSG_DETACH, r->epoch, &m, sizeof(m), NULL, 0), 0);
}

void rig_detach(struct rig *r, int err, uint32_t retry_after_ms, const char *detail)
{
    detach(r, err, retry_after_ms, false, detail);
}

void rig_worker_crash(struct rig *r)
{
    detach(r, ERR_WORKER_DOWN, 1000, true, "crashed by the test");
}

void rig_worker_kill(struct rig *r, uint32_t retry_after_ms)
{
    rig_detach(r, ERR_WORKER_DOWN, retry_after_ms, "killed by the test");
}

void rig_forget(struct rig *r)
{
    drop_epoch(r);
    channel_close(&r->channel);
    unlink(r->unix_path);
}

void rig_stop(struct rig *r)
{
    rig_forget(r);
    int status;
    CHECK(waitpid(r->pid, &status, 0) == r->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        TEST_FAIL("the gateway ended with status 0x%x", (unsigned)status);
    }
}

int rig_gateway_fds(const struct rig *r)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)r->pid);
    DIR *d = opendir(path);
    if (!d) {
        return -1; /* not dumpable, and we are not root */
    }
    int n = 0;
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n - 2;
}

long rig_gateway_kib(const struct rig *r)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)r->pid);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "RssAnon: %ld", &kib) == 1) {
            break;
        }
    }
    fclose(f);
    return kib;
}
