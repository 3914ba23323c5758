/* Dictionaries in order of insertion. Small ones are searched, larger ones indexed by hash; every
 * probe counts as a step, so keys chosen to collide end in an error and not in an hour. */
#ifndef WORKER_JINJA_JINJA_DICT_H
#define WORKER_JINJA_JINJA_DICT_H

#include "worker/jinja/jinja_value.h"

struct jinja_entry {
    struct jinja_value key, value;
    uint64_t hash;
};

struct jinja_dict {
    uint32_t n, cap;
    uint32_t n_index; /* a power of two, or 0 */
    struct jinja_entry *entries;
    uint32_t *index; /* entry + 1, or 0 */
};

struct jinja_dict *jinja_dict_create(struct jinja *j, size_t cap);
/* Inserts or replaces. Leaves when the key cannot be one. */
void jinja_dict_set(struct jinja *j, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value);
/* Appends a key that is known to be new. */
void jinja_dict_add(struct jinja *j, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value);
/* NULL when absent. */
struct jinja_value *jinja_dict_get(struct jinja *j, struct jinja_dict *d, struct jinja_value key);
struct jinja_value *jinja_dict_get_str(struct jinja *j, struct jinja_dict *d, const char *s,
                                       size_t n);
struct jinja_value jinja_dict_value(struct jinja_dict *d);

#endif
