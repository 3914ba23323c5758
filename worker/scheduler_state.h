/* The scheduler's state, shared by its parts: scheduler.c (batch, life), scheduler_queue.c (who
 * waits and who runs), scheduler_end.c (ends and time limits), scheduler_admit.c (who goes in,
 * whose blocks are taken away), scheduler_deliver.c (what came out of a step). All of them: token
 * loop, no blocking, no allocation. */
#ifndef WORKER_SCHEDULER_STATE_H
#define WORKER_SCHEDULER_STATE_H

#include "worker/scheduler.h"

struct scheduler_slice { /* rows of one choice in a step */
    struct choice *choice;
    int64_t first, n; /* index among its known tokens, count */
    int64_t n_logits; /* of its rows, how many want logits */
};

struct scheduler {
    struct engine *engine; /* borrowed */
    struct events *events; /* borrowed */
    int64_t n_seqs, chunk_rows, max_logits;
    struct scheduler_stats stats;
    uint64_t n_steps;
    uint64_t row_ns; /* what a row of a step with prompts took lately */
    bool aligns;                         /* prompts are cut at block ends: the model is recurrent */
    struct choice *running[LIMIT_SLOTS]; /* oldest first */
    int n_running;
    struct choice *head, *tail; /* the queue, oldest first */
    uint64_t turn_arrival;      /* the prompt that had the last turn */
    uint32_t turn_number;
    struct scheduler_slice slices[LIMIT_SLOTS];
    int n_slices;
    struct engine_row *rows; /* owned */
    int64_t n_rows, n_logits;
    const float **logits; /* owned; NULL: they stayed on a device */
    int32_t *ids;         /* owned; scratch: the known tokens of a choice */
};

/* ---- scheduler_queue.c ---- */

void scheduler_queue_put(struct scheduler *s, struct choice *c); /* into the queue, by age */
void scheduler_queue_take(struct scheduler *s, struct choice *c);
void scheduler_queue_run(struct scheduler *s, struct choice *c);   /* joins the running set */
void scheduler_queue_leave(struct scheduler *s, struct choice *c); /* out of wherever it is */
/* From the running set back into the queue. */
void scheduler_queue_preempt(struct scheduler *s, struct choice *c);

/* ---- scheduler_end.c ---- */

/* The request fails. */
void scheduler_end_request(struct scheduler *s, struct request *r, const struct err *e);
/* A choice that has a reason to end ends; with the last one the request does. */
void scheduler_end_choice(struct scheduler *s, struct choice *c);
/* Ends what is past its time limits. */
void scheduler_end_overdue(struct scheduler *s);

/* ---- scheduler_admit.c ---- */

void scheduler_admit(struct scheduler *s);
/* Every sequence that will compute gets its blocks, the oldest first. */
void scheduler_admit_reserve(struct scheduler *s);

/* ---- scheduler_deliver.c ---- */

/* The rows of one choice were computed; first_logits: of those that wanted any, in s->logits. */
void scheduler_deliver(struct scheduler *s, const struct scheduler_slice *slice,
                       const struct engine_row *rows, int64_t first_logits);

#endif
