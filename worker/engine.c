/* The engine: opening a model, sizing its memory, closing. Worker process, the token loop's thread.
 * May block: on page faults of the mapped file. Everything that steps need is allocated here. */
#include "shared/buf.h"
#include "shared/hash.h"
#include "shared/num.h"
#include "kernels/cpu/peak.h"
#include "worker/engine_state.h"
#include "worker/memory.h"
#include "worker/model.h"
#include "worker/params.h"
#include "worker/plan.h"
#include "worker/program_use.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what a file says about itself -------------------------------------------------------------*/

/* general.file_type; numbers and words are facts of the format. */
static const char *const file_types[] = {
    [0] = "F32",           [1] = "F16",           [2] = "Q4_0",          [3] = "Q4_1",
    [7] = "Q8_0",          [8] = "Q5_0",          [9] = "Q5_1",          [10] = "Q2_K - Medium",
    [11] = "Q3_K - Small", [12] = "Q3_K - Medium", [13] = "Q3_K - Large", [14] = "Q4_K - Small",
    [15] = "Q4_K - Medium", [16] = "Q5_K - Small", [17] = "Q5_K - Medium", [18] = "Q6_K",
    [19] = "IQ2_XXS",      [20] = "IQ2_XS",       [21] = "Q2_K - Small", [22] = "IQ3_XS",
    [23] = "IQ3_XXS",      [24] = "IQ1_S",        [25] = "IQ4_NL",       [26] = "IQ3_S",
    [27] = "IQ3_S mix",    [28] = "IQ2_S",        [29] = "IQ2_M",        [30] = "IQ4_XS",
    [31] = "IQ1_M",        [32] = "BF16",         [36] = "TQ1_0",        [37] = "TQ2_0",
    [38] = "MXFP4 MoE",
};

/* The words for the file type; without the key, the type that most bytes have. */
static const char *quant_words(const struct gguf *g)
{
    uint64_t type = UINT64_MAX, bytes[TYPE_ID_END] = {0};
    if (gguf_get_u64(g, "general.file_type", 0, UINT32_MAX, UINT64_MAX, &type, NULL) == 0 &&
        type < COUNT_OF(file_types) && file_types[type]) {
        return file_types[type];
    }
    uint32_t most = TYPE_F32;
    for (size_t i = 0; i < g->n_tensors; i++) {
        uint32_t t = (uint32_t)g->tensors[i].type;
        if (t < TYPE_ID_END) {
            bytes[t] += g->tensors[i].n_bytes;
            most = bytes[t] > bytes[most] ? t : most;
        }
    }
    return type_info(most)->name;
}

/* Of all metadata but arrays' contents, and of the tensor table. */
static int fingerprint(const struct gguf *g, uint8_t ret[HASH_SHA256_BYTES])
{
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        buf_add(&b, kv->key.data, kv->key.len);
        buf_printf(&b, "=%d:%d:%llu:", (int)kv->kind, (int)kv->elem_kind,
                   (unsigned long long)kv->n);
        if (kv->kind == GGUF_STRING) {
            buf_add(&b, kv->strings[0].data, kv->strings[0].len);
        } else if (kv->kind != GGUF_ARRAY) {
            double v = gguf_elem_f64(kv, 0);
            buf_add(&b, &v, sizeof v);
        }
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        buf_printf(&b, "\n%s %d %llu %llu %llu", t->name, (int)t->type,
                   (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                   (unsigned long long)t->n_bytes);
    }
    for (size_t i = 0; i < g->n_parts; i++) {
        buf_printf(&b, "\n%zu %lld", g->parts[i].bytes, (long long)g->parts[i].mtime_ns);
    }
    bool failed = b.failed;
    if (!failed) {
        hash_sha256(b.data, b.len, ret);
    }
    buf_finish(&b);
    return failed ? -ENOMEM : 0;
}

static const double float_ops = 4; /* what one with floats takes, in operations of 8 bits */
static const double reached = 0.3; /* of a device's peaks, in steps */

/* Operations of an op's matrices for a row; of experts it takes those that it is given to. */
static double row_ops(const struct program *p, const struct op *op, const struct matmul_weight *w,
                      int64_t n)
{
    double share = op->code == OP_experts ? p->bufs[op->u.experts.y.buf].mult : (double)n;
    bool is_float = w->type == TYPE_F32 || w->type == TYPE_F16 || w->type == TYPE_BF16;
    return (is_float ? float_ops : 1) * 2 * (double)w->n_rows * (double)w->n_cols * share;
}

/* Bytes and operations of a step, and what of both its longest layer takes: no op takes longer. */
static struct pace_work work_of(const struct program *p, const struct engine_info *i)
{
    double bytes = 0, ops = 0, most_bytes = 0, most_ops = 0, sum_bytes = 0, sum_ops = 0;
    int32_t layer = -1;
    for (size_t k = 0; k < p->n_ops; k++) {
        const struct op *op = &p->ops[k];
        int64_t n;
        const struct matmul_weight *w = program_matrices(op, &n);
        if (op->layer != layer) {
            bytes = ops = 0;
            layer = op->layer;
        }
        if (!w || op->code == OP_embed) {
            continue;
        }
        double op_bytes = (double)w->n_rows * (double)n * (double)w->row_bytes;
        bytes += op_bytes;
        sum_bytes += op_bytes;
        ops += row_ops(p, op, w, n);
        sum_ops += row_ops(p, op, w, n);
        most_bytes = MAX(most_bytes, bytes);
        most_ops = MAX(most_ops, ops);
    }
    struct pace_work work = {.step_bytes = sum_bytes, .row_ops = sum_ops, .longest = 1};
    work.look_ops = float_ops * 4 * (double)i->n_embd * (double)i->n_layer;
    if (sum_bytes > 0 && sum_ops > 0) {
        work.longest = MAX(most_bytes / sum_bytes, most_ops / sum_ops);
    }
    return work;
}

static void fill_info(const struct gguf *g, const struct program *p, struct engine_info *i)
{
    const struct gguf_tensor *embed = gguf_find_tensor(g, "token_embd.weight");
    i->n_vocab = embed ? (int64_t)embed->ne[1] : 0;
    i->n_embd = embed ? (int64_t)embed->ne[0] : 0;
    i->n_layer = 0;
    for (size_t k = 0; k < p->n_ops; k++) {
        i->n_layer = MAX(i->n_layer, p->ops[k].layer + 1);
    }
    for (size_t k = 0; k < g->n_tensors; k++) {
        const struct gguf_tensor *t = &g->tensors[k];
        i->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        i->weight_bytes += t->n_bytes;
    }
    i->work = work_of(p, i);
    snprintf(i->quant, sizeof i->quant, "%s", quant_words(g));
}

/* --- sizes -------------------------------------------------------------------------------------*/

static int64_t blocks_of(int64_t n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

/* Recurrent states of one sequence. */
static int64_t state_floats(const struct program *p)
{
    int64_t n = 0;
    for (size_t i = 0; i < p->n_states; i++) {
        n += p->states[i].slot_floats;
    }
    return n;
}

static uint64_t states_bytes(const struct program *p, const struct engine_options *o,
                             int64_t n_snapshots)
{
    return (uint64_t)state_floats(p) * (uint64_t)(o->n_seqs + n_snapshots) * sizeof(float);
}

/* Of recurrent states so many snapshots are kept for every sequence, while they take no more than
 * that share of the KV cache's memory. */
static int64_t n_snapshots(const struct program *p, const struct engine_options *o, double room)
{
    double one = (double)state_floats(p) * sizeof(float);
    return one > 0 ? (int64_t)MIN(0.25 * room / one, 4.0 * (double)o->n_seqs) : 0;
}

/* Of a file's weights, what is computed with on the CPU. */
static uint64_t weights_here(const struct place *s)
{
    uint64_t n = 0;
    for (int32_t k = 0; k < s->n; k++) {
        const struct place_unit *u = &s->v[k];
        n += u->rest.place == OP_ON_CPU ? u->rest.file_bytes : 0;
        n += u->experts.place == OP_ON_CPU ? u->experts.file_bytes : 0;
    }
    return n;
}

/* Bytes that a KV cache may take, in all layers: where they lie in two memories, as many as either
 * has for its own. */
static double kv_room(const struct program *p, const struct engine_options *o,
                      const struct place *s, const struct engine_info *i)
{
    uint64_t avail = memory_available(), used = i->weight_bytes + i->scratch_bytes;
    double given = o->kv_memory_bytes ? (double)o->kv_memory_bytes : INFINITY;
    if (!engine_is_for_gpu(o)) {
        double share = avail > used ? (double)(avail - used) * o->kv_memory_share : 0;
        return o->kv_memory_bytes ? given : share;
    }
    double free_vram = o->vram_bytes > i->vram_bytes ? (double)(o->vram_bytes - i->vram_bytes) : 0;
    double n_blocks = INT32_MAX;
    if (place_is_whole(s)) { /* of recurrent models, states as well */
        return MIN(given, free_vram);
    }
    if (s->vram_kv_block_bytes > 0) {
        n_blocks = MIN(n_blocks, free_vram / (double)s->vram_kv_block_bytes);
    }
    if (s->ram_kv_block_bytes > 0) {
        uint64_t here = weights_here(s);
        double free_ram = avail > here ? (double)(avail - here) * o->kv_memory_share : 0;
        n_blocks = MIN(n_blocks, free_ram / (double)s->ram_kv_block_bytes);
    }
    return MIN(given, n_blocks * (double)kv_bytes_per_block(p->kv, p->n_kv));
}

/* What room the blocks take. */
static void note_kv(const struct program *p, const struct engine_options *o, const struct place *s,
                    struct engine_info *i)
{
    uint64_t n_blocks = (uint64_t)i->n_blocks;
    i->kv_bytes =
        kv_bytes_per_block(p->kv, p->n_kv) * n_blocks + states_bytes(p, o, i->n_snapshots);
    i->vram_kv_bytes = s->vram_kv_block_bytes * (uint64_t)i->n_device_blocks;
    i->vram_bytes += i->vram_kv_bytes;
}

/* Of blocks on a device, how many may be copied to host memory: as many as a cache there might
 * have. Of a recurrent model none: its states are not copied, without which blocks are of no
 * use. */
static int64_t n_kept(const struct program *p, const struct engine_options *o,
                      const struct place *s, const struct engine_info *i)
{
    double here = (double)weights_here(s) + (double)s->ram_kv_block_bytes * (double)i->n_blocks;
    double share = MAX((double)memory_available() - here, 0) * o->kv_memory_share;
    if (!engine_is_for_gpu(o) || p->n_states > 0 || s->vram_kv_block_bytes == 0) {
        return 0;
    }
    return (int64_t)MIN(share / (double)s->vram_kv_block_bytes, (double)i->n_blocks);
}

static void use_kept(const struct kv_size *kept, struct engine_info *i)
{
    i->n_ctx = kept->n_ctx;
    i->n_device_blocks = MIN(i->n_device_blocks, kept->n_blocks);
    i->n_blocks = kept->n_blocks;
    i->n_snapshots = kept->n_snapshots;
    i->n_kept_blocks = kept->n_kept;
}

/* What others leave of a device's memory is never twice the same; a cache of another size is
 * none. */
static bool is_near(int64_t a, int64_t b)
{
    return 4 * a >= 3 * b && 4 * b >= 3 * a;
}

/* How many blocks the pool gets and how long a context may be: what was decided for one that is
 * kept, or else by the memory that is free. */
static int size_kv(const struct program *p, const struct engine_options *o,
                   const struct kv_size *kept, const struct place *s, struct engine_info *i,
                   struct err *e)
{
    uint64_t per_block = kv_bytes_per_block(p->kv, p->n_kv);
    bool is_for_gpu = engine_is_for_gpu(o);
    if (kept && !is_for_gpu) {
        i->n_device_blocks = kept->n_blocks;
        use_kept(kept, i);
        note_kv(p, o, s, i);
        return 0;
    }
    int no_room = is_for_gpu && !o->kv_memory_bytes ? ERR_NO_VRAM : ERR_NO_MEMORY;
    double room = kv_room(p, o, s, i);
    int64_t n_ctx = o->n_ctx > 0 ? o->n_ctx : i->n_ctx_train;
    int64_t per_seq = blocks_of(n_ctx), fit = INT32_MAX / KV_BLOCK - 1;
    i->n_snapshots = n_snapshots(p, o, room);
    room = MAX(room - (double)states_bytes(p, o, i->n_snapshots), 0);
    if (per_block > 0) {
        fit = (int64_t)MIN(room / (double)per_block, (double)fit);
    }
    if (o->n_ctx > 0 && fit < per_seq) {
        return err_set(
            e, no_room,
            "a context of %lld tokens takes %.1f MiB of KV cache, %.1f MiB may be used "
            "(%s)",
            (long long)n_ctx, (double)per_block * (double)per_seq / 1048576, room / 1048576,
            o->kv_memory_bytes ? "--kv-memory" : "a share of what is free: --kv-memory-share");
    }
    if (fit < 1) {
        uint64_t avail = is_for_gpu ? o->vram_bytes : memory_available();
        uint64_t used = is_for_gpu ? i->vram_bytes : i->weight_bytes + i->scratch_bytes;
        return err_set(e, no_room, "%.1f MiB are free, the model takes %.1f MiB",
                       (double)avail / 1048576, (double)used / 1048576);
    }
    per_seq = MIN(per_seq, fit);
    i->n_ctx = MIN(n_ctx, per_seq * KV_BLOCK);
    i->n_blocks = i->n_device_blocks = MIN(fit, per_seq * o->n_seqs);
    if (kept && is_near(kept->n_blocks, i->n_blocks)) {
        use_kept(kept, i);
    } else {
        i->n_kept_blocks = n_kept(p, o, s, i);
    }
    note_kv(p, o, s, i);
    return 0;
}

static int build_for_cpu(const struct gguf *g, const struct engine_options *o, int64_t n_ctx,
                         int n_threads, struct program *p, struct engine_info *i, struct err *e)
{
    int err = model_build(g, n_ctx, o->kv_type, p, i->warn, e);
    err = err < 0 ? err : program_link(p, o->max_rows, o->max_logits, n_ctx, n_threads);
    i->scratch_bytes = p->memory_bytes + p->scratch_bytes;
    snprintf(i->profile, sizeof i->profile, "cpu %s, kv %s", isa_name(o->isa),
             type_info((uint32_t)o->kv_type)->name);
    return err;
}

/* Builds the program and sizes everything. A program whose RoPE depends on the context length is
 * built for the context that memory allows, hence the second round. */
static int build(const struct gguf *g, const struct engine_options *o, const struct kv_size *kept,
                 struct pool *pool, struct program *p, struct place *s, struct engine_info *i,
                 struct err *e)
{
    int err = model_context_train(g, &i->n_ctx_train, e);
    int64_t n_ctx = kept ? kept->n_ctx : o->n_ctx > 0 ? o->n_ctx : i->n_ctx_train;
    for (int round = 0; round < 2 && err == 0; round++) {
        struct engine_info fresh = {.n_ctx_train = i->n_ctx_train};
        program_finish(p);
        program_init(p);
        if (engine_is_for_gpu(o)) {
            err = engine_gpu_build(g, o, n_ctx, pool, p, s, &fresh, e);
        } else {
            err = build_for_cpu(g, o, n_ctx, pool_threads(pool), p, &fresh, e);
        }
        if (err < 0) {
            break;
        }
        fill_info(g, p, &fresh);
        *i = fresh;
        err = size_kv(p, o, kept, s, i, e);
        if (err < 0 || i->n_ctx == n_ctx) {
            break;
        }
        n_ctx = i->n_ctx;
    }
    /* Of a kept cache the device may have room for a part only: the program is the one that
     * computed it, but no longer context is promised. */
    i->n_ctx = MIN(i->n_ctx, i->n_device_blocks * KV_BLOCK);
    return err;
}

/* --- opening -----------------------------------------------------------------------------------*/

static void describe_memory(struct engine *en)
{
    const struct weights *w = &en->weights;
    char *text = en->info.memory;
    size_t room = sizeof en->info.memory;
    int n = snprintf(text, room, "weights %s, %.0f %% in huge pages",
                     !w->map        ? "as in the file"
                     : w->was_kept ? "packed before"
                                    : "packed",
                     w->bytes ? 100.0 * (double)w->huge_bytes / (double)w->bytes : 0.0);
    if (en->kv_store.was_kept) {
        snprintf(text + n, room - (size_t)n, "; %llu tokens of KV cache found again",
                 (unsigned long long)en->kv.stats.n_restored * KV_BLOCK);
    }
}

static int allocate(struct engine *en, struct err *e)
{
    const struct engine_options *o = &en->options;
    struct program *p = &en->program;
    en->snapshot_floats = state_floats(p);
    int err = engine_open_kv(en, e);
    if (err < 0) {
        return err;
    }
    en->max_blocks = blocks_of(en->info.n_ctx);
    en->memory_bytes = o->door ? 0 : p->memory_bytes;
    en->scratch_bytes = p->scratch_bytes;
    en->states_bytes = o->door ? 0 : states_bytes(p, o, 0);
    en->memory = memory_map(en->memory_bytes);
    en->scratch = memory_map(en->scratch_bytes);
    en->states = memory_map(en->states_bytes);
    size_t n_seqs = (size_t)o->n_seqs, n_rows = (size_t)o->max_rows;
    en->tables = calloc(n_seqs * (size_t)en->max_blocks, sizeof *en->tables);
    en->seqs = calloc(n_seqs, sizeof *en->seqs);
    en->tokens = calloc(n_rows, sizeof *en->tokens);
    en->positions = calloc(n_rows, sizeof *en->positions);
    en->out_rows = calloc(n_rows, sizeof *en->out_rows);
    en->runs = calloc(n_rows, sizeof *en->runs);
    en->travels = calloc(n_rows, sizeof *en->travels);
    if (!en->memory || !en->scratch || !en->states || !en->tables || !en->seqs || !en->tokens ||
        !en->positions || !en->out_rows || !en->runs || !en->travels) {
        return err_set(e, ERR_NO_MEMORY, "buffers of %zu bytes", en->memory_bytes);
    }
    float *state = en->states;
    for (size_t i = 0; i < p->n_states && !o->door; i++) {
        p->states[i].data = state;
        state += p->states[i].slot_floats * o->n_seqs;
    }
    en->snapshots = (float *)(void *)en->kv.snapshot_data;
    for (int32_t i = 0; i < o->n_seqs; i++) {
        en->seqs[i].slot = i;
        en->seqs[i].blocks = en->tables + i * en->max_blocks;
    }
    if (o->door) {
        return engine_gpu_open(en, e);
    }
    en->embedding = gguf_find_tensor(&en->gguf, "token_embd.weight");
    program_place(p, OP_ON_CPU, en->memory);
    describe_memory(en);
    return 0;
}

static int name_model(struct engine *en, struct err *e)
{
    struct gguf_str s = {0};
    struct engine_info *i = &en->info;
    int err = gguf_get_str(&en->gguf, "general.name", &s, NULL);
    en->name = strndup(err == 0 && s.data ? s.data : "", err == 0 ? s.len : 0);
    err = gguf_get_str(&en->gguf, "general.architecture", &s, e);
    if (!en->name || err < 0) {
        return en->name ? err : -ENOMEM;
    }
    i->name = en->name;
    i->arch = arena_str(&en->program.arena, s.data, s.len);
    if (en->options.door) {
        return i->arch ? 0 : -ENOMEM;
    }
    snprintf(i->device, sizeof i->device, "cpu %s, %d thread%s", isa_name(en->options.isa),
             pool_threads(en->pool), pool_threads(en->pool) == 1 ? "" : "s");
    return i->arch ? 0 : -ENOMEM;
}

static int open_parts(struct engine *en, const char *path, struct err *e)
{
    const struct engine_options *o = &en->options;
    int err = gguf_open(path, &en->gguf, e);
    if (err < 0) {
        return err;
    }
    err = pool_create(o->n_threads, &en->pool);
    if (err < 0) {
        return err_set(e, err, "thread pool");
    }
    uint8_t print[HASH_SHA256_BYTES];
    err = fingerprint(&en->gguf, print);
    if (err == 0) {
        memcpy(en->info.fingerprint, print, sizeof print);
        engine_find_kv(en);
        err = build(&en->gguf, o, en->kv_store.map ? &en->kv_store.size : NULL, en->pool,
                    &en->program, &en->place, &en->info, e);
        memcpy(en->info.fingerprint, print, sizeof print);
    }
    bool is_here = !o->door, is_whole_there = o->door && place_is_whole(&en->place);
    if (err == 0 && is_here) {
        err = params_copy(&en->program, &en->gguf, e);
    }
    if (err == 0 &&
        !is_whole_there) { /* a part of the weights depends on the placement: it is not kept */
        err = weights_open(&en->weights, &en->program, o->isa, en->pool, is_here ? o->stores : NULL,
                           en->info.fingerprint, o->progress, o->progress_arg, e);
    }
    if (en->weights.map) { /* with a page the system maps up to 2 MB around it */
        gguf_let_go(&en->gguf);
    }
    if (err == 0 && is_here) {
        err = program_compile(&en->program);
        err = err < 0 ? err
                      : program_link(&en->program, o->max_rows, o->max_logits, en->info.n_ctx,
                                     pool_threads(en->pool));
        en->info.scratch_bytes = en->program.memory_bytes + en->program.scratch_bytes;
        err = err < 0 || o->profile_every == 0 ? err : profile_init(&en->profile, &en->program);
    }
    err = err < 0 ? err : name_model(en, e);
    return err < 0 ? err : allocate(en, e);
}

int engine_open(const char *path, const struct engine_options *o, struct engine **ret,
                struct err *e)
{
    ASSERT(o->n_seqs > 0 && o->max_rows > 0 && o->max_logits > 0);
    struct engine *en = calloc(1, sizeof *en);
    if (!en) {
        return -ENOMEM;
    }
    en->options = *o;
    en->options.max_logits = MIN(o->max_logits, o->max_rows);
    program_init(&en->program);
    int err = open_parts(en, path, e);
    if (err < 0) {
        if (err == -ENOMEM) {
            err_set(e, err, "loading '%s'", path);
        }
        engine_close(&en);
        return err;
    }
    *ret = en;
    return 0;
}

void engine_close(struct engine **at)
{
    struct engine *en = *at;
    if (!en) {
        return;
    }
    *at = NULL;
    while (engine_settle(en)) {
    }
    gpu_engine_destroy(&en->gpu);
    kv_pool_finish(&en->kv);
    kv_store_close(&en->kv_store);
    memory_unmap(en->memory, en->memory_bytes);
    memory_unmap(en->scratch, en->scratch_bytes);
    memory_unmap(en->states, en->states_bytes);
    free(en->tables);
    free(en->seqs);
    free(en->tokens);
    free(en->positions);
    free(en->out_rows);
    free(en->runs);
    free(en->travels);
    free(en->name);
    profile_finish(&en->profile);
    program_finish(&en->program);
    weights_close(&en->weights);
    place_finish(&en->place);
    pool_destroy(&en->pool);
    gguf_close(&en->gguf);
    free(en);
}

bool engine_mark_ops(struct engine *en, _Atomic uint32_t *mark)
{
    en->op_mark = mark;
    return en->gpu == NULL;
}

struct pace_rates engine_glance(struct engine *en)
{
    const struct rates *r = &en->options.rates;
    const struct place *s = &en->place;
    if (!en->gpu) {
        double ops = peak_dot_glance(en->pool, en->options.isa);
        return (struct pace_rates){.ops = isnan(ops) ? 0 : ops * reached};
    }
    if (s->decode_s > 0 && s->prefill_s > 0) { /* part of it is on the CPU */
        return (struct pace_rates){.bytes = en->info.work.step_bytes / s->decode_s,
                                   .ops = en->info.work.row_ops * PLACE_PROMPT / s->prefill_s};
    }
    return (struct pace_rates){.bytes = r->gpu_bytes * reached, .ops = r->gpu_ops * reached};
}

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}

struct profile *engine_profile(struct engine *en)
{
    return en->options.profile_every > 0 ? &en->profile : NULL;
}

void engine_put_profile(struct engine *en, struct buf *b)
{
    const struct profile *f = engine_profile(en);
    if (f) {
        profile_put_json(f, b);
    } else {
        buf_str(b, "null");
    }
}

const struct gguf *engine_gguf(const struct engine *en)
{
    return &en->gguf;
}

void engine_put_placement(const struct engine *en, struct buf *b)
{
    plan_put_json(&en->place, &en->info, b);
}

int engine_plan(const struct gguf *g, const struct engine_options *o, struct engine_info *ret,
                struct place *ret_place, struct err *e)
{
    struct program p;
    struct place s = {0};
    struct engine_info i = {.name = "", .arch = ""};
    struct pool *pool;
    program_init(&p);
    int err = pool_create(o->n_threads, &pool);
    if (err < 0) {
        return err_set(e, err, "thread pool");
    }
    err = build(g, o, NULL, pool, &p, &s, &i, e);
    program_finish(&p);
    pool_destroy(&pool);
    if (err < 0) {
        place_finish(&s);
        return err;
    }
    i.name = i.arch = "";
    *ret = i;
    *ret_place = s;
    return fingerprint(g, ret->fingerprint);
}

int engine_estimate(const struct gguf *g, const struct engine_options *o, struct engine_info *ret,
                    struct err *e)
{
    struct place s = {0};
    int err = engine_plan(g, o, ret, &s, e);
    place_finish(&s);
    return err;
}
