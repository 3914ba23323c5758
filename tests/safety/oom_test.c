/* Counting the kernel's OOM kills from a made-up /proc and cgroup tree. */
#include "safety/oom.h"
#include "tests/safety/tree.h"
#include "tests/test.h"

#include <fcntl.h>
#include <sys/stat.h>

static char root[] = "/tmp/rocmforge-oom-XXXXXX";

int main(void)
{
    CHECK(mkdtemp(root));
    CHECK_INT(oom_kills(root), 0); /* no /proc */
    tree_put(root, "/proc/self/cgroup", "12:memory:/old\n0::/user.slice/app.slice/rocmforge.service\n");
    CHECK_INT(oom_kills(root), 0); /* no cgroup file */
    tree_put(root, "/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events",
        "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n");
    CHECK_INT(oom_kills(root), 2);
    tree_put(root, "/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events", "oom_kill -1\n");
    CHECK_INT(oom_kills(root), 0);
    tree_put(root, "/proc/self/cgroup", "12:memory:/only version 1\n");
    CHECK_INT(oom_kills(root), 0);
    tree_remove(root);
    return 0;
}
