/* The canary: whoever computes on a GPU computes a few fixed tokens first, and is believed only if
 * the bits are right. They are computed in two ways that share few kernels, as one chunk (products
 * as for a prompt) and as a shorter one with single tokens behind it (products for few rows and for
 * one, split attention, replayed steps): the logits must be the same bits, as invariance promises.
 * Their digest is a store: a worker after it has the second way alone to compute, and must get the
 * bits that were had before for the same model, kernels and placement. */
#ifndef WORKER_CANARY_H
#define WORKER_CANARY_H

#include "ipc/store.h"
#include "worker/engine.h"

/* Ends the process, as any fault of the device does, if the bits are wrong; the KV caches that are
 * kept go with it, as the same card computed them. Nothing where the CPU computes all. No other
 * step runs meanwhile; it takes a few steps' time, of which the watchdog is told. */
void canary_check(struct engine *en);

/* Of the store, for a model on o->door. */
void canary_key(const struct engine_options *o, const uint8_t fingerprint[32],
                uint8_t ret[STORE_KEY_BYTES]);

#endif
