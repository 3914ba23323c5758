/* Which firmware is warned of. */
#include "safety/firmware.h"
#include "tests/safety/tree.h"
#include "tests/test.h"

static char root[] = "/tmp/rocmforge-firmware-XXXXXX";

int main(void)
{
    static const struct {
        const char *gfx;
        unsigned version;
        bool is_bad;
    } rows[] = {{"gfx1151", 0x83, true},  {"gfx1151", 0x80, false}, {"gfx1151", 0x84, false},
                {"gfx1100", 0x83, false}, {"gfx1201", 0x8a, true},  {"gfx1200", 0x8b, false},
                {"gfx1201", 0, false},    {"", 0x83, false}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct firmware_fault *f = firmware_look_up(rows[i].gfx, rows[i].version);
        CHECK((f != NULL) == rows[i].is_bad);
        CHECK(!f || (*f->what && *f->fix));
    }
    struct gpu g = {.gfx = "gfx1151", .render_minor = 128};
    unsigned version = 0;
    CHECK(mkdtemp(root));
    CHECK(!firmware_check(root, &g, &version)); /* a driver that does not tell */
    tree_put(root, "/sys/class/drm/renderD128/device/fw_version/mes_fw_version", "0x00000083\n");
    CHECK(firmware_check(root, &g, &version) && version == 0x83);
    tree_remove(root);
    return 0;
}
