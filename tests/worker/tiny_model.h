/* Tiny models with random weights, one for each architecture and feature, made on the spot: same
 * name, same bytes. For tests of the engine that need a model and no data from outside. */
#ifndef TESTS_WORKER_TINY_MODEL_H
#define TESTS_WORKER_TINY_MODEL_H

#include "shared/gguf.h"

enum { TINY_VOCAB = 40, TINY_EMBD = 32, TINY_CTX = 64 };

struct tiny_model {
    const char *name;
    const char *arch;
    int n_layers;
    const char *keys;    /* "key=value ..." without the architecture's prefix; see tiny_model.c */
    const char *tensors; /* "name:ne0,ne1,ne2 ..." of one layer; a leading '/' marks one of the model */
};

extern const struct tiny_model tiny_models[];
extern const size_t tiny_n_models;

/* NULL when there is none of that name. */
const struct tiny_model *tiny_model_find(const char *name);

/* Writes the file. Tensors of two and more dimensions take the matrix type where their rows are whole
 * blocks of it. Ends the test on failure. */
void tiny_model_write(const struct tiny_model *t, const char *path, enum type matrix);

/* A temporary file of this model, removed at exit of the test. */
const char *tiny_model_file(const struct tiny_model *t, enum type matrix);

#endif
