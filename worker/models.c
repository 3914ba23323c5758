/* The set of served models. Loading runs on the main thread before the token loop begins, and
 * blocks on disk. */
#include "worker/models.h"
#include "ipc/msg.h"
#include "shared/log.h"
#include "worker/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Prompt logprobs want logits of prompt rows as well: that many in a step (their memory is a
 * vocabulary each), so such prompts take more steps. */
enum { ECHO_ROWS = 16 };

static int read_file(const char *path, struct buf *ret, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, ERR_CONFIG, "chat_template %s: %s", path, strerror(errno));
    }
    char chunk[4096];
    ssize_t n;
    while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
        buf_add(ret, chunk, (size_t)n);
    }
    close(fd);
    if (n < 0 || ret->failed) {
        return err_set(e, ERR_CONFIG, "chat_template %s: %s", path,
                       n < 0 ? "cannot be read" : "larger than a template may be");
    }
    return 0;
}

/* The configured file, which must be good, or the model's own, without which completions still
 * work. */
static int load_template(struct model *m, const char *file, struct err *e)
{
    if (*file) {
        struct buf text;
        buf_init(&text, LIMIT_TEMPLATE_BYTES);
        int err = read_file(file, &text, e);
        if (err == 0) {
            err = template_create(text.data ? text.data : "", text.len, &m->template, e);
        }
        buf_finish(&text);
        return err;
    }
    struct gguf_str own;
    struct err why;
    int err = gguf_get_str(engine_gguf(m->engine), "tokenizer.chat_template", &own, &why);
    if (err == 0 && own.data) {
        err = template_create(own.data, own.len, &m->template, &why);
    }
    if (err == -ENOMEM) {
        return err;
    }
    if (err < 0) {
        log_warn("%s: the chat template of the model cannot be used: %s", m->name, why.detail);
    }
    return 0;
}

static char *token_text(const struct tokenizer *t, int32_t id)
{
    struct buf text;
    buf_init(&text, 0);
    buf_str(&text, "");
    if (id >= 0 && tokenizer_piece(t, id, false, true, &text) < 0) {
        text.failed = true;
    }
    if (text.failed) {
        buf_finish(&text);
        return NULL;
    }
    return text.data;
}

static int load_tokenizer(struct model *m, struct err *e)
{
    char warn[160] = "";
    int err = tokenizer_create(engine_gguf(m->engine), &m->tokenizer, warn, e);
    if (err == ERR_NO_TOKENIZER) {
        log_warn("%s: the file has no vocabulary; prompts must be token ids", m->name);
        return 0;
    }
    if (err < 0) {
        return err;
    }
    if (*warn) {
        log_warn("%s: %s", m->name, warn);
    }
    if (tokenizer_size(m->tokenizer) > m->n_vocab) {
        return err_set(e, ERR_MODEL_TOKENIZER, "%d tokens, but the model has outputs for %lld",
                       tokenizer_size(m->tokenizer), (long long)m->n_vocab);
    }
    m->bos_text = token_text(m->tokenizer, tokenizer_bos(m->tokenizer));
    m->eos_text = token_text(m->tokenizer, tokenizer_eos(m->tokenizer));
    struct buf ends;
    buf_init(&ends, 0);
    for (int32_t id = 0; id < tokenizer_size(m->tokenizer); id++) {
        if (tokenizer_is_end(m->tokenizer, id)) {
            buf_add(&ends, &id, sizeof(id));
        }
    }
    m->end_ids = (int32_t *)(void *)ends.data;
    m->n_end_ids = ends.len / sizeof(int32_t);
    return m->bos_text && m->eos_text && !ends.failed ? 0 : -ENOMEM;
}

static int load(struct model *m, const char *arg, const struct config *c,
                const struct engine_options *o, struct err *e)
{
    int err = config_model(arg, &m->name, &m->path, e);
    if (err < 0) {
        return err;
    }
    if (strlen(m->name) >= 2 * MSG_NAME_BYTES) {
        return err_set(e, ERR_CONFIG, "the name has more than %d bytes; use NAME=PATH",
                       2 * MSG_NAME_BYTES - 1);
    }
    err = engine_open(m->path, o, &m->engine, e);
    if (err < 0) {
        return err;
    }
    const struct engine_info *info = engine_info(m->engine);
    m->n_vocab = info->n_vocab;
    m->n_ctx = MIN(info->n_ctx, info->n_blocks * ENGINE_BLOCK_TOKENS);
    err = load_tokenizer(m, e);
    if (err == 0) {
        err = load_template(m, c->v[CONFIG_chat_template].str, e);
    }
    if (err == 0) {
        log_info(
            "model %s: %s, %s, %.1f MB of weights, context %lld tokens, KV cache %.1f MB for %lld "
            "tokens, on %s",
            m->name, info->arch, info->quant, (double)info->weight_bytes / 1e6, (long long)m->n_ctx,
            (double)info->kv_bytes / 1e6, (long long)(info->n_blocks * ENGINE_BLOCK_TOKENS),
            info->device);
        if (*info->warn) {
            log_warn("model %s: %s", m->name, info->warn);
        }
    }
    return err;
}

/* Puts the model's path before what went wrong, unless it is there already. */
static int name_path(int err, const char *path, struct err *e)
{
    char detail[ERR_DETAIL_BYTES];
    if (e->code != err) {
        e->detail[0] = 0; /* -ENOMEM and the like come without words */
    }
    if (!path || strstr(e->detail, path)) {
        e->code = err;
        return err;
    }
    memcpy(detail, e->detail, sizeof(detail));
    return err_set(e, err, "%s%s%.200s", path, *detail ? ": " : "", detail);
}

int models_load(struct models *m, const struct config *c, models_progress_fn *progress,
                void *progress_arg, struct err *e)
{
    *m = (struct models){0};
    const struct config_list *list = &c->v[CONFIG_model].list;
    if (list->n < 1 || list->n > LIMIT_MODELS) {
        return err_set(e, ERR_CONFIG, "%zu models, allowed 1 to %d", list->n, LIMIT_MODELS);
    }
    struct engine_options o;
    int bad = setup_engine(c, &o, e);
    if (bad < 0) {
        return bad;
    }
    if (strcmp(c->v[CONFIG_device].str, "auto") == 0) {
        log_info("no usable GPU engine: computing on the CPU");
    }
    m->chunk_rows = o.max_rows;
    m->n_seqs = o.n_seqs;
    m->max_logits = o.n_seqs + ECHO_ROWS;
    o.max_rows = m->chunk_rows + m->n_seqs; /* a full chunk beside every running stream */
    o.max_logits = m->max_logits;
    o.kv_memory_share /= (double)list->n;
    o.progress = progress;
    o.progress_arg = progress_arg;
    for (size_t i = 0; i < list->n; i++) {
        *e = (struct err){0};
        int err = load(&m->v[m->n++], list->items[i], c, &o, e);
        for (size_t k = 0; err == 0 && k < i; k++) {
            if (strcmp(m->v[k].name, m->v[i].name) == 0) {
                err = err_set(e, ERR_CONFIG, "two models have the name '%s'; use NAME=PATH",
                              m->v[i].name);
            }
        }
        if (err < 0) {
            name_path(err, m->v[i].path, e);
            models_finish(m);
            return err;
        }
    }
    return 0;
}

void models_finish(struct models *m)
{
    for (size_t i = 0; i < m->n; i++) {
        struct model *v = &m->v[i];
        template_destroy(&v->template);
        tokenizer_destroy(&v->tokenizer);
        engine_close(&v->engine);
        free(v->bos_text);
        free(v->eos_text);
        free(v->end_ids);
        free(v->name);
        free(v->path);
    }
    *m = (struct models){0};
}
