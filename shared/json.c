/* JSON over jansson. Any process, any thread. Jansson's parser recurses and counts nothing, so a
 * single pass over the bytes bounds depth and items before it sees them. */
#include "shared/json.h"
#include "shared/limits.h"
#include "shared/utf8.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Upper bounds suffice: brackets within strings are skipped, everything else is jansson's to judge.
 */
static int check_limits(const char *text, size_t n, struct err *e)
{
    const char *zero = n ? memchr(text, 0, n) : NULL;
    if (zero) { /* jansson overlooks one after a number */
        return err_set(e, ERR_BAD_JSON, "a zero byte at byte %td", zero - text);
    }
    size_t depth = 0, items = 1;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > LIMIT_JSON_DEPTH) {
                return err_set(e, ERR_BAD_JSON, "nested deeper than %d at byte %zu",
                               LIMIT_JSON_DEPTH, i);
            }
            items++;
        } else if (c == ',') {
            items++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
        if (items > LIMIT_JSON_ITEMS) {
            return err_set(e, ERR_BAD_JSON, "more than %d items at byte %zu", LIMIT_JSON_ITEMS, i);
        }
    }
    return 0;
}

int json_parse(const char *text, size_t n, json_t **ret, struct err *e)
{
    if (n > LIMIT_BULK_BYTES) {
        return err_set(e, ERR_BAD_JSON, "%zu bytes, allowed %d", n, LIMIT_BULK_BYTES);
    }
    int rc = check_limits(text, n, e);
    if (rc < 0) {
        return rc;
    }
    json_error_t je = {0};
    json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!v && !*je.text) { /* what jansson says when an allocation fails is nothing */
        return err_set(e, -ENOMEM, "while parsing %zu bytes of JSON", n);
    }
    if (!v) {
        /* Jansson quotes the text near the error; that may be a prompt, which no log may hold. */
        char *near = strstr(je.text, " near ");
        if (near) {
            *near = 0;
        }
        return err_set(e, ERR_BAD_JSON, "%s at line %d, column %d", je.text, MAX(je.line, 1),
                       MAX(je.column, 0));
    }
    *ret = v;
    return 0;
}

void json_put_string(struct buf *b, const char *s, size_t n)
{
    buf_char(b, '"');
    size_t plain = 0; /* bytes before i that need no change and are not yet added */
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        unsigned char c = (unsigned char)s[i];
        int len = c >= 0x80 ? utf8_decode(s + i, n - i, &cp) : 1;
        if (len > 0 && c >= 0x20 && c != '"' && c != '\\') {
            i += (size_t)len;
            plain += (size_t)len;
            continue;
        }
        buf_add(b, s + i - plain, plain);
        plain = 0;
        if (len <= 0) {
            buf_str(b, "\xEF\xBF\xBD");
            i += utf8_invalid_part(s + i, n - i);
            continue;
        }
        i++;
        switch (c) {
        case '"':
            buf_str(b, "\\\"");
            break;
        case '\\':
            buf_str(b, "\\\\");
            break;
        case '\n':
            buf_str(b, "\\n");
            break;
        case '\r':
            buf_str(b, "\\r");
            break;
        case '\t':
            buf_str(b, "\\t");
            break;
        default:
            buf_printf(b, "\\u%04x", c);
        }
    }
    buf_add(b, s + n - plain, plain);
    buf_char(b, '"');
}

void json_put_number(struct buf *b, double v)
{
    if (!isfinite(v)) {
        buf_str(b, "null");
        return;
    }
    /* 15 digits survive any normal double; subnormals hold fewer, so there all are tried. */
    char text[32];
    for (int digits = fabs(v) < DBL_MIN ? 1 : DBL_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    buf_str(b, text);
}

static void put_real(struct buf *b, double v)
{
    size_t at = b->len;
    json_put_number(b, v);
    if (!b->failed && isfinite(v) && !strpbrk(b->data + at, ".e")) {
        buf_str(b, ".0"); /* what was read as a real is read as one again */
    }
}

/* Recursion is bounded: json_parse refuses depth, and our own values are shallow. */
void json_put_value(struct buf *b, const json_t *v)
{
    const char *comma = "";
    switch (json_typeof(v)) {
    case JSON_OBJECT: {
        buf_char(b, '{');
        json_t *object = (json_t *)(uintptr_t)v; /* jansson's iterators know no const */
        for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
            const char *key = json_object_iter_key(it);
            buf_str(b, comma);
            json_put_string(b, key, strlen(key));
            buf_char(b, ':');
            json_put_value(b, json_object_iter_value(it));
            comma = ",";
        }
        buf_char(b, '}');
        break;
    }
    case JSON_ARRAY:
        buf_char(b, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            buf_str(b, comma);
            json_put_value(b, json_array_get(v, i));
            comma = ",";
        }
        buf_char(b, ']');
        break;
    case JSON_STRING:
        json_put_string(b, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        put_real(b, json_real_value(v));
        break;
    case JSON_TRUE:
        buf_str(b, "true");
        break;
    case JSON_FALSE:
        buf_str(b, "false");
        break;
    case JSON_NULL:
        buf_str(b, "null");
        break;
    }
}
