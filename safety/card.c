/* The card's own troubles (see card.h). */
#include "safety/card.h"
#include "shared/log.h"

#include <stdio.h>
#include <string.h>

enum { THROTTLE_LOG_MS = 60 * 1000 };

static bool is_resetting(const struct supervisor *s, uint64_t now_ms)
{
    const struct card *c = &s->card;
    return c->is_resetting && now_ms - c->reset_ms < CARD_RESET_MS;
}

/* Our worker could have caused what happens to the card now. */
static bool may_be_ours(const struct supervisor *s, uint64_t now_ms)
{
    const struct child *w = &s->worker;
    const struct card *c = &s->card;
    if (w->state == CHILD_NONE || !w->holds_gpu) {
        return false;
    }
    bool had_fault = c->fault_ms > 0 && (c->fault_pid == w->pid || c->fault_pid == 0) &&
                     now_ms - c->fault_ms < CARD_EXCUSE_MS;
    bool hangs = !child_is_alive(w) || (watchdog_is_busy(&s->watchdog) &&
                                        now_ms - s->watchdog.change_ms >= CARD_HANG_MS);
    return had_fault || hangs;
}

static void begins_reset(struct supervisor *s, const struct msg_card *m, uint64_t now_ms)
{
    struct card *c = &s->card;
    bool is_ours = may_be_ours(s, now_ms);
    c->is_resetting = true;
    c->reset_ms = now_ms;
    c->is_excuse = s->worker.holds_gpu && !is_ours;
    s->watch.last.n_resets++;
    log_warn("the driver resets the GPU (%s); %s", *m->detail ? m->detail : "no reason is told",
             is_ours              ? "our worker may have caused it"
             : s->worker.holds_gpu ? "our worker did not cause it, and is about to end"
                                   : "we do not use it");
}

static void ends_reset(struct supervisor *s, uint64_t now_ms)
{
    if (s->card.is_resetting) {
        log_info("the GPU's reset is over after %.1f s",
                 (double)(now_ms - s->card.reset_ms) / 1000);
        s->card.is_resetting = false; /* a back-off goes on: the next one may have it reset again */
    }
}

/* Newer kernels say afterwards whose work it was. */
static void recovered(struct supervisor *s, const struct msg_card *m, uint64_t now_ms)
{
    struct card *c = &s->card;
    bool is_known = now_ms - c->reset_ms < CARD_EXCUSE_MS && c->reset_ms > 0;
    if (m->pid != 0 && is_known && s->worker.state != CHILD_NONE) {
        c->is_excuse = (pid_t)m->pid != s->worker.pid;
    }
    ends_reset(s, now_ms);
}

static void throttled(struct supervisor *s, const struct msg_card *m, uint64_t now_ms)
{
    struct card *c = &s->card;
    s->watch.last.n_throttles++;
    if (c->throttle_ms == 0 || now_ms - c->throttle_ms >= THROTTLE_LOG_MS) {
        log_warn("the GPU slows down to stay cool (%s): answers come slower", m->detail);
        c->throttle_ms = now_ms;
    }
}

static void wedged(struct supervisor *s, const struct msg_card *m, uint64_t now_ms)
{
    struct card *c = &s->card;
    if (c->is_wedged && !c->is_gone) {
        return;
    }
    c->is_wedged = true;
    c->wedged_ms = now_ms;
    c->is_gone = c->is_resetting = false;
    log_error("the GPU is wedged: nothing runs on it until '%s' or a restart of the machine; "
              "rebind: echo %s | sudo tee /sys/bus/pci/drivers/amdgpu/unbind, then into .../bind",
              m->detail, s->watch.last.pci);
    if (s->worker.holds_gpu) { /* one that waits for its probe's verdict gets this one */
        child_end(&s->worker, CHILD_LAST_MS, now_ms);
    }
}

static void is_back(struct supervisor *s, uint64_t now_ms)
{
    struct card *c = &s->card;
    if (c->is_wedged) {
        log_info("the GPU's driver has it again");
        card_forgive(s);
        s->worker_at_ms = MIN(s->worker_at_ms, now_ms);
    }
}

void card_saw(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms)
{
    struct msg_card card;
    memcpy(&card, m->payload, sizeof(card));
    struct card *c = &s->card;
    switch (card.event) {
    case MSG_CARD_FAULT:
        c->fault_pid = (pid_t)card.pid;
        c->fault_ms = now_ms;
        break;
    case MSG_CARD_THROTTLED:
        throttled(s, &card, now_ms);
        break;
    case MSG_CARD_RESET_BEGINS:
        begins_reset(s, &card, now_ms);
        break;
    case MSG_CARD_RESET_ENDS:
        ends_reset(s, now_ms);
        break;
    case MSG_CARD_RECOVERED:
        recovered(s, &card, now_ms);
        break;
    case MSG_CARD_WEDGED:
        wedged(s, &card, now_ms);
        break;
    case MSG_CARD_BACK:
        is_back(s, now_ms);
        break;
    case MSG_CARD_UNREAD:
        card_is_missing(s);
        break;
    default: /* a number that the table does not know changes nothing */
        break;
    }
}

bool card_explains(struct supervisor *s, uint64_t now_ms)
{
    struct card *c = &s->card;
    bool explains = c->is_excuse && now_ms - c->reset_ms < CARD_EXCUSE_MS;
    c->is_excuse = false;
    return explains;
}

void card_tick(struct supervisor *s, uint64_t now_ms)
{
    if (s->card.is_wedged && now_ms - s->card.wedged_ms >= CARD_WEDGED_MS) {
        log_info("the GPU was wedged %d minutes ago: it is tried again", CARD_WEDGED_MS / 60000);
        card_forgive(s);
    }
}

bool card_is_usable(const struct supervisor *s, uint64_t now_ms)
{
    return !s->card.is_wedged && !is_resetting(s, now_ms);
}

bool card_is_watched(const struct supervisor *s, uint64_t now_ms)
{
    return s->card.is_wedged || is_resetting(s, now_ms);
}

void card_was_read(struct supervisor *s, uint64_t now_ms)
{
    if (s->card.is_gone) {
        is_back(s, now_ms);
    }
}

void card_is_missing(struct supervisor *s)
{
    s->card.is_gone = s->card.is_wedged;
}

void card_forgive(struct supervisor *s)
{
    s->card.is_wedged = s->card.is_gone = false;
}
