/* The built-in templates against the formats as their makers document them, and what a request's
 * fields become for a template. */
#include "shared/json.h"
#include "tests/test.h"
#include "worker/template_builtin.h"
#include "worker/template_chat.h"

static json_t *parse(const char *text)
{
    json_t *v = NULL;
    struct err e = {0};
    if (json_parse(text, strlen(text), &v, &e) < 0) {
        TEST_FAIL("%s", e.detail);
    }
    return v;
}

static void check(const char *source, const char *messages, const char *args, const char *expected)
{
    struct template *t = NULL;
    struct err e = {0};
    struct buf out;
    json_t *m = parse(messages), *a = args ? parse(args) : NULL;
    buf_init(&out, 0);
    if (template_create(source, strlen(source), &t, &e) < 0 ||
        template_chat_render(t, m, a, "<s>", "</s>", 0, &out, &e) < 0) {
        TEST_FAIL("%s: %s", source, e.detail);
    }
    CHECK_STR(out.data ? out.data : "", expected);
    buf_finish(&out);
    template_destroy(&t);
    json_decref(m);
    json_decref(a);
}

#define TALK                                                                                       \
    "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"U\"},"       \
    " {\"role\": \"assistant\", \"content\": \"A\"}, {\"role\": \"user\", \"content\": \"V\"}]"

static const struct {
    const char *name, *expected;
} formats[] = {
    {"chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
               "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n"
               "<|im_start|>assistant\n"},
    {"llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"},
    {"llama3", "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
               "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
               "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"llama4", "<s><|header_start|>system<|header_end|>\n\nS<|eot|>"
               "<|header_start|>user<|header_end|>\n\nU<|eot|>"
               "<|header_start|>assistant<|header_end|>\n\nA<|eot|>"
               "<|header_start|>user<|header_end|>\n\nV<|eot|>"
               "<|header_start|>assistant<|header_end|>\n\n"},
    {"mistral-v1", "<s> [INST] S\n\nU [/INST] A</s> [INST] V [/INST]"},
    {"mistral-v3", "<s>[INST] U[/INST] A</s>[INST] S\n\nV[/INST]"},
    {"mistral-v7", "<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST] A</s>[INST] V[/INST]"},
    {"mistral-v7-tekken", "<s>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]"},
    {"gemma", "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
              "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n"},
    {"phi3",
     "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n"
     "<|assistant|>\n"},
    {"phi4", "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
             "<|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>V<|im_end|>"
             "<|im_start|>assistant<|im_sep|>"},
    {"zephyr", "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n"
               "<|assistant|>\n"},
    {"deepseek2", "<s>S\n\nUser: U\n\nAssistant: A</s>User: V\n\nAssistant:"},
    {"deepseek3",
     "<s>S\n\n<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>V<｜Assistant｜>"},
    {"vicuna", "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"},
    {"alpaca", "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n"
               "### Response:\n"},
    {"command-r", "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
                  "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>"
                  "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|>"
                  "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|>"
                  "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"},
    {"granite", "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n"
                "<|start_of_role|>user<|end_of_role|>U<|end_of_text|>\n"
                "<|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n"
                "<|start_of_role|>user<|end_of_role|>V<|end_of_text|>\n"
                "<|start_of_role|>assistant<|end_of_role|>"},
    {"falcon3", "<|system|>\nS\n<|user|>\nU\n<|assistant|>\nA\n<|user|>\nV\n<|assistant|>\n"},
    {"chatglm4", "[gMASK]<sop><|system|>\nS<|user|>\nU<|assistant|>\nA<|user|>\nV<|assistant|>\n"},
    {"openchat", "<s>S<|end_of_turn|>GPT4 Correct User: U<|end_of_turn|>"
                 "GPT4 Correct Assistant: A<|end_of_turn|>GPT4 Correct User: V<|end_of_turn|>"
                 "GPT4 Correct Assistant:"},
    {"exaone3", "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n"
                "[|assistant|]"},
    {"minicpm", "S<用户>U<AI>A<用户>V<AI>"},
    {"rwkv-world", "S\n\nUser: U\n\nAssistant: A\n\nUser: V\n\nAssistant:"},
};

static void check_builtins(void)
{
    size_t n = 0;
    while (template_builtin_name(n)) {
        n++;
    }
    CHECK_INT(n, COUNT_OF(formats)); /* every one has its format here */
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        const char *source = template_builtin_find(formats[i].name);
        if (!source) {
            TEST_FAIL("there is no %s", formats[i].name);
        }
        check(source, TALK, NULL, formats[i].expected);
    }
    CHECK(!template_builtin_find("nosuch") && !template_builtin_find(""));
    /* Without a system message, and without any. */
    check(template_builtin_find("llama2"), "[{\"role\": \"user\", \"content\": \"U\"}]", NULL,
          "<s>[INST] U [/INST]");
    check(template_builtin_find("gemma"), "[{\"role\": \"user\", \"content\": \"U\"}]",
          "{\"add_generation_prompt\": false}", "<s><start_of_turn>user\nU<end_of_turn>\n");
    check(template_builtin_find("llama2"), "[]", NULL, "");
}

static void check_request(void)
{
    check("{{ messages[0].content }}|{{ add_generation_prompt }}|{{ tools is defined }}",
          "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"},"
          " {\"type\": \"text\", \"text\": \"b\"}]}]",
          NULL, "a\nb|True|False");
    /* Parts that are no text are the template's matter. */
    check("{{ messages[0].content | length }}",
          "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}, {\"type\": \"text\","
          " \"text\": \"b\"}]}]",
          NULL, "2");
    /* Arguments come as JSON text; what is no object stays as it is. */
    check("{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }};{% endfor %}",
          "[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": ["
          "{\"function\": {\"name\": \"f\", \"arguments\": \"{\\\"b\\\": 1, \\\"a\\\": [2]}\"}},"
          "{\"function\": {\"name\": \"f\", \"arguments\": \"{broken\"}}]}]",
          NULL, "{\"b\": 1, \"a\": [2]};\"{broken\";");
    check("{{ tools[0].x }}{{ enable_thinking }}{{ bos_token }}{{ eos_token }}"
          "{{ add_generation_prompt }}",
          "[]",
          "{\"tools\": [{\"x\": 7}], \"chat_template_kwargs\": {\"enable_thinking\": false,"
          " \"bos_token\": \"no\"}, \"add_generation_prompt\": false}",
          "7False<s></s>False");
    struct template *t = NULL;
    struct err e = {0};
    struct buf out;
    json_t *wrong = json_string("x");
    buf_init(&out, 0);
    CHECK_INT(template_create("x", 1, &t, &e), 0);
    CHECK_INT(template_chat_render(t, wrong, NULL, NULL, NULL, 0, &out, &e), ERR_BAD_FIELD);
    template_destroy(&t);
    json_decref(wrong);
    buf_finish(&out);
}

static void check_load(void)
{
    struct gguf none = {0};
    struct template *t = NULL;
    struct err e = {0};
    CHECK_INT(template_chat_load(&none, "chatml", &t, &e), 0);
    CHECK(t);
    template_destroy(&t);
    CHECK_INT(template_chat_load(&none, "tests/worker/template/families/gpt_oss.jinja", &t, &e), 0);
    CHECK(t);
    template_destroy(&t);
    CHECK_INT(template_chat_load(&none, "/nowhere/t.jinja", &t, &e), ERR_CONFIG);
    CHECK(strstr(e.detail, "/nowhere/t.jinja"));
    CHECK(!t);
}

static void check_now(void)
{
    setenv("SOURCE_DATE_EPOCH", "1234567890", 1);
    CHECK_INT(template_chat_now(), 1234567890);
    setenv("SOURCE_DATE_EPOCH", "soon", 1);
    CHECK(template_chat_now() > 1700000000);
    unsetenv("SOURCE_DATE_EPOCH");
    CHECK(template_chat_now() > 1700000000);
}

int main(void)
{
    check_builtins();
    check_request();
    check_load();
    check_now();
    return 0;
}
