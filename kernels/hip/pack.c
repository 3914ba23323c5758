/* Rearranges weights for the GPU; see pack.h. Pure functions; any thread. */
#include "kernels/hip/pack.h"

#include "kernels/block.h"
#include "kernels/cpu/split.h"

#include <errno.h>
#include <string.h>

enum { GROUP = 32, PLANE_ALIGN = 256 };

static size_t next_plane(size_t at, size_t n_bytes)
{
    return (at + n_bytes + PLANE_ALIGN - 1) / PLANE_ALIGN * PLANE_ALIGN;
}

static size_t low_bytes(enum type type)
{
    return type == TYPE_Q8_0 ? 32 : 16;
}

int pack_layout(enum type type, int64_t n_rows, int64_t n_cols, struct pack_layout *ret)
{
    if (type != TYPE_Q4_0 && type != TYPE_Q8_0 && type != TYPE_Q4_K && type != TYPE_Q6_K) {
        return -ENOTSUP;
    }
    size_t n_groups = (size_t)n_rows * (size_t)(n_cols / GROUP);
    bool is_super = type == TYPE_Q4_K || type == TYPE_Q6_K;
    ret->low = 0;
    ret->high = next_plane(ret->low, n_groups * low_bytes(type));
    ret->scale = next_plane(ret->high, type == TYPE_Q6_K ? n_groups * 8 : 0);
    ret->super = next_plane(ret->scale, n_groups * 2);
    ret->n_bytes = next_plane(ret->super, is_super ? n_groups / 8 * 4 : 0);
    return 0;
}

/* The lower nibbles of a group's 32 numbers. */
static void put_nibbles(const int8_t q[GROUP], uint8_t low[16])
{
    for (int i = 0; i < 16; i++) {
        low[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    }
}

static void put_high(const int8_t q[GROUP], uint8_t high[8])
{
    memset(high, 0, 8);
    for (int i = 0; i < GROUP; i++) {
        high[i / 16 * 4 + i % 4] |= (uint8_t)((q[i] >> 4 & 3) << i / 4 % 4 * 2);
    }
}

/* One block of the file; g: its first group in the matrix. */
static void pack_block(enum type type, const struct pack_layout *l, const uint8_t *block, size_t g,
                       uint8_t *buffer)
{
    struct split s;
    uint8_t *low = buffer + l->low + g * low_bytes(type), *scale = buffer + l->scale + g * 2;
    uint8_t *super = buffer + l->super + g / 8 * 4;
    split_of(type)(block, &s);
    int n_groups = (int)type_info((uint32_t)type)->block_elems / GROUP;
    /* Stored unsigned: 8 or 32 is taken off by the kernels. */
    int offset = type == TYPE_Q4_0 ? 8 : type == TYPE_Q6_K ? 32 : 0;
    for (int i = 0; i < n_groups; i++) {
        int8_t q[GROUP];
        for (int j = 0; j < GROUP; j++) {
            q[j] = (int8_t)(s.q[i * GROUP + j] + offset);
        }
        if (type == TYPE_Q8_0) {
            memcpy(low, q, GROUP);
        } else {
            put_nibbles(q, low + 16 * i);
        }
        if (type == TYPE_Q6_K) {
            put_high(q, buffer + l->high + (g + (size_t)i) * 8);
        }
    }
    if (type == TYPE_Q4_K) {
        const struct block_q4_k *b = (const void *)block;
        memcpy(super, block, 4);
        for (int i = 0; i < 8; i++) {
            split_k_scale_min(b->scales, i, &scale[2 * i], &scale[2 * i + 1]);
        }
    } else if (type == TYPE_Q6_K) {
        memcpy(super, block + offsetof(struct block_q6_k, d), 2);
        memset(super + 2, 0, 2);
        memcpy(scale, block + offsetof(struct block_q6_k, scales), 16);
    } else {
        memcpy(scale, block, 2);
    }
}

void pack_rows(enum type type, const struct pack_layout *layout, const void *data, int64_t row,
               int64_t n, int64_t n_cols, void *buffer)
{
    const struct type_info *info = type_info((uint32_t)type);
    size_t groups_of_block = info->block_elems / GROUP;
    size_t first = (size_t)row * (size_t)(n_cols / GROUP);
    size_t n_blocks = (size_t)n * (size_t)(n_cols / info->block_elems);
    for (size_t i = 0; i < n_blocks; i++) {
        pack_block(type, layout, (const uint8_t *)data + i * info->block_bytes,
                   first + i * groups_of_block, buffer);
    }
}
