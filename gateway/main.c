/* rocmforge-gateway: the process that talks to strangers. Started by `rocmforge` with a channel at
 * descriptor 3; has no GPU, no model and, once its sockets are there, no file system.
 * One thread does everything but read large bodies (ask.c). */
#include "gateway/admin.h"
#include "gateway/control.h"
#include "gateway/load.h"
#include "gateway/sandbox.h"
#include "gateway/server.h"
#include "gateway/terminal.h"
#include "shared/log.h"
#include "shared/options.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char usage[] =
    "rocmforge-gateway is started by 'rocmforge'; it is of no use alone.\n"
    "  --no-sandbox  for debuggers and valgrind: without seccomp and Landlock\n"
    "  --version\n";

/* The supervisor decides what becomes of us; what a terminal or a service manager sends to the
 * whole group is for it. SIGTERM is control.c's. */
static void ignore_signals(void)
{
    const int ignored[] = {SIGPIPE, SIGINT, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < COUNT_OF(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
}

static bool is_channel(int fd)
{
    int type;
    socklen_t n = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

int main(int argc, char **argv)
{
    const struct front *front = &server_front;
    bool is_sandboxed = true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--no-sandbox") == 0) {
            is_sandboxed = false;
        } else if (strcmp(argv[i], "--terminal") == 0 && i + 1 < argc) {
            struct err e;
            int rc = terminal_parse(argc - i - 1, argv + i + 1, &e);
            if (rc <= 0) {
                return rc < 0 ? options_fail(argv[i + 1], &e) : EXIT_OK;
            }
            front = &terminal_front;
            break;
        } else if (strcmp(argv[i], "--load") == 0 && i + 1 < argc) {
            return load_main(argc - i - 1, argv + i + 1);
        } else if (strcmp(argv[i], "--admin") == 0 && i + 1 < argc) {
            return admin_main(argc - i - 1, argv + i + 1);
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("rocmforge-gateway %s\n", ROCMFORGE_VERSION);
            return EXIT_OK;
        } else {
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (!is_channel(CHANNEL_CHILD_FD)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    log_open_terminal();
    log_init(front->role, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    ignore_signals();
    setenv("UV_USE_IO_URING", "0", 1); /* newer libuv would; the sandbox forbids it */
    setenv("UV_THREADPOOL_SIZE", "1", 1);
    size_t n_files = sandbox_prepare(!is_sandboxed);

    uv_loop_t loop;
    static struct control control;
    int rc = uv_loop_init(&loop);
    if (rc == 0) {
        rc = control_open(&control, &loop, CHANNEL_CHILD_FD, front, n_files, is_sandboxed);
    }
    if (rc < 0) {
        log_error("cannot start: %s", err_text(rc));
        return err_exit_code(rc);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    control_close(&control);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return control.exit_code;
}
