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

int tool_open(const struct config *c, const char *path, const struct engine_options *o,
              struct device *device, struct engine **ret, struct err *e)
{
    struct engine_options with_device = *o;
    device_init(device);
    int err = device_open(device, c, "tool", NULL, NULL, NULL, e);
    device_use(device, 1, &with_device);
    return err < 0 ? err : engine_open(path, &with_device, ret, e);
}

void tool_close(struct device *device, struct engine **engine)
{
    engine_close(engine);
    device_close(device);
}

int tool_read(const char *path, struct buf *ret, struct err *e)
{
    const char *name = path ? path : "standard input";
    FILE *f = path ? fopen(path, "rbe") : stdin;
    if (!f) {
        return err_set(e, -errno, "%s", name);
    }
    char part[65536];
    for (size_t n; !ret->failed && (n = fread(part, 1, sizeof(part), f)) > 0;) {
        buf_add(ret, part, n);
    }
    bool is_unread = ferror(f);
    if (path) {
        fclose(f);
    }
    int rc = is_unread ? -EIO : ret->failed ? -ENOMEM : 0;
    return rc < 0 ? err_set(e, rc, "%s", name) : 0;
}
