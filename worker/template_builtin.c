/* The built-in chat templates. Formats are those the model makers publish; special tokens are
 * literal. A loop that begins with SYSTEM_FIRST puts a system message before the first user's. */
#include "worker/template_builtin.h"

#include <string.h>

/* `system`: the text of a first system message, or ""; `talk`: the messages behind it. */
#define SYSTEM_FIRST                                                                               \
    "{%- set system = messages[0].content | trim if messages and messages[0].role == 'system' -%}" \
    "{%- set talk = messages[1:] if system is defined and messages and messages[0].role == "       \
    "'system' else messages -%}"
#define CHATML_LOOP                                                                                \
    "{%- for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}"  \
    "{% endfor -%}"                                                                                \
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}"

static const struct {
    const char *name, *source;
} builtins[] = {
    {"chatml", CHATML_LOOP},
    {"llama2", SYSTEM_FIRST
     "{%- for m in talk -%}"
     "{%- if m.role == 'user' -%}"
     "{{ bos_token ~ '[INST] ' ~ ('<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' if loop.first and "
     "system) ~ m.content | trim ~ ' [/INST]' }}"
     "{%- else -%}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{%- endif -%}"
     "{%- endfor -%}"},
    {"llama3",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' ~ m.content | trim ~ "
     "'<|eot_id|>' }}"
     "{%- endfor -%}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' if add_generation_prompt }}"},
    {"llama4",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{{ '<|header_start|>' ~ m.role ~ '<|header_end|>\\n\\n' ~ m.content | trim ~ '<|eot|>' }}"
     "{%- endfor -%}"
     "{{ '<|header_start|>assistant<|header_end|>\\n\\n' if add_generation_prompt }}"},
    {"mistral-v1", SYSTEM_FIRST
     "{{- bos_token -}}"
     "{%- for m in talk -%}"
     "{%- if m.role == 'user' -%}"
     "{{ ' [INST] ' ~ (system ~ '\\n\\n' if loop.first and system) ~ m.content ~ ' [/INST]' }}"
     "{%- else -%}{{ ' ' ~ m.content ~ eos_token }}{%- endif -%}"
     "{%- endfor -%}"},
    {"mistral-v3", SYSTEM_FIRST
     "{{- bos_token -}}"
     "{%- for m in talk -%}"
     "{%- if m.role == 'user' -%}"
     "{{ '[INST] ' ~ (system ~ '\\n\\n' if loop.last and system) ~ m.content ~ '[/INST]' }}"
     "{%- else -%}{{ ' ' ~ m.content ~ eos_token }}{%- endif -%}"
     "{%- endfor -%}"},
    {"mistral-v7",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{%- if m.role == 'user' -%}{{ '[INST] ' ~ m.content ~ '[/INST]' }}"
     "{%- elif m.role == 'system' -%}{{ '[SYSTEM_PROMPT] ' ~ m.content ~ '[/SYSTEM_PROMPT]' }}"
     "{%- else -%}{{ ' ' ~ m.content ~ eos_token }}{%- endif -%}"
     "{%- endfor -%}"},
    {"mistral-v7-tekken",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{%- if m.role == 'user' -%}{{ '[INST]' ~ m.content ~ '[/INST]' }}"
     "{%- elif m.role == 'system' -%}{{ '[SYSTEM_PROMPT]' ~ m.content ~ '[/SYSTEM_PROMPT]' }}"
     "{%- else -%}{{ m.content ~ eos_token }}{%- endif -%}"
     "{%- endfor -%}"},
    {"gemma", SYSTEM_FIRST
     "{{- bos_token -}}"
     "{%- for m in talk -%}"
     "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ (system ~ "
     "'\\n\\n' if loop.first and system) ~ m.content | trim ~ '<end_of_turn>\\n' }}"
     "{%- endfor -%}"
     "{{ '<start_of_turn>model\\n' if add_generation_prompt }}"},
    {"phi3",
     "{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '<|end|>\\n' }}{% endfor -%}"
     "{{ '<|assistant|>\\n' if add_generation_prompt }}"},
    {"phi4", "{%- for m in messages -%}"
             "{{ '<|im_start|>' ~ m.role ~ '<|im_sep|>' ~ m.content ~ '<|im_end|>' }}"
             "{%- endfor -%}"
             "{{ '<|im_start|>assistant<|im_sep|>' if add_generation_prompt }}"},
    {"zephyr",
     "{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ eos_token ~ '\\n' }}"
     "{% endfor -%}"
     "{{ '<|assistant|>\\n' if add_generation_prompt }}"},
    {"deepseek2", "{{- bos_token -}}"
                  "{%- for m in messages -%}"
                  "{%- if m.role == 'user' -%}{{ 'User: ' ~ m.content ~ '\\n\\n' }}"
                  "{%- elif m.role == 'system' -%}{{ m.content ~ '\\n\\n' }}"
                  "{%- else -%}{{ 'Assistant: ' ~ m.content ~ eos_token }}{%- endif -%}"
                  "{%- endfor -%}"
                  "{{ 'Assistant:' if add_generation_prompt }}"},
    {"deepseek3",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{%- if m.role == 'user' -%}{{ '<｜User｜>' ~ m.content }}"
     "{%- elif m.role == 'system' -%}{{ m.content ~ '\\n\\n' }}"
     "{%- else -%}{{ '<｜Assistant｜>' ~ m.content ~ '<｜end▁of▁sentence｜>' }}{%- endif -%}"
     "{%- endfor -%}"
     "{{ '<｜Assistant｜>' if add_generation_prompt }}"},
    {"vicuna", "{%- for m in messages -%}"
               "{%- if m.role == 'user' -%}{{ 'USER: ' ~ m.content ~ '\\n' }}"
               "{%- elif m.role == 'system' -%}{{ m.content ~ '\\n\\n' }}"
               "{%- else -%}{{ 'ASSISTANT: ' ~ m.content ~ eos_token ~ '\\n' }}{%- endif -%}"
               "{%- endfor -%}"
               "{{ 'ASSISTANT:' if add_generation_prompt }}"},
    {"alpaca",
     "{%- for m in messages -%}"
     "{{ {'user': '### Instruction:\\n', 'assistant': '### Response:\\n'}.get(m.role, '') ~ "
     "m.content ~ '\\n\\n' }}"
     "{%- endfor -%}"
     "{{ '### Response:\\n' if add_generation_prompt }}"},
    {"command-r", "{{- bos_token -}}"
                  "{%- set who = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} -%}"
                  "{%- for m in messages -%}"
                  "{{ '<|START_OF_TURN_TOKEN|><|' ~ who[m.role] ~ '_TOKEN|>' ~ m.content | trim ~ "
                  "'<|END_OF_TURN_TOKEN|>' }}"
                  "{%- endfor -%}"
                  "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' if add_generation_prompt }}"},
    {"granite",
     "{%- for m in messages -%}"
     "{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ m.content ~ '<|end_of_text|>\\n' }}"
     "{%- endfor -%}"
     "{{ '<|start_of_role|>assistant<|end_of_role|>' if add_generation_prompt }}"},
    {"falcon3",
     "{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '\\n' }}{% endfor -%}"
     "{{ '<|assistant|>\\n' if add_generation_prompt }}"},
    {"chatglm4", "[gMASK]<sop>"
                 "{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content }}{% endfor -%}"
                 "{{ '<|assistant|>\\n' if add_generation_prompt }}"},
    {"openchat",
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{{ (m.content if m.role == 'system' else 'GPT4 Correct ' ~ m.role | title ~ ': ' ~ "
     "m.content) ~ '<|end_of_turn|>' }}"
     "{%- endfor -%}"
     "{{ 'GPT4 Correct Assistant:' if add_generation_prompt }}"},
    {"exaone3", "{%- for m in messages -%}"
                "{{ '[|' ~ m.role ~ '|]' ~ m.content | trim ~ ('\\n' if m.role == 'user' else "
                "'[|endofturn|]\\n') }}"
                "{%- endfor -%}"
                "{{ '[|assistant|]' if add_generation_prompt }}"},
    {"minicpm",
     "{%- for m in messages -%}"
     "{{ '<用户>' ~ m.content | trim ~ '<AI>' if m.role == 'user' else m.content | trim }}"
     "{%- endfor -%}"},
    {"rwkv-world",
     "{%- for m in messages -%}"
     "{{ ('' if m.role == 'system' else m.role | title ~ ': ') ~ m.content | trim ~ '\\n\\n' }}"
     "{%- endfor -%}"
     "{{ 'Assistant:' if add_generation_prompt }}"},
};

const char *template_builtin_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(builtins); i++) {
        if (strcmp(builtins[i].name, name) == 0) {
            return builtins[i].source;
        }
    }
    return NULL;
}

const char *template_builtin_name(size_t i)
{
    return i < COUNT_OF(builtins) ? builtins[i].name : NULL;
}
