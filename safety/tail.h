/* What the worker writes to stderr: passed on to ours, and the end of it kept for the crash report
 * (a GPU runtime says what went wrong there and nowhere else, and then aborts). The worker never
 * waits for a slow reader of ours: what cannot be passed on at once, or is more than
 * TAIL_BYTES_PER_S, is dropped and counted. */
#ifndef SAFETY_TAIL_H
#define SAFETY_TAIL_H

#include "shared/base.h"

enum { TAIL_BYTES = 16 * 1024, TAIL_BYTES_PER_S = 1024 * 1024 };

struct tail {
    char kept[TAIL_BYTES]; /* a ring: byte i of the output is at i % TAIL_BYTES */
    uint64_t n;            /* bytes of output so far */
    uint64_t n_dropped;    /* of these, not passed on, since we last said so */
    uint64_t second_ms;    /* the second that n_second counts for */
    size_t n_second;
};

void tail_start(struct tail *t); /* a new worker */

/* Takes what is there from fd (not blocking) and writes it to out_fd (a pipe, or not blocking). At
 * most a few pieces, so that a flood does not keep the loop busy; is_last: all of it, the writer is
 * gone. False: no more comes. */
bool tail_read(struct tail *t, int fd, int out_fd, bool is_last, uint64_t now_ms);

/* Copies the kept end, oldest first; returns its length. */
size_t tail_copy(const struct tail *t, char ret[TAIL_BYTES]);

#endif
