/* A worker that does what the prompt says. The command is the prompt's text, or the content of the
 * last message; it ends at a line break.
 *   say A|B|C      tokens with these texts; ends "stop". "~" as text: a token that shows nothing
 * yet hold A|B       the same, but the last text comes with FINISH count N        N tokens "0 ", "1
 * ", ...; ends "length" flood          tokens of 100 bytes until cancelled; obeys PAUSE hang begins
 * and says nothing more silent         does not even begin slow N         like count, 20 ms a token
 *   fail CODE      FAIL with the error of that code
 *   die N          N tokens, and then nothing
 *   length         one token that says how many bytes the prompt has
 * With logprobs each token has the alternatives wanted; with echo the prompt is one token of its
 * text. TEXT: tokenizing gives one id a byte, detokenizing the way back; a template
 * gives the messages as they came, or fails where they hold the word "refuse". */
#include "ipc/memfd.h"
#include "shared/clock.h"
#include "tests/gateway/rig.h"

#include <errno.h>
#include <poll.h>

enum { JOBS = 256 };

struct job {
    uint64_t id;
    struct msg_generate m;
    char command[256];
    size_t n_prompt_bytes;
    uint32_t n_prompt;
    bool is_paused, is_cancelled;
    uint32_t position; /* of all choices: they go in step */
    uint64_t next_ms;
};

void worker_put(struct rig *r, uint32_t type, const void *a, size_t a_len, const void *b,
                size_t b_len)
{
    for (int i = 0; i < 5000; i++) {
        int rc = ring_put(&r->events, type, a, a_len, b, b_len);
        if (rc == 0) {
            return;
        }
        CHECK_INT(rc, -EAGAIN);
        if (atomic_load(&r->worker_stops)) {
            return;
        }
        usleep(1000);
    }
    TEST_FAIL("the event ring stays full");
}

void worker_take(struct rig *r, struct ring_record *ret, void *buf)
{
    for (int i = 0; i < 5000; i++) {
        int rc = ring_take(&r->requests, buf, ret);
        CHECK(rc >= 0);
        if (rc == 1) {
            return;
        }
        usleep(1000);
    }
    TEST_FAIL("no request came");
}

void worker_models(struct rig *r)
{
    static const char *const names[] = {"tiny", "other"};
    for (uint32_t i = 0; i < 2; i++) {
        struct msg_model m = {.index = i,
                              .n_models = 2,
                              .n_vocab = 1000,
                              .n_ctx = 1 << 20,
                              .n_ctx_train = 4096,
                              .has_template = 1,
                              .is_loaded = 1,
                              .n_params = 42,
                              .bytes = 84,
                              .created = 1700000000};
        snprintf(m.name, sizeof(m.name), "%s", names[i]);
        snprintf(m.arch, sizeof(m.arch), "llama");
        snprintf(m.quant, sizeof(m.quant), "Q8_0");
        snprintf(m.device, sizeof(m.device), "cpu");
        worker_put(r, MSG_MODEL, &m, sizeof(m), NULL, 0);
    }
}

void worker_started(struct rig *r, uint64_t id, uint32_t n_prompt, uint32_t n_cached)
{
    struct msg_started m = {.request = id, .n_prompt = n_prompt, .n_cached = n_cached};
    worker_put(r, MSG_STARTED, &m, sizeof(m), NULL, 0);
}

void worker_token(struct rig *r, uint64_t id, uint32_t choice, uint32_t position, const char *text)
{
    struct msg_token m = {.request = id,
                          .choice = choice,
                          .position = position,
                          .id = (int32_t)(position % 1000),
                          .text_bytes = (uint32_t)strlen(text)};
    worker_put(r, MSG_TOKEN, &m, sizeof(m), text, strlen(text));
}

void worker_finish(struct rig *r, uint64_t id, uint32_t choice, uint32_t reason, uint32_t n_tokens,
                   const char *text)
{
    struct msg_finish m = {.request = id,
                           .choice = choice,
                           .reason = reason,
                           .n_tokens = n_tokens,
                           .stop_index = -1,
                           .text_bytes = (uint32_t)strlen(text)};
    worker_put(r, MSG_FINISH, &m, sizeof(m), text, strlen(text));
}

void worker_done(struct rig *r, uint64_t id, uint32_t n_prompt, uint32_t n_cached,
                 uint32_t n_completion)
{
    struct msg_done m = {.request = id,
                         .n_prompt = n_prompt,
                         .n_cached = n_cached,
                         .n_completion = n_completion,
                         .queue_ns = 1000000,
                         .prefill_ns = 2000000,
                         .decode_ns = 4000000};
    worker_put(r, MSG_DONE, &m, sizeof(m), NULL, 0);
    atomic_fetch_add(&r->n_done, 1);
}

static void fail(struct rig *r, uint64_t id, const char *code)
{
    struct msg_fail m = {.request = id, .err = ERR_INTERNAL};
    for (int i = 0; i < ERR_INDEX_COUNT; i++) {
        if (strcmp(err_code(-(ERR_BASE + i)), code) == 0) {
            m.err = -(ERR_BASE + i);
        }
    }
    snprintf(m.detail, sizeof(m.detail), "as the test asked");
    worker_put(r, MSG_FAIL, &m, sizeof(m), NULL, 0);
    atomic_fetch_add(&r->n_done, 1);
}

/* ---- one token, with what was asked for ---- */

static void put_token(struct rig *r, const struct job *j, uint32_t choice, uint32_t position,
                      const char *text, bool is_prompt)
{
    uint32_t n_top = j->m.flags & MSG_LOGPROBS ? j->m.top_logprobs + 1 : 0;
    n_top = is_prompt ? 0 : n_top;
    bool shows = strcmp(text, "~") != 0;
    struct buf b;
    buf_init(&b, 0);
    for (uint32_t i = 0; i < n_top; i++) {
        struct msg_logprob p = {.id = (int32_t)i,
                                .logprob = -0.5f * (float)(i + 1),
                                .piece_bytes = i ? 1 : (uint32_t)strlen(text)};
        buf_add(&b, &p, sizeof(p));
    }
    buf_str(&b, shows ? text : "");
    for (uint32_t i = 0; i < n_top; i++) {
        char alternative[2] = {(char)('a' + i), 0};
        buf_str(&b, i ? alternative : text);
    }
    struct msg_token m = {.request = j->id,
                          .choice = choice,
                          .position = position,
                          .id = (int32_t)(position % 1000),
                          .n_top = (uint16_t)n_top,
                          .is_prompt = is_prompt,
                          .text_bytes = shows ? (uint32_t)strlen(text) : 0};
    worker_put(r, MSG_TOKEN, &m, sizeof(m), b.data, b.len);
    buf_finish(&b);
}

static uint32_t first(const struct job *j)
{
    return j->m.choice_base;
}

static uint32_t last(const struct job *j)
{
    return j->m.choice_base + j->m.n_choices - 1;
}

static void end_job(struct rig *r, struct job *j, uint32_t reason, uint32_t n_tokens,
                    const char *text)
{
    for (uint32_t c = first(j); c <= last(j); c++) {
        worker_finish(r, j->id, c, reason, n_tokens, text);
    }
    worker_done(r, j->id, j->n_prompt, 1, n_tokens * j->m.n_choices);
    j->id = 0;
}

static bool is(const struct job *j, const char *word)
{
    return strncmp(j->command, word, strlen(word)) == 0;
}

static void begin(struct rig *r, struct job *j)
{
    j->n_prompt = 3;
    if (is(j, "silent")) {
        return;
    }
    if (is(j, "fail ")) {
        fail(r, j->id, j->command + 5);
        j->id = 0;
        return;
    }
    bool echoes = j->m.flags & MSG_ECHO;
    j->n_prompt = echoes ? 1 : 3;
    worker_started(r, j->id, j->n_prompt, 1);
    for (uint32_t c = first(j); echoes && c <= last(j); c++) {
        put_token(r, j, c, 0, j->command, true);
    }
    if (is(j, "length")) {
        char text[32];
        snprintf(text, sizeof(text), "%zu", j->n_prompt_bytes);
        put_token(r, j, first(j), 0, text, false);
        end_job(r, j, MSG_FINISH_STOP, 2, "");
    }
}

/* Text number `position` of "say" or "hold"; false when there is none. */
static bool text_at(const struct job *j, char text[256], bool *ret_is_last)
{
    const char *p = strchr(j->command, ' ') + 1;
    for (uint32_t i = 0; i < j->position; i++) {
        p = strchr(p, '|');
        if (!p) {
            return false;
        }
        p++;
    }
    const char *end = strchrnul(p, '|');
    snprintf(text, 256, "%.*s", (int)(end - p), p);
    *ret_is_last = *end == 0;
    return true;
}

/* One step of a job; false when it had nothing to do. */
static bool step(struct rig *r, struct job *j)
{
    char text[256];
    bool is_last;
    if (is(j, "hang") || is(j, "silent") || clock_ms() < j->next_ms) {
        return false;
    }
    if (is(j, "say ") || is(j, "hold ")) {
        bool holds = is(j, "hold ");
        if (!text_at(j, text, &is_last)) {
            end_job(r, j, MSG_FINISH_STOP, j->position + 1, "");
            return true;
        }
        for (uint32_t c = first(j); c <= last(j); c++) {
            put_token(r, j, c, j->position, holds && is_last ? "~" : text, false);
        }
        j->position++;
        if (holds && is_last) {
            end_job(r, j, MSG_FINISH_STOP, j->position + 1, text);
        }
        return true;
    }
    bool floods = is(j, "flood"), dies = is(j, "die ");
    const char *number = strchr(j->command, ' ');
    uint32_t n = floods ? UINT32_MAX : number ? (uint32_t)atoi(number) : 1;
    if (j->position == n) {
        if (dies) {
            return false;
        }
        end_job(r, j, MSG_FINISH_LENGTH, n, "");
        return true;
    }
    snprintf(text, sizeof(text), floods ? "%099u " : "%u ", j->position);
    for (uint32_t c = first(j); c <= last(j); c++) {
        put_token(r, j, c, j->position, text, false);
    }
    j->position++;
    j->next_ms = is(j, "slow ") ? clock_ms() + 20 : 0;
    return true;
}

/* ---- requests ---- */

static void read_command(struct job *j, const void *payload, size_t len)
{
    struct msg_cursor c = msg_sections(payload, len, sizeof(j->m));
    struct msg_section s;
    const void *data;
    while (msg_next_section(&c, &s, &data) == 1) {
        if (s.kind != MSG_PROMPT_TEXT && s.kind != MSG_MESSAGES) {
            continue;
        }
        const char *p = data, *end = p + s.bytes;
        j->n_prompt_bytes = s.bytes;
        if (s.kind == MSG_MESSAGES) { /* the last "content":"..." */
            static const char key[] = "\"content\":\"";
            for (const char *q = p; (q = memmem(q, (size_t)(end - q), key, strlen(key)));) {
                p = q = q + strlen(key);
            }
        }
        bool is_json = s.kind == MSG_MESSAGES;
        size_t n = 0;
        for (; p < end && *p != (is_json ? '"' : '\n') && n < sizeof(j->command) - 1; p++) {
            p += is_json && *p == '\\'; /* only quotes are escaped in scripts */
            j->command[n++] = *p;
        }
        j->command[n] = 0;
    }
}

static void take_text(struct rig *r, const void *payload, size_t len)
{
    struct msg_text m;
    struct msg_section s;
    const void *data;
    memcpy(&m, payload, sizeof(m));
    struct msg_cursor c = msg_sections(payload, len, sizeof(m));
    CHECK_INT(msg_next_section(&c, &s, &data), 1);
    struct buf out;
    buf_init(&out, 0);
    if (m.op == MSG_TOKENIZE) {
        for (size_t i = 0; i < s.bytes; i++) {
            int32_t id = ((const uint8_t *)data)[i];
            buf_add(&out, &id, sizeof(id));
        }
    } else if (m.op == MSG_APPLY_TEMPLATE) {
        if (memmem(data, s.bytes, "refuse", strlen("refuse"))) {
            fail(r, m.request, "template_error");
            buf_finish(&out);
            return;
        }
        buf_add(&out, data, s.bytes);
    } else {
        for (size_t i = 0; i + 4 <= s.bytes; i += 4) {
            buf_char(&out, ((const char *)data)[i]);
        }
    }
    size_t at = 0;
    do {
        size_t n = MIN(out.len - at, (size_t)8000);
        struct msg_result res = {
            .request = m.request, .bytes = (uint32_t)n, .is_last = at + n == out.len};
        worker_put(r, MSG_RESULT, &res, sizeof(res), out.data ? out.data + at : NULL, n);
        at += n;
    } while (at < out.len);
    buf_finish(&out);
    atomic_fetch_add(&r->n_done, 1);
}

static void take_generate(struct rig *r, struct job *jobs, const void *payload, size_t len)
{
    struct job *j = jobs;
    while (j < jobs + JOBS && j->id) {
        j++;
    }
    CHECK(j < jobs + JOBS);
    *j = (struct job){0};
    memcpy(&j->m, payload, sizeof(j->m));
    j->id = j->m.request;
    read_command(j, payload, len);
    begin(r, j);
}

/* A payload that came as a memfd on the supervisor's channel. */
static void take_bulk(struct rig *r, struct job *jobs, const struct msg_bulk_note *note)
{
    static struct channel_msg m;
    CHECK(rig_expect(r, MSG_BULK, &m));
    struct msg_bulk b;
    memcpy(&b, m.payload, sizeof(b));
    CHECK(b.request == note->request && b.bytes == note->bytes);
    void *map;
    size_t bytes;
    CHECK_INT(memfd_map(m.fds[0], note->bytes, note->bytes, true, false, &map, &bytes), 0);
    atomic_fetch_add(&r->n_bulks, 1);
    atomic_store(&r->bulk_bytes, bytes);
    if (note->type == MSG_TEXT) {
        take_text(r, map, bytes);
    } else {
        take_generate(r, jobs, map, bytes);
    }
    memfd_unmap(map, bytes);
    channel_msg_finish(&m);
}

static void take(struct rig *r, struct job *jobs, const struct ring_record *rec, const void *buf)
{
    CHECK_INT(msg_check(rec->type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, buf,
                        rec->len, 0),
              0);
    struct msg_request m;
    struct msg_bulk_note note;
    memcpy(&m, buf, sizeof(m));
    struct job *j = jobs;
    while (j < jobs + JOBS && j->id != m.request) {
        j++;
    }
    j = j < jobs + JOBS ? j : NULL;
    switch (rec->type) {
    case MSG_GENERATE:
        atomic_fetch_add(&r->n_generates, 1);
        take_generate(r, jobs, buf, rec->len);
        break;
    case MSG_TEXT:
        atomic_fetch_add(&r->n_texts, 1);
        take_text(r, buf, rec->len);
        break;
    case MSG_BULK_NOTE:
        memcpy(&note, buf, sizeof(note));
        take_bulk(r, jobs, &note);
        break;
    case MSG_CANCEL:
        atomic_fetch_add(&r->n_cancels, 1);
        if (j && is(j, "silent")) {
            fail(r, j->id, "internal_error");
            j->id = 0;
        } else if (j) {
            end_job(r, j, MSG_FINISH_CANCEL, j->position, "");
        }
        break;
    case MSG_PAUSE:
    case MSG_RESUME:
        atomic_fetch_add(rec->type == MSG_PAUSE ? &r->n_pauses : &r->n_resumes, 1);
        if (j) {
            j->is_paused = rec->type == MSG_PAUSE;
        }
        break;
    default:
        TEST_FAIL("unexpected %s", msg_info(rec->type)->name);
    }
}

void *worker_run(void *arg)
{
    struct rig *r = arg;
    struct job *jobs = calloc(JOBS, sizeof(*jobs));
    static _Alignas(16) uint8_t buf[LIMIT_RECORD_BYTES];
    CHECK(jobs);
    while (!atomic_load(&r->worker_stops)) {
        struct ring_record rec;
        int rc;
        while ((rc = ring_take(&r->requests, buf, &rec)) == 1) {
            take(r, jobs, &rec, buf);
        }
        CHECK_INT(rc, 0);
        bool busy = false;
        uint32_t n_active = 0;
        for (struct job *j = jobs; j < jobs + JOBS; j++) {
            n_active += j->id != 0;
            busy = (j->id && !j->is_paused && step(r, j)) || busy;
        }
        atomic_store(&r->status->n_active, n_active);
        if (!busy && ring_sleep(&r->requests)) {
            struct pollfd p = {.fd = r->bells[0], .events = POLLIN};
            poll(&p, 1, n_active ? 2 : 20);
            ring_wake(&r->requests);
        }
    }
    free(jobs);
    return NULL;
}
