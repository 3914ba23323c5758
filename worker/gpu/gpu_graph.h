/* Steps as graphs: what a step of few rows launches is recorded once for its key and replayed from
 * then on. The launches depend on the key alone; what else a step needs stands in inputs at fixed
 * addresses. The first replays are compared with the plain path. Whatever fails once turns the way
 * off (gpu_route.h). */
#ifndef WORKER_GPU_GPU_GRAPH_H
#define WORKER_GPU_GPU_GRAPH_H

#include "worker/gpu/door.h"
#include "worker/gpu/gpu_route.h"

enum { GPU_GRAPH_MAX = 64 };

struct gpu_graph_key {
    int32_t n_rows, n_out, n_splits, n_top, part;
    int32_t n_runs; /* of a program with recurrent states; 0: it has none */
};

struct gpu_graphs {
    struct door *door; /* borrowed */
    struct gpu_route *route; /* borrowed */
    int n_checks; /* replays yet to be compared */
    bool wants_check;
    struct {
        struct gpu_graph_key key;
        int n_seen;
        struct door_graph *graph; /* owned; NULL: not recorded */
        uint64_t used_at;
    } v[GPU_GRAPH_MAX];
    uint64_t tick;
};

enum gpu_graph_way { GPU_GRAPH_PLAIN, GPU_GRAPH_RECORD, GPU_GRAPH_REPLAY };

void gpu_graphs_init(struct gpu_graphs *g, struct door *d, struct gpu_route *r);
void gpu_graphs_finish(struct gpu_graphs *g);
/* Addresses have changed: what was recorded is forgotten, and what is recorded next
 * compared again. */
void gpu_graphs_forget(struct gpu_graphs *g);
/* What to do with a step; a key is recorded when it comes for the second time. */
enum gpu_graph_way gpu_graphs_way(struct gpu_graphs *g, const struct gpu_graph_key *key);
/* Begin, launches, end; then replay. Negative: turned off. */
MUST_CHECK int gpu_graphs_begin(struct gpu_graphs *g);
MUST_CHECK int gpu_graphs_end(struct gpu_graphs *g, const struct gpu_graph_key *key);
MUST_CHECK int gpu_graphs_replay(struct gpu_graphs *g, const struct gpu_graph_key *key);
/* Replays are compared yet: a step may have to be computed twice. */
bool gpu_graphs_checks_on(const struct gpu_graphs *g);
/* The step that was replayed last is to be computed again, and whether it was the same is to be
 * told. */
bool gpu_graphs_wants_check(const struct gpu_graphs *g);
void gpu_graphs_checked(struct gpu_graphs *g, bool is_same);

#endif
