/* Control channel and memfds: descriptors arrive, leak nowhere, and nothing outside the table is
 * taken from a peer. */
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "ipc/status.h"
#include "shared/err.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static void pair_up(struct channel *s, struct channel *w)
{
    int fds[2];
    CHECK_INT(channel_pair(fds), 0);
    channel_init(s, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    channel_init(w, fds[1], MSG_WORKER, MSG_SUPERVISOR);
}

static void descriptors_travel(void)
{
    struct channel s, w;
    static struct channel_msg m;
    pair_up(&s, &w);
    w.state = MSG_STATE_GREETED;
    int fd = memfd_create_const("config", "port = 1\n", 9);
    CHECK(fd >= 0);
    struct msg_config c = {.generation = 3};
    CHECK_INT(channel_send(&s, MSG_CONFIG, 0, &c, sizeof(c), &fd, 1), 0);
    close(fd);
    CHECK_INT(channel_recv(&w, &m), 1);
    CHECK_INT(m.type, MSG_CONFIG);
    CHECK_INT(m.n_fds, 1);
    CHECK(fcntl(m.fds[0], F_GETFD) & FD_CLOEXEC);
    void *map;
    size_t bytes;
    CHECK_INT(memfd_map(m.fds[0], 1, 100, true, false, &map, &bytes), 0);
    CHECK_INT(bytes, 9);
    CHECK(memcmp(map, "port = 1\n", 9) == 0);
    memfd_unmap(map, bytes);
    channel_msg_finish(&m);
    CHECK_INT(channel_recv(&w, &m), 0);
    channel_close(&s);
    CHECK_INT(channel_recv(&w, &m), ERR_PEER_GONE);
    channel_close(&w);
}

/* What a broken or hostile peer may put on the wire. */
static void the_table_is_law(void)
{
    struct channel s, w;
    static struct channel_msg m;
    int before = count_fds();
    pair_up(&s, &w);

    struct msg_ready ready = {0};
    CHECK_INT(channel_send(&w, MSG_READY, 1, &ready, sizeof(ready), NULL, 0), 0);
    CHECK_INT(channel_recv(&s, &m), ERR_PROTOCOL); /* before HELLO */
    s.state = MSG_STATE_RUNNING;
    CHECK_INT(channel_send(&w, MSG_READY, 1, &ready, sizeof(ready), NULL, 0), 0);
    CHECK_INT(channel_recv(&s, &m), 1);
    CHECK_INT(channel_send(&w, MSG_CONFIG, 1, &ready, 8, NULL, 0), ERR_PROTOCOL); /* direction */
    CHECK_INT(channel_send(&w, MSG_TOKEN, 1, &ready, 8, NULL, 0), ERR_PROTOCOL);  /* way */

    struct {
        uint32_t type, reserved;
        uint64_t epoch;
        uint8_t payload[LIMIT_CHANNEL_BYTES + 64];
    } raw = {0};
    for (uint32_t type = 0; type < 300; type++) { /* no fds, zero payload, every size class */
        for (size_t len = 0; len < sizeof(raw); len = len * 2 + 1) {
            raw.type = type;
            CHECK(send(w.fd, &raw, len, 0) == (ssize_t)len);
            int err = channel_recv(&s, &m);
            CHECK(err == 1 || err == ERR_PROTOCOL || (len == 0 && err == ERR_PEER_GONE));
            if (err == 1) {
                CHECK(msg_info(type)->from & MSG_WORKER);
                channel_msg_finish(&m);
            }
        }
    }
    uint64_t rng = 5;
    for (int i = 0; i < 100000; i++) {
        size_t len = test_random(&rng) % 700;
        for (size_t k = 0; k < len; k += 8) {
            uint64_t v = test_random(&rng);
            memcpy((uint8_t *)&raw + k, &v, 8);
        }
        raw.type = (uint32_t)test_random(&rng) % 64;
        CHECK(send(w.fd, &raw, 16 + len, 0) > 0);
        int err = channel_recv(&s, &m);
        CHECK(err == 1 || err == ERR_PROTOCOL);
        if (err == 1) {
            channel_msg_finish(&m);
        }
    }
    /* Descriptors with a message that takes none, and far too many: closed, not leaked. */
    for (int n = 1; n <= 32; n *= 2) {
        int fds[32];
        for (int i = 0; i < n; i++) {
            fds[i] = dup(0);
        }
        raw.type = MSG_READY;
        struct iovec iov = {&raw, 16 + sizeof(struct msg_ready)};
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(fds))];
        } control = {0};
        struct msghdr h = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};
        struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
        memcpy(CMSG_DATA(cm), fds, sizeof(int) * (size_t)n);
        CHECK(sendmsg(w.fd, &h, 0) > 0);
        for (int i = 0; i < n; i++) {
            close(fds[i]);
        }
        CHECK_INT(channel_recv(&s, &m), ERR_PROTOCOL);
    }
    channel_close(&s);
    channel_close(&w);
    CHECK_INT(count_fds(), before);
}

static void a_peer_that_does_not_read_gives_eagain(void)
{
    struct channel s, w;
    pair_up(&s, &w);
    struct msg_drain d = {0};
    int err = 0;
    for (int i = 0; i < 1000000 && err == 0; i++) {
        err = channel_send(&s, MSG_DRAIN, 1, &d, sizeof(d), NULL, 0);
    }
    CHECK_INT(err, -EAGAIN);
    channel_close(&w);
    CHECK_INT(channel_send(&s, MSG_DRAIN, 1, &d, sizeof(d), NULL, 0), ERR_PEER_GONE);
    channel_close(&s);
}

static void last_words_arrive_from_a_peer_that_left_without_reading(void)
{
    struct channel s, w;
    pair_up(&s, &w);
    s.state = MSG_STATE_RUNNING;
    struct msg_drain d = {0};
    struct msg_empty e = {0};
    static struct channel_msg m;
    CHECK_INT(channel_send(&s, MSG_DRAIN, 1, &d, sizeof(d), NULL, 0), 0);
    CHECK_INT(channel_send(&w, MSG_DRAINED, 1, &e, sizeof(e), NULL, 0), 0);
    CHECK_INT(channel_send(&w, MSG_DRAINED, 1, &e, sizeof(e), NULL, 0), 0);
    channel_close(&w);
    CHECK_INT(channel_recv(&s, &m), 1);
    CHECK_INT(m.type, MSG_DRAINED);
    CHECK_INT(channel_recv(&s, &m), 1);
    CHECK_INT(channel_recv(&s, &m), ERR_PEER_GONE);
    channel_close(&s);
}

static void seals_are_wanted_and_hold(void)
{
    void *map;
    size_t bytes;
    int plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_INT(ftruncate(plain, 4096), 0);
    CHECK_INT(memfd_map(plain, 1, 8192, false, true, &map, &bytes), ERR_PROTOCOL);
    int shared = memfd_create_shared("shared", 4096);
    CHECK(shared >= 0);
    CHECK(ftruncate(shared, 0) < 0 && errno == EPERM);
    CHECK(ftruncate(shared, 8192) < 0 && errno == EPERM);
    CHECK(fcntl(shared, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    CHECK_INT(memfd_map(shared, 8192, 8192, false, true, &map, &bytes), ERR_PROTOCOL);
    CHECK_INT(memfd_map(shared, 1, 100, false, true, &map, &bytes), ERR_PROTOCOL);
    CHECK_INT(memfd_map(shared, 1, 8192, true, false, &map, &bytes), ERR_PROTOCOL);
    CHECK_INT(memfd_map(shared, 1, 8192, false, true, &map, &bytes), 0);
    memfd_unmap(map, bytes);
    int constant = memfd_create_const("const", "abc", 3);
    CHECK(write(constant, "x", 1) < 0 && errno == EPERM);
    CHECK(mmap(NULL, 3, PROT_READ | PROT_WRITE, MAP_SHARED, constant, 0) == MAP_FAILED);
    int pipe_fds[2];
    CHECK_INT(pipe(pipe_fds), 0);
    CHECK_INT(memfd_map(pipe_fds[0], 0, 100, false, false, &map, &bytes), ERR_PROTOCOL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(plain);
    close(shared);
    close(constant);
}

static void the_status_page_keeps_the_first_words(void)
{
    _Alignas(64) static uint8_t page[STATUS_PAGE_BYTES];
    status_format(page, 4);
    CHECK(!status_attach(page, STATUS_PAGE_BYTES, 5));
    CHECK(!status_attach(page, 100, 4));
    struct status_page *s = status_attach(page, STATUS_PAGE_BYTES, 4);
    CHECK(s);
    status_beat(s, STATUS_DECODE);
    status_beat(s, STATUS_DECODE);
    CHECK_INT(atomic_load(&s->beat), 2);
    CHECK_STR(status_phase_name(atomic_load(&s->phase)), "decode");
    status_last_words(s, "cause %d", 1);
    status_last_words(s, "consequence");
    CHECK_STR(s->words, "cause 1");
    CHECK_INT(s->words_len, 7);
}

int main(void)
{
    descriptors_travel();
    the_table_is_law();
    a_peer_that_does_not_read_gives_eagain();
    last_words_arrive_from_a_peer_that_left_without_reading();
    seals_are_wanted_and_hold();
    the_status_page_keeps_the_first_words();
    return 0;
}
