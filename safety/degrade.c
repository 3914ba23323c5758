/* The degrade ladder at work (see degrade.h); runs in the supervisor's loop. Never blocks but at
 * start; allocates when a worker with other settings than the user's is started. */
#include "safety/degrade.h"
#include "ipc/memfd.h"
#include "safety/giveback.h"
#include "safety/launch.h"
#include "safety/remember.h"
#include "shared/clock.h"
#include "shared/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum fallback { FALLBACK_NEVER, FALLBACK_LOAD, FALLBACK_ALWAYS }; /* order of config.def */

static enum fallback fallback_of(const struct supervisor *s)
{
    return (enum fallback)s->cfg->v[CONFIG_cpu_fallback].i;
}

static uint32_t lowest(const struct supervisor *s)
{
    return fallback_of(s) == FALLBACK_ALWAYS ? LADDER_cpu : LADDER_unfused;
}

void degrade_start(struct supervisor *s, uint64_t now_ms)
{
    struct degrade *g = &s->degrade;
    remember_key(s->cfg, g->key);
    remember_read(s->options->state_dir, g->key, &g->ladder, now_ms);
    g->ladder.rung = MIN(g->ladder.rung, lowest(s));
    s->tally.rung = g->ladder.rung;
    if (g->ladder.rung != LADDER_FULL) {
        log_warn("the GPU failed before with these models: it begins on rung '%s' (%s)",
                 ladder_name(g->ladder.rung), ladder_meaning(g->ladder.rung));
    }
}

static void changed(struct supervisor *s)
{
    struct degrade *g = &s->degrade;
    g->is_dirty = true;
    s->tally.rung = g->ladder.rung;
}

void degrade_reload(struct supervisor *s, uint64_t now_ms)
{
    if (s->degrade.ladder.rung != LADDER_FULL) {
        ladder_forgive(&s->degrade.ladder, now_ms);
        changed(s);
    }
}

/* The GPU is out of reach: it hangs in the kernel, or its nodes are gone. */
static bool is_lost(const struct supervisor *s, const struct policy_death *d)
{
    bool is_stuck = d->signal == 0 && d->exit_code < 0 && s->worker.holds_gpu;
    bool is_refused = d->signal == 0 && d->exit_code >= EXIT_GPU_ACCESS &&
                      d->exit_code <= EXIT_GPU_KERNEL && s->degrade.had_gpu;
    return is_stuck || is_refused;
}

void degrade_died(struct supervisor *s, const struct policy_death *d, enum policy_blame blame,
                  uint64_t now_ms)
{
    struct ladder *l = &s->degrade.ladder;
    bool is_down = is_lost(s, d) ? ladder_lose(l, lowest(s), now_ms)
                   : blame == POLICY_OWN && s->worker.holds_gpu
                       ? ladder_died(l, s->worker.was_ready, lowest(s), now_ms)
                       : false;
    if (is_down) {
        log_warn("the next worker runs on rung '%s': %s", ladder_name(l->rung),
                 ladder_meaning(l->rung));
        policy_forgive(&s->worker_policy);
        changed(s);
    }
}

bool degrade_is_idle(const struct supervisor *s)
{
    const struct status_page *p = s->epoch.page;
    return p && s->worker.state == CHILD_READY &&
           atomic_load_explicit(&p->phase, memory_order_relaxed) == STATUS_IDLE &&
           atomic_load_explicit(&p->n_requests, memory_order_relaxed) == 0 &&
           !epoch_bell_rings(&s->epoch);
}

static void save(struct supervisor *s, uint64_t now_ms)
{
    char line[REMEMBER_LINE_BYTES];
    struct degrade *g = &s->degrade;
    if (!*s->options->state_dir) {
        g->is_dirty = false;
    } else if (s->clerk.state == CHILD_NONE && s->phase != SUPERVISOR_ENDING) {
        remember_line(g->key, &g->ladder, clock_unix_s(), line);
        g->is_dirty = launch_helper(s, &s->clerk, "--remember", s->options->state_dir,
                                    line, now_ms) != 0;
    }
}

void degrade_tick(struct supervisor *s, uint64_t now_ms)
{
    struct degrade *g = &s->degrade;
    struct child *w = &s->worker;
    g->had_gpu = g->had_gpu || (w->state == CHILD_READY && w->holds_gpu);
    if (s->phase == SUPERVISOR_SERVING && ladder_tick(&g->ladder, now_ms)) {
        log_info("it has been quiet: rung '%s' is tried again", ladder_name(g->ladder.rung));
        changed(s);
    }
    if (s->phase == SUPERVISOR_SERVING && g->worker_rung > degrade_rung(s) && degrade_is_idle(s)) {
        log_info("the idle worker makes room for one on rung '%s'", ladder_name(degrade_rung(s)));
        child_end(w, CHILD_GRACE_MS, now_ms);
    }
    if (g->is_dirty) {
        save(s, now_ms);
    }
}

uint32_t degrade_rung(const struct supervisor *s)
{
    return s->card.is_wedged && lowest(s) == LADDER_cpu ? LADDER_cpu : s->degrade.ladder.rung;
}

bool degrade_is_cpu(const struct supervisor *s)
{
    return degrade_rung(s) == LADDER_cpu;
}

bool degrade_is_bound(const struct supervisor *s)
{
    enum fallback f = fallback_of(s);
    bool is_auto = strcmp(s->cfg->v[CONFIG_device].str, "auto") == 0;
    /* One that begins anew because the card is full is at its load. */
    bool may_load =
        is_auto && (!s->degrade.had_gpu || s->giveback.left_ms || giveback_is_squeezed(s));
    return f == FALLBACK_NEVER || (f == FALLBACK_LOAD && !may_load);
}

/* Those of the rung; and that a worker may not leave the GPU by itself where that is not wanted. */
static int override(const struct supervisor *s, struct config *c, struct err *e)
{
    int rc = 0;
    if (degrade_is_bound(s) && strcmp(c->v[CONFIG_device].str, "auto") == 0) {
        rc = config_set(c, "device", "gpu", CONFIG_FROM_FLAG, e);
    } else if (giveback_is_squeezed(s) && strcmp(c->v[CONFIG_device].str, "gpu") == 0) {
        rc = config_set(c, "device", "auto", CONFIG_FROM_FLAG, e); /* what does not fit: the CPU */
    }
    return rc == 0 ? ladder_apply(degrade_rung(s), c, e) : rc;
}

int degrade_config(const struct supervisor *s, int *ret_fd)
{
    struct err e;
    struct buf b;
    struct config c;
    buf_init(&b, 0);
    config_encode(s->cfg, &b);
    size_t n = b.len;
    config_init(&c);
    int rc = b.failed ? -ENOMEM : config_decode(&c, b.data, n, &e);
    rc = rc == 0 ? override(s, &c, &e) : rc;
    struct buf changed_text;
    buf_init(&changed_text, 0);
    if (rc == 0) {
        config_encode(&c, &changed_text);
        bool is_same = changed_text.len == n && memcmp(changed_text.data, b.data, n) == 0;
        int fd = changed_text.failed ? -ENOMEM
                 : is_same
                     ? 0
                     : memfd_create_const("rocmforge-config", changed_text.data, changed_text.len);
        rc = is_same || fd < 0 ? MIN(fd, 0) : 1;
        if (rc == 1) {
            *ret_fd = fd;
        }
    }
    buf_finish(&changed_text);
    buf_finish(&b);
    config_finish(&c);
    return rc;
}
