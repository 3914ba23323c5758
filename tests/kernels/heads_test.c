/* The ops around products: embedding, rows that want logits, a matrix for each head. */
#include "kernels/cpu/ops_job.h"
#include "kernels/quant.h"
#include "tests/kernels/ops_rig.h"

static void check_heads(enum type type, int64_t n_rows, double limit)
{
    enum { HEADS = 5, COLS = 64, ROWS = 40, GAP = 8 };
    uint64_t seed = (uint64_t)n_rows;
    struct rig g;
    struct rig_rows x = rig_random(n_rows, HEADS * (COLS + GAP), 1, &seed);
    float *data = rig_vec(HEADS * COLS * ROWS, 0, 0.2, &seed);
    size_t row_bytes = type_row_bytes(type, COLS);
    char *coded = malloc(row_bytes * HEADS * ROWS);
    CHECK(coded);
    if (type == TYPE_F32) {
        memcpy(coded, data, row_bytes * HEADS * ROWS);
    } else {
        quant_encoder(type)(data, coded, HEADS * COLS * ROWS, NULL);
        quant_decoder(type)(coded, data, HEADS * COLS * ROWS);
    }
    rig_init(&g, n_rows, 0);
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(n_rows, HEADS * ROWS);
        struct matmul_weight w[HEADS];
        for (int h = 0; h < HEADS; h++) {
            CHECK(matmul_prepare(&w[h], type, g.step.isa, ROWS, COLS,
                                 coded + (size_t)(h * ROWS) * row_bytes, g.pool) == 0);
        }
        struct op_heads o = {.x = x.r, .y = y.r, .w = w, .n_groups = HEADS, .x_group = COLS + GAP};
        g.step.scratch = aligned_alloc(64, op_heads_scratch(&o, n_rows, g.n_threads));
        CHECK(g.step.scratch);
        op_heads_run(&o, &g.step, n_rows);
        for (int64_t r = 0; r < n_rows; r++) {
            double exact[HEADS * ROWS] = {0};
            for (int i = 0; i < HEADS * ROWS; i++) {
                for (int k = 0; k < COLS; k++) {
                    exact[i] += (double)data[i * COLS + k] *
                                (double)rig_at(&x, r)[i / ROWS * (COLS + GAP) + k];
                }
            }
            rig_compare("heads", g.step.isa, rig_at(&y, r), exact, HEADS * ROWS,
                        g.step.isa == ISA_SCALAR ? (double)ops_error_limit(OP_heads) : limit);
        }
        for (int h = 0; h < HEADS; h++) {
            matmul_finish(&w[h]);
        }
        free(g.step.scratch);
        rig_free(&y);
    }
    rig_free(&x);
    free(data);
    free(coded);
}

static void check_embed(void)
{
    enum { VOCAB = 11, COLS = 96 };
    static int32_t out_rows[] = {1, 4};
    uint64_t seed = 1;
    struct rig g;
    float *data = rig_vec(VOCAB * COLS, 0, 1, &seed), exact[VOCAB * COLS];
    char coded[VOCAB * COLS * 2];
    quant_encoder(TYPE_Q8_0)(data, coded, VOCAB * COLS, NULL);
    quant_decoder(TYPE_Q8_0)(coded, exact, VOCAB * COLS);
    struct matmul_weight table = {
        .type = TYPE_Q8_0, .data = coded, .n_rows = VOCAB, .n_cols = COLS};
    rig_init(&g, 5, 0);
    for (int i = 0; i < 5; i++) {
        g.tokens[i] = (7 * i + 10) % VOCAB;
    }
    while (rig_next(&g)) {
        struct rig_rows y = rig_rows(5, COLS), z = rig_rows(2, COLS);
        struct op_embed o = {.y = y.r, .table = &table, .scale = 4};
        op_embed_run(&o, &g.step, 5);
        g.step.out_rows = out_rows;
        struct op_gather gather = {.x = y.r, .y = z.r};
        op_gather_run(&gather, &g.step, 2);
        for (int r = 0; r < 5; r++) {
            for (int i = 0; i < COLS; i++) {
                CHECK(rig_at(&y, r)[i] == 4 * exact[g.tokens[r] * COLS + i]);
            }
        }
        for (int r = 0; r < 2; r++) {
            CHECK(memcmp(rig_at(&z, r), rig_at(&y, out_rows[r]), COLS * sizeof(float)) == 0);
        }
        rig_free(&y);
        rig_free(&z);
    }
    free(data);
}

int main(void)
{
    check_heads(TYPE_F32, 1, 3e-6);
    check_heads(TYPE_F32, 37, 3e-6);
    check_heads(TYPE_Q8_0, 17, 2e-2); /* fast forms round activations to 8 bits */
    check_embed();
    return 0;
}
