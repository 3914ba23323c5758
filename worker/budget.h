/* Device memory that is given back when others need it: the ceiling that the supervisor measures
 * (safety/vram.h) is put into effect here. Token loop, between steps. First the KV caches get
 * smaller (blocks that no sequence holds), then models that nobody uses are unloaded; what is
 * more than that can be had by another worker only. When the ceiling rises the caches grow
 * again. */
#ifndef WORKER_BUDGET_H
#define WORKER_BUDGET_H

#include "ipc/msg.h"
#include "worker/fleet.h"

struct budget {
    bool is_due; /* asked for, and not done yet: no model is being loaded meanwhile */
    struct msg_budget asked;
};

/* BUDGET came; one that was not done is replaced. */
void budget_take(struct budget *b, const struct msg_budget *m);
/* Does what is due. may_unload: as for fleet_tend. True: *ret is the answer. */
bool budget_apply(struct budget *b, struct fleet *f, bool may_unload, struct msg_gave *ret);

#endif
