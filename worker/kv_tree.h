/* The tree of published blocks: for kv.c alone (everybody else: worker/kv.h). */
#ifndef WORKER_KV_TREE_H
#define WORKER_KV_TREE_H

#include "worker/kv.h"

void kv_tree_init(struct kv_pool *p);
/* Takes a block without children out of the tree. */
void kv_tree_remove(struct kv_pool *p, int32_t block);
/* An idle block without children is forgotten and becomes free (in kv.c). */
void kv_forget(struct kv_pool *p, int32_t block);

#endif
