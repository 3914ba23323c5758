/* From the event ring to the owners of requests. Part of the link, for its own files. */
#ifndef GATEWAY_INTAKE_H
#define GATEWAY_INTAKE_H

#include "gateway/link.h"

/* Takes what is there, up to a batch; true if the ring is empty now, or the epoch has ended. */
bool intake_batch(struct link *l);

#endif
