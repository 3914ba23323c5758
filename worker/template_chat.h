/* Between a chat request and a template: which template a model has, the variables a request gives
 * it, and what moment it is. */
#ifndef WORKER_TEMPLATE_CHAT_H
#define WORKER_TEMPLATE_CHAT_H

#include "shared/gguf.h"
#include "worker/template.h"

/* The template of a model. choice: the name of a built-in one (template_builtin.h) or else a file;
 * empty: the model's own. *ret is NULL where the model has none. Errors: ERR_CONFIG (the file
 * cannot be read), ERR_TEMPLATE, ERR_GGUF_KEY, -ENOMEM; none that concerns the model's own is
 * mistaken for one of the choice: those are told by `choice` being empty. */
MUST_CHECK int template_chat_load(const struct gguf *g, const char *choice, struct template **ret,
                                  struct err *e);

/* Renders a chat. messages (an array; changed) and args (an object, or NULL: tools,
 * chat_template_kwargs, add_generation_prompt) have the API's form; they get the one that templates
 * are written for: content as one text where all its parts are text, arguments of tool calls as
 * objects. bos and eos may be NULL. Appends to ret. Errors: ERR_BAD_FIELD, those of
 * template_render. */
MUST_CHECK int template_chat_render(const struct template *t, json_t *messages, const json_t *args,
                                    const char *bos, const char *eos, int64_t now_unix_s,
                                    struct buf *ret, struct err *e);

/* The moment that templates are told: SOURCE_DATE_EPOCH where the environment has it, else now. */
int64_t template_chat_now(void);

#endif
