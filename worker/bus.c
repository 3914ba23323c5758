/* The handler of SIGBUS (see bus.h). Any thread. It may be anywhere in our code, so nothing here
 * allocates or takes a lock. */
#include "worker/bus.h"

#include "shared/err.h"
#include "worker/memory.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static const struct attach *attach;

static void on_bus(int signal_number, siginfo_t *info, void *context)
{
    static atomic_flag is_ending = ATOMIC_FLAG_INIT;
    (void)context;
    if (info->si_code <= 0) { /* sent by a process, no access of ours */
        (void)signal(signal_number, SIG_DFL);
        (void)raise(signal_number);
        return; /* and dies of it as soon as the handler's mask is lifted */
    }
    while (atomic_flag_test_and_set(&is_ending)) {
        pause(); /* all threads of the pool read the same weights; the first of them says why */
    }
    static struct memory_file f; /* (one handler comes here: it ends the process) */
    memory_file_at(info->si_addr, &f);
    bool is_store = !*f.path || strncmp(f.path, "/memfd:", 7) == 0;
    int code = is_store ? ERR_NO_MEMORY : memory_file_error(&f);
    struct status_page *page = attach->status;
    if (page && is_store) {
        status_last_words(page, "%s: a page of %s", err_text(code), *f.path ? f.path : "shared memory");
    } else if (page) {
        status_last_words(page, "%s: %s cannot be read%s, at byte %llu", err_text(code), f.path,
                          code == ERR_MODEL_IO ? "" : " any more", (unsigned long long)f.offset);
    }
    _exit(err_exit_code(code));
}

void bus_guard(const struct attach *a)
{
    attach = a;
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}
