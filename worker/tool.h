/* Offline tools: `rocmforge-worker NAME ...`, to which `rocmforge NAME ...` hands over. A tool gets
 * its own name in argv[0], prints results to stdout and problems to stderr, and returns the exit
 * code. */
#ifndef WORKER_TOOL_H
#define WORKER_TOOL_H

#include "shared/options.h"
#include "worker/device.h"

typedef int tool_fn(int argc, char **argv);

#define TOOL(name, function, summary) tool_fn function;
#include "worker/tool.def"
#undef TOOL

/* Settings of all sources and the command line into *c, which tool_finish lets go of in any case.
 * Returns and errors as options_parse and config_load. */
MUST_CHECK int tool_parse(struct options *o, int argc, char **argv, struct config *c,
                          struct err *e);
/* The exit code for err (below 0: an error, told on stderr). What was printed must have arrived. */
int tool_finish(const char *name, struct config *c, int err, struct err *e);

/* A model on the device that the configuration names, whose lock is then held. tool_close in any
 * case. Errors: those of device_open and engine_open. */
MUST_CHECK int tool_open(const struct config *c, const char *path, const struct engine_options *o,
                         struct device *device, struct engine **ret, struct err *e);
void tool_close(struct device *device, struct engine **engine);

/* Appends all bytes of a file, or of standard input when path is NULL. Errors, with the path in e:
 * -errno,
 * -EIO; -ENOMEM (also above the limit of *ret). */
MUST_CHECK int tool_read(const char *path, struct buf *ret, struct err *e);

#endif
