/* HTTP clients over blocking sockets, with a deadline on every read. */
#include "tests/gateway/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { READ_MS = 20000 };

void client_open(struct client *c, const struct rig *r)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)r->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    buf_init(&c->in, 0);
}

void client_open_unix(struct client *c, const struct rig *r)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->unix_path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    buf_init(&c->in, 0);
}

void client_close(struct client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    buf_finish(&c->in);
}

/* The server may refuse before everything is sent; that shows when reading. */
void client_send(struct client *c, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            return;
        }
        CHECK(sent > 0);
        p += sent;
        n -= (size_t)sent;
    }
}

void client_request(struct client *c, const char *what, const char *headers, const char *body)
{
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "%s HTTP/1.1\r\nHost: localhost\r\n%s", what, headers ? headers : "");
    if (body) {
        buf_printf(&b, "Content-Length: %zu\r\n", strlen(body));
    }
    buf_str(&b, "\r\n");
    buf_str(&b, body ? body : "");
    client_send(c, b.data, b.len);
    buf_finish(&b);
}

/* Is there something within so long? In short looks: while the machine had no time for us it had
 * none for the gateway either, and that is not counted. */
static bool waits_for(int fd, int ms)
{
    enum { LOOK_MS = 50 };
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = 0;
    for (int i = 0; i < ms / LOOK_MS && n == 0; i++) {
        n = poll(&p, 1, LOOK_MS);
    }
    return n == 1;
}

/* Reads once; false at the end of the connection. */
static bool read_more(struct client *c)
{
    char chunk[65536];
    if (!waits_for(c->fd, READ_MS)) {
        TEST_FAIL("nothing came for %d s; so far: %.2000s", READ_MS / 1000,
                  c->in.data ? c->in.data : "");
    }
    ssize_t n = recv(c->fd, chunk, sizeof(chunk), 0);
    if (n <= 0) {
        return false;
    }
    buf_add(&c->in, chunk, (size_t)n);
    return true;
}

void client_read_until(struct client *c, const char *text)
{
    while (!c->in.data || !strstr(c->in.data, text)) {
        if (!read_more(c)) {
            TEST_FAIL("the connection ended before '%s'; so far: %s", text,
                      c->in.data ? c->in.data : "");
        }
    }
}

bool client_is_closed(struct client *c)
{
    char byte;
    return waits_for(c->fd, 5000) && recv(c->fd, &byte, 1, 0) <= 0;
}

const char *response_header(const struct response *r, const char *name, char value[256])
{
    size_t n = strlen(name);
    for (const char *line = r->head.data; line && *line;) {
        const char *end = strstr(line, "\r\n");
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            snprintf(value, 256, "%.*s", (int)(end - line - (ptrdiff_t)n - 2), line + n + 2);
            return value;
        }
        line = end ? end + 2 : NULL;
    }
    return NULL;
}

void response_finish(struct response *r)
{
    buf_finish(&r->head);
    buf_finish(&r->body);
}

/* One line of chunk framing at the front of the input. */
static void chunk_line(struct client *c, char line[64])
{
    char *end;
    while (!c->in.data || !(end = strstr(c->in.data, "\r\n"))) {
        CHECK(read_more(c));
    }
    CHECK(end - c->in.data < 64);
    snprintf(line, 64, "%.*s", (int)(end - c->in.data), c->in.data);
    buf_consume(&c->in, (size_t)(end - c->in.data) + 2);
}

static void read_chunks(struct client *c, struct buf *body)
{
    char line[64];
    for (;;) {
        chunk_line(c, line);
        size_t n = strtoul(line, NULL, 16);
        while (c->in.len < n + 2) {
            CHECK(read_more(c));
        }
        buf_add(body, c->in.data, n);
        buf_consume(&c->in, n);
        CHECK(memcmp(c->in.data, "\r\n", 2) == 0);
        buf_consume(&c->in, 2);
        if (n == 0) {
            return;
        }
    }
}

void client_read(struct client *c, struct response *ret, bool to_head)
{
    char value[256];
    char *end;
    do {
        *ret = (struct response){0};
        while (!c->in.data || !(end = strstr(c->in.data, "\r\n\r\n"))) {
            if (!read_more(c)) {
                CHECK(c->in.len == 0);
                return;
            }
        }
        size_t n = (size_t)(end - c->in.data) + 4;
        buf_add(&ret->head, c->in.data, n - 2);
        buf_consume(&c->in, n);
        CHECK(sscanf(ret->head.data, "HTTP/1.1 %d ", &ret->status) == 1);
        if (ret->status < 200) {
            buf_finish(&ret->head);
        }
    } while (ret->status < 200);
    const char *v = response_header(ret, "Connection", value);
    ret->closes = v && strcasecmp(v, "close") == 0;
    buf_str(&ret->body, "");
    if (to_head || ret->status == 204) {
        return;
    }
    if ((v = response_header(ret, "Content-Length", value))) {
        size_t n = strtoul(v, NULL, 10);
        while (c->in.len < n) {
            CHECK(read_more(c));
        }
        buf_add(&ret->body, c->in.data, n);
        buf_consume(&c->in, n);
    } else if (response_header(ret, "Transfer-Encoding", value)) {
        read_chunks(c, &ret->body);
    } else { /* up to the end */
        while (read_more(c)) {
        }
        buf_add(&ret->body, c->in.data, c->in.len);
        buf_consume(&c->in, c->in.len);
    }
}

void client_once(const struct rig *r, const char *what, const char *headers, const char *body,
                 struct response *ret)
{
    struct client c;
    client_open(&c, r);
    client_request(&c, what, headers, body);
    client_read(&c, ret, strncmp(what, "HEAD", 4) == 0);
    client_close(&c);
}

char *client_body(const struct rig *r, const char *what, const char *body, int status)
{
    struct response res;
    client_once(r, what, NULL, body, &res);
    if (res.status != status) {
        TEST_FAIL("%s: status %d, expected %d: %s", what, res.status, status, res.body.data);
    }
    buf_finish(&res.head);
    return res.body.data;
}
