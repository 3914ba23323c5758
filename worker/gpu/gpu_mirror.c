/* Copies of the KV cache in host memory (see gpu_mirror.h). The token loop's thread; nothing is
 * allocated after gpu_mirror_open. Blocks on the device in gpu_mirror_settle and gpu_mirror_load.
 * Invariant: of a batch only blocks count that nobody gave up meanwhile, published again or not. */
#include "worker/gpu/gpu_mirror.h"

#include "shared/clock.h"
#include "shared/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    STAGING_BYTES = 8 << 20, /* at most, but a block at least: a burst keeps results waiting */
    ALONE_BYTES = 256 << 10, /* of a step in which the device was never seen computing */
    MEANWHILE_NS = 50 * 1000 * 1000, /* then the step is watched as any other (door_wait) */
};

static char *pin(struct door *d, size_t block_bytes, int32_t *n_slots)
{
    int32_t n = *n_slots;
    char *p = door_host_allocate(d, (size_t)n * block_bytes);
    while (!p && n > 1) {
        n /= 2;
        p = door_host_allocate(d, (size_t)n * block_bytes);
    }
    if (!p) {
        log_warn("copies of the KV cache: no memory can be pinned (%.1f MB are needed at least): "
                 "what is computed is not kept for the next worker",
                 (double)block_bytes / 1e6);
        n = 0;
    } else if (n < *n_slots) {
        log_info("copies of the KV cache are slower: %.1f MB of memory could be pinned, not %.1f",
                 (double)n * (double)block_bytes / 1e6,
                 (double)*n_slots * (double)block_bytes / 1e6);
    }
    *n_slots = n;
    return p;
}

bool gpu_mirror_open(struct gpu_mirror *m, struct door *d, struct kv_pool *p,
                     const unsigned char *is_here)
{
    *m = (struct gpu_mirror){.door = d, .pool = p, .is_here = is_here};
    for (size_t i = 0; i < p->n_layers; i++) {
        m->block_bytes += is_here[i] ? 0 : kv_block_bytes(&p->layers[i]);
    }
    size_t most = STAGING_BYTES / MAX(m->block_bytes, (size_t)1);
    m->n_slots = (int32_t)MAX(MIN(most, (size_t)p->n_blocks), 1u);
    m->staging = pin(d, m->block_bytes, &m->n_slots);
    m->queue = malloc((size_t)p->n_blocks * sizeof *m->queue);
    m->is_queued = calloc((size_t)p->n_blocks, 1);
    m->batch = malloc((size_t)m->n_slots * sizeof *m->batch + 1);
    m->sent = door_point_create(d);
    return m->queue && m->is_queued && m->batch;
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

static size_t layer_bytes(const struct gpu_mirror *m, size_t layer)
{
    return m->is_here[layer] ? 0 : kv_block_bytes(&m->pool->layers[layer]);
}

/* Where the batch's blocks of the layer stand: one slot after the other, layer after layer. */
static char *slots_of(const struct gpu_mirror *m, size_t layer)
{
    char *at = m->staging;
    for (size_t i = 0; i < layer; i++) {
        at += layer_bytes(m, i) * (size_t)m->n_slots;
    }
    return at;
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

/* The next batch sets out; none is on its way. */
static void send(struct gpu_mirror *m)
{
    if (m->n_loading > 0) { /* they have the slots */
        return;
    }
    for (; m->n_queued > 0 && m->n_batch < m->n_slots; m->n_queued--) {
        int32_t block = m->queue[m->first];
        m->first = (m->first + 1) % m->pool->n_blocks;
        m->is_queued[block] = 0;
        if (m->pool->blocks[block].is_saving) { /* nobody took its memory meanwhile */
            m->batch[m->n_batch++] = block;
        }
    }
    for (size_t l = 0; l < m->pool->n_layers; l++) {
        size_t one = layer_bytes(m, l);
        char *to = slots_of(m, l);
        for (int32_t i = 0, run; one > 0 && i < m->n_batch; i += run) {
            run = run_at(m, i);
            door_fetch(m->door, to + one * (size_t)i,
                       m->pool->layers[l].data + one * (size_t)m->batch[i], one * (size_t)run);
        }
    }
    if (m->n_batch > 0) {
        door_point_set(m->door, m->sent);
        m->has_come = false;
    }
}

static bool has_come(struct gpu_mirror *m)
{
    m->has_come = m->n_batch > 0 && (m->has_come || door_point_is_past(m->door, m->sent));
    return m->has_come;
}

/* Of the batch, which has come: a layer of a block. */
static void take_slice(struct gpu_mirror *m)
{
    int32_t block = m->batch[m->slot];
    size_t l = m->layer++, one = layer_bytes(m, l);
    /* One that was published again waits for its new content. */
    bool counts = m->pool->blocks[block].is_saving && !m->is_queued[block];
    if (counts) {
        const char *from = slots_of(m, l) + one * (size_t)m->slot;
        kv_save(m->pool, block, l, one > 0 ? from : NULL);
        m->taken_bytes += kv_block_bytes(&m->pool->layers[l]);
    }
    if (!counts || m->layer == m->pool->n_layers) {
        m->layer = 0;
        m->slot++;
    }
    if (m->slot == m->n_batch) {
        m->slot = m->n_batch = 0;
    }
}

void gpu_mirror_meanwhile(struct gpu_mirror *m, uint64_t expected_ns)
{
    /* What sets out late would be on the way together with the step's result. */
    uint64_t send_ns = expected_ns > 0 ? MIN(expected_ns / 2, (uint64_t)MEANWHILE_NS)
                                       : (uint64_t)MEANWHILE_NS;
    uint64_t start = clock_ns(), gone = 0;
    while (gone < MEANWHILE_NS && (m->n_batch > 0 || m->n_queued > 0)) {
        if (m->n_batch == 0 && (m->n_loading > 0 || gone > send_ns)) {
            return;
        }
        if (m->n_batch == 0) {
            send(m);
        }
        if (door_is_done(m->door)) {
            return;
        }
        m->is_computing = true;
        if (has_come(m)) {
            take_slice(m);
        } else {
            door_rest();
        }
        gone = clock_ns() - start;
    }
}

void gpu_mirror_step(struct gpu_mirror *m, int64_t n_rows)
{
    size_t due = (size_t)n_rows * m->block_bytes / KV_BLOCK + (m->is_computing ? 0 : ALONE_BYTES);
    m->n_loading = 0;
    while (m->taken_bytes < due && has_come(m)) {
        take_slice(m);
    }
    m->taken_bytes = 0;
    m->is_computing = false;
}

/* None is on its way. */
static void finish_batch(struct gpu_mirror *m)
{
    if (m->n_batch > 0) {
        door_point_wait(m->door, m->sent);
        m->has_come = true;
    }
    while (m->n_batch > 0) {
        take_slice(m);
    }
}

static void finish_loads(struct gpu_mirror *m)
{
    if (m->n_loading > 0) {
        door_wait(m->door, 0);
        m->n_loading = 0;
    }
}

bool gpu_mirror_settle(struct gpu_mirror *m)
{
    finish_loads(m);
    if (m->n_batch == 0 && m->n_queued > 0) {
        send(m);
    }
    finish_batch(m);
    return m->n_queued > 0;
}

/* --- to the device --------------------------------------------------------------------------- */

void gpu_mirror_load(struct gpu_mirror *m, int32_t block)
{
    finish_batch(m);
    if (m->n_loading == m->n_slots) {
        finish_loads(m);
    }
    char *at = m->staging + (size_t)m->n_loading * m->block_bytes;
    for (size_t l = 0; l < m->pool->n_layers; l++) {
        size_t one = layer_bytes(m, l);
        char *to = m->pool->layers[l].data + one * (size_t)block;
        const char *from = m->pool->host[l] + one * (size_t)block;
        if (one > 0 && m->n_slots == 0) {
            door_upload_now(m->door, to, from, one);
        } else if (one > 0) {
            memcpy(at, from, one);
            door_upload(m->door, to, at, one);
            at += one;
        }
    }
    m->n_loading += m->n_slots > 0;
    door_beat(m->door); /* a long text takes seconds, in one go */
}
