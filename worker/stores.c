/* The table of stores (see stores.h). Any thread, under one mutex; never blocks on the supervisor:
 * a message that finds no room is not sent, and the store is then not kept. */
#include "worker/stores.h"
#include "shared/buf.h"
#include "shared/err.h"
#include "shared/hash.h"
#include "shared/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORTH_BYTES = 4096 }; /* whoever needs memory wins nothing by dropping less than a page */

struct entry {
    struct msg_store store;
    int fd; /* owned */
    int n_users;
    bool is_claimed;
};

struct stores {
    struct channel *channel; /* borrowed */
    uint64_t epoch;
    pthread_mutex_t mutex; /* of the table */
    struct entry v[LIMIT_STORES];
    size_t n;
};

struct stores *stores_create(struct channel *channel, uint64_t epoch)
{
    struct stores *s = base_alloc(sizeof(*s));
    s->channel = channel;
    s->epoch = epoch;
    pthread_mutex_init(&s->mutex, NULL);
    return s;
}

void stores_destroy(struct stores **sp)
{
    struct stores *s = *sp;
    if (s) {
        while (s->n > 0) {
            close(s->v[--s->n].fd);
        }
        pthread_mutex_destroy(&s->mutex);
        free(s);
        *sp = NULL;
    }
}

uint64_t stores_epoch(const struct stores *s)
{
    return s ? s->epoch : 0;
}

/* ---- under the mutex ---- */

static struct entry *find(struct stores *s, enum store_kind kind, const uint8_t *key)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct msg_store *m = &s->v[i].store;
        if (m->kind == kind && memcmp(m->key, key, STORE_KEY_BYTES) == 0) {
            return &s->v[i];
        }
    }
    return NULL;
}

static int tell(struct stores *s, enum msg_type type, const struct entry *e)
{
    return channel_send(s->channel, type, s->epoch, &e->store, sizeof(e->store), &e->fd,
                        type == MSG_STORE ? 1 : 0);
}

static bool is_free(const struct entry *e)
{
    return e->n_users == 0 || store_info(e->store.kind)->is_const;
}

/* Its number in the table is the last one's from now on. */
static void drop(struct stores *s, struct entry *e)
{
    if (tell(s, MSG_DROP, e) < 0) {
        log_warn("the supervisor did not take DROP of a store (%s)",
                 store_info(e->store.kind)->word);
    }
    close(e->fd);
    *e = s->v[--s->n];
}

/* ---- what others call ---- */

int stores_receive(struct stores *s, struct channel_msg *m)
{
    struct msg_store store;
    memcpy(&store, m->payload, sizeof(store));
    if (s->n == LIMIT_STORES || store_check(store.kind, m->fds[0], store.bytes) < 0 ||
        find(s, (enum store_kind)store.kind, store.key)) {
        return ERR_PROTOCOL;
    }
    s->v[s->n++] = (struct entry){.store = store, .fd = m->fds[0]};
    m->fds[0] = -1;
    return 0;
}

void stores_key(enum store_kind kind, const struct stores_part *parts, size_t n,
                uint8_t ret[STORE_KEY_BYTES])
{
    _Static_assert(STORE_KEY_BYTES == HASH_SHA256_BYTES, "a key is a SHA-256");
    uint8_t sums[16][HASH_SHA256_BYTES] = {{(uint8_t)kind}};
    ASSERT(n < COUNT_OF(sums));
    for (size_t i = 0; i < n; i++) {
        hash_sha256(parts[i].data, parts[i].bytes, sums[1 + i]);
    }
    hash_sha256(sums, (n + 1) * sizeof(sums[0]), ret);
}

int stores_take(struct stores *s, enum store_kind kind, const uint8_t *key, size_t *ret_bytes)
{
    int fd = -ENOENT;
    if (!s) {
        return fd;
    }
    pthread_mutex_lock(&s->mutex);
    struct entry *e = find(s, kind, key);
    if (e && is_free(e)) {
        e->n_users++;
        e->is_claimed = true;
        *ret_bytes = (size_t)e->store.bytes;
        fd = e->fd;
    }
    pthread_mutex_unlock(&s->mutex);
    return fd;
}

bool stores_put(struct stores *s, enum store_kind kind, const uint8_t *key, int fd, size_t bytes)
{
    struct entry fresh = {
        .store = {.kind = kind, .bytes = bytes}, .fd = fd, .n_users = 1, .is_claimed = true};
    bool is_kept = false;
    memcpy(fresh.store.key, key, STORE_KEY_BYTES);
    if (s) {
        pthread_mutex_lock(&s->mutex);
        if (s->n < LIMIT_STORES && !find(s, kind, key)) {
            int err = tell(s, MSG_STORE, &fresh);
            is_kept = err == 0;
            if (is_kept) {
                s->v[s->n++] = fresh;
            } else {
                log_warn("the supervisor did not take a store (%s): %s", store_info(kind)->word,
                         err_text(err));
            }
        }
        pthread_mutex_unlock(&s->mutex);
    }
    if (!is_kept) {
        close(fd);
    }
    return is_kept;
}

void stores_release(struct stores *s, enum store_kind kind, const uint8_t *key)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->mutex);
    struct entry *e = find(s, kind, key);
    if (e) {
        ASSERT(e->n_users > 0);
        e->n_users--;
    }
    pthread_mutex_unlock(&s->mutex);
}

void stores_claim(struct stores *s, enum store_kind kind, const uint8_t *key)
{
    if (s) {
        pthread_mutex_lock(&s->mutex);
        struct entry *e = find(s, kind, key);
        if (e) {
            e->is_claimed = true;
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

void stores_drop_unclaimed(struct stores *s)
{
    if (s) {
        pthread_mutex_lock(&s->mutex);
        for (size_t i = s->n; i-- > 0;) {
            if (!s->v[i].is_claimed) {
                drop(s, &s->v[i]);
            }
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

void stores_drop(struct stores *s, enum store_kind kind, const uint8_t *key)
{
    if (s) {
        pthread_mutex_lock(&s->mutex);
        struct entry *e = find(s, kind, key);
        if (e && e->n_users == 0) {
            drop(s, e);
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

void stores_drop_kind(struct stores *s, enum store_kind kind)
{
    if (s) {
        pthread_mutex_lock(&s->mutex);
        for (size_t i = s->n; i-- > 0;) {
            if (s->v[i].store.kind == (uint32_t)kind) {
                drop(s, &s->v[i]);
            }
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

bool stores_drop_idle(struct stores *s)
{
    bool has_dropped = false;
    if (s) {
        pthread_mutex_lock(&s->mutex);
        for (size_t i = s->n; i-- > 0;) {
            if (s->v[i].n_users == 0 && s->v[i].store.bytes >= WORTH_BYTES) {
                drop(s, &s->v[i]);
                has_dropped = true;
            }
        }
        pthread_mutex_unlock(&s->mutex);
    }
    return has_dropped;
}

uint64_t stores_resident_bytes(struct stores *s, enum store_kind kind)
{
    uint64_t sum = 0;
    if (s) {
        pthread_mutex_lock(&s->mutex);
        for (size_t i = 0; i < s->n; i++) {
            struct stat st;
            if (s->v[i].store.kind == (uint32_t)kind && fstat(s->v[i].fd, &st) == 0) {
                sum += (uint64_t)st.st_blocks * 512;
            }
        }
        pthread_mutex_unlock(&s->mutex);
    }
    return sum;
}
