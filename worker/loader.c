/* The loader's thread (see loader.h). What the thread makes is handed over when it is over: until
 * then the loop reads nothing but the atomic fields. */
#include "worker/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct loader {
    const struct models *models; /* borrowed */
    int bell;                    /* borrowed */
    bool is_busy;                /* the loop's */
    size_t index;
    pthread_t thread;
    _Atomic uint64_t done, total;
    _Atomic bool is_over;
    /* the thread's until is_over */
    struct model fresh;
    int result;
    struct err err;
};

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct loader *l = arg;
    atomic_store_explicit(&l->total, total, memory_order_relaxed);
    atomic_store_explicit(&l->done, done, memory_order_relaxed);
}

static void *run(void *arg)
{
    struct loader *l = arg;
    l->result = models_open(l->models, l->index, show_progress, l, &l->fresh, &l->err);
    atomic_store_explicit(&l->is_over, true, memory_order_release);
    uint64_t one = 1;
    ssize_t n = write(l->bell, &one, sizeof(one)); /* EAGAIN: it is ringing already */
    (void)n;
    return NULL;
}

struct loader *loader_create(const struct models *models, int bell)
{
    struct loader *l = base_alloc(sizeof(*l));
    l->models = models;
    l->bell = bell;
    return l;
}

void loader_destroy(struct loader **lp)
{
    struct loader *l = *lp;
    if (!l) {
        return;
    }
    if (l->is_busy) {
        pthread_join(l->thread, NULL);
        if (l->result == 0) {
            models_unload(&l->fresh);
        }
    }
    free(l);
    *lp = NULL;
}

bool loader_is_busy(const struct loader *l)
{
    return l->is_busy;
}

size_t loader_index(const struct loader *l)
{
    return l->index;
}

int loader_start(struct loader *l, size_t index)
{
    ASSERT(!l->is_busy);
    l->index = index;
    atomic_store(&l->is_over, false);
    atomic_store(&l->done, 0);
    atomic_store(&l->total, 0);
    int err = pthread_create(&l->thread, NULL, run, l);
    l->is_busy = err == 0;
    return -err;
}

void loader_progress(const struct loader *l, uint64_t *ret_done, uint64_t *ret_total)
{
    *ret_done = atomic_load_explicit(&l->done, memory_order_relaxed);
    *ret_total = atomic_load_explicit(&l->total, memory_order_relaxed);
}

int loader_take(struct loader *l, struct model *ret, int *ret_result, struct err *e)
{
    if (!l->is_busy || !atomic_load_explicit(&l->is_over, memory_order_acquire)) {
        return 0;
    }
    pthread_join(l->thread, NULL);
    l->is_busy = false;
    *ret_result = l->result;
    if (l->result == 0) {
        *ret = l->fresh;
    } else {
        *e = l->err;
    }
    return 1;
}
