/* The canary (see canary.h). On the thread that steps the engine, before anybody asks it anything:
 * blocks on the device, up to the door's deadline. Nothing of it is found in the prefix cache. */
#include "worker/canary.h"
#include "ipc/memfd.h"
#include "shared/hash.h"
#include "shared/log.h"
#include "worker/build_id.h"
#include "worker/engine_state.h"
#include "worker/gpu/gpu_emit.h"
#include "worker/stores.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TOKENS = GPU_EMIT_GEMV_ROWS + 1, /* as one chunk: of the kernels for many rows */
    SINGLE = 4,                      /* a step is recorded when it comes again, and then replayed */
    LAYOUT = 1,
};

static const uint64_t NOT_FINITE = 0; /* in place of a digest */

struct record { /* the store */
    uint64_t setting, digest;
};

/* The logits of the last token: the first n_chunk tokens in one step, then one in each. */
static int compute(struct engine *en, int64_t n_chunk, float *ret, struct err *e)
{
    int64_t n_vocab = en->info.n_vocab;
    struct engine_row rows[TOKENS];
    struct engine_seq *s;
    int err = engine_seq_create(en, &s);
    if (err < 0) {
        return err;
    }
    s->is_spoiled = true; /* nobody else's */
    door_beat(en->options.door);
    err = engine_seq_reserve(en, s, TOKENS);
    for (int64_t at = 0, n = 0; at < TOKENS && err == 0; at += n) {
        const float *logits = NULL;
        n = at == 0 ? MIN(n_chunk, en->options.max_rows) : 1;
        for (int64_t i = 0; i < n; i++) {
            rows[i] = (struct engine_row){.seq = s,
                                          .token = (int32_t)(((at + i) * 7919 + 13) % n_vocab),
                                          .want_logits = at + i + 1 == TOKENS};
        }
        err = engine_step(en, rows, n, &logits, e);
        door_beat(en->options.door);
        if (err == 0 && logits) {
            memcpy(ret, logits, (size_t)n_vocab * sizeof *ret);
        }
    }
    engine_seq_destroy(en, &s);
    return err;
}

void canary_key(const struct engine_options *o, const uint8_t fingerprint[32],
                uint8_t ret[STORE_KEY_BYTES])
{
    const uint32_t layout = LAYOUT;
    const uint64_t kernels = door_kernels(o->door);
    size_t n_build;
    const void *build = build_id(&n_build);
    const struct stores_part parts[] = {
        {&layout, sizeof layout}, {build, n_build}, {&kernels, sizeof kernels}, {fingerprint, 32}};
    stores_key(STORE_CANARY, parts, COUNT_OF(parts), ret);
}

/* Of the placement and of what else may change between workers that compute the same model. */
static uint64_t setting_of(const struct engine_info *i)
{
    return hash64(i->profile, strlen(i->profile), (uint64_t)i->n_ctx);
}

/* Of what is computed with so many tokens in the first step. A model whose file is broken has no
 * finite numbers, in whatever way: that too is the same again, and no fault of the device. */
static int digest(struct engine *en, int64_t n_chunk, float *logits, uint64_t *ret)
{
    struct err e = {0};
    int err = compute(en, n_chunk, logits, &e);
    if (err < 0 && err != ERR_NUMERIC) {
        return err;
    }
    *ret = err < 0 ? NOT_FINITE : hash64(logits, (size_t)en->info.n_vocab * sizeof *logits, TOKENS);
    return 0;
}

/* What an earlier worker had in the same setting. */
static bool recall(struct stores *stores, const uint8_t *key, uint64_t setting, uint64_t *ret)
{
    size_t bytes;
    struct record r;
    int fd = stores_take(stores, STORE_CANARY, key, &bytes);
    if (fd < 0) {
        return false;
    }
    bool is_known = pread(fd, &r, sizeof r, 0) == (ssize_t)sizeof r && r.setting == setting;
    stores_release(stores, STORE_CANARY, key);
    if (is_known) {
        *ret = r.digest;
    }
    return is_known;
}

static void keep(struct stores *stores, const uint8_t *key, const struct record *r)
{
    stores_drop(stores, STORE_CANARY, key); /* of another setting */
    int fd = stores ? memfd_create_const("rocmforge-canary", r, sizeof *r) : -1;
    if (fd >= 0 && stores_put(stores, STORE_CANARY, key, fd, sizeof *r)) {
        stores_release(stores, STORE_CANARY, key);
    }
}

/* What is wrong; NULL: nothing. logits: room for a row. */
static const char *judge(struct engine *en, float *logits)
{
    struct stores *stores = en->options.stores;
    struct record now = {.setting = setting_of(&en->info)};
    uint8_t key[STORE_KEY_BYTES];
    uint64_t other = NOT_FINITE;
    canary_key(&en->options, en->info.fingerprint, key);
    bool is_known = recall(stores, key, now.setting, &other);
    int err = digest(en, TOKENS - SINGLE, logits, &now.digest);
    if (err == 0 && !is_known) {
        err = digest(en, TOKENS, logits, &other);
    }
    if (err < 0) {
        log_warn("the canary could not be computed: %s", err_text(err));
        return NULL;
    }
    if (now.digest != other) {
        return is_known ? "the canary has other bits than in an earlier worker"
                        : "the canary as one chunk has other bits than in several steps";
    }
    if (now.digest == NOT_FINITE) {
        log_warn("the model's first numbers are NaN or infinite: its file may be damaged");
    }
    if (!is_known) {
        keep(stores, key, &now);
    }
    return NULL;
}

void canary_check(struct engine *en)
{
    if (!en->gpu) {
        return;
    }
    struct status_page *page = door_status(en->options.door);
    if (page) { /* part of the load, also of a model that others' streams run beside */
        status_beat(page, STATUS_LOADING);
        (void)engine_mark_ops(en, &page->op);
    }
    float *logits = calloc((size_t)en->info.n_vocab, sizeof *logits);
    const char *wrong = logits ? judge(en, logits) : NULL;
    free(logits);
    if (wrong) {
        stores_drop_kind(en->options.stores, STORE_KV); /* this card wrote them */
        door_distrust(en->options.door, wrong);
    }
    gpu_engine_forget(en->gpu); /* what is replayed for people is compared anew */
}
