/* The plan of a model in words (see plan.h). */
#include "worker/plan.h"

#include "shared/json.h"

#include <stdio.h>
#include <string.h>

struct row { /* parts that were placed alike */
    char name[40];
    bool is_gpu;
    const char *why;
    uint64_t weights, kv;
};

static void name_units(const struct place *s, int32_t first, int32_t n, const char *of,
                       char ret[40])
{
    if (first == 0 || first == s->n - 1) {
        snprintf(ret, 40, "%s", first == 0 ? "embedding" : "output");
    } else if (n == 1) {
        snprintf(ret, 40, "%slayer %d", of, first - 1);
    } else {
        snprintf(ret, 40, "%slayers %d-%d", of, first - 1, first + n - 2);
    }
}

typedef void row_fn(void *arg, const struct row *r);

/* Calls fn for every row of the table. */
static void each_row(const struct place *s, const struct engine_info *i, row_fn *fn, void *arg)
{
    for (int32_t at = 0, n; at < s->n; at += n) {
        const struct place_unit *u = &s->v[at];
        struct row rest = {.is_gpu = u->rest.place == OP_ON_GPU, .why = place_why(u->why)};
        struct row experts = {.is_gpu = u->experts.place == OP_ON_GPU, .why = place_why(u->why)};
        bool is_split = u->experts.is_there && experts.is_gpu != rest.is_gpu;
        n = place_run(s, at);
        for (int32_t k = at; k < at + n; k++) {
            const struct place_unit *v = &s->v[k];
            rest.weights += rest.is_gpu ? v->rest.vram_bytes : v->rest.file_bytes;
            experts.weights += experts.is_gpu ? v->experts.vram_bytes : v->experts.file_bytes;
            rest.kv += v->kv_block_bytes * (uint64_t)i->n_blocks;
        }
        rest.weights += is_split ? 0 : experts.weights;
        name_units(s, at, n, "", rest.name);
        fn(arg, &rest);
        if (is_split) {
            name_units(s, at, n, "experts of ", experts.name);
            experts.why = place_why(PLACE_NO_ROOM);
            fn(arg, &experts);
        }
    }
}

/* --- table -------------------------------------------------------------------------------------*/

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576;
}

static void put_row(void *arg, const struct row *r)
{
    buf_printf(arg, "  %-26s %-4s %12.1f %12.1f  %s\n", r->name, r->is_gpu ? "GPU" : "CPU",
               mib(r->weights), mib(r->kv), r->why);
}

static void put_rate(struct buf *b, double seconds, double n)
{
    buf_printf(b, seconds > 0 ? "%.4g" : "-", n / seconds);
}

void plan_put_table(const struct place *s, const struct engine_info *i, uint64_t vram_bytes,
                    struct buf *b)
{
    buf_printf(b, "  %-26s %-4s %12s %12s  %s\n", "part", "on", "weights, MiB", "KV, MiB", "why");
    each_row(s, i, put_row, b);
    uint64_t work = i->vram_bytes - i->vram_kv_bytes - s->vram_bytes;
    buf_printf(b,
               "  VRAM: %.1f MiB for weights, %.1f for the KV cache, %.1f to work in; %.1f of %.1f "
               "in all\n",
               mib(s->vram_bytes), mib(i->vram_kv_bytes), mib(work), mib(i->vram_bytes),
               mib(vram_bytes));
    buf_printf(b, "  context %lld tokens, KV cache for %lld\n", (long long)i->n_ctx,
               (long long)(i->n_blocks * ENGINE_BLOCK_TOKENS));
    buf_str(b, "  estimated: ");
    put_rate(b, s->decode_s, 1);
    buf_str(b, " tokens/s, prompts ");
    put_rate(b, s->prefill_s, PLACE_PROMPT);
    buf_str(b, "; on the CPU alone ");
    put_rate(b, s->cpu_decode_s, 1);
    buf_str(b, " and ");
    put_rate(b, s->cpu_prefill_s, PLACE_PROMPT);
    buf_printf(b,
               "\n  by rates of %.0f GB/s (CPU, measured), %.0f GB/s (GPU, by its kind), %.0f GB/s "
               "between them\n",
               s->rates.cpu_bytes / 1e9, s->rates.gpu_bytes / 1e9, s->rates.link_bytes / 1e9);
}

/* --- JSON --------------------------------------------------------------------------------------*/

struct json {
    struct buf *b;
    bool is_first;
};

static void put_part(void *arg, const struct row *r)
{
    struct json *j = arg;
    buf_printf(j->b,
               "%s{\"part\":\"%s\",\"device\":\"%s\",\"weight_bytes\":%llu,\"kv_bytes\":%llu,"
               "\"why\":\"%s\"}",
               j->is_first ? "" : ",", r->name, r->is_gpu ? "gpu" : "cpu",
               (unsigned long long)r->weights, (unsigned long long)r->kv, r->why);
    j->is_first = false;
}

void plan_put_json(const struct place *s, const struct engine_info *i, struct buf *b)
{
    if (s->n == 0) {
        buf_str(b, "null");
        return;
    }
    struct json j = {b, true};
    buf_printf(b,
               "{\"gpu_layers\":%d,\"layers\":%d,\"experts_on_cpu\":%d,\"vram_bytes\":%llu,"
               "\"vram_weight_bytes\":%llu,\"vram_kv_bytes\":%llu,\"parts\":[",
               s->n_gpu_layers, s->n - 2, s->n_cpu_experts, (unsigned long long)i->vram_bytes,
               (unsigned long long)s->vram_bytes, (unsigned long long)i->vram_kv_bytes);
    each_row(s, i, put_part, &j);
    buf_str(b, "]}");
}
