/* The token loop (see loop.h). Main thread. Blocks in poll when idle and in engine_step; nowhere
 * else. */
#include "ipc/settings.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "worker/loop_state.h"
#include "worker/stores.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    FULL_RING_POLL_MS = 5, /* the gateway has no bell to say that it made room */
    STORES_STEPS = 64,     /* every so many steps the size of the stores is told */
};

/* ---- control ---- */

/* The gateway that knew our requests is gone. */
static void drop_all(struct loop *l)
{
    struct request *r, *next;
    for (r = l->live; r; r = next) {
        next = r->next_live;
        r->is_orphan = true;
        if (r->stage == REQUEST_PREPARING) {
            l->n_orphans++; /* comes back from its thread and goes then */
            continue;
        }
        if (r->stage == REQUEST_ACTIVE && r->type == MSG_GENERATE) {
            scheduler_remove(fleet_scheduler(&l->fleet, r->model), r);
        }
        request_destroy(&r);
    }
    l->live = NULL;
    l->n_live = 0;
    while (l->n_bulks > 0) {
        close(l->bulks[--l->n_bulks].fd);
    }
}

static int use_attach(struct loop *l)
{
    l->events.ring = &l->attach->events;
    l->events.err = 0;
    l->events.now_ns = clock_ns();
    for (uint32_t i = 0; i < l->models->n; i++) {
        events_model(&l->events, l->models, i);
    }
    return l->events.err;
}

static int attach_again(struct loop *l)
{
    struct attach fresh;
    int err = attach_open(&fresh, &l->msg);
    if (err < 0) {
        return err;
    }
    log_info("attached to epoch %llu; %zu requests of the last one dropped",
             (unsigned long long)fresh.epoch, l->n_live);
    drop_all(l);
    attach_close(l->attach);
    *l->attach = fresh;
    err = use_attach(l);
    if (err < 0) {
        return err;
    }
    struct msg_ready ready = {.epoch = fresh.epoch};
    return channel_send(l->channel, MSG_READY, fresh.epoch, &ready, sizeof(ready), NULL, 0);
}

/* A reload: what may change while models stand. */
static int take_config(struct loop *l)
{
    struct config c;
    struct err e;
    int err = settings_read(l->msg.fds[0], &c, &e);
    if (err < 0) {
        return err;
    }
    log_init("worker", (enum log_level)c.v[CONFIG_log_level].i,
             (enum log_format)c.v[CONFIG_log_format].i);
    l->queue_size = (size_t)c.v[CONFIG_queue_size].i;
    fleet_set_idle(&l->fleet, c.v[CONFIG_model_idle].num);
    config_finish(&c);
    return 0;
}

static void begin_drain(struct loop *l)
{
    struct msg_drain m;
    memcpy(&m, l->msg.payload, sizeof(m));
    l->is_draining = true;
    l->drain_deadline_ns = clock_ns() + m.deadline_ms * 1000000u;
    log_info("draining: %zu requests are left", l->n_live);
}

static int take_control(struct loop *l, struct err *e)
{
    int got;
    while ((got = channel_recv(l->channel, &l->msg)) == 1) {
        int err = 0;
        switch (l->msg.type) {
        case MSG_BULK:
            err = loop_intake_bulk(l);
            break;
        case MSG_DRAIN:
            begin_drain(l);
            break;
        case MSG_ATTACH:
            err = attach_again(l);
            break;
        case MSG_CONFIG:
            err = take_config(l);
            break;
        case MSG_BUDGET: {
            struct msg_budget m;
            memcpy(&m, l->msg.payload, sizeof(m));
            budget_take(&l->budget, &m);
            break;
        }
        default:
            err = ERR_PROTOCOL;
            break;
        }
        channel_msg_finish(&l->msg);
        if (err < 0) {
            return err_set(e, err, "control message %s", msg_info(l->msg.type)->name);
        }
    }
    return got < 0 ? err_set(e, got, "the control channel") : 0;
}

/* ---- the turn ---- */

static void set(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_relaxed);
}

static int keep_budget(struct loop *l, struct err *e)
{
    struct msg_gave m;
    if (!budget_apply(&l->budget, &l->fleet, l->n_orphans == 0, &m)) {
        return 0;
    }
    set(&l->attach->status->vram_bytes, m.held_bytes);
    int err = channel_send(l->channel, MSG_GAVE, l->attach->epoch, &m, sizeof(m), NULL, 0);
    return err < 0 ? err_set(e, err, "GAVE") : 0;
}

static void take_prepared(struct loop *l)
{
    uint64_t count;
    ssize_t n = read(l->prepare_bell, &count, sizeof(count)); /* EAGAIN: not rung */
    struct request *r;
    if (n != sizeof(count)) {
        return;
    }
    while ((r = prepare_take(l->prepare))) {
        if (r->is_orphan) {
            l->n_orphans--;
            request_destroy(&r);
        } else if (r->is_cancelled && r->type == MSG_GENERATE) {
            events_done(&l->events, r);
        } else if (r->err.code < 0 && !r->is_cancelled) {
            events_fail(&l->events, r, &r->err);
        } else if (r->type == MSG_GENERATE) {
            scheduler_add(fleet_scheduler(&l->fleet, r->model), r);
        } else {
            r->stage = REQUEST_ACTIVE;
        }
    }
}

/* Sends what waits and lets go of what has ended. */
static void flush(struct loop *l)
{
    struct request **link = &l->live;
    while (*link) {
        struct request *r = *link;
        bool is_clear =
            r->stage == REQUEST_PREPARING || r->pending.len == 0 || events_flush(&l->events, r);
        if (r->type == MSG_TEXT && r->stage == REQUEST_ACTIVE && is_clear && !r->is_paused) {
            events_result(&l->events, r);
        }
        if (r->stage == REQUEST_ENDED && r->pending.len == 0) {
            *link = r->next_live;
            l->n_live--;
            request_destroy(&r);
        } else {
            link = &r->next_live;
        }
    }
}

/* After DRAIN: has everything ended? At the deadline it is made to. */
static bool is_drained(struct loop *l)
{
    if (!l->is_draining) {
        return false;
    }
    if (l->n_live > 0 && clock_ns() >= l->drain_deadline_ns) {
        struct err late;
        err_set(&late, ERR_DRAINING, "the time to finish was up");
        for (struct request *r = l->live; r; r = r->next_live) {
            if (r->stage == REQUEST_ACTIVE && r->type == MSG_GENERATE) {
                scheduler_remove(fleet_scheduler(&l->fleet, r->model), r);
            }
            if (r->stage != REQUEST_PREPARING && r->stage != REQUEST_ENDED) {
                events_fail(&l->events, r, &late);
            }
        }
        return true;
    }
    return l->n_live == 0;
}

/* Asks the kernel, and so not at every step. */
static void tell_stores(const struct loop *l)
{
    struct status_page *page = l->attach->status;
    struct stores *stores = l->models->options.stores;
    set(&page->weights_bytes, stores_resident_bytes(stores, STORE_WEIGHTS));
    set(&page->cache_bytes, stores_resident_bytes(stores, STORE_KV));
}

static void tell_caches(const struct loop *l)
{
    struct status_page *page = l->attach->status;
    struct engine_cache sum = {0};
    uint64_t n_preempted = 0, vram_bytes = 0;
    uint32_t n_ways_off = 0;
    for (size_t i = 0; i < l->models->n; i++) {
        if (!l->models->v[i].engine) {
            continue;
        }
        struct engine_cache c = engine_cache(l->models->v[i].engine);
        sum.n_blocks += c.n_blocks;
        sum.n_used += c.n_used;
        sum.n_cached += c.n_cached;
        sum.n_evicted += c.n_evicted;
        sum.n_restored += c.n_restored;
        sum.n_broken += c.n_broken;
        vram_bytes += engine_vram_bytes(l->models->v[i].engine);
        n_ways_off += engine_n_ways_off(l->models->v[i].engine);
        n_preempted += scheduler_stats(l->fleet.schedulers[i]).n_preempted;
    }
    set(&page->kv_blocks, (uint64_t)sum.n_blocks);
    set(&page->kv_used, (uint64_t)sum.n_used);
    set(&page->kv_cached, (uint64_t)sum.n_cached);
    set(&page->kv_evicted, sum.n_evicted);
    set(&page->kv_restored, sum.n_restored);
    set(&page->kv_broken, sum.n_broken);
    set(&page->n_preempted, n_preempted);
    set(&page->vram_bytes, vram_bytes);
    atomic_store_explicit(&page->n_ways_off, n_ways_off, memory_order_relaxed);
}

/* For the crash report. */
static void tell_requests(const struct loop *l)
{
    uint64_t ids[STATUS_REQUESTS];
    size_t n = 0;
    for (const struct request *r = l->live; r && n < STATUS_REQUESTS; r = r->next_live) {
        ids[n++] = r->id;
    }
    status_requests(l->attach->status, ids, n);
}

/* A model's first step, or its first after it was unloaded and went elsewhere: what an earlier
 * worker measured counts, or what can be seen of the device. */
static void begin_pace(struct status_page *page, struct engine *en, struct pace *p)
{
    const struct engine_info *info = engine_info(en);
    uint64_t device = pace_device(info->device);
    struct pace_work work = info->work;
    if (!engine_mark_ops(en, &page->op)) {
        work.longest = 1;
    }
    if (p->device == device) {
        return;
    }
    struct pace_rates first = {0};
    if (atomic_load_explicit(&page->pace_device, memory_order_relaxed) == device) {
        first.bytes = (double)atomic_load_explicit(&page->pace_bytes, memory_order_relaxed);
        first.ops = (double)atomic_load_explicit(&page->pace_ops, memory_order_relaxed);
    }
    if (first.bytes == 0 || first.ops == 0) {
        struct pace_rates glance = engine_glance(en);
        first.bytes = first.bytes > 0 ? first.bytes : glance.bytes;
        first.ops = first.ops > 0 ? first.ops : glance.ops;
    }
    pace_begin(p, device, &work, &first);
}

/* For the next worker. */
static void tell_pace(struct status_page *page, const struct pace *p)
{
    struct pace_rates r = pace_measured(p);
    if (atomic_load_explicit(&page->pace_device, memory_order_relaxed) != p->device) {
        set(&page->pace_bytes, 0);
        set(&page->pace_ops, 0);
        set(&page->pace_device, p->device);
    }
    if (r.bytes > 0) {
        set(&page->pace_bytes, (uint64_t)MIN(r.bytes, 1e18));
    }
    if (r.ops > 0) {
        set(&page->pace_ops, (uint64_t)MIN(r.ops, 1e18));
    }
}

/* The step that the scheduler planned; what it should take is told before, what it took is
 * learnt. */
static void run_step(struct loop *l, size_t i, enum status_phase phase)
{
    struct status_page *page = l->attach->status;
    struct engine *en = l->models->v[i].engine;
    struct scheduler *s = l->fleet.schedulers[i];
    struct pace *pace = &l->paces[i];
    struct pace_step step = {.n_rows = scheduler_n_rows(s), .n_looks = scheduler_n_looks(s)};
    begin_pace(page, en, pace);
    atomic_store_explicit(&page->expect_ms, pace_expect_ms(pace, &step), memory_order_relaxed);
    status_beat(page, l->is_draining ? STATUS_DRAINING : phase);
    uint64_t t0 = clock_ns();
    scheduler_run(s);
    atomic_fetch_add_explicit(&page->step, 1, memory_order_relaxed);
    double ns, best_ns;
    if (pace_learn(pace, &step, (double)(clock_ns() - t0), &ns, &best_ns)) {
        log_warn("model %s is slow against its own baseline: a step takes %.1f ms, it was %.1f ms",
                 l->models->v[i].name, ns / 1e6, best_ns / 1e6);
    }
    tell_pace(page, pace);
}

/* One step of every model that has something to compute. */
static bool compute(struct loop *l)
{
    struct status_page *page = l->attach->status;
    bool computed = false;
    int n_running = 0, n_waiting = 0;
    l->is_settling = false;
    for (size_t i = 0; i < l->models->n; i++) {
        struct scheduler *s = l->fleet.schedulers[i];
        if (!s) {
            continue;
        }
        enum status_phase phase = scheduler_plan(s);
        if (phase != STATUS_IDLE) {
            run_step(l, i, phase);
            computed = true;
        } else if (engine_settle(l->models->v[i].engine)) {
            l->is_settling = true;
        }
        n_running += scheduler_n_running(s);
        n_waiting += scheduler_n_waiting(s);
    }
    for (const struct request *r = l->live; r; r = r->next_live) {
        n_waiting += r->stage == REQUEST_PREPARING; /* a prepare thread that hangs is missed, too */
    }
    if (computed || l->n_live == 0) {
        tell_caches(l);
    }
    if (!computed || atomic_load_explicit(&page->step, memory_order_relaxed) % STORES_STEPS == 0) {
        tell_stores(l);
    }
    atomic_store_explicit(&page->n_active, (uint32_t)n_running, memory_order_relaxed);
    atomic_store_explicit(&page->n_queued, (uint32_t)n_waiting, memory_order_relaxed);
    return computed;
}

int loop_turn(struct loop *l, struct err *e)
{
    uint64_t start_ns = l->events.now_ns = clock_ns();
    int err = take_control(l, e);
    err = err < 0 ? err : loop_intake_records(l, e);
    if (err < 0) {
        return err;
    }
    take_prepared(l);
    fleet_tend(&l->fleet, l->live, l->n_orphans == 0);
    loop_intake_loaded(l);
    err = keep_budget(l, e);
    if (err < 0) {
        return err;
    }
    tell_requests(l);
    bool computed = compute(l);
    flush(l);
    if (l->events.err < 0) {
        return err_set(e, l->events.err, "the event ring");
    }
    if (computed) {
        l->busy_ns += clock_ns() - start_ns;
        set(&l->attach->status->busy_ns, l->busy_ns);
        set(&l->attach->status->compute_ns, l->events.compute_ns);
    }
    if (is_drained(l)) {
        struct msg_empty m = {0};
        err = channel_send(l->channel, MSG_DRAINED, l->attach->epoch, &m, sizeof(m), NULL, 0);
        return err < 0 ? err_set(e, err, "the control channel") : LOOP_DRAINED;
    }
    return computed ? LOOP_COMPUTED : 0;
}

static bool has_pending(const struct loop *l)
{
    for (const struct request *r = l->live; r; r = r->next_live) {
        if (r->stage != REQUEST_PREPARING && r->pending.len > 0) {
            return true;
        }
    }
    return false;
}

/* Nothing is computed: the page says whether a model is being loaded, and how far. */
static void show_rest(struct loop *l)
{
    struct status_page *page = l->attach->status;
    bool is_loading = loader_is_busy(l->fleet.loader) && !l->fleet.is_stalled;
    enum status_phase phase = is_loading ? STATUS_LOADING : STATUS_IDLE;
    if (phase == STATUS_LOADING) {
        uint64_t done, total;
        loader_progress(l->fleet.loader, &done, &total);
        set(&page->load_total_bytes, total);
        set(&page->load_done_bytes, done);
    }
    if (atomic_load_explicit(&page->phase, memory_order_relaxed) != phase) {
        status_beat(page, phase);
    }
}

void loop_sleep(struct loop *l)
{
    struct ring *ring = &l->attach->requests;
    int timeout = l->is_settling                      ? 0
                  : l->n_live == 0 && !l->is_draining ? fleet_timeout_ms(&l->fleet)
                  : has_pending(l)                    ? FULL_RING_POLL_MS
                                                      : LIMIT_BELL_POLL_MS;
    show_rest(l);
    if (l->n_live < LOOP_MAX_LIVE && !ring_sleep(ring)) {
        return;
    }
    struct pollfd fds[] = {
        {.fd = l->attach->request_bell, .events = POLLIN},
        {.fd = l->channel->fd, .events = POLLIN},
        {.fd = l->prepare_bell, .events = POLLIN},
    };
    poll(fds, COUNT_OF(fds), timeout);
    ring_wake(ring);
}

int loop_run(struct loop *l, struct err *e)
{
    for (;;) {
        int got = loop_turn(l, e);
        if (got < 0 || got == LOOP_DRAINED) {
            return got < 0 ? got : 0;
        }
        if (got == 0) {
            loop_sleep(l);
        }
    }
}

/* ---- life ---- */

int loop_create(struct models *models, struct channel *channel, struct attach *attach,
                size_t queue_size, double idle_s, struct loop **ret)
{
    struct loop *l = base_alloc(sizeof(*l));
    l->models = models;
    l->channel = channel;
    l->attach = attach;
    l->queue_size = queue_size;
    events_init(&l->events);
    trace_init(&l->trace);
    l->events.trace = &l->trace;
    l->prepare_bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    fleet_init(&l->fleet, models, &l->events, l->prepare_bell, idle_s);
    int err = l->prepare_bell < 0 ? -errno : prepare_create(l->prepare_bell, &l->prepare);
    err = err < 0 ? err : use_attach(l);
    if (err < 0) {
        loop_destroy(&l);
        return err;
    }
    *ret = l;
    return 0;
}

void loop_destroy(struct loop **lp)
{
    struct loop *l = *lp;
    if (!l) {
        return;
    }
    drop_all(l);
    prepare_destroy(&l->prepare);
    fleet_finish(&l->fleet);
    if (l->prepare_bell >= 0) {
        close(l->prepare_bell);
    }
    events_finish(&l->events);
    free(l);
    *lp = NULL;
}
