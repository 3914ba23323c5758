/* Splitting text by the steps of a rule, with PCRE2. Compiled at load; splitting allocates only its
 * scratch memory and runs in any thread.
 *
 * Invariants: text reaches PCRE2 only where it is valid UTF-8, so its own check is off; the ends of
 * a step are ascending and the last one is that of the step before. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "worker/tokenizer_pretokenize.h"

#include "shared/utf8.h"

#include <errno.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

const char tokenizer_pretokenize_threes[] = "(digits in threes)";
const char tokenizer_pretokenize_threes_at_word_end[] = "(digits in threes before \\b)";

struct step {
    pcre2_code *code; /* owned; NULL: one of the steps above */
    bool at_word_end;
};

struct tokenizer_pretokenize {
    int n_steps;
    struct step steps[TOKENIZER_PRETOKENIZE_MAX_STEPS];
    pcre2_match_context *limits; /* owned */
};

/* No pattern of the table comes near this on any text; what would is left in one piece. */
enum { MATCH_LIMIT = 10 * 1000 * 1000 };

int tokenizer_pretokenize_create(const struct tokenizer_pretokenize_rule *rule,
                                 struct tokenizer_pretokenize **ret)
{
    struct tokenizer_pretokenize *p = calloc(1, sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits) {
        tokenizer_pretokenize_destroy(&p);
        return -ENOMEM;
    }
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    while (p->n_steps < TOKENIZER_PRETOKENIZE_MAX_STEPS && rule->steps[p->n_steps]) {
        const char *text = rule->steps[p->n_steps];
        struct step *s = &p->steps[p->n_steps++];
        s->at_word_end = text == tokenizer_pretokenize_threes_at_word_end;
        if (s->at_word_end || text == tokenizer_pretokenize_threes) {
            continue;
        }
        int error;
        size_t at;
        s->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NO_AUTO_CAPTURE, &error,
                                &at, NULL);
        if (!s->code) {
            ASSERT(error == PCRE2_ERROR_HEAP_FAILED); /* the table is ours: a test compiles all */
            tokenizer_pretokenize_destroy(&p);
            return -ENOMEM;
        }
        /* Where executable memory is forbidden, matching works without it. */
        (void)pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE);
    }
    *ret = p;
    return 0;
}

void tokenizer_pretokenize_destroy(struct tokenizer_pretokenize **p)
{
    if (*p) {
        for (int i = 0; i < (*p)->n_steps; i++) {
            pcre2_code_free((*p)->steps[i].code);
        }
        pcre2_match_context_free((*p)->limits);
        free(*p);
        *p = NULL;
    }
}

void tokenizer_pieces_finish(struct tokenizer_pieces *p)
{
    tokenizer_room_finish(&p->room[0]);
    tokenizer_room_finish(&p->room[1]);
    *p = (struct tokenizer_pieces){0};
}

/* --- the pieces of one step, as they come ------------------------------------------------------
 */

struct ends {
    struct tokenizer_room *room;
    uint32_t *end;
    size_t n, cap;
    bool failed;
};

static void add_end(struct ends *out, size_t end)
{
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 64;
        uint32_t *p = realloc(out->room->data, cap * sizeof(*p));
        if (!p) {
            out->failed = true;
            return;
        }
        out->room->data = out->end = p;
        out->room->bytes = cap * sizeof(*p);
        out->cap = cap;
    }
    out->end[out->n++] = (uint32_t)end;
}

static void begin(struct ends *out, struct tokenizer_room *room)
{
    *out = (struct ends){.room = room, .end = room->data, .cap = room->bytes / sizeof(*out->end)};
}

/* --- steps -------------------------------------------------------------------------------------
 */

static void split_by_pattern(const struct tokenizer_pretokenize *p, const pcre2_code *code,
                             pcre2_match_data *match, const char *text, size_t from, size_t to,
                             struct ends *out)
{
    const size_t *range = pcre2_get_ovector_pointer(match);
    size_t n = to - from;
    size_t pos = 0;
    while (pos < n) {
        int rc = pcre2_match(code, (PCRE2_SPTR)(text + from), n, pos, PCRE2_NO_UTF_CHECK, match,
                             p->limits);
        if (rc < 0 || range[1] <= pos) {
            break; /* no match, or a limit: the rest is one piece */
        }
        if (range[0] > pos) {
            add_end(out, from + range[0]);
        }
        add_end(out, from + range[1]);
        pos = range[1];
    }
    if (pos < n) {
        add_end(out, to);
    }
}

static bool is_digit(uint32_t cp)
{
    return cp < 0x80 ? cp >= '0' && cp <= '9'
                     : utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

/* \w: letters, marks, decimal and letter-like numbers, connectors (UTS 18). */
static bool is_word(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* Cuts the run of `digits` characters in [from, to) in threes counted from its end. */
static void cut_in_threes(const char *text, size_t from, size_t to, size_t digits, struct ends *out)
{
    for (size_t at = from, left = digits; at < to;) {
        uint32_t cp;
        at += (size_t)utf8_decode(text + at, to - at, &cp);
        if (--left % 3 == 0) {
            add_end(out, at);
        }
    }
}

static void split_threes(bool at_word_end, const char *text, size_t from, size_t to,
                         struct ends *out)
{
    size_t done = from, run = from, digits = 0;
    for (size_t at = from; at <= to;) {
        uint32_t cp = 0;
        int len = at < to ? utf8_decode(text + at, to - at, &cp) : 1;
        if (at < to && is_digit(cp)) {
            run = digits == 0 ? at : run;
            digits++;
        } else if (digits > 0) {
            if (!at_word_end || at == to || !is_word(cp)) {
                if (run > done) {
                    add_end(out, run);
                }
                cut_in_threes(text, run, at, digits, out);
                done = at;
            }
            digits = 0;
        }
        at += (size_t)len;
    }
    if (done < to) {
        add_end(out, to);
    }
}

/* --- all steps ---------------------------------------------------------------------------------
 */

static size_t valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        int k = (unsigned char)s[i] < 0x80 ? 1 : utf8_decode(s + i, n - i, &cp);
        if (k <= 0) {
            break;
        }
        i += (size_t)k;
    }
    return i;
}

/* The bytes before the next character. */
static size_t invalid_prefix(const char *s, size_t n)
{
    uint32_t cp;
    size_t i = 0;
    while (i < n && utf8_decode(s + i, n - i, &cp) <= 0) {
        i++;
    }
    return i;
}

/* Splits each piece of `in` by one step. */
static void split_pieces(const struct tokenizer_pretokenize *p, const struct step *step,
                         pcre2_match_data *match, const char *text, const struct ends *in,
                         struct ends *out)
{
    size_t from = 0;
    for (size_t i = 0; i < in->n && !out->failed; i++) {
        size_t to = in->end[i];
        if (invalid_prefix(text + from, to - from) > 0) {
            add_end(out, to);
        } else if (step->code) {
            split_by_pattern(p, step->code, match, text, from, to, out);
        } else {
            split_threes(step->at_word_end, text, from, to, out);
        }
        from = to;
    }
}

int tokenizer_pretokenize_split(const struct tokenizer_pretokenize *p, const char *text, size_t n,
                                struct tokenizer_pieces *ret)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (!match) {
        return -ENOMEM;
    }
    /* Valid and invalid stretches in turn; the first, valid one may be empty. */
    struct ends ends;
    begin(&ends, &ret->room[0]);
    for (size_t at = 0; at < n && !ends.failed;) {
        at += valid_prefix(text + at, n - at);
        add_end(&ends, at);
        if (at < n) {
            at += invalid_prefix(text + at, n - at);
            add_end(&ends, at);
        }
    }
    for (int s = 0; s < p->n_steps && !ends.failed; s++) {
        struct ends in = ends;
        begin(&ends, in.room == &ret->room[0] ? &ret->room[1] : &ret->room[0]);
        split_pieces(p, &p->steps[s], match, text, &in, &ends);
    }
    pcre2_match_data_free(match);
    ret->end = ends.end;
    ret->n = ends.n;
    return ends.failed ? -ENOMEM : 0;
}
