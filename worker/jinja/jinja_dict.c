/* Dictionaries. See the header; memory is the render's arena. */
#include "worker/jinja/jinja_dict.h"
#include "shared/hash.h"

#include <string.h>

enum { SEARCHED = 8 }; /* up to so many entries no index is kept */

struct jinja_dict *jinja_dict_create(struct jinja *j, size_t cap)
{
    struct jinja_dict *d = jinja_alloc(j, sizeof(*d));
    if (cap) {
        d->entries = jinja_array(j, cap, sizeof(*d->entries));
        d->cap = (uint32_t)cap;
    }
    return d;
}

static void put_index(struct jinja *j, struct jinja_dict *d, uint32_t entry)
{
    uint32_t mask = d->n_index - 1;
    uint32_t at = (uint32_t)d->entries[entry].hash & mask;
    while (d->index[at]) {
        jinja_step(j, 1);
        at = (at + 1) & mask;
    }
    d->index[at] = entry + 1;
}

static void make_index(struct jinja *j, struct jinja_dict *d)
{
    d->n_index = 32;
    while (d->n_index < 4 * (uint64_t)d->n) {
        d->n_index *= 2;
    }
    d->index = jinja_array(j, d->n_index, sizeof(*d->index));
    for (uint32_t i = 0; i < d->n; i++) {
        put_index(j, d, i);
    }
}

static struct jinja_value *find(struct jinja *j, struct jinja_dict *d, struct jinja_value key,
                                uint64_t hash)
{
    if (d->n <= SEARCHED) {
        for (uint32_t i = 0; i < d->n; i++) {
            if (d->entries[i].hash == hash && jinja_value_equal(j, d->entries[i].key, key)) {
                return &d->entries[i].value;
            }
        }
        return NULL;
    }
    /* Made when first asked for: most objects of a context are only walked or printed. */
    if (d->n_index < 2 * (uint64_t)d->n) {
        make_index(j, d);
    }
    uint32_t mask = d->n_index - 1;
    for (uint32_t at = (uint32_t)hash & mask; d->index[at]; at = (at + 1) & mask) {
        struct jinja_entry *e = &d->entries[d->index[at] - 1];
        if (e->hash == hash && jinja_value_equal(j, e->key, key)) {
            return &e->value;
        }
        jinja_step(j, 1);
    }
    return NULL;
}

static void append(struct jinja *j, struct jinja_dict *d, struct jinja_value key, uint64_t hash,
                   struct jinja_value value)
{
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 4;
        struct jinja_entry *entries = jinja_array(j, cap, sizeof(*entries));
        if (d->n) {
            memcpy(entries, d->entries, d->n * sizeof(*entries));
        }
        d->entries = entries;
        d->cap = cap;
    }
    d->entries[d->n++] = (struct jinja_entry){.key = key, .value = value, .hash = hash};
    if (d->n_index) {
        if (d->n_index >= 2 * (uint64_t)d->n) {
            put_index(j, d, d->n - 1);
        } else {
            d->n_index = 0; /* too full; made anew by the next search */
        }
    }
}

void jinja_dict_set(struct jinja *j, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value)
{
    uint64_t hash = jinja_value_hash(j, key);
    struct jinja_value *there = find(j, d, key, hash);
    if (there) {
        *there = value;
    } else {
        append(j, d, key, hash, value);
    }
}

void jinja_dict_add(struct jinja *j, struct jinja_dict *d, struct jinja_value key,
                    struct jinja_value value)
{
    append(j, d, key, jinja_value_hash(j, key), value);
}

struct jinja_value *jinja_dict_get(struct jinja *j, struct jinja_dict *d, struct jinja_value key)
{
    return find(j, d, key, jinja_value_hash(j, key));
}

struct jinja_value *jinja_dict_get_str(struct jinja *j, struct jinja_dict *d, const char *s,
                                       size_t n)
{
    return jinja_dict_get(j, d, jinja_value_str(s, n));
}

struct jinja_value jinja_dict_value(struct jinja_dict *d)
{
    return (struct jinja_value){.kind = JINJA_DICT, .dict = d};
}
