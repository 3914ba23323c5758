/* Recorded steps (see gpu_graph.h). The token loop's thread. */
#include "worker/gpu/gpu_graph.h"

#include <errno.h>
#include <string.h>

enum { N_CHECKS = 4 };

void gpu_graphs_init(struct gpu_graphs *g, struct door *d, struct gpu_route *r)
{
    *g = (struct gpu_graphs){.door = d, .route = r, .n_checks = N_CHECKS};
}

void gpu_graphs_finish(struct gpu_graphs *g)
{
    for (int i = 0; i < GPU_GRAPH_MAX && g->door; i++) {
        door_graph_destroy(g->door, &g->v[i].graph);
    }
}

void gpu_graphs_forget(struct gpu_graphs *g)
{
    gpu_graphs_finish(g);
    gpu_graphs_init(g, g->door, g->route);
}

static int find(const struct gpu_graphs *g, const struct gpu_graph_key *key)
{
    for (int i = 0; i < GPU_GRAPH_MAX; i++) {
        if (g->v[i].n_seen > 0 && memcmp(&g->v[i].key, key, sizeof *key) == 0) {
            return i;
        }
    }
    return -1;
}

/* The place of the key, else that of the one that was longest not used. */
static int place_of(struct gpu_graphs *g, const struct gpu_graph_key *key)
{
    int at = find(g, key), oldest = 0;
    if (at >= 0) {
        return at;
    }
    for (int i = 1; i < GPU_GRAPH_MAX; i++) {
        oldest = g->v[i].used_at < g->v[oldest].used_at ? i : oldest;
    }
    door_graph_destroy(g->door, &g->v[oldest].graph);
    g->v[oldest].key = *key;
    g->v[oldest].n_seen = 0;
    return oldest;
}

enum gpu_graph_way gpu_graphs_way(struct gpu_graphs *g, const struct gpu_graph_key *key)
{
    g->wants_check = false;
    int at = place_of(g, key);
    g->v[at].used_at = ++g->tick;
    g->v[at].n_seen++;
    return g->v[at].graph         ? GPU_GRAPH_REPLAY
           : g->v[at].n_seen >= 2 ? GPU_GRAPH_RECORD
                                  : GPU_GRAPH_PLAIN;
}

int gpu_graphs_begin(struct gpu_graphs *g)
{
    struct err e = {0};
    int err = door_graph_begin(g->door, &e);
    if (err < 0) {
        gpu_route_turn_off(g->route, GPU_WAY_REPLAY, e.detail);
    }
    return err;
}

int gpu_graphs_end(struct gpu_graphs *g, const struct gpu_graph_key *key)
{
    struct err e = {0};
    int at = find(g, key), err = door_graph_end(g->door, &g->v[at].graph, &e);
    if (err < 0) {
        gpu_route_turn_off(g->route, GPU_WAY_REPLAY, e.detail);
    }
    return err;
}

int gpu_graphs_replay(struct gpu_graphs *g, const struct gpu_graph_key *key)
{
    struct err e = {0};
    int at = find(g, key), err = door_graph_launch(g->door, g->v[at].graph, &e);
    if (err < 0) {
        gpu_route_turn_off(g->route, GPU_WAY_REPLAY, e.detail);
    }
    g->wants_check = err == 0 && g->n_checks > 0;
    return err;
}

bool gpu_graphs_checks_on(const struct gpu_graphs *g)
{
    return gpu_route_may(g->route, GPU_WAY_REPLAY) && g->n_checks > 0;
}

bool gpu_graphs_wants_check(const struct gpu_graphs *g)
{
    return g->wants_check;
}

void gpu_graphs_checked(struct gpu_graphs *g, bool is_same)
{
    g->wants_check = false;
    g->n_checks--;
    if (!is_same) {
        gpu_route_turn_off(g->route, GPU_WAY_REPLAY, "it gave other numbers than the plain way");
    }
}
