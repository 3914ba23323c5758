/* `inspect MODEL`: what a model file holds and what it would take, without loading it. One process,
 * one thread. The file is hostile: its texts are shown with what a terminal would obey escaped. */
#include "kernels/quant.h"
#include "shared/num.h"
#include "shared/utf8.h"
#include "safety/topology.h"
#include "safety/vram.h"
#include "worker/memory.h"
#include "worker/plan.h"
#include "worker/setup.h"
#include "worker/tokenizer.h"
#include "worker/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_COLUMNS = 60, ARRAY_SHOWN = 8 };

/* --- words ---- */

struct words { /* a short text to print */
    char s[48];
};

static struct words size_words(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct words w;
    double v = (double)bytes;
    size_t unit = 0;
    while (v >= 1024 && unit + 1 < COUNT_OF(units)) {
        v /= 1024;
        unit++;
    }
    snprintf(w.s, sizeof(w.s), unit ? "%.2f %s" : "%.0f %s", v, units[unit]);
    return w;
}

static struct words count_words(uint64_t n)
{
    static const char *const units[] = {"", " thousand", " million", " billion", " trillion"};
    struct words w;
    double v = (double)n;
    size_t unit = 0;
    while (v >= 1000 && unit + 1 < COUNT_OF(units)) {
        v /= 1000;
        unit++;
    }
    snprintf(w.s, sizeof(w.s), unit ? "%.2f%s" : "%.0f%s", v, units[unit]);
    return w;
}

/* Adds text from the file, at most max characters of it. */
static void put_text(struct buf *b, struct gguf_str text, size_t max)
{
    size_t shown = 0;
    for (size_t i = 0; i < text.len; shown++) {
        uint32_t cp;
        if (shown == max) {
            buf_printf(b, "... (%zu bytes)", text.len);
            return;
        }
        int n = utf8_decode(text.data + i, text.len - i, &cp);
        if (n <= 0) {
            n = 1;
            buf_printf(b, "\\x%02x", (unsigned char)text.data[i]);
        } else if (cp == '\n') {
            buf_str(b, "\\n");
        } else if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || (cp >= 0x202a && cp <= 0x202e) ||
                   (cp >= 0x2066 && cp <= 0x2069)) { /* controls, and what turns a line around */
            buf_printf(b, "\\u%04" PRIx32, cp);
        } else {
            buf_add(b, text.data + i, (size_t)n);
        }
        i += (size_t)n;
    }
}

static void put_value(struct buf *b, const struct gguf_kv *kv, uint64_t i, size_t max)
{
    uint64_t u;
    switch (kv->elem_kind) {
    case GGUF_STRING:
        put_text(b, kv->strings[i], max);
        break;
    case GGUF_BOOL:
        buf_str(b, gguf_elem_i64(kv, i) ? "true" : "false");
        break;
    case GGUF_U64: /* beyond what gguf_elem_i64 holds */
        memcpy(&u, kv->data + i * sizeof(u), sizeof(u));
        buf_printf(b, "%" PRIu64, u);
        break;
    case GGUF_F32:
    case GGUF_F64:
        buf_printf(b, "%.7g", gguf_elem_f64(kv, i));
        break;
    default:
        buf_printf(b, "%" PRId64, gguf_elem_i64(kv, i));
    }
}

static void put_array(struct buf *b, const struct gguf_kv *kv)
{
    buf_char(b, '[');
    for (uint64_t i = 0; i < kv->n; i++) {
        if (i == ARRAY_SHOWN || b->len > TEXT_COLUMNS) {
            buf_printf(b, ", ... %" PRIu64 " in all", kv->n);
            break;
        }
        buf_str(b, i ? ", " : "");
        buf_str(b, kv->elem_kind == GGUF_STRING ? "\"" : "");
        put_value(b, kv, i, TEXT_COLUMNS / 3);
        buf_str(b, kv->elem_kind == GGUF_STRING ? "\"" : "");
    }
    buf_char(b, ']');
}

static void print_line(const char *what, const struct buf *b)
{
    printf("  %-22s %s\n", what, b->len && !b->failed ? b->data : "-");
}

/* Prints an error, whose text may quote the file. */
static void print_error(const char *what, const struct err *e)
{
    char text[ERR_DETAIL_BYTES * 2];
    struct buf b;
    buf_init(&b, 0);
    (void)err_format(e, text, sizeof(text));
    put_text(&b, (struct gguf_str){text, strlen(text)}, sizeof(text));
    print_line(what, &b);
    buf_finish(&b);
}

/* --- the sections ---- */

static struct gguf_str architecture(const struct gguf *g)
{
    struct gguf_str s = {0};
    (void)!gguf_get_str(g, "general.architecture", &s, NULL); /* a wrong kind counts as none */
    return s;
}

/* The key of the architecture, or NULL. */
static const struct gguf_kv *arch_key(const struct gguf *g, const char *key)
{
    char name[160];
    struct gguf_str arch = architecture(g);
    snprintf(name, sizeof(name), "%.*s.%s", (int)MIN(arch.len, (size_t)64),
             arch.data ? arch.data : "", key);
    return gguf_find(g, name);
}

/* A number, or the range of a number per layer. */
static void put_number(struct buf *b, const struct gguf_kv *kv)
{
    if (kv->kind != GGUF_ARRAY) {
        put_value(b, kv, 0, TEXT_COLUMNS);
        return;
    }
    if (kv->n == 0) {
        return;
    }
    int64_t min = INT64_MAX, max = INT64_MIN;
    for (uint64_t i = 0; i < kv->n; i++) {
        int64_t v = gguf_elem_i64(kv, i);
        min = MIN(min, v);
        max = MAX(max, v);
    }
    buf_printf(b, "%" PRId64, min);
    if (max != min) {
        buf_printf(b, " to %" PRId64 " by layer", max);
    }
}

static void show_model(const struct gguf *g)
{
    static const struct {
        const char *words, *key;
    } rows[] = {
        {"layers", "block_count"},
        {"width", "embedding_length"},
        {"feed-forward width", "feed_forward_length"},
        {"query heads", "attention.head_count"},
        {"key and value heads", "attention.head_count_kv"},
        {"head size", "attention.key_length"},
        {"experts", "expert_count"},
        {"experts used", "expert_used_count"},
        {"trained context", "context_length"},
        {"sliding window", "attention.sliding_window"},
        {"RoPE base", "rope.freq_base"},
        {"RoPE scaling", "rope.scaling.type"},
    };
    struct buf b;
    buf_init(&b, 0);
    struct gguf_str s = {0};
    printf("Model\n");
    (void)!gguf_get_str(g, "general.name", &s, NULL);
    put_text(&b, s, TEXT_COLUMNS);
    print_line("name", &b);
    buf_clear(&b);
    put_text(&b, architecture(g), TEXT_COLUMNS);
    print_line("architecture", &b);
    uint64_t n = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const uint64_t *ne = g->tensors[i].ne;
        n += ne[0] * ne[1] * ne[2] * ne[3]; /* each fits the file: so does the sum */
    }
    printf("  %-22s %s\n", "parameters", count_words(n).s);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct gguf_kv *kv = arch_key(g, rows[i].key);
        if (kv && !(kv->kind == GGUF_ARRAY && kv->elem_kind == GGUF_STRING)) {
            buf_clear(&b);
            put_number(&b, kv);
            print_line(rows[i].words, &b);
        }
    }
    buf_finish(&b);
}

struct type_sum {
    uint32_t type;
    uint64_t n, elems, bytes;
};

static int by_bytes(const void *a, const void *b)
{
    const struct type_sum *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void show_types(const struct gguf *g)
{
    struct type_sum sums[TYPE_ID_END] = {0}, all = {0};
    for (uint32_t t = 0; t < TYPE_ID_END; t++) {
        sums[t].type = t;
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        uint64_t elems = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        sums[t->type].n++;
        sums[t->type].elems += elems;
        sums[t->type].bytes += t->n_bytes;
        all.n++;
        all.elems += elems;
        all.bytes += t->n_bytes;
    }
    qsort(sums, COUNT_OF(sums), sizeof(sums[0]), by_bytes);
    printf("\nTensors\n  %-8s %7s %18s %13s %7s\n", "type", "count", "parameters", "size", "share");
    for (size_t i = 0; i < COUNT_OF(sums) && sums[i].n; i++) {
        printf("  %-8s %7" PRIu64 " %18s %13s %5.1f %%%s\n", type_info(sums[i].type)->name,
               sums[i].n, count_words(sums[i].elems).s, size_words(sums[i].bytes).s,
               100 * (double)sums[i].bytes / (double)all.bytes,
               quant_decoder((enum type)sums[i].type) ? "" : "  (not for weights)");
    }
    double bits = all.elems ? 8 * (double)all.bytes / (double)all.elems : 0;
    printf("  %-8s %7" PRIu64 " %18s %13s   %.2f bits a parameter\n", "all", all.n,
           count_words(all.elems).s, size_words(all.bytes).s, bits);
}

static void show_special(const struct gguf *g, const struct gguf_kv *tokens)
{
    static const char *const names[] = {"bos",       "eos",  "eot", "eom",     "padding",
                                        "seperator", "mask", "cls", "unknown", "fim_pre"};
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char key[64];
        uint64_t id = 0;
        snprintf(key, sizeof(key), "tokenizer.ggml.%s_token_id", names[i]);
        if (gguf_find(g, key) && gguf_get_u64(g, key, 0, UINT32_MAX, 0, &id, NULL) == 0) {
            buf_printf(&b, "%s%s %" PRIu64, b.len ? ", " : "", names[i], id);
            if (tokens && id < tokens->n) {
                buf_char(&b, ' ');
                put_text(&b, tokens->strings[id], TEXT_COLUMNS / 3);
            } else {
                buf_str(&b, " (outside the vocabulary)");
            }
        }
    }
    print_line("special tokens", &b);
    buf_finish(&b);
}

static void show_vocabulary(const struct gguf *g)
{
    static const char *const kinds[] = {NULL,      "normal", "unknown", "control",
                                        "defined", "unused", "byte"};
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_kv *types = gguf_find(g, "tokenizer.ggml.token_type");
    const struct gguf_kv *merges = gguf_find(g, "tokenizer.ggml.merges");
    struct gguf_str model = {0}, pre = {0}, template = {0};
    (void)!gguf_get_str(g, "tokenizer.ggml.model", &model, NULL);
    (void)!gguf_get_str(g, "tokenizer.ggml.pre", &pre, NULL);
    (void)!gguf_get_str(g, "tokenizer.chat_template", &template, NULL);
    struct buf b;
    buf_init(&b, 0);
    printf("\nVocabulary\n");
    put_text(&b, model, TEXT_COLUMNS / 2);
    if (pre.len) {
        buf_str(&b, ", splits text as ");
        put_text(&b, pre, TEXT_COLUMNS / 2);
    }
    print_line("tokenizer", &b);
    if (tokens) {
        uint64_t n[COUNT_OF(kinds)] = {0};
        for (uint64_t i = 0; types && i < types->n; i++) {
            int64_t t = gguf_elem_i64(types, i);
            n[t > 0 && t < (int64_t)COUNT_OF(kinds) ? t : 0]++;
        }
        bool is_first = true;
        buf_clear(&b);
        buf_printf(&b, "%" PRIu64, tokens->n);
        for (size_t i = 1; i < COUNT_OF(kinds); i++) {
            if (n[i]) {
                buf_printf(&b, "%s%" PRIu64 " %s", is_first ? ": " : ", ", n[i], kinds[i]);
                is_first = false;
            }
        }
        if (merges) {
            buf_printf(&b, "; %" PRIu64 " merges", merges->n);
        }
        print_line("tokens", &b);
        show_special(g, tokens);
        char warn[160] = "";
        struct tokenizer *t = NULL;
        struct err e = {0};
        if (tokenizer_create(g, &t, warn, &e) < 0) {
            print_error("not usable", &e);
        } else if (*warn) {
            printf("  %-22s %s\n", "note", warn);
        }
        tokenizer_destroy(&t);
    }
    buf_clear(&b);
    put_text(&b, template, TEXT_COLUMNS);
    print_line("chat template", &b);
    buf_finish(&b);
}

static void show_memory(const struct gguf *g, const struct config *c)
{
    struct engine_options o;
    struct engine_info i;
    struct err e = {0};
    printf("\nMemory\n");
    if (setup_engine(c, &o, &e) < 0 || engine_estimate(g, &o, &i, &e) < 0) {
        print_error("no estimate", &e);
        return;
    }
    char cache[64];
    snprintf(cache, sizeof(cache), "KV cache (%s)", type_info((uint32_t)o.kv_type)->name);
    printf("  %-22s %s\n", "weights", size_words(i.weight_bytes).s);
    printf("  %-22s %s for %" PRId64 " tokens; one context: up to %" PRId64 "\n", cache,
           size_words(i.kv_bytes).s, i.n_blocks * ENGINE_BLOCK_TOKENS, i.n_ctx);
    printf("  %-22s %s\n", "working memory", size_words(i.scratch_bytes).s);
    printf("  %-22s %s; %s are free on this machine\n", "all",
           size_words(i.weight_bytes + i.kv_bytes + i.scratch_bytes).s,
           size_words(memory_available()).s);
}

/* As the worker has it. */
static uint64_t ceiling(const struct config *c, uint64_t total, uint64_t used)
{
    struct vram_sample s = {.total_bytes = total, .used_bytes = used, .n_displays = 1};
    return vram_ceiling(&s, (uint64_t)c->v[CONFIG_vram_reserve].i << 20);
}

/* The card of this machine, and what of its memory models may take; false: there is none. */
static bool look_at_card(const struct config *c, uint64_t *ret_vram, struct engine_options *o)
{
    struct gpu gpus[TOPOLOGY_MAX_GPUS];
    int n = topology_read(topology_root(), gpus);
    if (n <= 0) {
        return false;
    }
    const struct gpu *g = &gpus[topology_choose(gpus, n)];
    *ret_vram = g->vram_bytes;
    o->vram_bytes = ceiling(c, g->vram_bytes, g->vram_used_bytes);
    rates_read_gpu(&o->rates, topology_root(), g->gfx, g->pci, g->n_cus);
    return true;
}

/* Where the layers would be computed; vram_mib 0: on this machine's card. */
static int show_plan(const struct gguf *g, const struct config *c, int64_t vram_mib, struct err *e)
{
    struct engine_options o;
    struct engine_info i;
    struct place s = {0};
    uint64_t total = (uint64_t)vram_mib << 20;
    int err = setup_engine(c, &o, e);
    if (err < 0) {
        return err;
    }
    if (vram_mib > 0) {
        o.vram_bytes = ceiling(c, total, 0);
        rates_read_gpu(&o.rates, "", "", "", 0);
    } else if (!look_at_card(c, &total, &o)) {
        return err_set(e, ERR_NO_GPU, "no AMD GPU is here; --vram MIB plans for one that is not");
    }
    if (o.vram_bytes == 0) {
        return err_set(e, ERR_NO_VRAM,
                       "of %s nothing is left beside what others use and --vram-reserve",
                       size_words(total).s);
    }
    printf("Placement on a GPU with %s, of which models may take %s\n", size_words(total).s,
           size_words(o.vram_bytes).s);
    uint64_t room = o.vram_bytes;
    err = o.gpu_layers == 0 ? ERR_NO_VRAM : engine_plan(g, &o, &i, &s, e);
    if (err == ERR_NO_VRAM || err == ERR_NO_GPU) {
        printf("  all on the CPU: %s\n", o.gpu_layers == 0 ? "--gpu-layers 0" : e->detail);
        *e = (struct err){0};
        return 0;
    }
    if (err == 0) {
        struct buf b;
        buf_init(&b, 0);
        plan_put_table(&s, &i, room, &b);
        fputs(b.data ? b.data : "", stdout);
        buf_finish(&b);
        place_finish(&s);
    }
    return err;
}

static void show_metadata(const struct gguf *g)
{
    printf("\nMetadata\n");
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        struct buf key, value;
        char kind[32];
        buf_init(&key, 0);
        buf_init(&value, 0);
        put_text(&key, kv->key, 100);
        if (kv->kind == GGUF_ARRAY) {
            snprintf(kind, sizeof(kind), "%s[]", gguf_kind_name(kv->elem_kind));
            put_array(&value, kv);
        } else {
            snprintf(kind, sizeof(kind), "%s", gguf_kind_name(kv->kind));
            put_value(&value, kv, 0, TEXT_COLUMNS);
        }
        printf("  %-42s %-8s %s\n", key.data ? key.data : "", kind, value.data ? value.data : "");
        buf_finish(&key);
        buf_finish(&value);
    }
}

static void list_tensors(const struct gguf *g)
{
    printf("%-40s %-26s %-8s %14s %14s%s\n", "NAME", "SHAPE", "TYPE", "BYTES", "OFFSET",
           g->n_parts > 1 ? "  PART" : "");
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        char shape[96];
        struct buf name;
        buf_init(&name, 0);
        put_text(&name, (struct gguf_str){t->name, strlen(t->name)}, 100);
        int n = 0;
        for (uint32_t d = 0; d < t->n_dims; d++) {
            n += snprintf(shape + n, sizeof(shape) - (size_t)n, "%s%" PRIu64, d ? " x " : "",
                          t->ne[d]);
        }
        printf("%-40s %-26s %-8s %14" PRIu64 " %14td", name.data ? name.data : "", shape,
               type_info((uint32_t)t->type)->name, t->n_bytes,
               (const uint8_t *)t->data - g->parts[t->part].map);
        if (g->n_parts > 1) {
            printf("  %4" PRIu32, t->part + 1);
        }
        putchar('\n');
        buf_finish(&name);
    }
}

static void show(const struct gguf *g, const struct config *c)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < g->n_parts; i++) {
        bytes += g->parts[i].bytes;
    }
    struct buf path;
    buf_init(&path, 0);
    put_text(&path, (struct gguf_str){g->parts[0].path, strlen(g->parts[0].path)}, SIZE_MAX);
    printf("%s\nGGUF version %" PRIu32 ", %s in %zu file%s, %zu keys, %zu tensors\n\n",
           path.data ? path.data : "", g->version, size_words(bytes).s, g->n_parts,
           g->n_parts == 1 ? "" : "s", g->n_kv, g->n_tensors);
    buf_finish(&path);
    show_model(g);
    if (g->n_tensors) {
        show_types(g);
    }
    show_vocabulary(g);
    if (g->n_tensors) {
        show_memory(g, c);
    }
    show_metadata(g);
}

/* The one model named, as argument or as --model; the result is owned by the caller. */
static int model_path(const struct config *c, const struct options *o, char **ret, struct err *e)
{
    char *name;
    if (o->n_positional == 1) {
        if (!(*ret = strdup(o->positional[0]))) {
            return err_set(e, ERR_NO_MEMORY, "for a file name");
        }
        return 0;
    }
    int rc = setup_model(c, &name, ret, e);
    if (rc == 0) {
        free(name);
    }
    return rc;
}

int tool_inspect(int argc, char **argv)
{
    bool is_list = false, is_plan = false;
    int64_t vram_mib = 0;
    const char *positional[1];
    const struct option_spec specs[] = {
        {"plan", 0, OPTION_FLAG, &is_plan, 0, 0,
         "which layers the GPU would compute and which the CPU, and what that takes"},
        {"vram", 0, OPTION_INT, &vram_mib, 0, 1 << 24,
         "MiB of VRAM of a card to plan for, in place of this machine's"},
        {"list-tensors", 'l', OPTION_FLAG, &is_list, 0, 0,
         "name, shape, type, bytes and offset of each"},
    };
    struct options o = {
        .usage = "inspect MODEL [options]",
        .summary = "Shows what a model file holds and what it would take in memory.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = setup_keys,
        .n_keys = setup_n_keys,
        .positional = positional,
        .max_positional = COUNT_OF(positional),
    };
    struct config c;
    struct gguf g;
    struct err e = {0};
    char *path = NULL;
    int err = tool_parse(&o, argc, argv, &c, &e);
    if (err == 1) {
        err = model_path(&c, &o, &path, &e);
        err = err < 0 ? err : gguf_open(path, &g, &e);
        if (err == 0) {
            if (is_list) {
                list_tensors(&g);
            } else if (is_plan || vram_mib > 0) {
                err = show_plan(&g, &c, vram_mib, &e);
            } else {
                show(&g, &c);
            }
            gguf_close(&g);
        }
    }
    free(path);
    return tool_finish("inspect", &c, err, &e);
}
