/* A rig around the real gateway program: the test plays the supervisor (rig.c), a scripted worker
 * (worker.c, in a thread or by hand) and HTTP clients (client.c). */
#ifndef TESTS_GATEWAY_RIG_H
#define TESTS_GATEWAY_RIG_H

#include "ipc/channel.h"
#include "ipc/ring.h"
#include "ipc/status.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "tests/test.h"

#include <pthread.h>

/* ---- supervisor ---- */
struct rig {
    pid_t pid; /* of the gateway */
    struct channel channel;
    int port;
    char unix_path[64];
    uint64_t epoch;
    /* The worker's end of the current epoch. */
    struct ring requests, events;
    struct status_page *status;
    void *maps[3];
    size_t map_bytes[3];
    int bells[2];
    pthread_t worker;
    bool has_worker;
    _Atomic bool worker_stops;
    /* What the scripted worker saw, for tests to wait on. */
    _Atomic unsigned n_generates, n_texts, n_cancels, n_pauses, n_resumes, n_bulks, n_done;
    _Atomic uint64_t bulk_bytes;
};

struct rig_options {
    const char *config;  /* "key=value" lines, or NULL */
    const char *keys;    /* the API key file's text, or NULL */
    const char *program; /* in place of the gateway, or NULL */
    const char *args[4]; /* further arguments, NULL-terminated */
    int max_files;       /* RLIMIT_NOFILE of the gateway; 0: as ours */
};

/* Starts the gateway and gives it configuration and sockets. Without a worker. */
void rig_start(struct rig *r, const struct rig_options *o);
/* A new epoch: rings, ATTACH, and a scripted worker that announces two models, "tiny" and "other".
 */
void rig_worker_start(struct rig *r);
/* The same without a thread and without models: the test itself is the worker. */
void rig_attach(struct rig *r);
/* The worker dies: its thread ends without a word and DETACH is sent. */
void rig_worker_kill(struct rig *r, uint32_t retry_after_ms);
void rig_detach(struct rig *r, int err, uint32_t retry_after_ms, const char *detail);
/* It died by its own fault; the next one is expected soon. */
void rig_worker_crash(struct rig *r);
/* Waits for a control message of that type (others are dropped). False: the gateway ended. */
bool rig_expect(struct rig *r, uint32_t type, struct channel_msg *ret);
/* Ends gateway and worker; the gateway must leave with that code. */
void rig_stop(struct rig *r);
/* The gateway has ended and was reaped by the test. */
void rig_forget(struct rig *r);

/* Does the gateway run without its sandbox? So under sanitizers, and under valgrind, for which
 * ROCMFORGE_TEST_NO_SANDBOX is to be set. */
bool rig_is_unsandboxed(void);
int rig_gateway_fds(const struct rig *r);
long rig_gateway_kib(const struct rig *r); /* its own resident memory; rings do not count */
/* Waits up to 5 s for the condition. */
#define RIG_WAIT(cond)                                                                             \
    do {                                                                                           \
        for (int i_ = 0; i_ < 6000 && !(cond); i_++) {                                             \
            usleep(5000);                                                                          \
        }                                                                                          \
        CHECK(cond);                                                                               \
    } while (0)

/* ---- worker ---- */
void *worker_run(void *rig); /* thread; see worker.c for what prompts make it do */
void worker_models(struct rig *r);
void worker_put(struct rig *r, uint32_t type, const void *a, size_t a_len, const void *b,
                size_t b_len);
/* The next record; waits up to 5 s. */
void worker_take(struct rig *r, struct ring_record *ret, void *buf);
void worker_started(struct rig *r, uint64_t id, uint32_t n_prompt, uint32_t n_cached);
void worker_token(struct rig *r, uint64_t id, uint32_t choice, uint32_t position, const char *text);
void worker_finish(struct rig *r, uint64_t id, uint32_t choice, uint32_t reason, uint32_t n_tokens,
                   const char *text);
void worker_done(struct rig *r, uint64_t id, uint32_t n_prompt, uint32_t n_cached,
                 uint32_t n_completion);

/* ---- clients ---- */
struct client {
    int fd;
    struct buf in; /* read and not yet consumed */
};
struct response {
    int status; /* 0: the connection ended without one */
    bool closes;
    struct buf head, body; /* body: decoded */
};

void client_open(struct client *c, const struct rig *r);
void client_open_unix(struct client *c, const struct rig *r);
void client_close(struct client *c); /* NULL-safe fd */
void client_send(struct client *c, const void *data, size_t n);
/* "METHOD path" with Host, the header lines and body given (NULL: none). */
void client_request(struct client *c, const char *what, const char *headers, const char *body);
/* Reads one response (interim ones skipped). to_head: HEAD was asked. */
void client_read(struct client *c, struct response *ret, bool to_head);
/* Reads until the text stands in the input. */
void client_read_until(struct client *c, const char *text);
bool client_is_closed(struct client *c); /* waits up to 5 s */
void response_finish(struct response *r);
const char *response_header(const struct response *r, const char *name, char value[256]);

/* One request on a connection of its own. */
void client_once(const struct rig *r, const char *what, const char *headers, const char *body,
                 struct response *ret);
/* The same; checks the status and returns the body (owned by the caller). */
char *client_body(const struct rig *r, const char *what, const char *body, int status);

#endif
