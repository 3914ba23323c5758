/* The worker's stderr (see tail.h); runs in the supervisor's loop. Never blocks: it writes no more
 * than poll() says there is room for, to a descriptor that does not wait (log_fd). */
#include "safety/tail.h"
#include "shared/log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 4096, /* PIPE_BUF: with POLLOUT, as much goes into a pipe without waiting */
    PIECES_PER_TURN = 16,
    LAST_PIECES = 64, /* more than a pipe holds */
};

void tail_start(struct tail *t)
{
    *t = (struct tail){0};
}

static void keep(struct tail *t, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        t->kept[(t->n + i) % TAIL_BYTES] = data[i];
    }
    t->n += n;
}

static bool may_pass(struct tail *t, size_t n, int out_fd, uint64_t now_ms)
{
    if (now_ms - t->second_ms >= 1000) {
        t->second_ms = now_ms;
        t->n_second = 0;
    }
    struct pollfd p = {.fd = out_fd, .events = POLLOUT};
    return t->n_second + n <= TAIL_BYTES_PER_S && poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

static void pass(struct tail *t, const char *data, size_t n, int out_fd, uint64_t now_ms)
{
    if (!may_pass(t, n, out_fd, now_ms)) {
        t->n_dropped += n;
        return;
    }
    if (t->n_dropped > 0) {
        log_warn("%llu bytes that the worker wrote to stderr were dropped",
                 (unsigned long long)t->n_dropped);
        t->n_dropped = 0;
    }
    t->n_second += n;
    ssize_t done = write(out_fd, data, n);
    (void)done; /* a closed stderr is nobody's loss */
}

bool tail_read(struct tail *t, int fd, int out_fd, bool is_last, uint64_t now_ms)
{
    char piece[PIECE_BYTES];
    size_t n_left = 0; /* the beginning of a line, whose end comes with the next piece */
    int n_pieces = is_last ? LAST_PIECES : PIECES_PER_TURN;
    ssize_t n = 1;
    for (int i = 0; i < n_pieces; i++) {
        n = read(fd, piece + n_left, sizeof(piece) - n_left);
        if (n <= 0) {
            break;
        }
        keep(t, piece + n_left, (size_t)n);
        size_t have = n_left + (size_t)n;
        const char *end = memrchr(piece, '\n', have);
        size_t whole = end ? (size_t)(end - piece) + 1 : have == sizeof(piece) ? have : 0;
        if (whole > 0) {
            pass(t, piece, whole, out_fd, now_ms);
            memmove(piece, piece + whole, have - whole);
        }
        n_left = have - whole;
    }
    if (n_left > 0) {
        pass(t, piece, n_left, out_fd, now_ms);
    }
    return n > 0 || (n < 0 && errno == EAGAIN);
}

size_t tail_copy(const struct tail *t, char ret[TAIL_BYTES])
{
    size_t n = (size_t)MIN(t->n, (uint64_t)TAIL_BYTES), at = (size_t)(t->n % TAIL_BYTES);
    if (n < TAIL_BYTES) {
        memcpy(ret, t->kept, n);
        return n;
    }
    memcpy(ret, t->kept + at, TAIL_BYTES - at);
    memcpy(ret + TAIL_BYTES - at, t->kept, at);
    return n;
}
