/* Counting the kernel's OOM kills from a made-up /proc and cgroup tree. */
#include "safety/oom.h"
#include "tests/test.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

static char root[] = "/tmp/rocmforge-oom-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *p = strchr(full + 5, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        (void)mkdir(full, 0755);
        *p = '/';
    }
    int fd = open(full, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(void)
{
    CHECK(mkdtemp(root));
    CHECK_INT(oom_kills(root), 0); /* no /proc */
    put("/proc/self/cgroup", "12:memory:/old\n0::/user.slice/app.slice/rocmforge.service\n");
    CHECK_INT(oom_kills(root), 0); /* no cgroup file */
    put("/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events",
        "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n");
    CHECK_INT(oom_kills(root), 2);
    put("/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events", "oom_kill -1\n");
    CHECK_INT(oom_kills(root), 0);
    put("/proc/self/cgroup", "12:memory:/only version 1\n");
    CHECK_INT(oom_kills(root), 0);
    CHECK(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
    return 0;
}
