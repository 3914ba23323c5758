/* The token loop (see loop.h). Main thread. Blocks in poll when idle and in engine_step; nowhere
 * else. */
#include "worker/loop.h"
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "worker/fleet.h"
#include "worker/prepare.h"
#include "worker/report.h"
#include "worker/scheduler.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    MAX_LIVE = 2 * LIMIT_QUEUE, /* requests known at all; with that many no record is taken */
    FULL_RING_POLL_MS = 5,      /* the gateway has no bell to say that it made room */
};

struct bulk { /* a payload that came before its note */
    uint64_t request;
    int fd; /* owned */
};

struct loop {
    struct models *models;       /* borrowed */
    struct channel *channel;     /* borrowed */
    struct attach *attach;       /* borrowed */
    size_t queue_size;
    struct events events;
    struct trace trace;
    struct prepare *prepare;                    /* owned */
    int prepare_bell;                           /* owned */
    struct fleet fleet;
    struct request *live;                       /* owned, but for what is lent; newest first */
    size_t n_live, n_orphans;
    uint64_t n_arrived;
    struct bulk bulks[LIMIT_QUEUE];
    size_t n_bulks;
    bool is_draining;
    uint64_t drain_deadline_ns;
    struct channel_msg msg; /* scratch */
    _Alignas(16) uint8_t record[LIMIT_RECORD_BYTES];
};

/* ---- the requests ---- */

static struct request *find(const struct loop *l, uint64_t id)
{
    struct request *r = l->live;
    while (r && r->id != id) {
        r = r->next_live;
    }
    return r;
}

static struct request *add(struct loop *l, uint64_t id, uint32_t type)
{
    struct request *r = request_create(id, type, ++l->n_arrived, l->events.now_ns);
    r->next_live = l->live;
    l->live = r;
    l->n_live++;
    return r;
}

static void fail(struct loop *l, struct request *r, int code, const char *detail)
{
    struct err e;
    err_set(&e, code, "%s", detail);
    events_fail(&l->events, r, &e);
}

/* Requests that nothing was computed for yet. */
static size_t n_queued(const struct loop *l)
{
    size_t n = 0;
    for (const struct request *r = l->live; r; r = r->next_live) {
        n += r->stage != REQUEST_ENDED && !r->started_ns;
    }
    return n;
}

/* May it come in? Otherwise it has failed. It counts itself. */
static bool may_enter(struct loop *l, struct request *r)
{
    char detail[64];
    if (l->is_draining) {
        fail(l, r, ERR_DRAINING, "");
        return false;
    }
    uint32_t flags = r->type == MSG_GENERATE ? r->generate.flags : r->text.flags;
    if (!(flags & MSG_AGAIN) && n_queued(l) > l->queue_size) {
        snprintf(detail, sizeof(detail), "%zu requests wait", l->queue_size);
        fail(l, r, ERR_BUSY, detail);
        return false;
    }
    return true;
}

/* What is known here and now. */
static void report(struct loop *l, struct request *r)
{
    const struct models *m = l->models;
    struct buf *b = &r->result;
    int64_t n = 0;
    switch (r->text.op) {
    case MSG_SLOTS:
        buf_char(b, '[');
        for (size_t i = 0; i < m->n; i++) {
            if (m->v[i].engine) {
                report_slots(&m->v[i], l->fleet.schedulers[i], m->n_seqs, n, b);
                n += m->n_seqs;
            }
        }
        buf_char(b, ']');
        break;
    case MSG_PROPS:
        report_props(r->model, m->n_seqs, b);
        break;
    default:
        trace_print(&l->trace, b);
        break;
    }
    if (b->failed) {
        fail(l, r, ERR_NO_MEMORY, "");
    } else {
        r->stage = REQUEST_ACTIVE;
    }
}

/* Its model is loaded: it is prepared. Else it waits. */
static void prepare_loaded(struct loop *l, struct request *r)
{
    if (r->model->engine) {
        r->stage = REQUEST_PREPARING;
        prepare_submit(l->prepare, r);
    }
}

/* Those that waited for their models go on; in order of arrival, oldest first. */
static void tend_fleet(struct loop *l)
{
    fleet_tend(&l->fleet, l->live, l->n_orphans == 0);
    for (;;) {
        struct request *oldest = NULL;
        for (struct request *r = l->live; r; r = r->next_live) {
            if (r->stage == REQUEST_LOADING && r->model->engine) {
                oldest = r;
            }
        }
        if (!oldest) {
            return;
        }
        prepare_loaded(l, oldest);
    }
}

/* The payload is here: owned by the request from now on. */
static int accept_payload(struct loop *l, struct request *r, void *payload, size_t len,
                          bool is_bulk)
{
    int err = request_read(r, payload, len, is_bulk, l->models);
    if (err < 0) {
        return err;
    }
    if (r->is_cancelled) {
        if (r->type == MSG_GENERATE) {
            events_done(&l->events, r);
        } else {
            r->stage = REQUEST_ACTIVE;
            events_result(&l->events, r);
        }
    } else if (r->type == MSG_TEXT && r->text.op >= MSG_LOAD) {
        if (may_enter(l, r)) {
            fleet_order(&l->fleet, r, l->live);
        }
    } else if (r->type == MSG_TEXT && r->text.op > MSG_APPLY_TEMPLATE) {
        report(l, r);
    } else if (may_enter(l, r)) {
        r->stage = REQUEST_LOADING;
        prepare_loaded(l, r);
    }
    return 0;
}

static int accept_record(struct loop *l, uint32_t type, size_t len)
{
    uint64_t id;
    memcpy(&id, l->record, sizeof(id)); /* the first field of every request */
    if (find(l, id)) {
        return ERR_PROTOCOL;
    }
    struct request *r = add(l, id, type);
    void *payload = malloc(len);
    if (!payload) {
        fail(l, r, ERR_NO_MEMORY, "");
        return 0;
    }
    memcpy(payload, l->record, len);
    return accept_payload(l, r, payload, len, false);
}

/* ---- payloads in memfds: note and descriptor come in any order ---- */

static int accept_bulk(struct loop *l, struct request *r, int fd)
{
    void *map;
    size_t len;
    int err = memfd_map(fd, 1, LIMIT_BULK_BYTES, true, false, &map, &len);
    if (err < 0) {
        return err;
    }
    uint64_t id;
    err = msg_check(r->type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, map, len, 0);
    if (err == 0) {
        memcpy(&id, map, sizeof(id));
        err = id == r->id ? 0 : ERR_PROTOCOL;
    }
    if (err < 0) {
        memfd_unmap(map, len);
        return err;
    }
    return accept_payload(l, r, map, len, true);
}

static int take_note(struct loop *l)
{
    struct msg_bulk_note m;
    memcpy(&m, l->record, sizeof(m));
    if (find(l, m.request)) {
        return ERR_PROTOCOL;
    }
    struct request *r = add(l, m.request, m.type);
    for (size_t i = 0; i < l->n_bulks; i++) {
        if (l->bulks[i].request == m.request) {
            int fd = l->bulks[i].fd;
            l->bulks[i] = l->bulks[--l->n_bulks];
            int err = accept_bulk(l, r, fd);
            close(fd);
            return err;
        }
    }
    return 0;
}

static int take_bulk(struct loop *l)
{
    struct msg_bulk m;
    memcpy(&m, l->msg.payload, sizeof(m));
    struct request *r = find(l, m.request);
    if (r) {
        return r->stage == REQUEST_AWAITING ? accept_bulk(l, r, l->msg.fds[0]) : ERR_PROTOCOL;
    }
    if (l->n_bulks == COUNT_OF(l->bulks)) {
        return ERR_PROTOCOL;
    }
    l->bulks[l->n_bulks++] = (struct bulk){m.request, l->msg.fds[0]};
    l->msg.fds[0] = -1;
    return 0;
}

/* ---- ring records ---- */

static void set_paused(struct loop *l, struct request *r, bool is_paused)
{
    r->is_paused = is_paused;
    if (is_paused && !r->stalled_ns) {
        r->stalled_ns = l->events.now_ns;
    } else if (!is_paused && r->pending.len == 0) {
        r->stalled_ns = 0;
    }
}

static void cancel(struct loop *l, struct request *r)
{
    r->is_cancelled = true;
    set_paused(l, r, false);
    if (r->stage == REQUEST_ACTIVE && r->type == MSG_GENERATE) {
        scheduler_cancel(fleet_scheduler(&l->fleet, r->model), r);
    } else if (r->stage == REQUEST_LOADING && r->type == MSG_GENERATE) {
        events_done(&l->events, r);
    } else if (r->stage == REQUEST_LOADING) {
        r->stage = REQUEST_ACTIVE; /* an empty result ends it */
    }
}

static int take_record(struct loop *l, const struct ring_record *rec)
{
    int err = msg_check(rec->type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, l->record,
                        rec->len, 0);
    if (err < 0) {
        return err;
    }
    struct msg_request m;
    memcpy(&m, l->record, sizeof(m));
    struct request *r;
    switch (rec->type) {
    case MSG_GENERATE:
    case MSG_TEXT:
        return accept_record(l, rec->type, rec->len);
    case MSG_BULK_NOTE:
        return take_note(l);
    default: /* CANCEL, PAUSE, RESUME: of what has ended they mean nothing */
        r = find(l, m.request);
        if (!r || r->stage == REQUEST_ENDED) {
            return 0;
        }
        if (rec->type == MSG_CANCEL) {
            cancel(l, r);
        } else {
            set_paused(l, r, rec->type == MSG_PAUSE);
        }
        return 0;
    }
}

static int take_records(struct loop *l, struct err *e)
{
    struct ring_record rec = {0};
    int got = 0;
    while (l->n_live < MAX_LIVE && (got = ring_take(&l->attach->requests, l->record, &rec)) == 1) {
        int err = take_record(l, &rec);
        if (err < 0) {
            const char *name = msg_info(rec.type)->name;
            return err_set(e, err, "ring record %s of %u bytes", name ? name : "of unknown type",
                           rec.len);
        }
    }
    return got < 0 ? err_set(e, got, "the request ring is broken") : 0;
}

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
            err = take_bulk(l);
            break;
        case MSG_DRAIN:
            begin_drain(l);
            break;
        case MSG_ATTACH:
            err = attach_again(l);
            break;
        case MSG_CONFIG: /* nothing that a reload may change is read here */
            break;
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
        for (struct request *r = l->live; r; r = r->next_live) {
            if (r->stage == REQUEST_ACTIVE && r->type == MSG_GENERATE) {
                scheduler_remove(fleet_scheduler(&l->fleet, r->model), r);
            }
            if (r->stage != REQUEST_PREPARING && r->stage != REQUEST_ENDED) {
                fail(l, r, ERR_DRAINING, "the time to finish was up");
            }
        }
        return true;
    }
    return l->n_live == 0;
}

static void set(_Atomic uint64_t *at, uint64_t value)
{
    atomic_store_explicit(at, value, memory_order_relaxed);
}

static void tell_caches(const struct loop *l)
{
    struct status_page *page = l->attach->status;
    struct engine_cache sum = {0};
    uint64_t n_preempted = 0;
    for (size_t i = 0; i < l->models->n; i++) {
        if (!l->models->v[i].engine) {
            continue;
        }
        struct engine_cache c = engine_cache(l->models->v[i].engine);
        sum.n_blocks += c.n_blocks;
        sum.n_used += c.n_used;
        sum.n_cached += c.n_cached;
        sum.n_evicted += c.n_evicted;
        n_preempted += scheduler_stats(l->fleet.schedulers[i]).n_preempted;
    }
    set(&page->kv_blocks, (uint64_t)sum.n_blocks);
    set(&page->kv_used, (uint64_t)sum.n_used);
    set(&page->kv_cached, (uint64_t)sum.n_cached);
    set(&page->kv_evicted, sum.n_evicted);
    set(&page->n_preempted, n_preempted);
}

/* One step of every model that has something to compute. */
static bool compute(struct loop *l)
{
    struct status_page *page = l->attach->status;
    bool computed = false;
    int n_running = 0, n_waiting = 0;
    for (size_t i = 0; i < l->models->n; i++) {
        struct scheduler *s = l->fleet.schedulers[i];
        if (!s) {
            continue;
        }
        enum status_phase phase = scheduler_plan(s);
        if (phase != STATUS_IDLE) {
            status_beat(page, l->is_draining ? STATUS_DRAINING : phase);
            scheduler_run(s);
            atomic_fetch_add_explicit(&page->step, 1, memory_order_relaxed);
            computed = true;
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
    atomic_store_explicit(&page->n_active, (uint32_t)n_running, memory_order_relaxed);
    atomic_store_explicit(&page->n_queued, (uint32_t)n_waiting, memory_order_relaxed);
    return computed;
}

int loop_turn(struct loop *l, struct err *e)
{
    l->events.now_ns = clock_ns();
    int err = take_control(l, e);
    err = err < 0 ? err : take_records(l, e);
    if (err < 0) {
        return err;
    }
    take_prepared(l);
    tend_fleet(l);
    bool computed = compute(l);
    flush(l);
    if (l->events.err < 0) {
        return err_set(e, l->events.err, "the event ring");
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
    enum status_phase phase = loader_is_busy(l->fleet.loader) ? STATUS_LOADING : STATUS_IDLE;
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
    int timeout = l->n_live == 0 && !l->is_draining ? fleet_timeout_ms(&l->fleet)
                  : has_pending(l)                  ? FULL_RING_POLL_MS
                                                    : LIMIT_BELL_POLL_MS;
    show_rest(l);
    if (l->n_live < MAX_LIVE && !ring_sleep(ring)) {
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
