/* The router: which fast ways a step of a model takes on the GPU. None in safe mode; none whose
 * latch has fallen: at its first failure, for as long as the model is loaded. A way fails when
 *   - the runtime refuses it, or it gave other numbers than the plain way where both were computed
 *     (the first replays: gpu_graph.h);
 *   - a step that took it gave NaN or infinity, and none when it was computed again without it
 *     (engine_step), or, of recurrent models, its texts (engine_can_retry). Then every way that the
 *     step took falls.
 *
 * Part of the engine (gpu_engine.h); the token loop's thread. */
#ifndef WORKER_GPU_GPU_ROUTE_H
#define WORKER_GPU_GPU_ROUTE_H

#include "shared/base.h"

enum gpu_way {
#define WAY(NAME, name, what) GPU_WAY_##NAME,
#include "worker/gpu/gpu_route.def"
#undef WAY
    GPU_WAYS
};

enum { GPU_ROUTE_WHY_BYTES = 160 };

struct gpu_latch {
    bool has_fallen;
    uint64_t step;    /* of this model, when it did */
    uint64_t fell_ns; /* monotonic, likewise */
    char why[GPU_ROUTE_WHY_BYTES];
};

struct gpu_route {
    bool is_safe;
    uint64_t step;     /* the running one's number */
    uint32_t taken;    /* ways of the running or last step, as bits */
    uint32_t n_fallen; /* latches, since the model was loaded */
    struct gpu_latch latches[GPU_WAYS];
};

struct gpu_route_step {
    int64_t n_rows, longest_run; /* a run: rows of one sequence */
    int64_t n_slots;             /* rows times experts of each */
    bool has_matrix;             /* the card has matrix units */
    int n_parts;                 /* runs of ops on the GPU */
    int32_t n_top;
};

void gpu_route_init(struct gpu_route *r, bool is_safe);

/* Decides about a step: of the ways that have a use for it, those that may be taken. */
void gpu_route_choose(struct gpu_route *r, uint64_t step, const struct gpu_route_step *s);
bool gpu_route_may(const struct gpu_route *r, enum gpu_way way);
static inline bool gpu_route_takes(const struct gpu_route *r, enum gpu_way way)
{
    return r->taken >> way & 1;
}
/* The running step did without it after all. */
void gpu_route_leave(struct gpu_route *r, enum gpu_way way);

/* The latch falls, with a line in the log. */
void gpu_route_turn_off(struct gpu_route *r, enum gpu_way way, const char *why);

const char *gpu_route_name(enum gpu_way way);
/* The ways of the running or last step: "plain", "replay, inner". Lives as long as the process. */
const char *gpu_route_words(const struct gpu_route *r);

#endif
