/* The engine on the GPU: what opening a model does there. The thread that loads. */
#include "shared/log.h"
#include "worker/engine_state.h"
#include "worker/gpu/gpu_pass.h"

#include <stdio.h>

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

int engine_gpu_build(struct program *p, const struct engine_options *o, int64_t n_ctx,
                     int n_threads, struct engine_info *i, struct err *e)
{
    struct gpu_engine_options g = options_of(o, n_ctx);
    struct gpu_arena plan;
    int err = gpu_pass_begin(p, e);
    err = err < 0 ? err : program_compile(p);
    err = err < 0 || o->is_unfused ? err : gpu_pass_join(p);
    err = err < 0 ? err : program_link(p, o->max_rows, g.max_logits, n_ctx, n_threads);
    err = err < 0 ? err : gpu_engine_plan(p, &g, &plan);
    if (err < 0) {
        return err;
    }
    i->weight_bytes = plan.of_label[GPU_LABEL_WEIGHTS];
    i->scratch_bytes = plan.used - i->weight_bytes;
    snprintf(i->profile, sizeof i->profile, "gpu %s, kv %s%s", door_arch(o->door),
             type_info((uint32_t)o->kv_type)->name, o->is_unfused ? ", unfused" : "");
    snprintf(i->device, sizeof i->device, "gpu %s", door_arch(o->door));
    return 0;
}

int engine_gpu_open(struct engine *en, struct err *e)
{
    struct engine_info *i = &en->info;
    struct gpu_engine_options g = options_of(&en->options, i->n_ctx);
    g.n_blocks = i->n_blocks;
    g.n_snapshots = i->n_snapshots;
    g.pool = en->pool;
    int err = gpu_engine_create(en->options.door, &en->program, &g, &en->gpu, e);
    if (err < 0) {
        return err;
    }
    en->kv.copy = gpu_engine_copy_block;
    en->kv.copy_arg = en->gpu;
    en->device_states.zero = gpu_engine_zero_state;
    en->device_states.copy = gpu_engine_copy_state;
    gguf_let_go(&en->gguf);
    struct gpu_arena a = gpu_engine_memory(en->gpu);
    snprintf(i->memory, sizeof i->memory, "%.1f MB of VRAM", (double)a.used / 1e6);
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
    return en->gpu ? kv_bytes_per_block(en->program.kv, en->program.n_kv) : 0;
}

int64_t engine_resize_kv(struct engine *en, int64_t n_blocks)
{
    n_blocks = MIN(n_blocks, en->info.n_blocks);
    if (!en->gpu) {
        return en->kv.limit;
    }
    if (n_blocks <= en->kv.limit) { /* the same: what could not be had back may be had now */
        n_blocks = engine_seq_limit(en, n_blocks);
        return gpu_engine_resize_kv(en->gpu, n_blocks);
    }
    return engine_seq_limit(en, gpu_engine_resize_kv(en->gpu, n_blocks));
}
