/* What the worker gives up before it reads a byte of a model file: sockets, programs, other
 * processes, and the parts of the kernel that nobody needs for computing.
 *
 * A list of what is denied, not of what is allowed as in the gateway, because HIP and its compiler
 * use much of the kernel and differ between versions. A denied call fails with EPERM: a library
 * that tries it for convenience goes on. Files, ioctls (the GPU's too), threads, executable memory
 * and locks stay. Memory stays readable for the crash reporter of the same user. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include "shared/err.h"

/* For this process and all threads it starts from now on; once. No privileges can be gained any
 * more, and no core is dumped. 0 or -errno. */
MUST_CHECK int sandbox_enter(struct err *e);

#endif
