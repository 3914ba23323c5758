/* The fields that hold what the model is to read. Each checks and keeps its value in *r; errors as
 * request_parse. For request.c only. */
#ifndef GATEWAY_PROMPT_H
#define GATEWAY_PROMPT_H

#include "gateway/request.h"

MUST_CHECK int prompt_read(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int prompt_read_tokens(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int prompt_read_messages(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int prompt_read_tools(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int prompt_read_kwargs(struct request *r, const json_t *v, struct request_err *e);

/* Appends the sections of prompt i; *n_sections: how many. */
void prompt_encode(const struct request *r, size_t i, struct buf *ret, uint32_t *n_sections);

#endif
