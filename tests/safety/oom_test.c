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
    tree_put(root, "/proc/self/cgroup",
             "12:memory:/old\n0::/user.slice/app.slice/rocmforge.service\n");
    CHECK_INT(oom_kills(root), 0); /* no cgroup file */
    tree_put(root, "/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events",
        "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n");
    CHECK_INT(oom_kills(root), 2);
    tree_put(root, "/sys/fs/cgroup/user.slice/app.slice/rocmforge.service/memory.events",
             "oom_kill -1\n");
    CHECK_INT(oom_kills(root), 0);
    tree_put(root, "/proc/self/cgroup", "12:memory:/only version 1\n");
    CHECK_INT(oom_kills(root), 0);
    tree_put(root, "/sys/fs/cgroup/memory/only version 1/memory.oom_control",
             "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
    CHECK_INT(oom_kills(root), 4);
    /* Both versions: the memory controller is in one of them. */
    tree_put(root, "/proc/self/cgroup", "12:memory:/only version 1\n1:name=systemd:/s\n0::/s\n");
    CHECK_INT(oom_kills(root), 4);
    tree_put(root, "/sys/fs/cgroup/unified/s/memory.events", "oom_kill 9\n");
    CHECK_INT(oom_kills(root), 9);
    tree_put(root, "/proc/self/cgroup", "10::/\n");
    CHECK_INT(oom_kills(root), 0);
    tree_put(root, "/proc/self/cgroup", "0::/\n"); /* in a container */
    CHECK_INT(oom_kills(root), 0);
    tree_put(root, "/sys/fs/cgroup/memory.events", "oom 1\noom_kill 5");
    CHECK_INT(oom_kills(root), 5);
    tree_remove(root);
    return 0;
}
