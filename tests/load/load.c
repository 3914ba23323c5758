/* Load on any OpenAI-compatible server: open or closed loop, prompt and answer lengths from a range,
 * shared prefixes, clients that leave; reports throughput, time to first token and the time between
 * tokens. One thread, libuv and llhttp; prompts are token ids, so lengths are exact. */
#include "shared/base.h"
#include "shared/num.h"
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
    uint64_t port, n_clients, n_requests, seconds, seed, prefix_groups;
    double rate, leave; /* requests per second (0: closed loop); share of clients that leave */
    struct range prompt, output, prefix, ids;
    bool json, quiet;
};

static struct options opt = {
    .host = "127.0.0.1",
    .port = 8080,
    .n_clients = 8,
    .seconds = 10,
    .prompt = {64, 64},
    .output = {64, 64},
    .ids = {300, 1900},
    .seed = 1,
};

struct series { /* growing list of times in nanoseconds */
    uint64_t *v;
    size_t n, cap;
};

static void series_add(struct series *s, uint64_t ns)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->v = realloc(s->v, s->cap * sizeof(*s->v));
        CHECK(s->v);
    }
    s->v[s->n++] = ns;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(struct series *s, double p)
{
    if (s->n == 0) {
        return NAN;
    }
    qsort(s->v, s->n, sizeof(*s->v), by_value);
    return (double)s->v[MIN((size_t)(p * (double)s->n), s->n - 1)] * 1e-6;
}

static struct {
    uint64_t start, end, last_line;
    uint64_t started, finished, failed, left, tokens, prompt_tokens;
    struct series first, between, total;
    char error[160];
} stats;

struct client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    llhttp_t parser;
    uint64_t start, last; /* of the request; of its last event */
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

static uint64_t pick(struct range r)
{
    return r.lo + test_random(&rng) % (r.hi - r.lo + 1);
}

static bool is_over(void)
{
    return opt.n_requests ? stats.started >= opt.n_requests : uv_hrtime() >= stats.end;
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
                          "],\"max_tokens\":%" PRIu64 ",\"temperature\":0,\"ignore_eos\":true,"
                          "\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
                          n_output);
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
    if (problem && !c->is_done && !c->leaves) {
        stats.failed++;
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

static void on_event(struct client *c, const char *data)
{
    uint64_t now = uv_hrtime();
    if (strcmp(data, "[DONE]") == 0) {
        c->is_done = true;
        stats.finished++;
        series_add(&stats.total, now - c->start);
        finish(c, NULL);
        return;
    }
    if (strstr(data, "\"error\"")) {
        finish(c, data);
        return;
    }
    uint64_t n = number_behind(data, "\"completion_tokens\":");
    if (n) { /* the chunk with the usage: it carries no text */
        stats.tokens += n;
        stats.prompt_tokens += number_behind(data, "\"prompt_tokens\":");
        return;
    }
    if (c->n_events++ == 0) {
        series_add(&stats.first, now - c->start);
    } else {
        series_add(&stats.between, now - c->last);
    }
    c->last = now;
    if (c->leaves && c->n_events >= c->leave_after) {
        stats.left++;
        stats.tokens += c->n_events;
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
    char text[64];
    snprintf(text, sizeof(text), "HTTP status %d", p->status_code);
    finish(c, p->status_code == 200 ? "the stream ended without [DONE]" : text);
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
    c->leaves = (double)(test_random(&rng) >> 11) * 0x1p-53 < opt.leave;
    c->leave_after = 1 + test_random(&rng) % opt.output.hi;
    c->request = make_request();
    c->start = uv_hrtime();
    stats.started++;
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

/* Open loop: starts what is due, whatever is still running; says so when clients run out. */
static void on_tick(uv_timer_t *t)
{
    uint64_t now = uv_hrtime();
    if (opt.rate > 0) {
        uint64_t due = (uint64_t)((double)(now - stats.start) * 1e-9 * opt.rate) + 1;
        for (size_t i = 0; i < opt.n_clients && stats.started < due && !is_over(); i++) {
            if (!clients[i].busy) {
                start_request(&clients[i]);
            }
        }
    }
    if (is_over() && n_busy() == 0) {
        uv_timer_stop(t);
        uv_close((uv_handle_t *)t, NULL);
    }
    if (!opt.quiet && now - stats.last_line > 500000000u) {
        stats.last_line = now;
        fprintf(stderr, "\r%6.1f s  %" PRIu64 " requests, %zu running, %" PRIu64 " failed   ",
                (double)(now - stats.start) * 1e-9, stats.finished, n_busy(), stats.failed);
    }
}

static void report(void)
{
    double s = (double)(uv_hrtime() - stats.start) * 1e-9;
    double out_rate = (double)stats.tokens / s;
    static const double ps[] = {0.5, 0.9, 0.99};
    struct {
        const char *name;
        struct series *s;
    } rows[] = {{"first_token_ms", &stats.first},
                {"between_tokens_ms", &stats.between},
                {"request_ms", &stats.total}};
    if (!opt.quiet) {
        fputc('\n', stderr);
    }
    if (opt.json) {
        printf("{\"seconds\":%.3f,\"requests\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"left\":%" PRIu64
               ",\"tokens_per_s\":%.2f,\"prompt_tokens\":%" PRIu64,
               s, stats.finished, stats.failed, stats.left, out_rate, stats.prompt_tokens);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
            printf(",\"%s\":[%.3f,%.3f,%.3f]", rows[i].name, percentile_ms(rows[i].s, ps[0]),
                   percentile_ms(rows[i].s, ps[1]), percentile_ms(rows[i].s, ps[2]));
        }
        printf("}\n");
        return;
    }
    printf("%.1f s: %" PRIu64 " requests finished, %" PRIu64 " failed, %" PRIu64 " left early\n", s,
           stats.finished, stats.failed, stats.left);
    if (stats.failed) {
        printf("last failure: %s\n", stats.error);
    }
    printf("throughput: %.1f tokens/s out, %.1f tokens/s in\n", out_rate,
           (double)stats.prompt_tokens / s);
    printf("%-20s %10s %10s %10s\n", "", "median", "p90", "p99");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        printf("%-20s %10.2f %10.2f %10.2f\n", rows[i].name, percentile_ms(rows[i].s, ps[0]),
               percentile_ms(rows[i].s, ps[1]), percentile_ms(rows[i].s, ps[2]));
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
          "  --seconds S | --requests N\n"
          "  --prompt LO[-HI]       prompt tokens (64)      --output LO[-HI]  answer tokens (64)\n"
          "  --prefix LO[-HI]       tokens shared by a group --groups N        groups (1)\n"
          "  --leave SHARE          clients that leave mid-stream (0..1)\n"
          "  --ids LO-HI            range of token ids (300-1900)\n"
          "  --seed N --json --quiet\n",
          stderr);
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"host", 1, 0, 'h'},    {"port", 1, 0, 'p'},   {"model", 1, 0, 'm'},
        {"clients", 1, 0, 'c'}, {"rate", 1, 0, 'r'},   {"seconds", 1, 0, 's'},
        {"requests", 1, 0, 'n'}, {"prompt", 1, 0, 'i'}, {"output", 1, 0, 'o'},
        {"prefix", 1, 0, 'x'},  {"groups", 1, 0, 'g'}, {"leave", 1, 0, 'l'},
        {"ids", 1, 0, 'd'},     {"seed", 1, 0, 'S'},   {"json", 0, 0, 'j'},
        {"quiet", 0, 0, 'q'},   {0}};
    bool ok = true;
    for (int k; ok && (k = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (k) {
        case 'h': opt.host = optarg; break;
        case 'm': opt.model = optarg; break;
        case 'p': ok = num_parse_u64(optarg, &opt.port) && opt.port < 65536; break;
        case 'c': ok = num_parse_u64(optarg, &opt.n_clients) && opt.n_clients >= 1; break;
        case 'r': ok = num_parse_f64(optarg, &opt.rate) && opt.rate > 0; break;
        case 's': ok = num_parse_u64(optarg, &opt.seconds); break;
        case 'n': ok = num_parse_u64(optarg, &opt.n_requests); break;
        case 'i': ok = parse_range(optarg, &opt.prompt); break;
        case 'o': ok = parse_range(optarg, &opt.output); break;
        case 'x':
            ok = parse_range(optarg, &opt.prefix);
            opt.prefix_groups = MAX(opt.prefix_groups, 1u);
            break;
        case 'g': ok = num_parse_u64(optarg, &opt.prefix_groups) && opt.prefix_groups >= 1; break;
        case 'l': ok = num_parse_f64(optarg, &opt.leave) && opt.leave >= 0 && opt.leave <= 1; break;
        case 'd': ok = parse_range(optarg, &opt.ids); break;
        case 'S': ok = num_parse_u64(optarg, &opt.seed); break;
        case 'j': opt.json = true; break;
        case 'q': opt.quiet = true; break;
        default: ok = false;
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
    stats.start = uv_hrtime();
    stats.end = stats.start + opt.seconds * 1000000000u;
    for (size_t i = 0; i < opt.n_clients && opt.rate == 0 && !is_over(); i++) {
        start_request(&clients[i]);
    }
    uv_timer_init(loop, &clock_timer);
    uv_timer_start(&clock_timer, on_tick, 1, opt.rate > 0 ? 1 : 20);
    uv_run(loop, UV_RUN_DEFAULT);
    report();
    return stats.failed ? 1 : 0;
}
