/* What children are started with, and when; runs in the supervisor's loop. Never blocks. */
#include "safety/launch.h"
#include "ipc/memfd.h"
#include "safety/card.h"
#include "safety/crash.h"
#include "safety/degrade.h"
#include "safety/oom.h"
#include "safety/topology.h"
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    STEP_MS = 60 * 1000, /* a step of a big model on a slow processor */
    START_MS = 60 * 1000,
    LOAD_MS = 60 * 1000,
    WORKER_OOM_SCORE_ADJ = 500, /* when memory runs out, the worker goes before the desktop */
};

/* ---- settings ---- */

/* Opens the API key file anew; *ret is -1 without one. */
static int open_keys(const struct config *cfg, int *ret, struct err *e)
{
    const char *path = cfg->v[CONFIG_api_key_file].str;
    *ret = -1;
    if (!*path) {
        return 0;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int err = errno;
        if (fd >= 0) {
            close(fd);
        }
        return err_set(e, ERR_CONFIG, "api_key_file '%s': %s", path, strerror(err));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_CONFIG, "api_key_file '%s' is not a regular file", path);
    }
    if (st.st_mode & 0004) {
        log_warn("the API keys in %s can be read by every user; chmod 600 it", path);
    }
    *ret = fd;
    return 0;
}

static int encode_config(const struct config *cfg, struct err *e)
{
    struct buf b;
    buf_init(&b, 0);
    config_encode(cfg, &b);
    int fd = b.failed ? -ENOMEM : memfd_create_const("rocmforge-config", b.data, b.len);
    buf_finish(&b);
    return fd < 0 ? err_set(e, fd, "the configuration cannot be handed on") : fd;
}

int launch_settings(struct supervisor *s, const struct config *cfg, struct err *e)
{
    int key_fd, rc = open_keys(cfg, &key_fd, e);
    if (rc != 0) {
        return rc;
    }
    int config_fd = encode_config(cfg, e);
    if (config_fd < 0) {
        if (key_fd >= 0) {
            close(key_fd);
        }
        return config_fd;
    }
    if (s->config_fd >= 0) {
        close(s->config_fd);
    }
    if (s->key_fd >= 0) {
        close(s->key_fd);
    }
    s->config_fd = config_fd;
    s->key_fd = key_fd;
    s->generation++;
    return 0;
}

int launch_config(struct supervisor *s, struct child *c)
{
    struct msg_config m = {.generation = s->generation};
    int fds[2] = {s->config_fd, -1}, n_fds = 1, own_fd = -1;
    if (c == &s->worker) {
        int rc = degrade_config(s, &own_fd);
        if (rc < 0) {
            return rc;
        }
        fds[0] = rc == 1 ? own_fd : fds[0];
    }
    if (c == &s->front && s->key_fd >= 0) {
        /* Opened anew, so that a second gateway does not begin at the first one's end of file. */
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", s->key_fd);
        fds[n_fds] = open(path, O_RDONLY | O_CLOEXEC);
        if (fds[n_fds] < 0) {
            return -errno; /* never without keys where keys are wanted */
        }
        n_fds++;
    }
    int rc = channel_send(&c->channel, MSG_CONFIG, s->epoch.id, &m, sizeof(m), fds, n_fds);
    if (n_fds == 2) {
        close(fds[1]);
    }
    if (own_fd >= 0) {
        close(own_fd);
    }
    return rc;
}

/* ---- programs ---- */

static void program_path(const struct supervisor *s, const char *name, char *ret, size_t bytes)
{
    snprintf(ret, bytes, "%s/rocmforge-%s", s->options->program_dir, name);
}

int launch_check(const struct supervisor *s, struct err *e)
{
    static const char *const programs[] = {"gateway", "worker"};
    for (size_t i = 0; i < COUNT_OF(programs); i++) {
        char path[SUPERVISOR_PATH_BYTES];
        program_path(s, programs[i], path, sizeof(path));
        if (access(path, X_OK) != 0) {
            return err_set(e, -errno, "%s; install all rocmforge programs together", path);
        }
    }
    return 0;
}

/* Room is kept for every living child to become stuck. */
static bool may_start(const struct supervisor *s)
{
    int n_free = 0;
    for (size_t i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        n_free += s->stuck[i].state == CHILD_NONE;
    }
    return n_free >= SUPERVISOR_CHILDREN;
}

static bool is_gpu_stuck(const struct supervisor *s)
{
    for (size_t i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        if (s->stuck[i].state != CHILD_NONE && s->stuck[i].holds_gpu) {
            return true;
        }
    }
    return false;
}

/* A worker that hangs in the kernel and never was ready waits for its model's file, as the next one
 * would; one that was ready, or held the GPU, does not. */
static bool is_load_stuck(const struct supervisor *s)
{
    for (size_t i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        const struct child *c = &s->stuck[i];
        if (c->state != CHILD_NONE && c->role == MSG_WORKER && !c->was_ready && !c->holds_gpu) {
            return true;
        }
    }
    return false;
}

/* fork or memory failed: nobody's fault, tried again soon. */
static uint64_t retry_at(const struct child *c, int rc, uint64_t now_ms)
{
    log_error("%s cannot be started: %s; next attempt in 1 s", c->name, err_text(rc));
    return now_ms + POLICY_BACKOFF_MIN_MS;
}

static void start_front(struct supervisor *s, uint64_t now_ms)
{
    char path[SUPERVISOR_PATH_BYTES];
    program_path(s, "gateway", path, sizeof(path));
    struct child_options o = {.process = {.path = path,
                                          .argv = s->options->front_argv,
                                          .keeps_terminal = s->options->is_terminal}};
    int rc = child_spawn(&s->front, &o, 0, now_ms);
    if (rc != 0) {
        s->front_at_ms = retry_at(&s->front, rc, now_ms);
    }
}

void launch_end_epoch(struct supervisor *s)
{
    if (s->epoch.page) {
        status_keep_pace(s->epoch.page, &s->pace);
    }
    epoch_close(&s->epoch);
}

int launch_epoch(struct supervisor *s, uint64_t now_ms)
{
    struct epoch fresh;
    int rc = epoch_create(&fresh, s->last_epoch + 1, &s->pace);
    if (rc != 0) {
        return rc;
    }
    launch_end_epoch(s);
    s->epoch = fresh;
    s->last_epoch++;
    s->is_front_attached = s->is_epoch_used = false;
    uint64_t lock_ms = (uint64_t)(s->cfg->v[CONFIG_gpu_lock_timeout].num * 1000);
    uint64_t stall_ms = s->options->stall_ms;
    struct watchdog_limits limits = {.start_ms = START_MS,
                                     .preflight_ms = lock_ms + LAUNCH_PREFLIGHT_MS,
                                     .load_ms = stall_ms ? stall_ms : LOAD_MS,
                                     .step_ms = stall_ms ? stall_ms : STEP_MS};
    watchdog_start(&s->watchdog, &limits, now_ms);
    return 0;
}

static void start_worker(struct supervisor *s, uint64_t now_ms)
{
    char path[SUPERVISOR_PATH_BYTES], number[24];
    char name[] = "rocmforge-worker", flag[] = "--epoch";
    program_path(s, "worker", path, sizeof(path));
    snprintf(number, sizeof(number), "%llu", (unsigned long long)s->last_epoch + 1);
    char *argv[] = {name, flag, number, NULL};
    struct child_options o = {.process = {.path = path,
                                          .argv = argv,
                                          .wants_stderr = true,
                                          .oom_score_adj = WORKER_OOM_SCORE_ADJ},
                              .reap_ms = s->options->reap_ms,
                              .evidence_ms = CRASH_EVIDENCE_MS};
    int rc = launch_epoch(s, now_ms);
    if (rc == 0) {
        rc = child_spawn(&s->worker, &o, s->epoch.id, now_ms);
        tail_start(&s->tail);
        s->degrade.worker_rung = degrade_rung(s);
    }
    if (rc != 0) {
        epoch_close(&s->epoch);
        s->worker_at_ms = retry_at(&s->worker, rc, now_ms);
        return;
    }
    s->n_oom_kills = oom_kills(topology_root());
}

int launch_probe(struct supervisor *s, uint32_t device, uint64_t now_ms)
{
    if (!may_start(s) || is_gpu_stuck(s)) {
        return -EBUSY;
    }
    char path[SUPERVISOR_PATH_BYTES], epoch[24], index[16];
    char name[] = "rocmforge-probe", epoch_flag[] = "--epoch", device_flag[] = "--device";
    program_path(s, "probe", path, sizeof(path));
    snprintf(epoch, sizeof(epoch), "%llu", (unsigned long long)s->epoch.id);
    snprintf(index, sizeof(index), "%u", (unsigned)device);
    char kernel_flag[] = "--kernel-dir", *kernel_dir = s->cfg->v[CONFIG_kernel_dir].str;
    char *argv[] = {name,        epoch_flag, epoch,
                    device_flag, index,      *kernel_dir ? kernel_flag : NULL,
                    kernel_dir,  NULL};
    struct child_options o = {
        .process = {.path = path, .argv = argv, .oom_score_adj = WORKER_OOM_SCORE_ADJ},
        .reap_ms = s->options->reap_ms};
    int rc = child_spawn(&s->probe, &o, s->epoch.id, now_ms);
    s->probe.holds_gpu = rc == 0;
    return rc;
}

/* One that hangs is enough: what it waits for would hold the next one, too, until no room were left
 * for a gateway or a worker. */
static bool is_helper_stuck(const struct supervisor *s, const struct child *c)
{
    for (size_t i = 0; i < SUPERVISOR_MAX_STUCK; i++) {
        if (s->stuck[i].state != CHILD_NONE && strcmp(s->stuck[i].name, c->name) == 0) {
            return true;
        }
    }
    return false;
}

int launch_helper(struct supervisor *s, struct child *c, const char *role, const char *arg,
                  const char *more, uint64_t now_ms)
{
    if (!may_start(s) || is_helper_stuck(s, c)) {
        return -EBUSY;
    }
    char path[SUPERVISOR_PATH_BYTES], copy[SUPERVISOR_PATH_BYTES], flag[16], text[128];
    char name[] = "rocmforge-probe";
    program_path(s, "probe", path, sizeof(path));
    snprintf(flag, sizeof(flag), "%s", role);
    snprintf(copy, sizeof(copy), "%s", arg);
    snprintf(text, sizeof(text), "%s", more ? more : "");
    char *argv[] = {name, flag, copy, more ? text : NULL, NULL};
    struct child_options o = {
        .process = {.path = path, .argv = argv, .oom_score_adj = WORKER_OOM_SCORE_ADJ},
        .reap_ms = s->options->reap_ms};
    return child_spawn(c, &o, 0, now_ms);
}

void launch_due(struct supervisor *s, uint64_t now_ms)
{
    if (s->phase != SUPERVISOR_SERVING || !may_start(s)) {
        return;
    }
    if (s->front.state == CHILD_NONE && now_ms >= s->front_at_ms) {
        start_front(s, now_ms);
    }
    if (s->worker.state == CHILD_NONE && now_ms >= s->worker_at_ms && !s->watch.is_asleep &&
        ((!is_gpu_stuck(s) && card_is_usable(s, now_ms)) || degrade_is_cpu(s)) &&
        !is_load_stuck(s) && child_is_alive(&s->front) &&
        s->front.state >= CHILD_GREETED) {
        start_worker(s, now_ms);
    }
}
