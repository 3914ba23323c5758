/* The table of pre-tokenizers: every rule splits random text as the published patterns do (matched
 * naively, with all their backtracking), keeps every byte, and takes linear time. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "worker/tokenizer_pretokenize.h"

#include "tests/test.h"

#include <pcre2.h>
#include <time.h>

/* As published in tokenizer.json files; (?i:'s|'t|...) is spelled out as it is there for ASCII. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3                                                                                     \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define QWEN2                                                                                      \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define WORDS(upper, lower, end)                                                                   \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" end "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower     \
    "*" end
#define O200K                                                                                      \
    WORDS(UPPER, LOWER, CONTRACTIONS "?")                                                          \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL
#define NO_HAN(class) "(?:(?!\\p{sc:Han})" class ")"
#define DEEPSEEK3                                                                                  \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"           \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" TAIL
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"
/* "\d{1,3}(?=(?:\d{3})*\b)" with \d and \b as Unicode defines them. */
#define WORD_CHAR "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]"
#define THREES_AT_WORD_END "\\p{Nd}{1,3}(?=(?:\\p{Nd}{3})*(?!" WORD_CHAR "))"
#define THREES "\\p{Nd}{1,3}(?=(?:\\p{Nd}{3})*(?!\\p{Nd}))"

static const struct {
    const char *names;
    const char *steps[TOKENIZER_PRETOKENIZE_MAX_STEPS];
} published[] = {
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 mpt olmo jais phi-2 trillion roberta-bpe exaone4", {GPT2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b", {"\\p{N}", GPT2}},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"llama-bpe llama3 llama-v3 lfm2 dbrx smaug-bpe glm4 chatglm-bpe falcon3 pixtral", {LLAMA3}},
    {"jais-2",
     {CONTRACTIONS
      "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
      "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)"
      "|"
      "\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {"minicpm5",
     {"\\p{N}{1,3}",
      CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL}},
    {"qwen2 stablelm2 hunyuan deepseek-r1-qwen megrez solar-open grok-2", {QWEN2}},
    {"laguna", {"[^\\n]+|[\\n]+", QWEN2}},
    {"qwen35",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+"
                   "[\\r\\n]*" TAIL}},
    {"bailingmoe llada-moe",
     {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"seed-coder",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" TAIL}},
    {"exaone-moe",
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| "
                   "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"gpt-4o llama4 minimax-m2 kanana2", {O200K}},
    {"tekken", {WORDS(UPPER, LOWER, "") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL}},
    {"tiny_aya cohere2moe", {THREES_AT_WORD_END, O200K}},
    {"youtu",
     {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]"
      "+",
      WORDS(UPPER, LOWER, CONTRACTIONS "?") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL}},
    {"kimi-k2",
     {"\\p{sc:Han}+|" WORDS(NO_HAN(UPPER), NO_HAN(LOWER),
                            CONTRACTIONS "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL}},
    /* U+3000 is punctuation in the published form; the reference ids have it as white space. */
    {"deepseek-llm",
     {"[\\r\\n]",
      "\\s?[A-Za-z"
      "\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"
      "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"
      "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}"
      "\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"
      "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"
      "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"
      "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"
      "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"
      "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"
      "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"
      "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}"
      "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"
      "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}"
      "\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"
      "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"
      "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"
      "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"
      "\\x{1E900}-\\x{1E943}"
      "]+",
      "\\s?[!-/:-~！-／：-～‘-‟、。]+", "\\s+$", "[一-龥ࠀ-一가-퟿]+", "\\p{N}+"}},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3}},
    {"afmoe",
     {THREES,
      "[一-鿿㐀-䶿\\x{F900}-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]"
      "+",
      DEEPSEEK3}},
    {"poro-chat bloom gpt3-finnish", {BLOOM}},
    {"viking", {BLOOM, "\\p{N}"}},
    {"chameleon",
     {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
      "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {"superbpe", {"\\p{N}+", THREES}},
    {"gemma4 sarvam-moe granite-embed-multi-311m", {"[^\\n]+|[\\n]+"}},
};

/* Characters of all the classes that the patterns tell apart, a class a row. */
static const char *const alphabet[] = {
    "a",          "b",          "s",        "t",      "re",
    "ve",         "ll",         "d",        "'s",     "'LL",
    "'",          "A",          "Z",        "IMGIMG", "<sentinel:12>",
    "\u01C5",     "\u02B0",     "\u00AA",   " ",      "  ",
    "    ",       "        ",   "\t",       "\n",     "\r",
    "\r\n",       "\v",         "\xC2\x85", "\u00A0", "\u3000",
    "\u2028",     "\u1680",     "1",        "12",     "123",
    "4567",       "\u0663",     "\u00B2",   "\u00BD", "\u2163",
    "\u3007",     "!",          ".",        ",",      "/",
    "(",          ")",          "-",        "_",      "$",
    "+",          "<",          "=",        ">",      "^",
    "~",          "|",          "`",        "@",      "#",
    "\u2026",     "\u3002",     "\uFF0C",   "\u3001", "\u0964",
    "\u201C",     "\u00E9",     "\u00C9",   "\u03B1", "\u03A9",
    "\u0416",     "\u0436",     "\u05D0",   "\u4E2D", "\u6587",
    "\u3042",     "\u30AB",     "\uC7A5",   "\u3005", "\u0939",
    "\u093F",     "\u0301",     "\u20DD",   "\u0E44", "\u0E17",
    "\U0001F600", "\U0001F1E9", "\u200D",   "\u20AC", "\x07",
    "\u00AD",
};

struct splits {
    uint32_t end[4096];
    size_t n;
};

static pcre2_code *compile(const char *pattern)
{
    int error;
    size_t at;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &at, NULL);
    if (!code) {
        TEST_FAIL("%s: error %d at %zu", pattern, error, at);
    }
    return code;
}

static void naive_step(const pcre2_code *code, const char *text, const struct splits *in,
                       struct splits *out)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    size_t from = 0;
    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        size_t n = in->end[i] - from, pos = 0;
        while (pos < n &&
               pcre2_match(code, (PCRE2_SPTR)(text + from), n, pos, 0, match, NULL) > 0) {
            const size_t *range = pcre2_get_ovector_pointer(match);
            CHECK(range[1] > range[0]);
            if (range[0] > pos) {
                out->end[out->n++] = (uint32_t)(from + range[0]);
            }
            out->end[out->n++] = (uint32_t)(from + range[1]);
            pos = range[1];
        }
        if (pos < n) {
            out->end[out->n++] = (uint32_t)(from + n);
        }
        from = in->end[i];
    }
    pcre2_match_data_free(match);
}

static struct tokenizer_pretokenize *make(const char *name, size_t n)
{
    const struct tokenizer_pretokenize_rule *rule = tokenizer_pretokenize_find(name, n);
    struct tokenizer_pretokenize *p;
    if (!rule) {
        TEST_FAIL("no rule %.*s", (int)n, name);
    }
    CHECK_INT(tokenizer_pretokenize_create(rule, &p), 0);
    return p;
}

static void rules_split_as_published(void)
{
    uint64_t seed = 7;
    struct tokenizer_pieces pieces = {0};
    for (size_t r = 0; r < COUNT_OF(published); r++) {
        pcre2_code *code[TOKENIZER_PRETOKENIZE_MAX_STEPS];
        size_t n_code = 0;
        while (n_code < COUNT_OF(code) && published[r].steps[n_code]) {
            code[n_code] = compile(published[r].steps[n_code]);
            n_code++;
        }
        for (const char *name = published[r].names; *name;) {
            size_t len = strcspn(name, " ");
            struct tokenizer_pretokenize *p = make(name, len);
            for (int k = 0; k < 150; k++) {
                char text[1024] = "";
                for (size_t i = 1 + test_random(&seed) % 40; i > 0; i--) {
                    /* Runs of one class are as likely as its changes. */
                    const char *c = alphabet[test_random(&seed) % COUNT_OF(alphabet)];
                    for (size_t times = 1 + test_random(&seed) % 3; times > 0; times--) {
                        strcat(text, c);
                    }
                }
                static struct splits want, in;
                want = (struct splits){.end = {(uint32_t)strlen(text)}, .n = 1};
                for (size_t s = 0; s < n_code; s++) {
                    in = want;
                    naive_step(code[s], text, &in, &want);
                }
                CHECK_INT(tokenizer_pretokenize_split(p, text, strlen(text), &pieces), 0);
                for (size_t i = 0; i < MAX(want.n, pieces.n); i++) {
                    if (i >= want.n || i >= pieces.n || want.end[i] != pieces.end[i]) {
                        uint32_t from = i ? want.end[i - 1] : 0;
                        TEST_FAIL("%.*s: \"%s\": piece %zu is \"%.*s\", expected \"%.*s\"",
                                  (int)len, name, text, i,
                                  i < pieces.n ? (int)(pieces.end[i] - from) : 0, text + from,
                                  i < want.n ? (int)(want.end[i] - from) : 0, text + from);
                    }
                }
            }
            tokenizer_pretokenize_destroy(&p);
            name += len + (name[len] == ' ');
        }
        while (n_code > 0) {
            pcre2_code_free(code[--n_code]);
        }
    }
    tokenizer_pieces_finish(&pieces);
}

static void broken_text_is_kept_whole(void)
{
    uint64_t seed = 8;
    struct tokenizer_pieces pieces = {0};
    struct tokenizer_pretokenize *p = make("llama-bpe", 9);
    static const uint32_t want[] = {5, 7, 9, 10};
    CHECK_INT(tokenizer_pretokenize_split(p, "hello\xE4\xB8 a\xFF", 10, &pieces), 0);
    CHECK_INT(pieces.n, 4);
    CHECK(memcmp(pieces.end, want, sizeof(want)) == 0);
    CHECK_INT(tokenizer_pretokenize_split(p, "", 0, &pieces), 0);
    CHECK_INT(pieces.n, 0);
    tokenizer_pretokenize_destroy(&p);
    for (size_t r = 0; r < COUNT_OF(published); r++) {
        p = make(published[r].names, strcspn(published[r].names, " "));
        for (int k = 0; k < 200; k++) {
            char text[64];
            size_t n = test_random(&seed) % sizeof(text);
            for (size_t i = 0; i < n; i++) {
                text[i] = (char)test_random(&seed);
            }
            CHECK_INT(tokenizer_pretokenize_split(p, text, n, &pieces), 0);
            uint32_t last = 0;
            for (size_t i = 0; i < pieces.n; i++) {
                CHECK(pieces.end[i] > last);
                last = pieces.end[i];
            }
            CHECK_INT(last, n);
        }
        tokenizer_pretokenize_destroy(&p);
    }
    tokenizer_pieces_finish(&pieces);
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* 100 KB of one thing, alone and with something else behind it. */
static void time_is_linear(void)
{
    static const char *const endings[] = {"", "x", "\n", "1", "\u4E2D"};
    enum { BYTES = 100 * 1000 };
    double limit_ms = 50;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
    limit_ms *= 20;
#endif
    char *text = malloc(BYTES + 8);
    CHECK(text);
    struct tokenizer_pieces pieces = {0};
    double worst = 0;
    for (size_t r = 0; r < COUNT_OF(published); r++) {
        struct tokenizer_pretokenize *p =
            make(published[r].names, strcspn(published[r].names, " "));
        for (size_t a = 0; a < COUNT_OF(alphabet); a++) {
            size_t len = strlen(alphabet[a]), n = 0;
            while (n + len <= BYTES) {
                memcpy(text + n, alphabet[a], len);
                n += len;
            }
            const char *ending = endings[a % COUNT_OF(endings)];
            memcpy(text + n, ending, strlen(ending));
            double began = cpu_ms();
            CHECK_INT(tokenizer_pretokenize_split(p, text, n + strlen(ending), &pieces), 0);
            double took = cpu_ms() - began;
            worst = MAX(worst, took);
            if (took > limit_ms) {
                TEST_FAIL("%s: 100 KB of \"%s\" and \"%s\" take %.0f ms", published[r].names,
                          alphabet[a], ending, took);
            }
        }
        tokenizer_pretokenize_destroy(&p);
    }
    printf("worst time of 100 KB: %.1f ms\n", worst);
    tokenizer_pieces_finish(&pieces);
    free(text);
}

int main(void)
{
    CHECK(!tokenizer_pretokenize_find("no-such", 7) && !tokenizer_pretokenize_find("", 0));
    CHECK(!tokenizer_pretokenize_find("llama", 5) && !tokenizer_pretokenize_find("mpt olmo", 8));
    rules_split_as_published();
    broken_text_is_kept_whole();
    time_is_linear();
    return 0;
}
