/* Building a program from a GGUF file: the vocabulary in which worker/arch/<name>.c describes an
 * architecture. See worker/arch/README.md for how to add one.
 *
 * Values are rows of buffers (struct op_rows). Every helper appends ops and returns the value they
 * compute. The first error sticks in the model: helpers then do nothing, so a description reads
 * straight down, and the caller looks at model.status once. Numbers that come from the file are
 * checked when they are read, shapes when a tensor is used. */
#ifndef WORKER_MODEL_H
#define WORKER_MODEL_H

#include "shared/err.h"
#include "shared/gguf.h"
#include "worker/program.h"

struct model {
    const struct gguf *g;  /* borrowed; must outlive the program */
    struct program *p;     /* borrowed; being built */
    struct err *e;         /* borrowed; filled with the first error */
    int status;            /* 0 or that error */
    const char *arch;      /* prefix of the metadata keys; owned by the program's arena */
    int64_t n_ctx;         /* context that the engine will serve */
    enum type kv_type;
    int layer;             /* that tensor names and keys refer to; -1: the whole model */
    unsigned char *is_used; /* per tensor of g: some op reads it */
    /* read by model_build */
    int64_t n_layer, n_embd, n_vocab, n_ctx_train;
    float norm_eps;
    enum op_norm_kind norm_kind; /* by which epsilon key the file has */
};

/* An architecture: appends the ops from tokens to logits. */
typedef void model_arch_fn(struct model *m);

/* Compiles g into p (initialised by the caller, finished by it also on failure). n_ctx decides
 * between RoPE factors for short and long contexts. warn: a sentence for the log about tensors that
 * nothing uses, else empty. Errors: ERR_MODEL_ARCH, ERR_MODEL_TENSOR, ERR_GGUF_KEY, ERR_GGUF_TYPE,
 * -ENOMEM. */
MUST_CHECK int model_build(const struct gguf *g, int64_t n_ctx, enum type kv_type,
                           struct program *p, char warn[160], struct err *e);

/* What can be said of a file before it is built. */
MUST_CHECK int model_context_train(const struct gguf *g, int64_t *ret, struct err *e);

/* --- metadata: keys without "<arch>." ----------------------------------------------------------*/

#define MODEL_REQUIRED INT64_MIN /* as default: the key must be there */
/* A number; of an array (one value per layer) that of m->layer. On error: min. */
int64_t model_int(struct model *m, const char *key, int64_t min, int64_t max, int64_t def);
double model_num(struct model *m, const char *key, double min, double max, double def);
bool model_flag(struct model *m, const char *key, bool def);
bool model_has_key(struct model *m, const char *key);
/* True when the string value of the key is `text`. */
bool model_key_is(struct model *m, const char *key, const char *text);
/* Notes an error (the first stays) about the metadata or the tensors. */
void model_fail(struct model *m, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* --- tensors: names without "blk.N." where m->layer >= 0 ---------------------------------------*/

bool model_has(struct model *m, const char *name);
/* A dimension of a tensor that must be there; 1 on error. */
int64_t model_dim(struct model *m, const char *name, int dim);
/* Parameters as F32, n values whatever their dimensions; NULL on error. */
const float *model_vec(struct model *m, const char *name, int64_t n);
/* The same, NULL without error when absent. */
const float *model_vec_maybe(struct model *m, const char *name, int64_t n);
/* Memory that lives as long as the program; NULL on error. */
void *model_alloc(struct model *m, size_t bytes);

/* --- values ------------------------------------------------------------------------------------*/

struct op_rows model_none(void);                /* no value */
bool model_is_none(struct op_rows x);
struct op_rows model_slice(struct op_rows x, int64_t col, int64_t n);
/* A new buffer with the row multiplicity of `like`. */
struct op_rows model_new(struct model *m, const char *name, int64_t n, struct op_rows like);
/* Appends an op; the layer is filled in. */
void model_emit(struct model *m, enum op_code code, const struct op *op);

/* Token embedding "token_embd". */
struct op_rows model_embed(struct model *m, double scale);
/* "<name>.weight" and, where there is one, "<name>.bias"; m->norm_kind. */
struct op_rows model_norm(struct model *m, struct op_rows x, const char *name);
/* Groups of n values, x_group apart; weights of n values, or of all groups'. NULL: no weights. */
struct op_rows model_norm_groups(struct model *m, struct op_rows x, const char *name,
                                 enum op_norm_kind kind, int64_t n_groups, int64_t n,
                                 int64_t x_group);
/* "<name>.weight" [x.n, n_out], with "<name>.bias" and "<name>.scale" where there are such. */
struct op_rows model_linear(struct model *m, struct op_rows x, const char *name, int64_t n_out);
struct op_rows model_add(struct model *m, struct op_rows a, struct op_rows b);
/* a + scale * b */
struct op_rows model_add_scaled(struct model *m, struct op_rows a, struct op_rows b, double scale);
struct op_rows model_scale(struct model *m, struct op_rows x, double scale, double cap);
struct op_rows model_copy(struct model *m, struct op_rows x, int64_t n_groups, int64_t n,
                          int64_t x_group);
/* For every group: a_n values of a, b_n values of b; groups a_group and b_group apart. */
struct op_rows model_concat(struct model *m, int64_t n_groups, struct op_rows a, int64_t a_n,
                            int64_t a_group, struct op_rows b, int64_t b_n, int64_t b_group);
/* A matrix for each group: "<name>.weight" [n_in, n_out, n_groups]. */
struct op_rows model_heads(struct model *m, struct op_rows x, const char *name, int64_t n_groups,
                           int64_t x_group, int64_t n_in, int64_t n_out);
/* Short causal convolution with "<name>.weight" [width, x.n] and, where there is one,
 * "<name>.bias". */
struct op_rows model_conv(struct model *m, struct op_rows x, const char *name, int64_t width,
                          bool silu);
/* State of a recurrent op, floats for each sequence. */
int model_state(struct model *m, int64_t floats);
/* f(gate) * up; up may be none. */
struct op_rows model_glu(struct model *m, enum op_glu_kind kind, struct op_rows gate,
                         struct op_rows up);

/* --- attention ---------------------------------------------------------------------------------*/

struct model_rope {
    struct op_rows table;
    int32_t n_rot;
    bool adjacent; /* pairs (2i, 2i+1), else (i, i + n_rot/2) */
};
struct model_rope_spec {
    int64_t n_rot;
    bool adjacent;
    double base;
    bool is_plain;    /* without the file's scaling (linear, YaRN, LongRoPE, factors in tensors) */
    double magnitude; /* of the rotated values; 0: as the file's scaling has it */
    /* Pairs are dealt to sections (key rope.dimension_sections); those of the fourth do not turn,
     * as its position is 0 in text. */
    enum { MODEL_ROPE_ONE, MODEL_ROPE_SECTIONS, MODEL_ROPE_INTERLEAVED } sections;
};
/* Makes the table. Once for the model, outside the layers. */
struct model_rope model_rope(struct model *m, const struct model_rope_spec *spec);
/* The file's YaRN factor, 1 where it has none. */
double model_yarn_factor(struct model *m);
struct op_rows model_rotate(struct model *m, struct op_rows x, int64_t n_groups, int64_t n,
                            int64_t x_group, const struct model_rope *rope);

struct model_attention {
    int64_t n_head, n_head_kv, dim_k, dim_v;
    const struct model_rope *rope; /* NULL: none */
    double scale, softcap;
    int64_t window;
    enum op_norm_kind qk_norm; /* where the file has attn_q_norm, attn_k_norm */
    bool norm_after_rope;
    const float *sinks, *alibi; /* n_head or NULL */
};
/* Reads head counts and sizes of m->layer; scale = 1/sqrt(dim_k) or the file's. */
struct model_attention model_attention_read(struct model *m);
/* The usual keys: dimension_count (default dim_k), freq_base. */
struct model_rope_spec model_rope_read(struct model *m, bool adjacent);
/* The window of m->layer by the usual keys: every `period`-th layer has none. 0: none. */
int64_t model_window(struct model *m, int64_t period, int64_t def);
/* ALiBi slopes for n_head heads and the usual largest bias. */
const float *model_alibi(struct model *m, int64_t n_head, double max_bias);
/* KV write and attention over q [n_head x dim_k], k, v. v_in_k: v is none. */
struct op_rows model_attend(struct model *m, struct op_rows q, struct op_rows k, struct op_rows v,
                            const struct model_attention *a, bool v_in_k);
/* The usual block: attn_q/k/v (or attn_qkv), norms, RoPE, attention, attn_output. */
struct op_rows model_self_attention(struct model *m, struct op_rows x,
                                    const struct model_attention *a);

/* --- feed-forward ------------------------------------------------------------------------------*/

/* down(f(gate) * up): tensors <prefix>_gate<suffix>, _up, _down. Without a gate tensor, an up twice
 * as wide holds gate and up in one; else f(up) alone. prefix is "ffn", suffix "" or "_shexp". */
struct op_rows model_ffn(struct model *m, struct op_rows x, enum op_glu_kind kind,
                         const char *suffix);

struct model_moe {
    int64_t n_expert, n_used;
    enum op_route_gating gating;
    bool normalize;
    double scale;
    int64_t n_group, n_group_used;
    enum op_glu_kind kind;
    double alpha, limit;
};
/* Reads the expert keys of the file over these defaults. */
void model_moe_read(struct model *m, struct model_moe *moe);
/* Routed experts (ffn_gate_inp, ffn_*_exps). */
struct op_rows model_experts(struct model *m, struct op_rows x, const struct model_moe *moe);
/* Shared expert ffn_*_shexp, times sigmoid of ffn_gate_inp_shexp where the file has it. */
struct op_rows model_shared_expert(struct model *m, struct op_rows x, enum op_glu_kind kind);

/* --- the end -----------------------------------------------------------------------------------*/

/* Keeps the rows that want logits, norms them with output_norm, multiplies with output (or
 * token_embd), scales, caps. */
void model_output(struct model *m, struct op_rows x, double scale, double cap);

#endif
