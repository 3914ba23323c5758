/* GGUF writer (version 3). Metadata and tensor declarations first, then the data in the same order,
 * streamed: memory stays small whatever the file's size. */
#ifndef SHARED_GGUFW_H
#define SHARED_GGUFW_H

#include "shared/base.h"
#include "shared/err.h"
#include "shared/gguf.h"

struct ggufw;

/* Writes to path.part and renames on success, so a reader never sees half a file. */
MUST_CHECK int ggufw_create(const char *path, struct ggufw **ret, struct err *e);
/* Removes what was written unless ggufw_commit succeeded. NULL-safe; sets *w to NULL. */
void ggufw_destroy(struct ggufw **w);

/* The put calls and ggufw_declare keep the first failure (no memory, a name put twice, a bad
 * general.alignment) for ggufw_begin_data to return. general.alignment is honoured; it comes before
 * the first declaration, and is 32 without. */
void ggufw_put_u32(struct ggufw *w, const char *key, uint32_t v);
void ggufw_put_u64(struct ggufw *w, const char *key, uint64_t v);
void ggufw_put_f32(struct ggufw *w, const char *key, float v);
void ggufw_put_bool(struct ggufw *w, const char *key, bool v);
void ggufw_put_str(struct ggufw *w, const char *key, const char *s, size_t n);
/* Copies a key of another file as it is, under its own name. */
void ggufw_put_kv(struct ggufw *w, const struct gguf_kv *kv);
/* Arrays: elem values as they stand in the format, little-endian. */
void ggufw_put_array(struct ggufw *w, const char *key, enum gguf_kind elem, const void *data,
                     uint64_t n);
void ggufw_put_str_array(struct ggufw *w, const char *key, const struct gguf_str *s, uint64_t n);

/* ne[0] is a multiple of the type's block length. */
void ggufw_declare(struct ggufw *w, const char *name, enum type type, uint32_t n_dims,
                   const uint64_t *ne);
/* Writes the header; after it come the tensors' bytes, in order of declaration, in pieces of any
 * size. Each tensor must receive exactly its bytes before the next begins. */
MUST_CHECK int ggufw_begin_data(struct ggufw *w, struct err *e);
MUST_CHECK int ggufw_write(struct ggufw *w, const void *data, size_t bytes, struct err *e);
MUST_CHECK int ggufw_commit(struct ggufw *w, struct err *e);

#endif
