/* What is shown of an answer, for every way of cutting it into tokens, against the definition
 * applied to the whole text. */
#include "worker/detokenizer.h"
#include "shared/utf8.h"
#include "tests/test.h"
#include "tests/worker/fake_tokenizer.h"

struct expected {
    char shown[4096];
    size_t n;
    int stop; /* -1: none */
};

/* The definition, on the bytes of a whole answer. is_over: nothing more comes. */
static void define(const char *bytes, size_t n, const char *const *stops, int n_stops, bool is_over,
                   struct expected *ret)
{
    static char text[3 * 4096];
    size_t whole = is_over ? n : utf8_complete_prefix(bytes, n);
    size_t len = utf8_repair(bytes, whole, text);
    ret->stop = -1;
    ret->n = len;
    for (size_t end = 1; end <= len && ret->stop < 0; end++) {
        for (int i = 0; i < n_stops; i++) {
            size_t sl = strlen(stops[i]);
            if (sl <= end && memcmp(text + end - sl, stops[i], sl) == 0 &&
                (ret->stop < 0 || sl > strlen(stops[ret->stop]))) {
                ret->stop = i;
            }
        }
        ret->n = ret->stop >= 0 ? end - strlen(stops[ret->stop]) : len;
    }
    if (ret->stop < 0 && !is_over) { /* hold back the longest possible beginning of a stop */
        for (size_t from = 0; from < len; from++) {
            for (int i = 0; i < n_stops; i++) {
                if (len - from < strlen(stops[i]) && ret->n > from &&
                    memcmp(text + from, stops[i], len - from) == 0) {
                    ret->n = from;
                }
            }
        }
    }
    memcpy(ret->shown, text, ret->n);
    ret->shown[ret->n] = 0;
}

/* cut: bit i set = a token ends after byte i. */
static void check_cut(const char *bytes, size_t n, uint64_t cut, const char *const *stops,
                      int n_stops)
{
    struct detokenizer_stop list[LIMIT_STOPS];
    for (int i = 0; i < n_stops; i++) {
        list[i] = (struct detokenizer_stop){stops[i], strlen(stops[i])};
    }
    struct detokenizer *d;
    struct buf shown;
    static struct expected want;
    buf_init(&shown, 0);
    fake_tokenizer_reset();
    CHECK_INT(detokenizer_create(fake_tokenizer(), list, (size_t)n_stops, false, false, &d), 0);
    size_t from = 0;
    int stop = -1, r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        if (i + 1 == n || (cut >> i & 1)) {
            int32_t id = fake_tokenizer_name(bytes + from, i + 1 - from);
            r = detokenizer_add(d, id, &shown, &stop);
            CHECK(r >= 0);
            from = i + 1;
            define(bytes, from, stops, n_stops, false, &want);
            CHECK_INT(r, want.stop >= 0);
            CHECK_INT(stop, want.stop);
            CHECK_STR(shown.data ? shown.data : "", want.shown);
        }
    }
    if (r == 0) {
        detokenizer_end(d, &shown);
    }
    define(bytes, from, stops, n_stops, true, &want);
    if (want.stop < 0 ||
        r) { /* (a stop that only the repair of the last bytes completes is none) */
        CHECK_STR(shown.data ? shown.data : "", want.shown);
    }
    CHECK(utf8_is_valid(shown.data ? shown.data : "", shown.len));
    buf_finish(&shown);
    detokenizer_destroy(&d);
}

static void every_cut(const char *bytes, const char *const *stops, int n_stops)
{
    size_t n = strlen(bytes);
    CHECK(n >= 1 && n <= 14);
    for (uint64_t cut = 0; cut < (1u << (n - 1)); cut++) {
        check_cut(bytes, n, cut, stops, n_stops);
    }
}

static void stops_are_found_over_token_borders(void)
{
    static const char *const end[] = {"END"};
    every_cut("abENDcd", end, 1);
    every_cut("abENEND", end, 1);
    every_cut("abEN", end, 1);
    every_cut("END", end, 1);
    static const char *const nested[] = {"abcd", "bc", "c"};
    every_cut("xabcdx", nested, 1);
    every_cut("xabcdx", nested, 2);
    every_cut("xabcdx", nested, 3);
    every_cut("xabxabcd", nested, 1);
    static const char *const periodic[] = {"aab", "aaab"};
    every_cut("aaaaaaabx", periodic, 1);
    every_cut("aaaaaaabx", periodic, 2);
    every_cut("aaxaab", periodic, 2);
    static const char *const four[] = {"\n\n", "###", "User:", "</s>"};
    every_cut("a\n##User\n:##", four, 4);
    every_cut("Use#</sUser:", four, 4);
}

static void characters_stay_whole(void)
{
    static const char *const none[] = {"zzz"};
    every_cut("\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9z", none, 0); /* euro, emoji, e acute */
    every_cut("\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9zz", none, 1);
    every_cut("a\xff\xe2\x82z\xf0\x9f\x98\x80\xf0\x9f", none,
              0); /* cut short in the middle and at the end */
    every_cut("\xe2\x28\xa1\xed\xa0\x80\x80\xc0\xaf", none, 1); /* broken, surrogate, overlong */
    every_cut("\xf4\x90\x80\x80\xf0\x9f\x98\xe2\x82", none, 1);
    static const char *const wide[] = {"\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    every_cut("\xe2\x82\xe2\x82\xac.", wide, 2);
    every_cut("ab\xf0\x9f\x98\xf0\x9f\x98\x80", wide, 2);
}

static void random_texts(void)
{
    static const char *const stops[] = {"ab", "ba\xc3", "\xc3\xa9\xc3\xa9", "aaaa"};
    static const char alphabet[] = "aab\xc3\xc3\xa9\xe2\x82";
    uint64_t rng = 17;
    for (int i = 0; i < 20000; i++) {
        char text[24];
        size_t n = 1 + test_random(&rng) % (sizeof(text) - 1);
        for (size_t k = 0; k < n; k++) {
            text[k] = alphabet[test_random(&rng) % (sizeof(alphabet) - 1)];
        }
        check_cut(text, n, test_random(&rng), stops, (int)(test_random(&rng) % 5));
    }
}

static void control_tokens_are_hidden_unless_asked_for(void)
{
    for (int show = 0; show < 2; show++) {
        struct detokenizer *d;
        struct buf text;
        int stop;
        buf_init(&text, 0);
        CHECK_INT(detokenizer_create(fake_tokenizer(), NULL, 0, true, show, &d), 0);
        CHECK_INT(detokenizer_add(d, FAKE_BOS, &text, &stop), 0);
        CHECK_INT(detokenizer_add(d, FAKE_BYTE + 'x', &text, &stop), 0);
        CHECK_STR(text.data, show ? "<s>x" : "x");
        buf_finish(&text);
        detokenizer_destroy(&d);
    }
}

static void huge_pieces_are_refused_and_no_vocabulary_gives_no_text(void)
{
    static char big[DETOKENIZER_PIECE_BYTES + 1];
    struct detokenizer *d;
    struct buf text;
    int stop;
    buf_init(&text, 0);
    fake_tokenizer_reset();
    memset(big, '\xff', sizeof(big));
    CHECK_INT(detokenizer_create(fake_tokenizer(), NULL, 0, false, false, &d), 0);
    int32_t fits = fake_tokenizer_name(big, sizeof(big) - 1);
    int32_t too_long = fake_tokenizer_name(big, sizeof(big));
    CHECK_INT(detokenizer_add(d, fits, &text, &stop), 0);
    CHECK_INT(text.len, 3 * DETOKENIZER_PIECE_BYTES);
    CHECK_INT(detokenizer_add(d, too_long, &text, &stop), ERR_MODEL_TOKENIZER);
    detokenizer_destroy(&d);
    buf_clear(&text);
    CHECK_INT(detokenizer_create(NULL, NULL, 0, false, false, &d), 0);
    CHECK_INT(detokenizer_add(d, 5, &text, &stop), 0);
    detokenizer_end(d, &text);
    CHECK_INT(text.len, 0);
    detokenizer_destroy(&d);
    buf_finish(&text);
}

int main(void)
{
    stops_are_found_over_token_borders();
    characters_stay_whole();
    random_texts();
    control_tokens_are_hidden_unless_asked_for();
    huge_pieces_are_refused_and_no_vocabulary_gives_no_text();
    return 0;
}
