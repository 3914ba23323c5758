/* Where the time of sampled steps goes: one row for the ops of one code and one output name, over
 * all layers, in the program's order. The token loop's thread. */
#ifndef WORKER_PROFILE_H
#define WORKER_PROFILE_H

#include "worker/program.h"

struct buf;

struct profile_row {
    char name[48]; /* "matmul ffn", with "+2" where two ops are joined to it */
    uint64_t n;    /* runs */
    uint64_t ns;   /* of them all */
    uint64_t
        bytes; /* of the matrices that every run reads, added up; 0 where that depends (experts) */
};

struct profile {
    struct profile_row *rows; /* owned */
    size_t n_rows;
    uint16_t *row_of;         /* owned: an op's row */
    uint64_t n_steps, n_tokens, ns;
};

/* For a compiled program. -ENOMEM. */
MUST_CHECK int profile_init(struct profile *f, const struct program *p);
void profile_finish(struct profile *f);
void profile_clear(struct profile *f);
/* program_run, with a look at the clock between the ops. */
void profile_run(struct profile *f, const struct program *p, const struct op_step *s,
                 int64_t n_out);

/* Appends {"steps":9,"tokens":9,"ops":[{"op":"matmul
 * ffn","runs":216,"ms_per_step":0.41,"share":0.12, "gb_per_s":40.1}, ...]}. */
void profile_put_json(const struct profile *f, struct buf *b);
/* Appends a table for people, the longest first. */
void profile_put_table(const struct profile *f, struct buf *b);

#endif
