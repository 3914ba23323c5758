/* Opening the listening sockets; runs in the supervisor before any child. Blocks only in name
 * resolution. Invariant: every fd in the set listens and is close-on-exec and non-blocking. */
#include "safety/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOCKET_FLAGS = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK };

/* Tries for a free port that both loopback addresses have. */
enum { LOCALHOST_TRIES = 20 };

void listen_init(struct listen_set *s)
{
    memset(s, 0, sizeof(*s));
    for (int i = 0; i < LISTEN_MAX; i++) {
        s->fds[i] = -1;
    }
}

static void format_address(const struct sockaddr *sa, socklen_t len, char *ret, size_t bytes)
{
    char host[INET6_ADDRSTRLEN + 16], port[8];
    if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(ret, bytes, "?");
        return;
    }
    snprintf(ret, bytes, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* One more TCP socket into the set. */
static int add_tcp(struct listen_set *s, const struct sockaddr *sa, socklen_t len, struct err *e)
{
    char where[64];
    format_address(sa, len, where, sizeof(where));
    if (s->n_tcp == LISTEN_MAX_TCP) {
        return 0; /* a name with more addresses than anybody needs */
    }
    int fd = socket(sa->sa_family, SOCKET_FLAGS, 0);
    if (fd < 0) {
        return err_set(e, -errno, "%s", where);
    }
    const int on = 1, off = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (sa->sa_family == AF_INET6) { /* "::" means every address of both families */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    struct sockaddr_storage bound = {0};
    socklen_t bound_len = sizeof(bound);
    if (bind(fd, sa, len) != 0 || listen(fd, LISTEN_BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_len) != 0) {
        int err = errno;
        close(fd);
        return err_set(e, -err, err == EADDRINUSE ? "%s is taken by another program" : "%s", where);
    }
    format_address((struct sockaddr *)&bound, bound_len, s->address[s->n_tcp],
                   sizeof(s->address[0]));
    s->fds[s->n_tcp++] = fd;
    return 0;
}

static void drop_tcp(struct listen_set *s)
{
    while (s->n_tcp > 0) {
        close(s->fds[--s->n_tcp]);
        s->fds[s->n_tcp] = -1;
    }
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in in = {0};
    socklen_t len = sizeof(in);
    return getsockname(fd, (struct sockaddr *)&in, &len) == 0 ? ntohs(in.sin_port) : 0;
}

/* Both loopback addresses under one port; a machine without IPv6 has only the first. */
static int add_localhost(struct listen_set *s, uint16_t port, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < (port == 0 ? LOCALHOST_TRIES : 1); i++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        rc = add_tcp(s, (const struct sockaddr *)&in, sizeof(in), e);
        if (rc != 0) {
            return rc;
        }
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        in6.sin6_port = htons(port_of(s->fds[0]));
        rc = add_tcp(s, (const struct sockaddr *)&in6, sizeof(in6), e);
        if (rc == 0 || rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL) {
            return 0;
        }
        drop_tcp(s);
    }
    return rc;
}

int listen_tcp(struct listen_set *s, const char *host, uint16_t port, struct err *e)
{
    ASSERT(s->n_tcp == 0 && s->n_unix == 0);
    if (strcmp(host, "localhost") == 0) {
        return add_localhost(s, port, e);
    }
    char service[8];
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int gai = getaddrinfo(host, service, &hints, &list);
    if (gai != 0) {
        return err_set(e, ERR_CONFIG, "host '%s': %s", host, gai_strerror(gai));
    }
    int rc = 0;
    for (const struct addrinfo *a = list; rc == 0 && a; a = a->ai_next) {
        rc = add_tcp(s, a->ai_addr, a->ai_addrlen, e);
        if (port == 0) {
            break; /* the addresses of a name would get a port each */
        }
    }
    freeaddrinfo(list);
    if (rc != 0) {
        drop_tcp(s);
    }
    return rc;
}

/* Removes a socket file that nobody listens on. */
static int remove_stale(const struct sockaddr_un *sa, struct err *e)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) != 0) {
        return errno == ENOENT ? 0 : err_set(e, -errno, "%s", sa->sun_path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return err_set(e, ERR_CONFIG, "unix '%s' exists and is not a socket", sa->sun_path);
    }
    int fd = socket(AF_UNIX, SOCKET_FLAGS, 0);
    if (fd < 0) {
        return err_set(e, -errno, "%s", sa->sun_path);
    }
    int err = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 ? 0 : errno;
    close(fd);
    if (err == 0 || err == EAGAIN) { /* EAGAIN: somebody listens and its backlog is full */
        return err_set(e, -EADDRINUSE, "%s is taken by another program", sa->sun_path);
    }
    if (err != ECONNREFUSED) {
        return err_set(e, -err, "%s", sa->sun_path);
    }
    return unlink(sa->sun_path) == 0 || errno == ENOENT ? 0
                                                        : err_set(e, -errno, "%s", sa->sun_path);
}

int listen_unix(struct listen_set *s, const char *path, struct err *e)
{
    ASSERT(s->n_unix == 0);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(e, ERR_CONFIG, "unix '%s' is longer than %zu bytes", path,
                       sizeof(sa.sun_path) - 1);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int rc = remove_stale(&sa, e);
    if (rc != 0) {
        return rc;
    }
    int fd = socket(AF_UNIX, SOCKET_FLAGS, 0);
    if (fd < 0) {
        return err_set(e, -errno, "%s", path);
    }
    mode_t mask = umask(0177);
    int err = bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 ? 0 : errno;
    umask(mask);
    struct stat st = {0};
    if (err == 0 && (listen(fd, LISTEN_BACKLOG) != 0 || lstat(path, &st) != 0)) {
        err = errno;
    }
    if (err != 0) {
        close(fd);
        return err_set(e, -err, err == EADDRINUSE ? "%s is taken by another program" : "%s", path);
    }
    memcpy(s->unix_path, path, strlen(path) + 1);
    s->unix_dev = st.st_dev;
    s->unix_ino = st.st_ino;
    s->fds[s->n_tcp] = fd;
    s->n_unix = 1;
    return 0;
}

void listen_close(struct listen_set *s)
{
    for (int i = 0; i < s->n_tcp + s->n_unix; i++) {
        close(s->fds[i]);
    }
    struct stat st;
    if (s->n_unix && lstat(s->unix_path, &st) == 0 && st.st_dev == s->unix_dev &&
        st.st_ino == s->unix_ino) {
        (void)unlink(s->unix_path);
    }
    listen_init(s);
}
