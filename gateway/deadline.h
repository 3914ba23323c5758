/* The time limits of a request: from its body, its headers, the configuration. */
#ifndef GATEWAY_DEADLINE_H
#define GATEWAY_DEADLINE_H

#include "gateway/exchange.h"
#include "gateway/request.h"

/* Completes those that the body does not say and takes off what has passed. A refusal is answered;
 * returns its code then. */
MUST_CHECK int deadline_settle(struct exchange *x, struct request *r);

#endif
