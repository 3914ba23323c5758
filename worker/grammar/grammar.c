/* GBNF to rules (see grammar.h). Pure; a prepare thread runs it on text from outside: recursion and
 * sizes are bounded, and time is linear but for copies that {n,m} asks for. */
#include "worker/grammar/grammar.h"
#include "shared/buf.h"
#include "shared/hash.h"
#include "worker/grammar/charclass.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, LAST_CHAR = 0x10FFFF, MOST_REPEATS = 100 * 1000 };

struct name { /* of a rule; generated rules have none */
    const char *text;
    size_t n;
    uint32_t next; /* rule in the same bucket */
};

struct parser {
    const char *begin, *at, *end;
    int depth;
    struct buf elements, alternatives, rules, names; /* arrays of what grammar.h says */
    uint32_t buckets[BUCKETS];                       /* rule + 1 */
    struct err *e;
};

/* ---- what is built ---- */

static int refuse(struct parser *p, const char *what)
{
    int line = 1;
    for (const char *s = p->begin; s < p->at; s++) {
        line += *s == '\n';
    }
    return err_set(p->e, ERR_GRAMMAR, "line %d: %s", line, what);
}

static uint32_t n_rules(const struct parser *p)
{
    return (uint32_t)(p->rules.len / sizeof(uint32_t));
}

static uint32_t *first_alternative(struct parser *p, uint32_t rule)
{
    return (uint32_t *)(void *)p->rules.data + rule;
}

/* A rule without alternatives. */
static int new_rule(struct parser *p, const char *name, size_t n, uint32_t *ret)
{
    static const uint32_t none = GRAMMAR_NONE;
    struct name row = {.text = name, .n = n};
    *ret = n_rules(p);
    if (*ret == GRAMMAR_RULES) {
        return refuse(p, "there are too many rules");
    }
    if (name) {
        uint32_t *bucket = &p->buckets[hash64(name, n, 0) % BUCKETS];
        row.next = *bucket;
        *bucket = *ret + 1;
    }
    buf_add(&p->rules, &none, sizeof(none));
    buf_add(&p->names, &row, sizeof(row));
    return p->rules.failed || p->names.failed ? -ENOMEM : 0;
}

static int rule_named(struct parser *p, const char *name, size_t n, uint32_t *ret)
{
    uint32_t i = p->buckets[hash64(name, n, 0) % BUCKETS];
    while (i) {
        const struct name *row = (const struct name *)(const void *)p->names.data + (i - 1);
        if (row->n == n && memcmp(row->text, name, n) == 0) {
            *ret = i - 1;
            return 0;
        }
        i = row->next;
    }
    return new_rule(p, name, n, ret);
}

/* A further alternative of the rule: these elements and an END. */
static int add_alternative(struct parser *p, uint32_t rule, const struct buf *seq)
{
    static const struct grammar_element end = {.kind = GRAMMAR_END};
    uint32_t *first = first_alternative(p, rule);
    struct grammar_alternative a = {.first = (uint32_t)(p->elements.len / sizeof(end)),
                                    .next = *first};
    *first = (uint32_t)(p->alternatives.len / sizeof(a)); /* their order means nothing */
    buf_add(&p->elements, seq->data, seq->len);
    buf_add(&p->elements, &end, sizeof(end));
    buf_add(&p->alternatives, &a, sizeof(a));
    if (seq->failed || p->elements.failed || p->alternatives.failed) {
        return -ENOMEM;
    }
    return p->elements.len / sizeof(end) > GRAMMAR_ELEMENTS ? refuse(p, "it is too large") : 0;
}

static int put_ref(struct parser *p, struct buf *seq, uint32_t rule)
{
    struct grammar_element el = {.kind = GRAMMAR_RULE, .rule = rule};
    buf_add(seq, &el, sizeof(el));
    return seq->failed                                ? -ENOMEM
           : seq->len / sizeof(el) > GRAMMAR_ELEMENTS ? refuse(p, "it is too large")
                                                      : 0;
}

static int put_bytes(struct parser *p, struct buf *seq, const struct charclass_bytes *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct grammar_element el = {.kind = GRAMMAR_BYTES, .lo = b->lo[i], .hi = b->hi[i]};
        buf_add(seq, &el, sizeof(el));
    }
    return seq->failed ? -ENOMEM
           : seq->len / sizeof(struct grammar_element) > GRAMMAR_ELEMENTS
               ? refuse(p, "it is too large")
               : 0;
}

struct speller {
    struct parser *p;
    struct buf *seq; /* for a single sequence */
    uint32_t rule;   /* for several */
    size_t n;
};

static int count_spelling(void *arg, const struct charclass_bytes *b)
{
    (void)b;
    ((struct speller *)arg)->n++;
    return 0;
}

static int put_spelling(void *arg, const struct charclass_bytes *b)
{
    struct speller *s = arg;
    if (s->n == 1) {
        return put_bytes(s->p, s->seq, b);
    }
    struct buf one;
    buf_init(&one, 0);
    int rc = put_bytes(s->p, &one, b);
    rc = rc < 0 ? rc : add_alternative(s->p, s->rule, &one);
    buf_finish(&one);
    return rc;
}

static int put_class(struct parser *p, struct buf *seq, struct charclass *c, bool invert)
{
    struct speller s = {.p = p, .seq = seq};
    if (!charclass_settle(c, invert) || c->n == 0) {
        return refuse(p, c->n == 0 ? "a class without a character" : "a class has too many ranges");
    }
    charclass_spell(c, count_spelling, &s);
    int rc = s.n == 1 ? 0 : new_rule(p, NULL, 0, &s.rule);
    rc = rc < 0 || s.n == 1 ? rc : put_ref(p, seq, s.rule);
    return rc < 0 ? rc : charclass_spell(c, put_spelling, &s);
}

/* A rule: item [next] | nothing. next: a rule, GRAMMAR_NONE for none. */
static int new_optional(struct parser *p, const struct buf *item, uint32_t next, bool again,
                        uint32_t *ret)
{
    struct buf seq, empty;
    buf_init(&seq, 0);
    buf_init(&empty, 0);
    int rc = new_rule(p, NULL, 0, ret);
    buf_add(&seq, item->data, item->len);
    next = again ? *ret : next;
    rc = rc < 0 || next == GRAMMAR_NONE ? rc : put_ref(p, &seq, next);
    rc = rc < 0 ? rc : add_alternative(p, *ret, &seq);
    rc = rc < 0 ? rc : add_alternative(p, *ret, &empty);
    buf_finish(&seq);
    return rc;
}

/* What stands in seq from `at` on is to come min to max times (max -1: without end). */
static int repeat(struct parser *p, struct buf *seq, size_t at, int64_t min, int64_t max)
{
    struct buf item;
    uint32_t rule = GRAMMAR_NONE;
    if (seq->len == at) { /* nothing, however often, is nothing */
        return 0;
    }
    buf_init(&item, 0);
    buf_add(&item, seq->data + at, seq->len - at);
    seq->len = at;
    int rc = item.failed ? -ENOMEM : 0;
    for (int64_t i = 0; i < min && rc == 0; i++) {
        buf_add(seq, item.data, item.len);
        rc = seq->failed ? -ENOMEM
             : seq->len / sizeof(struct grammar_element) > GRAMMAR_ELEMENTS
                 ? refuse(p, "it is too large")
                 : 0;
    }
    if (rc == 0 && max < 0) {
        rc = new_optional(p, &item, GRAMMAR_NONE, true, &rule);
    }
    for (int64_t i = min; i < max && rc == 0; i++) {
        rc = new_optional(p, &item, rule, false, &rule);
    }
    rc = rc < 0 || rule == GRAMMAR_NONE ? rc : put_ref(p, seq, rule);
    buf_finish(&item);
    return rc;
}

/* ---- the text ---- */

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static void skip_space(struct parser *p, bool newlines)
{
    while (p->at < p->end) {
        char c = *p->at;
        if (c == '#') {
            while (p->at < p->end && *p->at != '\n') {
                p->at++;
            }
        } else if (c == ' ' || c == '\t' || c == '\r' || (newlines && c == '\n')) {
            p->at++;
        } else {
            return;
        }
    }
}

static size_t take_name(struct parser *p, const char **ret)
{
    *ret = p->at;
    while (p->at < p->end && is_name(*p->at)) {
        p->at++;
    }
    return (size_t)(p->at - *ret);
}

static int take_hex(struct parser *p, int digits, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        char c = peek(p);
        uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                            : 16;
        if (d == 16) {
            return refuse(p, "an escape lacks hexadecimal digits");
        }
        *ret = *ret << 4 | d;
    }
    return *ret > LAST_CHAR ? refuse(p, "an escape is no character") : 0;
}

static int take_escape(struct parser *p, uint32_t *ret)
{
    char c = peek(p);
    p->at++;
    switch (c) {
    case 'x':
        return take_hex(p, 2, ret);
    case 'u':
        return take_hex(p, 4, ret);
    case 'U':
        return take_hex(p, 8, ret);
    case 'n':
        *ret = '\n';
        return 0;
    case 'r':
        *ret = '\r';
        return 0;
    case 't':
        *ret = '\t';
        return 0;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
    case '/':
        *ret = (uint32_t)c;
        return 0;
    default:
        p->at--;
        return refuse(p, "an unknown escape");
    }
}

/* One character, perhaps escaped. */
static int take_char(struct parser *p, uint32_t *ret)
{
    unsigned char c = (unsigned char)peek(p);
    if (p->at == p->end) {
        return refuse(p, "it ends within a text or class");
    }
    p->at++;
    if (c == '\\') {
        return take_escape(p, ret);
    }
    size_t more = c < 0x80 ? 0 : c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
    *ret = more == 0 ? c : c & (0x3Fu >> more);
    for (size_t i = 0; i < more; i++, p->at++) {
        unsigned char next = (unsigned char)peek(p);
        if ((next & 0xC0) != 0x80) {
            return refuse(p, "it is not UTF-8");
        }
        *ret = *ret << 6 | (next & 0x3F);
    }
    return *ret > LAST_CHAR ? refuse(p, "it is not UTF-8") : 0;
}

static int parse_literal(struct parser *p, struct buf *seq)
{
    p->at++;
    while (peek(p) != '"') {
        struct charclass one = {0};
        uint32_t c;
        int rc = take_char(p, &c);
        rc = rc < 0 || charclass_add(&one, c, c) ? rc : -ENOMEM;
        rc = rc < 0 ? rc : put_class(p, seq, &one, false);
        if (rc < 0) {
            return rc;
        }
    }
    p->at++;
    return 0;
}

static int parse_class(struct parser *p, struct buf *seq)
{
    struct charclass c = {0};
    p->at++;
    bool invert = peek(p) == '^';
    p->at += invert;
    while (peek(p) != ']') {
        uint32_t lo, hi;
        int rc = take_char(p, &lo);
        hi = lo;
        if (rc == 0 && p->end - p->at >= 2 && p->at[0] == '-' && p->at[1] != ']') {
            p->at++;
            rc = take_char(p, &hi);
        }
        if (rc < 0) {
            return rc;
        }
        if (lo > hi || !charclass_add(&c, lo, hi)) {
            return refuse(p, lo > hi ? "a range runs backwards" : "a class has too many ranges");
        }
    }
    p->at++;
    return put_class(p, seq, &c, invert);
}

static int parse_alternatives(struct parser *p, uint32_t rule, bool nested);

static int parse_group(struct parser *p, struct buf *seq)
{
    uint32_t rule;
    if (++p->depth > GRAMMAR_DEPTH) {
        return refuse(p, "brackets are too deep");
    }
    p->at++;
    int rc = new_rule(p, NULL, 0, &rule);
    rc = rc < 0 ? rc : parse_alternatives(p, rule, true);
    if (rc == 0 && peek(p) != ')') {
        rc = refuse(p, "a bracket is not closed");
    }
    p->at += rc == 0;
    p->depth--;
    return rc < 0 ? rc : put_ref(p, seq, rule);
}

static int take_count(struct parser *p, int64_t *ret)
{
    *ret = 0;
    if (peek(p) < '0' || peek(p) > '9') {
        return refuse(p, "a repetition lacks its number");
    }
    while (peek(p) >= '0' && peek(p) <= '9') {
        *ret = *ret * 10 + (*p->at++ - '0');
        if (*ret > MOST_REPEATS) {
            return refuse(p, "a repetition is too large");
        }
    }
    skip_space(p, false);
    return 0;
}

/* What may stand behind an item that begins at `at` of seq. */
static int parse_suffix(struct parser *p, struct buf *seq, size_t at)
{
    char c = peek(p);
    int64_t min, max;
    p->at++;
    if (c != '{') {
        return repeat(p, seq, at, c == '+', c == '?' ? 1 : -1);
    }
    skip_space(p, false);
    int rc = take_count(p, &min);
    max = min;
    if (rc == 0 && peek(p) == ',') {
        p->at++;
        skip_space(p, false);
        max = -1;
        rc = peek(p) == '}' ? 0 : take_count(p, &max);
    }
    if (rc == 0 && (peek(p) != '}' || (max >= 0 && max < min))) {
        rc = refuse(p, "a repetition is malformed");
    }
    p->at += rc == 0;
    return rc < 0 ? rc : repeat(p, seq, at, min, max);
}

static int parse_item(struct parser *p, struct buf *seq)
{
    const char *name;
    uint32_t rule;
    struct charclass any = {0};
    switch (peek(p)) {
    case '"':
        return parse_literal(p, seq);
    case '[':
        return parse_class(p, seq);
    case '(':
        return parse_group(p, seq);
    case '.':
        p->at++;
        return put_class(p, seq, &any, true);
    default: {
        size_t n = take_name(p, &name);
        int rc = rule_named(p, name, n, &rule);
        return rc < 0 ? rc : put_ref(p, seq, rule);
    }
    }
}

static int parse_sequence(struct parser *p, struct buf *seq, bool nested)
{
    for (;;) {
        skip_space(p, nested);
        char c = peek(p);
        if (c != '"' && c != '[' && c != '(' && c != '.' && !is_name(c)) {
            return 0;
        }
        size_t at = seq->len;
        int rc = parse_item(p, seq);
        skip_space(p, nested);
        while (rc == 0 && peek(p) && strchr("*+?{", peek(p))) {
            rc = parse_suffix(p, seq, at);
            skip_space(p, nested);
        }
        if (rc < 0) {
            return rc;
        }
    }
}

/* Does the next line that is not empty begin with '|'? */
static bool goes_on(struct parser *p)
{
    const char *before = p->at;
    skip_space(p, true);
    bool is_bar = peek(p) == '|';
    p->at = is_bar ? p->at : before;
    return is_bar;
}

static int parse_alternatives(struct parser *p, uint32_t rule, bool nested)
{
    int rc;
    do {
        struct buf seq;
        buf_init(&seq, 0);
        skip_space(p, true);
        rc = parse_sequence(p, &seq, nested);
        rc = rc < 0 ? rc : add_alternative(p, rule, &seq);
        buf_finish(&seq);
    } while (rc == 0 && goes_on(p) && p->at++);
    return rc;
}

static int parse_rule(struct parser *p)
{
    const char *name;
    uint32_t rule;
    size_t n = take_name(p, &name);
    if (n == 0) {
        return refuse(p, "the name of a rule is expected");
    }
    skip_space(p, false);
    if (p->end - p->at < 3 || memcmp(p->at, "::=", 3) != 0) {
        return refuse(p, "'::=' is expected");
    }
    p->at += 3;
    int rc = rule_named(p, name, n, &rule);
    if (rc == 0 && *first_alternative(p, rule) != GRAMMAR_NONE) {
        rc = refuse(p, "a rule is defined twice");
    }
    rc = rc < 0 ? rc : parse_alternatives(p, rule, false);
    skip_space(p, false);
    return rc < 0 || p->at == p->end || *p->at == '\n'
               ? rc
               : refuse(p, "what follows is not understood");
}

static int parse(struct parser *p, uint32_t *ret_root)
{
    int rc = 0;
    for (skip_space(p, true); p->at < p->end && rc == 0; skip_space(p, true)) {
        rc = parse_rule(p);
    }
    for (uint32_t i = 0; i < n_rules(p) && rc == 0; i++) {
        const struct name *row = (const struct name *)(const void *)p->names.data + i;
        if (*first_alternative(p, i) == GRAMMAR_NONE) {
            rc = err_set(p->e, ERR_GRAMMAR, "rule '%.*s' is not defined",
                         (int)MIN(row->n, (size_t)64), row->text);
        }
    }
    uint32_t before = n_rules(p);
    rc = rc < 0 ? rc : rule_named(p, "root", 4, ret_root);
    return rc < 0 || *ret_root < before ? rc : err_set(p->e, ERR_GRAMMAR, "it has no 'root'");
}

int grammar_create(const char *text, size_t n, struct grammar **ret, struct err *e)
{
    struct parser p = {.begin = text, .at = text, .end = text + n, .e = e};
    struct grammar *g = calloc(1, sizeof(*g));
    struct buf *const parts[] = {&p.elements, &p.alternatives, &p.rules, &p.names};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        buf_init(parts[i], 0);
    }
    int rc = !g ? -ENOMEM
             : n > LIMIT_GRAMMAR_BYTES
                 ? err_set(e, ERR_GRAMMAR, "it has %zu bytes, allowed %d", n, LIMIT_GRAMMAR_BYTES)
                 : parse(&p, &g->root);
    if (rc < 0) {
        for (size_t i = 0; i < COUNT_OF(parts); i++) {
            buf_finish(parts[i]);
        }
        free(g);
        return rc;
    }
    buf_finish(&p.names);
    g->n_elements = (uint32_t)(p.elements.len / sizeof(*g->elements));
    g->n_alternatives = (uint32_t)(p.alternatives.len / sizeof(*g->alternatives));
    g->n_rules = n_rules(&p);
    g->elements = (struct grammar_element *)(void *)p.elements.data;
    g->alternatives = (struct grammar_alternative *)(void *)p.alternatives.data;
    g->rules = (uint32_t *)(void *)p.rules.data;
    *ret = g;
    return 0;
}

void grammar_destroy(struct grammar **gp)
{
    struct grammar *g = *gp;
    if (g) {
        free(g->elements);
        free(g->alternatives);
        free(g->rules);
        free(g);
        *gp = NULL;
    }
}
