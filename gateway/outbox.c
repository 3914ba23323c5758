/* The outbox (see outbox.h). Runs on the gateway's loop, blocks never. */
#include "gateway/outbox.h"
#include "ipc/memfd.h"

#include <unistd.h>

void outbox_init(struct link *l)
{
    l->outbox = NULL;
    l->outbox_end = &l->outbox;
}

/* One that is held is not to compute; one on trial is, for the few tokens that it takes, even if
 * its reader is slow. */
static bool wants_pause(const struct journal_entry *en)
{
    return en->is_held || (en->wants_pause && !en->is_suspect);
}

static bool has_wishes(const struct journal_entry *en)
{
    return en->is_sent ? en->wants_cancel != en->is_cancelled || wants_pause(en) != en->is_paused
                       : !en->is_held;
}

void outbox_add(struct link *l, struct journal_entry *en)
{
    if (l->state == LINK_READY && !en->is_in_outbox && has_wishes(en)) {
        en->is_in_outbox = true;
        en->next_out = NULL;
        *l->outbox_end = en;
        l->outbox_end = &en->next_out;
    }
}

void outbox_remove(struct link *l, struct journal_entry *en)
{
    if (!en->is_in_outbox) {
        return;
    }
    struct journal_entry **at = &l->outbox;
    while (*at != en) {
        at = &(*at)->next_out;
    }
    *at = en->next_out;
    if (!*at) {
        l->outbox_end = at;
    }
    en->is_in_outbox = false;
}

/* Large payloads: a sealed memfd on the control channel, announced on the ring. */
static int send_bulk(struct link *l, struct journal_entry *en, const struct buf *b)
{
    if (!en->is_bulk_passed) {
        int fd = memfd_create_const("rocmforge-request", b->data, b->len);
        if (fd < 0) {
            return fd;
        }
        struct msg_bulk m = {.request = en->id, .bytes = b->len};
        int rc = channel_send(l->channel, MSG_BULK, l->epoch, &m, sizeof(m), &fd, 1);
        close(fd);
        if (rc < 0) {
            return rc;
        }
        en->is_bulk_passed = true;
    }
    struct msg_bulk_note note = {.request = en->id, .bytes = b->len, .type = en->type};
    return ring_put(&l->requests, MSG_BULK_NOTE, &note, sizeof(note), NULL, 0);
}

int outbox_send(struct link *l, struct journal_entry *en)
{
    struct msg_request m = {.request = en->id};
    int rc = 0;
    if (!en->is_sent && !en->is_held) {
        const struct buf *b = en->replay.len ? &en->replay : &en->payload;
        rc = b->len > LIMIT_RECORD_BYTES
                 ? send_bulk(l, en, b)
                 : ring_put(&l->requests, en->type, b->data, b->len, NULL, 0);
        en->is_sent = rc == 0;
        if (rc == 0) {
            buf_finish(&en->replay);
            buf_init(&en->replay, 0);
        }
    }
    if (!en->is_sent) {
        return rc;
    }
    if (rc == 0 && en->wants_cancel && !en->is_cancelled) {
        rc = ring_put(&l->requests, MSG_CANCEL, &m, sizeof(m), NULL, 0);
        en->is_cancelled = rc == 0;
    }
    bool pause = wants_pause(en);
    if (rc == 0 && pause != en->is_paused) {
        rc = ring_put(&l->requests, pause ? MSG_PAUSE : MSG_RESUME, &m, sizeof(m), NULL, 0);
        en->is_paused = rc == 0 ? pause : en->is_paused;
    }
    return rc;
}
