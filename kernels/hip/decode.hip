/* Rows of a tensor in the file's form as floats, for embeddings. A thread does one weight. */
#include "kernels/hip/args.h"
#include "kernels/hip/split.h"

GPU_FN int decode_block_elems(int type)
{
    switch (type) {
#define TYPE(name, id, elems, bytes)                                                               \
    case TYPE_##name:                                                                              \
        return elems;
#include "shared/type.def"
#undef TYPE
    default:
        return 1;
    }
}
GPU_FN int decode_block_bytes(int type)
{
    switch (type) {
#define TYPE(name, id, elems, bytes)                                                               \
    case TYPE_##name:                                                                              \
        return bytes;
#include "shared/type.def"
#undef TYPE
    default:
        return 1;
    }
}

GPU_KERNEL(decode, DECODE_THREADS)
{
    int row = gpu_block_y(), i = gpu_block_x() * DECODE_THREADS + gpu_thread();
    if (i >= a.n_cols) {
        return;
    }
    const uint8_t *data = a.data + (a.ids ? a.ids[row] : row) * a.row_bytes;
    float w;
    if (a.type == TYPE_F32) {
        w = ((const float *)(const void *)data)[i];
    } else if (a.type == TYPE_F16) {
        w = gpu_f16_f32(((const uint16_t *)(const void *)data)[i]);
    } else if (a.type == TYPE_BF16) {
        w = gpu_bf16_f32(((const uint16_t *)(const void *)data)[i]);
    } else {
        int elems = decode_block_elems(a.type), index = i / elems;
        const uint8_t *block = data + (int64_t)index * decode_block_bytes(a.type);
        struct split_one s = split_weight(a.type, block, i - index * elems);
        w = s.scale * (float)s.q + s.min;
    }
    a.y[row * a.y_stride + i] = a.scale * w;
}
