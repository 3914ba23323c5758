/* Strict number parsing. Pure. */
#include "shared/num.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool num_parse_u64(const char *text, uint64_t *ret)
{
    if (!*text) {
        return false;
    }
    uint64_t v = 0;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || !num_mul(v, 10, &v) || !num_add(v, (uint64_t)(*p - '0'), &v)) {
            return false;
        }
    }
    *ret = v;
    return true;
}

bool num_parse_i64(const char *text, int64_t *ret)
{
    bool is_negative = *text == '-';
    uint64_t v;
    if (!num_parse_u64(text + is_negative, &v) || v > (uint64_t)INT64_MAX + is_negative) {
        return false;
    }
    *ret = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool num_parse_f64(const char *text, double *ret)
{
    /* strtod also takes spaces, hexadecimal, "inf" and "nan"; none of these is a setting. */
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) {
        return false;
    }
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (*end || errno || !isfinite(v)) {
        return false;
    }
    *ret = v;
    return true;
}
