/* Load on a server (see load.h). One thread on a loop of its own; ends the process when memory runs
 * out. Prompts are token ids, so that lengths are exact and no client pays for tokenizing. */
#include "gateway/load.h"
#include "gateway/load_report.h"
#include "gateway/peer.h"
#include "shared/num.h"
#include "shared/options.h"
#include "shared/philox.h"

#include <errno.h>
#include <inttypes.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct range {
    uint64_t lo, hi;
};

static struct settings { /* of the command line, read once at start */
    const char *url, *model;
    int64_t n_clients, n_requests, seconds, seed, n_groups, interval, burst;
    int64_t n_choices, best_of; /* best_of > 0: not streamed */
    double rate, leave; /* requests per second (0: closed loop); share of clients that leave */
    struct range prompt, output, prefix, ids;
    bool json, quiet;
} set = {
    .n_clients = 8,
    .seconds = 10,
    .n_groups = 1,
    .burst = 1,
    .n_choices = 1,
    .seed = 1,
};

enum { MAX_CHOICES = 16 };

/* This program did not run for so long: neither did the server, probably, and what was under way
 * then measures nothing. */
static const uint64_t STALL_NS = 1000000000;

static struct {
    uint64_t start, end, last_line;
    uint64_t due_start; /* of the schedule: moved by stalls */
    uint64_t interval_start;
    uint64_t last_run, resumed; /* when this program ran last; when the last stall ended */
    char error[160];
} stats;

struct client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    llhttp_t parser;
    uint64_t start, last[MAX_CHOICES]; /* of the request; of each choice's last event, or 0 */
    uint64_t n_events, leave_after;
    bool busy, is_done, leaves;
    char *request; /* owned */
    char line[65536];
    size_t line_len;
    char in[65536];
};

static uv_loop_t *loop;
static uv_timer_t clock_timer;
static llhttp_settings_t parser_settings;
static struct client *clients;
static uint32_t n_draws;
static struct peer server;

static uint64_t now_ns(void)
{
    uint64_t now = uv_hrtime(), gap = now - stats.last_run;
    if (stats.last_run && gap > STALL_NS) {
        report_add(REPORT_STALLS, 1);
        stats.due_start += gap;
        stats.resumed = now;
    }
    stats.last_run = now;
    return now;
}

static void measure(enum report_time t, uint64_t start, uint64_t now)
{
    if (start > stats.resumed) {
        report_time(t, now - start);
    }
}

/* Uniform below 1; draw number n of a stream. */
static double draw(uint64_t stream, uint32_t n)
{
    return philox_uniform((uint64_t)set.seed, (uint32_t)stream, n, 0);
}

static uint64_t pick(struct range r)
{
    return r.lo + (uint64_t)(draw(0, n_draws++) * (double)(r.hi - r.lo + 1));
}

static bool is_over(void)
{
    return set.n_requests ? report_count(REPORT_STARTED) >= (uint64_t)set.n_requests
                          : uv_hrtime() >= stats.end;
}

/* One request: a shared prefix of one of the groups, then ids of its own. */
static char *make_request(void)
{
    uint64_t n_prompt = pick(set.prompt), n_output = pick(set.output);
    uint64_t n_prefix = set.prefix.hi ? MIN(pick(set.prefix), n_prompt) : 0;
    uint64_t group = pick((struct range){1, (uint64_t)set.n_groups});
    size_t cap = n_prompt * 12 + 1024;
    char *body = base_alloc(cap), *request = base_alloc(cap + 1024);
    size_t n =
        (size_t)snprintf(body, cap, "{%s%.512s%s\"prompt\":[", set.model ? "\"model\":\"" : "",
                         set.model ? set.model : "", set.model ? "\"," : "");
    for (uint64_t i = 0; i < n_prompt; i++) {
        double u = i < n_prefix ? draw(group, (uint32_t)i) : draw(0, n_draws++);
        uint64_t id = set.ids.lo + (uint64_t)(u * (double)(set.ids.hi - set.ids.lo + 1));
        n += (size_t)snprintf(body + n, cap - n, "%s%" PRIu64, i ? "," : "", id);
    }
    n += (size_t)snprintf(body + n, cap - n,
                          "],\"max_tokens\":%" PRIu64 ",\"ignore_eos\":true,\"n\":%" PRId64
                          ",\"temperature\":%d",
                          n_output, set.n_choices, set.n_choices > 1 || set.best_of);
    if (set.best_of) {
        n += (size_t)snprintf(body + n, cap - n, ",\"best_of\":%" PRId64 "}", set.best_of);
    } else {
        n += (size_t)snprintf(body + n, cap - n,
                              ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    }
    snprintf(request, cap + 1024,
             "POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: "
             "application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
             server.host, n, body);
    free(body);
    return request;
}

static void start_request(struct client *c);

static void on_closed(uv_handle_t *h)
{
    struct client *c = h->data;
    c->busy = false;
    free(c->request);
    c->request = NULL;
    if (set.rate == 0 && !is_over()) {
        start_request(c);
    }
}

static void finish(struct client *c, const char *problem)
{
    if (uv_is_closing((uv_handle_t *)&c->tcp)) {
        return;
    }
    if (problem && !c->is_done) {
        bool is_refused = c->parser.status_code == 429 || c->parser.status_code == 503;
        report_add(is_refused ? REPORT_REFUSED : REPORT_FAILED, 1);
        snprintf(stats.error, sizeof(stats.error), "%s", problem);
    }
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* The number behind "name": in a compact JSON text, or 0. */
static uint64_t number_behind(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void count_usage(const char *json)
{
    report_add(REPORT_TOKENS, number_behind(json, "\"completion_tokens\":"));
    report_add(REPORT_PROMPT_TOKENS, number_behind(json, "\"prompt_tokens\":"));
}

static void complete(struct client *c, uint64_t now)
{
    c->is_done = true;
    report_add(REPORT_FINISHED, 1);
    measure(REPORT_TOTAL, c->start, now);
    finish(c, NULL);
}

static void on_event(struct client *c, const char *data)
{
    uint64_t now = now_ns();
    if (c->is_done) { /* it left, and this came with what it left for */
        return;
    }
    if (strcmp(data, "[DONE]") == 0) {
        complete(c, now);
        return;
    }
    if (strstr(data, "\"error\"")) {
        finish(c, data);
        return;
    }
    if (strstr(data, "\"completion_tokens\":")) { /* it carries no text */
        count_usage(data);
        return;
    }
    if (strstr(data, "\"finish_reason\":\"")) {
        return;
    }
    uint64_t *last = &c->last[MIN(number_behind(data, "\"index\":"), MAX_CHOICES - 1u)];
    if (c->n_events++ == 0) {
        measure(REPORT_FIRST, c->start, now);
    } else if (*last) {
        measure(REPORT_BETWEEN, *last, now);
    }
    *last = now;
    if (c->leaves && c->n_events >= c->leave_after) {
        c->is_done = true;
        report_add(REPORT_LEFT, 1);
        report_add(REPORT_LEFT_TOKENS, c->n_events);
        finish(c, NULL);
    }
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct client *c = p->data;
    for (size_t i = 0; i < n; i++) {
        if (at[i] != '\n') {
            if (c->line_len < sizeof(c->line) - 1) {
                c->line[c->line_len++] = at[i];
            }
            continue;
        }
        c->line[c->line_len] = 0;
        c->line_len = 0;
        if (strncmp(c->line, "data: ", 6) == 0) {
            on_event(c, c->line + 6);
        }
    }
    return 0;
}

static int on_complete(llhttp_t *p)
{
    struct client *c = p->data;
    char text[160];
    c->line[c->line_len] = 0;
    if (p->status_code != 200) {
        snprintf(text, sizeof(text), "HTTP status %d: %.120s", p->status_code, c->line);
        finish(c, text);
    } else if (set.best_of) {
        count_usage(c->line);
        complete(c, now_ns());
    } else {
        finish(c, "the stream ended without [DONE]");
    }
    return 0;
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *ret)
{
    struct client *c = h->data;
    (void)want;
    *ret = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct client *c = s->data;
    if (n < 0) {
        finish(c, n == UV_EOF ? "the connection closed early" : uv_strerror((int)n));
    } else if (n > 0 && llhttp_execute(&c->parser, b->base, (size_t)n) != HPE_OK) {
        finish(c, "the answer is not valid HTTP");
    }
}

static void on_connect(uv_connect_t *r, int status)
{
    struct client *c = r->data;
    if (status < 0) {
        finish(c, uv_strerror(status));
        return;
    }
    uv_buf_t b = uv_buf_init(c->request, (unsigned)strlen(c->request));
    uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, NULL);
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

static void start_request(struct client *c)
{
    c->busy = true;
    c->is_done = false;
    c->n_events = c->line_len = 0;
    memset(c->last, 0, sizeof(c->last));
    c->leaves = draw(0, n_draws++) < set.leave;
    c->leave_after = pick((struct range){1, set.output.hi});
    c->request = make_request();
    c->start = now_ns();
    report_add(REPORT_STARTED, 1);
    llhttp_init(&c->parser, HTTP_RESPONSE, &parser_settings);
    c->parser.data = c;
    uv_tcp_init(loop, &c->tcp);
    uv_tcp_nodelay(&c->tcp, 1);
    c->tcp.data = c->connect.data = c;
    int err = uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&server.address,
                             on_connect);
    if (err < 0) {
        finish(c, uv_strerror(err));
    }
}

static size_t n_busy(void)
{
    size_t n = 0;
    for (int64_t i = 0; i < set.n_clients; i++) {
        n += clients[i].busy;
    }
    return n;
}

/* Open loop: starts what is due, whatever is still running. */
static void start_due(uint64_t now)
{
    double due = (double)(now - stats.due_start) * 1e-9 * set.rate / (double)set.burst;
    uint64_t n_due = ((uint64_t)due + 1) * (uint64_t)set.burst;
    for (int64_t i = 0; i < set.n_clients && !is_over(); i++) {
        if (report_count(REPORT_STARTED) >= n_due) {
            return;
        }
        if (!clients[i].busy) {
            start_request(&clients[i]);
        }
    }
}

static void on_tick(uv_timer_t *t)
{
    uint64_t now = now_ns();
    if (set.rate > 0) {
        start_due(now);
    }
    bool ends = is_over() && n_busy() == 0;
    if (set.interval &&
        (ends || now - stats.interval_start >= (uint64_t)set.interval * 1000000000u)) {
        report_interval((double)(now - stats.interval_start) * 1e-9);
        stats.interval_start = now;
    }
    if (ends) {
        uv_timer_stop(t);
        uv_close((uv_handle_t *)t, NULL);
    }
    if (!set.quiet && now - stats.last_line > 500000000u) {
        stats.last_line = now;
        fprintf(stderr, "\r%6.1f s  %" PRIu64 " requests, %zu running, %" PRIu64 " failed   ",
                (double)(now - stats.start) * 1e-9, report_count(REPORT_FINISHED), n_busy(),
                report_count(REPORT_FAILED));
    }
}

/* "N" or "LO-HI". */
static bool parse_range(const char *text, struct range *ret)
{
    char lo[32];
    const char *dash = strchr(text, '-');
    snprintf(lo, sizeof(lo), "%.*s", (int)(dash ? dash - text : 31), text);
    return num_parse_u64(lo, &ret->lo) && num_parse_u64(dash ? dash + 1 : lo, &ret->hi) &&
           ret->lo >= 1 && ret->lo <= ret->hi && ret->hi <= INT32_MAX;
}

static int parse(int argc, char **argv, struct err *e)
{
    const char *prompt = "64", *output = "64", *prefix = NULL, *ids = "300-1900";
    const struct option_spec specs[] = {
        {"server", 0, OPTION_STR, &set.url, 0, 0, "http://HOST:PORT"},
        {"model", 'm', OPTION_STR, &set.model, 0, 0, "the requests' model field"},
        {"clients", 0, OPTION_INT, &set.n_clients, 1, 10000, "connections (8)"},
        {"rate", 0, OPTION_NUM, &set.rate, 0, 1e6,
         "requests per second, whatever still runs; 0: a client's next follows its last (0)"},
        {"burst", 0, OPTION_INT, &set.burst, 1, 10000, "with --rate, so many at once (1)"},
        {"seconds", 0, OPTION_INT, &set.seconds, 1, 1e6, "requests begin for so long (10)"},
        {"requests", 0, OPTION_INT, &set.n_requests, 0, 1e9, "or until there were so many"},
        {"prompt", 'p', OPTION_STR, &prompt, 0, 0, "prompt tokens, N or LO-HI (64)"},
        {"generate", 'n', OPTION_STR, &output, 0, 0, "answer tokens, N or LO-HI (64)"},
        {"prefix", 0, OPTION_STR, &prefix, 0, 0, "of them shared within a group, N or LO-HI"},
        {"groups", 0, OPTION_INT, &set.n_groups, 1, 1e6, "groups (1)"},
        {"leave", 0, OPTION_NUM, &set.leave, 0, 1, "share of clients that leave early (0)"},
        {"choices", 0, OPTION_INT, &set.n_choices, 1, MAX_CHOICES, "n of each request (1)"},
        {"best-of", 0, OPTION_INT, &set.best_of, 0, 64, "best_of of each; answers come whole"},
        {"ids", 0, OPTION_STR, &ids, 0, 0, "range of token ids (300-1900)"},
        {"interval", 0, OPTION_INT, &set.interval, 0, 1e6, "a line of JSON every so many seconds"},
        {"seed", 0, OPTION_INT, &set.seed, 0, 9e18, "of lengths and tokens (1)"},
        {"json", 0, OPTION_FLAG, &set.json, 0, 0, "print JSON"},
        {"quiet", 'q', OPTION_FLAG, &set.quiet, 0, 0, "no progress"},
    };
    struct options o = {.usage = "bench --server http://HOST:PORT [options]",
                        .summary =
                            "Load on any server with the OpenAI API: throughput, time to the first "
                            "token, time between\ntokens. Exit code 1: a request failed (those "
                            "refused with 429 or 503 count apart).",
                        .specs = specs,
                        .n_specs = COUNT_OF(specs)};
    struct config c;
    config_init(&c);
    int err = options_parse(&o, argc, argv, &c, e);
    config_finish(&c);
    const struct {
        const char *name, *text;
        struct range *range;
    } ranges[] = {{"prompt", prompt, &set.prompt},
                  {"generate", output, &set.output},
                  {"prefix", prefix, &set.prefix},
                  {"ids", ids, &set.ids}};
    for (size_t i = 0; i < COUNT_OF(ranges) && err == 1; i++) {
        if (ranges[i].text && !parse_range(ranges[i].text, ranges[i].range)) {
            err = err_set(e, ERR_USAGE, "--%s: '%s' is not N or LO-HI", ranges[i].name,
                          ranges[i].text);
        }
    }
    if (err == 1 && peer_parse(set.url ? set.url : "http://127.0.0.1:8080", &server, e) < 0) {
        return e->code;
    }
    return err;
}

int load_main(int argc, char **argv)
{
    struct err e = {0};
    int err = parse(argc, argv, &e);
    if (err <= 0) {
        return err < 0 ? options_fail(argv[0], &e) : EXIT_OK;
    }
    loop = uv_default_loop();
    llhttp_settings_init(&parser_settings);
    parser_settings.on_body = on_body;
    parser_settings.on_message_complete = on_complete;
    clients = calloc((size_t)set.n_clients, sizeof(*clients));
    if (!clients) {
        e.code = -ENOMEM;
        return options_fail(argv[0], &e);
    }
    stats.start = stats.due_start = stats.interval_start = uv_hrtime();
    stats.end = stats.start + (uint64_t)set.seconds * 1000000000u;
    for (int64_t i = 0; i < set.n_clients && set.rate == 0 && !is_over(); i++) {
        start_request(&clients[i]);
    }
    uv_timer_init(loop, &clock_timer);
    uv_timer_start(&clock_timer, on_tick, 1, set.rate > 0 ? 4 : 20);
    uv_run(loop, UV_RUN_DEFAULT);
    double seconds = (double)(uv_hrtime() - stats.start) * 1e-9;
    if (!set.quiet) {
        fputs("\r\033[K", stderr);
    }
    (set.json ? report_total : report_table)(seconds);
    if (stats.error[0]) {
        fprintf(stderr, "rocmforge bench: the last that went wrong: %s\n", stats.error);
    }
    free(clients);
    return report_count(REPORT_FAILED) ? EXIT_GENERAL : EXIT_OK;
}
