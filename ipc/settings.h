/* How a child gets its settings: a sealed memfd (MSG_CONFIG) of what config_encode wrote. */
#ifndef IPC_SETTINGS_H
#define IPC_SETTINGS_H

#include "shared/config.h"

/* *ret is overwritten on success and then to be finished. Errors: ERR_CONFIG, those of memfd_map.
 */
MUST_CHECK int settings_read(int fd, struct config *ret, struct err *e);

#endif
