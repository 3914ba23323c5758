/* UTF-8. Pure. The ranges are table 3-7 of the Unicode standard. */
#include "shared/utf8.h"

#include <string.h>

int utf8_decode(const char *s, size_t n, uint32_t *ret_cp)
{
    if (n == 0) {
        return 0;
    }
    const unsigned char *u = (const unsigned char *)s;
    unsigned b = u[0];
    if (b < 0x80) {
        *ret_cp = b;
        return 1;
    }
    int len = b < 0xC2 ? -1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : b < 0xF5 ? 4 : -1;
    if (len < 0) {
        return -1;
    }
    unsigned lo = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    unsigned hi = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    uint32_t cp = b & (0x7Fu >> len);
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n) {
            return 0;
        }
        if (u[i] < lo || u[i] > hi) {
            return -1;
        }
        lo = 0x80;
        hi = 0xBF;
        cp = cp << 6 | (u[i] & 0x3Fu);
    }
    *ret_cp = cp;
    return len;
}

int utf8_encode(uint32_t cp, char out[4])
{
    unsigned char *u = (unsigned char *)out;
    if (cp < 0x80) {
        u[0] = (unsigned char)cp;
        return 1;
    }
    if (cp < 0x800) {
        u[0] = (unsigned char)(0xC0 | cp >> 6);
        u[1] = (unsigned char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xD800 && cp < 0xE000) {
            return 0;
        }
        u[0] = (unsigned char)(0xE0 | cp >> 12);
        u[1] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
        u[2] = (unsigned char)(0x80 | (cp & 0x3F));
        return 3;
    }
    if (cp > 0x10FFFF) {
        return 0;
    }
    u[0] = (unsigned char)(0xF0 | cp >> 18);
    u[1] = (unsigned char)(0x80 | (cp >> 12 & 0x3F));
    u[2] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
    u[3] = (unsigned char)(0x80 | (cp & 0x3F));
    return 4;
}

bool utf8_is_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(s + i, n - i, &cp);
        if (len <= 0) {
            return false;
        }
        i += (size_t)len;
    }
    return true;
}

size_t utf8_complete_prefix(const char *s, size_t n)
{
    /* Only the last three bytes can be the beginning of something unfinished. */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint32_t cp;
        if (((unsigned char)s[n - back] & 0xC0) != 0x80) {
            return utf8_decode(s + n - back, back, &cp) == 0 ? n - back : n;
        }
    }
    return n;
}

size_t utf8_invalid_part(const char *s, size_t n)
{
    uint32_t cp;
    size_t bad = 1;
    while (bad < n && bad < 3 && utf8_decode(s, bad + 1, &cp) == 0) {
        bad++;
    }
    return bad;
}

size_t utf8_repair(const char *s, size_t n, char *out)
{
    size_t o = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(s + i, n - i, &cp);
        if (len > 0) {
            memcpy(out + o, s + i, (size_t)len);
            o += (size_t)len;
            i += (size_t)len;
            continue;
        }
        o += (size_t)utf8_encode(0xFFFD, out + o);
        i += utf8_invalid_part(s + i, n - i);
    }
    return o;
}

size_t utf8_tame(const char *s, size_t n, char *out)
{
    size_t len = utf8_repair(s, n, out), at = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)out[i];
        bool is_c1 = c == 0xc2 && i + 1 < len && (unsigned char)out[i + 1] < 0xa0;
        i += is_c1;
        out[at++] = (char)(c < 0x20 || c == 0x7f || is_c1 ? ' ' : c);
    }
    return at;
}
