/* Printing and comparing results (see bench_result.h). Pure but for the reading of the baseline. */
#include "worker/bench_result.h"
#include "shared/json.h"
#include "worker/tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BASELINE_BYTES = 16 << 20 };

struct bench_baseline {
    json_t *root, *results; /* owned; borrowed */
};

static const char *test_name(const struct bench_result *r)
{
    return r->is_decode ? "decode" : "prefill";
}

int bench_baseline_open(const char *path, struct bench_baseline **ret, struct err *e)
{
    struct bench_baseline *b = calloc(1, sizeof(*b));
    struct buf text;
    buf_init(&text, MAX_BASELINE_BYTES);
    int err = b ? tool_read(path, &text, e) : -ENOMEM;
    if (err == 0 && json_parse(text.data, text.len, &b->root, e) < 0) {
        err = err_set(e, ERR_CONFIG, "baseline '%s': %s", path, e->detail);
    }
    buf_finish(&text);
    if (err == 0) {
        b->results = json_object_get(b->root, "results");
        if (!json_is_array(b->results)) {
            err = err_set(e, ERR_CONFIG, "baseline '%s' has no \"results\": it must be what "
                                         "bench --json printed", path);
        }
    }
    if (err < 0) {
        bench_baseline_close(&b);
        return err;
    }
    *ret = b;
    return 0;
}

void bench_baseline_close(struct bench_baseline **at)
{
    if (*at) {
        json_decref((*at)->root);
        free(*at);
        *at = NULL;
    }
}

static bool is_equal(const json_t *o, const char *key, int64_t want)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) && json_integer_value(v) == want;
}

static bool has_text(const json_t *o, const char *key, const char *want)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v && strcmp(v, want) == 0;
}

double bench_baseline_find(const struct bench_baseline *b, const struct bench_result *r)
{
    for (size_t i = 0; b && i < json_array_size(b->results); i++) {
        const json_t *o = json_array_get(b->results, i);
        if (has_text(o, "test", test_name(r)) && is_equal(o, "tokens", r->n_tokens) &&
            is_equal(o, "depth", r->depth) && is_equal(o, "batch", r->batch) &&
            is_equal(o, "threads", r->n_threads) && has_text(o, "kv_type", r->kv_type)) {
            return json_number_value(json_object_get(o, "tokens_per_s"));
        }
    }
    return 0;
}

void bench_put_head(struct buf *b, bool has_baseline)
{
    buf_printf(b, "%-14s %7s %6s %5s %3s %12s %23s %20s %11s%s\n", "test", "depth", "batch", "kv",
               "thr", "tokens/s", "slowest .. fastest", "of the plain read", "compute",
               has_baseline ? "  baseline" : "");
}

static double share(double rate, double ceiling)
{
    return ceiling > 0 ? rate / ceiling : 0;
}

void bench_put_line(struct buf *b, const struct bench_result *r, const struct bench_machine *m,
                    double earlier)
{
    char test[32];
    snprintf(test, sizeof(test), "%s %lld", test_name(r), (long long)r->n_tokens);
    buf_printf(b, "%-14s %7lld %6lld %5s %3lld %12.2f %9.2f .. %-10.2f", test, (long long)r->depth,
               (long long)r->batch, r->kv_type, (long long)r->n_threads, r->median, r->least,
               r->most);
    if (r->is_decode) {
        buf_printf(b, " %5.1f %% of %4.0f GB/s", share(r->bytes_per_s, r->plain_bytes_per_s) * 100,
                   r->plain_bytes_per_s * 1e-9);
    } else {
        buf_printf(b, " %20s", "");
    }
    buf_printf(b, " %9.1f %%", share(r->ops_per_s, m->dot_ops_per_s) * 100);
    if (earlier > 0) {
        buf_printf(b, "   x %.3f", r->median / earlier);
    }
    buf_char(b, '\n');
}

void bench_put_json(struct buf *b, const struct bench_result *r, const struct bench_machine *m)
{
    buf_printf(b,
               "{\"test\":\"%s\",\"tokens\":%lld,\"depth\":%lld,\"batch\":%lld,\"threads\":%lld,"
               "\"kv_type\":\"%s\",\"tokens_per_s\":%.3f,\"min\":%.3f,\"max\":%.3f,"
               "\"repeats\":%lld,\"gb_per_s\":%.3f,\"gop_per_s\":%.3f,"
               "\"plain_gb_per_s\":%.3f,\"plain_gop_per_s\":%.3f,\"read_share\":%.4f,"
               "\"compute_share\":%.4f}",
               test_name(r), (long long)r->n_tokens, (long long)r->depth, (long long)r->batch,
               (long long)r->n_threads, r->kv_type, r->median, r->least, r->most,
               (long long)r->repeats, r->bytes_per_s * 1e-9, r->ops_per_s * 1e-9,
               r->plain_bytes_per_s * 1e-9, m->dot_ops_per_s * 1e-9,
               share(r->bytes_per_s, r->plain_bytes_per_s), share(r->ops_per_s, m->dot_ops_per_s));
}
