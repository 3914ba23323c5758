/* A worker (see world.h): it loads, announces its model, reads the request ring and computes one
 * token a turn for every choice that may go on, as msg.h says; and it ends: of itself, by somebody,
 * by the kernel, by a request, or it hangs, or talks nonsense. What it is given is checked: ids
 * that were never sent, a suspect beside others. */
#include "safety/process.h"
#include "shared/err.h"
#include "tests/safety/world.h"

#include <errno.h>
#include <signal.h>

struct job {
    uint64_t id, number;
    struct want want;
    bool is_started, is_paused, is_cancelled, is_known; /* by an earlier worker */
    uint32_t n[MAX_CHOICES];
    bool is_finished[MAX_CHOICES];
    uint32_t n_sent; /* bytes of text */
};

static struct ring in, out;
static struct job jobs[N_JOBS];
static size_t n_jobs;

static struct status_page *page_of(const struct proc *p)
{
    return &world_epoch(p->epoch)->page;
}

/* 0, or -EAGAIN: the ring is full, later. */
static int tell(uint32_t type, const void *a, size_t n, const void *b, size_t n_b)
{
    int rc = ring_put(&out, type, a, n, b, n_b);
    ASSERT(rc == 0 || rc == -EAGAIN);
    return rc;
}

static void announce(const struct proc *p)
{
    struct msg_model m = {.n_models = 1,
                          .n_vocab = N_VOCAB,
                          .n_ctx = 4096,
                          .is_loaded = 1,
                          .created = (int64_t)w.model,
                          .name = "tiny"};
    snprintf(m.device, sizeof(m.device), "%s", p->has_gpu ? "gpu" : "cpu");
    snprintf(m.profile, sizeof(m.profile), "%s", p->has_gpu ? "gpu" : "cpu");
    int rc = tell(MSG_MODEL, &m, sizeof(m), NULL, 0);
    ASSERT(rc == 0); /* the ring is new */
}

void worker_attach(struct proc *p, uint64_t epoch)
{
    struct world_epoch *ep = world_epoch(epoch);
    int rc = ring_attach(&in, ep->requests, sizeof(ep->requests), epoch, -1);
    rc = rc == 0 ? ring_attach(&out, ep->events, sizeof(ep->events), epoch, -1) : rc;
    ASSERT(rc == 0);
    n_jobs = 0;
    p->epoch = epoch;
    if (p->stage >= 4) { /* again, for a new gateway */
        struct msg_ready ready = {.epoch = epoch};
        announce(p);
        (void)say(p, MSG_READY, epoch, &ready, sizeof(ready));
    } else {
        p->stage = 2;
        p->next_ms = w.now_ms + 1 + roll(50);
    }
}

/* ---- requests ---- */

static bool is_over(const struct job *j)
{
    bool is_over = true;
    for (uint32_t c = 0; c < j->want.n_choices; c++) {
        is_over = is_over && j->is_finished[c];
    }
    return is_over;
}

static bool is_computing(const struct job *j)
{
    return !j->is_paused && !j->is_cancelled;
}

void worker_company(struct company *ret)
{
    ret->n = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        if (is_computing(&jobs[i])) {
            ret->numbers[ret->n++] = jobs[i].number;
        }
    }
}

static struct job *job_of(uint64_t id)
{
    for (size_t i = 0; i < n_jobs; i++) {
        if (jobs[i].id == id) {
            return &jobs[i];
        }
    }
    return NULL;
}

static void take_ids(struct job *j, uint32_t c, const void *data, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        int32_t id;
        memcpy(&id, (const char *)data + k * sizeof(id), sizeof(id));
        if (id != want_id(j->number, c, (uint32_t)k)) {
            WRONG("request %llu is given to the next worker with ids it never had",
                  (unsigned long long)j->number);
        }
    }
    j->n[c] = (uint32_t)n;
}

static void take_section(struct job *j, const struct msg_section *s, const void *data)
{
    uint32_t c = s->index - j->want.base;
    if (s->kind == MSG_RESUME_IDS) {
        ASSERT(c < j->want.n_choices);
        take_ids(j, c, data, s->bytes / sizeof(int32_t));
    } else if (s->kind == MSG_RESUME_END) {
        ASSERT(c < j->want.n_choices);
        j->is_finished[c] = true;
    }
}

static void take_job(const uint8_t *record, const struct ring_record *r)
{
    struct msg_generate m = {0};
    struct msg_text text = {0};
    bool is_text = r->type == MSG_TEXT;
    ASSERT(n_jobs < N_JOBS);
    struct job *j = &jobs[n_jobs];
    memset(j, 0, sizeof(*j));
    memcpy(is_text ? (void *)&text : (void *)&m, record, is_text ? sizeof(text) : sizeof(m));
    struct msg_cursor cursor = msg_sections(record, r->len, is_text ? sizeof(text) : sizeof(m));
    struct msg_section s;
    const void *data;
    j->id = is_text ? text.request : m.request;
    j->number = m.seed;
    while (msg_next_section(&cursor, &s, &data) == 1) {
        if (s.kind == MSG_PROMPT_TEXT && is_text) {
            memcpy(&j->number, data, sizeof(j->number));
        }
        want_of(j->number, &j->want);
        take_section(j, &s, data);
    }
    j->is_known = ((is_text ? text.flags : m.flags) & MSG_AGAIN) != 0;
    if (job_of(j->id)) {
        WRONG("a worker gets request %llu twice", (unsigned long long)j->number);
    }
    n_jobs++;
    counts.resumed += j->is_known;
}

static void read_ring(void)
{
    static _Alignas(16) uint8_t record[LIMIT_RECORD_BYTES];
    struct ring_record r;
    int rc;
    while ((rc = ring_take(&in, record, &r)) == 1) {
        if (msg_check(r.type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, record, r.len,
                      0) < 0) {
            WRONG("the gateway sends a malformed record of type %u", r.type);
        }
        if (r.type == MSG_GENERATE || r.type == MSG_TEXT) {
            take_job(record, &r);
            continue;
        }
        struct msg_request m;
        memcpy(&m, record, sizeof(m));
        struct job *j = job_of(m.request);
        if (j && r.type == MSG_CANCEL) {
            j->is_cancelled = true;
        } else if (j) {
            j->is_paused = r.type == MSG_PAUSE;
        }
    }
    ASSERT(rc == 0);
}

/* 1: it is over; 0; -EAGAIN. */
static int end_job(struct job *j)
{
    struct msg_done m = {.request = j->id, .n_prompt = N_PROMPT};
    struct msg_result none = {.request = j->id, .is_last = 1};
    for (uint32_t c = 0; c < j->want.n_choices; c++) {
        m.n_completion += j->n[c] + (j->is_finished[c] && want_is_stopped(j->number, c));
    }
    int rc = j->want.is_text ? tell(MSG_RESULT, &none, sizeof(none), NULL, 0)
                             : tell(MSG_DONE, &m, sizeof(m), NULL, 0);
    return rc == 0 ? 1 : rc;
}

static int step_text(struct job *j)
{
    char text[64];
    uint32_t n = 1 + (uint32_t)roll(sizeof(text));
    n = MIN(n, j->want.text_bytes - j->n_sent);
    for (uint32_t i = 0; i < n; i++) {
        text[i] = want_byte(j->number, j->n_sent + i);
    }
    struct msg_result m = {
        .request = j->id, .is_last = j->n_sent + n == j->want.text_bytes, .bytes = n};
    int rc = tell(MSG_RESULT, &m, sizeof(m), text, n);
    if (rc == 0) {
        j->n_sent += n;
        client_got_on(j->number);
    }
    return rc == 0 ? (int)m.is_last : rc;
}

static int step_choice(struct job *j, uint32_t c)
{
    uint32_t choice = j->want.base + c;
    if (j->n[c] < want_length(j->number, c)) {
        struct msg_token t = {.request = j->id,
                              .choice = choice,
                              .position = j->n[c],
                              .id = want_id(j->number, c, j->n[c])};
        int rc = tell(MSG_TOKEN, &t, sizeof(t), NULL, 0);
        j->n[c] += rc == 0;
        return rc;
    }
    bool is_stopped = want_is_stopped(j->number, c);
    struct msg_finish f = {.request = j->id,
                           .choice = choice,
                           .reason = is_stopped ? MSG_FINISH_STOP : MSG_FINISH_LENGTH,
                           .n_tokens = j->n[c] + is_stopped,
                           .stop_index = -1};
    int rc = tell(MSG_FINISH, &f, sizeof(f), NULL, 0);
    j->is_finished[c] = rc == 0;
    return rc;
}

/* One turn of one request. 1: it is over. */
static int step(struct job *j)
{
    if (j->is_cancelled || (is_over(j) && j->is_started && !j->want.is_text)) {
        return end_job(j);
    }
    if (j->want.is_text) {
        return step_text(j);
    }
    int rc = 0;
    if (!j->is_started) {
        struct msg_started m = {.request = j->id, .n_prompt = N_PROMPT};
        rc = tell(MSG_STARTED, &m, sizeof(m), NULL, 0);
        j->is_started = rc == 0;
    }
    for (uint32_t c = 0; c < j->want.n_choices && rc == 0; c++) {
        rc = j->is_finished[c] ? 0 : step_choice(j, c);
    }
    if (rc == 0) {
        client_got_on(j->number);
    }
    return rc;
}

/* ---- its end ---- */

static void hang(struct proc *p)
{
    p->is_hung = true;
    p->next_ms = UINT64_MAX;
    if (p->stage >= 4) {
        atomic_store(&page_of(p)->phase, STATUS_DECODE);
        atomic_fetch_add(&page_of(p)->beat, 1);
    }
}

static void die(struct proc *p)
{
    switch (roll(4)) {
    case 0:
        status_last_words(page_of(p), "GPU fault");
        end(p, 20, 0);
        break;
    case 1:
        hang(p);
        break;
    default:
        end(p, -1, SIGSEGV);
        break;
    }
}

/* Of somebody, of the kernel, of itself, or it hangs; true: so it is. */
static bool meets_its_fate(struct proc *p)
{
    bool is_serving = p->stage >= 4;
    if (w.is_calm || roll(100) < w.danger || (is_serving && roll(8))) {
        return false;
    }
    uint64_t fate = w.is_innocent && is_serving ? 1 : roll(8);
    switch (fate) {
    case 0:
        end(p, -1, SIGSEGV);
        break;
    case 1:
        p->is_external = true;
        end(p, -1, SIGKILL);
        break;
    case 2:
        w.oom++;
        end(p, -1, SIGKILL);
        break;
    case 3:
        status_last_words(page_of(p), "GPU fault");
        end(p, 20, 0);
        break;
    case 4:
        end(p, is_serving ? 1 : 10 + (int)roll(9), 0);
        break;
    case 5:
        if (is_serving) { /* nonsense: the gateway notices and has it ended */
            struct msg_done m = {.request = UINT64_MAX};
            p->gives_cause = true;
            (void)tell(MSG_DONE, &m, sizeof(m), NULL, 0);
            gateway_bell();
            hang(p);
            break;
        }
        /* fallthrough */
    default:
        hang(p);
        break;
    }
    return true;
}

/* ---- its turns ---- */

static void check_company(void)
{
    bool has_suspect = false;
    size_t n = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        if (is_computing(&jobs[i])) {
            n++;
            has_suspect = has_suspect || client_is_suspect(jobs[i].number);
        }
    }
    if (has_suspect && n > 1 && gateway_is_settled()) {
        WRONG("a suspect is computed beside %zu others", n - 1);
    }
}

static void serve(struct proc *p)
{
    struct status_page *page = page_of(p);
    read_ring();
    check_company();
    size_t n_left = 0, n_going = 0;
    bool is_full = false;
    for (size_t i = 0; i < n_jobs; i++) {
        struct job *j = &jobs[i];
        bool kills = j->want.is_poison && is_computing(j) && j->n[0] == j->want.poison_at;
        if (kills && (!j->want.is_flaky || roll(2))) {
            memmove(&jobs[n_left], j, (n_jobs - i) * sizeof(*j));
            n_jobs -= i - n_left;
            die(p);
            gateway_bell();
            return;
        }
        int rc = is_full || (j->is_paused && !j->is_cancelled) ? 0 : step(j);
        is_full = is_full || rc == -EAGAIN;
        if (rc != 1) {
            n_going += !j->is_paused || j->is_cancelled;
            jobs[n_left++] = *j;
        }
    }
    n_jobs = n_left;
    gateway_bell();
    atomic_fetch_add(&page->step, n_going > 0);
    atomic_fetch_add(&page->beat, 1);
    atomic_store(&page->phase, n_going > 0 ? STATUS_DECODE : STATUS_IDLE);
    p->next_ms = w.now_ms + 1 + roll(n_going == 0 ? 120000 : chance(60) ? 900 : 12);
}

void worker_run(struct proc *p)
{
    struct status_page *page = page_of(p);
    if (meets_its_fate(p)) {
        return;
    }
    switch (p->stage) {
    case 2:
        atomic_store(&page->phase, STATUS_LOADING);
        atomic_fetch_add(&page->beat, 1);
        if (w.has_gpu && roll(2)) {
            struct msg_preflight m = {.device = 0};
            atomic_store(&page->phase, STATUS_PREFLIGHT);
            (void)say(p, MSG_PREFLIGHT, p->epoch, &m, sizeof(m));
            p->next_ms = UINT64_MAX; /* goes on with the verdict */
            return;
        }
        p->stage = 3;
        p->next_ms = w.now_ms + 1 + roll(20000); /* a slow load, with progress */
        return;
    case 3: {
        struct msg_ready m = {.epoch = p->epoch};
        atomic_store(&page->phase, STATUS_IDLE);
        atomic_fetch_add(&page->beat, 1);
        announce(p);
        (void)say(p, MSG_READY, p->epoch, &m, sizeof(m));
        gateway_bell();
        p->stage = 4;
        counts.ready++;
        w.ready_ms = w.now_ms;
        p->next_ms = w.now_ms + 1 + roll(120000);
        return;
    }
    default:
        serve(p);
        return;
    }
}
