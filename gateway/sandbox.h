/* What the gateway gives up before it reads a byte from a stranger: new privileges, core dumps,
 * being traced, the file system (Landlock), new sockets and every system call that it does not need
 * (seccomp; a call outside the list kills the process). It is irrevocable. */
#ifndef GATEWAY_SANDBOX_H
#define GATEWAY_SANDBOX_H

#include "shared/err.h"
#include <uv.h>

/* At the start: dies with its parent, cannot be traced (unless a debugger is wanted), has no core,
 * takes as many descriptors as it may. Returns that number (RLIMIT_NOFILE). */
size_t sandbox_prepare(bool is_traceable);

/* Once, when every descriptor it will not get from the channel is open. Does first what libraries
 * do lazily and would be killed for (time zone, random seed). What the kernel does not have
 * (Landlock) is left out and said in the log; a failing seccomp is an error. Starts libuv's pool,
 * for no thread can be made afterwards. */
MUST_CHECK int sandbox_enter(uv_loop_t *loop, struct err *e);

#endif
