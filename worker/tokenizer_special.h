/* Which tokens are special: begin, end, unknown, separator; every token that ends an answer; white
 * space rules of literal tokens. */
#ifndef WORKER_TOKENIZER_SPECIAL_H
#define WORKER_TOKENIZER_SPECIAL_H

#include "worker/tokenizer_vocab.h"

/* Fills the special ids, add_* and attributes of v, whose n and types are set; text: the tokens as
 * they stand in the file. Tokens known to end an answer become control tokens whatever the file
 * calls them, so that no text can spell them; without types in the file the special ids do too.
 * Errors: ERR_MODEL_TOKENIZER, ERR_GGUF_KEY. */
MUST_CHECK int tokenizer_special_read(struct tokenizer_vocab *v, const struct gguf *g,
                                      const struct gguf_str *text,
                                      const struct tokenizer_vocab_defaults *d, bool has_types,
                                      struct err *e);

#endif
