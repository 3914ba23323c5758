/* What the worker gives up before it reads a byte of a model file: sockets, programs, other
 * processes, writing files, and the parts of the kernel that nobody needs for computing.
 *
 * A list of what is denied, not of what is allowed as in the gateway, because HIP and its compiler
 * use much of the kernel and differ between versions. A denied call fails with EPERM: a library
 * that tries it for convenience goes on. Threads, executable memory and locks stay, and so do the
 * GPU's ioctls. Memory stays readable for the crash reporter of the same user.
 *
 * Files (Landlock) can be read wherever their owners let us. None can be written, made, renamed,
 * cut short or removed, and no device be commanded, but where a GPU is used: the driver's nodes,
 * the lock, and where ROCm writes (/dev/shm, the folders for temporary files, comgr's cache). Such
 * a call fails with EACCES. What is open stays open. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include "shared/err.h"

/* For this process and all threads it starts from now on; once, before the first of them. No
 * privileges can be gained any more, and no core is dumped. lock_dir: the folder of the GPU's lock;
 * NULL: no GPU is used. A kernel without Landlock guards no files, one with an older kind denies
 * less; the log says which. 0 or -errno. */
MUST_CHECK int sandbox_enter(const char *lock_dir, struct err *e);

#endif
