/* A program: the flat list of ops over named buffers that a model is compiled to at load. The same
 * list serves prefill and decode; only the number of rows differs.
 *
 * Building (worker/model.h): every buffer is written by exactly one op, before all that read it.
 * Passes then rewrite the list (fusion, conversion of activations), and linking gives buffers their
 * memory: two buffers share bytes when they are never alive at once.
 *
 * A buffer's rows are tokens; `mult` rows for each token where a token has several (experts); only
 * the rows that want logits where is_out. */
#ifndef WORKER_PROGRAM_H
#define WORKER_PROGRAM_H

#include "kernels/ops.h"
#include "shared/arena.h"
#include "shared/err.h"
#include "shared/gguf.h"

struct program_buffer {
    const char *name; /* borrowed from the arena, or static */
    int32_t layer;    /* -1: none */
    int32_t n_cols;   /* floats of a row */
    int32_t mult;
    bool is_out;
    /* by program_link */
    size_t offset, bytes;
};

struct program_weights { /* matrices of one tensor: one, or all experts of a layer */
    struct matmul_weight *w; /* type, shape and data are set when building */
    int32_t n;
    enum op_place place; /* of the ops that read it */
    const char *name; /* of the tensor */
};

struct program {
    struct arena arena; /* parameters and matrices */
    struct op *ops;     /* owned */
    size_t n_ops, cap_ops;
    struct program_buffer *bufs; /* owned */
    size_t n_bufs, cap_bufs;
    struct program_weights *weights; /* owned */
    size_t n_weights, cap_weights;
    struct kv_layer *kv; /* owned; data is set by the engine */
    size_t n_kv, cap_kv;
    struct op_state *states; /* owned; data is set by the engine */
    size_t n_states, cap_states;
    struct op_rows result; /* logits */
    /* by program_link */
    size_t memory_bytes, scratch_bytes;
};

void program_init(struct program *p);
void program_finish(struct program *p);

/* Building. Each returns an index, or -ENOMEM. */
MUST_CHECK int program_add_buffer(struct program *p, const char *name, int layer, int64_t n_cols,
                                  int64_t mult, bool is_out);
MUST_CHECK int program_add_op(struct program *p, const struct op *op);
MUST_CHECK int program_add_weights(struct program *p, const char *name, struct matmul_weight *w,
                                   int64_t n);
MUST_CHECK int program_add_kv(struct program *p, const struct kv_layer *l);
MUST_CHECK int program_add_state(struct program *p, int64_t floats);

/* All columns of a buffer. */
struct op_rows program_rows(const struct program *p, int buf);

/* Calls fn for every rows argument of an op. */
typedef void program_visit_fn(void *arg, struct op_rows *r, bool is_out);
void program_visit(struct op *op, program_visit_fn *fn, void *arg);
/* From op `first` on, what read buffer `from` reads buffer `to`. */
void program_redirect(struct program *p, size_t first, int32_t from, int32_t to);

/* Describes the CPU's matrices for the instruction set; their packed form is for worker/weights.h.
 * Errors: -ENOTSUP, e names the tensor. */
MUST_CHECK int program_describe_weights(struct program *p, enum isa isa, struct err *e);
uint64_t program_weight_bytes(const struct program *p);

/* The passes, then the memory plan for steps of at most max_rows rows, max_logits of which want
 * logits. -ENOMEM. */
MUST_CHECK int program_compile(struct program *p);
MUST_CHECK int program_link(struct program *p, int64_t max_rows, int64_t max_logits, int64_t n_ctx,
                            int n_threads);
/* Sets the addresses in the ops of one place; memory holds memory_bytes. Where ops of both places
 * share a program, each place has its own memory, by the one plan: a buffer has the same offset in
 * both. */
void program_place(struct program *p, enum op_place place, char *memory);
/* Where the result is computed, and where a KV layer is written. */
enum op_place program_result_place(const struct program *p);
enum op_place program_kv_place(const struct program *p, size_t kv);

/* One step, see struct op_step. n_out: rows that want logits. */
void program_run(const struct program *p, const struct op_step *s, int64_t n_out);
/* Rows that the buffer has in a step. */
static inline int64_t program_buffer_rows(const struct program *p, int32_t buf, int64_t n_rows,
                                          int64_t n_out)
{
    return (p->bufs[buf].is_out ? n_out : n_rows) * p->bufs[buf].mult;
}
/* The part of it that op i heads (with those joined to it); false: it has no rows in this step. */
bool program_run_op(const struct program *p, size_t i, const struct op_step *s, int64_t n_out);

/* Text form, one op a line, for people. */
struct buf;
void program_print(const struct program *p, struct buf *ret);

#endif
