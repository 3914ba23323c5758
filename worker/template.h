/* Chat templates: an interpreter for the Jinja dialect that model authors use, bounded in steps,
 * depth and output (shared/limits.h). No file access, no attribute of the host, no recursion on the
 * C stack beyond the stated depth. */
#ifndef WORKER_TEMPLATE_H
#define WORKER_TEMPLATE_H

#include "shared/buf.h"
#include "shared/err.h"
#include <jansson.h>

struct template; /* parsed; immutable, any thread may render */

/* Errors: ERR_TEMPLATE with line and what was expected; -ENOMEM. */
MUST_CHECK int template_create(const char *source, size_t n, struct template **ret, struct err *e);
void template_destroy(struct template **t);

/* Renders with the variables of `context` (a JSON object: messages, add_generation_prompt,
 * bos_token, eos_token, tools, ...). now_unix_s serves strftime_now. Errors: ERR_TEMPLATE (the
 * template's own raise_exception text, or a limit, with line), -ENOMEM. */
MUST_CHECK int template_render(const struct template *t, const json_t *context, int64_t now_unix_s,
                               struct buf *ret, struct err *e);

#endif
