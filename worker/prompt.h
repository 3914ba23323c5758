/* From what a client sent to prompt tokens, and the TEXT operations. Pure but for the request's own
 * fields; runs in the prepare threads. */
#ifndef WORKER_PROMPT_H
#define WORKER_PROMPT_H

#include "worker/request.h"

/* Fills prompt and n_prompt of a GENERATE. Errors: ERR_NO_TOKENIZER, ERR_NO_TEMPLATE, ERR_TEMPLATE,
 * ERR_BAD_JSON, ERR_BAD_TOKEN, -ENOMEM. */
MUST_CHECK int prompt_make(struct request *r, int64_t now_unix_s, struct err *e);

/* Fills result of a TEXT. Same errors. */
MUST_CHECK int prompt_text_op(struct request *r, int64_t now_unix_s, struct err *e);

#endif
