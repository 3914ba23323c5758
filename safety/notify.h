/* Telling systemd how we are: the datagram protocol of sd_notify(3), spoken directly, because it is
 * smaller than a library in the one process that must not die. Nothing happens where NOTIFY_SOCKET
 * is not set. */
#ifndef SAFETY_NOTIFY_H
#define SAFETY_NOTIFY_H

#include "shared/base.h"

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes them from the environment, so
 * that no child speaks for us. */
void notify_init(void);

/* One or more "KEY=value" lines. Never blocks; a lost datagram is systemd's loss. */
void notify_send(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The interval at which systemd wants WATCHDOG=1, or 0. Send at half of it. */
uint64_t notify_watchdog_ms(void);

#endif
