/* Settings from a memfd (see settings.h). Any child; pure but for the mapping. */
#include "ipc/settings.h"
#include "ipc/memfd.h"

enum { CONFIG_BYTES = 4 * 1024 * 1024 };

int settings_read(int fd, struct config *ret, struct err *e)
{
    void *map = NULL;
    size_t bytes = 0;
    struct config c;
    int rc = memfd_map(fd, 0, CONFIG_BYTES, true, false, &map, &bytes);
    if (rc < 0) {
        return err_set(e, rc, "the configuration is not a sealed memfd");
    }
    config_init(&c);
    rc = config_decode(&c, map, bytes, e);
    memfd_unmap(map, bytes);
    if (rc < 0) {
        config_finish(&c);
        return rc;
    }
    *ret = c;
    return 0;
}
