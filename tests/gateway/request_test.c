/* JSON bodies: the field table (every field at, below and above its range, of the wrong type, null,
 * absent), and the message that the worker gets for good ones. */
#include "gateway/request.h"
#include "tests/test.h"

#define CHAT_BODY "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TEXT_BODY "{\"prompt\":\"hi\""

struct row {
    enum request_api api;
    const char *fields; /* appended to a good body */
    const char *param;  /* at fault; NULL: taken */
};

#define T REQUEST_COMPLETIONS
#define C REQUEST_CHAT
#define B (enum request_api)(T | C)

static const struct row rows[] = {
    {B, "", NULL},
    {B, ",\"unknown\":{\"a\":[1]}", NULL},
    {B, ",\"model\":\"m\"", NULL},
    {B, ",\"model\":null", NULL},
    {B, ",\"model\":7", "model"},
    {B, ",\"temperature\":0", NULL},
    {B, ",\"temperature\":2", NULL},
    {B, ",\"temperature\":2.0001", "temperature"},
    {B, ",\"temperature\":-0.1", "temperature"},
    {B, ",\"temperature\":\"1\"", "temperature"},
    {B, ",\"temperature\":true", "temperature"},
    {B, ",\"temperature\":null", NULL},
    {B, ",\"temperature\":[]", "temperature"},
    {B, ",\"top_p\":0", NULL},
    {B, ",\"top_p\":1", NULL},
    {B, ",\"top_p\":1.1", "top_p"},
    {B, ",\"top_p\":-1", "top_p"},
    {B, ",\"min_p\":1.01", "min_p"},
    {B, ",\"typical_p\":-0.5", "typical_p"},
    {B, ",\"top_k\":-1", NULL},
    {B, ",\"top_k\":0", NULL},
    {B, ",\"top_k\":2147483647", NULL},
    {B, ",\"top_k\":2147483648", "top_k"},
    {B, ",\"top_k\":-2", "top_k"},
    {B, ",\"top_k\":1.5", "top_k"},
    {B, ",\"top_k\":40.0", NULL},
    {B, ",\"presence_penalty\":2", NULL},
    {B, ",\"presence_penalty\":-2.5", "presence_penalty"},
    {B, ",\"frequency_penalty\":-2", NULL},
    {B, ",\"frequency_penalty\":3", "frequency_penalty"},
    {B, ",\"repeat_penalty\":1.1", NULL},
    {B, ",\"repeat_penalty\":0", "repeat_penalty"},
    {B, ",\"repetition_penalty\":0", "repetition_penalty"},
    {B, ",\"repeat_last_n\":-1", NULL},
    {B, ",\"repeat_last_n\":-2", "repeat_last_n"},
    {B, ",\"seed\":0", NULL},
    {B, ",\"seed\":-1", NULL},
    {B, ",\"seed\":9223372036854775807", NULL},
    {B, ",\"seed\":1.5", "seed"},
    {B, ",\"seed\":\"1\"", "seed"},
    {B, ",\"n\":1", NULL},
    {B, ",\"n\":16", NULL},
    {B, ",\"n\":0", "n"},
    {B, ",\"n\":17", "n"},
    {T, ",\"best_of\":1", NULL},
    {T, ",\"n\":2,\"best_of\":2", NULL},
    {T, ",\"n\":2,\"best_of\":3", NULL},
    {T, ",\"n\":2,\"best_of\":1", "best_of"},
    {T, ",\"best_of\":3,\"stream\":true", "best_of"},
    {C, ",\"queue_timeout\":0.5,\"first_timeout\":3,\"total_timeout\":60", NULL},
    {T, ",\"total_timeout\":-1", "total_timeout"},
    {C, ",\"best_of\":3", NULL},
    {B, ",\"max_tokens\":1", NULL},
    {B, ",\"max_tokens\":-1", NULL},
    {B, ",\"max_tokens\":0", NULL},
    {B, ",\"max_tokens\":-2", "max_tokens"},
    {B, ",\"max_tokens\":2147483648", "max_tokens"},
    {B, ",\"max_tokens\":1e300", "max_tokens"},
    {C, ",\"max_completion_tokens\":\"x\"", "max_tokens"},
    {B, ",\"stop\":\"a\"", NULL},
    {B, ",\"stop\":[]", NULL},
    {B, ",\"stop\":[\"a\",\"b\",\"c\",\"d\"]", NULL},
    {B,
     ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\",\"l\",\"m\","
     "\"n\",\"o\",\"p\",\"q\"]",
     "stop"},
    {B, ",\"stop\":\"\"", "stop"},
    {B, ",\"stop\":[\"a\",\"\"]", "stop[1]"},
    {B, ",\"stop\":[1]", "stop[0]"},
    {B, ",\"stop\":7", "stop"},
    {B, ",\"logit_bias\":{}", NULL},
    {B, ",\"logit_bias\":{\"5\":-100,\"7\":100}", NULL},
    {B, ",\"logit_bias\":{\"5\":-101}", "logit_bias"},
    {B, ",\"logit_bias\":{\"5\":\"x\"}", "logit_bias"},
    {B, ",\"logit_bias\":{\"-5\":1}", "logit_bias"},
    {B, ",\"logit_bias\":{\"2147483648\":1}", "logit_bias"},
    {B, ",\"logit_bias\":{\"a\":1}", "logit_bias"},
    {B, ",\"logit_bias\":[1]", "logit_bias"},
    {T, ",\"logprobs\":0", NULL},
    {T, ",\"logprobs\":20", NULL},
    {T, ",\"logprobs\":21", "logprobs"},
    {T, ",\"logprobs\":-1", "logprobs"},
    {T, ",\"logprobs\":\"1\"", "logprobs"},
    {C, ",\"logprobs\":true", NULL},
    {C, ",\"logprobs\":false", NULL},
    {C, ",\"logprobs\":1", "logprobs"},
    {C, ",\"logprobs\":true,\"top_logprobs\":20", NULL},
    {C, ",\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
    {C, ",\"top_logprobs\":2", "top_logprobs"},
    {C, ",\"top_logprobs\":0", NULL},
    {T, ",\"top_logprobs\":99", NULL},
    {T, ",\"echo\":true", NULL},
    {T, ",\"echo\":1", "echo"},
    {C, ",\"echo\":1", NULL},
    {B, ",\"ignore_eos\":\"no\"", "ignore_eos"},
    {B, ",\"stream\":true", NULL},
    {B, ",\"stream\":\"true\"", "stream"},
    {B, ",\"stream_options\":{}", NULL},
    {B, ",\"stream_options\":{\"include_usage\":true}", NULL},
    {B, ",\"stream_options\":{\"include_usage\":null}", NULL},
    {B, ",\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"},
    {B, ",\"stream_options\":true", "stream_options"},
    {B, ",\"user\":\"me\"", NULL},
    {B, ",\"user\":5", "user"},
    {C, ",\"tools\":[{}]", NULL},
    {C, ",\"tools\":[1]", "tools[0]"},
    {C, ",\"tools\":{}", "tools"},
    {C, ",\"chat_template_kwargs\":{\"enable_thinking\":false}", NULL},
    {C, ",\"chat_template_kwargs\":[]", "chat_template_kwargs"},
};

/* Whole bodies. code: the error; 0 taken. */
static const struct {
    enum request_api api;
    const char *body;
    int code;
    const char *param;
} bodies[] = {
    {T, "", ERR_BAD_JSON, ""},
    {T, "{", ERR_BAD_JSON, ""},
    {T, "[]", ERR_BAD_JSON, ""},
    {T, "\"x\"", ERR_BAD_JSON, ""},
    {T, "{\"prompt\":\"a\"}x", ERR_BAD_JSON, ""},
    {T, "{\"prompt\":\"a\",\"prompt\":\"b\"}", ERR_BAD_JSON, ""},
    {T, "{\"prompt\":\"\xff\"}", ERR_BAD_JSON, ""},
    {T, "{\"prompt\":\"\\ud800\"}", ERR_BAD_JSON, ""},
    {T, "{}", ERR_BAD_FIELD, "prompt"},
    {T, "{\"prompt\":null}", ERR_BAD_FIELD, "prompt"},
    {T, "{\"prompt\":\"\"}", 0, ""},
    {T, "{\"prompt\":7}", ERR_BAD_FIELD, "prompt"},
    {T, "{\"prompt\":[]}", ERR_BAD_FIELD, "prompt"},
    {T, "{\"prompt\":[1,2]}", 0, ""},
    {T, "{\"prompt\":[1,-2]}", ERR_BAD_FIELD, "prompt[1]"},
    {T, "{\"prompt\":[1,2147483648]}", ERR_BAD_FIELD, "prompt[1]"},
    {T, "{\"prompt\":[1,\"a\"]}", ERR_BAD_FIELD, "prompt[1]"},
    {T, "{\"prompt\":[\"a\",1]}", ERR_BAD_FIELD, "prompt[1]"},
    {T, "{\"prompt\":[\"a\",[1],\"b\"]}", 0, ""},
    {T, "{\"prompt\":[[1],[]]}", ERR_BAD_FIELD, "prompt[1]"},
    {T, "{\"prompt\":[[1],[2,\"x\"]]}", ERR_BAD_FIELD, "prompt[1][1]"},
    {C, "{}", ERR_BAD_FIELD, "messages"},
    {C, "{\"messages\":[]}", ERR_BAD_FIELD, "messages"},
    {C, "{\"messages\":\"hi\"}", ERR_BAD_FIELD, "messages"},
    {C, "{\"messages\":[\"hi\"]}", ERR_BAD_FIELD, "messages[0]"},
    {C, "{\"messages\":[{\"content\":\"hi\"}]}", ERR_BAD_FIELD, "messages[0].role"},
    {C, "{\"messages\":[{\"role\":\"\",\"content\":\"hi\"}]}", ERR_BAD_FIELD, "messages[0].role"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", ERR_BAD_FIELD, "messages[0].content"},
    {C, "{\"messages\":[{\"role\":\"user\"}]}", 0, ""},
    {C,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
     "{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     ERR_BAD_FIELD, "messages[0].content[1]"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", ERR_BAD_FIELD,
     "messages[0].content[0]"},
    {C, "{\"messages\":[{\"role\":\"user\",\"content\":[\"a\"]}]}", ERR_BAD_FIELD,
     "messages[0].content[0]"},
    {T, "{\"prompt\":\"a\",\"suffix\":\"b\"}", ERR_UNSUPPORTED, "suffix"},
    {T, "{\"prompt\":\"a\",\"suffix\":\"\",\"mirostat\":0,\"grammar\":null}", 0, ""},
    {T, "{\"prompt\":\"a\",\"grammar\":\"root ::= \\\"a\\\"\"}", 0, ""},
    {T, "{\"prompt\":\"a\",\"grammar\":\"x\",\"json_schema\":{}}", ERR_BAD_FIELD, "grammar"},
    {T, "{\"prompt\":\"a\",\"json_schema\":[]}", ERR_BAD_FIELD, "json_schema"},
    {T, "{\"prompt\":\"a\",\"json_schema\":{},\"ignore_eos\":true}", ERR_BAD_FIELD, "ignore_eos"},
    {T, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}", 0, ""},
    {T, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\"}}", ERR_BAD_FIELD,
     "response_format"},
    {T, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"regex\"}}", ERR_UNSUPPORTED,
     "response_format"},
    {T, "{\"prompt\":\"a\",\"mirostat\":2}", ERR_UNSUPPORTED, "mirostat"},
    {T, "{\"prompt\":\"a\",\"dry_multiplier\":0.8}", ERR_UNSUPPORTED, "dry_multiplier"},
    {T, "{\"prompt\":\"a\",\"response_format\":{\"type\":\"text\"}}", 0, ""},
    {T, "{\"prompt\":\"a\",\"response_format\":{}}", ERR_BAD_FIELD, "response_format"},
    {C, CHAT_BODY ",\"tools\":[{}],\"tool_choice\":\"auto\"}", 0, ""},
    {C, CHAT_BODY ",\"tools\":[{}],\"tool_choice\":\"none\"}", 0, ""},
    {C, CHAT_BODY ",\"tools\":[{}],\"tool_choice\":\"required\"}", ERR_BAD_FIELD, "tool_choice"},
    {C, CHAT_BODY ",\"tools\":[{}],\"tool_choice\":{\"type\":\"function\"}}", ERR_BAD_FIELD,
     "tool_choice"},
    {C, CHAT_BODY ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\"}", 0,
     ""},
    {C,
     CHAT_BODY
     ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"type\":\"function\","
     "\"function\":{\"name\":\"g\"}}}",
     ERR_BAD_FIELD, "tool_choice"},
    {C,
     CHAT_BODY ",\"tools\":[{\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\","
               "\"json_schema\":{}}",
     ERR_BAD_FIELD, "tool_choice"},
    {C, CHAT_BODY ",\"functions\":[{}]}", ERR_UNSUPPORTED, "functions"},
    {REQUEST_ANTHROPIC, "{}", ERR_BAD_FIELD, "max_tokens"},
    {REQUEST_ANTHROPIC, "{\"max_tokens\":5}", ERR_BAD_FIELD, "messages"},
    {REQUEST_ANTHROPIC, "{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}",
     ERR_BAD_FIELD, "messages[0]"},
    {REQUEST_ANTHROPIC,
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
     ERR_UNSUPPORTED, "messages[0].content[0]"},
    {REQUEST_ANTHROPIC,
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"system\":7}",
     ERR_BAD_FIELD, "system"},
    {REQUEST_ANTHROPIC,
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}",
     ERR_BAD_FIELD, "tools[0]"},
    {REQUEST_ANTHROPIC,
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":{}}",
     ERR_BAD_FIELD, "tool_choice"},
    {REQUEST_ANTHROPIC,
     "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"temperature\":9}",
     ERR_BAD_FIELD, "temperature"},
    {REQUEST_TOKENIZE, "{}", ERR_BAD_FIELD, "content"},
    {REQUEST_TOKENIZE, "{\"content\":\"\"}", 0, ""},
    {REQUEST_TOKENIZE, "{\"content\":[]}", ERR_BAD_FIELD, "content"},
    {REQUEST_DETOKENIZE, "{}", ERR_BAD_FIELD, "tokens"},
    {REQUEST_DETOKENIZE, "{\"tokens\":[]}", 0, ""},
    {REQUEST_DETOKENIZE, "{\"tokens\":[5,-1]}", ERR_BAD_FIELD, "tokens[1]"},
    {REQUEST_DETOKENIZE, "{\"tokens\":\"x\"}", ERR_BAD_FIELD, "tokens"},
    {REQUEST_TEMPLATE, "{}", ERR_BAD_FIELD, "messages"},
    {REQUEST_TEMPLATE, "{\"messages\":[{\"role\":\"user\"}],\"prompt\":7}", 0, ""},
    {REQUEST_TEMPLATE, "{\"messages\":[{\"role\":\"user\"}],\"tools\":7}", ERR_BAD_FIELD, "tools"},
    {REQUEST_TEMPLATE, "{\"messages\":[{\"role\":\"user\"}],\"add_generation_prompt\":0}",
     ERR_BAD_FIELD, "add_generation_prompt"},
};

static void check(enum request_api api, const char *body, int code, const char *param)
{
    struct request r;
    struct request_err e;
    int rc = request_parse(api, body, strlen(body), &r, &e);
    if (rc != code || strcmp(e.param, param) != 0) {
        TEST_FAIL("%s: %s, param '%s' (%s); expected %s, param '%s'", body,
                  rc ? err_code(rc) : "taken", e.param, e.err.detail,
                  code ? err_code(code) : "taken", param);
    }
    if (rc == 0) {
        request_finish(&r);
    } else {
        CHECK(e.err.detail[0] && e.err.code == rc && err_http(rc) == 400);
    }
}

static void table(void)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (unsigned api = T; api <= C; api <<= 1) {
            if (rows[i].api & api) {
                char body[512];
                snprintf(body, sizeof(body), "%s%s}", api == T ? TEXT_BODY : CHAT_BODY,
                         rows[i].fields);
                check((enum request_api)api, body, rows[i].param ? ERR_BAD_FIELD : 0,
                      rows[i].param ? rows[i].param : "");
            }
        }
    }
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        check(bodies[i].api, bodies[i].body, bodies[i].code, bodies[i].param);
    }
}

/* Finds a section of the kind in a GENERATE; NULL when there is none. */
static const char *section(const struct buf *b, size_t fixed, uint32_t kind, uint32_t index,
                           size_t *ret_n)
{
    struct msg_cursor c = msg_sections(b->data, b->len, fixed);
    struct msg_section s;
    const void *data;
    while (msg_next_section(&c, &s, &data) == 1) {
        if (s.kind == kind && s.index == index) {
            *ret_n = s.bytes;
            return data;
        }
    }
    return NULL;
}

static void encode(enum request_api api, const char *body, size_t i, struct buf *b,
                   struct msg_generate *ret)
{
    struct request r;
    struct request_err e;
    CHECK_INT(request_parse(api, body, strlen(body), &r, &e), 0);
    buf_init(b, 0);
    request_encode(&r, i, 3, 99, b);
    CHECK(!b->failed);
    CHECK_INT(msg_check(MSG_GENERATE, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, b->data,
                        b->len, 0),
              0);
    memcpy(ret, b->data, sizeof(*ret));
    CHECK(ret->request == 0 && ret->model == 3 && ret->seed == 99);
    request_finish(&r);
}

static void messages_for_the_worker(void)
{
    struct buf b;
    struct msg_generate m;
    size_t n;
    encode(T,
           "{\"prompt\":[\"a\\u0000b\",[7,8]],\"n\":3,\"temperature\":0.5,\"top_k\":-1,"
           "\"stop\":[\"x\",\"yy\"],\"logit_bias\":{\"9\":-2.5},\"logprobs\":2,\"echo\":true,"
           "\"max_tokens\":12,\"frequency_penalty\":0.25,\"ignore_eos\":true}",
           1, &b, &m);
    CHECK(m.n_choices == 3 && m.choice_base == 3 && m.temperature == 0.5f && m.top_k == 0);
    CHECK(m.top_logprobs == 2 && m.max_tokens == 12 && m.frequency_penalty == 0.25f);
    CHECK_INT(m.flags, MSG_LOGPROBS | MSG_ECHO | MSG_PARSE_SPECIAL | MSG_IGNORE_EOS);
    const char *p = section(&b, sizeof(m), MSG_PROMPT_IDS, 0, &n);
    CHECK(p && n == 8 && memcmp(p, (int32_t[]){7, 8}, 8) == 0);
    p = section(&b, sizeof(m), MSG_STOP, 1, &n);
    CHECK(p && n == 2 && memcmp(p, "yy", 2) == 0);
    struct msg_logit_bias bias;
    p = section(&b, sizeof(m), MSG_LOGIT_BIAS, 0, &n);
    CHECK(p && n == sizeof(bias));
    memcpy(&bias, p, sizeof(bias));
    CHECK(bias.id == 9 && bias.bias == -2.5f);
    buf_finish(&b);

    static const char *const formats[] = {
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":"
        "{\"type\":\"array\"}}}",
        "\"response_format\":{\"type\":\"json_object\",\"schema\":{\"type\":\"array\"}}",
        "\"json_schema\":{\"type\":\"array\"}",
        "\"response_format\":{\"type\":\"json_object\"}",
        "\"grammar\":\"root ::= [a]\"",
    };
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        char body[256];
        const char *want = i < 3   ? "{\"type\":\"array\"}"
                           : i < 4 ? "{\"type\":\"object\"}"
                                   : "root ::= [a]";
        snprintf(body, sizeof(body), "{\"prompt\":\"a\",%s}", formats[i]);
        encode(T, body, 0, &b, &m);
        p = section(&b, sizeof(m), i < 4 ? MSG_SCHEMA : MSG_GRAMMAR, 0, &n);
        CHECK(p && n == strlen(want) && memcmp(p, want, n) == 0);
        buf_finish(&b);
    }

    encode(C,
           CHAT_BODY
           ",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"a\":1}}},"
           "{\"function\":{\"name\":\"g\"}}],\"tool_choice\":{\"function\":{\"name\":\"f\"}}}",
           0, &b, &m);
    static const char call[] =
        "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"name\":{\"const\":\"f\"},\"arguments\":"
        "{\"a\":1}},\"required\":[\"name\",\"arguments\"]}]}";
    p = section(&b, sizeof(m), MSG_SCHEMA, 0, &n);
    CHECK(p && n == strlen(call) && memcmp(p, call, n) == 0);
    buf_finish(&b);

    encode(
        REQUEST_ANTHROPIC,
        "{\"model\":\"m\",\"max_tokens\":7,\"system\":[{\"type\":\"text\",\"text\":\"be\"}],"
        "\"stop_sequences\":[\"s\"],\"n\":5,\"top_k\":3,\"messages\":[{\"role\":\"user\","
        "\"content\":"
        "\"hi\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\"},"
        "{\"type\":\"text\",\"text\":\"ok\"},{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\","
        "\"input\":"
        "{\"a\":1}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":"
        "\"t1\","
        "\"content\":[{\"type\":\"text\",\"text\":\"42\"}]},{\"type\":\"text\",\"text\":\"so?\"}]}]"
        ","
        "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":"
        "{\"type\":\"auto\"}}",
        0, &b, &m);
    static const char turns[] =
        "[{\"role\":\"system\",\"content\":\"be\"},{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\",\"content\":\"ok\",\"tool_calls\":[{\"id\":\"t1\",\"type\":"
        "\"function\","
        "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\","
        "\"content\":"
        "\"42\",\"tool_call_id\":\"t1\"},{\"role\":\"user\",\"content\":\"so?\"}]";
    p = section(&b, sizeof(m), MSG_MESSAGES, 0, &n);
    if (!p || n != strlen(turns) || memcmp(p, turns, n) != 0) {
        TEST_FAIL("%.*s\nwanted %s", (int)n, p, turns);
    }
    CHECK(m.max_tokens == 7 && m.top_k == 3 && m.n_choices == 1 && (m.flags & MSG_CHAT));
    p = section(&b, sizeof(m), MSG_STOP, 0, &n);
    CHECK(p && n == 1 && *p == 's');
    p = section(&b, sizeof(m), MSG_TEMPLATE_ARGS, 0, &n);
    static const char tool[] = "\"name\":\"f\",\"parameters\":{\"type\":\"object\"}";
    CHECK(p && memmem(p, n, tool, strlen(tool)));
    buf_finish(&b);

    encode(T, "{\"prompt\":\"a\",\"max_tokens\":0}", 0, &b, &m);
    CHECK(m.max_tokens == 0 && (m.flags & MSG_PROMPT_ONLY));
    buf_finish(&b);

    encode(T, "{\"prompt\":[\"a\\u0000b\",[7,8]]}", 0, &b, &m);
    CHECK(!(m.flags & MSG_PROMPT_ONLY));
    p = section(&b, sizeof(m), MSG_PROMPT_TEXT, 0, &n);
    CHECK(p && n == 3 && memcmp(p, "a\0b", 3) == 0);
    CHECK(m.max_tokens == 0 && m.n_sections == 1 && m.temperature == 1.0f && m.top_p == 1.0f);
    buf_finish(&b);

    encode(C,
           "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\","
           "\"text\":\"\xc3\xa9\"}],\"role\":\"user\",\"name\":\"N\",\"x\":null},"
           "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":1}]}],"
           "\"tools\":[{\"type\":\"function\"}],\"chat_template_kwargs\":{\"a\":true},"
           "\"logprobs\":true,\"top_logprobs\":4,\"max_tokens\":5,\"max_completion_tokens\":6}",
           0, &b, &m);
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\"one\\n\xc3\xa9\",\"name\":\"N\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":1}]}]";
    static const char args[] =
        "{\"add_generation_prompt\":true,\"tools\":[{\"type\":\"function\"}],"
        "\"chat_template_kwargs\":{\"a\":true}}";
    p = section(&b, sizeof(m), MSG_MESSAGES, 0, &n);
    CHECK(p && n == strlen(messages) && memcmp(p, messages, n) == 0);
    p = section(&b, sizeof(m), MSG_TEMPLATE_ARGS, 0, &n);
    CHECK(p && n == strlen(args) && memcmp(p, args, n) == 0);
    CHECK(m.flags == (MSG_CHAT | MSG_LOGPROBS) && m.top_logprobs == 4 && m.max_tokens == 6);
    buf_finish(&b);
}

static void encode_text(enum request_api api, const char *body, struct buf *b, struct msg_text *ret)
{
    struct request r;
    struct request_err e;
    CHECK_INT(request_parse(api, body, strlen(body), &r, &e), 0);
    buf_init(b, 0);
    request_encode(&r, 0, 1, 0, b);
    CHECK_INT(msg_check(MSG_TEXT, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, b->data,
                        b->len, 0),
              0);
    memcpy(ret, b->data, sizeof(*ret));
    CHECK(ret->request == 0 && ret->model == 1);
    request_finish(&r);
}

static void text_messages(void)
{
    struct buf b;
    struct msg_text m;
    size_t n;
    encode_text(REQUEST_TOKENIZE,
                "{\"content\":\"hi\",\"add_special\":true,\"parse_special\":false}", &b, &m);
    CHECK(m.op == MSG_TOKENIZE && m.add_special == 1 && m.parse_special == 0);
    const char *p = section(&b, sizeof(m), MSG_PROMPT_TEXT, 0, &n);
    CHECK(p && n == 2 && memcmp(p, "hi", 2) == 0);
    buf_finish(&b);

    encode_text(REQUEST_TEMPLATE,
                "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                "\"add_generation_prompt\":false}",
                &b, &m);
    CHECK(m.op == MSG_APPLY_TEMPLATE && m.n_sections == 2);
    static const char messages[] = "[{\"role\":\"user\",\"content\":\"hi\"}]";
    static const char args[] = "{\"add_generation_prompt\":false}";
    p = section(&b, sizeof(m), MSG_MESSAGES, 0, &n);
    CHECK(p && n == strlen(messages) && memcmp(p, messages, n) == 0);
    p = section(&b, sizeof(m), MSG_TEMPLATE_ARGS, 0, &n);
    CHECK(p && n == strlen(args) && memcmp(p, args, n) == 0);
    buf_finish(&b);
}

/* Limits that only a large body reaches. */
static void large(void)
{
    struct buf b;
    struct request r;
    struct request_err e;
    for (int extra = 0; extra < 2; extra++) {
        buf_init(&b, 0);
        buf_str(&b, "{\"prompt\":[\"a\"");
        for (int i = 1; i < LIMIT_PROMPTS + extra; i++) {
            buf_str(&b, ",\"a\"");
        }
        buf_str(&b, "]}");
        CHECK_INT(request_parse(T, b.data, b.len, &r, &e), extra ? ERR_BAD_FIELD : 0);
        if (!extra) {
            CHECK_INT(r.n_prompts, LIMIT_PROMPTS);
            request_finish(&r);
        }
        buf_finish(&b);
    }
    buf_init(&b, 0);
    for (int i = 0; i < 100000; i++) {
        buf_char(&b, '[');
    }
    CHECK_INT(request_parse(T, b.data, b.len, &r, &e), ERR_BAD_JSON);
    buf_finish(&b);
}

int main(void)
{
    table();
    messages_for_the_worker();
    text_messages();
    large();
    printf("%zu rows\n", COUNT_OF(rows) + COUNT_OF(bodies));
    return 0;
}
