/* Requests on their way in: from ring records, from notes and memfds in any order, until they wait
 * for a model or a prepare thread has them. Token loop; never blocks. */
#include "ipc/memfd.h"
#include "shared/log.h"
#include "worker/loop_state.h"
#include "worker/report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    char devices[1024];
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
        report_devices(m, devices, sizeof devices);
        trace_print(&l->trace, devices, b);
        break;
    }
    if (b->failed) {
        fail(l, r, ERR_NO_MEMORY, "");
    } else {
        r->stage = REQUEST_ACTIVE;
    }
}

/* The answers that run of the old file go on; others are told, or wait for the new file when there
 * are none. */
static void wait_for_new_file(struct loop *l, struct request *r, const struct err *e)
{
    bool is_used = l->n_orphans > 0;
    for (const struct request *k = l->live; k; k = k->next_live) {
        is_used = is_used || (k->model == r->model && k->stage != REQUEST_ENDED &&
                              k->stage != REQUEST_LOADING);
    }
    if (is_used) {
        events_fail(&l->events, r, e);
    } else {
        log_warn("%s: %s", err_text(e->code), e->detail);
        fleet_unload(&l->fleet, r->model);
    }
}

/* Its model is loaded: it is prepared. Else it waits. */
static void prepare_loaded(struct loop *l, struct request *r)
{
    struct err e;
    if (!r->model->engine) {
        return;
    }
    const struct gguf *file = engine_gguf(r->model->engine);
    if (file && gguf_check_unchanged(file, &e) < 0) {
        wait_for_new_file(l, r, &e);
        return;
    }
    r->stage = REQUEST_PREPARING;
    prepare_submit(l->prepare, r);
}

void loop_intake_loaded(struct loop *l)
{
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

int loop_intake_bulk(struct loop *l)
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
    l->bulks[l->n_bulks++] = (struct loop_bulk){m.request, l->msg.fds[0]};
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

int loop_intake_records(struct loop *l, struct err *e)
{
    struct ring_record rec = {0};
    int got = 0;
    while (l->n_live < LOOP_MAX_LIVE &&
           (got = ring_take(&l->attach->requests, l->record, &rec)) == 1) {
        int err = take_record(l, &rec);
        if (err < 0) {
            const char *name = msg_info(rec.type)->name;
            return err_set(e, err, "ring record %s of %u bytes", name ? name : "of unknown type",
                           rec.len);
        }
    }
    return got < 0 ? err_set(e, got, "the request ring is broken") : 0;
}
