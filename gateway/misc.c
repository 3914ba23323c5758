/* Answers that need no worker: state, models, metrics. Runs on the gateway's loop. */
#include "gateway/api.h"
#include "gateway/ask.h"
#include "gateway/metrics.h"
#include "gateway/server.h"
#include "shared/clock.h"
#include "shared/json.h"

#include <string.h>

static void reply_json(struct exchange *x, int status, struct buf *b)
{
    if (b->failed) {
        struct err e;
        err_set(&e, ERR_NO_MEMORY, "while writing an answer");
        exchange_error(x, &e, NULL);
    } else {
        exchange_reply(x, status, "application/json", b->data, b->len, NULL);
    }
    buf_finish(b);
}

void misc_root(struct exchange *x)
{
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"name\":\"rocmforge\",\"version\":\"" ROCMFORGE_VERSION "\",\"paths\":[");
    for (int id = 0; id < ROUTE_NONE; id++) {
        buf_printf(&b, "%s\"%s\"", id ? "," : "", route_path((enum route_id)id));
    }
    buf_str(&b, "]}");
    reply_json(x, 200, &b);
}

static const char *state_word(const struct link_status *st)
{
    switch (st->state) {
    case LINK_STARTING:
        return "starting";
    case LINK_LOADING:
        return "loading";
    case LINK_READY:
        return st->is_stalled ? "stalled" : "ready";
    default: /* abandoned: the kernel holds it and it cannot be ended */
        return st->err == ERR_GPU_STALLED ? "abandoned" : st->is_own_fault ? "crashed" : "stopped";
    }
}

static void put_state(struct exchange *x, struct buf *b, const char *status,
                      const struct link_status *st)
{
    buf_printf(b, "{\"status\":\"%s\",\"draining\":%s,\"worker\":{\"state\":\"%s\",\"since\":%lld,",
               status, x->server->is_draining ? "true" : "false", state_word(st),
               (long long)st->since_unix_s);
    buf_printf(b, "\"epoch\":%llu", (unsigned long long)st->epoch);
    if (st->state == LINK_READY || st->state == LINK_LOADING) {
        buf_printf(b, ",\"phase\":\"%s\",\"active\":%u,\"queued\":%u", status_phase_name(st->phase),
                   st->n_active, st->n_queued);
    }
    if (st->state == LINK_LOADING && st->load_total_bytes) {
        buf_printf(b, ",\"loaded_bytes\":%llu,\"total_bytes\":%llu",
                   (unsigned long long)st->load_done_bytes,
                   (unsigned long long)st->load_total_bytes);
    }
    if (st->state == LINK_DOWN) {
        buf_printf(b, ",\"code\":\"%s\",\"detail\":", err_code(st->err));
        json_put_string(b, st->detail, strlen(st->detail));
    }
    if (st->n_waiting) {
        buf_printf(b, ",\"waiting\":%zu", st->n_waiting);
    }
    if (st->retry_after_ms) {
        buf_printf(b, ",\"ready_in_ms\":%u,\"deadline\":%lld", st->retry_after_ms,
                   (long long)(clock_unix_s() + (st->retry_after_ms + 999) / 1000));
    }
    buf_str(b, "}}");
}

/* Alive: always 200; the state is told beside it. */
void misc_health(struct exchange *x)
{
    struct link_status st;
    struct buf b;
    buf_init(&b, 0);
    link_status(x->server->link, &st);
    put_state(x, &b, "ok", &st);
    reply_json(x, 200, &b);
}

/* Would a request be served now? */
void misc_ready(struct exchange *x)
{
    struct link_status st;
    struct buf b;
    buf_init(&b, 0);
    link_status(x->server->link, &st);
    bool is_ready = st.state == LINK_READY && !st.is_stalled && !x->server->is_draining;
    put_state(x, &b, is_ready ? "ready" : "not ready", &st);
    reply_json(x, is_ready ? 200 : 503, &b);
}

static void put_model(struct buf *b, const struct msg_model *m)
{
    buf_str(b, "{\"id\":");
    json_put_string(b, m->name, strlen(m->name));
    buf_printf(b,
               ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"rocmforge\",\"status\":{"
               "\"value\":\"%s\"},\"meta\":{",
               (long long)m->created, m->is_loaded ? "loaded" : "unloaded");
    buf_printf(b, "\"n_vocab\":%u,\"n_ctx\":%u,\"n_ctx_train\":%u,\"n_params\":%llu,\"size\":%llu,",
               m->n_vocab, m->n_ctx, m->n_ctx_train, (unsigned long long)m->n_params,
               (unsigned long long)m->bytes);
    buf_printf(b, "\"has_chat_template\":%s,\"arch\":", m->has_template ? "true" : "false");
    json_put_string(b, m->arch, strlen(m->arch));
    buf_str(b, ",\"quant\":");
    json_put_string(b, m->quant, strlen(m->quant));
    buf_str(b, ",\"device\":");
    json_put_string(b, m->device, strlen(m->device));
    buf_str(b, "}}");
}

void misc_models(struct exchange *x)
{
    const struct link *l = x->server->link;
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < l->n_models_known; i++) {
        buf_str(&b, i ? "," : "");
        put_model(&b, &l->models[i]);
    }
    buf_str(&b, "]}");
    reply_json(x, 200, &b);
}

/* Percent-decodes up to cap bytes; returns the length, or cap + 1 if it is not well-formed or too
 * long. */
static size_t decode_percent(const char *s, size_t n, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '%') {
            static const char digits[] = "0123456789abcdef0123456789ABCDEF";
            const char *hi = i + 2 < n && s[i + 1] ? strchr(digits, s[i + 1]) : NULL;
            const char *lo = i + 2 < n && s[i + 2] ? strchr(digits, s[i + 2]) : NULL;
            if (!hi || !lo) {
                return cap + 1;
            }
            c = (unsigned char)(((hi - digits) & 15) << 4 | ((lo - digits) & 15));
            i += 2;
        }
        if (len == cap) {
            return cap + 1;
        }
        out[len++] = (char)c;
    }
    return len;
}

void misc_model(struct exchange *x)
{
    char name[MSG_NAME_BYTES * 2];
    size_t skip = strlen(x->route->path);
    size_t n = decode_percent(x->http->head.data + x->http->path + skip, x->http->n_path - skip,
                              name, sizeof(name));
    const struct msg_model *m = n <= sizeof(name) ? link_model(x->server->link, name, n) : NULL;
    if (!m) {
        struct err e;
        err_set(&e, ERR_MODEL_NOT_FOUND, "GET %.*s", (int)MIN(x->http->n_path, 200u),
                x->http->head.data + x->http->path);
        exchange_error(x, &e, "model");
        return;
    }
    struct buf b;
    buf_init(&b, 0);
    put_model(&b, m);
    reply_json(x, 200, &b);
}

/* GET lists what is refused, DELETE forgets it. */
void misc_poison(struct exchange *x)
{
    struct link *l = x->server->link;
    struct buf b;
    buf_init(&b, 0);
    if (x->http->method == HTTP_DELETE) {
        link_forgive(l);
    }
    poison_expire(&l->poison, clock_ms());
    buf_printf(&b, "{\"suspects\":%zu,\"poison\":[", l->trial.n_suspects);
    for (size_t i = 0; i < l->poison.n; i++) {
        const struct poison_row *row = &l->poison.rows[i];
        buf_str(&b, i ? ",{\"sha256\":\"" : "{\"sha256\":\"");
        for (size_t k = 0; k < sizeof(row->digest); k++) {
            buf_printf(&b, "%02x", row->digest[k]);
        }
        buf_printf(&b, "\",\"since\":%lld,\"seconds_left\":%llu,\"refused\":%llu}",
                   (long long)row->since_unix_s,
                   (unsigned long long)(row->until_ms - clock_ms() + 999) / 1000,
                   (unsigned long long)row->n_refused);
    }
    buf_str(&b, "]}");
    reply_json(x, 200, &b);
}

static void put_bytes(struct buf *b, const char *key, uint64_t n)
{
    buf_printf(b, ",\"%s\":%llu", key, (unsigned long long)n);
}

/* The card as it was measured last, at most a second ago while it is watched. On the CPU: no
 * card. */
void misc_vram(struct exchange *x)
{
    const struct msg_vram *v = &x->server->link->vram;
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"object\":\"list\",\"data\":[");
    if (v->total_bytes > 0) {
        uint64_t others = v->used_bytes - MIN(v->ours_bytes, v->used_bytes);
        buf_str(&b, "{\"device\":");
        json_put_string(&b, v->pci, strlen(v->pci));
        buf_str(&b, ",\"arch\":");
        json_put_string(&b, v->gfx, strlen(v->gfx));
        put_bytes(&b, "total_bytes", v->total_bytes);
        put_bytes(&b, "used_bytes", v->used_bytes);
        put_bytes(&b, "free_bytes", v->total_bytes - MIN(v->used_bytes, v->total_bytes));
        put_bytes(&b, "others_bytes", others);
        put_bytes(&b, "ours_bytes", v->ours_bytes);
        put_bytes(&b, "ceiling_bytes", v->ceiling_bytes);
        put_bytes(&b, "excess_bytes",
                  v->ours_bytes - MIN(v->ceiling_bytes, v->ours_bytes));
        put_bytes(&b, "desktop_reserve_bytes", v->n_displays > 0 ? v->reserve_bytes : 0);
        put_bytes(&b, "held_bytes", v->held_bytes);
        put_bytes(&b, "given_back_bytes", v->given_bytes);
        put_bytes(&b, "left_over_bytes", v->left_bytes);
        put_bytes(&b, "gtt_bytes", v->gtt_bytes);
        put_bytes(&b, "spilled_bytes", v->spilled_bytes);
        if (v->busy_percent >= 0) {
            buf_printf(&b, ",\"busy_percent\":%d", (int)v->busy_percent);
        }
        if (v->celsius > 0) {
            buf_printf(&b, ",\"temperature_celsius\":%d", (int)v->celsius);
        }
        buf_printf(&b, ",\"resets\":%u,\"throttles\":%u,\"displays\":%u",
                   (unsigned)v->n_resets, (unsigned)v->n_throttles, (unsigned)v->n_displays);
        buf_printf(&b, ",\"is_watched\":%s,\"age_ms\":%llu}", v->is_watched ? "true" : "false",
                   (unsigned long long)(clock_ms() - x->server->link->vram_ms));
    }
    buf_str(&b, "]}");
    reply_json(x, 200, &b);
}

void misc_metrics(struct exchange *x)
{
    struct link *l = x->server->link;
    struct link_status st;
    struct buf b;
    buf_init(&b, 0);
    link_status(l, &st);
    metrics_set(METRIC_BODY_BYTES, x->server->body_bytes + ask_pending_bytes());
    metrics_set(METRIC_LIVE, l->journal.n_live);
    metrics_set(METRIC_WORKER_UP, st.state == LINK_READY);
    metrics_set(METRIC_WORKER_STALLED, st.is_stalled);
    metrics_set(METRIC_WORKER_EPOCH, st.epoch);
    metrics_set(METRIC_WORKER_ACTIVE, st.n_active);
    metrics_set(METRIC_WORKER_QUEUED, st.n_queued);
    metrics_set(METRIC_VRAM_TOTAL, l->vram.total_bytes);
    metrics_set(METRIC_VRAM_USED, l->vram.used_bytes);
    metrics_set(METRIC_VRAM_OURS, l->vram.ours_bytes);
    metrics_set(METRIC_VRAM_CEILING, l->vram.ceiling_bytes);
    metrics_set(METRIC_VRAM_GIVEN, l->vram.given_bytes);
    metrics_set(METRIC_VRAM_SPILLED, l->vram.spilled_bytes);
    metrics_set(METRIC_VRAM_GTT, l->vram.gtt_bytes);
    metrics_set(METRIC_GPU_BUSY, (uint64_t)MAX(l->vram.busy_percent, 0));
    metrics_set(METRIC_GPU_CELSIUS, (uint64_t)MAX(l->vram.celsius, 0));
    metrics_set(METRIC_GPU_RESETS, l->vram.n_resets);
    metrics_set(METRIC_GPU_THROTTLES, l->vram.n_throttles);
    metrics_set(METRIC_KV_BLOCKS, st.kv_blocks);
    metrics_set(METRIC_KV_USED, st.kv_used);
    metrics_set(METRIC_KV_CACHED, st.kv_cached);
    metrics_set(METRIC_KV_EVICTED, st.kv_evicted);
    metrics_set(METRIC_KV_RESTORED, st.kv_restored);
    metrics_set(METRIC_KV_BROKEN, st.kv_broken);
    metrics_set(METRIC_GPU_WAYS_OFF, st.n_ways_off);
    metrics_set(METRIC_STORE_WEIGHTS, st.weights_bytes);
    metrics_set(METRIC_STORE_KV, st.cache_bytes);
    metrics_set(METRIC_PREEMPTED, st.n_preempted);
    metrics_set(METRIC_WORKER_BUSY, st.busy_ns / 1000000);
    metrics_set(METRIC_WORKER_COMPUTE, st.compute_ns / 1000000);
    metrics_set(METRIC_WORKER_STARTS, l->n_epochs);
    metrics_set(METRIC_DEATHS_OWN, l->tally.n_own);
    metrics_set(METRIC_DEATHS_EXTERNAL, l->tally.n_external);
    metrics_set(METRIC_DEATHS_ORDERED, l->tally.n_ordered);
    metrics_set(METRIC_DEATHS_OOM, l->tally.n_oom);
    metrics_set(METRIC_DEATHS_CONDEMNED, l->tally.n_condemned);
    metrics_set(METRIC_REPORTS, l->tally.n_reports);
    metrics_set(METRIC_UNREPORTED, l->tally.n_unreported);
    metrics_set(METRIC_RUNG, l->tally.rung);
    metrics_set(METRIC_RESUMED, l->n_resumed);
    metrics_set(METRIC_WAITING, st.n_waiting);
    metrics_set(METRIC_SUSPECTS, l->trial.n_suspects);
    poison_expire(&l->poison, clock_ms());
    metrics_set(METRIC_POISON, l->poison.n);
    metrics_set(METRIC_POISON_REFUSED, l->poison.n_refused);
    metrics_set(METRIC_WORKER_BREACHES, l->n_breaches);
    metrics_print(&b);
    exchange_reply(x, b.failed ? 500 : 200, "text/plain; version=0.0.4; charset=utf-8", b.data,
                   b.failed ? 0 : b.len, NULL);
    buf_finish(&b);
}
