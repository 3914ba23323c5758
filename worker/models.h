/* The served models: each with its engine, tokenizer and chat template while it is loaded. The
 * index of a model is its number in every message. The engine belongs to the token loop; the rest
 * of a loaded model may be read by any thread that prepares a request of it. */
#ifndef WORKER_MODELS_H
#define WORKER_MODELS_H

#include "ipc/msg.h"
#include "shared/config.h"
#include "shared/limits.h"
#include "worker/device.h"
#include "worker/engine.h"
#include "worker/grammar/pieces.h"
#include "worker/template.h"
#include "worker/tokenizer.h"

struct model {
    char *name;                  /* owned; what clients call it */
    char *path;                  /* owned */
    struct engine *engine;       /* owned; NULL: it is not loaded, nor is what follows there */
    struct tokenizer *tokenizer; /* owned; NULL: the file has no vocabulary */
    struct tokenizer_tables tables; /* owned mapping of a store; or none */
    struct template *template;   /* owned; NULL: none */
    char *bos_text, *eos_text;   /* owned; "" where there is none: variables of templates */
    struct pieces **pieces;      /* owned; what models_pieces made, or NULL in it */
    int32_t *end_ids;            /* owned; every id that ends an answer */
    size_t n_end_ids;
    int64_t n_vocab;
    int64_t n_ctx; /* tokens of one sequence: the engine's, and never more than its KV pool holds */
    struct msg_model card; /* what is told of it; stays when it is unloaded */
    uint64_t used_ns;      /* last moment with a request of it (loop.c) */
};

struct models {
    size_t n;
    struct model v[LIMIT_MODELS];
    /* as the engines were opened: sequences computed together, prompt rows of a step beside one row
     * of each sequence, rows of a step that may want logits */
    int64_t n_seqs, chunk_rows, max_logits;
    struct engine_options options; /* of every engine */
    const struct config *config;   /* borrowed */
    const struct device *device;   /* borrowed */
    size_t max_loaded;
    bool is_card_due[LIMIT_MODELS]; /* news of it found no room in the ring */
};

/* Bytes of the model being loaded. */
typedef void models_progress_fn(void *arg, uint64_t done, uint64_t total);

/* Names every model of the configuration and loads as many as may be loaded at once, in order, with
 * a line in the log for each; the others are only looked at. On failure nothing stays loaded; e
 * names the model's path. Errors: those of engine_open, tokenizer_create, ERR_CONFIG, ERR_TEMPLATE
 * (--chat-template), and of setup_engine. c, device and stores are borrowed. */
MUST_CHECK int models_load(struct models *m, const struct config *c, const struct device *device,
                           struct stores *stores, models_progress_fn *progress,
                           void *progress_arg, struct err *e);
void models_finish(struct models *m);

/* Opens a model that is not loaded into *ret, whose names are those of the model. Any thread;
 * blocks on disk. e names the path. */
MUST_CHECK int models_open(const struct models *m, size_t index, models_progress_fn *progress,
                           void *progress_arg, struct model *ret, struct err *e);
/* Of a loaded model: brings its card up to date. */
void models_describe(struct model *v);
/* Frees all but names and card. Nobody may use the model. What is kept for the next load stays. */
void models_unload(struct model *v);
/* The vocabulary of a loaded model, sorted; made when it is first wanted. Any thread. Errors: those
 * of pieces_create; ERR_NO_TOKENIZER. */
MUST_CHECK int models_pieces(const struct model *v, const struct pieces **ret, struct err *e);
/* Of one that is not loaded: what is kept of it is given up, but for the KV cache with
 * keeps_cache. */
void models_drop_stores(const struct models *m, const struct model *v, bool keeps_cache);
size_t models_n_loaded(const struct models *m);

#endif
