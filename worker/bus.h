/* SIGBUS: a page of mapped memory cannot be had. A model file was cut short under its mapping, or
 * its disk failed; or there is no memory for a page of a store. Nothing can go on, but it can be
 * said. */
#ifndef WORKER_BUS_H
#define WORKER_BUS_H

#include "worker/attach.h"

/* From now on SIGBUS ends the process with last words on the status page of *a (borrowed, for good)
 * and the exit code of ERR_MODEL_CHANGED (the file is shorter, or another one is in its place),
 * ERR_MODEL_IO or ERR_NO_MEMORY. */
void bus_guard(const struct attach *a);

#endif
