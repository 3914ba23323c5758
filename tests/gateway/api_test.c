/* The API over the wire, byte by byte: transcripts of whole and streamed answers, errors, models,
 * tokenizing, keys, origins. The worker is scripted (worker.c). */
#include "tests/gateway/rig.h"

#include <ctype.h>

/* Replaces what differs from run to run: ids (32 hex digits), times of creation. */
static void mask(char *s)
{
    static const char created[] = "\"created\":";
    char *out = s;
    while (*s) {
        size_t n = 0;
        while (isxdigit((unsigned char)s[n]) && n < 33) {
            n++;
        }
        if (n == 32 && s > out - 1 && out[-1] == '-') {
            *out++ = '*';
            s += 32;
        } else if (strncmp(s, created, strlen(created)) == 0) {
            memmove(out, s, strlen(created));
            out += strlen(created);
            s += strlen(created);
            while (isdigit((unsigned char)*s)) {
                s++;
            }
            *out++ = '*';
        } else {
            *out++ = *s++;
        }
    }
    *out = 0;
}

static void expect(const struct rig *r, const char *what, const char *body, int status,
                   const char *wanted)
{
    char *got = client_body(r, what, body, status);
    mask(got);
    if (strcmp(got, wanted) != 0) {
        TEST_FAIL("%s %s\n got    %s\n wanted %s", what, body ? body : "", got, wanted);
    }
    free(got);
}

#define CHAT "POST /v1/chat/completions"
#define TEXT "POST /v1/completions"
#define USER(text) "{\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]"

#define CHAT_HEAD                                                                                  \
    "{\"id\":\"chatcmpl-*\",\"object\":\"chat.completion\",\"created\":*,\"model\":\"tiny\","      \
    "\"system_fingerprint\":\"rocmforge-" ROCMFORGE_VERSION "\",\"choices\":["
#define CHUNK                                                                                      \
    "data: {\"id\":\"chatcmpl-*\",\"object\":\"chat.completion.chunk\",\"created\":*,"             \
    "\"model\":\"tiny\",\"system_fingerprint\":\"rocmforge-" ROCMFORGE_VERSION "\",\"choices\":["
#define TEXT_HEAD                                                                                  \
    "{\"id\":\"cmpl-*\",\"object\":\"text_completion\",\"created\":*,\"model\":\"tiny\","          \
    "\"system_fingerprint\":\"rocmforge-" ROCMFORGE_VERSION "\",\"choices\":["
#define USAGE(prompt, completion, total)                                                           \
    "\"usage\":{\"prompt_tokens\":" prompt ",\"completion_tokens\":" completion                    \
    ",\"total_tokens\":" total ",\"prompt_tokens_details\":{\"cached_tokens\":1}}"
#define TIMINGS(prompt, per_prompt, prompt_rate, n, per_token, rate)                               \
    ",\"timings\":{\"cache_n\":1,\"prompt_n\":" prompt ",\"prompt_ms\":2.000,"                     \
    "\"prompt_per_token_ms\":" per_prompt ",\"prompt_per_second\":" prompt_rate                    \
    ",\"predicted_n\":" n ",\"predicted_ms\":4.000,\"predicted_per_token_ms\":" per_token          \
    ",\"predicted_per_second\":" rate "}}"

/* clang-format off */
/* Transcripts are laid out by the line of the answer. */
static void whole(const struct rig *r)
{
    expect(r, CHAT, USER("say Hel|lo|!") ",\"model\":\"tiny\"}", 200,
           CHAT_HEAD "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello!\"},"
                     "\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE("3", "4", "7")
                         TIMINGS("2", "1.000", "1000.000", "4", "1.000", "1000.000"));
    expect(r, TEXT, "{\"prompt\":\"count 2\"}", 200,
           TEXT_HEAD "{\"text\":\"0 1 \",\"index\":0,\"logprobs\":null,"
                     "\"finish_reason\":\"length\"}]," USAGE("3", "2", "5")
                         TIMINGS("2", "1.000", "1000.000", "2", "2.000", "500.000"));
    /* Several prompts times several choices: 0 and 1 of the first, 2 and 3 of the second. */
    expect(r, TEXT, "{\"prompt\":[\"say a\",\"say b\"],\"n\":2}", 200,
           TEXT_HEAD
           "{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"},"
           "{\"text\":\"a\",\"index\":1,\"logprobs\":null,\"finish_reason\":\"stop\"},"
           "{\"text\":\"b\",\"index\":2,\"logprobs\":null,\"finish_reason\":\"stop\"},"
           "{\"text\":\"b\",\"index\":3,\"logprobs\":null,\"finish_reason\":\"stop\"}],"
           "\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":8,\"total_tokens\":14,"
           "\"prompt_tokens_details\":{\"cached_tokens\":2}},\"timings\":{\"cache_n\":2,"
           "\"prompt_n\":4,\"prompt_ms\":2.000,\"prompt_per_token_ms\":0.500,"
           "\"prompt_per_second\":2000.000,\"predicted_n\":8,\"predicted_ms\":4.000,"
           "\"predicted_per_token_ms\":0.500,\"predicted_per_second\":2000.000}}");
    /* Text that was held back comes with the end. */
    expect(r, TEXT, "{\"prompt\":\"hold a|bc\"}", 200,
           TEXT_HEAD "{\"text\":\"abc\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}],"
           USAGE("3", "3", "6") TIMINGS("2", "1.000", "1000.000", "3", "1.333", "750.000"));
}
/* clang-format on */

static void logprobs(const struct rig *r)
{
    char *got = client_body(r, CHAT,
                            USER("say h\\u00e9|~|x") ",\"logprobs\":true,\"top_logprobs\":1}", 200);
    CHECK(strstr(got, "\"logprobs\":{\"content\":[{\"token\":\"h\xc3\xa9\",\"logprob\":-0.5,"
                      "\"bytes\":[104,195,169],\"top_logprobs\":[{\"token\":\"b\",\"logprob\":-1,"
                      "\"bytes\":[98]}]},{\"token\":\"~\","));
    free(got);
    got =
        client_body(r, TEXT, "{\"prompt\":\"say h\\u00e9|xy\",\"logprobs\":2,\"echo\":true}", 200);
    CHECK(strstr(got, "\"text\":\"say h\xc3\xa9|xyh\xc3\xa9xy\""));
    CHECK(strstr(got, "\"logprobs\":{\"tokens\":[\"say h\xc3\xa9|xy\",\"h\xc3\xa9\",\"xy\"],"
                      "\"token_logprobs\":[null,-0.5,-0.5],"
                      "\"top_logprobs\":[null,{\"b\":-1,\"c\":-1.5},{\"b\":-1,\"c\":-1.5}],"
                      "\"text_offset\":[0,9,11]}"));
    free(got);
    /* In a stream a token whose text is held back comes with the next one's text. */
    got = client_body(r, TEXT, "{\"prompt\":\"say a|~|b\",\"logprobs\":0,\"stream\":true}", 200);
    CHECK(strstr(got, "{\"text\":\"a\",\"index\":0,\"logprobs\":{\"tokens\":[\"a\"],"));
    CHECK(strstr(got, "{\"text\":\"b\",\"index\":0,\"logprobs\":{\"tokens\":[\"~\",\"b\"],"));
    free(got);
}

/* clang-format off */
static void streams(const struct rig *r)
{
#define DELTA(index, delta, finish)                                                                \
    CHUNK "{\"index\":" index ",\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish \
          "}]"
    expect(r, CHAT, USER("say Hel|lo") ",\"stream\":true}", 200,
           DELTA("0", "\"role\":\"assistant\",\"content\":\"\"", "null") "}\n\n"
           DELTA("0", "\"content\":\"Hel\"", "null") "}\n\n"
           DELTA("0", "\"content\":\"lo\"", "null") "}\n\n"
           DELTA("0", "", "\"stop\"")
           TIMINGS("2", "1.000", "1000.000", "3", "1.333", "750.000") "\n\n"
           "data: [DONE]\n\n");
    expect(r, CHAT,
           USER("count 1") ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", 200,
           DELTA("0", "\"role\":\"assistant\",\"content\":\"\"", "null") ",\"usage\":null}\n\n"
           DELTA("0", "\"content\":\"0 \"", "null") ",\"usage\":null}\n\n"
           DELTA("0", "", "\"length\"") ",\"usage\":null}\n\n"
           CHUNK "]," USAGE("3", "1", "4")
           TIMINGS("2", "1.000", "1000.000", "1", "4.000", "250.000") "\n\n"
           "data: [DONE]\n\n");
    /* Two choices, interleaved; each begins with a role and ends with a reason. */
    expect(r, CHAT, USER("say x") ",\"stream\":true,\"n\":2}", 200,
           DELTA("0", "\"role\":\"assistant\",\"content\":\"\"", "null") "}\n\n"
           DELTA("0", "\"content\":\"x\"", "null") "}\n\n"
           DELTA("1", "\"role\":\"assistant\",\"content\":\"\"", "null") "}\n\n"
           DELTA("1", "\"content\":\"x\"", "null") "}\n\n"
           DELTA("0", "", "\"stop\"") "}\n\n"
           DELTA("1", "", "\"stop\"")
           TIMINGS("2", "1.000", "1000.000", "4", "1.000", "1000.000") "\n\n"
           "data: [DONE]\n\n");
    /* An answer that is empty from the start is still a well-formed stream. */
    expect(r, CHAT, USER("count 0") ",\"stream\":true}", 200,
           DELTA("0", "\"role\":\"assistant\",\"content\":\"\"", "null") "}\n\n"
           DELTA("0", "", "\"length\"")
           TIMINGS("2", "1.000", "1000.000", "0", "0.000", "0.000") "\n\n"
           "data: [DONE]\n\n");
}
/* clang-format on */

static void text_stream(const struct rig *r)
{
    char *got = client_body(r, TEXT, "{\"prompt\":\"say a\",\"stream\":true}", 200);
    CHECK(
        strstr(got, "{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}]}\n\n"));
    CHECK(strstr(
        got,
        "{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}],\"timings\""));
    free(got);
    struct response res;
    client_once(r, CHAT, NULL, USER("say a") ",\"stream\":true}", &res);
    char v[256];
    CHECK_STR(response_header(&res, "Content-Type", v), "text/event-stream");
    CHECK_STR(response_header(&res, "Cache-Control", v), "no-cache");
    response_finish(&res);
}

/* Reasoning and calls of tools come apart from the text, whole and streamed. */
static void parts_of_a_chat(const struct rig *r)
{
#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
    static const char script[] = "say <thi|nk>so</think>Well <tool|_call>{\\\"name\\\":\\\"f\\\","
                                 "\\\"arguments\\\":{\\\"x\\\":1}}</tool_call>";
    char body[512];
    snprintf(body, sizeof(body), "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}",
             script, TOOLS);
    char *got = client_body(r, CHAT, body, 200);
    CHECK(strstr(got, "\"message\":{\"role\":\"assistant\",\"content\":\"Well \","
                      "\"reasoning_content\":\"so\",\"tool_calls\":[{\"id\":\"call_"));
    CHECK(strstr(got, "\"type\":\"function\",\"function\":{\"name\":\"f\","
                      "\"arguments\":\"{\\\"x\\\":1}\"}}]},\"logprobs\":null,"
                      "\"finish_reason\":\"tool_calls\"}"));
    free(got);
    snprintf(body, sizeof(body),
             "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s,\"stream\":true}", script,
             TOOLS);
    got = client_body(r, CHAT, body, 200);
    const char *a = strstr(got, "\"delta\":{\"reasoning_content\":\"so\"}");
    const char *b = strstr(got, "\"delta\":{\"content\":\"Well \"}");
    const char *c = strstr(got, "\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_");
    const char *d = strstr(got, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}");
    CHECK(a && b > a && c > b && d > c && !strstr(got, "tool_call>"));
    free(got);
    /* Without tools, or where they are hidden, it is text; and reasoning where it is wanted so. */
    got = client_body(r, CHAT, USER("say <tool_call>x</tool_call>") "}", 200);
    CHECK(strstr(got, "\"content\":\"<tool_call>x</tool_call>\"}"));
    free(got);
    got =
        client_body(r, CHAT, USER("say <think>a</think>b") ",\"reasoning_format\":\"none\"}", 200);
    CHECK(strstr(got, "\"content\":\"<think>a</think>b\"}"));
    free(got);
    got = client_body(r, TEXT, "{\"prompt\":\"say <think>a</think>b\"}", 200);
    CHECK(strstr(got, "\"text\":\"<think>a</think>b\""));
    free(got);
}

/* Anthropic's form: whole, every event of a stream in its order, calls, errors. */
static void anthropic(const struct rig *r)
{
#define MESSAGES "POST /v1/messages"
#define BODY(text, more)                                                                           \
    "{\"max_tokens\":99,\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]" more "}"
    char *got = client_body(r, MESSAGES, BODY("say <think>so</think>Well| then", ""), 200);
    CHECK(strncmp(got, "{\"id\":\"msg_", 11) == 0);
    CHECK(strstr(got, "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"tiny\",\"content\":["
                      "{\"type\":\"thinking\",\"signature\":\"\",\"thinking\":\"so\"},"
                      "{\"type\":\"text\",\"text\":\"Well then\"}],\"stop_reason\":\"end_turn\","
                      "\"stop_sequence\":null,\"usage\":{\"input_tokens\":2,"
                      "\"cache_read_input_tokens\":1,\"cache_creation_input_tokens\":0,"
                      "\"output_tokens\":3}}"));
    free(got);
    got = client_body(r, MESSAGES, BODY("count 2", ""), 200);
    CHECK(strstr(got, "\"stop_reason\":\"max_tokens\""));
    free(got);
    static const char call[] =
        "say Hm|<tool_call>{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{\\\"x\\\":1}}"
        "</tool_call>";
    static const char *const order[] = {
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
        "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hm\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_",
        "\"name\":\"f\",\"input\":{}}}\n\n",
        "\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"x\\\":1}\"}}\n\n",
        "{\"type\":\"content_block_stop\",\"index\":1}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
        "\"tool_use\",\"stop_sequence\":null},\"usage\":{",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"};
    char body[512];
    snprintf(
        body, sizeof(body),
        "{\"max_tokens\":99,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],"
        "\"tools\":[{\"name\":\"f\",\"input_schema\":{}}]}",
        call);
    got = client_body(r, MESSAGES, body, 200);
    const char *at = got;
    for (size_t i = 0; i < COUNT_OF(order); i++) {
        at = strstr(at, order[i]);
        if (!at) {
            TEST_FAIL("'%s' is missing or late in %s", order[i], got);
        }
    }
    free(got);
    expect(
        r, MESSAGES, BODY("fail context_length_exceeded", ""), 400,
        "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"the "
        "prompt "
        "does not fit the context: as the test asked; shorten the prompt or start the server with "
        "a larger --ctx-size\",\"code\":\"context_length_exceeded\"}}");
    got = client_body(r, MESSAGES, BODY("say a", ",\"model\":\"nope\""), 404);
    CHECK(strstr(got, "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\""));
    free(got);
}

/* Bytes of one character in two events, a surrogate pair in the request, controls: what arrives is
 * what was said, and always whole UTF-8. */
static void utf8(const struct rig *r)
{
    char *got = client_body(
        r, CHAT, USER("say \xf0\x9f\x94\xa5|\xe2\x82\xac|\\u0041") ",\"stream\":true}", 200);
    CHECK(strstr(got, "\"content\":\"\xf0\x9f\x94\xa5\"") &&
          strstr(got, "\"content\":\"\xe2\x82\xac\""));
    free(got);
    got = client_body(r, TEXT, "{\"prompt\":\"say \\ud83d\\udd25|\\t\\\"\\\\\"}", 200);
    CHECK(strstr(got, "\"text\":\"\xf0\x9f\x94\xa5\\t\\\"\\\\\""));
    free(got);
}

static void errors(const struct rig *r)
{
    expect(r, TEXT, "{\"prompt\":\"a\",\"temperature\":9}", 400,
           "{\"error\":{\"message\":\"a field is out of range or of the wrong type: field "
           "'temperature' is 9, allowed 0 to 2; correct the named field\","
           "\"type\":\"invalid_request_error\",\"param\":\"temperature\",\"code\":"
           "\"invalid_field\"}}");
    expect(
        r, TEXT, "{\"prompt\":\"a\",\"model\":\"nope\"}", 404,
        "{\"error\":{\"message\":\"no model of that name is served: 'nope'; GET /v1/models lists "
        "the names\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":"
        "\"model_not_found\"}}");
    static const struct {
        const char *what, *body;
        int status;
        const char *code;
    } rows[] = {
        {TEXT, "", 400, "invalid_json"},
        {TEXT, "{", 400, "invalid_json"},
        {CHAT, "{}", 400, "invalid_field"},
        {TEXT, "{\"prompt\":\"fail context_length_exceeded\"}", 400, "context_length_exceeded"},
        {TEXT, "{\"prompt\":\"fail context_length_exceeded\",\"stream\":true}", 400,
         "context_length_exceeded"},
        {TEXT, "{\"prompt\":\"fail server_busy\"}", 429, "server_busy"},
        {TEXT, "{\"prompt\":\"fail numeric_fault\"}", 500, "numeric_fault"},
        {TEXT, "{\"prompt\":[\"say a\",\"fail server_busy\"]}", 429, "server_busy"},
        {"POST /tokenize", "{}", 400, "invalid_field"},
        {"POST /apply-template", "{}", 400, "invalid_field"},
        {"GET /nope", NULL, 404, "not_found"},
        {"POST /nope", "{}", 404, "not_found"},
        {"GET /v1/completions", NULL, 405, "method_not_allowed"},
        {"DELETE /v1/completions", NULL, 405, "method_not_allowed"},
        {"POST /health", "{}", 405, "method_not_allowed"},
        {"GET /v1/models/nope", NULL, 404, "model_not_found"},
        {"GET /v1/models/%zz", NULL, 404, "model_not_found"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *got = client_body(r, rows[i].what, rows[i].body, rows[i].status);
        char code[64];
        snprintf(code, sizeof(code), "\"code\":\"%s\"}}", rows[i].code);
        if (!strstr(got, code)) {
            TEST_FAIL("%s %s: %s", rows[i].what, rows[i].body, got);
        }
        free(got);
    }
    struct response res;
    char v[256];
    client_once(r, TEXT, NULL, "{\"prompt\":\"fail server_busy\"}", &res);
    CHECK_STR(response_header(&res, "Retry-After", v), "1");
    CHECK_STR(response_header(&res, "retry-after-ms", v), "1000");
    CHECK_STR(response_header(&res, "x-should-retry", v), "true");
    response_finish(&res);
    client_once(r, "PUT /health", NULL, NULL, &res);
    CHECK_STR(response_header(&res, "Allow", v), "GET, HEAD, OPTIONS");
    response_finish(&res);
}

/* Which field was at fault is told also where the whole request has to be seen, or the worker says
 * so. */
static void faults_are_placed(const struct rig *r)
{
    static const struct {
        const char *what, *headers, *body;
        const char *end;
    } rows[] = {
        {TEXT, NULL, "{\"prompt\":\"a\",\"logit_bias\":{\"1000\":1}}",
         "\"param\":\"logit_bias\",\"code\":\"invalid_token\"}}"},
        {TEXT, NULL, "{\"prompt\":\"fail context_length_exceeded\"}",
         "\"param\":\"prompt\",\"code\":\"context_length_exceeded\"}}"},
        {CHAT, NULL, USER("fail template_error") "}",
         "\"param\":\"messages\",\"code\":\"template_error\"}}"},
        {"POST /apply-template", NULL, USER("refuse") "}",
         "\"param\":\"messages\",\"code\":\"template_error\"}}"},
        {CHAT, "x-queue-timeout: 1s\r\n", USER("say a") "}",
         "\"param\":\"x-queue-timeout\",\"code\":\"invalid_field\"}}"},
        {CHAT, "X-First-Timeout: -1\r\n", USER("say a") "}",
         "\"param\":\"x-first-timeout\",\"code\":\"invalid_field\"}}"},
        {CHAT, "X-Total-Timeout: 86401\r\n", USER("say a") "}",
         "\"param\":\"x-total-timeout\",\"code\":\"invalid_field\"}}"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct response res;
        client_once(r, rows[i].what, rows[i].headers, rows[i].body, &res);
        if (res.status != 400 || !strstr(res.body.data, rows[i].end)) {
            TEST_FAIL("%s: %d %s, expected %s", rows[i].body, res.status, res.body.data,
                      rows[i].end);
        }
        response_finish(&res);
    }
}

static void others(const struct rig *r)
{
    expect(r, "POST /tokenize", "{\"content\":\"AB\"}", 200, "{\"tokens\":[65,66]}");
    expect(r, "POST /tokenize", "{\"content\":\"\"}", 200, "{\"tokens\":[]}");
    expect(r, "POST /detokenize", "{\"tokens\":[65,66]}", 200, "{\"content\":\"AB\"}");
    expect(r, "POST /apply-template", USER("hi") ",\"model\":\"tiny\"}", 200,
           "{\"prompt\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"hi\\\"}]\"}");
    char *got = client_body(r, "POST /apply-template", USER("refuse") "}", 400);
    CHECK(strstr(got, "\"code\":\"template_error\"}}"));
    free(got);
    got = client_body(r, "GET /v1/models", NULL, 200);
    CHECK(strstr(got, "{\"object\":\"list\",\"data\":[{\"id\":\"tiny\",\"object\":\"model\","
                      "\"created\":1700000000,\"owned_by\":\"rocmforge\",\"status\":{"
                      "\"value\":\"loaded\"},\"meta\":{\"n_vocab\":1000,"));
    free(got);
    got = client_body(r, "GET /v1/models/%6Fther", NULL, 200);
    CHECK(strncmp(got, "{\"id\":\"other\",", 14) == 0);
    free(got);
    got = client_body(r, "GET /health", NULL, 200);
    CHECK(strstr(
        got, "{\"status\":\"ok\",\"draining\":false,\"worker\":{\"state\":\"ready\",\"since\":"));
    free(got);
    got = client_body(r, "GET /ready", NULL, 200);
    CHECK(strstr(got, "\"status\":\"ready\"") && strstr(got, "\"phase\":\"idle\""));
    free(got);
    got = client_body(r, "GET /", NULL, 200);
    CHECK(strstr(got, "\"name\":\"rocmforge\"") && strstr(got, "\"/v1/chat/completions\""));
    free(got);
    got = client_body(r, "GET /metrics", NULL, 200);
    CHECK(strstr(got, "rocmforge_worker_up 1\n"));
    CHECK(strstr(got, "rocmforge_http_requests_total{path=\"/tokenize\"} "));
    CHECK(strstr(got, "rocmforge_http_responses_total{status=\"429\"} "));
    CHECK(strstr(got, "rocmforge_time_to_first_token_seconds_bucket{le=\"+Inf\"} "));
    CHECK(strstr(got, "# TYPE rocmforge_queue_seconds histogram\n"));
    CHECK(strstr(got, "rocmforge_generations_total ") && strstr(got, "rocmforge_connections 1\n"));
    free(got);
    struct response res;
    char v[256];
    client_once(r, "HEAD /health", NULL, NULL, &res);
    CHECK_INT(res.status, 200);
    CHECK(response_header(&res, "Content-Length", v) && atoi(v) > 50 && res.body.len == 0);
    CHECK(response_header(&res, "Date", v) && strlen(v) == 29 && strcmp(v + 26, "GMT") == 0);
    response_finish(&res);
    client_once(r, "OPTIONS /v1/models", NULL, NULL, &res);
    CHECK_INT(res.status, 204);
    CHECK_STR(response_header(&res, "Allow", v), "GET, HEAD, OPTIONS");
    response_finish(&res);
}

/* A prompt of 1 MB, and one of many token ids, travel in a memfd. */
static void bulk(struct rig *r)
{
    struct buf b;
    buf_init(&b, 0);
    buf_str(&b, "{\"prompt\":\"length\\n");
    for (int i = 0; i < 1024; i++) {
        for (int k = 0; k < 1024; k++) {
            buf_char(&b, (char)('a' + (i + k) % 26));
        }
    }
    buf_str(&b, "\"}");
    char *got = client_body(r, TEXT, b.data, 200);
    CHECK(strstr(got, "\"text\":\"1048583\""));
    free(got);
    CHECK_INT(r->n_bulks, 1);
    buf_finish(&b);

    buf_init(&b, 0);
    buf_str(&b, "{\"tokens\":[65");
    for (int i = 0; i < 100000; i++) {
        buf_str(&b, ",66");
    }
    buf_str(&b, "]}");
    got = client_body(r, "POST /detokenize", b.data, 200);
    CHECK_INT(strlen(got), strlen("{\"content\":\"\"}") + 100001);
    free(got);
    CHECK_INT(r->n_bulks, 2);
    buf_finish(&b);
}

static int status_with(const struct rig *r, const char *what, const char *headers)
{
    struct response res;
    client_once(r, what, headers, NULL, &res);
    int status = res.status;
    response_finish(&res);
    return status;
}

static void keys_and_origins(void)
{
    struct rig r;
    const struct rig_options o = {.config = "allowed_host=forge.lan\ncors_origin=https://ui.lan\n",
                                  .keys =
                                      "# two keys\nsecret-one\n\n  secret-two\r\nadmin  boss\n"};
    rig_start(&r, &o);
    rig_worker_start(&r);
    static const struct {
        const char *what, *headers;
        int status;
    } rows[] = {
        {"GET /health", NULL, 200},
        {"GET /ready", NULL, 200},
        {"GET /v1/models", NULL, 401},
        {"GET /metrics", NULL, 401},
        {"GET /nope", NULL, 404},
        {"GET /v1/models", "Authorization: Bearer secret-one\r\n", 200},
        {"GET /v1/models", "authorization: bearer   secret-two\r\n", 200},
        {"GET /v1/models", "x-api-key: secret-two\r\n", 200},
        {"GET /v1/models", "Authorization: Bearer secret-three\r\n", 401},
        {"GET /v1/models", "Authorization: Bearer secret-on\r\n", 401},
        {"GET /v1/models", "Authorization: Bearer secret-one \r\n", 200},
        {"GET /v1/models", "Authorization: Bearer\r\n", 401},
        {"GET /v1/models", "Authorization: Basic secret-one\r\n", 401},
        {"GET /v1/models", "Authorization: secret-one\r\n", 401},
        {"GET /v1/models", "Authorization: Bearer # two keys\r\n", 401},
        {"GET /poison", NULL, 401},
        {"GET /poison", "x-api-key: nobody\r\n", 401},
        {"GET /poison", "x-api-key: secret-one\r\n", 403},
        {"GET /poison", "x-api-key: boss\r\n", 200},
        {"POST /v1/models/load", "x-api-key: secret-one\r\n", 403},
        {"POST /v1/models/unload", "x-api-key: secret-one\r\n", 403},
        {"POST /v1/models/unload", "Authorization: Bearer boss\r\n", 400},
        {"GET /health", "Origin: https://ui.lan\r\n", 200},
        {"GET /health", "Origin: https://evil.com\r\n", 403},
        {"GET /health", "Origin: http://localhost\r\n", 200},
        {"GET /health", "Origin: null\r\n", 403},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int status = status_with(&r, rows[i].what, rows[i].headers);
        if (status != rows[i].status) {
            TEST_FAIL("%s %s: %d, expected %d", rows[i].what, rows[i].headers, status,
                      rows[i].status);
        }
    }
    struct response res;
    char v[256];
    client_once(&r, "OPTIONS /v1/chat/completions",
                "Origin: https://ui.lan\r\nAccess-Control-Request-Method: POST\r\n"
                "Access-Control-Request-Headers: content-type,x-stainless-os\r\n",
                NULL, &res);
    CHECK_INT(res.status, 204);
    CHECK_STR(response_header(&res, "Access-Control-Allow-Origin", v), "https://ui.lan");
    CHECK_STR(response_header(&res, "Access-Control-Allow-Methods", v), "POST, OPTIONS");
    CHECK_STR(response_header(&res, "Access-Control-Allow-Headers", v),
              "content-type,x-stainless-os");
    CHECK_STR(response_header(&res, "Vary", v), "Origin");
    response_finish(&res);
    client_once(&r, "GET /health", "Origin: https://ui.lan\r\n", NULL, &res);
    CHECK_STR(response_header(&res, "Access-Control-Allow-Origin", v), "https://ui.lan");
    response_finish(&res);
    client_once(&r, "GET /health", NULL, NULL, &res);
    CHECK(!response_header(&res, "Access-Control-Allow-Origin", v));
    response_finish(&res);
    client_once(&r, "GET /v1/models", NULL, NULL, &res);
    CHECK_STR(response_header(&res, "WWW-Authenticate", v), "Bearer");
    response_finish(&res);

    /* Rebinding: the name of a stranger, on TCP; a Unix socket has no names. */
    static const struct {
        const char *host;
        int status;
    } hosts[] = {{"evil.com", 403}, {"forge.lan:81", 200}, {"127.0.0.1", 200}, {"[::1]:8080", 200}};
    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        struct client c;
        char text[128];
        snprintf(text, sizeof(text), "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", hosts[i].host);
        client_open(&c, &r);
        client_send(&c, text, strlen(text));
        client_read(&c, &res, false);
        CHECK_INT(res.status, hosts[i].status);
        response_finish(&res);
        client_close(&c);
        client_open_unix(&c, &r);
        client_send(&c, text, strlen(text));
        client_read(&c, &res, false);
        CHECK_INT(res.status, 200);
        response_finish(&res);
        client_close(&c);
    }
    rig_stop(&r);
}

int main(void)
{
    struct rig r;
    rig_start(&r, NULL);
    rig_worker_start(&r);
    whole(&r);
    logprobs(&r);
    streams(&r);
    text_stream(&r);
    parts_of_a_chat(&r);
    anthropic(&r);
    utf8(&r);
    errors(&r);
    faults_are_placed(&r);
    others(&r);
    bulk(&r);
    rig_stop(&r);
    keys_and_origins();
    return 0;
}
