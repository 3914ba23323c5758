/* The fields that say what an answer has to look like: a grammar, a schema, a call of a tool; and
 * what of it is given apart. For request.c only; errors as request_parse. */
#ifndef GATEWAY_FORM_H
#define GATEWAY_FORM_H

#include "gateway/request.h"

MUST_CHECK int form_read_json_schema(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int form_read_response_format(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int form_read_tool_choice(struct request *r, const json_t *v, struct request_err *e);
MUST_CHECK int form_read_reasoning_format(struct request *r, const json_t *v,
                                          struct request_err *e);
/* All fields are read: do they go together? Makes the schema of a call that is required. */
MUST_CHECK int form_check(struct request *r, struct request_err *e);
/* Appends their sections; returns how many. */
uint32_t form_encode(const struct request *r, struct buf *ret);

#endif
