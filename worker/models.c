/* The set of served models. Loading blocks on disk: it runs on the main thread before the token
 * loop begins, and later in the loader's (worker/loader.h). */
#include "worker/models.h"
#include "ipc/memfd.h"
#include "shared/log.h"
#include "worker/canary.h"
#include "worker/setup.h"
#include "worker/stores.h"
#include "worker/template_chat.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Prompt logprobs want logits of prompt rows as well: that many in a step (their memory is a
 * vocabulary each), so such prompts take more steps. */
enum { ECHO_ROWS = 16 };

/* The configured one, which must be good, or the model's own, without which completions still
 * work. */
static int load_template(struct model *m, const char *choice, struct err *e)
{
    struct err why = {0};
    int err = template_chat_load(engine_gguf(m->engine), choice, &m->template,
                                 *choice ? e : &why);
    if (err == -ENOMEM || *choice) {
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

/* ---- the tokenizer's tables ---- */

static void tables_key(const uint8_t fingerprint[32], uint8_t ret[STORE_KEY_BYTES])
{
    const uint32_t layout = TOKENIZER_TABLES_LAYOUT;
    const struct stores_part parts[] = {{&layout, sizeof(layout)}, {fingerprint, 32}};
    stores_key(STORE_VOCAB, parts, COUNT_OF(parts), ret);
}

static void claim_stores(const struct engine_options *o, const uint8_t fingerprint[32])
{
    uint8_t key[STORE_KEY_BYTES];
    tables_key(fingerprint, key);
    stores_claim(o->stores, STORE_VOCAB, key);
    engine_claim_stores(o, fingerprint);
}

static void take_tables(struct stores *stores, const uint8_t *key, struct tokenizer_tables *ret)
{
    size_t bytes;
    void *map;
    int fd = stores_take(stores, STORE_VOCAB, key, &bytes);
    if (fd >= 0 && memfd_map(fd, bytes, bytes, true, false, &map, &bytes) == 0) {
        *ret = (struct tokenizer_tables){map, bytes};
    }
    if (fd >= 0) { /* the mapping is enough, and what is const has no owner */
        stores_release(stores, STORE_VOCAB, key);
    }
}

static void put_tables(struct stores *stores, const uint8_t *key, struct tokenizer_tables t)
{
    int fd = stores && t.data ? memfd_create_const("rocmforge-vocabulary", t.data, t.bytes) : -1;
    if (fd >= 0 && stores_put(stores, STORE_VOCAB, key, fd, t.bytes)) {
        stores_release(stores, STORE_VOCAB, key);
    }
}

static int create_tokenizer(struct model *m, struct stores *stores, char warn[160], struct err *e)
{
    uint8_t key[STORE_KEY_BYTES];
    tables_key(engine_info(m->engine)->fingerprint, key);
    take_tables(stores, key, &m->tables);
    int err = tokenizer_create_from(engine_gguf(m->engine), m->tables, &m->tokenizer, warn, e);
    if (err == 0 && !m->tables.data) {
        put_tables(stores, key, tokenizer_tables(m->tokenizer));
    }
    return err;
}

static int load_tokenizer(struct model *m, struct stores *stores, struct err *e)
{
    char warn[160] = "";
    int err = create_tokenizer(m, stores, warn, e);
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
    m->pieces = calloc(1, sizeof(*m->pieces));
    return m->bos_text && m->eos_text && m->pieces && !ends.failed ? 0 : -ENOMEM;
}

static int name(struct models *m, struct model *v, const char *arg, struct err *e)
{
    int err = config_model(arg, &v->name, &v->path, e);
    if (err < 0) {
        return err;
    }
    if (strlen(v->name) >= 2 * MSG_NAME_BYTES) {
        return err_set(e, ERR_CONFIG, "the name has more than %d bytes; use NAME=PATH",
                       2 * MSG_NAME_BYTES - 1);
    }
    for (const struct model *k = m->v; k < v; k++) {
        if (strcmp(k->name, v->name) == 0) {
            return err_set(e, ERR_CONFIG, "two models have the name '%s'; use NAME=PATH", v->name);
        }
    }
    return 0;
}

static void describe(struct model *v, const struct engine_info *info)
{
    struct stat st;
    v->card = (struct msg_model){
        .n_vocab = (uint32_t)v->n_vocab,
        .n_ctx = (uint32_t)v->n_ctx,
        .n_ctx_train = (uint32_t)info->n_ctx_train,
        .has_template = v->template != NULL,
        .is_loaded = v->engine != NULL,
        .n_params = info->n_params,
        .bytes = info->weight_bytes,
        .created = stat(v->path, &st) == 0 ? st.st_mtime : 0,
    };
    snprintf(v->card.name, sizeof(v->card.name), "%s", v->name);
    snprintf(v->card.arch, sizeof(v->card.arch), "%s", info->arch);
    snprintf(v->card.quant, sizeof(v->card.quant), "%s", info->quant);
    snprintf(v->card.device, sizeof(v->card.device), "%s", info->device);
    snprintf(v->card.profile, sizeof(v->card.profile), "%s", info->profile);
    memcpy(v->card.fingerprint, info->fingerprint, sizeof(v->card.fingerprint));
}

void models_describe(struct model *v)
{
    describe(v, engine_info(v->engine));
}

static void take_sizes(struct model *v, const struct engine_info *info)
{
    v->n_vocab = info->n_vocab;
    v->n_ctx = MIN(info->n_ctx, info->n_blocks * ENGINE_BLOCK_TOKENS);
    v->n_ctx = MIN(v->n_ctx, (int64_t)LIMIT_CONTEXT_TOKENS);
}

/* What the GPU cannot have, the CPU computes, unless the GPU is required. */
static bool goes_to_cpu(const struct models *m, struct engine_options *o, int err)
{
    if ((err != ERR_NO_GPU && err != ERR_NO_VRAM) || !o->door || m->device->is_required) {
        return false;
    }
    o->door = NULL;
    o->vram_bytes = 0;
    return true;
}

/* What the file says about a model that is not loaded. */
static int look_at(const struct models *m, struct model *v, struct err *e)
{
    struct engine_options o = m->options;
    struct gguf g;
    struct gguf_str arch = {0}, template = {0};
    struct engine_info info = {.arch = ""};
    struct err none;
    char arch_name[32];
    int err = gguf_open(v->path, &g, e);
    if (err < 0) {
        return err;
    }
    err = engine_estimate(&g, &o, &info, e);
    if (goes_to_cpu(m, &o, err)) {
        *e = (struct err){0};
        err = engine_estimate(&g, &o, &info, e);
    }
    if (err == 0) {
        take_sizes(v, &info);
        claim_stores(&o, info.fingerprint);
        if (gguf_get_str(&g, "general.architecture", &arch, &none) == 0 && arch.data) {
            snprintf(arch_name, sizeof(arch_name), "%.*s", (int)MIN(arch.len, (size_t)31),
                     arch.data);
            info.arch = arch_name;
        }
        describe(v, &info);
        v->card.has_template =
            gguf_get_str(&g, "tokenizer.chat_template", &template, &none) == 0 && template.data;
        log_info("model %s: %s, %s, %.1f MB of weights; loaded when it is asked for", v->name,
                 info.arch, info.quant, (double)info.weight_bytes / 1e6);
    }
    gguf_close(&g);
    return err;
}

static int load(struct model *m, const struct config *c, const struct engine_options *o,
                struct err *e)
{
    int err = engine_open(m->path, o, &m->engine, e);
    if (err < 0) {
        return err;
    }
    const struct engine_info *info = engine_info(m->engine);
    take_sizes(m, info);
    err = load_tokenizer(m, o->stores, e);
    if (err == 0) {
        err = load_template(m, c->v[CONFIG_chat_template].str, e);
    }
    if (err == 0) {
        models_describe(m);
        log_info(
            "model %s: %s, %s, %.1f MB of weights, context %lld tokens, KV cache %.1f MB for %lld "
            "tokens, on %s; %s",
            m->name, info->arch, info->quant, (double)info->weight_bytes / 1e6, (long long)m->n_ctx,
            (double)info->kv_bytes / 1e6, (long long)(info->n_blocks * ENGINE_BLOCK_TOKENS),
            info->device, info->memory);
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

int models_load(struct models *m, const struct config *c, const struct device *device,
                struct stores *stores, models_progress_fn *progress, void *progress_arg,
                struct err *e)
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
    m->chunk_rows = o.max_rows;
    m->n_seqs = o.n_seqs;
    m->max_logits = o.n_seqs + ECHO_ROWS;
    o.max_rows = m->chunk_rows + m->n_seqs; /* a full chunk beside every running stream */
    o.max_logits = m->max_logits;
    m->max_loaded = c->v[CONFIG_max_models].i > 0 ? (size_t)c->v[CONFIG_max_models].i : list->n;
    o.kv_memory_share /= (double)MIN(list->n, m->max_loaded);
    o.stores = stores;
    device_use(device, MIN(list->n, m->max_loaded), &o);
    m->options = o;
    m->config = c;
    m->device = device;
    for (size_t i = 0; i < list->n; i++) {
        struct model *v = &m->v[m->n++];
        *e = (struct err){0};
        int err = name(m, v, list->items[i], e);
        if (err == 0) {
            err = i < m->max_loaded ? models_open(m, i, progress, progress_arg, v, e)
                                    : look_at(m, v, e);
        }
        if (err < 0) {
            name_path(err, v->path, e);
            models_finish(m);
            return err;
        }
        if (v->engine) {
            canary_check(v->engine);
        }
    }
    stores_drop_unclaimed(stores);
    return 0;
}

int models_open(const struct models *m, size_t index, models_progress_fn *progress,
                void *progress_arg, struct model *ret, struct err *e)
{
    struct engine_options o = m->options;
    o.progress = progress;
    o.progress_arg = progress_arg;
    struct model fresh = {.name = m->v[index].name, .path = m->v[index].path};
    *e = (struct err){0};
    int err = load(&fresh, m->config, &o, e);
    if (goes_to_cpu(m, &o, err)) {
        log_warn("model %s: computing on the CPU: %s", fresh.name, e->detail);
        models_unload(&fresh);
        *e = (struct err){0};
        err = load(&fresh, m->config, &o, e);
    }
    if (err < 0) {
        models_unload(&fresh);
        return name_path(err, fresh.path, e);
    }
    *ret = fresh;
    return 0;
}

void models_unload(struct model *v)
{
    template_destroy(&v->template);
    tokenizer_destroy(&v->tokenizer);
    engine_close(&v->engine);
    memfd_unmap((void *)(uintptr_t)v->tables.data, v->tables.bytes);
    v->tables = (struct tokenizer_tables){0};
    free(v->bos_text);
    free(v->eos_text);
    free(v->end_ids);
    if (v->pieces) {
        pieces_destroy(v->pieces);
        free(v->pieces);
        v->pieces = NULL;
    }
    v->bos_text = v->eos_text = NULL;
    v->end_ids = NULL;
    v->n_end_ids = 0;
    v->card.is_loaded = 0;
}

int models_pieces(const struct model *v, const struct pieces **ret, struct err *e)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    if (!v->tokenizer || !v->pieces) {
        return err_set(e, ERR_NO_TOKENIZER, "model %s", v->name);
    }
    pthread_mutex_lock(&mutex);
    int err = *v->pieces ? 0 : pieces_create(v->tokenizer, v->pieces);
    pthread_mutex_unlock(&mutex);
    *ret = *v->pieces;
    return err < 0 ? err_set(e, err, "sorting the vocabulary of %s", v->name) : 0;
}

void models_drop_stores(const struct models *m, const struct model *v, bool keeps_cache)
{
    uint8_t key[STORE_KEY_BYTES];
    tables_key(v->card.fingerprint, key);
    stores_drop(m->options.stores, STORE_VOCAB, key);
    engine_drop_stores(&m->options, v->card.fingerprint, keeps_cache);
}

size_t models_n_loaded(const struct models *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        n += m->v[i].engine != NULL;
    }
    return n;
}

void models_finish(struct models *m)
{
    for (size_t i = 0; i < m->n; i++) {
        models_unload(&m->v[i]);
        free(m->v[i].name);
        free(m->v[i].path);
    }
    *m = (struct models){0};
}
