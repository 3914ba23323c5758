/* The gateway (see world.h): its real link, journal, trial and epochs, on timers and rings of this
 * world, and the clients that submit, cancel and read slowly. What clients must never see is
 * checked where they hear: a request that ends twice or not at all, other ids than its own, a
 * conviction without two deaths, the second of them alone. */
#include "gateway/epoch.h"
#include "gateway/metrics.h"
#include "gateway/outbox.h"
#include "shared/clock.h"
#include "tests/safety/world.h"

enum { N_CLIENTS = 24, INBOX = 32, PATIENCE_MS = 1000, EPOCH_FDS = 5 };

static struct client {
    uint64_t number, id;
    bool is_live, is_paused, is_suspect, is_mixed, is_convicted;
    struct want want;
    uint64_t since_ms, unserved_ms, total_ms, model;
    uint64_t gap_ms; /* no worker has it, since then */
    uint32_t n[MAX_CHOICES];
    bool is_finished[MAX_CHOICES], was_sent;
    uint64_t n_bytes;
    uint32_t n_counted; /* deaths held against it */
    char profile[64];   /* of its first token */
} clients[N_CLIENTS];

static struct {
    uint32_t type;
    uint64_t at_ms;
    struct company company; /* of a worker that is gone */
    uint8_t payload[384];
} inbox[INBOX];

static struct link gate;
static struct channel channel;
static struct proc *self;
static bool is_open;
static size_t n_inbox;
static uint64_t bell_ms, client_ms, n_clients, seed_of_clients;
static uint64_t refused_until_ms[N_POISONS];
static bool is_told; /* by the supervisor whom to refuse */
static const struct company *at_death; /* NULL: the worker is there, and has broken the protocol */

/* ---- clients ---- */

/* NULL: it is over. One whose client has left may still be judged. */
static const struct journal_entry *entry_of(const struct client *c)
{
    return is_open ? journal_find(&gate.journal, c->id) : NULL;
}

static struct client *client_of(uint64_t number)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        if (clients[i].number == number && (clients[i].is_live || entry_of(&clients[i]))) {
            return &clients[i];
        }
    }
    return NULL;
}

bool client_is_suspect(uint64_t number)
{
    const struct client *c = client_of(number);
    return c && c->is_suspect;
}

void client_got_on(uint64_t number)
{
    struct client *c = client_of(number);
    if (c) {
        c->is_suspect = false;
    }
}

static void check_conviction(const uint8_t digest[HASH_SHA256_BYTES])
{
    struct company now;
    if (!at_death) {
        worker_company(&now);
    }
    const struct company *with = at_death ? at_death : &now;
    struct client *c = with->n == 1 ? client_of(with->numbers[0]) : NULL;
    const struct journal_entry *en = c ? entry_of(c) : NULL;
    if (!en || c->n_counted == 0) {
        WRONG("a request is convicted after %u deaths, the worker computed with %zu",
              c ? c->n_counted : 0, with->n);
    }
    uint8_t own[HASH_SHA256_BYTES];
    journal_digest(en->type, &en->payload, own);
    if (memcmp(own, digest, sizeof(own)) != 0) {
        WRONG("another is convicted than request %llu", (unsigned long long)c->number);
    }
    c->is_convicted = true;
    if (w.is_innocent && !c->want.is_poison) {
        WRONG("request %llu is convicted, and no worker died of it",
              (unsigned long long)c->number);
    }
    if (c->want.is_poison) {
        refused_until_ms[c->number % N_POISONS] = w.now_ms + LIMIT_POISON_S * 1000ull;
    }
}

/* The gateway refuses from now on what has this digest: of its own accord, or it is told so. */
void __real_poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                       int64_t since_unix_s, uint64_t until_ms, uint64_t now_ms);
void __wrap_poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                       int64_t since_unix_s, uint64_t until_ms, uint64_t now_ms);
void __wrap_poison_add(struct poison *p, const uint8_t digest[HASH_SHA256_BYTES],
                       int64_t since_unix_s, uint64_t until_ms, uint64_t now_ms)
{
    if (p == &gate.poison && !is_told) {
        check_conviction(digest);
    }
    __real_poison_add(p, digest, since_unix_s, until_ms, now_ms);
}

/* Of itself, or of what is the same request. */
static void check_refusal(const struct client *c)
{
    if (!c->is_convicted && w.now_ms >= refused_until_ms[c->number % N_POISONS]) {
        WRONG("request %llu fails as poison, and was not convicted", (unsigned long long)c->number);
    }
}

static void check_failure(const struct client *c, int err)
{
    uint64_t since_ms = c->unserved_ms ? c->unserved_ms : c->since_ms;
    if (err == ERR_TOTAL_TIMEOUT && c->total_ms && w.now_ms - c->since_ms >= c->total_ms) {
        return;
    }
    if (err == ERR_MODEL_CHANGED && w.model != c->model) {
        return;
    }
    bool is_absent = gate.state == LINK_DOWN && gate.why.retry_after_ms == 0;
    if (err_http(err) == 503 && (is_absent || w.now_ms - since_ms >= gate.resume_ms)) {
        return;
    }
    WRONG("request %llu fails with %s for no reason", (unsigned long long)c->number,
          err_text(err));
}

static void hear_token(struct client *c, const struct msg_token *m)
{
    uint32_t k = m->choice - c->want.base;
    if (k >= c->want.n_choices || c->is_finished[k] || m->position != c->n[k] ||
        m->id != want_id(c->number, k, m->position)) {
        WRONG("request %llu hears a token that is not its next", (unsigned long long)c->number);
    }
    c->n[k]++;
    c->unserved_ms = 0;
    if (!*c->profile) {
        snprintf(c->profile, sizeof(c->profile), "%s", gate.models[0].profile);
    }
    c->is_mixed = c->is_mixed || strcmp(c->profile, gate.models[0].profile) != 0;
}

static void hear_finish(struct client *c, const struct msg_finish *m)
{
    uint32_t k = m->choice - c->want.base;
    if (k >= c->want.n_choices || c->is_finished[k] || c->n[k] != want_length(c->number, k)) {
        WRONG("a choice of request %llu ends wrongly", (unsigned long long)c->number);
    }
    c->is_finished[k] = true;
    c->unserved_ms = 0;
}

static void hear_done(const struct client *c, const char *resumed_on)
{
    for (uint32_t k = 0; k < c->want.n_choices; k++) {
        if (!c->is_finished[k]) {
            WRONG("request %llu is over without choice %u", (unsigned long long)c->number, k);
        }
    }
    if ((c->is_mixed && !resumed_on) || (!w.has_gpu && resumed_on)) {
        WRONG("request %llu: resumed_on", (unsigned long long)c->number);
    }
}

static void hear_result(struct client *c, const struct link_event *ev)
{
    for (size_t i = 0; i < ev->n_text; i++) {
        if (ev->text[i] != want_byte(c->number, c->n_bytes + i)) {
            WRONG("request %llu hears other text than its own", (unsigned long long)c->number);
        }
    }
    c->n_bytes += ev->n_text;
    c->unserved_ms = 0;
    if (ev->m.result.is_last && c->n_bytes != c->want.text_bytes) {
        WRONG("request %llu lacks text", (unsigned long long)c->number);
    }
}

static void on_event(void *owner, uint64_t id, const struct link_event *ev)
{
    struct client *c = owner;
    if (!c->is_live || c->id != id) {
        WRONG("request %llu hears of itself after its end", (unsigned long long)id);
    }
    bool is_over = false;
    switch (ev->type) {
    case MSG_TOKEN:
        hear_token(c, &ev->m.token);
        break;
    case MSG_FINISH:
        hear_finish(c, &ev->m.finish);
        break;
    case MSG_DONE:
        hear_done(c, ev->resumed_on);
        counts.answered++;
        is_over = true;
        break;
    case MSG_RESULT:
        hear_result(c, ev);
        is_over = ev->m.result.is_last;
        counts.answered += is_over;
        break;
    case MSG_FAIL:
        is_over = true;
        if (ev->err.code == ERR_POISON) {
            check_refusal(c);
            counts.convicted++;
        } else {
            check_failure(c, ev->err.code);
            counts.failed++;
        }
        break;
    default:
        break;
    }
    c->is_live = !is_over;
}

static void make_payload(const struct client *c, struct buf *b)
{
    uint64_t key = want_key(c->number);
    buf_init(b, 0);
    if (c->want.is_text) {
        struct msg_text m = {.op = MSG_TOKENIZE, .n_sections = 1};
        buf_add(b, &m, sizeof(m));
    } else {
        struct msg_generate m = {.seed = c->number,
                                 .n_choices = c->want.n_choices,
                                 .choice_base = c->want.base,
                                 .total_ms = (uint32_t)c->total_ms,
                                 .n_sections = 1};
        buf_add(b, &m, sizeof(m));
    }
    msg_put_section(b, MSG_PROMPT_TEXT, 0, &key, sizeof(key));
}

static void submit(struct client *c)
{
    bool is_poison = n_clients > 0 && seed_of_clients % 2 && roll(5) == 0;
    struct buf b;
    *c = (struct client){.since_ms = w.now_ms, .model = (uint64_t)gate.models[0].created};
    c->number = ++n_clients * N_POISONS + (is_poison ? 1 + roll(N_POISONS - 1) : 0);
    want_of(c->number, &c->want);
    c->total_ms = !is_poison && !c->want.is_text && roll(8) == 0 ? 1 + roll(30000) : 0;
    make_payload(c, &b);
    uint64_t refused_ms = refused_until_ms[c->number % N_POISONS];
    int rc = link_submit(&gate, c->want.is_text ? MSG_TEXT : MSG_GENERATE, &b, &gate.models[0],
                         on_event, c, &c->id);
    if (rc == ERR_POISON ? !is_poison || w.now_ms > refused_ms + 1000
                         : is_poison && rc == 0 && w.now_ms < refused_ms) {
        WRONG("request %llu is %s", (unsigned long long)c->number,
              rc == 0 ? "taken, and was convicted" : "refused for nothing");
    }
    counts.submitted++;
    counts.refused += rc == ERR_POISON;
    counts.failed += rc < 0 && rc != ERR_POISON;
    c->is_live = rc == 0;
    if (rc == 0 && journal_find(&gate.journal, c->id)->is_held) {
        c->unserved_ms = w.now_ms; /* it waits for the end of a trial */
    }
    if (rc < 0) {
        buf_finish(&b);
    }
}

/* Submits, leaves, reads slowly; when all is calm everybody reads. */
static void act(void)
{
    struct client *c = &clients[roll(N_CLIENTS)];
    client_ms = w.now_ms + 1 + roll(250);
    if (w.is_calm) {
        for (size_t i = 0; i < N_CLIENTS; i++) {
            if (clients[i].is_live && clients[i].is_paused) {
                clients[i].is_paused = false;
                link_pause(&gate, clients[i].id, false);
            }
        }
        client_ms = UINT64_MAX;
    } else if (!c->is_live && !entry_of(c) && gate.state == LINK_READY) {
        submit(c);
    } else if (c->is_live && roll(6) == 0) {
        c->is_live = false;
        counts.cancelled++;
        link_cancel(&gate, c->id);
        const struct journal_entry *en = entry_of(c);
        counts.left += en && en->is_left;
    } else if (c->is_live && roll(4) == 0) {
        c->is_paused = !c->is_paused;
        link_pause(&gate, c->id, c->is_paused);
    }
    if (chance(300)) {
        link_forgive(&gate);
        memset(refused_until_ms, 0, sizeof(refused_until_ms));
    }
}

/* ---- timers and bells, in place of libuv ---- */

int uv_timer_init(uv_loop_t *loop, uv_timer_t *t)
{
    (void)loop;
    t->timeout = UINT64_MAX;
    return 0;
}
int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    t->timer_cb = cb;
    t->timeout = w.now_ms + timeout;
    t->repeat = repeat;
    return 0;
}
int uv_timer_stop(uv_timer_t *t)
{
    t->timeout = UINT64_MAX;
    return 0;
}
int uv_is_active(const uv_handle_t *h)
{
    return ((const uv_timer_t *)h)->timeout != UINT64_MAX;
}
int uv_poll_init(uv_loop_t *loop, uv_poll_t *p, int fd)
{
    (void)loop, (void)p, (void)fd;
    return 0;
}
int uv_poll_start(uv_poll_t *p, int events, uv_poll_cb cb)
{
    (void)p, (void)events, (void)cb;
    return 0;
}
int uv_poll_stop(uv_poll_t *p)
{
    (void)p;
    return 0;
}
void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    if (cb) {
        cb(h);
    }
}
void metrics_observe(enum metric m, size_t label, double seconds)
{
    (void)m, (void)label, (void)seconds;
}

static void run_timer(uv_timer_t *t)
{
    if (t->timeout <= w.now_ms) {
        t->timeout = t->repeat ? w.now_ms + t->repeat : UINT64_MAX;
        t->timer_cb(t);
    }
}

void gateway_bell(void)
{
    if (is_open && self && !self->is_hung && !chance(30)) { /* lost, now and then: it polls */
        uint64_t at_ms = w.now_ms + roll(3);
        bell_ms = MIN(bell_ms, at_ms);
        self->next_ms = MIN(self->next_ms, bell_ms);
    }
}

/* ---- its life ---- */

static void on_change(void *arg)
{
    (void)arg;
}

void gateway_begin(struct proc *p)
{
    static const uint64_t patiences_ms[] = {2000, 10000, 60000};
    self = p;
    memset(clients, 0, sizeof(clients));
    n_inbox = 0;
    bell_ms = UINT64_MAX;
    client_ms = w.now_ms + 1;
    seed_of_clients = roll(1000);
    channel_init(&channel, FD0 + 2 * (int)(p - procs) + 1, MSG_GATEWAY, MSG_SUPERVISOR);
    int rc = link_open(&gate, NULL, &channel, on_change, NULL);
    ASSERT(rc == 0);
    gate.resume_ms = patiences_ms[roll(COUNT_OF(patiences_ms))];
    is_open = true;
    p->next_ms = client_ms;
}

/* Its clients' connections end with it. */
void gateway_end(void)
{
    if (!is_open) {
        return;
    }
    for (size_t i = 0; i < N_CLIENTS; i++) {
        counts.with_gateway += clients[i].is_live;
        clients[i].is_live = false;
    }
    if (gate.notice.n > 0) { /* what it still had to say is lost with it */
        memset(refused_until_ms, 0, sizeof(refused_until_ms));
    }
    link_close(&gate);
    is_open = false;
}

void gateway_forget_all(void)
{
    gateway_end();
    n_clients = 0;
    memset(refused_until_ms, 0, sizeof(refused_until_ms));
}

void gateway_hear(struct proc *p, uint32_t type, const void *payload, size_t len)
{
    if (!is_open) {
        return;
    }
    if (n_inbox == INBOX || len > sizeof(inbox[0].payload)) {
        WRONG("the gateway is told too much");
    }
    inbox[n_inbox].type = type;
    inbox[n_inbox].at_ms = w.now_ms + roll(3);
    memcpy(inbox[n_inbox].payload, payload, len);
    if (type == MSG_DETACH) {
        worker_company(&inbox[n_inbox].company);
    }
    p->next_ms = MIN(p->next_ms, inbox[n_inbox].at_ms);
    n_inbox++;
}

/* Whose requests are with the worker, as far as the gateway may know. */
static void note_sent(void)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        struct client *c = &clients[i];
        const struct journal_entry *en = entry_of(c);
        c->was_sent = en && en->is_sent;
    }
}

/* A worker is gone, with these. */
static void note_death(const struct company *with, bool is_counted)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        struct client *c = &clients[i];
        if (c->is_live && !c->unserved_ms) {
            c->unserved_ms = w.now_ms;
        }
        c->n_counted += is_counted && c->was_sent;
    }
    for (size_t i = 0; i < with->n && is_counted; i++) {
        struct client *c = client_of(with->numbers[i]);
        if (c) {
            c->is_suspect = true;
        }
    }
}

static void take_detach(const struct msg_detach *m, const struct company *with)
{
    bool was_there = m->epoch == gate.epoch &&
                     (gate.state == LINK_READY || gate.state == LINK_LOADING);
    at_death = with;
    note_sent();
    uint64_t n_breaches = gate.n_breaches;
    epoch_detach(&gate, m);
    at_death = NULL;
    if (was_there) {
        note_death(with, m->is_counted || gate.n_breaches > n_breaches);
    }
}

static void take_attach(const struct msg_attach *m)
{
    int fds[EPOCH_FDS];
    for (int i = 0; i < EPOCH_FDS; i++) {
        fds[i] = MAP_FD + (int)(m->epoch % N_EPOCHS) * EPOCH_FDS + i;
    }
    channel.state = MSG_STATE_GREETED | MSG_STATE_RUNNING;
    int rc = epoch_attach(&gate, m, fds);
    if (rc < 0) {
        WRONG("an epoch cannot be attached: %s", err_text(rc));
    }
}

static void take_message(void)
{
    union {
        struct msg_detach detach;
        struct msg_attach attach;
        struct msg_poison poison;
    } m;
    struct company company = inbox[0].company;
    uint32_t type = inbox[0].type;
    memcpy(&m, inbox[0].payload, sizeof(m));
    n_inbox--;
    memmove(inbox, inbox + 1, n_inbox * sizeof(inbox[0]));
    if (type == MSG_ATTACH) {
        take_attach(&m.attach);
    } else if (type == MSG_DETACH) {
        take_detach(&m.detach, &company);
    } else {
        is_told = true;
        link_poison(&gate, &m.poison);
        is_told = false;
    }
}

static void check_clients(void)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        struct client *c = &clients[i];
        const struct journal_entry *en = c->is_live ? entry_of(c) : NULL;
        if (c->is_live && !en) {
            WRONG("request %llu is lost", (unsigned long long)c->number);
        }
        bool waits = en && en->waits_ms && !(gate.state == LINK_READY && en->is_sent);
        c->gap_ms = !waits ? 0 : c->gap_ms ? c->gap_ms : w.now_ms;
        if (waits && w.now_ms - en->waits_ms > gate.resume_ms + PATIENCE_MS &&
            w.now_ms - c->gap_ms > PATIENCE_MS) {
            WRONG("request %llu waits for a worker for %llu ms", (unsigned long long)c->number,
                  (unsigned long long)(w.now_ms - en->waits_ms));
        }
    }
}

void gateway_run(struct proc *p)
{
    while (n_inbox > 0 && inbox[0].at_ms <= w.now_ms) {
        take_message();
    }
    uint64_t n_breaches = gate.n_breaches;
    struct proc *worker = find(WORKER);
    if (!worker || worker->epoch != gate.epoch || worker->gives_cause) { /* a breach may be found */
        note_sent();
    }
    if (bell_ms <= w.now_ms) {
        bell_ms = UINT64_MAX;
        if (gate.bell) {
            link_on_bell(gate.bell, 0, UV_READABLE);
        }
    }
    run_timer(&gate.poll);
    if (gate.n_breaches > n_breaches) {
        struct company company;
        worker_company(&company);
        note_death(&company, true);
    }
    run_timer(&gate.patience);
    run_timer(&gate.notice.retry);
    if (client_ms <= w.now_ms) {
        act();
    }
    p->next_ms = MIN(MIN(gate.poll.timeout, gate.patience.timeout),
                     MIN(gate.notice.retry.timeout, MIN(bell_ms, client_ms)));
    p->next_ms = MAX(n_inbox > 0 ? MIN(p->next_ms, inbox[0].at_ms) : p->next_ms, w.now_ms);
    check_clients();
    if (worker && worker->stage >= 4 && !worker->is_hung && worker->epoch == gate.epoch &&
        gateway_is_waiting(gate.epoch)) {
        uint64_t at_ms = w.now_ms + roll(3);
        worker->next_ms = MIN(worker->next_ms, at_ms);
    }
}

bool gateway_is_waiting(uint64_t epoch)
{
    return is_open && gate.epoch == epoch && !gate.requests.dead && !ring_is_read(&gate.requests);
}

bool gateway_is_settled(void)
{
    return is_open && !gate.outbox && n_inbox == 0 && gate.state == LINK_READY;
}

bool gateway_is_idle(void)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        if (clients[i].is_live) {
            return false;
        }
    }
    if (is_open && gate.journal.n_live > 0) { /* those who have left are not forgotten, either */
        return false;
    }
    if (is_open && (gate.trial.id || gate.trial.n_suspects || gate.n_paused || gate.outbox ||
                    gate.journal.payload_bytes)) {
        WRONG("nothing is live, and the link's accounts do not balance");
    }
    return true;
}
