/* Starting, hearing and ending the monitor (see monitor.h); runs in the supervisor's loop. Never
 * blocks. */
#include "safety/monitor.h"
#include "safety/card.h"
#include "safety/dialog.h"
#include "safety/giveback.h"
#include "safety/launch.h"
#include "shared/log.h"

#include <stdio.h>
#include <string.h>

void monitor_tell(struct supervisor *s, uint64_t now_ms)
{
    const struct msg_vram *m = &s->watch.last;
    if (m->total_bytes > 0 && child_is_alive(&s->front) && s->front.state >= CHILD_GREETED) {
        dialog_say(s, &s->front, MSG_VRAM, m, sizeof(*m), NULL, 0, now_ms);
    }
}

static void log_changes(struct monitor *w, const struct vram_sample *sample, uint64_t before)
{
    const struct msg_vram *v = &w->last;
    if (v->ours_bytes > v->ceiling_bytes && before != v->ceiling_bytes) {
        log_warn("VRAM: others use %llu MiB, so %llu MiB may be ours, and %llu MiB are",
                 (unsigned long long)vram_others(sample) >> 20,
                 (unsigned long long)v->ceiling_bytes >> 20,
                 (unsigned long long)v->ours_bytes >> 20);
    }
    if (v->spilled_bytes > 0 && !w->is_spilled) {
        log_warn("VRAM: the driver moved %llu MiB of ours to host memory; it is slow until the "
                 "desktop needs less",
                 (unsigned long long)v->spilled_bytes >> 20);
    }
    w->is_spilled = v->spilled_bytes > 0;
}

void monitor_saw(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct monitor *w = &s->watch;
    struct msg_vram *v = &w->last;
    uint64_t before = w->vram.ceiling_bytes, calm_ms = s->options->calm_ms;
    struct msg_vram said = *v;
    memcpy(v, m->payload, sizeof(*v));
    v->held_bytes = said.held_bytes;
    v->given_bytes = said.given_bytes;
    v->left_bytes = said.left_bytes;
    v->n_resets = said.n_resets;
    v->n_throttles = said.n_throttles;
    if (v->ours_bytes == 0) { /* a driver that tells nothing, or not yet */
        v->ours_bytes = MIN(giveback_held(s), v->used_bytes);
    }
    struct vram_sample sample = {.total_bytes = v->total_bytes,
                                 .used_bytes = v->used_bytes,
                                 .ours_bytes = v->ours_bytes,
                                 .gtt_bytes = v->gtt_bytes,
                                 .spilled_bytes = v->spilled_bytes,
                                 .n_displays = v->n_displays};
    v->spilled_bytes = vram_spill(&w->spill, &sample);
    v->reserve_bytes = (uint64_t)s->cfg->v[CONFIG_vram_reserve].i << 20;
    v->ceiling_bytes = vram_observe(&w->vram, &sample, v->reserve_bytes, now_ms,
                                     calm_ms ? calm_ms : VRAM_CALM_MS);
    v->is_watched = 1;
    w->heard_ms = now_ms;
    card_was_read(s, now_ms);
    log_changes(w, &sample, before);
    giveback_saw(s, now_ms);
    monitor_tell(s, now_ms);
}

void monitor_heard(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_card card;
    memcpy(&card, m->payload, sizeof(card));
    s->watch.heard_ms = now_ms;
    bool was_watched = s->watch.last.is_watched;
    s->watch.last.is_watched = was_watched && card.event != MSG_CARD_UNREAD;
    card_saw(s, m, now_ms);
    monitor_tell(s, now_ms);
}

void monitor_slept(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_sleep sleep;
    memcpy(&sleep, m->payload, sizeof(sleep));
    s->watch.is_asleep = sleep.begins != 0;
    s->watch.owes_word = s->watch.is_asleep;
    if (s->watch.is_asleep) {
        log_info("the machine is about to sleep: the models leave the GPU");
        child_end(&s->worker, CHILD_GRACE_MS, now_ms);
    } else {
        log_info("the machine is awake: the models come back");
        s->worker_at_ms = MIN(s->worker_at_ms, now_ms);
    }
}

void monitor_died(struct supervisor *s, const struct policy_death *d, uint64_t now_ms)
{
    if (d->exit_code == EXIT_GPU_DEVICE) {
        card_is_missing(s);
    }
    s->watch.is_asleep = s->watch.owes_word = false; /* nobody would say that it woke */
    bool is_of_this = s->watch.worker == s->worker.pid;
    s->watch.start_ms = is_of_this ? now_ms + MONITOR_AGAIN_MS : now_ms;
    s->watch.last.is_watched = 0;
    monitor_tell(s, now_ms);
}

static void start(struct supervisor *s, uint64_t now_ms)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)s->worker.pid);
    const char *card = s->card.is_wedged ? "wedged" : NULL; /* it may be announced only once */
    int rc = launch_helper(s, &s->monitor, "--watch", pid, card, now_ms);
    if (rc != 0) {
        log_warn("the VRAM monitor cannot be started: %s", err_text(rc));
        s->watch.start_ms = now_ms + MONITOR_AGAIN_MS;
        return;
    }
    s->watch.worker = s->worker.pid;
    s->watch.spill.is_known = false;
    s->watch.heard_ms = now_ms;
}

void monitor_tick(struct supervisor *s, uint64_t now_ms)
{
    struct child *m = &s->monitor;
    uint64_t gap_ms = now_ms - s->watch.tick_ms;
    s->watch.tick_ms = now_ms;
    if (gap_ms > WATCHDOG_GAP_MS) {
        s->watch.heard_ms =
            MIN(s->watch.heard_ms + gap_ms, now_ms); /* we did not run: perhaps it did not either */
    }
    bool is_wanted = s->phase == SUPERVISOR_SERVING &&
                     (s->watch.is_asleep || card_is_watched(s, now_ms) ||
                      (child_is_alive(&s->worker) && s->worker.holds_gpu));
    if (s->watch.owes_word && s->worker.state == CHILD_NONE && child_is_alive(m)) {
        struct msg_sleep sleep = {.begins = 1};
        s->watch.owes_word = false;
        dialog_say(s, m, MSG_SLEEP, &sleep, sizeof(sleep), NULL, 0, now_ms);
    }
    if (m->state == CHILD_NONE) {
        if (is_wanted && now_ms >= s->watch.start_ms) {
            start(s, now_ms);
        }
    } else if (child_is_alive(m) &&
               (!is_wanted || (!s->watch.is_asleep && !card_is_watched(s, now_ms) &&
                               s->watch.worker != s->worker.pid && child_is_alive(&s->worker)))) {
        child_end(m, CHILD_LAST_MS, now_ms);
    } else if (child_is_alive(m) && now_ms - s->watch.heard_ms > MONITOR_SILENCE_MS) {
        child_condemn(m, now_ms, "it said nothing for %.1f s",
                      (double)(now_ms - s->watch.heard_ms) / 1000);
    }
}
