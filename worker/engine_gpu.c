/* The engine on the GPU, or on both: what opening a model does there. The thread that loads. */
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/log.h"
#include "worker/engine_state.h"
#include "worker/gpu/gpu_pass.h"
#include "worker/model.h"

#include <stdio.h>
#include <string.h>

enum {
    AUTO_TOKENS = 8192, /* of KV cache that must fit, where nobody says how much; what is free is taken besides */
    TRIES = 4,          /* of plans: what a plan takes is known exactly only when it is made */
};

static struct gpu_engine_options options_of(const struct engine_options *o, int64_t n_ctx)
{
    return (struct gpu_engine_options){
        .max_rows = o->max_rows,
        .max_logits = MIN(o->max_logits, o->max_rows),
        .n_seqs = o->n_seqs,
        .n_ctx = n_ctx,
        .is_safe = o->is_safe,
        .progress = o->progress,
        .progress_arg = o->progress_arg,
    };
}

/* Blocks of KV cache without which layers rather go to the CPU. */
static int64_t wanted_blocks(const struct engine_options *o, const struct program *p,
                             int64_t n_ctx_train)
{
    uint64_t per_block = kv_bytes_per_block(p->kv, p->n_kv);
    int64_t n_tokens = o->n_ctx > 0 ? o->n_ctx : MIN(n_ctx_train, (int64_t)AUTO_TOKENS);
    int64_t n_blocks = (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
    if (o->kv_memory_bytes > 0 && per_block > 0) {
        n_blocks = MAX(n_blocks, (int64_t)(o->kv_memory_bytes / per_block));
    }
    return n_blocks;
}

/* The program with the ops where the placement has them. */
static int build_placed(const struct gguf *g, const struct engine_options *o, int64_t n_ctx,
                        int n_threads, const struct place *s, struct program *p,
                        struct gpu_arena *ret, char warn[160], struct err *e)
{
    struct gpu_engine_options options = options_of(o, n_ctx);
    program_finish(p);
    program_init(p);
    int err = model_build(g, n_ctx, o->kv_type, p, warn, e);
    err = err < 0 ? err : place_apply(s, p);
    err = err < 0 ? err : gpu_pass_begin(p, e);
    err = err < 0 ? err : program_describe_weights(p, o->isa, e);
    err = err < 0 ? err : program_compile(p);
    err = err < 0 || o->is_unfused ? err : gpu_pass_join(p);
    err = err < 0 ? err : program_link(p, o->max_rows, options.max_logits, n_ctx, n_threads);
    return err < 0 ? err : gpu_engine_plan(p, &options, ret);
}

static uint64_t kv_of(const struct place *s, int64_t n_blocks)
{
    return s->vram_kv_block_bytes * (uint64_t)n_blocks;
}

static int refuse(const struct place *s, const struct place_limits *l, uint64_t room, uint64_t work,
                  struct err *e)
{
    if (s->is_slower) {
        return err_set(e, ERR_NO_VRAM, "of the model so little fits that the CPU alone is faster");
    }
    if (*s->no_kernel) {
        return err_set(e, ERR_NO_GPU, "%s", s->no_kernel);
    }
    return err_set(e, ERR_NO_VRAM,
                   "%.1f MiB may be used, of which the work takes %.1f MiB: no layer fits with a KV "
                   "cache of %lld tokens",
                   (double)room / 1048576, (double)work / 1048576, (long long)l->n_blocks * KV_BLOCK);
}

/* Of limits, the best that a plan made in earnest shows to fit. */
static int place_some(const struct gguf *g, const struct engine_options *o, int64_t n_ctx,
                      struct pool *pool, uint64_t work, struct place_limits *l, struct place *s,
                      struct program *p, struct gpu_arena *plan, char warn[160], struct err *e)
{
    int err = 0;
    l->is_required = o->is_gpu_required;
    rates_measure_cpu(&l->rates, pool, o->isa);
    for (int i = 0; i < TRIES; i++) {
        uint64_t room = o->vram_bytes;
        l->vram_bytes = room > work ? room - work : 0;
        if (!place_choose(s, l)) {
            return refuse(s, l, room, work, e);
        }
        err = build_placed(g, o, n_ctx, pool_threads(pool), s, p, plan, warn, e);
        uint64_t used = plan->used + kv_of(s, l->n_blocks);
        if (err < 0 || used <= room) {
            return err;
        }
        work += used - room;
    }
    return err_set(e, ERR_NO_VRAM, "no placement fits into %.1f MiB", (double)o->vram_bytes / 1048576);
}

static void describe(const struct engine_options *o, const struct place *s, struct engine_info *i)
{
    const char *arch = o->door ? door_arch(o->door) : "as planned";
    const char *kv = type_info((uint32_t)o->kv_type)->name, *fused = o->is_unfused ? ", unfused" : "";
    if (place_is_whole(s)) {
        snprintf(i->profile, sizeof i->profile, "gpu %s, kv %s%s", arch, kv, fused);
        snprintf(i->device, sizeof i->device, "gpu %s", arch);
        return;
    }
    place_words(s, i->place, sizeof i->place);
    /* Equal bits want every op where it was. */
    snprintf(i->profile, sizeof i->profile, "gpu %s %d/%d-%d%s + cpu %s, kv %s%s", arch, s->n_gpu_layers,
             s->n - 2, s->n_cpu_experts, s->v[s->n - 1].rest.place == OP_ON_GPU ? "+" : "",
             isa_name(o->isa), kv, fused);
    snprintf(i->device, sizeof i->device, "gpu %s (%d/%d layers) + cpu %s", arch, s->n_gpu_layers,
             s->n - 2, isa_name(o->isa));
}

int engine_gpu_build(const struct gguf *g, const struct engine_options *o, int64_t n_ctx,
                     struct pool *pool, struct program *p, struct place *s, struct engine_info *i,
                     struct err *e)
{
    struct gpu_arena plan = {0};
    place_finish(s);
    int err = model_build(g, n_ctx, o->kv_type, p, i->warn, e);
    err = err < 0 ? err : place_read(s, p);
    if (err < 0) {
        return err;
    }
    bool has_states = p->n_states > 0; /* which are kept in one place */
    struct place_limits l = {.n_blocks = wanted_blocks(o, p, i->n_ctx_train), .max_layers = o->gpu_layers, .rates = o->rates};
    bool can_whole = place_all(s);
    if (has_states && !can_whole) {
        return err_set(e, ERR_NO_GPU, "%s", s->no_kernel);
    }
    bool is_whole = can_whole && (has_states || l.max_layers < 0 || l.max_layers > s->n - 2);
    if (is_whole) {
        err = build_placed(g, o, n_ctx, pool_threads(pool), s, p, &plan, i->warn, e);
        is_whole = has_states || plan.used + kv_of(s, l.n_blocks) <= o->vram_bytes;
    }
    if (err == 0 && !is_whole) {
        uint64_t work = plan.used - plan.of_label[GPU_LABEL_WEIGHTS];
        err = place_some(g, o, n_ctx, pool, work, &l, s, p, &plan, i->warn, e);
    }
    if (err == 0 && o->is_gpu_halved && !has_states) {
        uint64_t work = plan.used - plan.of_label[GPU_LABEL_WEIGHTS];
        l.max_layers = MAX(place_gpu_layers(s) / 2, (int64_t)1);
        is_whole = false;
        err = place_some(g, o, n_ctx, pool, work, &l, s, p, &plan, i->warn, e);
    }
    if (err < 0) {
        return err;
    }
    if (is_whole && !o->door) { /* somebody wants to know */
        rates_measure_cpu(&l.rates, pool, o->isa);
        place_estimate(s, &l.rates);
    }
    i->vram_bytes = plan.used;
    i->scratch_bytes = plan.used - plan.of_label[GPU_LABEL_WEIGHTS];
    describe(o, s, i);
    return 0;
}

int engine_gpu_open(struct engine *en, struct err *e)
{
    struct engine_info *i = &en->info;
    struct gpu_engine_options g = options_of(&en->options, i->n_ctx);
    g.n_blocks = i->n_device_blocks;
    g.n_snapshots = i->n_snapshots;
    g.pool = en->pool;
    int err = gpu_engine_create(en->options.door, &en->program, &g, &en->gpu, e);
    if (err < 0) {
        return err;
    }
    err = gpu_engine_hold(en->gpu, &en->kv, (int32_t)i->n_kept_blocks);
    if (err < 0) {
        return err_set(e, ERR_NO_MEMORY, "lists for copies of the KV cache");
    }
    engine_seq_limit(en, i->n_device_blocks);
    en->device_states.zero = gpu_engine_zero_state;
    en->device_states.copy = gpu_engine_copy_state;
    gguf_let_go(&en->gguf);
    struct gpu_arena a = gpu_engine_memory(en->gpu);
    i->vram_bytes = a.used;
    int n = snprintf(i->memory, sizeof i->memory, "%.1f MB of VRAM", (double)a.used / 1e6);
    if (en->kv_store.was_kept) {
        snprintf(i->memory + n, sizeof i->memory - (size_t)n, "; %llu tokens of KV cache found again",
                 (unsigned long long)en->kv.stats.n_restored * KV_BLOCK);
    }
    for (int k = 0; k < GPU_LABEL_COUNT; k++) {
        if (a.of_label[k] > 0) {
            log_info("VRAM: %.1f MB for %s", (double)a.of_label[k] / 1e6, gpu_arena_label(k));
        }
    }
    return 0;
}

uint64_t engine_vram_bytes(const struct engine *en)
{
    return en->gpu ? gpu_engine_memory(en->gpu).used : 0;
}

uint64_t engine_vram_block_bytes(const struct engine *en)
{
    return en->gpu ? en->place.vram_kv_block_bytes : 0;
}

bool engine_can_retry(const struct engine *en)
{
    return en->gpu && gpu_engine_suspects(en->gpu) && en->program.n_states > 0;
}

const char *engine_way(const struct engine *en)
{
    return en->gpu ? gpu_route_words(gpu_engine_route(en->gpu)) : "cpu";
}

uint32_t engine_n_ways_off(const struct engine *en)
{
    return en->gpu ? gpu_engine_route(en->gpu)->n_fallen : 0;
}

void engine_put_ways(const struct engine *en, struct buf *b)
{
    buf_char(b, '[');
    for (int i = 0; i < GPU_WAYS && en->gpu; i++) {
        const struct gpu_route *r = gpu_engine_route(en->gpu);
        const struct gpu_latch *l = &r->latches[i];
        bool is_on = gpu_route_may(r, (enum gpu_way)i);
        buf_printf(b, "%s{\"name\":\"%s\",\"is_on\":%s", i > 0 ? "," : "",
                   gpu_route_name((enum gpu_way)i), is_on ? "true" : "false");
        if (l->has_fallen) {
            buf_printf(b, ",\"step\":%llu,\"seconds_ago\":%llu", (unsigned long long)l->step,
                       (unsigned long long)((clock_ns() - l->fell_ns) / 1000000000));
        }
        if (!is_on) {
            const char *why = l->has_fallen ? l->why : "safe mode";
            buf_str(b, ",\"why\":");
            json_put_string(b, why, strlen(why));
        }
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

bool engine_settle(struct engine *en)
{
    return en->gpu && gpu_engine_settle(en->gpu);
}

int64_t engine_resize_kv(struct engine *en, int64_t n_blocks)
{
    n_blocks = MIN(n_blocks, en->info.n_blocks);
    if (!en->gpu) {
        return en->kv.limit;
    }
    gpu_engine_settle(en->gpu); /* what is on its way would come to where another's copy was moved */
    if (n_blocks <= en->kv.limit) { /* the same: what could not be had back may be had now */
        n_blocks = engine_seq_limit(en, n_blocks);
        return gpu_engine_resize_kv(en->gpu, n_blocks);
    }
    return engine_seq_limit(en, gpu_engine_resize_kv(en->gpu, n_blocks));
}
