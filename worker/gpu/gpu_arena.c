/* Cutting device memory into pieces (see gpu_arena.h). */
#include "worker/gpu/gpu_arena.h"

enum { ALIGN = 256 };

void *gpu_arena_take(struct gpu_arena *a, enum gpu_label label, size_t bytes)
{
    size_t padded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    char *base = a->base ? a->base : (char *)(uintptr_t)ALIGN;
    void *p = base + a->used;
    a->used += padded;
    a->of_label[label] += padded;
    return p;
}

const char *gpu_arena_label(enum gpu_label label)
{
    static const char *const names[GPU_LABEL_COUNT] = {
        "weights", "vectors", "KV cache", "states", "buffers", "scratch", "inputs"};
    return names[label];
}
