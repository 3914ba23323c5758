/* The router: which ways a step takes, that a latch falls once and stays, and that safe mode takes
 * none. */
#include "tests/test.h"
#include "worker/gpu/gpu_emit.h"
#include "worker/gpu/gpu_route.h"

static const struct gpu_route_step decode = {
    .n_rows = 3, .longest_run = 1, .n_parts = 1, .n_top = 8};
static const struct gpu_route_step prompt = {
    .n_rows = 100, .longest_run = 97, .n_parts = 1, .n_top = 1};
static const struct gpu_route_step experts = {
    .n_rows = 9, .longest_run = 2, .n_slots = GPU_EMIT_EXPERT_SLOTS + 1, .n_parts = 5};

static void takes(struct gpu_route *r, const struct gpu_route_step *s, const char *words)
{
    gpu_route_choose(r, 7, s);
    CHECK_STR(gpu_route_words(r), words);
}

static void steps_take_what_they_can_use(void)
{
    struct gpu_route r;
    gpu_route_init(&r, false);
    takes(&r, &decode, "replay, inner, top");
    takes(&r, &prompt, "batch, tiles, inner, top");
    takes(&r, &experts, "batch, inner");
    takes(&r, &decode, "replay, inner, top");
    gpu_route_leave(&r, GPU_WAY_REPLAY);
    CHECK_STR(gpu_route_words(&r), "inner, top");
}

static void none_is_taken_in_safe_mode(void)
{
    struct gpu_route r;
    gpu_route_init(&r, true);
    takes(&r, &decode, "plain");
    takes(&r, &prompt, "plain");
    takes(&r, &experts, "plain");
    for (int i = 0; i < GPU_WAYS; i++) {
        CHECK(!gpu_route_may(&r, (enum gpu_way)i));
    }
    CHECK_INT(r.n_fallen, 0);
}

static void a_latch_falls_once(void)
{
    for (int i = 0; i < GPU_WAYS; i++) {
        struct gpu_route r;
        gpu_route_init(&r, false);
        gpu_route_choose(&r, 5, &prompt);
        gpu_route_turn_off(&r, (enum gpu_way)i, "the first reason");
        gpu_route_choose(&r, 6, &prompt);
        gpu_route_turn_off(&r, (enum gpu_way)i, "another reason");
        CHECK_INT(r.n_fallen, 1);
        CHECK_INT(r.latches[i].step, 5);
        CHECK_STR(r.latches[i].why, "the first reason");
        CHECK(r.latches[i].fell_ns > 0);
        const struct gpu_route_step *steps[] = {&decode, &prompt, &experts};
        for (size_t k = 0; k < COUNT_OF(steps); k++) {
            struct gpu_route whole;
            gpu_route_init(&whole, false);
            gpu_route_choose(&whole, 7, steps[k]);
            gpu_route_choose(&r, 7, steps[k]);
            CHECK_INT(r.taken, whole.taken & ~(1u << i)); /* the others are taken as before */
        }
    }
}

static void a_long_reason_is_cut(void)
{
    char why[2 * GPU_ROUTE_WHY_BYTES];
    struct gpu_route r;
    memset(why, 'x', sizeof why);
    why[sizeof why - 1] = 0;
    gpu_route_init(&r, false);
    gpu_route_turn_off(&r, GPU_WAY_TOP, why);
    CHECK_INT(strlen(r.latches[GPU_WAY_TOP].why), GPU_ROUTE_WHY_BYTES - 1);
}

int main(void)
{
    steps_take_what_they_can_use();
    none_is_taken_in_safe_mode();
    a_latch_falls_once();
    a_long_reason_is_cut();
    return 0;
}
