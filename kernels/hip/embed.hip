/* Rows of packed matrices as floats, for embeddings. A thread does one weight and loads its chunk, which 128 threads share:
 * 4 bytes and the weight's own, some 60 operations. */
#include "kernels/hip/group.h"

GPU_FN float embed_float(const struct embed_args *a, int row, int column, int n_chunks)
{
    int bytes = a->type == TYPE_F32 ? 4 : 2, n_words = a->type == TYPE_F32 ? 32 : 16;
    int64_t word = (int64_t)(row / ARGS_PANEL) * n_chunks + column / ARGS_CHUNK;
    word = word * n_words + column % ARGS_CHUNK * bytes / 16;
    const uint8_t *p = a->w.data + (word * ARGS_PANEL + row % ARGS_PANEL) * 16 + column * bytes % 16;
    uint32_t half = a->type == TYPE_F32 ? 0 : *(const uint16_t *)(const void *)p;
    return a->type == TYPE_F32   ? *(const float *)(const void *)p
           : a->type == TYPE_F16 ? gpu_f16_f32((uint16_t)half)
                                 : gpu_bf16_f32((uint16_t)half);
}

GPU_FN float embed_weight(const struct group_chunk *c, int type, int of_chunk, int i)
{
    float w = 0;
    GPU_UNROLL
    for (int at = 0; at < 4; at++) { /* constants: registers have no index */
        if (at == of_chunk) {
            struct group g = group_of(c, type, at);
            uint32_t word = 0;
            GPU_UNROLL
            for (int j = 0; j < 8; j++) {
                word = j == i / 4 ? g.q[j] : word;
            }
            int q = (int8_t)(word >> i % 4 * 8) - group_offset(type);
            w = (i < 16 ? g.scale[0] : g.scale[1]) * (float)q + (i < 16 ? g.min[0] : g.min[1]);
        }
    }
    return w;
}

GPU_KERNEL(embed, EMBED_THREADS)
{
    int column = gpu_block_x() * EMBED_THREADS + gpu_thread(), row = a.ids[gpu_block_y()];
    int n_chunks = (a.n_cols + ARGS_CHUNK - 1) / ARGS_CHUNK;
    if (column >= a.n_cols) {
        return;
    }
    float w;
    if (a.type == TYPE_F32 || a.type == TYPE_F16 || a.type == TYPE_BF16) {
        w = embed_float(&a, row, column, n_chunks);
    } else {
        struct group_chunk c = group_load(&a.w, a.type, n_chunks, row, column / ARGS_CHUNK,
                                          GROUP_WHOLE);
        int of_chunk = column / ARGS_GROUP % 4;
        switch (a.type) {
#define FORM(name, low, high, scale, super)                                                        \
    case TYPE_##name:                                                                              \
        w = embed_weight(&c, TYPE_##name, of_chunk, column % ARGS_GROUP);                          \
        break;
            FORMS(FORM)
#undef FORM
        default:
            w = gpu_bits_f32(0x7fc00000u); /* NaN: not silently zero */
            break;
        }
    }
    a.y[gpu_block_y() * a.y_stride + column] = a.scale * w;
}
