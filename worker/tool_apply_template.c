/* `apply-template`: the prompt that a chat request becomes. Only the model file's metadata is read;
 * no engine. */
#include "shared/json.h"
#include "shared/limits.h"
#include "worker/setup.h"
#include "worker/template_builtin.h"
#include "worker/template_chat.h"
#include "worker/tokenizer.h"
#include "worker/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file's JSON; of stdin when path is "-". */
static int read_request(const char *path, json_t **ret, struct err *e)
{
    struct buf text;
    buf_init(&text, LIMIT_BODY_BYTES);
    int rc = tool_read(strcmp(path, "-") == 0 ? NULL : path, &text, e);
    if (text.failed) {
        rc = err_set(e, ERR_BAD_REQUEST, "%s is larger than %d bytes", path, LIMIT_BODY_BYTES);
    }
    if (rc == 0) {
        rc = json_parse(text.data ? text.data : "", text.len, ret, e);
    }
    buf_finish(&text);
    return rc;
}

/* The text of a token, for bos_token and eos_token; empty where there is none. */
static int token_text(const struct tokenizer *t, int32_t id, struct buf *ret)
{
    buf_str(ret, "");
    return id < 0 ? 0 : tokenizer_piece(t, id, false, true, ret);
}

static int token_texts(const struct gguf *g, struct buf *bos, struct buf *eos, struct err *e)
{
    struct tokenizer *t = NULL;
    char warn[160];
    int rc = tokenizer_create(g, &t, warn, e);
    if (rc == ERR_NO_TOKENIZER) { /* templates can do without */
        return 0;
    }
    if (rc == 0) {
        rc = token_text(t, tokenizer_bos(t), bos);
        rc = rc < 0 ? rc : token_text(t, tokenizer_eos(t), eos);
    }
    tokenizer_destroy(&t);
    return rc;
}

static int print_prompt(const struct gguf *g, const struct template *t, json_t *request,
                        struct err *e)
{
    struct buf bos, eos, text;
    buf_init(&bos, 0);
    buf_init(&eos, 0);
    buf_init(&text, 0);
    int rc = token_texts(g, &bos, &eos, e);
    if (rc == 0) {
        rc = template_chat_render(t, json_object_get(request, "messages"), request, bos.data,
                                  eos.data, template_chat_now(), &text, e);
    }
    if (rc == 0) {
        fwrite(text.data ? text.data : "", 1, text.len, stdout);
    }
    buf_finish(&bos);
    buf_finish(&eos);
    buf_finish(&text);
    return rc;
}

static int apply(const struct config *c, const char *path, struct err *e)
{
    struct gguf g;
    struct template *t = NULL;
    json_t *request = NULL;
    char *name, *model;
    if (!path) {
        return err_set(e, ERR_USAGE, "--request FILE is missing");
    }
    int rc = setup_model(c, &name, &model, e);
    if (rc < 0) {
        return rc;
    }
    rc = gguf_open(model, &g, e);
    if (rc == 0) {
        rc = read_request(path, &request, e);
        if (rc == 0 && !json_is_object(request)) {
            rc = err_set(e, ERR_BAD_REQUEST, "%s is no JSON object", path);
        }
        rc = rc < 0 ? rc : template_chat_load(&g, c->v[CONFIG_chat_template].str, &t, e);
        if (rc == 0) {
            rc = t ? print_prompt(&g, t, request, e) : err_set(e, ERR_NO_TEMPLATE, "%s", model);
        }
        gguf_close(&g);
    }
    template_destroy(&t);
    json_decref(request);
    free(name);
    free(model);
    return rc;
}

static const enum config_key keys[] = {CONFIG_model, CONFIG_chat_template};

int tool_apply_template(int argc, char **argv)
{
    const char *path = NULL;
    const struct option_spec specs[] = {
        {"request", 'r', OPTION_STR, &path, 0, 0,
         "a chat request as /v1/chat/completions takes it; - for standard input"},
    };
    struct options o = {
        .usage = "apply-template -m MODEL [--chat-template FILE|NAME] --request FILE",
        .summary = "Prints the prompt that a chat request becomes, or the template's own error.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = keys,
        .n_keys = COUNT_OF(keys),
    };
    struct config c;
    struct err e = {0};
    int rc = tool_parse(&o, argc, argv, &c, &e);
    rc = rc == 1 ? apply(&c, path, &e) : rc;
    return tool_finish("apply-template", &c, rc, &e);
}
