/* Masks over the vocabulary (see constraint.h). Blocks never. A mask is one walk through the sorted
 * vocabulary, in which a beginning that does not fit skips all that share it; masks of the states
 * that were met last are kept. */
#include "worker/grammar/constraint.h"
#include "worker/grammar/automaton.h"
#include "worker/grammar/grammar_budget.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MASKS = 24,
    MOST_WORK = 1 << 20, /* places looked at for one mask: some 15 ms, in which everybody waits */
};

struct mask {
    uint32_t state; /* 0: none */
    uint64_t used;
    uint64_t *bits; /* owned; by id */
    bool is_empty;  /* not even the end */
};

struct constraint {
    struct grammar *grammar;     /* owned */
    struct automaton *automaton; /* owned */
    const struct pieces *pieces; /* borrowed */
    const struct tokenizer *t;   /* borrowed */
    int64_t n_vocab;
    float *logits; /* owned; scratch */
    struct mask masks[MASKS];
    size_t bytes; /* of the budget: logits and masks */
    uint64_t n_uses;
    struct buf piece; /* scratch */
};

int constraint_create(const char *text, size_t n, const struct pieces *pieces,
                      const struct tokenizer *t, int64_t n_vocab, struct constraint **ret,
                      struct err *e)
{
    struct constraint *c = calloc(1, sizeof(*c));
    if (!c) {
        return -ENOMEM;
    }
    c->pieces = pieces;
    c->t = t;
    c->n_vocab = n_vocab;
    buf_init(&c->piece, 0);
    size_t words = (size_t)(n_vocab + 63) / 64;
    size_t bytes = (size_t)n_vocab * sizeof(*c->logits) + MASKS * words * sizeof(uint64_t);
    c->bytes = grammar_budget_take(bytes) ? bytes : 0;
    c->logits = c->bytes ? malloc((size_t)n_vocab * sizeof(*c->logits)) : NULL;
    int rc = !c->bytes    ? grammar_budget_refuse(e)
             : !c->logits ? -ENOMEM
                          : grammar_create(text, n, &c->grammar, e);
    rc = rc < 0 ? rc : automaton_create(c->grammar, &c->automaton, e);
    for (size_t i = 0; i < MASKS && rc == 0; i++) {
        c->masks[i].bits = calloc(words, sizeof(uint64_t));
        rc = c->masks[i].bits ? 0 : -ENOMEM;
    }
    if (rc < 0) {
        constraint_destroy(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

void constraint_destroy(struct constraint **cp)
{
    struct constraint *c = *cp;
    if (c) {
        for (size_t i = 0; i < MASKS; i++) {
            free(c->masks[i].bits);
        }
        automaton_destroy(&c->automaton);
        grammar_destroy(&c->grammar);
        buf_finish(&c->piece);
        free(c->logits);
        grammar_budget_give(c->bytes);
        free(c);
        *cp = NULL;
    }
}

/* ---- places ---- */

void constraint_begin(const struct constraint *c, struct constraint_place *place)
{
    *place = (struct constraint_place){AUTOMATON_BEGIN, automaton_generation(c->automaton)};
}

/* Forgets all numbers. */
static void reset(struct constraint *c)
{
    automaton_reset(c->automaton);
    for (size_t i = 0; i < MASKS; i++) {
        c->masks[i].state = 0;
    }
}

static int too_much(struct err *e)
{
    if (grammar_budget_is_tight()) {
        return grammar_budget_refuse(e);
    }
    return err_set(e, ERR_GRAMMAR, "the grammar allows too much at once");
}

/* One id further. ERR_BAD_TOKEN, ERR_NO_MEMORY (tables full), errors of the tokenizer. */
static int walk(struct constraint *c, uint32_t *state, int32_t id)
{
    buf_clear(&c->piece);
    int rc = tokenizer_piece(c->t, id, false, false, &c->piece);
    if (rc < 0 || c->piece.failed) {
        return rc < 0 ? rc : -ENOMEM;
    }
    for (size_t i = 0; i < c->piece.len; i++) {
        *state = automaton_step(c->automaton, *state, (uint8_t)c->piece.data[i]);
        if (*state == AUTOMATON_DEAD || *state == AUTOMATON_FULL) {
            return *state == AUTOMATON_DEAD ? ERR_BAD_TOKEN : ERR_NO_MEMORY;
        }
    }
    return 0;
}

/* From the beginning. */
static int walk_all(struct constraint *c, struct constraint_place *place, const int32_t *ids,
                    size_t n)
{
    int rc = 0;
    constraint_begin(c, place);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = walk(c, &place->state, ids[i]);
    }
    return rc;
}

/* Brings the place behind n ids up to date, where it was one of an earlier generation. */
static int refresh(struct constraint *c, struct constraint_place *place, const int32_t *ids,
                   size_t n, struct err *e)
{
    int rc = 0;
    if (place->generation != automaton_generation(c->automaton)) {
        rc = walk_all(c, place, ids, n);
        if (rc == ERR_NO_MEMORY) {
            reset(c);
            rc = walk_all(c, place, ids, n);
        }
    }
    return rc == ERR_NO_MEMORY ? too_much(e)
           : rc < 0            ? err_set(e, rc, "an earlier token does not fit the grammar")
                               : 0;
}

int constraint_take(struct constraint *c, struct constraint_place *place, const int32_t *ids,
                    size_t n, struct err *e)
{
    int rc = refresh(c, place, ids, n - 1, e);
    if (rc < 0) {
        return rc;
    }
    uint32_t state = place->state;
    rc = walk(c, &state, ids[n - 1]);
    if (rc == ERR_NO_MEMORY) {
        reset(c);
        return refresh(c, place, ids, n, e);
    }
    place->state = state;
    return rc < 0 ? err_set(e, rc, "token %d does not fit the grammar", ids[n - 1]) : 0;
}

/* ---- masks ---- */

static void allow(struct mask *m, int32_t id)
{
    m->bits[id / 64] |= (uint64_t)1 << id % 64;
    m->is_empty = false;
}

/* Every token whose bytes the automaton takes from this state. ERR_NO_MEMORY: tables full;
 * ERR_GRAMMAR: it takes too long. */
static int fill(struct constraint *c, uint32_t state, struct mask *m)
{
    const struct pieces *p = c->pieces;
    uint32_t states[PIECES_LONGEST + 1] = {state};
    int failed_at = PIECES_LONGEST + 1; /* the byte that did not fit, of the row before */
    uint64_t begin = automaton_work(c->automaton);
    memset(m->bits, 0, (size_t)(c->n_vocab + 63) / 64 * sizeof(uint64_t));
    m->is_empty = true;
    for (int32_t i = 0; i < p->n; i++) {
        const struct piece *row = &p->rows[i];
        if (row->common > failed_at) {
            continue; /* it shares that byte */
        }
        if (automaton_work(c->automaton) - begin > MOST_WORK) {
            return ERR_GRAMMAR;
        }
        failed_at = PIECES_LONGEST + 1;
        for (int k = row->common; k < row->n; k++) {
            states[k + 1] = automaton_step(c->automaton, states[k], p->bytes[row->at + (size_t)k]);
            if (states[k + 1] == AUTOMATON_FULL) {
                return ERR_NO_MEMORY;
            }
            if (states[k + 1] == AUTOMATON_DEAD) {
                failed_at = k;
                break;
            }
        }
        if (failed_at > PIECES_LONGEST && row->id < c->n_vocab) {
            allow(m, row->id);
        }
    }
    for (int32_t id = 0; automaton_accepts(c->automaton, state) && id < p->n_ids; id++) {
        if (tokenizer_is_end(c->t, id)) {
            allow(m, id);
        }
    }
    m->state = state;
    return 0;
}

static int find_mask(struct constraint *c, uint32_t state, struct mask **ret)
{
    struct mask *oldest = &c->masks[0];
    for (size_t i = 0; i < MASKS; i++) {
        struct mask *m = &c->masks[i];
        if (m->state == state) {
            m->used = ++c->n_uses;
            *ret = m;
            return 0;
        }
        oldest = m->used < oldest->used ? m : oldest;
    }
    oldest->state = 0;
    oldest->used = ++c->n_uses;
    *ret = oldest;
    return fill(c, state, oldest);
}

int constraint_mask(struct constraint *c, struct constraint_place *place, const int32_t *ids,
                    size_t n, const float *logits, const float **ret, struct err *e)
{
    struct mask *m;
    int rc = refresh(c, place, ids, n, e);
    if (rc < 0) {
        return rc;
    }
    rc = find_mask(c, place->state, &m);
    if (rc == ERR_NO_MEMORY) {
        reset(c);
        rc = refresh(c, place, ids, n, e);
        rc = rc < 0 ? rc : find_mask(c, place->state, &m);
    }
    if (rc < 0) {
        return too_much(e);
    }
    for (int64_t i = 0; i < c->n_vocab; i++) {
        c->logits[i] = m->bits[i / 64] >> i % 64 & 1 ? logits[i] : -INFINITY;
    }
    *ret = m->is_empty ? NULL : c->logits;
    return 0;
}
