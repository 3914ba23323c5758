/* Chat templates that can be asked for by name, for model files that have none. They know roles and
 * text, no tools. Names are those of llama-server's --chat-template. */
#ifndef WORKER_TEMPLATE_BUILTIN_H
#define WORKER_TEMPLATE_BUILTIN_H

#include "shared/base.h"

/* The source, NULL when there is none of that name. */
const char *template_builtin_find(const char *name);
/* The i-th name, NULL behind the last. */
const char *template_builtin_name(size_t i);

#endif
