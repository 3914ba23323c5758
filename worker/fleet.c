/* Loaded and unloaded models (see fleet.h). Token loop; never blocks. */
#include "worker/fleet.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/log.h"
#include "worker/canary.h"
#include "worker/stores.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PROGRESS_PARTS = 50 }; /* progress of a load is told that often */

void fleet_init(struct fleet *f, struct models *models, struct events *events, int bell,
                double idle_s)
{
    *f = (struct fleet){.models = models,
                        .events = events,
                        .loader = loader_create(models, bell)};
    fleet_set_idle(f, idle_s);
    for (size_t i = 0; i < models->n; i++) {
        if (models->v[i].engine) {
            f->schedulers[i] = scheduler_create(models, i, events);
            models->v[i].used_ns = clock_ns();
        }
    }
}

void fleet_set_idle(struct fleet *f, double idle_s)
{
    f->idle_ns = (uint64_t)(idle_s * 1e9);
}

void fleet_finish(struct fleet *f)
{
    loader_destroy(&f->loader);
    for (size_t i = 0; i < LIMIT_MODELS; i++) {
        scheduler_destroy(&f->schedulers[i]);
    }
}

static size_t index_of(const struct fleet *f, const struct model *m)
{
    return (size_t)(m - f->models->v);
}

struct scheduler *fleet_scheduler(const struct fleet *f, const struct model *m)
{
    return f->schedulers[index_of(f, m)];
}

/* ---- unloading ---- */

/* keeps_cache: its KV cache stays, for when it is loaded again; only what was used of it takes
 * memory. */
static void unload(struct fleet *f, size_t i, bool keeps_cache)
{
    struct model *v = &f->models->v[i];
    log_info("model %s: unloaded", v->name);
    scheduler_destroy(&f->schedulers[i]);
    models_unload(v);
    models_drop_stores(f->models, v, keeps_cache);
    events_model(f->events, f->models, (uint32_t)i);
}

/* The loaded model that was unused longest; -1: all are in use. */
static int least_used(const struct fleet *f)
{
    int best = -1;
    for (size_t i = 0; i < f->models->n; i++) {
        const struct model *v = &f->models->v[i];
        if (v->engine && !f->is_used[i] &&
            (best < 0 || v->used_ns < f->models->v[best].used_ns)) {
            best = (int)i;
        }
    }
    return best;
}

static bool unload_one(struct fleet *f, bool may_unload)
{
    int i = may_unload ? least_used(f) : -1;
    if (i >= 0) {
        unload(f, (size_t)i, false);
    }
    return i >= 0;
}

void fleet_unload(struct fleet *f, const struct model *m)
{
    unload(f, index_of(f, m), false);
}

void fleet_unload_idle(struct fleet *f, const struct model *m)
{
    unload(f, index_of(f, m), true);
}

static void unload_idle(struct fleet *f)
{
    for (size_t i = 0; f->idle_ns && i < f->models->n; i++) {
        const struct model *v = &f->models->v[i];
        if (v->engine && !f->is_used[i] && f->events->now_ns - v->used_ns >= f->idle_ns) {
            unload(f, i, true);
        }
    }
}

int fleet_timeout_ms(const struct fleet *f)
{
    uint64_t now = clock_ns(), least = UINT64_MAX;
    for (size_t i = 0; f->idle_ns && i < f->models->n; i++) {
        const struct model *v = &f->models->v[i];
        if (v->engine) {
            uint64_t due = v->used_ns + f->idle_ns;
            least = MIN(least, due > now ? due - now : 0);
        }
    }
    return least == UINT64_MAX ? -1 : (int)MIN(least / 1000000 + 1, (uint64_t)3600 * 1000);
}

/* ---- what is said to those who ordered ---- */

static void put_state(const struct model *v, const char *word, uint64_t done, uint64_t total,
                      struct buf *b)
{
    buf_clear(b);
    buf_str(b, "{\"model\":");
    json_put_string(b, v->name, strlen(v->name));
    buf_printf(b, ",\"status\":{\"value\":\"%s\"}", word);
    if (total) {
        buf_printf(b, ",\"loaded_bytes\":%llu,\"total_bytes\":%llu", (unsigned long long)done,
                   (unsigned long long)total);
    }
    buf_str(b, "}\n");
}

static void tell(struct fleet *f, struct request *r, const char *word, uint64_t done,
                 uint64_t total)
{
    struct buf *b = &f->events->text;
    put_state(r->model, word, done, total, b);
    if (b->failed) {
        f->events->err = -ENOMEM;
        return;
    }
    events_part(f->events, r, b->data, total == 0);
}

static bool is_order(const struct request *r)
{
    return r->type == MSG_TEXT && r->text.op == MSG_LOAD;
}

void fleet_order(struct fleet *f, struct request *r, struct request *live)
{
    size_t i = index_of(f, r->model);
    bool is_loaded = r->model->engine != NULL;
    if (r->text.op == MSG_LOAD) {
        if (is_loaded) {
            tell(f, r, "loaded", 0, 0);
        } else {
            r->stage = REQUEST_LOADING;
        }
        return;
    }
    bool is_busy = !is_loaded && loader_is_busy(f->loader) && loader_index(f->loader) == i;
    for (const struct request *k = live; k; k = k->next_live) {
        is_busy = is_busy || (k != r && k->model == r->model && k->stage != REQUEST_ENDED);
    }
    if (is_busy) {
        struct err e;
        err_set(&e, ERR_MODEL_IN_USE, "%s", r->model->name);
        events_fail(f->events, r, &e);
        return;
    }
    if (is_loaded) {
        unload(f, i, false);
    } else {
        models_drop_stores(f->models, r->model, false);
    }
    tell(f, r, "unloaded", 0, 0);
}

/* ---- loading ---- */

static void note_use(struct fleet *f, const struct request *live)
{
    memset(f->is_used, 0, sizeof(f->is_used));
    for (const struct request *r = live; r; r = r->next_live) {
        if (r->model && r->stage != REQUEST_ENDED) {
            size_t i = index_of(f, r->model);
            f->is_used[i] = true;
            f->models->v[i].used_ns = f->events->now_ns;
        }
    }
}

static void fail_waiting(struct fleet *f, size_t i, struct request *live, const struct err *e)
{
    log_warn("model %s: not loaded: %s: %s", f->models->v[i].name, err_text(e->code), e->detail);
    for (struct request *r = live; r; r = r->next_live) {
        if (r->stage == REQUEST_LOADING && r->model == &f->models->v[i]) {
            events_fail(f->events, r, e);
        }
    }
}

static void finish_load(struct fleet *f, struct request *live, bool may_unload)
{
    size_t i = loader_index(f->loader);
    struct model *v = &f->models->v[i], fresh;
    struct err e;
    int result;
    if (!loader_take(f->loader, &fresh, &result, &e)) {
        return;
    }
    if (result == 0) {
        canary_check(fresh.engine); /* here: one thread at a time speaks to the device */
        fresh.used_ns = f->events->now_ns;
        *v = fresh;
        f->schedulers[i] = scheduler_create(f->models, i, f->events);
        events_model(f->events, f->models, (uint32_t)i);
    } else if (result != ERR_NO_MEMORY && result != ERR_NO_VRAM) {
        fail_waiting(f, i, live, &e);
    } else {
        /* What this load kept is no room: dropped, it would be made again, and that for ever. */
        models_drop_stores(f->models, v, false);
        bool has_room = result == ERR_NO_MEMORY && stores_drop_idle(f->models->options.stores);
        if (!has_room && !unload_one(f, may_unload)) { /* else it is tried again */
            struct err why;
            err_set(&why, ERR_MODEL_ROOM, "%s", e.detail);
            fail_waiting(f, i, live, &why);
        }
    }
}

/* The model that was asked for first (live is in order of arrival, newest first); -1: none. */
static int wanted(const struct fleet *f, const struct request *live)
{
    int i = -1;
    for (const struct request *r = live; r; r = r->next_live) {
        if (r->stage == REQUEST_LOADING && !r->model->engine) {
            i = (int)index_of(f, r->model);
        }
    }
    return i;
}

static void start_load(struct fleet *f, struct request *live, bool may_unload)
{
    int i = wanted(f, live);
    struct err e;
    if (i < 0) {
        return;
    }
    if (models_n_loaded(f->models) >= f->models->max_loaded && !unload_one(f, may_unload)) {
        if (may_unload) {
            err_set(&e, ERR_MODEL_ROOM, "%zu may be loaded at once, and all of them are in use",
                    f->models->max_loaded);
            fail_waiting(f, (size_t)i, live, &e);
        }
        return;
    }
    f->told_bytes = f->seen_bytes = 0;
    f->seen_ns = f->tick_ns = f->events->now_ns;
    int err = loader_start(f->loader, (size_t)i);
    if (err < 0) {
        err_set(&e, err, "starting a thread");
        fail_waiting(f, (size_t)i, live, &e);
    }
}

/* Every request that waits for any load. */
static void fail_stalled(struct fleet *f, struct request *live)
{
    const struct model *v = &f->models->v[loader_index(f->loader)];
    for (struct request *r = live; r; r = r->next_live) {
        if (r->stage == REQUEST_LOADING && !r->model->engine) {
            struct err e;
            err_set(&e, ERR_MODEL_STALLED, "%s: %llu MB were read, and then nothing for %d s",
                    v->name, (unsigned long long)f->seen_bytes / 1000000, FLEET_STALL_MS / 1000);
            events_fail(f->events, r, &e);
        }
    }
}

static void watch_progress(struct fleet *f, struct request *live)
{
    uint64_t done, total;
    uint64_t gap_ns = f->events->now_ns - f->tick_ns;
    f->tick_ns = f->events->now_ns;
    if (gap_ns > (uint64_t)FLEET_GAP_MS * 1000000) {
        f->seen_ns += gap_ns; /* we did not run, so perhaps the loader did not either */
    }
    loader_progress(f->loader, &done, &total);
    if (done != f->seen_bytes) {
        f->seen_bytes = done;
        f->seen_ns = f->events->now_ns;
    }
    bool is_stalled = f->events->now_ns - f->seen_ns >= (uint64_t)FLEET_STALL_MS * 1000000;
    if (is_stalled != f->is_stalled) {
        const char *name = f->models->v[loader_index(f->loader)].name;
        if (is_stalled) {
            log_warn("model %s: not loaded for now: %s", name, err_text(ERR_MODEL_STALLED));
        } else {
            log_info("model %s: its file is read again", name);
        }
        f->is_stalled = is_stalled;
    }
    if (is_stalled) {
        fail_stalled(f, live);
    }
}

static void tell_progress(struct fleet *f, struct request *live)
{
    uint64_t done, total;
    loader_progress(f->loader, &done, &total);
    if (total == 0 || done - f->told_bytes < total / PROGRESS_PARTS) {
        return;
    }
    f->told_bytes = done;
    for (struct request *r = live; r; r = r->next_live) {
        if (r->stage == REQUEST_LOADING && is_order(r) && r->pending.len == 0 &&
            index_of(f, r->model) == loader_index(f->loader)) {
            tell(f, r, "loading", done, total);
        }
    }
}

void fleet_tend(struct fleet *f, struct request *live, bool may_unload)
{
    note_use(f, live);
    finish_load(f, live, may_unload);
    if (loader_is_busy(f->loader)) {
        watch_progress(f, live);
        tell_progress(f, live);
    } else {
        f->is_stalled = false;
        start_load(f, live, may_unload);
    }
    for (struct request *r = live; r; r = r->next_live) {
        if (r->stage == REQUEST_LOADING && is_order(r) && r->model->engine) {
            tell(f, r, "loaded", 0, 0);
        }
    }
    if (may_unload) {
        unload_idle(f);
    }
    for (uint32_t i = 0; i < f->models->n; i++) {
        if (f->models->is_card_due[i]) {
            events_model(f->events, f->models, i);
        }
    }
}
