/* The worker's own state as JSON, in the forms of llama-server (slots, props). Token loop; only
 * reads. */
#ifndef WORKER_REPORT_H
#define WORKER_REPORT_H

#include "worker/scheduler.h"

/* GET /slots: appends one model's slots, those that compute first. first_id: number of the
 * first. */
void report_slots(const struct model *m, const struct scheduler *s, int64_t n_seqs,
                  int64_t first_id, struct buf *b);
/* "NAME: DEVICE; ..." of the models that are loaded, for traces. */
void report_devices(const struct models *m, char *ret, size_t n);
/* GET /props of one model. */
void report_props(const struct model *m, int64_t n_seqs, struct buf *b);

#endif
