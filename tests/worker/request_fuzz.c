/* Any bytes as a request: what passes the check is read, prepared and computed with a fake model,
 * or refused. The first byte chooses the type; the rest is the payload. */
#include "tests/test.h"
#include "tests/worker/fake_engine.h"
#include "worker/prepare.h"
#include "worker/scheduler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void compute(struct models *models, struct events *ev, struct request *r)
{
    struct scheduler *s = scheduler_create(models, 0, ev);
    scheduler_add(s, r);
    for (int i = 0; i < 30 && r->stage == REQUEST_ACTIVE; i++) {
        if (scheduler_plan(s) != STATUS_IDLE) {
            scheduler_run(s);
        }
    }
    if (r->stage == REQUEST_ACTIVE) {
        scheduler_cancel(s, r);
    }
    scheduler_destroy(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct models models;
    static struct events ev;
    struct err e;
    if (n < 2) {
        return 0;
    }
    if (models.n == 0) {
        fake_models_init(&models, 1, 4, 32, 64, 400);
        CHECK_INT(template_create("x", 1, &models.v[0].template, &e), 0);
        events_init(&ev);
    }
    uint32_t type = data[0] & 1 ? MSG_GENERATE : MSG_TEXT;
    uint8_t *payload = malloc(n - 1);
    CHECK(payload);
    memcpy(payload, data + 1, n - 1);
    if (msg_check(type, MSG_RING, MSG_GATEWAY, MSG_WORKER, MSG_STATE_RUNNING, payload, n - 1, 0) <
        0) {
        free(payload);
        return 0;
    }
    struct request *r = request_create(1, type, 1, 1);
    if (request_read(r, payload, n - 1, false, &models) == 0) {
        prepare_now(r);
        if (r->err.code < 0) {
            events_fail(&ev, r, &r->err);
        } else if (type == MSG_GENERATE) {
            compute(&models, &ev, r);
        } else {
            events_result(&ev, r);
        }
    }
    request_destroy(&r);
    return 0;
}
