/* The grid of every kernel with the largest shapes that a step can have: HIP takes 65,535 blocks in
 * y and z, and fewer than 2^32 threads in x; a launch beyond is refused, and the step with it. */
#include "kernels/hip/table.h"
#include "shared/config.h"
#include "shared/limits.h"
#include "tests/test.h"

/* Larger than in any model there is. */
enum {
    CHUNK = 8192,
    ROWS = CHUNK + LIMIT_SLOTS, /* the largest chunk, and a token of every other sequence */
    WIDTH = 65536,
    HEADS = 256,
    HEAD_DIM = 256,
    EXPERTS = 1024,
    USED = 64,
    EMIT_GEMV_ROWS = 16, /* of which gemv does products, GPU_EMIT_GEMV_ROWS of worker/gpu */
    EMIT_SLOTS = 64      /* GPU_EMIT_EXPERT_SLOTS */
};

static void check(enum table_id id, const void *args)
{
    const struct table_kernel *k = &table_kernels[id];
    int32_t grid[3];
    k->grid(args, grid);
    bool is_launched = grid[0] > 0 && grid[1] > 0 && grid[2] > 0 && grid[1] <= 65535 &&
                       grid[2] <= 65535 && (int64_t)grid[0] * k->threads < INT64_C(1) << 32;
    if (!is_launched) {
        TEST_FAIL("%s: a grid of %d x %d x %d", k->name, (int)grid[0], (int)grid[1], (int)grid[2]);
    }
}

static void test_elementwise(void)
{
    struct norm_args norm = {.n_rows = ROWS, .n_groups = HEADS, .n = HEAD_DIM};
    check(TABLE_norm, &norm);
    struct quantize_args quantize = {.n_rows = ROWS * HEADS, .n = 512};
    check(TABLE_quantize, &quantize);
    quantize = (struct quantize_args){.n_rows = ROWS * USED, .n = WIDTH};
    check(TABLE_quantize, &quantize);
    struct rope_args rope = {.n_rows = ROWS, .n_groups = HEADS, .n = HEAD_DIM, .n_rot = 2};
    check(TABLE_rope, &rope);
    struct glu_args glu = {.n_rows = ROWS * USED, .n_groups = 1, .n = WIDTH};
    check(TABLE_glu, &glu);
    struct add_args add = {.n_rows = ROWS, .n = WIDTH};
    check(TABLE_add, &add);
    struct scale_args scale = {.n_rows = ROWS, .n = LIMIT_VOCAB};
    check(TABLE_scale, &scale);
    struct copy_args copy = {.n_rows = ROWS, .n_groups = HEADS, .n = HEAD_DIM};
    check(TABLE_copy, &copy);
    struct embed_args embed = {.n_rows = ROWS, .n_cols = WIDTH};
    check(TABLE_embed, &embed);
    struct top_args top = {
        .n_rows = ROWS, .n = LIMIT_VOCAB, .n_parts = TABLE_CEIL(LIMIT_VOCAB, TOP_PART)};
    check(TABLE_top_part, &top);
    check(TABLE_top_fold, &top);
}

static void test_matmul(enum table_id id)
{
    const char *name = table_kernels[id].name;
    bool is_gemm = strncmp(name, "gemm", 4) == 0;
    struct matmul_args a = {.w = {{.n_rows = LIMIT_VOCAB}, {.n_rows = WIDTH}, {.n_rows = WIDTH}},
                            .n_w = MATMUL_MAX,
                            .n_tokens = ROWS,
                            .glu = MATMUL_NO_GLU};
    check(id, &a);
    /* With experts, or with a matrix for every head; many go by the order. */
    static const int32_t ids[1], order[1];
    a.n_w = 1;
    a.ids = ids;
    a.order = is_gemm ? order : NULL;
    a.n_expert = EXPERTS;
    a.n_tokens = is_gemm ? ROWS * USED : EMIT_SLOTS;
    check(id, &a);
    a.n_expert = HEADS;
    a.n_tokens = (is_gemm ? ROWS : EMIT_GEMV_ROWS) * HEADS;
    check(id, &a);
}

static void test_experts(void)
{
    struct route_args route = {.n_rows = ROWS, .n_expert = EXPERTS, .n_used = USED};
    check(TABLE_route, &route);
    struct order_args order = {.n_rows = ROWS, .n_expert = EXPERTS, .n_used = USED};
    check(TABLE_order, &order);
    struct combine_args combine = {.n_rows = ROWS, .n = WIDTH, .n_used = USED};
    check(TABLE_combine, &combine);
}

static void test_attention(void)
{
    struct kv_write_args kv = {.n_rows = ROWS,
                               .n_head = HEADS,
                               .n_kv_head = HEADS,
                               .dim_k = ATTENTION_MAX_DIM,
                               .dim_v = 1024,
                               .n_rot = 2};
    static float q[1];
    kv.q = q;
    check(TABLE_kv_write, &kv);
    check(TABLE_kv_write_q8, &kv);
    struct attention_args a = {.n_rows = ROWS,
                               .n_head = HEADS,
                               .dim_k = ATTENTION_MAX_DIM,
                               .dim_v = 1024,
                               .n_splits = LIMIT_CONTEXT_TOKENS / ATTENTION_SPLIT,
                               .n_tiles = ROWS};
    static const enum table_id ids[] = {
        TABLE_attention_split,     TABLE_attention_split_q8,     TABLE_attention_split_wide,
        TABLE_attention_split_one, TABLE_attention_split_one_q8, TABLE_attention_split_one_wide,
        TABLE_attention_fold,      TABLE_attention_tile,         TABLE_attention_tile_q8,
        TABLE_attention_tile_wide};
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        a.n_kv_head = HEADS;
        check(ids[i], &a);
        a.n_kv_head = 1;
        check(ids[i], &a);
    }
}

static void test_recurrent(void)
{
    struct conv_args conv = {.n_runs = ROWS, .n = WIDTH};
    check(TABLE_conv, &conv);
    struct ssm_args ssm = {.n_runs = ROWS, .n_head = HEADS, .dim = HEAD_DIM};
    check(TABLE_ssm, &ssm);
    struct delta_args delta = {.n_runs = ROWS, .n_head_v = HEADS, .dim_v = HEAD_DIM};
    check(TABLE_delta, &delta);
}

int main(void)
{
    CHECK(config_rows[CONFIG_chunk_size].max <= CHUNK);
    test_elementwise();
    for (int id = 0; id < TABLE_COUNT; id++) {
        if (table_kernels[id].op == OP_matmul) {
            test_matmul((enum table_id)id);
        }
    }
    test_experts();
    test_attention();
    test_recurrent();
    return 0;
}
