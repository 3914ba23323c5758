/* Bottom-up merge sort. Pure but for the arena. */
#include "worker/jinja/jinja_sort.h"

#include <string.h>

/* Merges the sorted [low, mid) and [mid, high) of from into to. */
static void merge(struct jinja *j, const struct jinja_sorted *from, struct jinja_sorted *to,
                  size_t low, size_t mid, size_t high, bool reverse)
{
    size_t a = low, b = mid;
    for (size_t i = low; i < high; i++) {
        bool take_b = a == mid;
        if (a < mid && b < high) {
            /* Equal items keep their order, so the later one goes first only where it must. */
            take_b = reverse ? jinja_value_compare(j, from[a].key, from[b].key, "<") == -1
                             : jinja_value_compare(j, from[b].key, from[a].key, "<") == -1;
        }
        to[i] = take_b ? from[b++] : from[a++];
    }
}

void jinja_sort(struct jinja *j, struct jinja_sorted *items, size_t n, bool reverse)
{
    struct jinja_sorted *from = items, *to = jinja_array(j, n, sizeof(*to));
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            merge(j, from, to, low, MIN(low + width, n), MIN(low + 2 * width, n), reverse);
        }
        struct jinja_sorted *swap = from;
        from = to;
        to = swap;
    }
    if (from != items) {
        memcpy(items, from, n * sizeof(*items));
    }
}
