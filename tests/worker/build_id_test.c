/* The program knows its own build: what the linker wrote, as another program reads it. */
#include "tests/test.h"
#include "worker/build_id.h"

int main(int argc, char **argv)
{
    (void)argc;
    size_t n;
    const uint8_t *id = build_id(&n);
    char text[160] = "", command[512], line[160] = "";
    CHECK(n >= 8 && n <= 64);
    for (size_t i = 0; i < n; i++) {
        snprintf(text + 2 * i, sizeof(text) - 2 * i, "%02x", id[i]);
    }
    snprintf(command, sizeof(command), "readelf -n '%s' | sed -n 's/.*Build ID: *//p'", argv[0]);
    FILE *p = popen(command, "r");
    CHECK(p);
    if (!fgets(line, sizeof(line), p)) {
        TEST_SKIP("no readelf, or a program without build id");
    }
    pclose(p);
    line[strcspn(line, "\n")] = '\0';
    CHECK_STR(line, text);
    return 0;
}
