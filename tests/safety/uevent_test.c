/* Uevents as kernels send them, and as they do not. The texts are those of
 * Documentation/gpu/drm-uapi and of real cards' `udevadm monitor --kernel --property`. */
#include "safety/uevent.h"
#include "tests/test.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CARD "0000:03:00.0"
#define PATH "/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"

#define WEDGED_BY(who)                                                                             \
    "change@" PATH "/drm/card0\0ACTION=change\0DEVPATH=" PATH "/drm/card0\0SUBSYSTEM=drm\0"        \
    "WEDGED=rebind,bus-reset\0" who "MAJOR=226\0MINOR=0\0DEVNAME=dri/card0\0SEQNUM=4711"

static struct uevent parse(const char *text, size_t n)
{
    struct uevent e;
    uevent_parse(text, n, CARD, &e);
    return e;
}
#define PARSE(text) parse(text, sizeof(text))

static void test_kinds(void)
{
    struct uevent e = PARSE(WEDGED_BY(""));
    CHECK(e.kind == UEVENT_WEDGED && e.pid == 0 && strcmp(e.remedy, "rebind,bus-reset") == 0);
    e = PARSE(WEDGED_BY("PID=4242\0TASK=game\0"));
    CHECK(e.kind == UEVENT_WEDGED && e.pid == 4242);
    e = PARSE("change@" PATH "/drm/card0\0ACTION=change\0DEVPATH=" PATH
              "/drm/card0\0SUBSYSTEM=drm\0WEDGED=none\0"
              "PID=77\0SEQNUM=1");
    CHECK(e.kind == UEVENT_RECOVERED && e.pid == 77);
    e = PARSE("bind@" PATH "\0ACTION=bind\0DEVPATH=" PATH
              "\0SUBSYSTEM=pci\0DRIVER=amdgpu\0SEQNUM=2");
    CHECK(e.kind == UEVENT_BACK);
}

static void test_others(void)
{
    CHECK(PARSE("change@" PATH "/drm/card0\0ACTION=change\0DEVPATH=" PATH
                "/drm/card0\0SUBSYSTEM=drm\0HOTPLUG=1\0"
                "CONNECTOR=92\0SEQNUM=3")
              .kind == UEVENT_OTHER);
    CHECK(PARSE("unbind@" PATH "\0ACTION=unbind\0DEVPATH=" PATH "\0SUBSYSTEM=pci\0SEQNUM=3").kind ==
          UEVENT_OTHER);
    struct uevent e;
    uevent_parse(WEDGED_BY(""), sizeof(WEDGED_BY("")), "0000:0e:00.0", &e);
    CHECK(e.kind == UEVENT_OTHER);
    uevent_parse(WEDGED_BY(""), sizeof(WEDGED_BY("")), "0000:03:00", &e); /* not a whole name */
    CHECK(e.kind == UEVENT_OTHER);
    uevent_parse(WEDGED_BY(""), sizeof(WEDGED_BY("")), "", &e);
    CHECK(e.kind == UEVENT_OTHER);
}

static void test_damaged(void)
{
    static const char text[] = WEDGED_BY("PID=99999999999999999999\0");
    struct uevent e;
    for (size_t n = 0; n <= sizeof(text); n++) { /* in memory of its own, for the sanitizers */
        char *copy = malloc(n ? n : 1);
        memcpy(copy, text, n);
        uevent_parse(copy, n, CARD, &e);
        CHECK(e.kind == UEVENT_OTHER || (n > 0 && copy[n - 1] == '\0'));
        free(copy);
    }
    CHECK(PARSE("libudev\0\xfe\xed\xca\xfe").kind == UEVENT_OTHER);
    e = PARSE(
        "x\0DEVPATH=" PATH
        "\0SUBSYSTEM=drm\0WEDGED=\x1b[2J\xff-012345678901234567890123456789012345678901234567890");
    CHECK(e.kind == UEVENT_WEDGED && strncmp(e.remedy, "?[2J?-0", 7) == 0 &&
          strlen(e.remedy) == 47);
}

static void test_socket(void)
{
    char root[] = "/tmp/rocmforge-uevent-XXXXXX", run[64];
    CHECK(mkdtemp(root));
    snprintf(run, sizeof(run), "%s/run", root);
    CHECK(uevent_open(root) == -ENOENT);
    CHECK(mkdir(run, 0755) == 0);
    close(uevent_open(root));
    int fd = uevent_open(root); /* what an earlier one left is in nobody's way */
    CHECK(fd >= 0);
    struct uevent e;
    CHECK_INT(uevent_read(fd, CARD, &e), 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s/uevents", run);
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    static const char text[] = WEDGED_BY(""), noise[] = "add@/devices/x\0ACTION=add";
    CHECK(sendto(sender, noise, sizeof(noise), 0, (struct sockaddr *)&to, sizeof(to)) > 0);
    CHECK(sendto(sender, text, sizeof(text), 0, (struct sockaddr *)&to, sizeof(to)) > 0);
    CHECK(uevent_read(fd, CARD, &e) == 1 && e.kind == UEVENT_WEDGED);
    CHECK_INT(uevent_read(fd, CARD, &e), 0);
    close(sender);
    close(fd);
    CHECK(unlink(to.sun_path) == 0 && rmdir(run) == 0 && rmdir(root) == 0);
    fd = uevent_open(""); /* the kernel's own; not every sandbox has it */
    CHECK(fd >= 0 || fd == -EPERM || fd == -EACCES || fd == -EAFNOSUPPORT ||
          fd == -EPROTONOSUPPORT);
    if (fd >= 0) {
        CHECK(uevent_read(fd, CARD, &e) == 0);
        close(fd);
    }
}

int main(void)
{
    test_kinds();
    test_others();
    test_damaged();
    test_socket();
    return 0;
}
