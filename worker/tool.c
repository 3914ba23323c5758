/* Before and after a tool's work (see tool.h). */
#include "worker/tool.h"

#include <errno.h>
#include <stdio.h>

int tool_parse(struct options *o, int argc, char **argv, struct config *c, struct err *e)
{
    config_init(c);
    int err = config_load(c, NULL, e);
    return err < 0 ? err : options_parse(o, argc, argv, c, e);
}

int tool_finish(const char *name, struct config *c, int err, struct err *e)
{
    config_finish(c);
    if (fflush(stdout) != 0 && err >= 0) {
        err = err_set(e, -errno, "standard output");
    }
    if (err < 0) {
        e->code = err;
        return options_fail(name, e);
    }
    return EXIT_OK;
}
