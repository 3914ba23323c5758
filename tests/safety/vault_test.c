/* The supervisor's stores: kept by kind and key, replaced, handed on, given up; what is not sealed
 * as promised is refused. */
#include "ipc/memfd.h"
#include "safety/vault.h"
#include "shared/err.h"
#include "tests/test.h"

#include <dirent.h>
#include <unistd.h>

static struct vault vault;

static int n_open(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static struct msg_store store(uint32_t kind, uint8_t key, uint64_t bytes)
{
    return (struct msg_store){.kind = kind, .bytes = bytes, .key = {key}};
}

static int make(uint32_t kind, uint64_t bytes)
{
    char *data = calloc(1, bytes);
    int fd = store_info(kind)->is_const ? memfd_create_const("test", data, bytes)
                                        : memfd_create_shared("test", bytes);
    free(data);
    CHECK(fd >= 0);
    return fd;
}

static void keep(uint32_t kind, uint8_t key, uint64_t bytes)
{
    struct msg_store s = store(kind, key, bytes);
    CHECK_INT(vault_keep(&vault, &s, make(kind, bytes)), 0);
}

static void refuse(uint32_t kind, int fd, uint64_t bytes)
{
    struct msg_store s = store(kind, 9, bytes);
    size_t n = vault.n;
    CHECK_INT(vault_keep(&vault, &s, fd), ERR_PROTOCOL);
    CHECK_INT(vault.n, n);
    close(fd);
}

static void it_takes_only_what_is_as_promised(void)
{
    int open_fd = memfd_create_open("test", 4096);
    CHECK(open_fd >= 0);
    refuse(STORE_WEIGHTS, open_fd, 4096);                         /* can be written */
    refuse(STORE_WEIGHTS, make(STORE_KV, 4096), 4096);            /* the same */
    refuse(STORE_WEIGHTS, make(STORE_WEIGHTS, 4096), 8192);       /* another size */
    refuse(STORE_KV, make(STORE_KV, 8192), 4096);
    refuse(STORE_KINDS, make(STORE_KV, 4096), 4096);              /* no such kind */
    FILE *f = tmpfile();
    CHECK(f && ftruncate(fileno(f), 4096) == 0);
    refuse(STORE_KV, dup(fileno(f)), 4096); /* a file can be cut short under its readers */
    fclose(f);
}

static void it_keeps_by_kind_and_key(void)
{
    keep(STORE_WEIGHTS, 1, 4096);
    keep(STORE_KV, 1, 4096);
    keep(STORE_KV, 2, 8192);
    CHECK_INT(vault.n, 3);
    keep(STORE_KV, 2, 12288); /* in place of the other */
    CHECK_INT(vault.n, 3);
    struct msg_store s = store(STORE_KV, 7, 1);
    vault_drop(&vault, &s); /* there is none */
    CHECK_INT(vault.n, 3);
    s = store(STORE_KV, 1, 4096);
    vault_drop(&vault, &s);
    CHECK_INT(vault.n, 2);
    CHECK_INT(vault_resident_bytes(&vault), 4096); /* nothing was written to the others */
}

static void it_hands_them_on(void)
{
    int fds[2];
    struct channel a, b;
    struct channel_msg m;
    bool has_kv = false, has_weights = false;
    CHECK_INT(channel_pair(fds), 0);
    channel_init(&a, fds[0], MSG_SUPERVISOR, MSG_WORKER);
    channel_init(&b, fds[1], MSG_WORKER, MSG_SUPERVISOR);
    b.state = MSG_STATE_GREETED;
    CHECK_INT(vault_give(&vault, &a, 5), 0);
    while (channel_recv(&b, &m) == 1) {
        struct msg_store s;
        CHECK_INT(m.type, MSG_STORE);
        memcpy(&s, m.payload, sizeof(s));
        CHECK_INT(store_check(s.kind, m.fds[0], s.bytes), 0);
        has_kv = has_kv || (s.kind == STORE_KV && s.key[0] == 2 && s.bytes == 12288);
        has_weights = has_weights || (s.kind == STORE_WEIGHTS && s.key[0] == 1);
        channel_msg_finish(&m);
    }
    CHECK(has_kv && has_weights);
    CHECK_INT(vault.n, 2); /* still kept */
    channel_close(&b);
    CHECK_INT(vault_give(&vault, &a, 5), ERR_PEER_GONE);
    channel_close(&a);
}

static void it_gives_up_what_may_still_be_written(void)
{
    vault_drop_writable(&vault);
    CHECK_INT(vault.n, 1);
    CHECK_INT(vault.v[0].store.kind, STORE_WEIGHTS);
    vault_clear(&vault);
    CHECK_INT(vault.n, 0);
}

static void it_has_room_for_so_many(void)
{
    for (int i = 0; i < LIMIT_STORES; i++) {
        keep(STORE_KV, (uint8_t)(i + 1), 4096);
    }
    struct msg_store s = store(STORE_KV, 200, 4096);
    int fd = make(STORE_KV, 4096);
    CHECK_INT(vault_keep(&vault, &s, fd), ERR_PROTOCOL);
    close(fd);
    keep(STORE_KV, 3, 4096); /* in place of another there is room */
    vault_clear(&vault);
}

int main(void)
{
    int before = n_open();
    it_takes_only_what_is_as_promised();
    it_keeps_by_kind_and_key();
    it_hands_them_on();
    it_gives_up_what_may_still_be_written();
    it_has_room_for_so_many();
    CHECK_INT(n_open(), before);
    return 0;
}
