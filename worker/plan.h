/* The plan of a model: where each of its layers is computed and why, what that takes of both
 * memories, and how fast it should be. As a table for people (`inspect --plan`) and as JSON (GET
 * /props). Pure. */
#ifndef WORKER_PLAN_H
#define WORKER_PLAN_H

#include "shared/buf.h"
#include "worker/engine.h"
#include "worker/place.h"

void plan_put_table(const struct place *s, const struct engine_info *i, uint64_t vram_bytes,
                    struct buf *b);
/* null without a GPU. */
void plan_put_json(const struct place *s, const struct engine_info *i, struct buf *b);

#endif
