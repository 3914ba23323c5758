/* Who goes in, and whose blocks are taken away for others. See scheduler_state.h. */
#include "worker/scheduler_state.h"

/* A paused request keeps its blocks that long, even if another could use them: readers often stall
 * for an instant, and recomputing costs more. */
#define PAUSE_GRACE_NS ((uint64_t)500 * 1000 * 1000)

/* Clients with little running go before those with much, but nobody is overtaken who has waited
 * this long. */
#define FAIR_WAIT_NS ((uint64_t)10 * 1000 * 1000 * 1000)

/* The one whose blocks are given to others: the youngest of those with slow readers, else the
 * youngest. */
static struct choice *victim(const struct scheduler *s)
{
    for (int i = s->n_running; i-- > 0;) {
        if (request_is_stalled(s->running[i]->request)) {
            return s->running[i];
        }
    }
    return s->n_running ? s->running[s->n_running - 1] : NULL;
}

/* Makes room for a waiting choice at the cost of one whose reader has been slow for long. */
static bool evict_stalled(struct scheduler *s)
{
    struct choice *v = victim(s);
    if (!v || !request_is_stalled(v->request) ||
        s->events->now_ns - v->request->stalled_ns < PAUSE_GRACE_NS) {
        return false;
    }
    scheduler_queue_preempt(s, v);
    return true;
}

/* How many of its first tokens it may take from the cache instead of computing them; they are
 * written to s->ids. */
static int64_t n_reusable(struct scheduler *s, const struct choice *c)
{
    const struct request *r = c->request;
    int64_t n = choice_is_bearer(c) ? r->n_prompt - 1 : choice_n_known(c) - 1;
    if (c->is_suspect) { /* what spoiled its step might be found again */
        n = 0;
    } else if ((r->generate.flags & MSG_RANK) && c->n_accepted < c->n_replayed) {
        n = MIN(n, r->n_prompt - 1 + c->n_accepted); /* every id of the answer is ranked */
    } else if (r->echo && r->n_echoed < r->n_prompt) {
        n = MIN(n, MAX(r->n_echoed - 1, 0)); /* its report needs every row */
    }
    for (int64_t i = 0; i < n; i++) {
        s->ids[i] = choice_known(c, i);
    }
    return n;
}

/* The only sequence does not fit a KV cache that was made smaller for others' sake
 * (worker/budget.h): it takes back what it needs. False: there is no more. */
static bool take_back(struct scheduler *s, const struct choice *c)
{
    int64_t now = engine_cache(s->engine).n_blocks, full = engine_info(s->engine)->n_blocks;
    int64_t want = now + choice_n_missing(c) / ENGINE_BLOCK_TOKENS + 2 + full / 16;
    return now < full && engine_resize_kv(s->engine, MIN(want, full)) > now;
}

static bool has_room(struct scheduler *s, const struct choice *c)
{
    int64_t slots = MIN(choice_n_slots(c), s->n_seqs), used = 0, held;
    for (int i = 0; i < s->n_running; i++) {
        used += choice_n_slots(s->running[i]);
    }
    engine_cached(s->engine, s->ids, n_reusable(s, c), &held);
    /* A block in reserve for every sequence that will go on growing. */
    int64_t blocks = choice_n_known(c) / ENGINE_BLOCK_TOKENS - held + choice_n_slots(c) + used;
    bool is_alone = s->n_running == 0;
    return is_alone || (used + slots <= s->n_seqs && engine_free_blocks(s->engine) >= blocks);
}

/* False: it stays in the queue. */
static bool admit_one(struct scheduler *s, struct choice *c)
{
    struct request *r = c->request;
    while (!has_room(s, c)) {
        if (!evict_stalled(s)) {
            return false;
        }
    }
    if (engine_seq_create(s->engine, &c->seq) < 0) {
        return false;
    }
    int64_t n_cached = engine_seq_reuse(s->engine, c->seq, s->ids, n_reusable(s, c));
    if (engine_seq_reserve(s->engine, c->seq, choice_n_missing(c)) < 0) {
        bool grows = s->n_running == 0 && take_back(s, c);
        engine_seq_destroy(s->engine, &c->seq);
        if (grows) {
            return admit_one(s, c);
        }
        if (s->n_running == 0) {
            struct err e;
            err_set(&e, ERR_NO_MEMORY, "%lld tokens do not fit the KV cache",
                    (long long)choice_n_known(c));
            scheduler_end_request(s, r, &e);
        }
        return false;
    }
    scheduler_queue_take(s, c);
    scheduler_queue_run(s, c);
    if (!r->started_ns) {
        r->n_cached = MIN(n_cached, r->n_prompt);
        s->stats.n_prompt_tok += (uint64_t)r->n_prompt;
        s->stats.n_cached_tok += (uint64_t)r->n_cached;
        events_started(s->events, r);
    }
    return true;
}

static int n_running_of(const struct scheduler *s, uint64_t client)
{
    int n = 0;
    for (int i = 0; i < s->n_running; i++) {
        n += s->running[i]->request->generate.client == client;
    }
    return n;
}

/* Who goes in next: the oldest that had begun already; the oldest, if it has waited long; the
 * oldest of the client that has least running. */
static struct choice *next_in(const struct scheduler *s)
{
    struct choice *best = NULL;
    int least = 0;
    for (struct choice *c = s->head; c; c = c->next) {
        const struct request *r = c->request;
        if (request_is_stalled(r)) {
            continue;
        }
        if (r->started_ns) {
            return c;
        }
        if (best && s->events->now_ns - best->request->received_ns >= FAIR_WAIT_NS) {
            continue;
        }
        int n = n_running_of(s, r->generate.client);
        if (!best || n < least) {
            best = c;
            least = n;
        }
    }
    return best;
}

void scheduler_admit(struct scheduler *s)
{
    struct choice *c;
    while ((c = next_in(s)) && admit_one(s, c)) {
    }
}

void scheduler_admit_reserve(struct scheduler *s)
{
    for (int i = 0; i < s->n_running;) {
        struct choice *c = s->running[i];
        if (request_is_stalled(c->request) ||
            engine_seq_reserve(s->engine, c->seq, choice_n_missing(c)) == 0) {
            i++;
            continue;
        }
        if (s->n_running == 1 && take_back(s, c)) {
            continue;
        }
        if (s->n_running == 1) {
            struct err e;
            err_set(&e, ERR_NO_MEMORY, "%lld tokens do not fit the KV cache",
                    (long long)choice_n_known(c));
            scheduler_end_request(s, c->request, &e);
            return;
        }
        struct choice *v = victim(s);
        ASSERT(v);
        i -= v != c && choice_is_older(v, c); /* those behind it move up */
        scheduler_queue_preempt(s, v);
    }
}
