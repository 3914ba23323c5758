/* Special tokens, from the file's keys and, where files are known to be silent or wrong, from the
 * tokens' texts. Runs once at load.
 * Invariant: every id it stores is -1 or in [0, n). */
#include "worker/tokenizer_special.h"

#include <ctype.h>
#include <string.h>

/* Texts that end an answer in the model families that use them. */
static const char *const end_texts[] = {
    "<|eot_id|>",         /* Llama 3 */
    "<|eom_id|>",         /* Llama 3 tool calls */
    "<|im_end|>",         /* ChatML */
    "<|end|>",            /* Phi 3 */
    "<|return|>",         /* gpt-oss */
    "<|call|>",           /* gpt-oss */
    "<|calls|>",          /* Solar */
    "<|flush|>",          /* Solar */
    "<end_of_turn>",      /* Gemma */
    "<turn|>",            /* Gemma 4 */
    "<|tool_response>",   /* Gemma 4 */
    "<eos>",              /* Gemma */
    "<|endoftext|>",      /* GPT-2 */
    "<|end_of_text|>",    /* Llama 3, Granite */
    "<end_of_utterance>", /* SmolDocling */
    "<EOT>",              /* CodeLlama */
    "_<EOT>",
    "[EOT]",                                   /* Kimi K2 */
    "[EOS]",                                   /* Kimi K2 */
    "[e~[",                                    /* MiniMax M2 */
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>", /* DeepSeek */
    "</s>",
};

/* Texts that end a completion of a file; they count only where the file does not call them text. */
static const char *const end_of_file_texts[] = {
    "<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<|repo_name|>", "<|file_sep|>",
};

static bool is_one_of(struct gguf_str s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s.len == strlen(list[i]) && memcmp(s.data, list[i], s.len) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_text(struct gguf_str s, const char *text)
{
    return is_one_of(s, &text, 1);
}

static bool may_be_end(struct gguf_str s, enum tokenizer_type type)
{
    if (s.len == 0 || !strchr("<[_", s.data[0])) {
        return false;
    }
    if (is_one_of(s, end_of_file_texts, COUNT_OF(end_of_file_texts)) || is_text(s, "</s>")) {
        return type == TOKENIZER_CONTROL || type == TOKENIZER_USER;
    }
    return is_one_of(s, end_texts, COUNT_OF(end_texts));
}

static void find_ends(struct tokenizer_vocab *v, const struct gguf_str *text)
{
    bool has_return = false, has_call = false, has_flush = false;
    int32_t end = -1;
    for (int32_t i = 0; i < v->n; i++) {
        if (!may_be_end(text[i], v->type[i])) {
            continue;
        }
        v->attr[i] |= TOKENIZER_END;
        v->type[i] = TOKENIZER_CONTROL;
        has_return |= is_text(text[i], "<|return|>");
        has_call |= is_text(text[i], "<|call|>") || is_text(text[i], "<|calls|>");
        has_flush |= is_text(text[i], "<|flush|>");
        end = is_text(text[i], "<|end|>") ? i : end;
    }
    /* In the formats of gpt-oss and Solar <|end|> closes one message of several. */
    if (end >= 0 && has_call && (has_return || has_flush)) {
        v->attr[end] &= (uint8_t)~TOKENIZER_END;
    }
}

/* White space that published tokenizers strip around literal tokens. GGUF has no key for it, so it
 * goes by the model's name, as in every other reader of the format. */
static int read_strips(struct tokenizer_vocab *v, const struct gguf *g, const struct gguf_str *text,
                       struct err *e)
{
    struct gguf_str name, pre, arch;
    int rc = gguf_get_str(g, "general.name", &name, e);
    rc = rc < 0 ? rc : gguf_get_str(g, "tokenizer.ggml.pre", &pre, e);
    rc = rc < 0 ? rc : gguf_get_str(g, "general.architecture", &arch, e);
    if (rc < 0) {
        return rc;
    }
    char lower[64] = "";
    for (size_t i = 0; i < MIN(name.len, sizeof(lower) - 1); i++) {
        lower[i] = (char)tolower((unsigned char)name.data[i]);
    }
    bool is_phi3 = strstr(lower, "phi-3") || strstr(lower, "phi3");
    bool has_wide_mask = (pre.len >= 7 && memcmp(pre.data, "jina-v2", 7) == 0) ||
                         is_text(arch, "nomic-bert-moe") || is_text(arch, "jina-bert-v3");
    bool is_modern_bert = strstr(lower, "modern-bert") != NULL;
    for (int32_t i = 0; i < v->n; i++) {
        bool is_literal = v->type[i] == TOKENIZER_CONTROL || v->type[i] == TOKENIZER_USER ||
                          v->type[i] == TOKENIZER_UNKNOWN;
        if (is_phi3 && is_literal && !is_text(text[i], "<unk>") && !is_text(text[i], "<s>") &&
            !is_text(text[i], "<|endoftext|>")) {
            v->attr[i] |= TOKENIZER_RSTRIP;
        }
        if ((has_wide_mask && is_text(text[i], "<mask>")) ||
            (is_modern_bert && is_text(text[i], "[MASK]"))) {
            v->attr[i] |= TOKENIZER_LSTRIP;
        }
    }
    return 0;
}

/* The id of a key, else the presumed one if it is no text, else -1. */
static int read_id(const struct tokenizer_vocab *v, const struct gguf *g, const char *key,
                   int32_t presumed, bool has_types, int32_t *ret, struct err *e)
{
    const uint64_t absent = UINT32_MAX; /* also what files with an id of -1 hold */
    uint64_t id;
    int rc = gguf_get_u64(g, key, 0, UINT64_MAX, absent, &id, e);
    if (rc < 0) {
        return rc;
    }
    if (id == absent) {
        bool is_usable = presumed >= 0 && presumed < v->n &&
                         (!has_types || v->type[presumed] == TOKENIZER_CONTROL ||
                          v->type[presumed] == TOKENIZER_UNKNOWN);
        *ret = is_usable ? presumed : -1;
        return 0;
    }
    if (id >= (uint64_t)v->n) {
        return err_set(e, ERR_MODEL_TOKENIZER, "%s is %llu, but there are %d tokens", key,
                       (unsigned long long)id, v->n);
    }
    *ret = (int32_t)id;
    return 0;
}

int tokenizer_special_read(struct tokenizer_vocab *v, const struct gguf *g,
                           const struct gguf_str *text, const struct tokenizer_vocab_defaults *d,
                           bool has_types, struct err *e)
{
    int32_t eot, eom, cls;
    const struct {
        const char *key;
        int32_t presumed;
        int32_t *id;
    } ids[] = {
        {"tokenizer.ggml.cls_token_id", d->bos, &cls},
        {"tokenizer.ggml.bos_token_id", -1, &v->bos},
        {"tokenizer.ggml.eos_token_id", d->eos, &v->eos},
        {"tokenizer.ggml.eot_token_id", -1, &eot},
        {"tokenizer.ggml.eom_token_id", -1, &eom},
        {"tokenizer.ggml.unknown_token_id", d->unk, &v->unk},
        {"tokenizer.ggml.seperator_token_id", d->sep, &v->sep}, /* the format's spelling */
    };
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        int rc = read_id(v, g, ids[i].key, ids[i].presumed, has_types, ids[i].id, e);
        if (rc < 0) {
            return rc;
        }
    }
    v->bos = v->bos < 0 ? cls : v->bos;
    const struct {
        const char *key;
        bool presumed;
        bool *flag;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token", d->add_bos, &v->add_bos},
        {"tokenizer.ggml.add_eos_token", d->add_eos, &v->add_eos},
        {"tokenizer.ggml.add_sep_token", d->add_sep, &v->add_sep},
        {"tokenizer.ggml.add_space_prefix", d->add_space_prefix, &v->add_space_prefix},
        {"tokenizer.ggml.remove_extra_whitespaces", false, &v->merge_spaces},
    };
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        int rc = gguf_get_bool(g, flags[i].key, flags[i].presumed, flags[i].flag, e);
        if (rc < 0) {
            return rc;
        }
    }
    if (!has_types) {
        const int32_t control[] = {v->bos, v->eos, v->sep, eot, eom};
        for (size_t i = 0; i < COUNT_OF(control); i++) {
            if (control[i] >= 0) {
                v->type[control[i]] = TOKENIZER_CONTROL;
            }
        }
        if (v->unk >= 0 && v->type[v->unk] == TOKENIZER_NORMAL) {
            v->type[v->unk] = TOKENIZER_UNKNOWN;
        }
    }
    find_ends(v, text);
    const int32_t ends[] = {v->eos, eot, eom};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        if (ends[i] >= 0) {
            v->attr[ends[i]] |= TOKENIZER_END;
        }
    }
    return read_strips(v, g, text, e);
}
