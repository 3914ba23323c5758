/* GET /crashes and /crashes/NAME: crash reports lie on disk, where the gateway may not look. It
 * asks the supervisor, which has them read by a process that may. */
#ifndef GATEWAY_CRASHES_H
#define GATEWAY_CRASHES_H

#include "ipc/msg.h"

/* struct front's told. */
void crashes_told(void *server, const struct msg_told *m, int fd);

#endif
