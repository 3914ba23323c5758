/* The CPU's table of ops. Runs on the token loop's thread, which drives the pool. */
#include "kernels/ops.h"

#include "kernels/cpu/ops_job.h"

const char *ops_name(enum op_code code)
{
    static const char *const names[] = {
#define OP(name, limit, fields) #name,
#include "kernels/ops.def"
#undef OP
    };
    return names[code];
}

float ops_error_limit(enum op_code code)
{
    static const float limits[] = {
#define OP(name, limit, fields) limit,
#include "kernels/ops.def"
#undef OP
    };
    return limits[code];
}

void ops_run(const struct op *op, const struct op_step *s, int64_t n)
{
    if (op->n_joined > 0) {
        op_products_run(op, s, n);
        return;
    }
    switch (op->code) {
#define OP(name, limit, fields)                                                                    \
    case OP_##name:                                                                                \
        op_##name##_run(&op->u.name, s, n);                                                        \
        break;
#include "kernels/ops.def"
#undef OP
    case OP_COUNT:
        break;
    }
}

size_t ops_scratch_bytes(const struct op *op, const struct kv_layer *kv, int64_t max_rows,
                         int64_t n_ctx, int n_threads)
{
    if (op->code == OP_embed) {
        return op_embed_scratch(&op->u.embed, n_threads);
    }
    if (op->code == OP_attention) {
        const struct op_attention *a = &op->u.attention;
        return op_attention_scratch(a, &kv[a->layer], n_ctx, n_threads);
    }
    if (op->code == OP_heads) {
        return op_heads_scratch(&op->u.heads, max_rows, n_threads);
    }
    return 0;
}
