/* Offline tools: `rocmforge-worker NAME ...`, to which `rocmforge NAME ...` hands over. A tool gets
 * its own name in argv[0], prints results to stdout and problems to stderr, and returns the exit
 * code. */
#ifndef WORKER_TOOL_H
#define WORKER_TOOL_H

typedef int tool_fn(int argc, char **argv);

#define TOOL(name, function, summary) tool_fn function;
#include "worker/tool.def"
#undef TOOL

#endif
