/* The lazy automaton (see automaton.h). The token loop's and prepare threads', one at a time;
 * blocks never; allocates while its tables grow. */
#include "worker/grammar/automaton.h"
#include "worker/grammar/grammar_budget.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_NODES = 1 << 18,
    MOST_STATES = 1 << 16,
    MOST_MEMBERS = 1 << 20,
    MOST_STEPS = 1 << 20,
    MOST_CLOSURE = 1 << 15, /* places of one state; more means left recursion */
    MOST_LOOKS = 1 << 18,   /* for one state, at places met before too */
    MOST_CHECKED = 1 << 24, /* looks when all rules are tried */
    FEW_NODES = 256,        /* what tables begin with */
    FEW_STATES = 64,
    FEW_SLOTS = 1024,
};

struct node { /* a place: an element, and where it goes on behind the rule's end */
    uint32_t element, parent;
};

struct state {
    uint32_t first, n; /* its members */
    bool accepts;
};

struct step {
    uint64_t key; /* state << 8 | byte, + 1; 0: free */
    uint32_t to;
};

/* Numbers by content: open addressing over rows that live elsewhere. */
struct index {
    uint32_t *slots; /* owned: row, 0 free */
    uint32_t mask;
};

struct automaton {
    const struct grammar *g;
    struct node *nodes; /* owned; node 0 is the ground */
    uint32_t *marks;    /* owned; last closure that met the node */
    uint32_t n_nodes, cap_nodes, cap_marks, n_closures;
    struct index node_index;
    struct state *states; /* owned */
    uint32_t n_states, cap_states;
    struct index state_index;
    uint32_t *members; /* owned: nodes, sorted within a state */
    uint32_t n_members, cap_members;
    struct step *steps; /* owned */
    uint32_t n_steps, step_mask;
    uint32_t *todo, *found; /* owned: MOST_CLOSURE each */
    uint32_t n_todo, n_found;
    bool accepts, is_full; /* of the closure under way */
    uint32_t generation;
    uint64_t n_visits, closure_visits; /* now, and when the closure began */
    size_t bytes;                      /* of the budget */
    bool is_refused;                   /* the budget had no more, at the beginning */
};

static uint32_t mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(x >> 32 ^ x >> 15);
}

static bool charge(struct automaton *a, size_t bytes)
{
    bool ok = grammar_budget_take(bytes);
    a->bytes += ok ? bytes : 0;
    a->is_refused = a->is_refused || !ok;
    return ok;
}

static void discharge(struct automaton *a, size_t bytes)
{
    a->bytes -= bytes;
    grammar_budget_give(bytes);
}

/* Rows of zeros, or NULL. */
static void *allocate(struct automaton *a, uint32_t n, size_t size)
{
    if (!charge(a, n * size)) {
        return NULL;
    }
    void *rows = calloc(n, size);
    if (!rows) {
        discharge(a, n * size);
    }
    return rows;
}

/* Room for n rows of this size behind the pointer at pp; false: there is none. */
static bool grow(struct automaton *a, void *pp, uint32_t *cap, uint32_t n, uint32_t most,
                 size_t size)
{
    void *old;
    memcpy(&old, pp, sizeof(old)); /* whatever the rows are */
    if (n <= *cap) {
        return true;
    }
    if (n > most) {
        return false;
    }
    uint32_t fresh = MIN(MAX(n, *cap * 2), most);
    size_t more = (fresh - *cap) * size;
    if (!charge(a, more)) {
        return false;
    }
    void *grown = realloc(old, fresh * size);
    if (!grown) {
        discharge(a, more);
        return false;
    }
    memset((char *)grown + *cap * size, 0, (fresh - *cap) * size);
    memcpy(pp, &grown, sizeof(grown));
    *cap = fresh;
    return true;
}

/* Few rows, whatever they hold. */
static void shrink(struct automaton *a, void *pp, uint32_t *cap, uint32_t few, size_t size)
{
    void *old;
    memcpy(&old, pp, sizeof(old));
    void *small = *cap > few ? realloc(old, few * size) : NULL;
    if (small) {
        memcpy(pp, &small, sizeof(small));
        discharge(a, (*cap - few) * size);
        *cap = few;
    }
}

static bool index_make(struct automaton *a, struct index *x, uint32_t slots)
{
    x->slots = allocate(a, slots, sizeof(*x->slots));
    x->mask = slots - 1;
    return x->slots != NULL;
}

/* ---- places ---- */

static uint32_t node_hash(const struct node *n)
{
    return mix((uint64_t)n->element << 32 | n->parent);
}

static bool nodes_rehash(struct automaton *a)
{
    struct index fresh;
    if (!index_make(a, &fresh, (a->node_index.mask + 1) * 2)) {
        return false;
    }
    for (uint32_t i = 1; i < a->n_nodes; i++) {
        uint32_t at = node_hash(&a->nodes[i]) & fresh.mask;
        while (fresh.slots[at]) {
            at = (at + 1) & fresh.mask;
        }
        fresh.slots[at] = i;
    }
    free(a->node_index.slots);
    discharge(a, (a->node_index.mask + 1) * sizeof(*fresh.slots));
    a->node_index = fresh;
    return true;
}

/* The number of this place. 0: no room, and the closure is void. */
static uint32_t place(struct automaton *a, uint32_t element, uint32_t parent)
{
    const struct node want = {element, parent};
    uint32_t at = node_hash(&want) & a->node_index.mask;
    for (uint32_t i; (i = a->node_index.slots[at]); at = (at + 1) & a->node_index.mask) {
        if (a->nodes[i].element == element && a->nodes[i].parent == parent) {
            return i;
        }
    }
    if (!grow(a, &a->marks, &a->cap_marks, a->n_nodes + 1, MOST_NODES, sizeof(*a->marks)) ||
        !grow(a, &a->nodes, &a->cap_nodes, a->n_nodes + 1, MOST_NODES, sizeof(*a->nodes))) {
        a->is_full = true;
        return 0;
    }
    a->nodes[a->n_nodes] = want;
    a->node_index.slots[at] = a->n_nodes;
    uint32_t number = a->n_nodes++;
    if (a->n_nodes > a->node_index.mask / 2 && !nodes_rehash(a)) {
        a->is_full = true;
        return 0;
    }
    return number;
}

static void visit(struct automaton *a, uint32_t node)
{
    if (node == 0 || a->marks[node] == a->n_closures) {
        a->n_visits++; /* rules that name each other thousands of times have millions of these */
        a->is_full = a->is_full || a->n_visits - a->closure_visits > MOST_LOOKS;
        return;
    }
    a->marks[node] = a->n_closures;
    if (a->n_todo == MOST_CLOSURE) {
        a->is_full = true;
        return;
    }
    a->todo[a->n_todo++] = node;
}

static void closure_begin(struct automaton *a)
{
    a->n_closures++;
    a->n_todo = a->n_found = 0;
    a->accepts = a->is_full = false;
    a->closure_visits = a->n_visits;
}

/* From the places visited to those that stand before a byte. */
static void closure_run(struct automaton *a)
{
    const struct grammar *g = a->g;
    uint32_t n_met = 0;
    while (a->n_todo > 0 && !a->is_full) {
        uint32_t number = a->todo[--a->n_todo];
        struct node n = a->nodes[number];
        const struct grammar_element *el = &g->elements[n.element];
        a->n_visits++;
        if (++n_met > MOST_CLOSURE) {
            a->is_full = true;
        } else if (el->kind == GRAMMAR_BYTES) {
            a->found[a->n_found++] = number;
        } else if (el->kind == GRAMMAR_END) {
            a->accepts = a->accepts || n.parent == 0;
            visit(a, n.parent);
        } else {
            /* Behind the last element there is nothing to come back to: the stack does not grow. */
            uint32_t back =
                el[1].kind == GRAMMAR_END ? n.parent : place(a, n.element + 1, n.parent);
            for (uint32_t i = g->rules[el->rule]; i != GRAMMAR_NONE && !a->is_full;
                 i = g->alternatives[i].next) {
                visit(a, place(a, g->alternatives[i].first, back));
            }
        }
    }
}

static void visit_rule(struct automaton *a, uint32_t rule)
{
    const struct grammar *g = a->g;
    for (uint32_t i = g->rules[rule]; i != GRAMMAR_NONE; i = g->alternatives[i].next) {
        visit(a, place(a, g->alternatives[i].first, 0));
    }
}

/* ---- states ---- */

static uint32_t state_hash(const uint32_t *members, uint32_t n, bool accepts)
{
    uint64_t h = accepts;
    for (uint32_t i = 0; i < n; i++) {
        h = (h ^ members[i]) * 0x100000001B3u;
    }
    return mix(h);
}

static int by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The state of the places found. */
static uint32_t intern(struct automaton *a)
{
    if (a->is_full) {
        return AUTOMATON_FULL;
    }
    if (a->n_found == 0 && !a->accepts) {
        return AUTOMATON_DEAD;
    }
    qsort(a->found, a->n_found, sizeof(*a->found), by_number);
    uint32_t at = state_hash(a->found, a->n_found, a->accepts) & a->state_index.mask;
    for (uint32_t i; (i = a->state_index.slots[at]); at = (at + 1) & a->state_index.mask) {
        const struct state *s = &a->states[i];
        if (s->n == a->n_found && s->accepts == a->accepts &&
            (s->n == 0 || memcmp(a->members + s->first, a->found, s->n * sizeof(*a->found)) == 0)) {
            return i;
        }
    }
    if (!grow(a, &a->states, &a->cap_states, a->n_states + 1, MOST_STATES, sizeof(*a->states)) ||
        !grow(a, &a->members, &a->cap_members, a->n_members + a->n_found, MOST_MEMBERS,
              sizeof(*a->members))) {
        return AUTOMATON_FULL;
    }
    a->states[a->n_states] =
        (struct state){.first = a->n_members, .n = a->n_found, .accepts = a->accepts};
    if (a->n_found) {
        memcpy(a->members + a->n_members, a->found, a->n_found * sizeof(*a->found));
    }
    a->n_members += a->n_found;
    a->state_index.slots[at] = a->n_states;
    return a->n_states++;
}

static bool steps_rehash(struct automaton *a, uint32_t slots)
{
    struct step *fresh = allocate(a, slots, sizeof(*fresh));
    if (!fresh) {
        return false;
    }
    for (uint32_t i = 0; a->steps && i <= a->step_mask; i++) {
        if (a->steps[i].key) {
            uint32_t at = mix(a->steps[i].key) & (slots - 1);
            while (fresh[at].key) {
                at = (at + 1) & (slots - 1);
            }
            fresh[at] = a->steps[i];
        }
    }
    if (a->steps) {
        free(a->steps);
        discharge(a, (a->step_mask + 1) * sizeof(*fresh));
    }
    a->steps = fresh;
    a->step_mask = slots - 1;
    return true;
}

uint32_t automaton_step(struct automaton *a, uint32_t state, uint8_t byte)
{
    if (state >= a->n_states) {
        return AUTOMATON_FULL; /* a reset had no room for the beginning */
    }
    uint64_t key = ((uint64_t)state << 8 | byte) + 1;
    uint32_t at = mix(key) & a->step_mask;
    for (; a->steps[at].key; at = (at + 1) & a->step_mask) {
        if (a->steps[at].key == key) {
            return a->steps[at].to;
        }
    }
    if (a->n_steps == MOST_STEPS) {
        return AUTOMATON_FULL;
    }
    closure_begin(a);
    struct state s = a->states[state];
    for (uint32_t i = 0; i < s.n && !a->is_full; i++) {
        struct node n = a->nodes[a->members[s.first + i]];
        const struct grammar_element *el = &a->g->elements[n.element];
        if (byte >= el->lo && byte <= el->hi) {
            visit(a, place(a, n.element + 1, n.parent));
        }
    }
    closure_run(a);
    uint32_t to = intern(a);
    if (to == AUTOMATON_FULL) {
        return to;
    }
    a->steps[at] = (struct step){.key = key, .to = to};
    if (++a->n_steps > a->step_mask / 2 && !steps_rehash(a, (a->step_mask + 1) * 2)) {
        return AUTOMATON_FULL;
    }
    return to;
}

bool automaton_accepts(const struct automaton *a, uint32_t state)
{
    return a->states[state].accepts;
}

uint64_t automaton_work(const struct automaton *a)
{
    return a->n_visits;
}

uint32_t automaton_generation(const struct automaton *a)
{
    return a->generation;
}

/* ---- life ---- */

/* Only the ground, the dead state and the beginning. */
static uint32_t begin(struct automaton *a)
{
    a->n_nodes = 1;
    a->n_states = 1;
    a->n_members = a->n_steps = 0;
    memset(a->node_index.slots, 0, (a->node_index.mask + 1) * sizeof(uint32_t));
    memset(a->state_index.slots, 0, (a->state_index.mask + 1) * sizeof(uint32_t));
    memset(a->steps, 0, (a->step_mask + 1) * sizeof(*a->steps));
    memset(a->marks, 0, a->cap_marks * sizeof(*a->marks));
    a->n_closures = 0;
    a->states[AUTOMATON_DEAD] = (struct state){0};
    closure_begin(a);
    visit_rule(a, a->g->root);
    closure_run(a);
    return intern(a);
}

/* Others need the room, and the tables are made again as they are needed. */
static void shrink_all(struct automaton *a)
{
    shrink(a, &a->marks, &a->cap_marks, FEW_NODES, sizeof(*a->marks));
    shrink(a, &a->nodes, &a->cap_nodes, FEW_NODES, sizeof(*a->nodes));
    shrink(a, &a->states, &a->cap_states, FEW_STATES, sizeof(*a->states));
    shrink(a, &a->members, &a->cap_members, FEW_NODES, sizeof(*a->members));
    uint32_t cap = a->node_index.mask + 1;
    shrink(a, &a->node_index.slots, &cap, FEW_SLOTS, sizeof(*a->node_index.slots));
    a->node_index.mask = cap - 1;
    cap = a->step_mask + 1;
    shrink(a, &a->steps, &cap, FEW_SLOTS, sizeof(*a->steps));
    a->step_mask = cap - 1;
}

void automaton_reset(struct automaton *a)
{
    a->generation++;
    if (grammar_budget_is_tight()) {
        shrink_all(a);
    }
    begin(a);
}

/* From the beginning of every rule a byte or the end is reached: else it is left-recursive. */
static int check_rules(struct automaton *a, struct err *e)
{
    uint64_t begin = a->n_visits;
    for (uint32_t i = 0; i < a->g->n_rules; i++) {
        closure_begin(a);
        visit_rule(a, i);
        closure_run(a);
        if (a->is_full || a->n_visits - begin > MOST_CHECKED) {
            return err_set(e, ERR_GRAMMAR, "it is left-recursive, or too much is possible at once");
        }
    }
    return 0;
}

int automaton_create(const struct grammar *g, struct automaton **ret, struct err *e)
{
    struct automaton *a = calloc(1, sizeof(*a));
    if (!a) {
        return -ENOMEM;
    }
    a->g = g;
    size_t closure_bytes = MOST_CLOSURE * (sizeof(*a->todo) + sizeof(*a->found));
    bool ok = charge(a, closure_bytes) && (a->todo = calloc(MOST_CLOSURE, sizeof(*a->todo))) &&
              (a->found = calloc(MOST_CLOSURE, sizeof(*a->found))) &&
              index_make(a, &a->node_index, FEW_SLOTS) &&
              index_make(a, &a->state_index, MOST_STATES * 2) && steps_rehash(a, FEW_SLOTS) &&
              grow(a, &a->nodes, &a->cap_nodes, FEW_NODES, MOST_NODES, sizeof(*a->nodes)) &&
              grow(a, &a->marks, &a->cap_marks, FEW_NODES, MOST_NODES, sizeof(*a->marks)) &&
              grow(a, &a->states, &a->cap_states, FEW_STATES, MOST_STATES, sizeof(*a->states));
    int rc = ok ? 0 : -ENOMEM;
    if (rc == 0 && begin(a) != AUTOMATON_BEGIN) {
        rc = err_set(e, ERR_GRAMMAR,
                     a->is_full ? "it is left-recursive, or too much is possible at once"
                                : "nothing matches it");
    }
    rc = rc < 0 ? rc : check_rules(a, e);
    rc =
        rc < 0 && a->is_refused ? grammar_budget_refuse(e) : rc; /* it is not the grammar's fault */
    if (rc == 0) {
        begin(a); /* what was only tried is forgotten */
        *ret = a;
    } else {
        automaton_destroy(&a);
    }
    return rc;
}

void automaton_destroy(struct automaton **ap)
{
    struct automaton *a = *ap;
    if (a) {
        free(a->nodes);
        free(a->marks);
        free(a->node_index.slots);
        free(a->states);
        free(a->state_index.slots);
        free(a->members);
        free(a->steps);
        free(a->todo);
        free(a->found);
        grammar_budget_give(a->bytes);
        free(a);
        *ap = NULL;
    }
}
