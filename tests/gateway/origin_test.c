/* Host and Origin: what a rebinding page can say is refused, what people type is not. */
#include "gateway/origin.h"
#include "tests/test.h"

static bool host_ok(const char *host)
{
    char name[] = "workstation.lan", *names[] = {name};
    const struct config_list allowed = {1, names};
    return origin_host_ok(&allowed, host, strlen(host));
}

static enum origin_verdict judge(const char *host, const char *origin, const char *cors)
{
    char item[64];
    snprintf(item, sizeof(item), "%s", cors ? cors : "");
    char *items[] = {item};
    const struct config_list list = {cors ? 1 : 0, items};
    return origin_judge(&list, host, strlen(host), origin, origin ? strlen(origin) : 0);
}

int main(void)
{
    static const char *const good[] = {"localhost",       "LOCALHOST:8080",      "a.localhost",
                                       "127.0.0.1",       "127.0.0.1:8080",      "10.1.2.3:80",
                                       "[::1]",           "[::1]:8080",          "[fe80::1]:1",
                                       "workstation.lan", "Workstation.LAN:8080"};
    static const char *const evil[] = {"evil.com",
                                       "evil.com:8080",
                                       "localhost.evil.com",
                                       "xlocalhost",
                                       "127.0.0.1.evil.com",
                                       "127.0.0.1.",
                                       "1.2.3",
                                       "1.2.3.4.5",
                                       "256.1.1.1",
                                       "1..2.3",
                                       "",
                                       ":80",
                                       "a@localhost",
                                       "localhost:80x",
                                       "[::1",
                                       "[::1]x",
                                       "[]",
                                       "workstation.lan.evil.com",
                                       "lan"};
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        if (!host_ok(good[i])) {
            TEST_FAIL("%s is refused", good[i]);
        }
    }
    for (size_t i = 0; i < COUNT_OF(evil); i++) {
        if (host_ok(evil[i])) {
            TEST_FAIL("%s is taken", evil[i]);
        }
    }
    CHECK_INT(judge("localhost:8080", NULL, NULL), ORIGIN_SAME);
    CHECK_INT(judge("localhost:8080", "http://localhost:8080", NULL), ORIGIN_SAME);
    CHECK_INT(judge("localhost:8080", "http://localhost:3000", NULL), ORIGIN_REFUSED);
    CHECK_INT(judge("127.0.0.1:8080", "https://evil.com", NULL), ORIGIN_REFUSED);
    CHECK_INT(judge("127.0.0.1:8080", "null", NULL), ORIGIN_REFUSED);
    CHECK_INT(judge("127.0.0.1:8080", "", NULL), ORIGIN_REFUSED);
    CHECK_INT(judge("127.0.0.1:8080", "://127.0.0.1:8080x", NULL), ORIGIN_REFUSED);
    CHECK_INT(judge("a", "http://ui.lan", "http://ui.lan"), ORIGIN_CROSS);
    CHECK_INT(judge("a", "http://UI.lan", "http://ui.lan"), ORIGIN_CROSS);
    CHECK_INT(judge("a", "http://ui.lan.evil", "http://ui.lan"), ORIGIN_REFUSED);
    CHECK_INT(judge("a", "anything", "*"), ORIGIN_CROSS);
    return 0;
}
