/* Steps of the program on the device, and on both (see gpu_engine.h). The token loop's thread.
 * Blocks in door_wait; nothing is allocated. */
#include "worker/gpu/gpu_engine_state.h"

#include "shared/clock.h"
#include "shared/hash.h"
#include "shared/num.h"

#include <string.h>

static float *slot_at(const struct gpu_engine *g, int64_t slot)
{
    return g->states + slot * g->emit.state_floats;
}

static void copy_slot(struct gpu_engine *g, const float *from, float *to)
{
    door_copy(g->door, to, from, (size_t)g->emit.state_floats * sizeof(float));
}

/* --- results --------------------------------------------------------------------------------- */

/* The program's, in its last op. */
static bool has_result(const struct gpu_engine *g, const struct gpu_part *part)
{
    return part == &g->parts.v[g->parts.n - 1];
}

static void emit_part(struct gpu_engine *g, const struct gpu_part *part)
{
    for (size_t i = part->first; i < part->end; i += 1u + g->p->ops[i].n_joined) {
        gpu_emit(&g->emit, i);
    }
    if (g->n_top > 0 && has_result(g, part)) {
        gpu_top_emit(&g->top, g->door, &g->p->result, g->emit.n_out, g->n_top);
    }
}

static void download_row(struct gpu_engine *g, int64_t i)
{
    const struct op_rows *y = &g->p->result;
    door_download(g->door, g->logits + i * y->n, y->data + i * y->stride,
                  (size_t)y->n * sizeof(float));
}

static void download_logits(struct gpu_engine *g, int64_t n_out, const bool *travels)
{
    const struct op_rows *y = &g->p->result;
    if (!travels && n_out > 0 && y->stride == y->n) {
        door_download(g->door, g->logits, y->data, (size_t)(n_out * y->n) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < n_out; i++) {
        if (!travels || travels[i]) {
            download_row(g, i);
        }
    }
}

const float *gpu_engine_logits(struct gpu_engine *g, int64_t i)
{
    download_row(g, i);
    door_wait(g->door, 0);
    return g->logits + i * g->p->result.n;
}

int32_t gpu_engine_top_size(const struct gpu_engine *g, int32_t n_wanted)
{
    bool may_top = g->is_result_there && gpu_route_may(&g->route, GPU_WAY_TOP);
    return may_top ? gpu_top_round(&g->top, n_wanted) : 0;
}

struct engine_top gpu_engine_top(const struct gpu_engine *g, int64_t i)
{
    return gpu_top_of(&g->top, i);
}

bool gpu_engine_is_finite(const struct gpu_engine *g, int64_t i)
{
    return gpu_top_is_finite(&g->top, i);
}

/* --- a step ---------------------------------------------------------------------------------- */

/* A power of two, so that few graphs serve all lengths. */
static int32_t round_splits(int64_t n)
{
    int32_t rounded = 1;
    while (rounded < n) {
        rounded *= 2;
    }
    return rounded;
}

static int64_t last_position(const struct op_step *s)
{
    int64_t last = 0;
    for (int64_t i = 0; i < s->n_runs; i++) {
        last = MAX(last, s->runs[i].pos + s->runs[i].n);
    }
    return last;
}

/* Replays it, or else launches it and returns false. */
static bool compute(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                    int64_t n_out)
{
    bool is_decode = s->n_rows == s->n_runs; /* attention writes K and V itself */
    struct gpu_graph_key key = {(int32_t)s->n_rows,
                                (int32_t)n_out,
                                g->emit.n_splits,
                                has_result(g, part) ? g->n_top : 0,
                                (int32_t)(part - g->parts.v),
                                g->p->n_states > 0 || is_decode ? (int32_t)s->n_runs : 0};
    enum gpu_graph_way way = gpu_route_takes(&g->route, GPU_WAY_REPLAY)
                                 ? gpu_graphs_way(&g->graphs, &key)
                                 : GPU_GRAPH_PLAIN;
    if (way == GPU_GRAPH_REPLAY && gpu_graphs_replay(&g->graphs, &key) == 0) {
        return true;
    }
    if (way == GPU_GRAPH_RECORD && gpu_graphs_begin(&g->graphs) == 0) {
        emit_part(g, part);
        if (gpu_graphs_end(&g->graphs, &key) == 0 && gpu_graphs_replay(&g->graphs, &key) == 0) {
            return true;
        }
    }
    emit_part(g, part);
    return false;
}

/* What the part gives to the host; travels: see gpu_engine_step. */
static void download(struct gpu_engine *g, const struct gpu_part *part, int64_t n_rows,
                     int64_t n_out, const bool *travels)
{
    for (int32_t i = 0; i < part->n_out; i++) {
        size_t at = g->p->bufs[part->out[i]].offset;
        door_download(g->door, g->host + at, g->buffers + at,
                      gpu_parts_bytes(g->p, part->out[i], n_rows, n_out));
    }
    if (has_result(g, part)) {
        download_logits(g, n_out, travels);
    }
    if (has_result(g, part) && g->n_top > 0) {
        gpu_top_download(&g->top, g->door, n_out, g->n_top);
    }
}

/* Of what the part has given to the host. */
static uint32_t sum_of(const struct gpu_engine *g, const struct gpu_part *part, int64_t n_rows,
                       int64_t n_out)
{
    uint32_t sum = 0;
    for (int32_t i = 0; i < part->n_out; i++) {
        sum = hash_crc32c(sum, g->host + g->p->bufs[part->out[i]].offset,
                          gpu_parts_bytes(g->p, part->out[i], n_rows, n_out));
    }
    if (has_result(g, part)) {
        sum = hash_crc32c(sum, g->logits, (size_t)(n_out * g->p->result.n) * sizeof(float));
    }
    return sum;
}

/* A part that was replayed, once more on the plain path, which writes the same values to the same
 * places. */
static void check_replay(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                         int64_t n_out)
{
    uint32_t replayed = sum_of(g, part, s->n_rows, n_out);
    if (g->p->n_states > 0) {
        copy_slot(g, g->spare, slot_at(g, s->runs[0].state));
    }
    emit_part(g, part);
    download(g, part, s->n_rows, n_out, NULL);
    door_wait(g->door, 0);
    gpu_graphs_checked(&g->graphs, replayed == sum_of(g, part, s->n_rows, n_out));
    if (g->n_top > 0 && has_result(g, part) && !gpu_top_redo(&g->top, g->logits)) {
        gpu_route_turn_off(&g->route, GPU_WAY_TOP, "others are the largest");
    }
}

static void run_here(struct gpu_engine *g, const struct gpu_part *part, const struct op_step *s,
                     int64_t n_out)
{
    for (size_t i = part->first; i < part->end; i += 1u + g->p->ops[i].n_joined) {
        program_run_op(g->p, i, s, n_out);
    }
}

static void run_there(struct gpu_engine *g, struct gpu_part *part, const struct op_step *s,
                      int64_t n_out, const bool *travels)
{
    bool is_decode = s->n_rows == s->n_runs;
    bool has_states = g->p->n_states > 0, may_check = !has_states || s->n_runs == 1;
    uint64_t start = clock_ns();
    for (int32_t i = 0; i < part->n_in; i++) {
        size_t at = g->p->bufs[part->in[i]].offset;
        door_upload(g->door, g->buffers + at, g->host + at,
                    gpu_parts_bytes(g->p, part->in[i], s->n_rows, n_out));
    }
    if (has_states && may_check && gpu_graphs_checks_on(&g->graphs)) {
        copy_slot(g, slot_at(g, s->runs[0].state), g->spare);
    }
    bool is_replayed = compute(g, part, s, n_out);
    bool is_checked = is_replayed && gpu_graphs_wants_check(&g->graphs) && may_check;
    download(g, part, s->n_rows, n_out, g->n_top > 0 && !is_checked ? travels : NULL);
    gpu_mirror_meanwhile(&g->mirror, is_decode ? part->decode_ns : 0);
    /* Submitting takes time as well, which must not be slept through again: the sum would be what
     * the next one takes. */
    uint64_t gone = clock_ns() - start;
    door_wait(g->door, is_decode && part->decode_ns > gone ? part->decode_ns - gone : 0);
    if (is_decode) {
        /* Slept through, a step seems to take as long as the sleep: so down at once, and up slowly,
         * or one step in which the machine stood still would slow down hundreds. */
        uint64_t took = clock_ns() - start, before = part->decode_ns;
        uint64_t mean = before ? MIN((7 * before + took) / 8, 2 * before) : took;
        part->decode_ns = MIN(mean, took);
    }
    if (is_checked) {
        check_replay(g, part, s, n_out);
    }
    g->has_replayed = g->has_replayed || is_replayed;
}

/* Of ops on the CPU, whose logits are beside those of a device. */
static void take_logits(struct gpu_engine *g, int64_t n_out)
{
    const struct op_rows *y = &g->p->result;
    for (int64_t i = 0; i < n_out; i++) {
        memcpy(g->logits + i * y->n, y->data + i * y->stride, (size_t)y->n * sizeof(float));
    }
}

/* In the ways that were chosen. */
static void run_step(struct gpu_engine *g, const struct op_step *s, int64_t n_out,
                     const bool *travels)
{
    g->emit.is_batch = gpu_route_takes(&g->route, GPU_WAY_BATCH);
    g->emit.is_inner = gpu_route_takes(&g->route, GPU_WAY_INNER);
    g->has_replayed = false;
    gpu_engine_upload_inputs(g, s, n_out);
    for (int32_t i = 0; i < g->parts.n; i++) {
        struct gpu_part *part = &g->parts.v[i];
        if (part->place == OP_ON_GPU) {
            run_there(g, part, s, n_out, travels);
        } else {
            run_here(g, part, s, n_out);
        }
    }
    if (!g->has_replayed) {
        gpu_route_leave(&g->route, GPU_WAY_REPLAY);
    }
    if (!g->is_result_there) {
        door_wait(g->door, 0); /* the inputs are written again by the next step */
        take_logits(g, n_out);
    }
    gpu_mirror_step(&g->mirror, s->n_rows);
}

static void choose_ways(struct gpu_engine *g, const struct op_step *s, int32_t n_top)
{
    struct gpu_route_step step = {.n_rows = s->n_rows,
                                  .n_slots = s->n_rows * g->n_used,
                                  .has_matrix = door_has_matrix(g->door),
                                  .n_parts = g->parts.n_gpu,
                                  .n_top = n_top};
    for (int64_t i = 0; i < s->n_runs; i++) {
        step.longest_run = MAX(step.longest_run, s->runs[i].n);
    }
    if (g->n_fallen != g->route.n_fallen) { /* what was recorded takes ways that are off */
        g->n_fallen = g->route.n_fallen;
        gpu_graphs_forget(&g->graphs);
    }
    gpu_route_choose(&g->route, g->n_steps, &step);
    g->route.taken &= ~g->suspects;
}

const float *gpu_engine_step(struct gpu_engine *g, const struct op_step *s, int64_t n_out,
                             int32_t n_top, const bool *travels)
{
    bool is_decode = s->n_rows == s->n_runs;
    door_note(g->door, g->o.is_safe || g->n_steps == 0, "step %llu, %s of %lld rows",
              (unsigned long long)g->n_steps, is_decode ? "decode" : "prefill",
              (long long)s->n_rows);
    g->emit.n_rows = s->n_rows;
    g->emit.n_out = n_out;
    g->emit.n_splits = round_splits(gpu_engine_splits_of(last_position(s)));
    g->n_top = n_top;
    g->suspects = g->p->n_states > 0 ? g->suspects : 0;
    choose_ways(g, s, n_top);
    if (is_decode && s->n_rows != g->decode_rows) {
        /* Slept through, a step of fewer rows would seem to take as long as one of more. */
        g->decode_rows = s->n_rows;
        for (int32_t i = 0; i < g->parts.n; i++) {
            g->parts.v[i].decode_ns = 0;
        }
    }
    run_step(g, s, n_out, travels);
    g->n_steps++;
    return g->logits;
}

const float *gpu_engine_step_again(struct gpu_engine *g, const struct op_step *s, int64_t n_out,
                                   const bool *travels)
{
    uint32_t top = g->route.taken & 1u << GPU_WAY_TOP;
    if (g->p->n_states > 0) { /* they have gone on: steps to come do without, from the beginning */
        g->suspects = g->suspects ? 0 : g->route.taken & ~top;
        return NULL;
    }
    g->suspects = g->route.taken & ~top;
    if (g->suspects == 0) {
        return NULL;
    }
    g->route.taken = top;
    run_step(g, s, n_out, travels);
    return g->logits;
}

void gpu_engine_blame(struct gpu_engine *g)
{
    for (int i = 0; i < GPU_WAYS; i++) {
        if (g->suspects >> i & 1) {
            gpu_route_turn_off(&g->route, (enum gpu_way)i,
                               "it gave NaN or infinity, and the plain way did not");
        }
    }
    g->suspects = 0;
}

bool gpu_engine_suspects(const struct gpu_engine *g)
{
    return g->suspects != 0;
}

const struct gpu_route *gpu_engine_route(const struct gpu_engine *g)
{
    return &g->route;
}

/* --- states ---------------------------------------------------------------------------------- */

void gpu_engine_zero_state(struct gpu_engine *g, int64_t slot)
{
    if (g->emit.state_floats > 0) {
        door_zero(g->door, slot_at(g, slot), (size_t)g->emit.state_floats * sizeof(float));
    }
}

void gpu_engine_copy_state(struct gpu_engine *g, int64_t from, int64_t to)
{
    if (g->emit.state_floats > 0) {
        copy_slot(g, slot_at(g, from), slot_at(g, to));
    }
}
