/* One step: rows of tokens through the program. The token loop's thread, which drives the pool; no
 * allocation, no system call but the pool's waking and sleeping, the reading of the embedding's
 * rows, and now and then advice on memory. */
#include "worker/engine_state.h"

#include <string.h>

enum { ROWS_PER_HUGE_PAGE = 64 }; /* a step makes one huge page, and one more for so many rows */

/* Gathers the rows into runs, one per sequence. */
static int64_t find_runs(struct engine *en, const struct engine_row *rows, int64_t n)
{
    int64_t n_runs = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct engine_seq *s = rows[i].seq;
        if (i == 0 || rows[i - 1].seq != s) {
            en->runs[n_runs++] = (struct op_run){
                .first = i, .pos = s->n_tokens, .blocks = s->blocks, .state = s->slot};
        }
        struct op_run *run = &en->runs[n_runs - 1];
        en->positions[i] = (int32_t)(run->pos + run->n++);
    }
    return n_runs;
}

/* True when every value is a number; integer work, so that the compiler makes vectors of it. */
static bool is_finite(const float *x, int64_t n)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

/* How many of the largest logits the device picks out, and which rows' logits travel whole. */
static int32_t choose_top(struct engine *en, const struct engine_row *rows, int64_t n)
{
    int32_t n_top = 0;
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++) {
        if (rows[i].want_logits) {
            ASSERT(rows[i].n_top <= ENGINE_TOP);
            n_top = MAX(n_top, rows[i].n_top);
            en->travels[out++] = rows[i].n_top == 0;
        }
    }
    n_top = en->gpu ? gpu_engine_top_size(en->gpu, n_top) : 0;
    for (int64_t i = 0; i < out && n_top == 0; i++) {
        en->travels[i] = true;
    }
    return n_top;
}

struct engine_top engine_top(const struct engine *en, int64_t i)
{
    ASSERT(en->gpu);
    return gpu_engine_top(en->gpu, i);
}

const float *engine_logits(struct engine *en, int64_t i)
{
    ASSERT(en->gpu);
    return gpu_engine_logits(en->gpu, i);
}

/* Read in place, a prompt of many different tokens would leave the whole table in this process,
 * beside the packed copy that a tied output matrix has. */
static bool read_embedding(void *arg, int64_t row, void *to)
{
    const struct engine *en = arg;
    size_t bytes = type_row_bytes(en->embedding->type, en->embedding->ne[0]);
    return gguf_read(&en->gguf, en->embedding, (uint64_t)row * bytes, bytes, to);
}

/* Where the logits of the rows stand; ERR_NUMERIC, if any of them is no number. */
static int take_logits(const struct engine *en, const float *logits, int64_t stride, int64_t n_out,
                       const float **ret_logits, struct err *e)
{
    for (int64_t i = 0; i < n_out; i++) {
        ret_logits[i] = en->travels[i] ? logits + i * stride : NULL;
        bool is_sound = en->travels[i] ? is_finite(ret_logits[i], en->info.n_vocab)
                                       : gpu_engine_is_finite(en->gpu, i);
        if (!is_sound) {
            return err_set(e, ERR_NUMERIC, "row %d of the step", en->out_rows[i]);
        }
    }
    return 0;
}

int engine_step(struct engine *en, const struct engine_row *rows, int64_t n,
                const float **ret_logits, struct err *e)
{
    int64_t n_out = 0;
    ASSERT(n >= 1 && n <= en->options.max_rows);
    for (int64_t i = 0; i < n; i++) {
        if (rows[i].token < 0 || rows[i].token >= en->info.n_vocab) {
            return err_set(e, ERR_BAD_TOKEN, "row %lld: token %d, the vocabulary has %lld",
                           (long long)i, rows[i].token, (long long)en->info.n_vocab);
        }
        en->tokens[i] = rows[i].token;
        if (rows[i].want_logits) {
            ASSERT(n_out < en->options.max_logits);
            en->out_rows[n_out++] = (int32_t)i;
        }
    }
    struct op_step step = {
        .isa = en->options.isa,
        .pool = en->pool,
        .n_rows = n,
        .tokens = en->tokens,
        .positions = en->positions,
        .out_rows = en->out_rows,
        .runs = en->runs,
        .n_runs = find_runs(en, rows, n),
        .kv = en->program.kv,
        .states = en->program.states,
        .scratch = en->scratch,
        .op_mark = en->op_mark,
        /* where nothing is packed, a tied table is in this process anyway */
        .read_row = en->embedding && en->weights.map ? read_embedding : NULL,
        .read_row_arg = en,
    };
    for (int64_t i = 0; i < step.n_runs; i++) {
        const struct engine_seq *s = rows[en->runs[i].first].seq;
        ASSERT(s->n_tokens + en->runs[i].n <= s->n_blocks * KV_BLOCK);
    }
    const struct op_rows *result = &en->program.result;
    const float *logits = result->data;
    int64_t stride = result->stride;
    int32_t n_top = choose_top(en, rows, n);
    if (en->gpu) {
        logits = gpu_engine_step(en->gpu, &step, n_out, n_top, en->travels);
        stride = result->n;
    } else if (en->options.profile_every > 0 &&
               en->n_steps++ % (uint64_t)en->options.profile_every == 0) {
        profile_run(&en->profile, &en->program, &step, n_out);
    } else {
        program_run(&en->program, &step, n_out);
    }
    if (!en->gpu) {
        kv_make_huge(&en->kv, 1 + n / ROWS_PER_HUGE_PAGE); /* between steps nobody reads the pool */
    }
    int err = take_logits(en, logits, stride, n_out, ret_logits, e);
    if (err < 0 && en->gpu && gpu_engine_step_again(en->gpu, &step, n_out, en->travels)) {
        err = take_logits(en, logits, stride, n_out, ret_logits, e);
    }
    if (err == 0 && n_out > 0 && en->gpu) {
        gpu_engine_blame(en->gpu);
    }
    for (int64_t i = 0; i < step.n_runs; i++) {
        const struct op_run *run = &en->runs[i];
        struct engine_seq *s = rows[run->first].seq;
        ASSERT(s->n_tokens == run->pos); /* a sequence has one run in a step */
        s->is_spoiled = s->is_spoiled || err < 0;
        engine_seq_advance(en, s, en->tokens + run->first, run->n);
    }
    return err;
}
