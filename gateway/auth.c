/* API keys (see auth.h). Runs on the gateway's loop; auth_read reads a regular file once per
 * configuration. */
#include "gateway/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

size_t auth_line(const char *s, size_t n, const char **ret_key, bool *ret_is_admin)
{
    static const char word[] = "admin";
    size_t n_word = strlen(word);
    while (n && is_space(s[n - 1])) {
        n--;
    }
    while (n && is_space(*s)) {
        s++;
        n--;
    }
    *ret_is_admin =
        n >= n_word && memcmp(s, word, n_word) == 0 && (n == n_word || is_space(s[n_word]));
    if (n == 0 || *s == '#') {
        return 0;
    }
    size_t skip = *ret_is_admin ? n_word : 0;
    while (skip < n && is_space(s[skip])) {
        skip++;
    }
    *ret_key = s + skip;
    return n - skip;
}

static int add_line(struct auth *a, const char *s, size_t n, struct err *e)
{
    const char *key;
    bool is_admin;
    size_t n_key = auth_line(s, n, &key, &is_admin);
    if (n_key == 0 && !is_admin) {
        return 0;
    }
    if (a->n == LIMIT_API_KEYS) {
        return err_set(e, ERR_CONFIG, "the API key file holds more than %d keys", LIMIT_API_KEYS);
    }
    if (n_key == 0) { /* a key "admin" for everybody is not what its writer meant */
        return err_set(e, ERR_CONFIG, "the API key file has a line 'admin' without a key");
    }
    a->is_admin[a->n] = is_admin;
    hash_sha256(key, n_key, a->digests[a->n++]);
    return 0;
}

int auth_read(int fd, struct auth *ret, struct err *e)
{
    static char text[AUTH_FILE_BYTES + 1];
    size_t n = 0;
    ssize_t got;
    while ((got = pread(fd, text + n, sizeof(text) - n, (off_t)n)) > 0) {
        n += (size_t)got;
    }
    if (got < 0) {
        return err_set(e, -errno, "reading the API key file");
    }
    if (n > AUTH_FILE_BYTES) {
        return err_set(e, ERR_CONFIG, "the API key file is larger than %d bytes", AUTH_FILE_BYTES);
    }
    static struct auth a;
    a = (struct auth){.is_on = true};
    int rc = 0;
    for (size_t at = 0; at < n && rc == 0;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - text) - at : n - at;
        rc = add_line(&a, text + at, len, e);
        at += len + 1;
    }
    explicit_bzero(text, sizeof(text));
    if (rc == 0 && a.n == 0) {
        rc = err_set(e, ERR_CONFIG, "the API key file holds no key");
    }
    if (rc == 0) {
        *ret = a;
    }
    return rc;
}

enum auth_verdict auth_check(const struct auth *a, const char *key, size_t n)
{
    uint8_t digest[HASH_SHA256_BYTES];
    hash_sha256(key, n, digest);
    unsigned found = 0, is_admin = 0;
    for (size_t i = 0; i < a->n; i++) {
        unsigned differs = 0;
        for (size_t j = 0; j < sizeof(digest); j++) {
            differs |= (unsigned)(digest[j] ^ a->digests[i][j]);
        }
        found |= (differs - 1u) >> 31; /* 1 when differs is 0 */
        is_admin |= (differs - 1u) >> 31 & a->is_admin[i];
    }
    return is_admin ? AUTH_ADMIN : found ? AUTH_USER : AUTH_UNKNOWN;
}

const char *auth_bearer(const char *header, size_t n, size_t *ret_n)
{
    static const char scheme[] = "Bearer ";
    size_t skip = strlen(scheme);
    if (n <= skip || strncasecmp(header, scheme, skip) != 0) {
        return NULL;
    }
    while (skip < n && header[skip] == ' ') {
        skip++;
    }
    *ret_n = n - skip;
    return header + skip;
}
