/* From the JSON body of an API call to the message that the worker gets: a pure function of bytes,
 * fuzzed alone. Which fields there are, of which kind and range, stands in field.def. */
#ifndef GATEWAY_REQUEST_H
#define GATEWAY_REQUEST_H

#include "ipc/msg.h"
#include "shared/json.h"

enum request_api {
    REQUEST_COMPLETIONS = 1,
    REQUEST_CHAT = 2,
    REQUEST_TOKENIZE = 4,
    REQUEST_DETOKENIZE = 8,
    REQUEST_MODEL = 16, /* load or unload */
    REQUEST_TEMPLATE = 32,
    REQUEST_ANTHROPIC = 64, /* Anthropic's chat: it becomes a REQUEST_CHAT */
};

enum { REQUEST_PARAM_BYTES = 80 };

/* A refusal: the error, and the field at fault ("messages[2].content"; empty when none is). */
struct request_err {
    struct err err;
    char param[REQUEST_PARAM_BYTES];
};

struct request_text { /* borrowed from the JSON; may hold NUL */
    const char *data;
    size_t n;
};

struct request {
    enum request_api api;
    json_t *json;              /* owned; everything borrowed below lives in it */
    struct request_text model; /* data NULL: not given */
    struct request_text user, content;
    struct request_text grammar; /* GBNF that the answer has to match; or */
    const json_t *schema;        /* the schema that it has to keep to; or */
    bool wants_object;           /* any JSON object */
    const json_t *prompt;        /* what the client gave: see request_prompt */
    size_t n_prompts;
    const json_t *tools, *template_kwargs;
    struct buf messages; /* owned: the JSON array for the worker */
    struct request_text stops[LIMIT_STOPS];
    size_t n_stops;
    struct buf logit_bias; /* owned: struct msg_logit_bias[] */
    uint64_t seed;
    bool has_seed;
    int64_t max_tokens; /* -1: to the end of the context; 0: the prompt is only read */
    int64_t n, best_of; /* n choices are answered, of best_of (never fewer) that are made */
    int64_t top_k, repeat_last_n, top_logprobs;
    double temperature, top_p, min_p, typical_p;
    double queue_timeout, first_timeout, total_timeout; /* seconds; 0 none, negative: not given */
    uint64_t client;                                    /* who asks: a digest; 0 unknown */
    double presence_penalty, frequency_penalty, repeat_penalty;
    bool wants_logprobs, wants_echo, ignores_eos, is_stream, wants_usage;
    bool adds_special, parses_special;
    struct buf call_schema; /* owned: JSON; where the answer is to be a call of a tool, */
    bool must_call;
    const char *must_call_name; /* of this one; NULL: any */
    bool hides_tools;           /* from the template */
    bool splits_reasoning;      /* chat: what stands in <think> is given apart */
    bool opens_answer;          /* the template ends with the beginning of an answer */
};

/* Reads a body. On failure *ret needs no finish. Errors: ERR_BAD_JSON, ERR_BAD_FIELD, -ENOMEM. */
MUST_CHECK int request_parse(enum request_api api, const char *body, size_t n, struct request *ret,
                             struct request_err *e);
void request_finish(struct request *r);

/* Appends the payload of MSG_GENERATE (for prompt i of n_prompts; chat has one) or MSG_TEXT, with
 * request id 0 (the journal gives one). seed: used as it stands. Failure shows as ret->failed. */
void request_encode(const struct request *r, size_t i, uint32_t model, uint64_t seed,
                    struct buf *ret);

/* For those who read fields: "an object", "null", ...; */
const char *request_type_name(const json_t *v);
/* ERR_UNSUPPORTED for a field that is not supported, or not so; */
int request_unsupported(struct request_err *e, const char *param, const char *what);
/* Fills e: ERR_BAD_FIELD, naming the field by its place. */
int request_refuse(struct request_err *e, const char *param, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

#endif
