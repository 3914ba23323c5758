/* What the handlers have in common that pass a client's request to the worker: the body is read,
 * the model it names is found, the handler goes on. A large body is read in libuv's pool, so that
 * nobody else's stream waits for it. One thread, the loop's, but for that. */
#ifndef GATEWAY_ASK_H
#define GATEWAY_ASK_H

#include "gateway/exchange.h"
#include "gateway/link.h"
#include "gateway/request.h"

/* Goes on with a request that was read; answers, or leaves work. r is freed by the caller and may
 * be changed. arg: as given to ask(). */
typedef void ask_fn(struct exchange *x, struct request *r, const struct msg_model *model,
                    const void *arg);

/* Reads the body and goes on, now or later; a refusal is answered. arg outlives the exchange. */
void ask(struct exchange *x, enum request_api api, ask_fn *then, const void *arg);

/* Of bodies that are being read; loop only. */
size_t ask_pending_bytes(void);

/* For ids, and for seeds that a client does not give. */
uint64_t ask_random(void);

/* Answers with what link_submit returned. */
void ask_refuse(struct exchange *x, int rc);

#endif
