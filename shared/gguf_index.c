/* Name lookup of the GGUF reader. Pure. */
#include "shared/gguf_index.h"
#include "shared/hash.h"

#include <errno.h>
#include <string.h>

/* Honest names of the largest file stay far below; a file that reaches it was made to be slow. */
enum { GGUF_MAX_PROBES = 256 };

int gguf_names_init(struct gguf_names *t, struct arena *a, size_t cap)
{
    size_t n_slots = 16;
    while (n_slots < cap * 2) { /* cap is a limit of limits.h at most */
        n_slots *= 2;
    }
    *t = (struct gguf_names){.cap = cap, .mask = n_slots - 1};
    t->names = arena_alloc(a, cap * sizeof(*t->names));
    t->slots = arena_alloc(a, n_slots * sizeof(*t->slots));
    return t->names && t->slots ? 0 : -ENOMEM;
}

int gguf_names_add(struct gguf_names *t, struct gguf_str name)
{
    ASSERT(t->n < t->cap);
    size_t i = hash64(name.data, name.len, 0) & t->mask;
    for (int probes = 0; t->slots[i]; i = (i + 1) & t->mask) {
        const struct gguf_str *other = &t->names[t->slots[i] - 1];
        if (other->len == name.len && memcmp(other->data, name.data, name.len) == 0) {
            return -EEXIST;
        }
        if (++probes == GGUF_MAX_PROBES) {
            return -ELOOP;
        }
    }
    t->names[t->n++] = name;
    t->slots[i] = (uint32_t)t->n;
    return 0;
}

int64_t gguf_names_find(const struct gguf_names *t, const char *name, size_t len)
{
    if (!t->slots) {
        return -1;
    }
    for (size_t i = hash64(name, len, 0) & t->mask; t->slots[i]; i = (i + 1) & t->mask) {
        const struct gguf_str *other = &t->names[t->slots[i] - 1];
        if (other->len == len && memcmp(other->data, name, len) == 0) {
            return t->slots[i] - 1;
        }
    }
    return -1;
}

const char *gguf_printable(struct gguf_str name, char out[64])
{
    size_t n = MIN(name.len, (size_t)63);
    for (size_t i = 0; i < n; i++) {
        out[i] = name.data[i] > 0x20 && name.data[i] < 0x7f ? name.data[i] : '?';
    }
    if (n < name.len) {
        memcpy(out + n - 3, "...", 3);
    }
    out[n] = 0;
    return out;
}
