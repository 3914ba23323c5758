/* The tokenizer. The rules are those of jinja2/lexer.py with trim_blocks and lstrip_blocks on: a
 * tag takes the newline behind it and the blanks before it on its line, "-" takes all white space
 * on its side, "+" leaves it. Pure. */
#include "worker/jinja/jinja_lex.h"
#include "shared/utf8.h"
#include "worker/jinja/jinja_number.h"
#include "worker/jinja/jinja_unicode.h"

#include <string.h>

void jinja_lex_init(struct jinja_lex *l, struct jinja *j, const char *source, size_t n)
{
    char *s;
    if (utf8_is_valid(source, n)) {
        s = jinja_alloc(j, n);
        if (n) {
            memcpy(s, source, n);
        }
    } else {
        s = jinja_alloc(j, 3 * n);
        n = utf8_repair(source, n, s);
    }
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r') {
            i += i + 1 < n && s[i + 1] == '\n';
            s[len++] = '\n';
        } else {
            s[len++] = s[i];
        }
    }
    len -= len > 0 && s[len - 1] == '\n';
    *l = (struct jinja_lex){.j = j, .s = s, .n = len, .line = 1, .line_starts = true};
}

static bool looking_at(const struct jinja_lex *l, size_t at, const char *s)
{
    size_t n = strlen(s);
    return at <= l->n && l->n - at >= n && memcmp(l->s + at, s, n) == 0;
}

static size_t skip_space(const struct jinja_lex *l, size_t at)
{
    struct jinja_value rest = jinja_value_str(l->s + at, l->n - at);
    return l->n - jinja_unicode_trim(rest, true, false).n;
}

static void advance(struct jinja_lex *l, size_t to)
{
    for (; l->at < to; l->at++) {
        l->line += l->s[l->at] == '\n';
    }
}

/* Behind the end of a tag: what white space goes with it. */
static void end_tag(struct jinja_lex *l, size_t at, char sign, bool trim)
{
    if (sign == '-') {
        at = skip_space(l, at);
    } else if (sign != '+' && trim && at < l->n && l->s[at] == '\n') {
        at++;
    }
    advance(l, at);
    l->line_starts = l->s[at - 1] == '\n';
}

/* The text [from, to) before a tag with this sign, less the white space the tag takes. */
static struct jinja_value text_before(const struct jinja_lex *l, size_t from, size_t to, char sign,
                                      bool strip_line)
{
    struct jinja_value text = jinja_value_str(l->s + from, to - from);
    if (sign == '-') {
        return jinja_unicode_trim(text, false, true);
    }
    if (sign == '+' || !strip_line || text.n == 0) {
        return text;
    }
    const char *newline = memrchr(text.s, '\n', text.n);
    size_t line = newline ? (size_t)(newline - text.s) + 1 : 0;
    if (line > 0 || l->line_starts) {
        struct jinja_value last = jinja_value_str(text.s + line, text.n - line);
        if (jinja_unicode_trim(last, true, false).n == 0) {
            text.n = (uint32_t)line;
        }
    }
    return text;
}

/* "{% raw %}" at `at`: the position behind it, or 0. */
static size_t match_raw(const struct jinja_lex *l, size_t at, const char *word)
{
    at += 2;
    at += at < l->n && (l->s[at] == '-' || l->s[at] == '+');
    at = skip_space(l, at);
    if (!looking_at(l, at, word)) {
        return 0;
    }
    return skip_space(l, at + strlen(word));
}

static char sign_at(const struct jinja_lex *l, size_t at)
{
    return at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
}

static struct jinja_token text_token(struct jinja_lex *l, uint32_t line, struct jinja_value text)
{
    (void)l;
    return (struct jinja_token){.kind = JINJA_TEXT, .line = line, .value = text};
}

static struct jinja_token next_raw(struct jinja_lex *l)
{
    uint32_t line = l->line;
    size_t from = l->at;
    for (const char *p = l->s + from; (p = memmem(p, (size_t)(l->s + l->n - p), "{%", 2)); p++) {
        size_t at = (size_t)(p - l->s), end = match_raw(l, at, "endraw");
        if (!end) {
            continue;
        }
        char sign = sign_at(l, end);
        if (!looking_at(l, end + (sign != 0), "%}")) {
            continue;
        }
        struct jinja_value text = text_before(l, from, at, sign_at(l, at + 2), true);
        l->in = JINJA_IN_TEXT;
        end_tag(l, end + (sign != 0) + 2, sign, true);
        return text_token(l, line, text);
    }
    l->j->line = line;
    jinja_fail(l->j, "the end of a raw block is missing");
}

/* The next "{{", "{%" or "{#" from at; l->n when there is none. */
static size_t find_tag(const struct jinja_lex *l, size_t at)
{
    for (; at < l->n; at++) {
        const char *p = memchr(l->s + at, '{', l->n - at);
        if (!p) {
            break;
        }
        at = (size_t)(p - l->s);
        if (at + 1 < l->n && strchr("{%#", l->s[at + 1]) && l->s[at + 1]) {
            return at;
        }
    }
    return l->n;
}

/* Takes the text up to the next tag and the tag's beginning. */
static struct jinja_token next_text(struct jinja_lex *l)
{
    uint32_t line = l->line;
    size_t from = l->at, at = find_tag(l, from);
    if (at == l->n) {
        advance(l, at);
        return text_token(l, line, jinja_value_str(l->s + from, at - from));
    }
    char type = l->s[at + 1], sign = sign_at(l, at + 2);
    struct jinja_value text = text_before(l, from, at, sign, type != '{');
    size_t raw = type == '%' ? match_raw(l, at, "raw") : 0;
    char raw_sign = raw && looking_at(l, raw, "-%}") ? '-' : 0;
    if (raw && looking_at(l, raw + (raw_sign != 0), "%}")) {
        l->in = JINJA_IN_RAW;
        end_tag(l, raw + (raw_sign != 0) + 2, raw_sign, false);
        return text_token(l, line, text);
    }
    advance(l, at + 2 + (sign != 0));
    if (type == '#') {
        const char *end = memmem(l->s + l->at, l->n - l->at, "#}", 2);
        if (!end) {
            l->j->line = l->line;
            jinja_fail(l->j, "the end of a comment is missing");
        }
        size_t close = (size_t)(end - l->s);
        end_tag(l, close + 2, close > l->at ? sign_at(l, close - 1) : 0, true);
    } else {
        l->in = type == '{' ? JINJA_IN_PRINT : JINJA_IN_BLOCK;
        l->has_tag = true;
    }
    return text_token(l, line, text);
}

static bool is_digit(const struct jinja_lex *l, size_t at)
{
    return at < l->n && l->s[at] >= '0' && l->s[at] <= '9';
}

/* Behind digits with single underscores between them. */
static size_t skip_digits(const struct jinja_lex *l, size_t at)
{
    while (is_digit(l, at) || (at < l->n && l->s[at] == '_' && is_digit(l, at + 1))) {
        at++;
    }
    return at;
}

static bool is_digit_of(char c, int base)
{
    return base == 16 ? strchr("0123456789abcdefABCDEF", c) && c : c >= '0' && c < '0' + base;
}

static size_t skip_integer(const struct jinja_lex *l, size_t at)
{
    size_t end = at + 1;
    if (l->s[at] != '0') {
        return skip_digits(l, at);
    }
    int c = end < l->n ? l->s[end] | 0x20 : 0;
    int base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 1;
    end += base > 1;
    size_t digits = end;
    for (;;) {
        size_t next = end + (end < l->n && l->s[end] == '_');
        if (next >= l->n || !is_digit_of(l->s[next], base)) {
            break;
        }
        end = next + 1;
    }
    return base > 1 && end == digits ? at + 1 : end;
}

static struct jinja_value lex_number(struct jinja_lex *l)
{
    struct jinja *j = l->j;
    size_t at = l->at, end = skip_digits(l, at);
    bool real = false;
    if (at == 0 || l->s[at - 1] != '.') { /* in a.0.1 there are two indices and no number 0.1 */
        if (end < l->n && l->s[end] == '.' && is_digit(l, end + 1)) {
            end = skip_digits(l, end + 1);
            real = true;
        }
        size_t e = end + 1;
        if (end < l->n && (l->s[end] | 0x20) == 'e') {
            e += e < l->n && (l->s[e] == '+' || l->s[e] == '-');
            if (is_digit(l, e)) {
                end = skip_digits(l, e);
                real = true;
            }
        }
    }
    end = real ? end : skip_integer(l, at);
    struct jinja_value v;
    if (real) {
        v = jinja_value_float(0);
        real = jinja_number_parse_float(j, l->s + at, end - at, &v.f);
    } else {
        v = jinja_value_int(0);
        real = jinja_number_parse_int(j, l->s + at, end - at, 0, &v.i);
    }
    if (!real) {
        jinja_fail(j, "'%.*s' is no number", (int)MIN(end - at, (size_t)40), l->s + at);
    }
    advance(l, end);
    return v;
}

static uint32_t lex_hex(struct jinja_lex *l, size_t at, size_t end, size_t digits)
{
    uint32_t cp = 0;
    for (size_t i = 0; i < digits; i++) {
        char c = at + i < end ? l->s[at + i] : 0;
        if (!is_digit_of(c, 16)) {
            jinja_fail(l->j, "an escape in a text needs %zu hexadecimal digits", digits);
        }
        cp = cp << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return cp;
}

static void put_escaped_cp(struct jinja_lex *l, uint32_t cp)
{
    char out[4];
    int n = utf8_encode(cp, out);
    if (n == 0) {
        jinja_fail(l->j, "the escape \\u%04x in a text is no character", cp);
    }
    jinja_put(l->j, out, (size_t)n);
}

/* The escape behind a backslash at `at`; returns the position behind it. */
static size_t lex_escape(struct jinja_lex *l, size_t at, size_t end)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->s[at];
    const char *simple = c ? strchr(from, c) : NULL;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (simple) {
        jinja_put(l->j, &to[simple - from], 1);
    } else if (digits) {
        put_escaped_cp(l, lex_hex(l, at + 1, end, digits));
        return at + 1 + digits;
    } else if (c >= '0' && c <= '7') {
        uint32_t cp = 0;
        size_t stop = MIN(at + 3, end);
        for (; at < stop && is_digit_of(l->s[at], 8); at++) {
            cp = cp << 3 | (uint32_t)(l->s[at] - '0');
        }
        put_escaped_cp(l, cp);
        return at;
    } else if (c == 'N') {
        jinja_fail(l->j, "escapes by name (\\N) are not known here");
    } else if ((unsigned char)c >= 0x80) {
        /* Python escapes the character itself first, and the two backslashes make one. */
        uint32_t cp;
        size_t n = jinja_unicode_get(l->s + at, end - at, &cp);
        char text[16];
        int len = snprintf(text, sizeof(text),
                           cp < 0x100     ? "\\x%02x"
                           : cp < 0x10000 ? "\\u%04x"
                                          : "\\U%08x",
                           cp);
        jinja_put(l->j, text, (size_t)len);
        return at + n;
    } else if (c != '\n') {
        jinja_put(l->j, "\\", 1);
        jinja_put(l->j, &c, 1);
    }
    return at + 1;
}

static struct jinja_value lex_string(struct jinja_lex *l)
{
    char quote = l->s[l->at];
    size_t from = l->at + 1, end = from;
    bool plain = true;
    while (end < l->n && l->s[end] != quote) {
        plain = plain && l->s[end] != '\\';
        end += l->s[end] == '\\' ? 2 : 1;
    }
    if (end >= l->n) {
        jinja_fail(l->j, "the end of a text is missing");
    }
    struct jinja_value v = jinja_value_str(l->s + from, end - from);
    if (!plain) {
        size_t mark = jinja_capture(l->j);
        for (size_t at = from; at < end;) {
            if (l->s[at] == '\\') {
                at = lex_escape(l, at + 1, end);
            } else {
                size_t n = 1;
                while (at + n < end && l->s[at + n] != '\\') {
                    n++;
                }
                jinja_put(l->j, l->s + at, n);
                at += n;
            }
        }
        v = jinja_captured(l->j, mark);
    }
    advance(l, end + 1);
    return v;
}

static size_t skip_word(const struct jinja_lex *l, size_t at)
{
    while (at < l->n) {
        uint32_t cp;
        size_t n = jinja_unicode_get(l->s + at, l->n - at, &cp);
        if (cp != '_' && !jinja_unicode_is(cp, JINJA_ALNUM)) {
            break;
        }
        at += n;
    }
    return at;
}

static void count_bracket(struct jinja_lex *l, char c)
{
    const char *open = "([{", *close = ")]}";
    if (strchr(open, c)) {
        if (l->n_brackets == JINJA_LEX_BRACKETS) {
            jinja_fail(l->j, "more than %d brackets within each other", JINJA_LEX_BRACKETS);
        }
        l->brackets[l->n_brackets++] = close[strchr(open, c) - open];
    } else if (strchr(close, c)) {
        if (l->n_brackets == 0) {
            jinja_fail(l->j, "unexpected '%c'", c);
        }
        char expected = l->brackets[--l->n_brackets];
        if (expected != c) {
            jinja_fail(l->j, "unexpected '%c', expected '%c'", c, expected);
        }
    }
}

static int lex_sign(struct jinja_lex *l)
{
    static const char doubles[][3] = {"//", "**", "==", "!=", ">=", "<="};
    for (size_t i = 0; i < COUNT_OF(doubles); i++) {
        if (looking_at(l, l->at, doubles[i])) {
            l->at += 2;
            return JINJA_SIGN2(doubles[i][0], doubles[i][1]);
        }
    }
    char c = l->s[l->at];
    if (!c || !strchr("+-/*%~[](){}<>=.:|,;", c)) {
        size_t n = jinja_unicode_step(l->s + l->at, l->n - l->at);
        jinja_fail(l->j, "unexpected character '%.*s'", (int)n, l->s + l->at);
    }
    count_bracket(l, c);
    l->at++;
    return c;
}

/* The end of the tag, if it stands here. */
static bool lex_tag_end(struct jinja_lex *l)
{
    bool block = l->in == JINJA_IN_BLOCK;
    char sign = sign_at(l, l->at);
    if (l->n_brackets || (sign == '+' && !block) ||
        !looking_at(l, l->at + (sign != 0), block ? "%}" : "}}")) {
        return false;
    }
    end_tag(l, l->at + (sign != 0) + 2, sign, block);
    l->in = JINJA_IN_TEXT;
    return true;
}

static struct jinja_token next_in_tag(struct jinja_lex *l)
{
    advance(l, skip_space(l, l->at));
    struct jinja_token t = {.kind = JINJA_END, .line = l->line};
    l->j->line = l->line;
    if (l->at >= l->n) {
        return t;
    }
    bool block = l->in == JINJA_IN_BLOCK;
    if (lex_tag_end(l)) {
        t.kind = block ? JINJA_BLOCK_END : JINJA_PRINT_END;
        return t;
    }
    uint32_t cp;
    jinja_unicode_get(l->s + l->at, l->n - l->at, &cp);
    size_t end = skip_word(l, l->at);
    if (is_digit(l, l->at)) {
        t.kind = JINJA_CONST;
        t.value = lex_number(l);
    } else if (end > l->at) {
        if (cp != '_' && !jinja_unicode_is(cp, JINJA_ALPHA)) {
            jinja_fail(l->j, "a name cannot begin with '%.*s'", (int)MIN(end - l->at, (size_t)40),
                       l->s + l->at);
        }
        t.kind = JINJA_WORD;
        t.value = jinja_value_str(l->s + l->at, end - l->at);
        l->at = end;
    } else if (cp == '\'' || cp == '"') {
        t.kind = JINJA_CONST;
        t.value = lex_string(l);
    } else {
        t.kind = JINJA_SIGN;
        t.sign = lex_sign(l);
    }
    return t;
}

struct jinja_token jinja_lex_next(struct jinja_lex *l)
{
    for (;;) {
        if (l->has_tag) {
            l->has_tag = false;
            return (struct jinja_token){.kind = l->in == JINJA_IN_PRINT ? JINJA_PRINT_BEGIN
                                                                        : JINJA_BLOCK_BEGIN,
                                        .line = l->line};
        }
        if (l->in == JINJA_IN_PRINT || l->in == JINJA_IN_BLOCK) {
            return next_in_tag(l);
        }
        if (l->in == JINJA_IN_TEXT && l->at >= l->n) {
            return (struct jinja_token){.kind = JINJA_END, .line = l->line};
        }
        struct jinja_token t = l->in == JINJA_IN_RAW ? next_raw(l) : next_text(l);
        if (t.value.n) {
            return t;
        }
    }
}
