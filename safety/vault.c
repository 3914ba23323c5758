/* Descriptors of stores; runs in the supervisor's loop. Never blocks; allocates nothing. */
#include "safety/vault.h"
#include "shared/err.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vault_item *find(struct vault *v, const struct msg_store *store)
{
    for (size_t i = 0; i < v->n; i++) {
        const struct msg_store *s = &v->v[i].store;
        if (s->kind == store->kind && memcmp(s->key, store->key, sizeof(s->key)) == 0) {
            return &v->v[i];
        }
    }
    return NULL;
}

static void drop(struct vault *v, struct vault_item *item)
{
    close(item->fd);
    *item = v->v[--v->n];
}

int vault_keep(struct vault *v, const struct msg_store *store, int fd)
{
    struct vault_item *old = find(v, store);
    if (store_check(store->kind, fd, store->bytes) < 0 || (!old && v->n == LIMIT_STORES)) {
        return ERR_PROTOCOL;
    }
    if (old) {
        drop(v, old);
    }
    v->v[v->n++] = (struct vault_item){*store, fd};
    return 0;
}

void vault_drop(struct vault *v, const struct msg_store *store)
{
    struct vault_item *item = find(v, store);
    if (item) {
        drop(v, item);
    }
}

void vault_drop_writable(struct vault *v)
{
    for (size_t i = v->n; i-- > 0;) {
        if (!store_info(v->v[i].store.kind)->is_const) {
            drop(v, &v->v[i]);
        }
    }
}

void vault_clear(struct vault *v)
{
    while (v->n > 0) {
        drop(v, &v->v[v->n - 1]);
    }
}

int vault_give(const struct vault *v, struct channel *c, uint64_t epoch)
{
    int rc = 0;
    for (size_t i = 0; i < v->n && rc == 0; i++) {
        rc = channel_send(c, MSG_STORE, epoch, &v->v[i].store, sizeof(v->v[i].store), &v->v[i].fd,
                          1);
    }
    return rc;
}

uint64_t vault_resident_bytes(const struct vault *v)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < v->n; i++) {
        struct stat st;
        sum += fstat(v->v[i].fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    }
    return sum;
}
