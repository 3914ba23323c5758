/* The mixtures as a table. Pure. Names, numbers and rules are facts of the GGUF ecosystem
 * (llama.cpp's quantize tool). */
#include "worker/quantize.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Which layers get the better type. */
enum layers { NEVER, ALWAYS, FIRST_2, FIRST_4, FIRST_16TH, FIRST_8TH, MORE_BITS, IF_GQA_4 };

struct upgrade { /* `better` in the chosen layers, `other` elsewhere */
    enum layers layers;
    enum type better, other;
};

struct quantize_mix {
    const char *name;
    uint32_t file_type;
    enum type base, output;
    struct upgrade value, down, attn_output, qkv;
};

#define SAME(t) {NEVER, TYPE_##t, TYPE_##t}
#define ALL(t) {ALWAYS, TYPE_##t, TYPE_##t}
#define SOME(layers, better, other) {layers, TYPE_##better, TYPE_##other}
#define PLAIN(name, ft, out)                                                                       \
    {#name, ft, TYPE_##name, TYPE_##out, SAME(name), SAME(name), SAME(name), SAME(name)}

static const struct quantize_mix mixes[] = {
    PLAIN(F32, 0, F32),
    PLAIN(F16, 1, F16),
    PLAIN(BF16, 32, BF16),
    PLAIN(Q4_0, 2, Q6_K),
    PLAIN(Q4_1, 3, Q6_K),
    PLAIN(Q5_0, 8, Q6_K),
    PLAIN(Q5_1, 9, Q6_K),
    PLAIN(Q8_0, 7, Q8_0),
    PLAIN(Q6_K, 18, Q6_K),
    {"Q2_K", 10, TYPE_Q2_K, TYPE_Q6_K, SOME(IF_GQA_4, Q4_K, Q3_K), ALL(Q3_K), ALL(Q3_K),
     SAME(Q2_K)},
    {"Q3_K_S", 11, TYPE_Q3_K, TYPE_Q6_K, SAME(Q3_K), SAME(Q3_K), SAME(Q3_K), SAME(Q3_K)},
    {"Q3_K_M", 12, TYPE_Q3_K, TYPE_Q6_K, SOME(FIRST_2, Q5_K, Q4_K), SOME(FIRST_16TH, Q5_K, Q4_K),
     ALL(Q4_K), ALL(Q4_K)},
    {"Q3_K_L", 13, TYPE_Q3_K, TYPE_Q6_K, ALL(Q5_K), ALL(Q5_K), ALL(Q5_K), ALL(Q4_K)},
    {"Q4_K_S", 14, TYPE_Q4_K, TYPE_Q6_K, SOME(FIRST_4, Q5_K, Q4_K), SOME(FIRST_8TH, Q5_K, Q4_K),
     SAME(Q4_K), SAME(Q4_K)},
    {"Q4_K_M", 15, TYPE_Q4_K, TYPE_Q6_K, SOME(MORE_BITS, Q6_K, Q4_K), SOME(MORE_BITS, Q6_K, Q4_K),
     SAME(Q4_K), ALL(Q5_K)},
    {"Q5_K_S", 16, TYPE_Q5_K, TYPE_Q6_K, SAME(Q5_K), SAME(Q5_K), SAME(Q5_K), SAME(Q5_K)},
    {"Q5_K_M", 17, TYPE_Q5_K, TYPE_Q6_K, SOME(MORE_BITS, Q6_K, Q5_K), SOME(MORE_BITS, Q6_K, Q5_K),
     SAME(Q5_K), ALL(Q6_K)},
    {"IQ4_NL", 25, TYPE_IQ4_NL, TYPE_Q6_K, SOME(IF_GQA_4, Q5_K, IQ4_NL),
     SOME(FIRST_8TH, Q5_K, IQ4_NL), SAME(IQ4_NL), SAME(IQ4_NL)},
    /* Experts in MXFP4, all else in Q8_0. */
    {"MXFP4_MOE", 38, TYPE_Q8_0, TYPE_Q8_0, SAME(Q8_0), SAME(Q8_0), SAME(Q8_0), SAME(Q8_0)},
};

const struct quantize_mix *quantize_mix_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(mixes); i++) {
        if (strcasecmp(mixes[i].name, name) == 0) {
            return &mixes[i];
        }
    }
    return NULL;
}

const char *quantize_mix_names(void)
{
    static char names[256];
    if (!*names) {
        for (size_t i = 0; i < COUNT_OF(mixes); i++) {
            strcat(strcat(names, i ? " " : ""), mixes[i].name);
        }
    }
    return names;
}

uint32_t quantize_mix_file_type(const struct quantize_mix *m)
{
    return m->file_type;
}

static bool layer_is_chosen(enum layers rule, uint64_t layer, const struct quantize_shape *s)
{
    uint64_t n = s->n_layers;
    switch (rule) {
    case NEVER:
        return false;
    case ALWAYS:
        return true;
    case FIRST_2:
        return layer < 2;
    case FIRST_4:
        return layer < 4;
    case FIRST_16TH:
        return layer < n / 16;
    case FIRST_8TH:
        return layer < n / 8;
    case MORE_BITS: /* the first and last eighth, and every third layer between them */
        return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    case IF_GQA_4:
        return s->n_heads_per_kv >= 4;
    }
    return false;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_quantized(const char *name, uint32_t n_dims)
{
    static const char *const kept[] = {"_norm.weight", "ffn_gate_inp", "ssm_conv1d",
                                       "shortconv.conv", "position_embd", "token_types",
                                       "attn_rel_b", "ssm_a", "ssm_d"};
    if (n_dims < 2 || !ends_with(name, "weight")) {
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        if (strstr(name, kept[i])) {
            return false;
        }
    }
    return true;
}

/* A row that is no whole number of blocks takes a type of smaller blocks. */
static enum type fit_row(enum type t, uint64_t n_cols)
{
    if (n_cols % type_info((uint32_t)t)->block_elems == 0) {
        return t;
    }
    enum type smaller = t == TYPE_Q4_K   ? TYPE_Q5_0
                        : t == TYPE_Q5_K ? TYPE_Q5_1
                        : t == TYPE_Q6_K ? TYPE_Q8_0
                                         : TYPE_Q4_0; /* Q2_K, Q3_K */
    return n_cols % 32 == 0 ? smaller : TYPE_F16;
}

enum type quantize_type(const struct quantize_mix *m, const struct quantize_shape *shape,
                        const char *name, uint32_t n_dims, const uint64_t *ne, enum type from)
{
    if (!is_quantized(name, n_dims)) {
        return from;
    }
    bool is_float = m->base == TYPE_F32 || m->base == TYPE_F16 || m->base == TYPE_BF16;
    if (is_float) {
        return m->base;
    }
    uint64_t layer = strncmp(name, "blk.", 4) == 0 ? strtoull(name + 4, NULL, 10) : 0;
    bool is_output = strcmp(name, "output.weight") == 0 ||
                     (shape->is_tied && strcmp(name, "token_embd.weight") == 0);
    if (is_output) {
        /* An output row that the base type does not fit goes straight to Q8_0. */
        bool fits = ne[0] % type_info((uint32_t)m->base)->block_elems == 0;
        return fit_row(fits ? m->output : TYPE_Q8_0, ne[0]);
    }
    if (strcmp(m->name, "MXFP4_MOE") == 0) {
        return fit_row(n_dims > 2 ? TYPE_MXFP4 : TYPE_Q8_0, ne[0]);
    }
    bool is_value = strstr(name, "attn_v.weight") || strstr(name, "attn_kv_b.weight");
    if (shape->n_experts == 8 && (is_value || strstr(name, "attn_k.weight"))) {
        return fit_row(TYPE_Q8_0, ne[0]); /* small beside eight experts, and worth it */
    }
    const struct upgrade *u = is_value                            ? &m->value
                              : strstr(name, "attn_qkv.weight")    ? &m->qkv
                              : strstr(name, "ffn_down")           ? &m->down
                              : strstr(name, "attn_output.weight") ? &m->attn_output
                                                                   : NULL;
    enum type t = !u ? m->base : layer_is_chosen(u->layers, layer, shape) ? u->better : u->other;
    return fit_row(t, ne[0]);
}
