/* The listening sockets. The supervisor opens them, so that they outlive every gateway and no
 * connection is refused while one restarts; it hands them on and never reads them. */
#ifndef SAFETY_LISTEN_H
#define SAFETY_LISTEN_H

#include "shared/err.h"

#include <sys/un.h>

enum { LISTEN_MAX_TCP = 3, LISTEN_MAX = LISTEN_MAX_TCP + 1, LISTEN_BACKLOG = 511 };

struct listen_set {
    int fds[LISTEN_MAX]; /* owned; TCP first, then Unix */
    int n_tcp, n_unix;
    char address[LISTEN_MAX_TCP][64]; /* "127.0.0.1:8080", "[::1]:8080": as bound */
    char unix_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    uint64_t unix_dev, unix_ino; /* of the socket file that we made */
};

void listen_init(struct listen_set *s);

/* Opens host:port. host is an address of either family or a name; "localhost" is both loopback
 * addresses under one port number. Port 0 takes any free one. Blocks for a name that DNS answers.
 * Errors: -EADDRINUSE (somebody listens there already), ERR_CONFIG, -errno; e says where. */
MUST_CHECK int listen_tcp(struct listen_set *s, const char *host, uint16_t port, struct err *e);

/* Opens a Unix socket for this user alone (mode 0600). A socket file that nobody listens on is
 * replaced; anything else that stands there is refused. Errors as above. */
MUST_CHECK int listen_unix(struct listen_set *s, const char *path, struct err *e);

/* Closes all; removes the socket file if it is still ours. */
void listen_close(struct listen_set *s);

#endif
