/* Host and Origin checks. Pure. */
#include "gateway/origin.h"

#include <string.h>
#include <strings.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_name_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_';
}

bool origin_split(const char *authority, size_t n, size_t *ret_n_host)
{
    size_t host = 0;
    if (n && authority[0] == '[') {
        for (host = 1; host < n && (is_hex(authority[host]) || authority[host] == ':' ||
                                    authority[host] == '.');) {
            host++;
        }
        if (host < 4 || host >= n || authority[host] != ']') {
            return false;
        }
        host++;
    } else {
        while (host < n && is_name_char(authority[host])) {
            host++;
        }
    }
    if (host == 0) {
        return false;
    }
    if (host < n) {
        if (authority[host] != ':') {
            return false;
        }
        size_t n_port = n - host - 1;
        unsigned port = 0;
        if (n_port > 5) {
            return false;
        }
        for (size_t i = host + 1; i < n; i++) {
            if (!is_digit(authority[i])) {
                return false;
            }
            port = port * 10 + (unsigned)(authority[i] - '0');
        }
        if (port > 65535) {
            return false;
        }
    }
    *ret_n_host = host;
    return true;
}

static bool equals(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

/* Four decimal parts: what a browser takes for an address. A name such as "1.2.3.4.evil.com" is
 * not. */
static bool is_ipv4(const char *s, size_t n)
{
    int parts = 0;
    size_t i = 0;
    while (i < n) {
        unsigned part = 0;
        size_t first = i;
        while (i < n && is_digit(s[i]) && i - first < 3) {
            part = part * 10 + (unsigned)(s[i++] - '0');
        }
        if (i == first || part > 255 || ++parts > 4) {
            return false;
        }
        if (i < n && s[i++] != '.') {
            return false;
        }
    }
    return parts == 4 && s[n - 1] != '.';
}

bool origin_host_ok(const struct config_list *allowed, const char *authority, size_t n)
{
    static const char local[] = ".localhost";
    size_t n_host;
    if (!origin_split(authority, n, &n_host)) {
        return false;
    }
    if (authority[0] == '[' || is_ipv4(authority, n_host) || equals(authority, n_host, local + 1) ||
        (n_host > strlen(local) &&
         equals(authority + n_host - strlen(local), strlen(local), local))) {
        return true;
    }
    for (size_t i = 0; i < allowed->n; i++) {
        if (equals(authority, n_host, allowed->items[i])) {
            return true;
        }
    }
    return false;
}

enum origin_verdict origin_judge(const struct config_list *cors, const char *host, size_t n_host,
                                 const char *origin, size_t n_origin)
{
    if (!origin) {
        return ORIGIN_SAME;
    }
    for (size_t i = 0; i < cors->n; i++) {
        if (strcmp(cors->items[i], "*") == 0 || equals(origin, n_origin, cors->items[i])) {
            return ORIGIN_CROSS;
        }
    }
    /* Same origin: "scheme://" and then exactly what Host says. */
    const char *colon = memchr(origin, ':', n_origin);
    size_t scheme = colon ? (size_t)(colon - origin) : n_origin;
    if (scheme + 3 < n_origin && memcmp(colon, "://", 3) == 0 && n_host > 0 &&
        n_origin - scheme - 3 == n_host && strncasecmp(colon + 3, host, n_host) == 0) {
        return ORIGIN_SAME;
    }
    return ORIGIN_REFUSED;
}
