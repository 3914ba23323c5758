/* What the process is for its user: an HTTP server, or a terminal. The control channel (control.c)
 * is the same for both and calls the front it was given. */
#ifndef GATEWAY_FRONT_H
#define GATEWAY_FRONT_H

#include "gateway/link.h"
#include "shared/config.h"

/* What a front may ask of the process it lives in. */
struct front_host {
    void (*drained)(void *arg);            /* once after drain(), when nothing is under way */
    void (*end)(void *arg, int exit_code); /* there is no more to do */
    void *arg;
};

struct front {
    const char *role; /* in the log */
    /* Before anything else. n_files: descriptors this process may have. Returns the front's state.
     */
    void *(*open)(uv_loop_t *loop, struct link *link, size_t n_files,
                  const struct front_host *host);
    void (*close)(void *front);
    /* The configuration, again at every reload; key_fd: the API key file or -1 (borrowed). */
    int (*configure)(void *front, const struct config *c, int key_fd, struct err *e);
    /* Listening sockets, TCP first; taken (set to -1). NULL: the front takes none. */
    int (*listen)(void *front, int *fds, size_t n_tcp, size_t n_unix, struct err *e);
    void (*worker_changed)(void *front);
    void (*drain)(void *front, uint64_t deadline_ms);
    /* The supervisor's answer to an ASK; fd (borrowed) is -1 with an error. NULL: the front never
     * asks. */
    void (*told)(void *front, const struct msg_told *m, int fd);
};

#endif
