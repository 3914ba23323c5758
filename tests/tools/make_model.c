/* make_model: writes a GGUF of a known model's true shapes with random weights and a made-up
 * vocabulary, for measurements and tests where no real model is at hand. Streams, so that memory
 * stays at a few megabytes; the same arguments give the same bytes, whatever the thread count. */
#include "kernels/cpu/pool.h"
#include "kernels/quant.h"
#include "shared/num.h"
#include "tests/test.h"
#include "tests/tools/vocabulary.h"
#include "worker/quantize.h"

enum { CHUNK_BYTES = 8 * 1024 * 1024 };

struct shape {
    const char *name, *arch, *pre;
    uint64_t n_layers, n_embd, n_heads, n_heads_kv, head_size, n_ff, n_ctx, n_vocab, n_base;
    double rope_base, eps;
    double rope_factor; /* Llama 3 frequency scaling (original context 8192); 0: none */
    bool is_tied, has_bias;
    const char *control[4]; /* after the n_base tokens */
    size_t n_control, bos, eos;
};

static const struct shape shapes[] = {
    {"qwen2.5-0.5b",
     "qwen2",
     "qwen2",
     24,
     896,
     14,
     2,
     64,
     4864,
     32768,
     151936,
     151643,
     1e6,
     1e-6,
     0,
     true,
     true,
     {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
     3,
     0,
     2},
    {"qwen2.5-7b",
     "qwen2",
     "qwen2",
     28,
     3584,
     28,
     4,
     128,
     18944,
     32768,
     152064,
     151643,
     1e6,
     1e-6,
     0,
     false,
     true,
     {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
     3,
     0,
     2},
    {"llama-3.2-1b",
     "llama",
     "llama-bpe",
     16,
     2048,
     32,
     8,
     64,
     8192,
     131072,
     128256,
     128000,
     5e5,
     1e-5,
     32,
     true,
     false,
     {"<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"},
     4,
     0,
     3},
    {"tiny", "qwen2", "qwen2", 2,    256,  4,
     2,      64,      512,     2048, 1024, 1000,
     1e6,    1e-6,    0,       true, true, {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
     3,      0,       2},
};

static const char template[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}";

/* --- tensors --- */

enum fill { FILL_MATRIX, FILL_NORM, FILL_BIAS, FILL_ROPE };

struct tensor {
    char name[64];
    uint64_t ne[2];
    enum fill fill;
    enum type type;
};

struct model {
    const struct shape *shape;
    const struct quantize_mix *mix;
    struct quantize_shape quantize;
    uint64_t seed;
    struct tensor *tensors;
    size_t n;
};

static void add(struct model *m, int64_t layer, const char *name, uint64_t n_in, uint64_t n_out,
                enum fill fill)
{
    struct tensor *t = &m->tensors[m->n++];
    char prefix[32] = "";
    if (layer >= 0) {
        snprintf(prefix, sizeof(prefix), "blk.%" PRId64 ".", layer);
    }
    snprintf(t->name, sizeof(t->name), "%s%s", prefix, name);
    t->ne[0] = n_in;
    t->ne[1] = n_out;
    t->fill = fill;
    t->type = quantize_type(m->mix, &m->quantize, t->name, n_out ? 2 : 1, t->ne, TYPE_F32);
}

static void list_tensors(struct model *m)
{
    const struct shape *s = m->shape;
    uint64_t q = s->n_heads * s->head_size, kv = s->n_heads_kv * s->head_size;
    m->tensors = calloc(s->n_layers * 12 + 4, sizeof(*m->tensors));
    CHECK(m->tensors);
    add(m, -1, "token_embd.weight", s->n_embd, s->n_vocab, FILL_MATRIX);
    if (s->rope_factor > 0) {
        add(m, -1, "rope_freqs.weight", s->head_size / 2, 0, FILL_ROPE);
    }
    for (int64_t i = 0; i < (int64_t)s->n_layers; i++) {
        add(m, i, "attn_norm.weight", s->n_embd, 0, FILL_NORM);
        add(m, i, "attn_q.weight", s->n_embd, q, FILL_MATRIX);
        add(m, i, "attn_k.weight", s->n_embd, kv, FILL_MATRIX);
        add(m, i, "attn_v.weight", s->n_embd, kv, FILL_MATRIX);
        if (s->has_bias) {
            add(m, i, "attn_q.bias", q, 0, FILL_BIAS);
            add(m, i, "attn_k.bias", kv, 0, FILL_BIAS);
            add(m, i, "attn_v.bias", kv, 0, FILL_BIAS);
        }
        add(m, i, "attn_output.weight", q, s->n_embd, FILL_MATRIX);
        add(m, i, "ffn_norm.weight", s->n_embd, 0, FILL_NORM);
        add(m, i, "ffn_gate.weight", s->n_embd, s->n_ff, FILL_MATRIX);
        add(m, i, "ffn_up.weight", s->n_embd, s->n_ff, FILL_MATRIX);
        add(m, i, "ffn_down.weight", s->n_ff, s->n_embd, FILL_MATRIX);
    }
    add(m, -1, "output_norm.weight", s->n_embd, 0, FILL_NORM);
    if (!s->is_tied) {
        add(m, -1, "output.weight", s->n_embd, s->n_vocab, FILL_MATRIX);
    }
}

/* --- weights --- */

/* Nearly normal: the sum of four uniform numbers out of one draw. */
static float draw(uint64_t *state)
{
    uint64_t r = test_random(state);
    double sum = (double)(r & 0xffff) + (double)(r >> 16 & 0xffff) + (double)(r >> 32 & 0xffff) +
                 (double)(r >> 48);
    return (float)((sum - 2 * 65535.0) / (65536.0 * 0.5773502691896258));
}

/* Llama 3: long wavelengths are stretched by the factor, short ones not, those between in part. */
static float rope_divisor(const struct shape *s, uint64_t i)
{
    enum { ORIGINAL_CONTEXT = 8192, LOW = 1, HIGH = 4 };
    double wave = 2 * M_PI * pow(s->rope_base, 2.0 * (double)i / (double)s->head_size);
    if (wave < (double)ORIGINAL_CONTEXT / HIGH) {
        return 1;
    }
    if (wave > (double)ORIGINAL_CONTEXT / LOW) {
        return (float)s->rope_factor;
    }
    double smooth = (ORIGINAL_CONTEXT / wave - LOW) / (HIGH - LOW);
    return (float)(1 / ((1 - smooth) / s->rope_factor + smooth));
}

static void fill_row(const struct model *m, size_t index, uint64_t row, float *x)
{
    const struct tensor *t = &m->tensors[index];
    uint64_t state = m->seed * 0x9e3779b97f4a7c15u ^ (uint64_t)index << 40 ^ row;
    (void)test_random(&state);
    state = test_random(&state); /* rows of neighbouring numbers shall not share a sequence */
    bool is_embedding = t->fill == FILL_MATRIX && row < t->ne[1] && t->ne[1] == m->shape->n_vocab;
    double scale = is_embedding ? 0.02 : 0.6 / sqrt((double)t->ne[0]);
    for (uint64_t i = 0; i < t->ne[0]; i++) {
        switch (t->fill) {
        case FILL_MATRIX:
            x[i] = (float)scale * draw(&state);
            break;
        case FILL_NORM:
            x[i] = 1 + 0.1f * draw(&state);
            break;
        case FILL_BIAS:
            x[i] = 0.1f * draw(&state);
            break;
        case FILL_ROPE:
            x[i] = rope_divisor(m->shape, i);
            break;
        }
    }
}

struct job {
    const struct model *m;
    size_t index, row_bytes;
    uint64_t first_row;
    uint8_t *out;
};

static void make_rows(void *arg, int64_t lo, int64_t hi, int thread)
{
    (void)thread;
    const struct job *j = arg;
    const struct tensor *t = &j->m->tensors[j->index];
    float *x = malloc(t->ne[0] * sizeof(*x));
    CHECK(x);
    for (int64_t r = lo; r < hi; r++) {
        uint8_t *out = j->out + (size_t)r * j->row_bytes;
        fill_row(j->m, j->index, j->first_row + (uint64_t)r, x);
        if (t->type == TYPE_F32) {
            memcpy(out, x, j->row_bytes);
        } else {
            quant_encoder(t->type)(x, out, (int64_t)t->ne[0], NULL);
        }
    }
    free(x);
}

static int write_tensor(const struct model *m, size_t index, struct pool *pool, struct ggufw *w,
                        struct err *e)
{
    const struct tensor *t = &m->tensors[index];
    struct job j = {.m = m, .index = index, .row_bytes = type_row_bytes(t->type, t->ne[0])};
    uint64_t n_rows = MAX(t->ne[1], (uint64_t)1);
    uint64_t chunk = MIN(MAX(CHUNK_BYTES / j.row_bytes, (size_t)1), n_rows);
    j.out = malloc(chunk * j.row_bytes);
    CHECK(j.out);
    int rc = 0;
    for (; j.first_row < n_rows && rc == 0; j.first_row += chunk) {
        uint64_t n = MIN(chunk, n_rows - j.first_row);
        pool_run(pool, (int64_t)n, 1, make_rows, &j);
        rc = ggufw_write(w, j.out, n * j.row_bytes, e);
    }
    free(j.out);
    return rc;
}

/* --- metadata --- */

static void put_arch_u32(struct ggufw *w, const struct shape *s, const char *key, uint64_t v)
{
    char name[96];
    snprintf(name, sizeof(name), "%s.%s", s->arch, key);
    ggufw_put_u32(w, name, (uint32_t)v);
}

static void put_arch_f32(struct ggufw *w, const struct shape *s, const char *key, double v)
{
    char name[96];
    snprintf(name, sizeof(name), "%s.%s", s->arch, key);
    ggufw_put_f32(w, name, (float)v);
}

static void put_metadata(const struct model *m, struct ggufw *w)
{
    const struct shape *s = m->shape;
    char name[64];
    int n = snprintf(name, sizeof(name), "synthetic %s", s->name);
    ggufw_put_str(w, "general.architecture", s->arch, strlen(s->arch));
    ggufw_put_str(w, "general.name", name, (size_t)n);
    ggufw_put_u32(w, "general.quantization_version", 2);
    ggufw_put_u32(w, "general.file_type", quantize_mix_file_type(m->mix));
    put_arch_u32(w, s, "block_count", s->n_layers);
    put_arch_u32(w, s, "context_length", s->n_ctx);
    put_arch_u32(w, s, "embedding_length", s->n_embd);
    put_arch_u32(w, s, "feed_forward_length", s->n_ff);
    put_arch_u32(w, s, "attention.head_count", s->n_heads);
    put_arch_u32(w, s, "attention.head_count_kv", s->n_heads_kv);
    put_arch_f32(w, s, "attention.layer_norm_rms_epsilon", s->eps);
    put_arch_f32(w, s, "rope.freq_base", s->rope_base);
    put_arch_u32(w, s, "rope.dimension_count", s->head_size);
    put_arch_u32(w, s, "vocab_size", s->n_vocab);

    struct vocabulary v;
    vocabulary_make(&v, m->seed, s->n_base, s->control, s->n_control, s->n_vocab);
    ggufw_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    ggufw_put_str(w, "tokenizer.ggml.pre", s->pre, strlen(s->pre));
    ggufw_put_str_array(w, "tokenizer.ggml.tokens", v.tokens, v.n_tokens);
    ggufw_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, v.types, v.n_tokens);
    ggufw_put_str_array(w, "tokenizer.ggml.merges", v.merges, v.n_merges);
    ggufw_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)(s->n_base + s->bos));
    ggufw_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)(s->n_base + s->eos));
    ggufw_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)s->n_base);
    ggufw_put_bool(w, "tokenizer.ggml.add_bos_token", strcmp(s->arch, "llama") == 0);
    ggufw_put_str(w, "tokenizer.chat_template", template, sizeof(template) - 1);
    vocabulary_finish(&v);
}

static int write_model(struct model *m, struct pool *pool, const char *path, struct err *e)
{
    struct ggufw *w;
    int rc = ggufw_create(path, &w, e);
    if (rc < 0) {
        return rc;
    }
    uint64_t bytes = 0, params = 0;
    put_metadata(m, w);
    for (size_t i = 0; i < m->n; i++) {
        const struct tensor *t = &m->tensors[i];
        ggufw_declare(w, t->name, t->type, t->ne[1] ? 2 : 1, t->ne);
        params += t->ne[0] * MAX(t->ne[1], (uint64_t)1);
        bytes += type_row_bytes(t->type, t->ne[0]) * MAX(t->ne[1], (uint64_t)1);
    }
    rc = ggufw_begin_data(w, e);
    for (size_t i = 0; i < m->n && rc == 0; i++) {
        rc = write_tensor(m, i, pool, w, e);
        if (isatty(STDERR_FILENO)) {
            fprintf(stderr, "\r%zu of %zu tensors", i + 1, m->n);
        }
    }
    rc = rc < 0 ? rc : ggufw_commit(w, e);
    ggufw_destroy(&w);
    if (isatty(STDERR_FILENO)) {
        fputc('\n', stderr);
    }
    if (rc == 0) {
        printf("%s: %zu tensors, %.1f million parameters, %.1f MiB\n", path, m->n,
               (double)params / 1e6, (double)bytes / 1048576);
    }
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: make_model --shape SHAPE --type TYPE [--seed N] [--threads N] -o FILE\n"
                    "shapes:");
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        fprintf(stderr, " %s", shapes[i].name);
    }
    fprintf(stderr, "\ntypes: %s\n", quantize_mix_names());
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const char *shape = "", *type = "", *path = NULL;
    uint64_t seed = 1, n_threads = 0;
    bool ok = true;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value && strcmp(argv[i], "--shape") == 0) {
            shape = value;
        } else if (value && strcmp(argv[i], "--type") == 0) {
            type = value;
        } else if (value && strcmp(argv[i], "--seed") == 0) {
            ok = ok && num_parse_u64(value, &seed);
        } else if (value && strcmp(argv[i], "--threads") == 0) {
            ok = ok && num_parse_u64(value, &n_threads) && n_threads <= 256;
        } else if (value && strcmp(argv[i], "-o") == 0) {
            path = value;
        } else {
            ok = false;
        }
    }
    struct model m = {.mix = quantize_mix_by_name(type), .seed = seed};
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        if (strcmp(shape, shapes[i].name) == 0) {
            m.shape = &shapes[i];
        }
    }
    if (!ok || !path || !m.shape || !m.mix) {
        return usage();
    }
    m.quantize = (struct quantize_shape){.n_layers = m.shape->n_layers,
                                         .n_heads_per_kv = m.shape->n_heads / m.shape->n_heads_kv,
                                         .is_tied = m.shape->is_tied};
    list_tensors(&m);
    struct pool *pool;
    struct err e = {0};
    int rc = pool_create((int)n_threads, &pool);
    if (rc == 0) {
        rc = write_model(&m, pool, path, &e);
        pool_destroy(&pool);
    }
    free(m.tensors);
    if (rc < 0) {
        char text[ERR_DETAIL_BYTES * 2];
        e.code = rc;
        fprintf(stderr, "make_model: %s\n", err_format(&e, text, sizeof(text)));
        return EXIT_GENERAL;
    }
    return EXIT_OK;
}
