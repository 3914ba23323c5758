/* Where a server is that our own commands talk to (`bench --server`, `poison`). */
#ifndef GATEWAY_PEER_H
#define GATEWAY_PEER_H

#include "shared/err.h"

#include <sys/socket.h>

struct peer {
    struct sockaddr_storage address;
    socklen_t n_address;
    char host[256]; /* of the Host header */
};

/* "http://HOST:PORT" or without the scheme, the port (80) or a path, which is dropped; the name is
 * looked up and may block. Errors: ERR_USAGE. */
MUST_CHECK int peer_parse(const char *url, struct peer *ret, struct err *e);
/* The path of a Unix socket. Errors: ERR_USAGE. */
MUST_CHECK int peer_unix(const char *path, struct peer *ret, struct err *e);

#endif
