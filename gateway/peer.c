/* Addresses of servers (see peer.h). For commands; a lookup of a name blocks. */
#include "gateway/peer.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

int peer_parse(const char *url, struct peer *ret, struct err *e)
{
    const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : url;
    char name[200], port[8] = "80";
    size_t n = strcspn(host, "/");
    bool is_v6 = host[0] == '[';
    size_t n_name = is_v6 ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    if (strstr(url, "https://") == url || n == 0 || n >= sizeof(name) || n_name > n) {
        return err_set(e, ERR_USAGE, "--server: '%s' is not http://HOST:PORT", url);
    }
    if (n_name < n) {
        snprintf(port, sizeof(port), "%.*s", (int)(n - n_name - 1), host + n_name + 1);
    }
    snprintf(name, sizeof(name), "%.*s", (int)n_name - 2 * is_v6, host + is_v6);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(name, port, &hints, &found);
    if (rc != 0) {
        return err_set(e, ERR_USAGE, "--server: '%s': %s", url, gai_strerror(rc));
    }
    *ret = (struct peer){.n_address = found->ai_addrlen};
    memcpy(&ret->address, found->ai_addr, found->ai_addrlen);
    snprintf(ret->host, sizeof(ret->host), "%.*s", (int)n, host);
    freeaddrinfo(found);
    return 0;
}

int peer_unix(const char *path, struct peer *ret, struct err *e)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(e, ERR_USAGE, "the path of the Unix socket is longer than %zu bytes",
                       sizeof(sa.sun_path) - 1);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    *ret = (struct peer){.n_address = sizeof(sa), .host = "localhost"};
    memcpy(&ret->address, &sa, sizeof(sa));
    return 0;
}
