/* Unicode classes and cases. utf8proc has the categories and the simple mappings; what it lacks are
 * the mappings to several characters (Unicode's SpecialCasing.txt, unconditional part) and the
 * derived properties, tabled here. Pure. */
#include "worker/jinja/jinja_unicode.h"
#include "shared/utf8.h"

#include <string.h>
#include <utf8proc.h>

struct range {
    uint32_t first, last;
};

static bool in_ranges(uint32_t cp, const struct range *r, size_t n)
{
    for (size_t i = 0; i < n && cp >= r[i].first; i++) {
        if (cp <= r[i].last) {
            return true;
        }
    }
    return false;
}

/* Other_Lowercase and Other_Uppercase of PropList.txt. */
static const struct range other_lower[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},
    {0x2E0, 0x2E4},     {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},
    {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C},   {0x2170, 0x217F},   {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},
    {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
};
static const struct range other_upper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
};
/* Numeric_Type=Digit: digits that are not decimal, such as superscripts. */
static const struct range digits[] = {
    {0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
    {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
    {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};
static const struct range spaces[] = {
    {0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000},
};
/* Word_Break MidLetter, MidNumLet, Single_Quote: a letter case rule looks past these. */
static const struct range mid_letters[] = {
    {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
    {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
    {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
    {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
};

static const struct special { /* ends at a zero */
    uint32_t cp;
    uint16_t upper[3], title[3];
} specials[] = {
    /* clang-format off */
    {0x00DF, {0x0053, 0x0053}, {0x0053, 0x0073}}, {0x0149, {0x02BC, 0x004E}, {0x02BC, 0x004E}},
    {0x01F0, {0x004A, 0x030C}, {0x004A, 0x030C}},
    {0x0390, {0x0399, 0x0308, 0x0301}, {0x0399, 0x0308, 0x0301}},
    {0x03B0, {0x03A5, 0x0308, 0x0301}, {0x03A5, 0x0308, 0x0301}},
    {0x0587, {0x0535, 0x0552}, {0x0535, 0x0582}}, {0x1E96, {0x0048, 0x0331}, {0x0048, 0x0331}},
    {0x1E97, {0x0054, 0x0308}, {0x0054, 0x0308}}, {0x1E98, {0x0057, 0x030A}, {0x0057, 0x030A}},
    {0x1E99, {0x0059, 0x030A}, {0x0059, 0x030A}}, {0x1E9A, {0x0041, 0x02BE}, {0x0041, 0x02BE}},
    {0x1F50, {0x03A5, 0x0313}, {0x03A5, 0x0313}},
    {0x1F52, {0x03A5, 0x0313, 0x0300}, {0x03A5, 0x0313, 0x0300}},
    {0x1F54, {0x03A5, 0x0313, 0x0301}, {0x03A5, 0x0313, 0x0301}},
    {0x1F56, {0x03A5, 0x0313, 0x0342}, {0x03A5, 0x0313, 0x0342}},
    {0x1FB2, {0x1FBA, 0x0399}, {0x1FBA, 0x0345}}, {0x1FB3, {0x0391, 0x0399}, {0x1FBC}},
    {0x1FB4, {0x0386, 0x0399}, {0x0386, 0x0345}}, {0x1FB6, {0x0391, 0x0342}, {0x0391, 0x0342}},
    {0x1FB7, {0x0391, 0x0342, 0x0399}, {0x0391, 0x0342, 0x0345}},
    {0x1FBC, {0x0391, 0x0399}, {0x1FBC}}, {0x1FC2, {0x1FCA, 0x0399}, {0x1FCA, 0x0345}},
    {0x1FC3, {0x0397, 0x0399}, {0x1FCC}}, {0x1FC4, {0x0389, 0x0399}, {0x0389, 0x0345}},
    {0x1FC6, {0x0397, 0x0342}, {0x0397, 0x0342}},
    {0x1FC7, {0x0397, 0x0342, 0x0399}, {0x0397, 0x0342, 0x0345}},
    {0x1FCC, {0x0397, 0x0399}, {0x1FCC}},
    {0x1FD2, {0x0399, 0x0308, 0x0300}, {0x0399, 0x0308, 0x0300}},
    {0x1FD3, {0x0399, 0x0308, 0x0301}, {0x0399, 0x0308, 0x0301}},
    {0x1FD6, {0x0399, 0x0342}, {0x0399, 0x0342}},
    {0x1FD7, {0x0399, 0x0308, 0x0342}, {0x0399, 0x0308, 0x0342}},
    {0x1FE2, {0x03A5, 0x0308, 0x0300}, {0x03A5, 0x0308, 0x0300}},
    {0x1FE3, {0x03A5, 0x0308, 0x0301}, {0x03A5, 0x0308, 0x0301}},
    {0x1FE4, {0x03A1, 0x0313}, {0x03A1, 0x0313}}, {0x1FE6, {0x03A5, 0x0342}, {0x03A5, 0x0342}},
    {0x1FE7, {0x03A5, 0x0308, 0x0342}, {0x03A5, 0x0308, 0x0342}},
    {0x1FF2, {0x1FFA, 0x0399}, {0x1FFA, 0x0345}}, {0x1FF3, {0x03A9, 0x0399}, {0x1FFC}},
    {0x1FF4, {0x038F, 0x0399}, {0x038F, 0x0345}}, {0x1FF6, {0x03A9, 0x0342}, {0x03A9, 0x0342}},
    {0x1FF7, {0x03A9, 0x0342, 0x0399}, {0x03A9, 0x0342, 0x0345}},
    {0x1FFC, {0x03A9, 0x0399}, {0x1FFC}}, {0xFB00, {0x0046, 0x0046}, {0x0046, 0x0066}},
    {0xFB01, {0x0046, 0x0049}, {0x0046, 0x0069}}, {0xFB02, {0x0046, 0x004C}, {0x0046, 0x006C}},
    {0xFB03, {0x0046, 0x0046, 0x0049}, {0x0046, 0x0066, 0x0069}},
    {0xFB04, {0x0046, 0x0046, 0x004C}, {0x0046, 0x0066, 0x006C}},
    {0xFB05, {0x0053, 0x0054}, {0x0053, 0x0074}}, {0xFB06, {0x0053, 0x0054}, {0x0053, 0x0074}},
    {0xFB13, {0x0544, 0x0546}, {0x0544, 0x0576}}, {0xFB14, {0x0544, 0x0535}, {0x0544, 0x0565}},
    {0xFB15, {0x0544, 0x053B}, {0x0544, 0x056B}}, {0xFB16, {0x054E, 0x0546}, {0x054E, 0x0576}},
    {0xFB17, {0x0544, 0x053D}, {0x0544, 0x056D}},
    /* clang-format on */
};

size_t jinja_unicode_get(const char *s, size_t n, uint32_t *ret_cp)
{
    if ((unsigned char)s[0] < 0x80) {
        *ret_cp = (unsigned char)s[0];
        return 1;
    }
    int len = utf8_decode(s, n, ret_cp);
    if (len <= 0) {
        *ret_cp = 0xFFFD;
        return 1;
    }
    return (size_t)len;
}

size_t jinja_unicode_step(const char *s, size_t n)
{
    uint32_t cp;
    return jinja_unicode_get(s, n, &cp);
}

/* How many of 8 bytes begin a character: those that are not 10xxxxxx. */
static size_t count_8(const char *s)
{
    uint64_t v;
    memcpy(&v, s, sizeof(v));
    uint64_t inner = v & ~(v << 1) & 0x8080808080808080u; /* the top bit set, the next one not */
    return 8 - (size_t)__builtin_popcountll(inner);
}

size_t jinja_unicode_count(const char *s, size_t n)
{
    size_t count = 0, at = 0;
    for (; n - at >= 8; at += 8) {
        count += count_8(s + at);
    }
    for (; at < n; at++) {
        count += ((unsigned char)s[at] & 0xC0) != 0x80;
    }
    return count;
}

size_t jinja_unicode_offset(const char *s, size_t n, size_t at)
{
    size_t offset = 0;
    for (; at >= 8 && n - offset >= 8; offset += 8) {
        at -= count_8(s + offset);
    }
    while (offset < n && (at > 0 || ((unsigned char)s[offset] & 0xC0) == 0x80)) {
        at -= ((unsigned char)s[offset] & 0xC0) != 0x80;
        offset++;
    }
    return offset;
}

size_t jinja_unicode_last(const char *s, size_t n)
{
    for (size_t len = 2; len <= 4 && len <= n; len++) {
        uint32_t cp;
        if ((unsigned char)s[n - 1] >= 0x80 && utf8_decode(s + n - len, len, &cp) == (int)len) {
            return len;
        }
    }
    return 1;
}

bool jinja_unicode_is(uint32_t cp, enum jinja_class what)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    switch (what) {
    case JINJA_ALPHA:
        return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
    case JINJA_DECIMAL:
        return c == UTF8PROC_CATEGORY_ND;
    case JINJA_DIGIT:
        return c == UTF8PROC_CATEGORY_ND || in_ranges(cp, digits, COUNT_OF(digits));
    case JINJA_NUMERIC:
        return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
    case JINJA_ALNUM:
        return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
               (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
    case JINJA_LOWER:
        return c == UTF8PROC_CATEGORY_LL || in_ranges(cp, other_lower, COUNT_OF(other_lower));
    case JINJA_UPPER:
        return c == UTF8PROC_CATEGORY_LU || in_ranges(cp, other_upper, COUNT_OF(other_upper));
    case JINJA_TITLE:
        return c == UTF8PROC_CATEGORY_LT;
    case JINJA_SPACE:
        return in_ranges(cp, spaces, COUNT_OF(spaces));
    case JINJA_PRINTABLE:
        return cp == ' ' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_SO);
    }
    return false;
}

static bool is_cased(uint32_t cp)
{
    return jinja_unicode_is(cp, JINJA_LOWER) || jinja_unicode_is(cp, JINJA_UPPER) ||
           jinja_unicode_is(cp, JINJA_TITLE);
}

static bool is_case_ignorable(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK ||
           in_ranges(cp, mid_letters, COUNT_OF(mid_letters));
}

/* Final_Sigma of SpecialCasing.txt: a cased letter before it and none after. */
static bool is_final_sigma(const char *s, size_t n, size_t at)
{
    bool before = false;
    uint32_t cp;
    for (size_t i = at; i > 0;) {
        i -= jinja_unicode_last(s, i);
        jinja_unicode_get(s + i, n - i, &cp);
        if (!is_case_ignorable(cp)) {
            before = is_cased(cp);
            break;
        }
    }
    for (size_t i = at + 2; before && i < n;) {
        i += jinja_unicode_get(s + i, n - i, &cp);
        if (!is_case_ignorable(cp)) {
            return !is_cased(cp);
        }
    }
    return before;
}

static const struct special *find_special(uint32_t cp)
{
    size_t low = 0, high = COUNT_OF(specials);
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (specials[mid].cp == cp) {
            return &specials[mid];
        }
        if (specials[mid].cp < cp) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* Gathers characters, to print many at once. */
struct gather {
    struct jinja *j;
    size_t n;
    char text[256];
};

static void flush(struct gather *g)
{
    jinja_put(g->j, g->text, g->n);
    g->n = 0;
}

static void put_cp(struct gather *g, uint32_t cp)
{
    if (g->n > sizeof(g->text) - 4) {
        flush(g);
    }
    g->n += (size_t)utf8_encode(cp, g->text + g->n);
}

static void put_raised(struct gather *g, uint32_t cp, bool title)
{
    const struct special *sp = cp >= 0xDF ? find_special(cp) : NULL;
    if (sp) {
        const uint16_t *to = title ? sp->title : sp->upper;
        for (int i = 0; i < 3 && to[i]; i++) {
            put_cp(g, to[i]);
        }
    } else if (cp >= 0x1F80 && cp <= 0x1FAF && !title) {
        /* Greek letters with iota below: the plain capital and a capital iota. */
        static const uint16_t capitals[] = {0x1F08, 0x1F28, 0x1F68};
        put_cp(g, capitals[(cp - 0x1F80) >> 4] + (cp & 7));
        put_cp(g, 0x0399);
    } else {
        utf8proc_int32_t c = (utf8proc_int32_t)cp;
        put_cp(g, (uint32_t)(title ? utf8proc_totitle(c) : utf8proc_toupper(c)));
    }
}

static void put_lowered(struct gather *g, const char *s, size_t n, size_t at, uint32_t cp)
{
    if (cp == 0x130) {
        put_cp(g, 'i');
        put_cp(g, 0x307);
    } else if (cp == 0x3A3 && is_final_sigma(s, n, at)) {
        put_cp(g, 0x3C2);
    } else {
        put_cp(g, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    }
}

static void put_folded(struct gather *g, uint32_t cp)
{
    utf8proc_int32_t to[8];
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, to, COUNT_OF(to),
                                                 UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < (utf8proc_ssize_t)COUNT_OF(to); i++) {
        put_cp(g, (uint32_t)to[i]);
    }
}

/* A character in ASCII needs no table. */
static uint32_t map_ascii(uint32_t c, enum jinja_case to, bool first)
{
    bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
    bool raise = to == JINJA_TO_UPPER || to == JINJA_TO_SWAPPED || first;
    if (lower && raise) {
        return c - 32;
    }
    return upper && (to == JINJA_TO_SWAPPED || !raise) ? c + 32 : c;
}

void jinja_unicode_put(struct jinja *j, const char *s, size_t n, enum jinja_case to)
{
    struct gather g = {.j = j};
    bool in_word = false;
    jinja_step(j, n / 4);
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t cp;
        len = jinja_unicode_get(s + at, n - at, &cp);
        bool first = (to == JINJA_TO_TITLE && !in_word) || (to == JINJA_TO_CAPITAL && at == 0);
        if (cp < 0x80) {
            uint32_t mapped = map_ascii(cp, to, first);
            put_cp(&g, mapped);
            in_word = (mapped | 0x20) >= 'a' && (mapped | 0x20) <= 'z';
            continue;
        }
        jinja_step(j, 3);
        in_word = to == JINJA_TO_TITLE && is_cased(cp);
        if (to == JINJA_TO_UPPER || (to == JINJA_TO_SWAPPED && jinja_unicode_is(cp, JINJA_LOWER))) {
            put_raised(&g, cp, false);
        } else if (first) {
            put_raised(&g, cp, true);
        } else if (to == JINJA_TO_FOLDED) {
            put_folded(&g, cp);
        } else if (to != JINJA_TO_SWAPPED || jinja_unicode_is(cp, JINJA_UPPER)) {
            put_lowered(&g, s, n, at, cp);
        } else {
            put_cp(&g, cp);
        }
    }
    flush(&g);
}

struct jinja_value jinja_unicode_map(struct jinja *j, const char *s, size_t n, enum jinja_case to)
{
    size_t mark = jinja_capture(j);
    jinja_unicode_put(j, s, n, to);
    return jinja_captured(j, mark);
}

struct jinja_value jinja_unicode_trim(struct jinja_value s, bool left, bool right)
{
    uint32_t cp;
    while (left && s.n) {
        size_t len = jinja_unicode_get(s.s, s.n, &cp);
        if (!jinja_unicode_is(cp, JINJA_SPACE)) {
            break;
        }
        s.s += len;
        s.n -= (uint32_t)len;
    }
    while (right && s.n) {
        size_t len = jinja_unicode_last(s.s, s.n);
        jinja_unicode_get(s.s + s.n - len, len, &cp);
        if (!jinja_unicode_is(cp, JINJA_SPACE)) {
            break;
        }
        s.n -= (uint32_t)len;
    }
    return s;
}
