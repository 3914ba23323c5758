/* The give-back ladder at work (see giveback.h); runs in the supervisor's loop. Never blocks. */
#include "safety/giveback.h"
#include "safety/degrade.h"
#include "safety/dialog.h"
#include "safety/monitor.h"
#include "safety/vram.h"
#include "shared/log.h"

#include <string.h>

enum {
    LEFT_PARTS = 16, /* less than such a part of what it holds is not worth another worker */
    STALE_LOOKS = 2, /* one may have been under way, and the driver may take a moment */
};

uint64_t giveback_held(const struct supervisor *s)
{
    const struct status_page *p = s->epoch.page;
    return p ? atomic_load_explicit(&p->vram_bytes, memory_order_relaxed) : 0;
}

bool giveback_is_squeezed(const struct supervisor *s)
{
    return s->giveback.full_bytes > 0;
}

static uint64_t mib(uint64_t bytes)
{
    return bytes >> 20;
}

void giveback_saw(struct supervisor *s, uint64_t now_ms)
{
    struct giveback *g = &s->giveback;
    const struct msg_vram *v = &s->watch.last;
    struct child *w = &s->worker;
    if (w->state != CHILD_READY || !w->holds_gpu || g->heard != g->round ||
        s->phase != SUPERVISOR_SERVING) {
        return;
    }
    if (g->n_stale > 0) {
        g->n_stale--;
        return;
    }
    /* What the driver has moved out of the card is still held, and would come back. */
    uint64_t ours = MAX(v->ours_bytes + v->spilled_bytes, giveback_held(s));
    bool is_above = ours > v->ceiling_bytes, may_grow = v->given_bytes > 0 && !is_above;
    if (!is_above) {
        g->left_ms = 0;
    }
    /* What it will load later is bound, too, by what it was told last; each worker is told at
     * first. */
    bool is_news = !g->is_bound || g->bound_bytes != v->ceiling_bytes;
    if (is_above || may_grow || is_news) {
        g->is_bound = true;
        g->bound_bytes = v->ceiling_bytes;
        struct msg_budget m = {.round = ++g->round,
                               .ceiling_bytes = v->ceiling_bytes,
                               .overhead_bytes = ours - giveback_held(s)};
        dialog_say(s, w, MSG_BUDGET, &m, sizeof(m), NULL, 0, now_ms);
    }
}

void giveback_heard(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct giveback *g = &s->giveback;
    struct msg_vram *v = &s->watch.last;
    struct msg_gave gave;
    memcpy(&gave, m->payload, sizeof(gave));
    if (gave.round != g->round) {
        return; /* of another epoch's */
    }
    g->heard = g->round;
    g->n_stale = gave.held_bytes != v->held_bytes ? STALE_LOOKS : 0;
    if (gave.freed_bytes > 0) {
        log_info("VRAM: the worker gave back %llu MiB (%u idle models unloaded, KV caches smaller "
                 "by %llu MiB) and holds %llu MiB",
                 (unsigned long long)mib(gave.freed_bytes), (unsigned)gave.n_unloaded,
                 (unsigned long long)mib(gave.given_bytes),
                 (unsigned long long)mib(gave.held_bytes));
    } else if (gave.given_bytes < v->given_bytes) {
        log_info("VRAM: the KV caches have grown again by %llu MiB",
                 (unsigned long long)mib(v->given_bytes - gave.given_bytes));
    }
    v->held_bytes = gave.held_bytes;
    v->given_bytes = gave.given_bytes;
    v->left_bytes = gave.left_bytes;
    bool is_much = gave.left_bytes > gave.held_bytes / LEFT_PARTS;
    g->left_ms = !is_much || gave.held_bytes == 0 ? 0 : g->left_ms ? g->left_ms : now_ms;
    monitor_tell(s, now_ms);
}

static uint64_t patience_ms(const struct supervisor *s)
{
    uint64_t calm_ms = s->options->calm_ms;
    return calm_ms ? MIN(calm_ms, (uint64_t)GIVEBACK_PATIENCE_MS) : GIVEBACK_PATIENCE_MS;
}

/* Nothing more can be had of this worker: its successor measures what is there, and places its
 * models so. */
static void squeeze(struct supervisor *s, uint64_t now_ms)
{
    struct giveback *g = &s->giveback;
    const struct msg_vram *v = &s->watch.last;
    if (degrade_is_bound(s)) {
        if (!g->is_told) {
            log_warn("VRAM: %llu MiB too much are held, and --cpu-fallback never leaves them there",
                     (unsigned long long)mib(v->left_bytes));
        }
        g->is_told = true;
        return;
    }
    log_warn("VRAM: %llu MiB too much are held by models in use: another worker takes less of the "
             "card",
             (unsigned long long)mib(v->left_bytes));
    g->full_bytes = MAX(g->full_bytes, v->held_bytes + v->given_bytes);
    g->squeezed_ms = now_ms;
    child_end(&s->worker, CHILD_GRACE_MS, now_ms);
}

/* The ceiling at which a worker may have all that one had wanted that was ended; or, where the card
 * cannot give that any more (a display was connected, say), all that it can. */
static uint64_t enough_bytes(const struct supervisor *s)
{
    const struct msg_vram *v = &s->watch.last;
    struct vram_sample empty = {.total_bytes = v->total_bytes, .n_displays = v->n_displays};
    return MIN(s->giveback.full_bytes, vram_ceiling(&empty, v->reserve_bytes));
}

void giveback_tick(struct supervisor *s, uint64_t now_ms)
{
    struct giveback *g = &s->giveback;
    if (s->worker.state != CHILD_READY || s->phase != SUPERVISOR_SERVING) {
        return;
    }
    if (g->left_ms && now_ms - g->left_ms >= patience_ms(s) &&
        (g->full_bytes == 0 || now_ms - g->squeezed_ms >= GIVEBACK_AGAIN_MS)) {
        squeeze(s, now_ms);
    } else if (g->full_bytes > 0 && s->watch.vram.ceiling_bytes >= enough_bytes(s) &&
               degrade_is_idle(s)) {
        log_info("VRAM: there is room again: the idle worker makes way for one with all of it");
        g->full_bytes = 0;
        child_end(&s->worker, CHILD_GRACE_MS, now_ms);
    }
}

void giveback_died(struct supervisor *s)
{
    struct msg_vram *v = &s->watch.last;
    v->held_bytes = v->given_bytes = v->left_bytes = 0;
    s->giveback.heard = s->giveback.round;
    s->giveback.left_ms = s->giveback.n_stale = 0;
    s->giveback.is_told = s->giveback.is_bound = false;
}
