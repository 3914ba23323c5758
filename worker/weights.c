/* Packed weights in a sealed memfd (see weights.h). The thread that opens a model, and its pool;
 * reads the model file. Invariant: what is mapped by a program is sealed against writing. */
#include "worker/weights.h"
#include "worker/build_id.h"

#include "ipc/memfd.h"
#include "shared/hash.h"
#include "shared/num.h"
#include "worker/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEIGHTS_MAGIC 0x31737468676977u /* "wights1" */

enum {
    ALIGN = 64,
    SUM_BYTES = 2 << 20,
    PIECE_BYTES = 4 << 20, /* of the file, that stand in memory beside their packed copy */
};

struct weights_table {
    uint64_t magic;
    uint64_t data_bytes;
    uint64_t huge_bytes;
    uint64_t n_sums;
    uint32_t sums[]; /* CRC-32C of each SUM_BYTES of the data */
};

static size_t table_bytes(size_t data_bytes)
{
    return sizeof(struct weights_table) +
           (data_bytes + SUM_BYTES - 1) / SUM_BYTES * sizeof(uint32_t);
}

void weights_key(enum isa isa, const uint8_t fingerprint[32], uint8_t ret[STORE_KEY_BYTES])
{
    const uint32_t layout = MATMUL_LAYOUT;
    size_t n_build;
    const void *build = build_id(&n_build);
    const struct stores_part parts[] = {{&layout, sizeof layout},
                                        {build, n_build},
                                        {isa_name(isa), strlen(isa_name(isa))},
                                        {fingerprint, 32}};
    stores_key(STORE_WEIGHTS, parts, COUNT_OF(parts), ret);
}

/* --- checksums ---------------------------------------------------------------------------------*/

struct summing {
    const char *data;
    size_t data_bytes;
    uint32_t *sums;
};

static void sum_parts(void *arg, int64_t lo, int64_t hi, int thread)
{
    struct summing *s = arg;
    (void)thread;
    for (int64_t i = lo; i < hi; i++) {
        size_t at = (size_t)i * SUM_BYTES;
        s->sums[i] = hash_crc32c(0, s->data + at, MIN((size_t)SUM_BYTES, s->data_bytes - at));
    }
}

static void sum(const char *data, size_t data_bytes, uint32_t *sums, struct pool *pool)
{
    struct summing s = {data, data_bytes, sums};
    pool_run(pool, (int64_t)((data_bytes + SUM_BYTES - 1) / SUM_BYTES), 1, sum_parts, &s);
}

/* Between packing and sealing, a stray write of another thread could have hit it. */
static int check_sums(const struct weights *w, size_t data_bytes, struct pool *pool)
{
    const struct weights_table *t = (const void *)((const char *)w->map + data_bytes);
    uint32_t *sums = malloc((t->n_sums + 1) * sizeof *sums);
    if (!sums) {
        return -ENOMEM;
    }
    sum(w->map, data_bytes, sums, pool);
    int err = memcmp(sums, t->sums, t->n_sums * sizeof *sums) == 0 ? 0 : ERR_INTERNAL;
    free(sums);
    return err;
}

/* --- making and mapping ------------------------------------------------------------------------*/

/* Says where each matrix stands. Returns the bytes of all. */
static size_t place(struct program *p, const char *map)
{
    size_t at = 0;
    for (size_t i = 0; i < p->n_weights; i++) {
        for (int32_t k = 0; k < p->weights[i].n; k++) {
            struct matmul_weight *w = &p->weights[i].w[k];
            w->packed = map && w->packed_bytes ? map + at : NULL;
            at += num_pad(w->packed_bytes, ALIGN);
        }
    }
    return at;
}

/* In pieces, whose file pages are let go: or the largest matrix would stand in memory twice. A page
 * that the disk does not give is an error here; read by a kernel, it would be the end of the
 * process. */
static int pack_matrix(const struct matmul_weight *w, char *to, struct pool *pool,
                       void (*progress)(void *arg, uint64_t done, uint64_t total),
                       void *progress_arg, uint64_t done, uint64_t total, struct err *e)
{
    int64_t rows = (int64_t)(PIECE_BYTES / MAX(w->row_bytes, (size_t)1));
    rows = MAX(rows - rows % MATMUL_GRAIN, (int64_t)MATMUL_GRAIN);
    for (int64_t lo = 0; lo < w->n_rows; lo += rows) {
        int64_t hi = MIN(lo + rows, w->n_rows);
        const char *data = (const char *)w->data + (size_t)lo * w->row_bytes;
        size_t bytes = (size_t)(hi - lo) * w->row_bytes;
        int err = memory_check_file(data, bytes, e);
        if (err < 0) {
            return err;
        }
        matmul_pack(w, lo, hi, to, pool);
        memory_let_go(data, bytes);
        if (progress) { /* a slow disk may take longer for a matrix than a load may stand still */
            progress(progress_arg, done + (size_t)hi * w->row_bytes, total);
        }
    }
    return 0;
}

/* Memory is made huge ahead of the packing, which so takes no page faults. */
static int pack(struct program *p, char *map, size_t bytes, struct pool *pool,
                void (*progress)(void *arg, uint64_t done, uint64_t total), void *progress_arg,
                size_t *ret_huge, struct err *e)
{
    uint64_t total = program_weight_bytes(p), done = 0;
    size_t at = 0, ready = 0, huge = 0;
    for (size_t i = 0; i < p->n_weights; i++) {
        for (int32_t k = 0; k < p->weights[i].n; k++) {
            struct matmul_weight *w = &p->weights[i].w[k];
            size_t end = at + num_pad(w->packed_bytes, ALIGN);
            if (end == at) { /* the GPU's */
                continue;
            }
            if (end > ready && bytes > MEMORY_HUGE_BYTES) {
                size_t to = MIN(num_pad(end, MEMORY_HUGE_BYTES), bytes);
                huge += memory_make_huge(map + ready, to - ready);
                ready = to;
            }
            int err = pack_matrix(w, map + at, pool, progress, progress_arg, done, total, e);
            if (err < 0) {
                return err;
            }
            at = end;
            done += w->row_bytes * (size_t)w->n_rows;
        }
        if (progress) {
            progress(progress_arg, done, total);
        }
    }
    *ret_huge = huge;
    return 0;
}

/* Packs into a memfd and seals it. Returns the descriptor. */
static int make(struct program *p, size_t data_bytes, size_t bytes, struct pool *pool,
                void (*progress)(void *arg, uint64_t done, uint64_t total), void *progress_arg,
                struct err *e)
{
    int fd = memfd_create_open("rocmforge-weights", bytes);
    if (fd < 0) {
        return fd;
    }
    char *map = memory_map_fd(fd, bytes, true);
    if (!map) {
        close(fd);
        return -ENOMEM;
    }
    size_t huge = 0;
    int err = pack(p, map, bytes, pool, progress, progress_arg, &huge, e);
    if (err < 0) {
        memory_unmap(map, bytes);
        close(fd);
        return err;
    }
    struct weights_table *t = (void *)(map + data_bytes);
    *t = (struct weights_table){.magic = WEIGHTS_MAGIC,
                                .data_bytes = data_bytes,
                                .huge_bytes = huge,
                                .n_sums = (data_bytes + SUM_BYTES - 1) / SUM_BYTES};
    sum(map, data_bytes, t->sums, pool);
    memory_unmap(map, bytes);
    err = memfd_make_const(fd);
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

/* A store of that key is trusted for what it is; its size and table say that we speak of the
 * same. */
static bool map_store(struct weights *w, int fd, size_t have, size_t data_bytes, size_t bytes)
{
    w->map = have == bytes ? memory_map_fd(fd, bytes, false) : NULL;
    if (!w->map) {
        return false;
    }
    w->bytes = bytes;
    const struct weights_table *t = (const void *)((const char *)w->map + data_bytes);
    if (t->magic == WEIGHTS_MAGIC && t->data_bytes == data_bytes) {
        w->huge_bytes = t->huge_bytes;
        return true;
    }
    memory_unmap(w->map, bytes);
    w->map = NULL;
    return false;
}

static bool find_store(struct weights *w, size_t data_bytes, size_t bytes)
{
    size_t have;
    int fd = stores_take(w->stores, STORE_WEIGHTS, w->key, &have);
    if (fd < 0) {
        return false;
    }
    w->was_kept = map_store(w, fd, have, data_bytes, bytes);
    if (!w->was_kept) {
        stores_release(w->stores, STORE_WEIGHTS, w->key);
        stores_drop(w->stores, STORE_WEIGHTS, w->key);
    }
    return w->was_kept;
}

int weights_open(struct weights *ret, struct program *p, enum isa isa, struct pool *pool,
                 struct stores *stores, const uint8_t fingerprint[32],
                 void (*progress)(void *arg, uint64_t done, uint64_t total), void *progress_arg,
                 struct err *e)
{
    struct weights w = {.stores = stores};
    int err = program_describe_weights(p, isa, e);
    size_t data_bytes = err < 0 ? 0 : place(p, NULL);
    if (err < 0 || data_bytes == 0) {
        *ret = w;
        return err;
    }
    size_t bytes = num_pad(data_bytes + table_bytes(data_bytes), MEMORY_HUGE_BYTES);
    weights_key(isa, fingerprint, w.key);
    if (!find_store(&w, data_bytes, bytes)) {
        int fd = make(p, data_bytes, bytes, pool, progress, progress_arg, e);
        if (fd == ERR_MODEL_IO || fd == ERR_MODEL_CHANGED) {
            return fd;
        }
        if (fd < 0) {
            return err_set(e, fd == -ENOMEM || fd == -ENOSPC ? ERR_NO_MEMORY : fd,
                           "packing %.1f MB of weights", (double)data_bytes / 1e6);
        }
        bool is_mapped = map_store(&w, fd, bytes, data_bytes, bytes);
        err = is_mapped ? check_sums(&w, data_bytes, pool) : -ENOMEM;
        if (err < 0) {
            memory_unmap(w.map, w.bytes);
            close(fd);
            return err_set(e, err == -ENOMEM ? ERR_NO_MEMORY : err,
                           "the packed weights are not what was written");
        }
        if (!stores_put(stores, STORE_WEIGHTS, w.key, fd, bytes)) {
            w.stores = NULL;
        }
    }
    place(p, w.map);
    *ret = w;
    return 0;
}

void weights_close(struct weights *w)
{
    if (w->map) {
        memory_unmap(w->map, w->bytes);
        stores_release(w->stores, STORE_WEIGHTS, w->key);
    }
    *w = (struct weights){0};
}
