/* The program rocmforge-worker as the supervisor sees it: handshake, ready, answers, drain; and how
 * it ends when something is wrong: exit code, last words. argv[1] is the program; without it,
 * the one of the build tree. */
#include "ipc/memfd.h"
#include "ipc/store.h"
#include "shared/clock.h"
#include "shared/config.h"
#include "tests/test.h"
#include "tests/worker/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { NO_LIMIT = 1000 * 1000, RING = 1 << 18, MAX_STORES = 4 };

static const char *program;

struct child {
    pid_t pid;
    struct channel channel;
    struct channel_msg msg;
    int fds[5];
    void *maps[3];
    struct peer peer;
    struct msg_store stores[MAX_STORES]; /* that it wants kept */
    int store_fds[MAX_STORES];
    int n_stores;
};

static void start(struct child *c)
{
    int fds[2];
    memset(c, 0, sizeof(*c));
    CHECK_INT(channel_pair(fds), 0);
    c->pid = fork();
    CHECK(c->pid >= 0);
    if (c->pid == 0) {
        dup2(fds[1], CHANNEL_CHILD_FD);
        fcntl(CHANNEL_CHILD_FD, F_SETFD, 0);
        execl(program, "rocmforge-worker", "--epoch", "3", (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    channel_init(&c->channel, fds[0], MSG_SUPERVISOR, MSG_WORKER);
}

static void receive(struct child *c, uint32_t type)
{
    struct pollfd p = {.fd = c->channel.fd, .events = POLLIN};
    for (;;) {
        CHECK_INT(poll(&p, 1, 20000), 1);
        CHECK_INT(channel_recv(&c->channel, &c->msg), 1);
        if (c->msg.type != MSG_STORE || type == MSG_STORE) {
            break;
        }
        CHECK(c->n_stores < MAX_STORES);
        memcpy(&c->stores[c->n_stores], c->msg.payload, sizeof(c->stores[0]));
        c->store_fds[c->n_stores++] = c->msg.fds[0];
    }
    CHECK_INT(c->msg.type, type);
}

static void expect_hello(struct child *c)
{
    receive(c, MSG_HELLO);
    struct msg_hello m;
    memcpy(&m, c->msg.payload, sizeof(m));
    CHECK_INT(m.protocol, MSG_PROTOCOL_VERSION);
    CHECK_INT(m.pid, c->pid);
    CHECK_INT(m.epoch, 3);
    CHECK_STR(m.version, ROCMFORGE_VERSION);
    c->channel.state = MSG_STATE_GREETED;
}

static void send_config(struct child *c, const char *const *settings)
{
    struct config config;
    struct buf text;
    struct err e;
    config_init(&config);
    for (; *settings; settings += 2) {
        CHECK_INT(config_set(&config, settings[0], settings[1], CONFIG_FROM_FLAG, &e), 0);
    }
    buf_init(&text, 0);
    config_encode(&config, &text);
    int fd = memfd_create_const("config", text.data, text.len);
    struct msg_config m = {.generation = 1};
    CHECK_INT(channel_send(&c->channel, MSG_CONFIG, 3, &m, sizeof(m), &fd, 1), 0);
    close(fd);
    buf_finish(&text);
    config_finish(&config);
}

static void send_attach(struct child *c)
{
    size_t bytes = ring_memfd_bytes(RING), mapped;
    for (int i = 0; i < 3; i++) {
        int *fd = &c->fds[i == 2 ? 4 : i];
        *fd = memfd_create_shared("test", i == 2 ? STATUS_PAGE_BYTES : bytes);
        CHECK_INT(memfd_map(*fd, 1, 1 << 20, false, true, &c->maps[i], &mapped), 0);
    }
    c->fds[2] = eventfd(0, EFD_NONBLOCK);
    c->fds[3] = eventfd(0, EFD_NONBLOCK);
    ring_format(c->maps[0], RING, 3);
    ring_format(c->maps[1], RING, 3);
    status_format(c->maps[2], 3);
    CHECK_INT(ring_attach(&c->peer.requests, c->maps[0], bytes, 3, c->fds[2]), 0);
    CHECK_INT(ring_attach(&c->peer.events, c->maps[1], bytes, 3, c->fds[3]), 0);
    struct msg_attach m = {.epoch = 3, .ring_bytes = RING};
    CHECK_INT(channel_send(&c->channel, MSG_ATTACH, 3, &m, sizeof(m), c->fds, 5), 0);
    c->channel.state = MSG_STATE_RUNNING;
}

static int wait_exit(struct child *c)
{
    int status;
    CHECK_INT(waitpid(c->pid, &status, 0), c->pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static const char *last_words(struct child *c)
{
    struct status_page *s = c->maps[2];
    CHECK(atomic_load(&s->words_len) > 0);
    return s->words;
}

static void finish(struct child *c)
{
    peer_forget(&c->peer);
    channel_close(&c->channel);
    for (int i = 0; i < 3; i++) {
        memfd_unmap(c->maps[i], i == 2 ? STATUS_PAGE_BYTES : ring_memfd_bytes(RING));
    }
    for (int i = 0; c->maps[0] && i < 5; i++) {
        close(c->fds[i]);
    }
    while (c->n_stores > 0) {
        close(c->store_fds[--c->n_stores]);
    }
}

static const char *const good[] = {
    "model", "deploy/demo/forge-tiny-Q8_0.gguf", "kv_memory_share", "0.05", "log_level", "error",
    NULL};

static void begin(struct child *c, const char *const *settings)
{
    start(c);
    expect_hello(c);
    send_config(c, settings);
    send_attach(c);
}

static void take_until_over(struct child *c)
{
    for (int i = 0; !peer_all_over(&c->peer); i++) {
        CHECK(i < 20000);
        usleep(1000);
        peer_take(&c->peer, NO_LIMIT);
    }
}

static void it_serves_and_drains(void)
{
    struct child c;
    begin(&c, good);
    receive(&c, MSG_READY);
    peer_take(&c.peer, NO_LIMIT);
    CHECK_INT(c.peer.n_models, 1);
    CHECK_STR(c.peer.models[0].name, "forge-tiny-Q8_0");
    CHECK_STR(c.peer.models[0].arch, "llama");
    CHECK_INT(c.peer.models[0].has_template, 1);
    CHECK(c.peer.models[0].created > 1500000000);
    CHECK(kill(c.pid, SIGINT) == 0 && kill(c.pid, SIGHUP) == 0); /* the terminal's: not for it */
    struct ask a =
        ask_chat(1, "[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]", NULL);
    peer_send(&c.peer, &a);
    take_until_over(&c);
    CHECK(strstr(peer_text(&c.peer, 1, 0), "Paris"));
    struct msg_drain m = {.deadline_ms = 5000};
    CHECK_INT(channel_send(&c.channel, MSG_DRAIN, 3, &m, sizeof(m), NULL, 0), 0);
    receive(&c, MSG_DRAINED);
    CHECK_INT(wait_exit(&c), 0);
    finish(&c);
}

static const char question[] =
    "[{\"role\":\"user\",\"content\":\"What happens when the GPU hangs? Tell me all of it.\"}]";

static void ask_and_kill(struct child *c)
{
    receive(c, MSG_READY);
    struct ask a = ask_chat(1, question, NULL);
    peer_send(&c->peer, &a);
    take_until_over(c);
    kill(c->pid, SIGKILL);
    CHECK_INT(waitpid(c->pid, NULL, 0), c->pid);
}

static void it_goes_on_with_what_another_left(void)
{
    struct child first, second;
    begin(&first, good);
    ask_and_kill(&first);
    CHECK_INT(first.n_stores, STORE_KINDS - 1); /* the canary is the GPU's */
    start(&second);
    expect_hello(&second);
    send_config(&second, good);
    for (int i = 0; i < first.n_stores; i++) {
        CHECK_INT(store_check(first.stores[i].kind, first.store_fds[i], first.stores[i].bytes), 0);
        CHECK_INT(channel_send(&second.channel, MSG_STORE, 3, &first.stores[i],
                               sizeof(first.stores[i]), &first.store_fds[i], 1),
                  0);
    }
    send_attach(&second);
    ask_and_kill(&second);
    CHECK_INT(second.n_stores, 0); /* nothing was made again */
    CHECK_STR(peer_text(&second.peer, 1, 0), peer_text(&first.peer, 1, 0));
    finish(&first);
    finish(&second);
}

static void it_says_what_is_wrong(const char *key, const char *value, int exit_code,
                                  const char *words)
{
    struct child c;
    const char *settings[16];
    size_t n = 0;
    for (; good[n]; n++) {
        settings[n] = good[n];
    }
    bool is_model = strcmp(key, "model") == 0;
    settings[is_model ? 0 : n++] = key;
    settings[is_model ? 1 : n++] = value;
    settings[n] = NULL;
    begin(&c, settings);
    CHECK_INT(wait_exit(&c), exit_code);
    if (!strstr(last_words(&c), words)) {
        TEST_FAIL("last words \"%s\" lack \"%s\"", last_words(&c), words);
    }
    finish(&c);
}

static void a_broken_gateway_is_the_end(void)
{
    struct child c;
    begin(&c, good);
    receive(&c, MSG_READY);
    CHECK_INT(ring_put(&c.peer.requests, MSG_GENERATE, "short", 5, NULL, 0), 0);
    CHECK_INT(wait_exit(&c), 30);
    CHECK(strstr(last_words(&c), "GENERATE"));
    finish(&c);
}

static void it_can_be_drained_before_it_has_anything(void)
{
    struct child c;
    start(&c);
    expect_hello(&c);
    struct msg_drain m = {.deadline_ms = 5000};
    CHECK_INT(channel_send(&c.channel, MSG_DRAIN, 3, &m, sizeof(m), NULL, 0), 0);
    receive(&c, MSG_DRAINED);
    CHECK_INT(wait_exit(&c), 0);
    finish(&c);
}

static void a_closed_channel_is_the_end(void)
{
    struct child c;
    begin(&c, good);
    receive(&c, MSG_READY);
    channel_close(&c.channel);
    CHECK_INT(wait_exit(&c), 31);
    finish(&c);
}

static void it_dies_with_its_parent(void)
{
    int pipe_fds[2];
    pid_t worker;
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); /* so that we reap it */
    pid_t parent = fork();
    CHECK(parent >= 0);
    if (parent == 0) {
        struct child c;
        start(&c);
        expect_hello(&c);
        CHECK(write(pipe_fds[1], &c.pid, sizeof(c.pid)) == sizeof(c.pid));
        _exit(0);
    }
    CHECK(read(pipe_fds[0], &worker, sizeof(worker)) == sizeof(worker));
    CHECK_INT(waitpid(parent, NULL, 0), parent);
    int status;
    CHECK_INT(waitpid(worker, &status, 0), worker);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
          (WIFEXITED(status) && WEXITSTATUS(status) == 31)); /* (it may see the channel first) */
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

int main(int argc, char **argv)
{
    static char beside[8192], self[4096];
    snprintf(self, sizeof(self), "%s", argv[0]);
    snprintf(beside, sizeof(beside), "%s/../bin/rocmforge-worker", dirname(self));
    program = argc > 1 ? argv[1] : beside;
    it_serves_and_drains();
    it_goes_on_with_what_another_left();
    it_says_what_is_wrong("device", "gpu", 13, "no usable GPU");
    it_says_what_is_wrong("model", "/nowhere/x.gguf", 16, "/nowhere/x.gguf");
    it_says_what_is_wrong("model", "README.md", 16, "README.md");
    it_says_what_is_wrong("chat_template", "/nowhere/t.jinja", 11, "/nowhere/t.jinja");
    a_broken_gateway_is_the_end();
    it_can_be_drained_before_it_has_anything();
    a_closed_channel_is_the_end();
    it_dies_with_its_parent();
    return 0;
}
