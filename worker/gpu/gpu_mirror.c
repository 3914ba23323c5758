/* Copies of the KV cache in host memory (see gpu_mirror.h). The token loop's thread; nothing is
 * allocated after gpu_mirror_open. Invariant: between two steps' ends either nothing is on its way
 * or one batch, none of whose blocks was published again meanwhile. */
#include "worker/gpu/gpu_mirror.h"

#include <stdlib.h>
#include <string.h>

enum {
    BACKLOG_BLOCKS = 2,       /* of those that wait, with every step */
    STAGING_BYTES = 32 << 20, /* at most, but a block at least; the rest waits */
};

/* That a step of so many rows sends. */
static int64_t blocks_of(int64_t n_rows)
{
    return n_rows / KV_BLOCK + BACKLOG_BLOCKS;
}

bool gpu_mirror_open(struct gpu_mirror *m, struct door *d, struct kv_pool *p,
                     const unsigned char *is_here, int64_t max_rows)
{
    *m = (struct gpu_mirror){.door = d, .pool = p, .is_here = is_here};
    for (size_t i = 0; i < p->n_layers; i++) {
        m->block_bytes += is_here[i] ? 0 : kv_block_bytes(&p->layers[i]);
    }
    int64_t most = (int64_t)(STAGING_BYTES / MAX(m->block_bytes, (size_t)1));
    m->n_slots = (int32_t)MAX(MIN(blocks_of(max_rows), most), 1);
    m->staging = door_host_allocate(d, (size_t)m->n_slots * m->block_bytes);
    m->queue = malloc((size_t)p->n_blocks * sizeof *m->queue);
    m->is_queued = calloc((size_t)p->n_blocks, 1);
    m->batch = malloc((size_t)m->n_slots * sizeof *m->batch);
    m->sent = door_point_create(d);
    return m->staging && m->queue && m->is_queued && m->batch;
}

void gpu_mirror_close(struct gpu_mirror *m)
{
    if (m->door) {
        door_host_free(m->door, m->staging);
        door_point_destroy(m->door, &m->sent);
    }
    free(m->queue);
    free(m->is_queued);
    free(m->batch);
    *m = (struct gpu_mirror){0};
}

/* --- from the device ------------------------------------------------------------------------- */

void gpu_mirror_save(struct gpu_mirror *m, int32_t block)
{
    if (!m->is_queued[block]) { /* else what it holds when it sets out counts */
        m->queue[(m->first + m->n_queued++) % m->pool->n_blocks] = block;
        m->is_queued[block] = 1;
    }
}

/* How many from `at` on have consecutive numbers: in every layer they are one piece of memory. */
static int32_t run_at(const struct gpu_mirror *m, int32_t at)
{
    int32_t n = 1;
    while (at + n < m->n_batch && m->batch[at + n] == m->batch[at] + n) {
        n++;
    }
    return n;
}

/* Where the run's part of a layer stands while it is on its way; `at` is moved behind it. */
static char *pass(char **at, size_t bytes)
{
    char *here = *at;
    *at += bytes;
    return here;
}

void gpu_mirror_send(struct gpu_mirror *m, int64_t n_rows)
{
    if (!m->pool || m->n_batch > 0) {
        return;
    }
    int64_t n = MIN(blocks_of(n_rows), (int64_t)m->n_slots);
    for (; m->n_queued > 0 && m->n_batch < n; m->n_queued--) {
        int32_t block = m->queue[m->first];
        m->first = (m->first + 1) % m->pool->n_blocks;
        m->is_queued[block] = 0;
        if (m->pool->blocks[block].is_saving) { /* nobody took its memory meanwhile */
            m->batch[m->n_batch++] = block;
        }
    }
    char *to = m->staging;
    for (int32_t i = 0, run; i < m->n_batch; i += run) {
        run = run_at(m, i);
        for (size_t l = 0; l < m->pool->n_layers; l++) {
            const struct kv_layer *layer = &m->pool->layers[l];
            size_t one = kv_block_bytes(layer), bytes = one * (size_t)run;
            if (!m->is_here[l]) {
                door_download(m->door, pass(&to, bytes), layer->data + one * (size_t)m->batch[i],
                              bytes);
            }
        }
    }
    if (m->n_batch > 0) {
        door_point_set(m->door, m->sent);
    }
}

void gpu_mirror_take(struct gpu_mirror *m, bool is_waited)
{
    m->n_loading = is_waited ? 0 : m->n_loading;
    if (m->n_batch == 0 || !(is_waited || door_point_is_past(m->door, m->sent))) {
        return;
    }
    char *from = m->staging;
    for (int32_t i = 0, run; i < m->n_batch; i += run) {
        run = run_at(m, i);
        for (size_t l = 0; l < m->pool->n_layers; l++) {
            size_t one = kv_block_bytes(&m->pool->layers[l]), bytes = one * (size_t)run;
            if (!m->is_here[l]) { /* of a block that was given up as well: nothing stands there */
                memcpy(m->pool->host[l] + one * (size_t)m->batch[i], pass(&from, bytes), bytes);
            }
        }
    }
    for (int32_t i = 0; i < m->n_batch; i++) {
        kv_saved(m->pool, m->batch[i]);
    }
    m->n_batch = 0;
}

bool gpu_mirror_settle(struct gpu_mirror *m)
{
    gpu_mirror_send(m, (int64_t)m->n_slots * KV_BLOCK);
    if (m->n_batch > 0) {
        door_wait(m->door, 0);
        gpu_mirror_take(m, true);
    }
    return m->n_queued > 0;
}

/* --- to the device --------------------------------------------------------------------------- */

void gpu_mirror_load(struct gpu_mirror *m, int32_t block)
{
    if (m->n_batch > 0 || m->n_loading == m->n_slots) {
        door_wait(m->door, 0);
        gpu_mirror_take(m, true);
    }
    char *at = m->staging + (size_t)m->n_loading++ * m->block_bytes;
    for (size_t l = 0; l < m->pool->n_layers; l++) {
        const struct kv_layer *layer = &m->pool->layers[l];
        size_t one = kv_block_bytes(layer);
        if (!m->is_here[l]) {
            char *between = pass(&at, one);
            memcpy(between, m->pool->host[l] + one * (size_t)block, one);
            door_upload(m->door, layer->data + one * (size_t)block, between, one);
        }
    }
}
