/* Loads one model at a time in a thread of its own, so that those that run go on. */
#ifndef WORKER_LOADER_H
#define WORKER_LOADER_H

#include "worker/models.h"
#include <stdatomic.h>

struct loader;

/* bell: an eventfd (borrowed), rung when a load is over. models is borrowed. */
struct loader *loader_create(const struct models *models, int bell);
/* Waits for the load at work, whose model is dropped. NULL-safe. */
void loader_destroy(struct loader **l);

bool loader_is_busy(const struct loader *l);
size_t loader_index(const struct loader *l); /* of the model it works or worked on */
/* Not busy. -errno: the thread could not be started. */
MUST_CHECK int loader_start(struct loader *l, size_t index);
void loader_progress(const struct loader *l, uint64_t *ret_done, uint64_t *ret_total);
/* 1: the load is over, *ret_result says how; on success *ret is the model. 0: it is not. */
int loader_take(struct loader *l, struct model *ret, int *ret_result, struct err *e);

#endif
