/* Load on any OpenAI-compatible server: open or closed loop, bursts, prompt and answer lengths from
 * a range, shared prefixes, several choices, clients that leave; reports throughput, time to first
 * token and the time between tokens. One thread, libuv and llhttp; prompts are token ids, so
 * lengths are exact. */
#include "shared/base.h"
#include "shared/num.h"
#include "tests/load/report.h"
#include "tests/test.h"

#include <getopt.h>
#include <llhttp.h>
#include <uv.h>

struct range {
    uint64_t lo, hi;
};

struct options {
    const char *host;
    const char *model;
    uint64_t port, n_clients, n_requests, seconds, seed, prefix_groups, interval, burst;
    uint64_t n_choices, best_of; /* best_of > 0: not streamed */
    double rate, leave; /* requests per second (0: closed loop); share of clients that leave */
    struct range prompt, output, prefix, ids;
    bool json, quiet;
};

static struct options opt = {
    .host = "127.0.0.1",
    .port = 8080,
    .n_clients = 8,
    .seconds = 10,
    .burst = 1,
    .n_choices = 1,
    .prompt = {64, 64},
    .output = {64, 64},
    .ids = {300, 1900},
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
static uint64_t rng;
static struct sockaddr_storage address;

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

static uint64_t pick(struct range r)
{
    return r.lo + test_random(&rng) % (r.hi - r.lo + 1);
}

static bool is_over(void)
{
    return opt.n_requests ? report_count(REPORT_STARTED) >= opt.n_requests
                          : uv_hrtime() >= stats.end;
}

/* One request: a shared prefix of one of the groups, then ids of its own. */
static char *make_request(void)
{
    uint64_t n_prompt = pick(opt.prompt), n_output = pick(opt.output);
    uint64_t n_prefix = opt.prefix_groups ? MIN(pick(opt.prefix), n_prompt) : 0;
    uint64_t group = opt.prefix_groups ? test_random(&rng) % opt.prefix_groups : 0;
    uint64_t prefix_rng = opt.seed * 1000003 + group;
    size_t cap = n_prompt * 9 + 1024;
    char *body = malloc(cap), *request = malloc(cap + 512);
    CHECK(body && request);
    size_t n = (size_t)snprintf(body, cap, "{%s%s%s\"prompt\":[", opt.model ? "\"model\":\"" : "",
                                opt.model ? opt.model : "", opt.model ? "\"," : "");
    for (uint64_t i = 0; i < n_prompt; i++) {
        uint64_t *r = i < n_prefix ? &prefix_rng : &rng;
        uint64_t id = opt.ids.lo + test_random(r) % (opt.ids.hi - opt.ids.lo + 1);
        n += (size_t)snprintf(body + n, cap - n, "%s%" PRIu64, i ? "," : "", id);
    }
    n += (size_t)snprintf(body + n, cap - n,
                          "],\"max_tokens\":%" PRIu64 ",\"ignore_eos\":true,\"n\":%" PRIu64
                          ",\"temperature\":%d",
                          n_output, opt.n_choices, opt.n_choices > 1 || opt.best_of);
    if (opt.best_of) {
        n += (size_t)snprintf(body + n, cap - n, ",\"best_of\":%" PRIu64 "}", opt.best_of);
    } else {
        n += (size_t)snprintf(body + n, cap - n,
                              ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    }
    snprintf(request, cap + 512,
             "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
             "application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
             n, body);
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
    if (opt.rate == 0 && !is_over()) {
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
    } else if (opt.best_of) {
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
    c->leaves = (double)(test_random(&rng) >> 11) * 0x1p-53 < opt.leave;
    c->leave_after = 1 + test_random(&rng) % opt.output.hi;
    c->request = make_request();
    c->start = now_ns();
    report_add(REPORT_STARTED, 1);
    llhttp_init(&c->parser, HTTP_RESPONSE, &parser_settings);
    c->parser.data = c;
    uv_tcp_init(loop, &c->tcp);
    uv_tcp_nodelay(&c->tcp, 1);
    c->tcp.data = c->connect.data = c;
    int err = uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&address, on_connect);
    if (err < 0) {
        finish(c, uv_strerror(err));
    }
}

static size_t n_busy(void)
{
    size_t n = 0;
    for (size_t i = 0; i < opt.n_clients; i++) {
        n += clients[i].busy;
    }
    return n;
}

/* Open loop: starts what is due, whatever is still running. */
static void start_due(uint64_t now)
{
    double due = (double)(now - stats.due_start) * 1e-9 * opt.rate / (double)opt.burst;
    uint64_t n_due = ((uint64_t)due + 1) * opt.burst;
    for (size_t i = 0; i < opt.n_clients && !is_over(); i++) {
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
    if (opt.rate > 0) {
        start_due(now);
    }
    bool ends = is_over() && n_busy() == 0;
    if (opt.interval && (ends || now - stats.interval_start >= opt.interval * 1000000000u)) {
        report_interval((double)(now - stats.interval_start) * 1e-9);
        stats.interval_start = now;
    }
    if (ends) {
        uv_timer_stop(t);
        uv_close((uv_handle_t *)t, NULL);
    }
    if (!opt.quiet && now - stats.last_line > 500000000u) {
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
           ret->lo >= 1 && ret->lo <= ret->hi;
}

static void usage(void)
{
    fputs("usage: load [options]\n"
          "  --host A --port N      server (127.0.0.1:8080)\n"
          "  --model NAME           model field of the requests\n"
          "  --clients N            connections (8)\n"
          "  --rate R               open loop: requests per second (closed loop without it)\n"
          "  --burst N              so many of them at once (1)\n"
          "  --seconds S | --requests N\n"
          "  --prompt LO[-HI]       prompt tokens (64)      --output LO[-HI]  answer tokens (64)\n"
          "  --prefix LO[-HI]       tokens shared by a group --groups N        groups (1)\n"
          "  --leave SHARE          clients that leave mid-stream (0..1)\n"
          "  --choices N            n of each request (1)\n"
          "  --best-of N            best_of of each request; answers are not streamed\n"
          "  --ids LO-HI            range of token ids (300-1900)\n"
          "  --interval S           a line of JSON every so many seconds, too\n"
          "  --seed N --json --quiet\n"
          "Exit code 1: a request failed. Refused ones (429, 503) are counted apart.\n",
          stderr);
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"host", 1, 0, 'h'},     {"port", 1, 0, 'p'},     {"model", 1, 0, 'm'},
        {"clients", 1, 0, 'c'},  {"rate", 1, 0, 'r'},     {"seconds", 1, 0, 's'},
        {"requests", 1, 0, 'n'}, {"prompt", 1, 0, 'i'},   {"output", 1, 0, 'o'},
        {"prefix", 1, 0, 'x'},   {"groups", 1, 0, 'g'},   {"leave", 1, 0, 'l'},
        {"ids", 1, 0, 'd'},      {"seed", 1, 0, 'S'},     {"json", 0, 0, 'j'},
        {"quiet", 0, 0, 'q'},    {"interval", 1, 0, 'I'}, {"burst", 1, 0, 'b'},
        {"choices", 1, 0, 'N'},  {"best-of", 1, 0, 'B'},  {0}};
    bool ok = true;
    for (int k; ok && (k = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (k) {
        case 'h':
            opt.host = optarg;
            break;
        case 'm':
            opt.model = optarg;
            break;
        case 'p':
            ok = num_parse_u64(optarg, &opt.port) && opt.port < 65536;
            break;
        case 'c':
            ok = num_parse_u64(optarg, &opt.n_clients) && opt.n_clients >= 1;
            break;
        case 'r':
            ok = num_parse_f64(optarg, &opt.rate) && opt.rate > 0;
            break;
        case 's':
            ok = num_parse_u64(optarg, &opt.seconds);
            break;
        case 'n':
            ok = num_parse_u64(optarg, &opt.n_requests);
            break;
        case 'i':
            ok = parse_range(optarg, &opt.prompt);
            break;
        case 'o':
            ok = parse_range(optarg, &opt.output);
            break;
        case 'x':
            ok = parse_range(optarg, &opt.prefix);
            opt.prefix_groups = MAX(opt.prefix_groups, 1u);
            break;
        case 'g':
            ok = num_parse_u64(optarg, &opt.prefix_groups) && opt.prefix_groups >= 1;
            break;
        case 'l':
            ok = num_parse_f64(optarg, &opt.leave) && opt.leave >= 0 && opt.leave <= 1;
            break;
        case 'd':
            ok = parse_range(optarg, &opt.ids);
            break;
        case 'S':
            ok = num_parse_u64(optarg, &opt.seed);
            break;
        case 'I':
            ok = num_parse_u64(optarg, &opt.interval) && opt.interval >= 1;
            break;
        case 'b':
            ok = num_parse_u64(optarg, &opt.burst) && opt.burst >= 1;
            break;
        case 'N':
            ok = num_parse_u64(optarg, &opt.n_choices) && opt.n_choices >= 1 &&
                 opt.n_choices <= MAX_CHOICES;
            break;
        case 'B':
            ok = num_parse_u64(optarg, &opt.best_of) && opt.best_of >= 1;
            break;
        case 'j':
            opt.json = true;
            break;
        case 'q':
            opt.quiet = true;
            break;
        default:
            ok = false;
        }
    }
    if (!ok || optind != argc || (opt.prefix_groups && !opt.prefix.lo)) {
        usage();
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    rng = opt.seed;
    loop = uv_default_loop();
    if (uv_ip4_addr(opt.host, (int)opt.port, (struct sockaddr_in *)&address) < 0 &&
        uv_ip6_addr(opt.host, (int)opt.port, (struct sockaddr_in6 *)&address) < 0) {
        fprintf(stderr, "load: '%s' is not an IP address\n", opt.host);
        return 2;
    }
    llhttp_settings_init(&parser_settings);
    parser_settings.on_body = on_body;
    parser_settings.on_message_complete = on_complete;
    clients = calloc(opt.n_clients, sizeof(*clients));
    CHECK(clients);
    stats.start = stats.due_start = stats.interval_start = uv_hrtime();
    stats.end = stats.start + opt.seconds * 1000000000u;
    for (size_t i = 0; i < opt.n_clients && opt.rate == 0 && !is_over(); i++) {
        start_request(&clients[i]);
    }
    uv_timer_init(loop, &clock_timer);
    uv_timer_start(&clock_timer, on_tick, 1, opt.rate > 0 ? 4 : 20);
    uv_run(loop, UV_RUN_DEFAULT);
    double seconds = (double)(uv_hrtime() - stats.start) * 1e-9;
    if (!opt.quiet) {
        fputc('\n', stderr);
    }
    (opt.json ? report_total : report_table)(seconds);
    if (stats.error[0]) {
        fprintf(stderr, "load: the last that went wrong: %s\n", stats.error);
    }
    return report_count(REPORT_FAILED) ? 1 : 0;
}
