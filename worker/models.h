/* The served models: each with its engine, tokenizer and chat template, loaded at start and kept.
 * The index of a model is its number in every message. After models_load nothing here changes; the
 * engine belongs to the token loop, the rest may be read by any thread. */
#ifndef WORKER_MODELS_H
#define WORKER_MODELS_H

#include "shared/config.h"
#include "shared/limits.h"
#include "worker/engine.h"
#include "worker/template.h"
#include "worker/tokenizer.h"

struct model {
    char *name;                  /* owned; what clients call it */
    char *path;                  /* owned */
    struct engine *engine;       /* owned */
    struct tokenizer *tokenizer; /* owned; NULL: the file has no vocabulary */
    struct template *template;   /* owned; NULL: none */
    char *bos_text, *eos_text;   /* owned; "" where there is none: variables of templates */
    int32_t *end_ids;            /* owned; every id that ends an answer */
    size_t n_end_ids;
    int64_t n_vocab;
    int64_t n_ctx; /* tokens of one sequence: the engine's, and never more than its KV pool holds */
};

struct models {
    size_t n;
    struct model v[LIMIT_MODELS];
    /* as the engines were opened: sequences computed together, prompt rows of a step beside one row
     * of each sequence, rows of a step that may want logits */
    int64_t n_seqs, chunk_rows, max_logits;
};

/* Bytes of the model being loaded. */
typedef void models_progress_fn(void *arg, uint64_t done, uint64_t total);

/* Loads every model of the configuration, in order, and logs a line for each. On failure nothing
 * stays loaded; e names the model's path. Errors: those of engine_open, tokenizer_create,
 * ERR_CONFIG, ERR_TEMPLATE (--chat-template), and of setup_engine. */
MUST_CHECK int models_load(struct models *m, const struct config *c, models_progress_fn *progress,
                           void *progress_arg, struct err *e);
void models_finish(struct models *m);

#endif
