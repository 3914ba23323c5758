/* A kernel without Landlock, or a container that forbids it, for this process and its children. */
#ifndef TESTS_SHARED_NO_LANDLOCK_H
#define TESTS_SHARED_NO_LANDLOCK_H

#include "tests/test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

enum { LANDLOCK_CREATE = 444 }; /* landlock_create_ruleset; headers may be older */

/* Asking for it fails with this errno from now on. */
static inline void no_landlock(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LANDLOCK_CREATE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog f = {.len = COUNT_OF(code), .filter = code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &f) == 0);
}

#endif
