/* Who may ask from where. A local port is reachable from any web page: DNS rebinding makes a
 * stranger's name point here (told by Host), and a page may post here directly (told by Origin).
 *
 * Host: IP literals, localhost and *.localhost are always ours (a browser that names an address
 * really connects to it); further names come from --allowed-host. Origin: absent (no browser), the
 * same host, or one of --cors-origin ("*" is any). Pure. */
#ifndef GATEWAY_ORIGIN_H
#define GATEWAY_ORIGIN_H

#include "shared/config.h"

/* Is this "host" or "host:port" (RFC 3986, without user information)? *ret_n_host: length without
 * the port; an IPv6 address keeps its brackets. */
bool origin_split(const char *authority, size_t n, size_t *ret_n_host);

bool origin_host_ok(const struct config_list *allowed, const char *authority, size_t n);

enum origin_verdict {
    ORIGIN_REFUSED,
    ORIGIN_SAME,  /* no browser, or a page of our own: no CORS headers */
    ORIGIN_CROSS, /* allowed: answer with CORS headers */
};
/* origin may be NULL. */
enum origin_verdict origin_judge(const struct config_list *cors, const char *host, size_t n_host,
                                 const char *origin, size_t n_origin);

#endif
