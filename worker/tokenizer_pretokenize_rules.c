/* The table of pre-tokenizers: the patterns are those that the models' authors published in
 * tokenizer.json (or in their tokenizer's Python source), under the names that GGUF files carry.
 *
 * They are written here so that matching never backtracks far: a repeat that cannot usefully give
 * back is possessive, and "\s*[\r\n]+" is spelled out. Each is tested to split as its published
 * form does. White space is listed because engines disagree about \s beyond ASCII. */
#include "worker/tokenizer_kind.h"

/* Inside brackets: white space but line ends; line ends; white space (Unicode's White_Space). */
#define BLANK                                                                                      \
    "\\t\\x{b}\\f "                                                                                \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define LINE "\\r\\n"
#define SPACE BLANK LINE

/* Alternatives that most patterns share. */
#define CONTRACTION "'(?:[stmd]|re|ve|ll)"
#define ANY_CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define LINES "(?:[" BLANK "]*+[" LINE "]++)++"             /* \s*[\r\n]+ */
#define SPACES "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]++" /* \s+(?!\S)|\s+ */
#define WORD "[^" LINE "\\p{L}\\p{N}]?+\\p{L}++"
#define MARKS " ?+[^" SPACE "\\p{L}\\p{N}]++"

#define GPT2 CONTRACTION "| ?+\\p{L}++| ?+\\p{N}++|" MARKS "|" SPACES
#define LLAMA3_WITH(numbers, marks)                                                                \
    ANY_CONTRACTION "|" WORD "|" numbers "|" marks "|" LINES "|" SPACES
#define LLAMA3 LLAMA3_WITH("\\p{N}{1,3}+", MARKS "[" LINE "]*+")
#define QWEN2 LLAMA3_WITH("\\p{N}", MARKS "[" LINE "]*+")

/* Words of o200k: [UTMO]*[LMO]+ or [UTMO]+[LMO]*, where U, T, L are upper, title and lower case and
 * MO letters of no case and marks. Said without giving back: stretches that end in MO, then perhaps
 * one that goes on in lower case; failing that, capitals alone. */
#define CAPS "[\\p{Lu}\\p{Lt}]"
#define CASED_WORD(mo, small)                                                                      \
    "(?:(?:" CAPS "*+" mo "++)++(?:" CAPS "*+\\p{Ll}" small "*+)?+|" CAPS "*+\\p{Ll}" small "*+)"
#define CASED_WORDS(mo, small, ending)                                                             \
    "[^" LINE "\\p{L}\\p{N}]?" CASED_WORD(mo, small) ending "|[^" LINE "\\p{L}\\p{N}]?" CAPS       \
                                                            "++" ending
#define MO "[\\p{Lm}\\p{Lo}\\p{M}]"
#define SMALL "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_WITH(ending, numbers)                                                                \
    CASED_WORDS(MO, SMALL, ending)                                                                 \
    "|" numbers "|" MARKS "[" LINE "/]*+|" LINES "|" SPACES
#define O200K O200K_WITH("(?:" ANY_CONTRACTION ")?+", "\\p{N}{1,3}+")

/* Kimi keeps Han out of words. */
#define HAN "\\p{sc:Han}"
#define NOT_HAN_MO "(?:(?!" HAN ")[\\p{Lm}\\p{Lo}\\p{M}])"
#define NOT_HAN_SMALL "(?:(?!" HAN ")[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}])"

#define DEEPSEEK3                                                                                  \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]++"                                       \
    "|[^" LINE "\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]++"                                              \
    "| ?+[\\p{P}\\p{S}]++[" LINE "]*+|" LINES "|" SPACES

#define BLOOM " ?+[^(" SPACE "|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]++"

#define DEEPSEEK_LETTERS                                                                           \
    "[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293"               \
    "\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C"           \
    "\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5"               \
    "\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"               \
    "\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59"         \
    "\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC"          \
    "\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107"                \
    "\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"           \
    "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE"          \
    "\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E"                \
    "\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F"       \
    "\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2"         \
    "\U000118A0-\U000118DF\U0001E900-\U0001E943]"

#define THREES tokenizer_pretokenize_threes
#define THREES_AT_WORD_END tokenizer_pretokenize_threes_at_word_end

enum {
    IGNORE_MERGES = TOKENIZER_PRETOKENIZE_IGNORE_MERGES,
    ADD_BOS = TOKENIZER_PRETOKENIZE_ADD_BOS,
    RAW = TOKENIZER_PRETOKENIZE_RAW,
};

/* deepseek-llm publishes U+3000-U+3002 as punctuation; the reference ids take U+3000 as white
 * space. */
static const struct tokenizer_pretokenize_rule rules[] = {
    {"default", 0, {"[\\p{P}$+<=>^~|]++", GPT2, "\\p{N}++", "[0-9]{3}"}},
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert "
     "exaone4 mpt olmo jais trillion granite-docling jina-v1-en jina-v2-code roberta-bpe",
     0,
     {GPT2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0, {"\\p{N}", GPT2}},
    {"falcon", 0, {"[\\p{P}$+<=>^~|`]++", GPT2, "[0-9]{3}"}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     IGNORE_MERGES | ADD_BOS,
     {LLAMA3}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", 0, {LLAMA3}},
    {"jais-2",
     0,
     {ANY_CONTRACTION "|" WORD "|\\p{N}{1,3}+|" MARKS "[" LINE "]*+|" LINES "|[" SPACE
                      "]{512}(?![^" SPACE "])|[" SPACE "]{256}(?![^" SPACE "])"
                      "|[" SPACE "]{128}(?![^" SPACE "])|[" SPACE "]{64}(?![^" SPACE "])"
                      "|[" SPACE "]{32}(?![^" SPACE "])|[" SPACE "]{16}(?![^" SPACE "])"
                      "|[" SPACE "]{8}(?![^" SPACE "])|[" SPACE "]{4}(?![^" SPACE "])"
                      "|[" SPACE "]{1,2}(?![^" SPACE "])|[" SPACE "]"}},
    {"minicpm5", IGNORE_MERGES, {"\\p{N}{1,3}+", LLAMA3_WITH("\\p{N}++", MARKS "[" LINE "]*+")}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", 0, {QWEN2}},
    {"laguna", 0, {"[^\\n]++|\\n++", QWEN2}},
    {"qwen35",
     0,
     {ANY_CONTRACTION "|[^" LINE "\\p{L}\\p{N}]?[\\p{L}\\p{M}]++|\\p{N}"
                      "| ?+[^" SPACE "\\p{L}\\p{M}\\p{N}]++[" LINE "]*+|" LINES "|" SPACES}},
    {"bailingmoe bailingmoe2 llada-moe", 0, {QWEN2}},
    {"seed-coder", 0, {LLAMA3_WITH("\\p{N}", " ?+[^" SPACE "\\p{L}\\p{N}]++")}},
    {"exaone-moe",
     0,
     {ANY_CONTRACTION
      "|[^" LINE "\\p{L}\\p{N}]?+(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}|" MARKS "[" LINE
      "/]?+|" LINES "|" SPACES}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", 0, {O200K}},
    {"granite-embed-multi-97m", IGNORE_MERGES, {O200K}},
    {"tekken", IGNORE_MERGES | ADD_BOS, {O200K_WITH("", "\\p{N}")}},
    {"tiny_aya cohere2moe", 0, {THREES_AT_WORD_END, O200K}},
    {"youtu",
     IGNORE_MERGES,
     {"[\uAC00-\uD7A3\u3131-\u318E]++"
      "|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]++"
      "|[\u3105-\u312F]++|[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]++",
      O200K_WITH("(?:" ANY_CONTRACTION ")?+", "\\p{N}")}},
    {"kimi-k2",
     0,
     {HAN "++|" CASED_WORDS(NOT_HAN_MO, NOT_HAN_SMALL,
                            "(?:" ANY_CONTRACTION ")?+") "|\\p{N}{1,3}+|" MARKS "[" LINE
                                                         "]*+|" LINES "|" SPACES}},
    {"deepseek-llm",
     0,
     {"[" LINE "]", "[" SPACE "]?+" DEEPSEEK_LETTERS "++",
      "[" SPACE "]?+[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3001\u3002]++",
      "(?<![" SPACE "])[" SPACE "]++$", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]++", "\\p{N}++"}},
    {"deepseek-coder",
     0,
     {"[" LINE "]", "[" SPACE "]?+\\p{L}++", "[" SPACE "]?+\\p{P}++",
      "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]++", "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     0,
     {"\\p{N}{1,3}+", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]++", DEEPSEEK3}},
    {"afmoe",
     0,
     {THREES,
      "[\u4E00-\u9FFF\u3400-\u4DBF\uF900-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F\u2F00-\u2FDF"
      "\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF\uAC00-\uD7AF"
      "\u1100-\u11FF]++",
      DEEPSEEK3}},
    {"poro-chat bloom gpt3-finnish", 0, {BLOOM}},
    {"viking", 0, {BLOOM, "\\p{N}"}},
    {"chameleon",
     ADD_BOS,
     {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
      "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {"superbpe", 0, {"\\p{N}++", THREES}},
    {"gemma4 granite-embed-multi-311m", RAW | ADD_BOS, {"[^\\n]++|\\n++"}},
    {"sarvam-moe", RAW, {"[^\\n]++|\\n++"}},
};

const struct tokenizer_pretokenize_rule *tokenizer_pretokenize_find(const char *name, size_t n)
{
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        if (tokenizer_kind_is_named(rules[i].names, name, n)) {
            return &rules[i];
        }
    }
    return NULL;
}
