/* Masks over a vocabulary, against a naive way: a token may come next exactly if an automaton of
 * its own, from the beginning, takes the text so far with the token's bytes behind it. On random
 * walks through grammars, with tokens that share beginnings, cut characters, and have no text. */
#include "tests/test.h"
#include "tests/worker/fake_tokenizer.h"
#include "worker/grammar/automaton.h"
#include "worker/grammar/grammar_budget.h"
#include "worker/grammar/constraint.h"

#include <math.h>

static const char *const grammars[] = {
    "root ::= \"{\" pair (\",\" pair)* \"}\"\npair ::= \"\\\"\" [^\\\"]{1,5} \"\\\":\" [0-9]+",
    "root ::= (\"é\" | \"è\" | \"🔥\")+ \"!\"",
    "root ::= \"(\" root \")\" | \"\"",
    "root ::= .{3}",
    "root ::= \"yes\" | \"yet\" | \"no\" | \"noes\"",
    "root ::= ([a-c]* \"ab\"?)* \"z\"",
};

static void name_tokens(void)
{
    static const char *const texts[] = {
        "ye",  "yes", "yet",  "noe",   "{\"",          "\":",      "12",       "123", "((",
        "))",  "()",  "\xc3", "\xa9!", "\xc3\xa9\xc3", "\x94\xa5", "\xf0\x9f", "ab",  "abz",
        "aab", "a",   "",     "}",     "no",           "abab"};
    static char longest[300];
    fake_tokenizer_reset();
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        fake_tokenizer_name(texts[i], strlen(texts[i]));
    }
    memset(longest, 'a', sizeof(longest)); /* left out: the mask never has it */
    fake_tokenizer_name(longest, 256);
}

static bool fits(struct automaton *a, const struct buf *text, int32_t id)
{
    struct buf all;
    buf_init(&all, 0);
    buf_add(&all, text->data, text->len);
    CHECK_INT(tokenizer_piece(fake_tokenizer(), id, false, false, &all), 0);
    uint32_t state = AUTOMATON_BEGIN;
    for (size_t i = 0; i < all.len && state != AUTOMATON_DEAD; i++) {
        state = automaton_step(a, state, (uint8_t)all.data[i]);
    }
    bool is_new = all.len > text->len && all.len - text->len <= PIECES_LONGEST;
    bool ok = id == FAKE_END ? automaton_accepts(a, state) : is_new && state != AUTOMATON_DEAD;
    buf_finish(&all);
    return ok;
}

static void walk(const char *grammar, const struct pieces *pieces, uint64_t *seed)
{
    enum { STEPS = 8 };
    struct constraint *c = NULL;
    struct grammar *g = NULL;
    struct automaton *a = NULL;
    struct constraint_place place, again;
    struct err e;
    struct buf text;
    float logits[FAKE_VOCAB];
    int32_t ids[STEPS];
    CHECK_INT(
        constraint_create(grammar, strlen(grammar), pieces, fake_tokenizer(), FAKE_VOCAB, &c, &e),
        0);
    CHECK_INT(grammar_create(grammar, strlen(grammar), &g, &e), 0);
    CHECK_INT(automaton_create(g, &a, &e), 0);
    buf_init(&text, 0);
    buf_str(&text, "");
    constraint_begin(c, &place);
    for (size_t n = 0; n < STEPS; n++) {
        const float *allowed;
        int32_t open[FAKE_VOCAB];
        size_t n_open = 0;
        for (int32_t id = 0; id < FAKE_VOCAB; id++) {
            logits[id] = (float)id;
        }
        CHECK_INT(constraint_mask(c, &place, ids, n, logits, &allowed, &e), 0);
        for (int32_t id = 0; id < FAKE_VOCAB; id++) {
            bool is_open = allowed && allowed[id] == (float)id;
            CHECK(is_open || !allowed || allowed[id] == -INFINITY);
            if (is_open != fits(a, &text, id)) {
                TEST_FAIL("%s\nbehind '%s' token %d is %s", grammar, text.data, id,
                          is_open ? "allowed" : "not allowed");
            }
            if (is_open && id != FAKE_END) {
                open[n_open++] = id;
            }
        }
        if (n_open == 0) {
            break;
        }
        ids[n] = open[test_random(seed) % n_open];
        CHECK_INT(tokenizer_piece(fake_tokenizer(), ids[n], false, false, &text), 0);
        CHECK_INT(constraint_take(c, &place, ids, n + 1, &e), 0);
        /* The same ids lead there again. */
        constraint_begin(c, &again);
        for (size_t k = 0; k <= n; k++) {
            CHECK_INT(constraint_take(c, &again, ids, k + 1, &e), 0);
        }
        CHECK(again.state == place.state && again.generation == place.generation);
    }
    ids[0] = FAKE_BYTE + 0x01;
    constraint_begin(c, &place);
    if (!strstr(grammar, "root ::= .")) {
        CHECK_INT(constraint_take(c, &place, ids, 1, &e), ERR_BAD_TOKEN);
    }
    constraint_destroy(&c);
    automaton_destroy(&a);
    grammar_destroy(&g);
    buf_finish(&text);
}

/* More states than there is room for: places are found again, and masks are as before. */
static void tables_overflow(const struct pieces *pieces)
{
    static const char grammar[] = "root ::= \"(\" root \")\" | \"\"";
    enum { DEPTH = 80000 };
    struct constraint *c = NULL;
    struct constraint_place place, other;
    struct err e;
    static int32_t ids[DEPTH];
    static float logits[FAKE_VOCAB];
    const float *allowed;
    int32_t first = FAKE_BYTE + '(';
    CHECK_INT(
        constraint_create(grammar, strlen(grammar), pieces, fake_tokenizer(), FAKE_VOCAB, &c, &e),
        0);
    constraint_begin(c, &place);
    constraint_begin(c, &other);
    CHECK_INT(constraint_take(c, &other, &first, 1, &e), 0);
    int rc = 0;
    size_t n = 0;
    while (n < DEPTH && rc == 0) {
        ids[n++] = FAKE_BYTE + '(';
        rc = constraint_take(c, &place, ids, n, &e);
    }
    CHECK(n > 10000 && (rc == 0 || rc == ERR_GRAMMAR));
    CHECK_INT(constraint_mask(c, &other, &first, 1, logits, &allowed, &e), 0);
    CHECK(allowed[FAKE_BYTE + ')'] == 0 && allowed[FAKE_END] == -INFINITY);
    constraint_destroy(&c);
}

/* What is possible in thousands of ways at once is refused before it takes long. */
static void work_is_bounded(const struct pieces *pieces)
{
    static const char grammar[] = "root ::= ([a-z]?){6000} \"!\"";
    struct constraint *c = NULL;
    struct constraint_place place;
    struct err e;
    static float logits[FAKE_VOCAB];
    const float *allowed;
    CHECK_INT(
        constraint_create(grammar, strlen(grammar), pieces, fake_tokenizer(), FAKE_VOCAB, &c, &e),
        0);
    constraint_begin(c, &place);
    CHECK_INT(constraint_mask(c, &place, NULL, 0, logits, &allowed, &e), ERR_GRAMMAR);
    constraint_destroy(&c);
}

/* However many there are: together they take no more than they may, the next one is told so in
 * words, and those that are there go on. */
static void memory_in_sum(const struct pieces *pieces)
{
    enum { MANY = 2000, OTHERS = GRAMMAR_BUDGET_BYTES - (16 << 20) };
    static struct constraint *all[MANY];
    static const char grammar[] = "root ::= [a-z]*";
    struct err e;
    int n = 0, rc = 0;
    CHECK(grammar_budget_take(OTHERS));
    while (n < MANY && (rc = constraint_create(grammar, strlen(grammar), pieces, fake_tokenizer(),
                                               FAKE_VOCAB, &all[n], &e)) == 0) {
        n++;
    }
    CHECK_INT(rc, ERR_BUSY);
    CHECK(n > 5 && strstr(e.detail, "MB together"));
    CHECK(grammar_budget_is_tight() && !grammar_budget_take(1 << 20));
    static float logits[FAKE_VOCAB];
    const float *allowed;
    struct constraint_place place;
    constraint_begin(all[0], &place);
    CHECK_INT(constraint_mask(all[0], &place, NULL, 0, logits, &allowed, &e), 0);
    for (int i = 0; i < n; i++) {
        constraint_destroy(&all[i]);
    }
    grammar_budget_give(OTHERS);
    CHECK(grammar_budget_take(GRAMMAR_BUDGET_BYTES)); /* every byte came back */
    CHECK(!grammar_budget_take(1));
    grammar_budget_give(GRAMMAR_BUDGET_BYTES);
}

int main(void)
{
    struct pieces *pieces = NULL;
    uint64_t seed = 7;
    name_tokens();
    CHECK_INT(pieces_create(fake_tokenizer(), &pieces), 0);
    for (size_t i = 0; i < COUNT_OF(grammars); i++) {
        for (int k = 0; k < 4; k++) {
            walk(grammars[i], pieces, &seed);
        }
    }
    tables_overflow(pieces);
    work_is_bounded(pieces);
    memory_in_sum(pieces);
    pieces_destroy(&pieces);
    return 0;
}
