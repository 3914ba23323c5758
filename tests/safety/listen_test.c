/* Opening listening sockets: what is taken, what is stale, what is refused. */
#include "safety/listen.h"
#include "tests/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char dir[] = "/tmp/rocmforge-listen-XXXXXX";
static char path[64];

static int port_of(const struct listen_set *s, int i)
{
    return atoi(strrchr(s->address[i], ':') + 1);
}

static void check_connects(const char *ip, int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    CHECK(inet_pton(AF_INET, ip, &sa.sin_addr) == 1);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    close(fd);
}

static void test_tcp(void)
{
    struct listen_set a, b;
    struct err e = {0};
    listen_init(&a);
    listen_init(&b);
    CHECK_INT(listen_tcp(&a, "127.0.0.1", 0, &e), 0);
    CHECK_INT(a.n_tcp, 1);
    CHECK(fcntl(a.fds[0], F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(a.fds[0], F_GETFL) & O_NONBLOCK);
    check_connects("127.0.0.1", port_of(&a, 0));
    CHECK_INT(listen_tcp(&b, "127.0.0.1", (uint16_t)port_of(&a, 0), &e), -EADDRINUSE);
    char want[96];
    snprintf(want, sizeof(want), "127.0.0.1:%d is taken", port_of(&a, 0));
    CHECK(strstr(e.detail, want) != NULL);
    CHECK_INT(b.n_tcp, 0);
    /* Closed with a connection lately served, the port can be had again at once. */
    int port = port_of(&a, 0);
    listen_close(&a);
    CHECK_INT(listen_tcp(&b, "127.0.0.1", (uint16_t)port, &e), 0);
    listen_close(&b);
    CHECK_INT(listen_tcp(&a, "no.such.host.invalid", 1, &e), ERR_CONFIG);
    CHECK(strstr(e.detail, "no.such.host.invalid") != NULL);
    CHECK_INT(listen_tcp(&a, "192.0.2.1", 0, &e), -EADDRNOTAVAIL);
    CHECK_INT(a.n_tcp, 0);
}

static void test_localhost(void)
{
    struct listen_set s;
    struct err e = {0};
    listen_init(&s);
    CHECK_INT(listen_tcp(&s, "localhost", 0, &e), 0);
    check_connects("127.0.0.1", port_of(&s, 0));
    if (s.n_tcp == 2) {
        CHECK(strncmp(s.address[1], "[::1]:", 6) == 0);
        CHECK_INT(port_of(&s, 1), port_of(&s, 0));
    }
    listen_close(&s);
    if (listen_tcp(&s, "::", 0, &e) == 0) { /* both families */
        check_connects("127.0.0.1", port_of(&s, 0));
        listen_close(&s);
    }
}

static void test_unix(void)
{
    struct listen_set a, b;
    struct err e = {0};
    struct stat st;
    listen_init(&a);
    listen_init(&b);
    CHECK_INT(listen_unix(&a, path, &e), 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK_INT(listen_unix(&b, path, &e), -EADDRINUSE);
    CHECK(stat(path, &st) == 0);
    /* A server that died leaves its file: replaced. */
    close(a.fds[0]);
    CHECK_INT(listen_unix(&b, path, &e), 0);
    a.n_unix = 0;
    /* Somebody else's file is neither removed at the end ... */
    CHECK(unlink(path) == 0 && close(open(path, O_CREAT | O_WRONLY, 0600)) == 0);
    listen_close(&b);
    CHECK(stat(path, &st) == 0 && S_ISREG(st.st_mode));
    /* ... nor at the start. */
    CHECK_INT(listen_unix(&a, path, &e), ERR_CONFIG);
    CHECK(strstr(e.detail, "is not a socket") != NULL);
    CHECK(unlink(path) == 0);
    CHECK_INT(listen_unix(&a, path, &e), 0);
    listen_close(&a);
    CHECK(stat(path, &st) != 0);
    char longer[200];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    CHECK_INT(listen_unix(&a, longer, &e), ERR_CONFIG);
    CHECK_INT(listen_unix(&a, "/nonexistent/dir/socket", &e), -ENOENT);
}

int main(void)
{
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/socket", dir);
    test_tcp();
    test_localhost();
    test_unix();
    CHECK(rmdir(dir) == 0);
    return 0;
}
