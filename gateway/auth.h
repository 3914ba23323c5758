/* API keys. Only their SHA-256 digests are kept, and every presented key is compared with all of
 * them in constant time, so that neither length nor content shows in the time taken. */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include "shared/err.h"
#include "shared/hash.h"
#include "shared/limits.h"

struct auth {
    bool is_on; /* keys are asked for */
    size_t n;
    uint8_t digests[LIMIT_API_KEYS][HASH_SHA256_BYTES];
    bool is_admin[LIMIT_API_KEYS];
};

enum { AUTH_FILE_BYTES = 64 * 1024 }; /* a key file has no more */

/* Reads "one key a line" from an open file (empty lines and lines that begin with '#' are skipped;
 * "admin KEY" is a key that may administer as well), from its beginning. *ret is untouched on
 * failure. Errors: ERR_CONFIG (no key, too many, too long), -errno. */
MUST_CHECK int auth_read(int fd, struct auth *ret, struct err *e);

enum auth_verdict { AUTH_UNKNOWN, AUTH_USER, AUTH_ADMIN };
enum auth_verdict auth_check(const struct auth *a, const char *key, size_t n);

/* The key in "Bearer KEY"; NULL when the header says something else. */
const char *auth_bearer(const char *header, size_t n, size_t *ret_n);

/* The key in one line of a key file (n bytes, without its end), within s; returns its length, 0:
 * none (of an empty line, a comment, or 'admin' alone, with which *ret_is_admin is true). */
size_t auth_line(const char *s, size_t n, const char **ret_key, bool *ret_is_admin);

#endif
