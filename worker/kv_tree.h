/* The tree of published blocks: for kv.c and kv_record.c alone (everybody else: worker/kv.h). */
#ifndef WORKER_KV_TREE_H
#define WORKER_KV_TREE_H

#include "worker/kv.h"

void kv_tree_init(struct kv_pool *p);
/* Takes a block without children out of the tree. */
void kv_tree_remove(struct kv_pool *p, int32_t block);
/* An idle block without children is forgotten and becomes free (in kv.c). */
void kv_forget(struct kv_pool *p, int32_t block);
/* A block without references becomes the most recently used of the idle ones (in kv.c). */
void kv_enter_idle(struct kv_pool *p, int32_t block);
/* The content of a block in the pool's memory, in all layers (in kv.c). */
void kv_copy_host(struct kv_pool *p, int32_t from, int32_t to);
/* Links a block with its first n_ids tokens (p->ids) behind parent. */
void kv_tree_insert(struct kv_pool *p, int32_t parent, int32_t block, int32_t n_ids);
/* All that the tree, the idle list and the snapshots know of a block is from now on known of
 * another, which was free. */
void kv_tree_move(struct kv_pool *p, int32_t from, int32_t to);
/* As kv_find, but takes an unchecked block for what it says. */
int32_t kv_tree_find(const struct kv_pool *p, int32_t parent, const int32_t *ids);
/* The hash of the chain that ends with these KV_BLOCK tokens behind parent. */
uint64_t kv_tree_hash(const struct kv_pool *p, int32_t parent, const int32_t *ids);

#endif
