/* Anthropic's Messages API to the chat request that it means. */
#ifndef GATEWAY_ANTHROPIC_H
#define GATEWAY_ANTHROPIC_H

#include "gateway/request.h"

/* *ret: a new object in the form of /v1/chat/completions. Further keys are passed on. Errors:
 * ERR_BAD_FIELD, ERR_UNSUPPORTED, with the field's place; -ENOMEM. */
MUST_CHECK int anthropic_translate(const json_t *in, json_t **ret, struct request_err *e);

#endif
