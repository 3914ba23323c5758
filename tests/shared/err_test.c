/* The error table keeps its promises, and errors read well. */
#include "tests/test.h"
#include "shared/err.h"

#include <errno.h>

static void the_table_is_sound(void)
{
    for (int i = 0; i < ERR_INDEX_COUNT; i++) {
        int code = -(ERR_BASE + i);
        const char *name = err_code(code);
        CHECK(*name && strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(name));
        CHECK(*err_type(code) && *err_text(code) && *err_remedy(code));
        CHECK(err_http(code) >= 400 && err_http(code) <= 599);
        CHECK(err_exit_code(code) > 0 && err_exit_code(code) < 128);
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(name, err_code(-(ERR_BASE + j))) != 0);
        }
    }
}

static void foreign_codes(void)
{
    static const int codes[] = {
        -ENOENT, -EACCES, -(ERR_BASE + ERR_INDEX_COUNT), -ERR_BASE + 1, 0, -9999, 1, INT32_MIN + 1};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        CHECK_STR(err_code(codes[i]), "system_error");
        CHECK_INT(err_http(codes[i]), 500);
        CHECK(*err_text(codes[i]));
    }
    CHECK_STR(err_text(-ENOENT), "No such file or directory");
}

static void words(void)
{
    struct err e = {0};
    char text[128];
    CHECK_INT(err_set(&e, ERR_BAD_FIELD, "field '%s' is %d", "temperature", 9), ERR_BAD_FIELD);
    CHECK_INT(e.code, ERR_BAD_FIELD);
    CHECK_STR(err_format(&e, text, sizeof(text)),
              "a field is out of range or of the wrong type: field 'temperature' is 9; correct the "
              "named field");
    CHECK_STR(err_format(&e, text, 8), "a field");
    e.detail[0] = 0;
    e.code = -ENOENT;
    CHECK_STR(err_format(&e, text, sizeof(text)), "No such file or directory");
    CHECK_INT(err_set(NULL, -EIO, "x"), -EIO);
    CHECK_INT(err_set(&e, -EIO, "%01000d", 7), -EIO); /* cut, terminated */
    CHECK_INT(strlen(e.detail), ERR_DETAIL_BYTES - 1);
}

int main(void)
{
    the_table_is_sound();
    foreign_codes();
    words();
    CHECK_INT(err_exit_code(ERR_GGUF_BAD), EXIT_MODEL);
    CHECK_INT(err_exit_code(ERR_USAGE), EXIT_USAGE);
    CHECK_INT(err_exit_code(ERR_CONFIG), EXIT_CONFIG);
    CHECK_INT(err_exit_code(-ENOMEM), EXIT_HOST_MEMORY);
    return 0;
}
