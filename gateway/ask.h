/* What the handlers have in common that pass a client's request to the worker. One thread, the
 * loop's. */
#ifndef GATEWAY_ASK_H
#define GATEWAY_ASK_H

#include "gateway/exchange.h"
#include "gateway/link.h"
#include "gateway/request.h"

/* Reads the body and finds the model that it asks for. NULL: it was refused and that was answered.
 * Else *ret is to be finished. */
const struct msg_model *ask_read(struct exchange *x, enum request_api api, struct request *ret);

/* Answers with what link_submit returned. */
void ask_refuse(struct exchange *x, int rc);

#endif
