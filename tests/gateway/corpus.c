#include "tests/gateway/corpus.h"
#include "tests/test.h"

/* Expands escapes; {{N:text}} may hold another one. */
static void expand(struct buf *out, const char *s, const char *end)
{
    while (s < end) {
        if (s[0] == '{' && s[1] == '{') {
            char *text;
            long n = strtol(s + 2, &text, 10);
            CHECK(n > 0 && *text == ':');
            const char *close = ++text;
            for (int depth = 1; depth > 0; close++) {
                CHECK(close + 1 < end);
                if (close[0] == '{' && close[1] == '{') {
                    depth++;
                    close++;
                } else if (close[0] == '}' && close[1] == '}') {
                    depth--;
                    close++;
                }
            }
            for (long i = 0; i < n; i++) {
                expand(out, text, close - 2);
            }
            s = close;
        } else if (s[0] == '\\') {
            char hex[3] = {0};
            switch (s[1]) {
            case 'x':
                memcpy(hex, s + 2, 2);
                buf_char(out, (char)strtol(hex, NULL, 16));
                s += 4;
                continue;
            case 'r':
                buf_char(out, '\r');
                break;
            case 'n':
                buf_char(out, '\n');
                break;
            case 't':
                buf_char(out, '\t');
                break;
            default:
                buf_char(out, s[1]);
            }
            s += 2;
        } else {
            buf_char(out, *s++);
        }
    }
}

int corpus_each(const char *path, void (*fn)(const struct corpus_case *c, void *arg), void *arg)
{
    FILE *f = fopen(path, "r");
    CHECK(f);
    char *line = NULL;
    size_t cap = 0;
    int n = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, f)) > 0) {
        line[len - 1] = 0;
        if (line[0] == '#' || line[0] == 0) {
            continue;
        }
        char *expected = strchr(line, '\t');
        CHECK(expected);
        *expected++ = 0;
        char *bytes = strchr(expected, '\t');
        CHECK(bytes);
        *bytes++ = 0;
        struct corpus_case c = {0};
        CHECK(strlen(line) < sizeof(c.name) && strlen(expected) < sizeof(c.expected));
        memcpy(c.name, line, strlen(line));
        memcpy(c.expected, expected, strlen(expected));
        buf_init(&c.bytes, 0);
        buf_str(&c.bytes, "");
        expand(&c.bytes, bytes, bytes + strlen(bytes));
        fn(&c, arg);
        buf_finish(&c.bytes);
        n++;
    }
    free(line);
    fclose(f);
    return n;
}
