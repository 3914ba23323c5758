/* Control messages that wait for room (see notice.h). Runs on the gateway's loop, blocks never. A
 * supervisor that is gone shows on the channel, which control.c watches: here it means nothing. */
#include "gateway/notice.h"
#include "shared/err.h"
#include "shared/log.h"

#include <errno.h>
#include <string.h>

enum { RETRY_MS = 5 };

static void flush(struct notice *n)
{
    size_t done = 0;
    for (; done < n->n; done++) {
        const struct notice_row *row = &n->rows[done];
        int rc = channel_send(n->channel, row->type, row->epoch, row->payload, row->len, NULL, 0);
        if (rc == -EAGAIN) {
            break;
        }
        if (rc < 0 && rc != ERR_PEER_GONE) {
            log_error("%s cannot be sent: %s", msg_info(row->type)->name, err_text(rc));
        }
    }
    n->n -= done;
    memmove(n->rows, n->rows + done, n->n * sizeof(n->rows[0]));
}

static void on_retry(uv_timer_t *t)
{
    struct notice *n = t->data;
    flush(n);
    if (n->n == 0) {
        uv_timer_stop(t);
    }
}

int notice_open(struct notice *n, uv_loop_t *loop, struct channel *channel)
{
    n->channel = channel;
    n->n = 0;
    int rc = uv_timer_init(loop, &n->retry);
    n->retry.data = n;
    return rc;
}

void notice_close(struct notice *n)
{
    uv_close((uv_handle_t *)&n->retry, NULL);
}

void notice_send(struct notice *n, uint32_t type, uint64_t epoch, const void *payload, size_t len)
{
    ASSERT(len <= NOTICE_BYTES);
    if (n->n ==
        NOTICE_WAITING) { /* a supervisor that has read nothing for so long ends us anyway */
        log_error("%s is lost: the supervisor does not read", msg_info(type)->name);
        return;
    }
    struct notice_row *row = &n->rows[n->n++];
    row->type = type;
    row->epoch = epoch;
    row->len = len;
    memcpy(row->payload, payload, len);
    flush(n);
    if (n->n > 0) {
        uv_timer_start(&n->retry, on_retry, RETRY_MS, RETRY_MS);
    }
}
