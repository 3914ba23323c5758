/* The bar (see progress.h). May block on the terminal. */
#include "shared/progress.h"
#include "shared/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 40, PERIOD_NS = 100000000 };

void progress_start(struct progress *p)
{
    *p = (struct progress){.is_tty = isatty(STDERR_FILENO) == 1};
}

void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    static const char bar[] = "########################################";
    uint64_t now = clock_ns();
    if (!p->is_tty || (now - p->last_ns < PERIOD_NS && done < total)) {
        return;
    }
    p->last_ns = now;
    int percent = done < total ? (int)((double)done / (double)total * 100) : 100;
    fprintf(stderr, "\r[%-*.*s] %3d %%", WIDTH, percent * WIDTH / 100, bar, percent);
    fflush(stderr);
}

void progress_clear(struct progress *p)
{
    if (p->last_ns) {
        fprintf(stderr, "\r%*s\r", WIDTH + 8, "");
        fflush(stderr);
        p->last_ns = 0;
    }
}
