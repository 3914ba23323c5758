/* Placement of a model's layers (see place.h). Pure; the thread that opens a model. */
#include "worker/place.h"

#include "kernels/hip/pack.h"
#include "shared/num.h"
#include "worker/gpu/gpu_pass.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double layer_s = 20e-6;   /* of a GPU: the launches of a layer, beside their work */
static const double cross_s = 40e-6;   /* of a crossing: copies begin, the host waits */
static const double cpu_share = 0.5;   /* of the operations it could do at most, in prefill */
static const double gpu_share = 0.3;
static const double answer_tokens = 256; /* that a prompt of PLACE_PROMPT is weighed against */

/* --- units -------------------------------------------------------------------------------------*/

/* What stands between the layers counts as what is behind them. */
static int32_t unit_of(const struct place *s, const struct program *p, size_t op)
{
    if (p->ops[op].layer >= 0) {
        return p->ops[op].layer + 1;
    }
    for (size_t i = 0; i < op; i++) {
        if (p->ops[i].layer >= 0) {
            return s->n - 1;
        }
    }
    return 0;
}

struct grouping { /* what belongs to routed experts: from the sorting of rows to the last product */
    unsigned char *is_theirs; /* by buffer */
    bool reads_theirs;
};

static void look_at_input(void *arg, struct op_rows *r, bool is_out)
{
    struct grouping *g = arg;
    g->reads_theirs = g->reads_theirs || (!is_out && g->is_theirs[r->buf]);
}

/* To be asked of every op in order. */
static bool is_of_experts(struct grouping *g, const struct op *op)
{
    struct op copy = *op;
    int out = program_output(op);
    g->reads_theirs = false;
    program_visit(&copy, look_at_input, g);
    if (op->code == OP_order ||
        op->code == OP_combine) { /* what they write is read by others, too */
        return true;
    }
    bool is = op->code == OP_dispatch || op->code == OP_experts || g->reads_theirs;
    if (is && out >= 0) {
        g->is_theirs[out] = 1;
    }
    return is;
}

static void add_matrices(struct place_part *part, const struct program *p, const struct op *op)
{
    int64_t n;
    const struct matmul_weight *w = program_matrices(op, &n);
    struct pack_layout layout = {0};
    if (!w) {
        return;
    }
    if (pack_layout(w->type, w->n_rows, w->n_cols, &layout) == 0) {
        part->vram_bytes += (uint64_t)layout.n_bytes * (uint64_t)n;
    }
    double one = (double)w->n_rows * (double)w->row_bytes, share = 1;
    if (op->code == OP_embed) {
        part->token_bytes += (double)w->row_bytes;
        one = (double)w->n_rows * (double)type_row_bytes(w->type, (size_t)w->n_cols);
        part->file_bytes += (uint64_t)one;
        return;
    }
    if (op->code == OP_experts) {
        share = (double)p->bufs[op->u.experts.y.buf].mult / (double)n;
    }
    part->file_bytes += (uint64_t)(one * (double)n);
    part->token_bytes += one * (double)n * share;
    part->token_ops += 2 * (double)w->n_rows * (double)w->n_cols * (double)n * share;
}

/* The embedding that is the output's matrix, too, stands in memory once. */
static void share_embedding(struct place *s, const struct program *p)
{
    const struct matmul_weight *table = NULL;
    int64_t n;
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct matmul_weight *w = program_matrices(&p->ops[i], &n);
        if (p->ops[i].code == OP_embed) {
            table = w;
        } else if (w && table && w->data == table->data) {
            s->v[0].rest.vram_bytes = 0;
        }
    }
}

/* Layers that read another's KV cache are computed where that is written. */
static void note_kv(struct place *s, const struct program *p, int32_t *unit_of_kv)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        int32_t unit = unit_of(s, p, i);
        if (op->code == OP_kv_write) {
            unit_of_kv[op->u.kv_write.layer] = unit;
            s->v[unit].kv_block_bytes += kv_block_bytes(&p->kv[op->u.kv_write.layer]);
        }
        if (op->code == OP_attention && unit_of_kv[op->u.attention.layer] != unit) {
            s->v[unit].kv_from = unit_of_kv[op->u.attention.layer];
        }
    }
    for (int32_t i = s->n; i-- > 0;) {
        if (s->v[i].kv_from >= 0 && !s->v[i].has_kernels) {
            s->v[s->v[i].kv_from].has_kernels = false;
        }
    }
}

int place_read(struct place *ret, const struct program *p)
{
    struct place s = {.n = 2};
    for (size_t i = 0; i < p->n_ops; i++) {
        s.n = MAX(s.n, p->ops[i].layer + 3);
    }
    struct grouping g = {.is_theirs = calloc(p->n_bufs + 1, 1)};
    int32_t *unit_of_kv = calloc(p->n_kv + 1, sizeof *unit_of_kv);
    s.v = calloc((size_t)s.n, sizeof *s.v);
    if (!g.is_theirs || !unit_of_kv || !s.v) {
        free(g.is_theirs);
        free(unit_of_kv);
        free(s.v);
        return -ENOMEM;
    }
    for (int32_t i = 0; i < s.n; i++) {
        s.v[i] = (struct place_unit){.layer = i - 1, .has_kernels = true, .kv_from = -1};
        s.v[i].rest.is_there = true;
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        struct place_unit *u = &s.v[unit_of(&s, p, i)];
        bool is_experts = is_of_experts(&g, op);
        struct err e = {0};
        if (gpu_pass_check(p, op, &e) < 0) {
            u->has_kernels = false;
            if (!*s.no_kernel) {
                snprintf(s.no_kernel, sizeof s.no_kernel, "%.*s", (int)sizeof s.no_kernel - 1,
                         e.detail);
            }
        }
        u->experts.is_there = u->experts.is_there || is_experts;
        add_matrices(is_experts ? &u->experts : &u->rest, p, op);
        s.n_embd = op->code == OP_embed ? p->bufs[op->u.embed.y.buf].n_cols : s.n_embd;
    }
    share_embedding(&s, p);
    note_kv(&s, p, unit_of_kv);
    free(g.is_theirs);
    free(unit_of_kv);
    *ret = s;
    return 0;
}

void place_finish(struct place *s)
{
    free(s->v);
    *s = (struct place){0};
}

/* --- cost --------------------------------------------------------------------------------------*/

static double part_seconds(const struct place_part *p, const struct rates *r, double rows)
{
    bool is_gpu = p->place == OP_ON_GPU;
    double bytes = MIN(p->token_bytes * rows, MAX((double)p->file_bytes, p->token_bytes));
    double by_bytes = bytes / (is_gpu ? r->gpu_bytes : r->cpu_bytes);
    double by_ops =
        p->token_ops * rows / (is_gpu ? gpu_share * r->gpu_ops : cpu_share * r->cpu_ops);
    return MAX(by_bytes, by_ops);
}

/* Of a step of so many rows. */
static double seconds(const struct place *s, const struct rates *r, double rows)
{
    double sum = 0, crossing = cross_s + rows * (double)s->n_embd * sizeof(float) / r->link_bytes;
    for (int32_t i = 0; i < s->n; i++) {
        const struct place_unit *u = &s->v[i];
        sum += part_seconds(&u->rest, r, rows) + part_seconds(&u->experts, r, rows);
        sum += u->rest.place == OP_ON_GPU ? layer_s : 0;
        sum += i > 0 && s->v[i - 1].rest.place != u->rest.place ? crossing : 0;
        sum += u->experts.is_there && u->experts.place != u->rest.place ? 2 * crossing : 0;
    }
    return sum;
}

/* What the choice comes to. */
static void add_up(struct place *s, const struct rates *r)
{
    s->vram_bytes = s->vram_kv_block_bytes = s->ram_kv_block_bytes = 0;
    s->n_gpu_layers = s->n_cpu_experts = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const struct place_unit *u = &s->v[i];
        bool is_gpu = u->rest.place == OP_ON_GPU, is_layer = i > 0 && i < s->n - 1;
        s->vram_bytes += is_gpu ? u->rest.vram_bytes : 0;
        s->vram_bytes += u->experts.place == OP_ON_GPU ? u->experts.vram_bytes : 0;
        s->vram_kv_block_bytes += is_gpu ? u->kv_block_bytes : 0;
        s->ram_kv_block_bytes += is_gpu ? 0 : u->kv_block_bytes;
        s->n_gpu_layers += is_gpu && is_layer;
        s->n_cpu_experts += is_gpu && u->experts.is_there && u->experts.place == OP_ON_CPU;
    }
    if (r->cpu_bytes > 0 && r->gpu_bytes > 0) {
        s->decode_s = seconds(s, r, 1);
        s->prefill_s = seconds(s, r, PLACE_PROMPT);
    }
}

/* --- choice ------------------------------------------------------------------------------------*/

struct candidate {
    int32_t n_first;   /* layers that go to the CPU, from the first */
    int32_t n_experts; /* of the layers behind them: whose experts go there */
    bool has_head, has_tail; /* on the GPU */
};

static void put(struct place *s, const struct candidate *c)
{
    for (int32_t i = 0; i < s->n; i++) {
        struct place_unit *u = &s->v[i];
        bool is_gpu = i == 0              ? c->has_head
                      : i == s->n - 1     ? c->has_tail
                                          : i - 1 >= c->n_first;
        u->why = is_gpu ? PLACE_FITS : i == 0 ? PLACE_CHEAP : PLACE_NO_ROOM;
        if (is_gpu && !u->has_kernels) {
            is_gpu = false;
            u->why = PLACE_NO_KERNEL;
        }
        if (is_gpu && u->kv_from >= 0 && s->v[u->kv_from].rest.place == OP_ON_CPU) {
            is_gpu = false;
            u->why = s->v[u->kv_from].why;
        }
        u->rest.place = u->experts.place = is_gpu ? OP_ON_GPU : OP_ON_CPU;
        if (is_gpu && u->experts.is_there && i - 1 < c->n_first + c->n_experts) {
            u->experts.place = OP_ON_CPU;
        }
    }
}

bool place_all(struct place *s)
{
    bool is_whole = true;
    put(s, &(struct candidate){.has_head = true, .has_tail = true});
    add_up(s, &(struct rates){0});
    for (int32_t i = 0; i < s->n; i++) {
        is_whole = is_whole && s->v[i].has_kernels;
    }
    return is_whole;
}

void place_estimate(struct place *s, const struct rates *r)
{
    put(s, &(struct candidate){.n_first = s->n - 2});
    add_up(s, r);
    s->cpu_decode_s = s->decode_s;
    s->cpu_prefill_s = s->prefill_s;
    put(s, &(struct candidate){.has_head = true, .has_tail = true});
    add_up(s, r);
    s->rates = *r;
}

bool place_is_whole(const struct place *s)
{
    for (int32_t i = 0; i < s->n; i++) {
        const struct place_unit *u = &s->v[i];
        if (u->rest.place != OP_ON_GPU || (u->experts.is_there && u->experts.place != OP_ON_GPU)) {
            return false;
        }
    }
    return true;
}

int64_t place_gpu_layers(const struct place *s)
{
    return s->n_gpu_layers + (s->v[s->n - 1].rest.place == OP_ON_GPU);
}

static bool is_allowed(const struct place *s, const struct place_limits *l)
{
    int64_t n = place_gpu_layers(s);
    uint64_t kv = s->vram_kv_block_bytes * (uint64_t)l->n_blocks;
    bool is_some = l->max_layers < 0 ? s->n_gpu_layers > 0 : n > 0 && n <= l->max_layers;
    return is_some && s->vram_bytes + kv <= l->vram_bytes;
}

static double score(const struct place *s)
{
    return answer_tokens * s->decode_s + s->prefill_s;
}

/* As many layers as fit, then the faster: the choice so hardly depends on rates, which are measured
 * anew by each worker, and the next one computes the same bits. */
static double worth(const struct place *s)
{
    return 1e9 * (double)place_gpu_layers(s) - score(s);
}

/* What is on the CPU though there would be room for it. */
static void name_reasons(struct place *s, const struct place_limits *l)
{
    int64_t n = place_gpu_layers(s);
    uint64_t used = s->vram_bytes + s->vram_kv_block_bytes * (uint64_t)l->n_blocks;
    for (int32_t i = 1; i < s->n; i++) {
        struct place_unit *u = &s->v[i];
        uint64_t more = u->rest.vram_bytes + u->kv_block_bytes * (uint64_t)l->n_blocks;
        if (u->why == PLACE_NO_ROOM && l->max_layers >= 0 && n >= l->max_layers) {
            u->why = PLACE_LIMIT;
        } else if (u->why == PLACE_NO_ROOM && used + more <= l->vram_bytes) {
            u->why = PLACE_SLOWER;
        }
    }
}

bool place_choose(struct place *s, const struct place_limits *l)
{
    struct candidate best = {0};
    double most_worth = 0, least = 0;
    bool found = false, has_experts = false;
    int32_t n_layers = s->n - 2;
    for (int32_t i = 0; i < s->n; i++) {
        has_experts = has_experts || s->v[i].experts.is_there;
    }
    put(s, &(struct candidate){.n_first = n_layers});
    add_up(s, &l->rates);
    double cpu_decode = s->decode_s, cpu_prefill = s->prefill_s, cpu_score = score(s);
    for (int32_t first = 0; first <= n_layers; first++) {
        int32_t most = !has_experts ? 0 : n_layers - first;
        for (int32_t experts = 0; experts <= most; experts++) {
            for (int ends = 0; ends < 4; ends++) {
                struct candidate c = {first, experts, ends & 1, ends >> 1};
                if (c.has_head && first > 0) {
                    continue;
                }
                put(s, &c);
                add_up(s, &l->rates);
                if (is_allowed(s, l) && (!found || worth(s) > most_worth)) {
                    found = true;
                    most_worth = worth(s);
                    least = score(s);
                    best = c;
                }
            }
        }
    }
    bool is_free = !l->is_required && l->max_layers < 0;
    s->is_slower = found && is_free && least > cpu_score;
    found = found && !s->is_slower;
    if (!found) {
        best = (struct candidate){.n_first = n_layers};
    }
    put(s, &best);
    add_up(s, &l->rates);
    name_reasons(s, l);
    s->rates = l->rates;
    s->cpu_decode_s = cpu_decode;
    s->cpu_prefill_s = cpu_prefill;
    return found;
}

/* --- the program -------------------------------------------------------------------------------*/

int place_apply(const struct place *s, struct program *p)
{
    struct grouping g = {.is_theirs = calloc(p->n_bufs + 1, 1)};
    if (!g.is_theirs) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        struct op *op = &p->ops[i];
        const struct place_unit *u = &s->v[unit_of(s, p, i)];
        op->place = is_of_experts(&g, op) ? u->experts.place : u->rest.place;
        int64_t n;
        const struct matmul_weight *w = program_matrices(op, &n);
        for (size_t k = 0; k < p->n_weights && w; k++) {
            if (p->weights[k].w == w) {
                p->weights[k].place = op->place;
            }
        }
    }
    free(g.is_theirs);
    return 0;
}

/* --- words -------------------------------------------------------------------------------------*/

const char *place_why(enum place_why why)
{
    static const char *const words[] = {
        [PLACE_FITS] = "fits into the VRAM",
        [PLACE_NO_ROOM] = "no room in the VRAM",
        [PLACE_NO_KERNEL] = "no GPU kernel",
        [PLACE_LIMIT] = "--gpu-layers",
        [PLACE_CHEAP] = "a token reads one row of it",
        [PLACE_SLOWER] = "no faster on the GPU",
    };
    return words[why];
}

int32_t place_run(const struct place *s, int32_t at)
{
    const struct place_unit *a = &s->v[at];
    int32_t n = 1;
    while (at > 0 && at + n < s->n - 1 && s->v[at + n].rest.place == a->rest.place &&
           s->v[at + n].experts.place == a->experts.place &&
           s->v[at + n].experts.is_there == a->experts.is_there && s->v[at + n].why == a->why) {
        n++;
    }
    return n;
}

void place_words(const struct place *s, char *ret, size_t n)
{
    bool has_tail = s->v[s->n - 1].rest.place == OP_ON_GPU;
    int used = snprintf(ret, n, "%d of %d layers%s on the GPU", s->n_gpu_layers, s->n - 2,
                        has_tail ? " and the output" : "");
    if (s->n_cpu_experts > 0 && used > 0 && (size_t)used < n) {
        snprintf(ret + used, n - (size_t)used, ", of %d of them the experts on the CPU",
                 s->n_cpu_experts);
    }
}
