/* The API key file: keys for everybody, keys of administrators, and what is neither. */
#include "gateway/auth.h"
#include "ipc/memfd.h"
#include "tests/test.h"

static int read_keys(const char *text, struct auth *a)
{
    struct err e;
    int fd = memfd_create_const("keys", text, strlen(text));
    CHECK(fd >= 0);
    int rc = auth_read(fd, a, &e);
    close(fd);
    return rc;
}

static enum auth_verdict check(const struct auth *a, const char *key)
{
    return auth_check(a, key, strlen(key));
}

int main(void)
{
    static struct auth a;
    CHECK_INT(read_keys("# keys\none\n two \r\nadmin boss\nadmin\tchief\nadministrator\n", &a), 0);
    CHECK_INT(check(&a, "one"), AUTH_USER);
    CHECK_INT(check(&a, "two"), AUTH_USER);
    CHECK_INT(check(&a, "boss"), AUTH_ADMIN);
    CHECK_INT(check(&a, "chief"), AUTH_ADMIN);
    CHECK_INT(check(&a, "administrator"), AUTH_USER);
    CHECK_INT(check(&a, "admin"), AUTH_UNKNOWN);
    CHECK_INT(check(&a, "admin boss"), AUTH_UNKNOWN);
    CHECK_INT(check(&a, ""), AUTH_UNKNOWN);

    /* A key is missing: not a key "admin" for everybody. The keys before stay. */
    static const char *const bad[] = {"admin\n", "one\nadmin \n", "admin \t\r\n", "admin", "\n#\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        CHECK_INT(read_keys(bad[i], &a), ERR_CONFIG);
        CHECK_INT(check(&a, "boss"), AUTH_ADMIN);
    }
    return 0;
}
