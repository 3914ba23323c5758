/* The memory plan of a program, and who uses its buffers. Pure; run once at load. */
#include "shared/num.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- uses --------------------------------------------------------------------------------------*/

struct noting {
    struct program_use *use;
    int32_t op;
};

static void note_use(void *arg, struct op_rows *r, bool is_out)
{
    struct noting *n = arg;
    struct program_use *use = &n->use[r->buf];
    if (is_out) {
        use->writer = n->op;
    } else {
        use->last_reader = n->op;
        use->n_readers++;
    }
}

struct program_use *program_find_uses(const struct program *p)
{
    struct noting n = {.use = malloc((p->n_bufs + 1) * sizeof *n.use)};
    if (!n.use) {
        return NULL;
    }
    for (size_t i = 0; i < p->n_bufs; i++) {
        n.use[i] = (struct program_use){-1, -1, 0};
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        n.op = (int32_t)i;
        program_visit(&p->ops[i], note_use, &n);
    }
    return n.use;
}

static void find_output(void *arg, struct op_rows *r, bool is_out)
{
    if (is_out) {
        *(int *)arg = r->buf;
    }
}

int program_output(const struct op *op)
{
    struct op copy = *op;
    int buf = -1;
    program_visit(&copy, find_output, &buf);
    return buf;
}

const struct matmul_weight *program_matrices(const struct op *op, int64_t *ret_n)
{
    *ret_n = 1;
    switch (op->code) {
    case OP_embed:
        return op->u.embed.table;
    case OP_matmul:
        return op->u.matmul.w;
    case OP_experts:
        *ret_n = op->u.experts.n_expert;
        return op->u.experts.w;
    case OP_heads:
        *ret_n = op->u.heads.n_groups;
        return op->u.heads.w;
    default:
        return NULL;
    }
}

/* --- memory ------------------------------------------------------------------------------------*/

struct live { /* a placed buffer that is still needed */
    size_t offset, bytes;
    int32_t last;
};

/* The lowest gap that holds the bytes, in a list sorted by offset. */
static size_t place(struct live *live, size_t *n_live, size_t bytes, int32_t last)
{
    size_t offset = 0, at = 0;
    while (at < *n_live && live[at].offset < offset + bytes) {
        offset = live[at].offset + live[at].bytes;
        at++;
    }
    memmove(&live[at + 1], &live[at], (*n_live - at) * sizeof *live);
    live[at] = (struct live){offset, bytes, last};
    ++*n_live;
    return offset;
}

/* What stands there is needed up to op `last`. */
static void keep(struct live *live, size_t n_live, size_t offset, int32_t last)
{
    for (size_t k = 0; k < n_live; k++) {
        if (live[k].offset == offset) {
            live[k].last = MAX(live[k].last, last);
        }
    }
}

/* Forgets what nobody reads from op i on. */
static void release(struct live *live, size_t *n_live, size_t i)
{
    size_t n = 0;
    for (size_t k = 0; k < *n_live; k++) {
        if (live[k].last >= (int32_t)i) {
            live[n++] = live[k];
        }
    }
    *n_live = n;
}

/* What a run of ops of one place reads from outside stays until the run is done, so that it can be
 * done again. */
static void stretch(const struct program *p, struct program_use *use)
{
    for (size_t first = 0, end; first < p->n_ops; first = end) {
        end = first + 1;
        while (end < p->n_ops && p->ops[end].place == p->ops[first].place) {
            end++;
        }
        for (size_t buf = 0; buf < p->n_bufs; buf++) {
            int32_t last = use[buf].last_reader;
            if (last >= (int32_t)first && last < (int32_t)end && use[buf].writer < (int32_t)first) {
                use[buf].last_reader = (int32_t)end - 1;
            }
        }
    }
}

/* The CPU's glu in the job of its two products, op `first` on, overwrites its gate, which nobody
 * else reads: what a thread computes of both it turns into that part of the result. Returns the
 * gate's buffer, -1 where there is none. */
static int32_t overwritten(const struct program *p, size_t first, size_t op,
                           const struct program_use *use)
{
    const struct op *o = &p->ops[op];
    if (o->code != OP_glu || op == first || o->place != OP_ON_CPU ||
        use[o->u.glu.gate.buf].n_readers > 1) {
        return -1;
    }
    return o->u.glu.gate.buf;
}

static bool place_output(struct program *p, size_t op, const struct program_use *use,
                         size_t first_op, size_t last_op, uint64_t max_rows, uint64_t max_logits,
                         struct live *live, size_t *n_live)
{
    int buf = program_output(&p->ops[op]);
    uint64_t bytes;
    if (buf < 0) {
        return true;
    }
    struct program_buffer *b = &p->bufs[buf];
    uint64_t rows = (b->is_out ? max_logits : max_rows) * (uint64_t)b->mult;
    if (!num_mul(rows, (uint64_t)b->n_cols * sizeof(float), &bytes)) {
        return false;
    }
    int32_t last = buf == p->result.buf ? INT32_MAX : MAX(use[buf].last_reader, (int32_t)last_op);
    b->bytes = num_pad(bytes, 64);
    int32_t gate = overwritten(p, first_op, op, use);
    if (gate >= 0 && p->bufs[gate].bytes == b->bytes) {
        b->offset = p->bufs[gate].offset;
        keep(live, *n_live, b->offset, last);
        return true;
    }
    b->offset = place(live, n_live, b->bytes, last);
    p->memory_bytes = MAX(p->memory_bytes, b->offset + b->bytes);
    return true;
}

int program_link(struct program *p, int64_t max_rows, int64_t max_logits, int64_t n_ctx,
                 int n_threads)
{
    struct program_use *use = program_find_uses(p);
    struct live *live = malloc((p->n_bufs + 1) * sizeof *live);
    size_t n_live = 0;
    bool ok = use && live;
    p->memory_bytes = p->scratch_bytes = 0;
    if (use) {
        stretch(p, use);
    }
    /* Joined ops run at once: their outputs stand beside everything that any of them reads. */
    for (size_t i = 0, end; i < p->n_ops && ok; i = end) {
        end = i + 1u + p->ops[i].n_joined;
        release(live, &n_live, i);
        for (size_t k = i; k < end && ok; k++) {
            if (p->ops[k].place == OP_ON_CPU) {
                p->scratch_bytes =
                    MAX(p->scratch_bytes,
                        ops_scratch_bytes(&p->ops[k], p->kv, max_rows, n_ctx, n_threads));
            }
            ok = place_output(p, k, use, i, end - 1, (uint64_t)max_rows, (uint64_t)max_logits, live,
                              &n_live);
        }
    }
    free(live);
    free(use);
    return ok ? 0 : -ENOMEM;
}

struct placing {
    struct program *p;
    char *memory;
};

static void place_rows(void *arg, struct op_rows *r, bool is_out)
{
    (void)is_out;
    struct placing *to = arg;
    const struct program_buffer *b = &to->p->bufs[r->buf];
    r->stride = b->n_cols;
    r->data = (float *)(void *)(to->memory + b->offset) + r->col;
}

void program_place(struct program *p, enum op_place place, char *memory)
{
    struct placing to = {p, memory};
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].place == place) {
            program_visit(&p->ops[i], place_rows, &to);
        }
    }
    if (program_result_place(p) == place) {
        place_rows(&to, &p->result, true);
    }
}

enum op_place program_result_place(const struct program *p)
{
    size_t i = p->n_ops;
    while (i-- > 0) {
        if (program_output(&p->ops[i]) == p->result.buf) {
            return p->ops[i].place;
        }
    }
    return OP_ON_CPU;
}

enum op_place program_kv_place(const struct program *p, size_t kv)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_kv_write && p->ops[i].u.kv_write.layer == (int32_t)kv) {
            return p->ops[i].place;
        }
    }
    return OP_ON_CPU;
}
