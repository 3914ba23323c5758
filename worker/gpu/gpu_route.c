/* The router (see gpu_route.h). The token loop's thread; never blocks, allocates nothing. */
#include "worker/gpu/gpu_route.h"

#include "shared/clock.h"
#include "shared/log.h"
#include "worker/gpu/gpu_emit.h"

#include <stdio.h>
#include <string.h>

enum {
    REPLAY_ROWS = 32, /* steps of so few rows are replayed */
    REPLAY_PARTS = 4, /* of models of so few parts on the GPU: each takes a graph for every key */
};

static const struct {
    const char *name, *what;
} ways[GPU_WAYS] = {
#define WAY(NAME, name, what) [GPU_WAY_##NAME] = {name, what},
#include "worker/gpu/gpu_route.def"
#undef WAY
};

void gpu_route_init(struct gpu_route *r, bool is_safe)
{
    *r = (struct gpu_route){.is_safe = is_safe};
}

bool gpu_route_may(const struct gpu_route *r, enum gpu_way way)
{
    return !r->is_safe && !r->latches[way].has_fallen;
}

void gpu_route_choose(struct gpu_route *r, uint64_t step, const struct gpu_route_step *s)
{
    bool is_long = s->longest_run >= GPU_EMIT_TILE_ROWS;
    const bool has_use[GPU_WAYS] = {
        /* of tiles there are as many as runs are long: no two such steps are alike */
        [GPU_WAY_REPLAY] = s->n_rows <= REPLAY_ROWS && s->n_parts <= REPLAY_PARTS && !is_long,
        [GPU_WAY_BATCH] = s->n_rows > (s->has_matrix ? 1 : GPU_EMIT_GEMV_ROWS) ||
                          s->n_slots > GPU_EMIT_EXPERT_SLOTS,
        [GPU_WAY_TILES] = is_long,
        [GPU_WAY_INNER] = true,
        [GPU_WAY_TOP] = s->n_top > 0,
    };
    r->step = step;
    r->taken = 0;
    for (int i = 0; i < GPU_WAYS; i++) {
        r->taken |= has_use[i] && gpu_route_may(r, (enum gpu_way)i) ? 1u << i : 0;
    }
}

void gpu_route_leave(struct gpu_route *r, enum gpu_way way)
{
    r->taken &= ~(1u << way);
}

void gpu_route_turn_off(struct gpu_route *r, enum gpu_way way, const char *why)
{
    struct gpu_latch *l = &r->latches[way];
    if (l->has_fallen) {
        return;
    }
    *l = (struct gpu_latch){.has_fallen = true, .step = r->step, .fell_ns = clock_ns()};
    snprintf(l->why, sizeof l->why, "%s", why);
    r->n_fallen++;
    log_warn("GPU: '%s' (%s) is off from here on: %s, in step %llu", ways[way].name, ways[way].what,
             l->why, (unsigned long long)l->step);
}

const char *gpu_route_name(enum gpu_way way)
{
    return ways[way].name;
}

const char *gpu_route_words(const struct gpu_route *r)
{
    static char words[1 << GPU_WAYS][48];
    char *ret = words[r->taken];
    if (!*ret) {
        size_t used = (size_t)snprintf(ret, sizeof words[0], "%s", r->taken ? "" : "plain");
        for (int i = 0; i < GPU_WAYS; i++) {
            if (r->taken >> i & 1) {
                used += (size_t)snprintf(ret + used, sizeof words[0] - used, "%s%s",
                                         used > 0 ? ", " : "", ways[i].name);
            }
        }
    }
    return ret;
}
