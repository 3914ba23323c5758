/* Time limits (see deadline.h). Runs on the gateway's loop. */
#include "gateway/deadline.h"
#include "gateway/server.h"
#include "shared/clock.h"
#include "shared/num.h"

#include <string.h>

/* A time limit: the body's, else the header's, else the configuration's; less what has passed. */
static int settle(struct exchange *x, const char *header, enum config_key key, double *limit)
{
    size_t n;
    const char *text = *limit < 0 ? http_find(x->http, header, &n) : NULL;
    double seconds = *limit < 0 ? x->server->config.v[key].num : *limit;
    if (text) {
        char digits[32] = "";
        memcpy(digits, text, n < sizeof(digits) ? n : 0);
        if (!num_parse_f64(digits, &seconds) ||
            !(seconds >= 0 && seconds <= (double)LIMIT_DEADLINE_S)) {
            struct err e;
            err_set(&e, ERR_BAD_FIELD, "header '%s' is not a number of seconds from 0 to %d",
                    header, LIMIT_DEADLINE_S);
            exchange_error(x, &e, header);
            return e.code;
        }
    }
    double gone = (double)(clock_ns() - x->begin_ns) * 1e-9; /* it may have waited for a worker */
    *limit = seconds > 0 ? MAX(seconds - gone, 1e-3) : 0;
    return 0;
}

int deadline_settle(struct exchange *x, struct request *r)
{
    int rc = settle(x, "x-queue-timeout", CONFIG_queue_timeout, &r->queue_timeout);
    rc = rc < 0 ? rc : settle(x, "x-first-timeout", CONFIG_first_timeout, &r->first_timeout);
    return rc < 0 ? rc : settle(x, "x-total-timeout", CONFIG_total_timeout, &r->total_timeout);
}
