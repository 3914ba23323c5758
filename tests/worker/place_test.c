/* Placement, on every architecture: what is chosen keeps to the limits and prefers the first layers
 * or the experts for the CPU; a program that is cut in two still has every value where it is read,
 * and nothing overwrites what a part needs until the part is done. */
#include "tests/worker/tiny_model.h"

#include "shared/num.h"
#include "tests/test.h"
#include "worker/gpu/gpu_part.h"
#include "worker/gpu/gpu_pass.h"
#include "worker/model.h"
#include "worker/place.h"
#include "worker/program_use.h"

#include <stdlib.h>

/* A fast card beside a slow processor. */
static const struct rates rates = {
    .cpu_bytes = 20e9, .cpu_ops = 1e12, .gpu_bytes = 800e9, .gpu_ops = 200e12, .link_bytes = 12e9};

struct built {
    struct gguf g;
    struct program p;
    struct place s;
};

static void open_model(const char *name, struct built *b)
{
    struct err e = {0};
    char warn[160];
    program_init(&b->p);
    if (gguf_open(tiny_model_file(tiny_model_find(name), TYPE_Q8_0), &b->g, &e) != 0 ||
        model_build(&b->g, TINY_CTX, TYPE_F16, &b->p, warn, &e) != 0) {
        TEST_FAIL("%s: %s", name, e.detail);
    }
    CHECK(place_read(&b->s, &b->p) == 0);
}

static void release(struct built *b)
{
    place_finish(&b->s);
    program_finish(&b->p);
    gguf_close(&b->g);
}

/* --- values are where they are read ----------------------------------------------------------- */

struct watch {
    const struct program *p;
    const struct program_use *use;
    bool *is_at[2]; /* by place, by buffer */
    enum op_place place;
};

static void check_input(void *arg, struct op_rows *r, bool is_out)
{
    struct watch *w = arg;
    if (is_out) {
        w->is_at[w->place][r->buf] = true;
    } else if (w->place == OP_ON_CPU || w->p->ops[w->use[r->buf].writer].code != OP_rope_table) {
        CHECK(w->is_at[w->place][r->buf]);
    }
}

/* Joined ops of one part, in the order of a step. */
static void check_values(const struct program *p, const struct gpu_parts *parts)
{
    struct program_use *use = program_find_uses(p);
    struct watch w = {.p = p, .use = use};
    w.is_at[0] = calloc(p->n_bufs + 1, sizeof(bool));
    w.is_at[1] = calloc(p->n_bufs + 1, sizeof(bool));
    CHECK(use && w.is_at[0] && w.is_at[1]);
    size_t next = 0;
    for (int32_t i = 0; i < parts->n; i++) {
        const struct gpu_part *part = &parts->v[i];
        CHECK_INT(part->first, next);
        next = part->end;
        for (int32_t k = 0; k < part->n_in; k++) {
            CHECK(w.is_at[OP_ON_CPU][part->in[k]]);
            w.is_at[OP_ON_GPU][part->in[k]] = true;
        }
        w.place = part->place;
        for (size_t op = part->first; op < part->end; op++) {
            struct op copy = p->ops[op];
            CHECK_INT(copy.place, part->place);
            program_visit(&copy, check_input, &w);
        }
        for (int32_t k = 0; k < part->n_out; k++) {
            CHECK(w.is_at[OP_ON_GPU][part->out[k]]);
            w.is_at[OP_ON_CPU][part->out[k]] = true;
        }
    }
    CHECK_INT(next, p->n_ops);
    free(use);
    free(w.is_at[0]);
    free(w.is_at[1]);
}

struct reading {
    bool *is_read; /* by buffer */
};

static void note_read(void *arg, struct op_rows *r, bool is_out)
{
    struct reading *reading = arg;
    reading->is_read[r->buf] = reading->is_read[r->buf] || !is_out;
}

static bool is_apart(const struct program_buffer *x, const struct program_buffer *y)
{
    return y->offset + y->bytes <= x->offset || x->offset + x->bytes <= y->offset;
}

/* What a part reads from outside is not overwritten in it: it can be computed again. */
static void check_repeatable(const struct program *p, const struct gpu_part *part)
{
    struct program_use *use = program_find_uses(p);
    struct reading reading = {calloc(p->n_bufs + 1, sizeof(bool))};
    CHECK(use && reading.is_read);
    for (size_t op = part->first; op < part->end; op++) {
        struct op copy = p->ops[op];
        program_visit(&copy, note_read, &reading);
    }
    for (size_t b = 0; b < p->n_bufs; b++) {
        bool is_outside = use[b].writer >= 0 && use[b].writer < (int32_t)part->first;
        for (size_t op = part->first; op < part->end && is_outside && reading.is_read[b]; op++) {
            int out = program_output(&p->ops[op]);
            CHECK(out < 0 || is_apart(&p->bufs[b], &p->bufs[out]));
        }
    }
    free(use);
    free(reading.is_read);
}

static void cut(struct built *b, const char *name, int64_t max_layers)
{
    struct err e = {0};
    struct place_limits l = {
        .vram_bytes = UINT64_MAX / 2, .n_blocks = 4, .max_layers = max_layers, .rates = rates};
    if (!place_choose(&b->s, &l)) {
        CHECK(*b->s.no_kernel);
        return;
    }
    CHECK(b->s.n_gpu_layers <= max_layers);
    CHECK(place_apply(&b->s, &b->p) == 0);
    if (gpu_pass_begin(&b->p, &e) != 0 || program_describe_weights(&b->p, isa_detect(), &e) != 0) {
        TEST_FAIL("%s with %lld layers: %s", name, (long long)max_layers, e.detail);
    }
    CHECK(program_compile(&b->p) == 0 && gpu_pass_join(&b->p) == 0);
    CHECK(program_link(&b->p, 8, 4, TINY_CTX, 2) == 0);
    struct gpu_parts parts;
    CHECK(gpu_parts_find(&parts, &b->p) == 0);
    CHECK(parts.n >= 2 || max_layers > b->s.n - 2);
    check_values(&b->p, &parts);
    for (int32_t i = 0; i < parts.n; i++) {
        check_repeatable(&b->p, &parts.v[i]);
    }
    gpu_parts_finish(&parts);
}

static void test_values_cross(void)
{
    for (size_t i = 0; i < tiny_n_models; i++) {
        for (int64_t n = 1; n <= tiny_models[i].n_layers; n = 2 * n + 1) {
            struct built b;
            open_model(tiny_models[i].name, &b);
            cut(&b, tiny_models[i].name, n);
            release(&b);
        }
    }
}

/* --- choice ----------------------------------------------------------------------------------- */

static struct place_limits limits(uint64_t vram_bytes)
{
    return (struct place_limits){.vram_bytes = vram_bytes,
                                 .n_blocks = 4,
                                 .max_layers = -1,
                                 .is_required = true,
                                 .rates = rates};
}

static void test_what_fits(void)
{
    struct built b;
    open_model("llama", &b);
    struct place *s = &b.s;
    CHECK(place_all(s) && place_is_whole(s));
    uint64_t whole = s->vram_bytes + 4 * s->vram_kv_block_bytes;
    int32_t last = s->n_gpu_layers;
    CHECK_INT(last, s->n - 2);
    bool was_refused = false;
    for (uint64_t room = whole + 1024; room > 0; room -= MIN(room, (uint64_t)512)) {
        struct place_limits l = limits(room);
        if (!place_choose(s, &l)) {
            was_refused = true;
            continue;
        }
        CHECK(!was_refused); /* less room never brings more */
        CHECK(s->vram_bytes + 4 * s->vram_kv_block_bytes <= room);
        CHECK(s->n_gpu_layers <= last);
        last = s->n_gpu_layers;
        for (int32_t i = 2; i < s->n - 1; i++) { /* the first ones are on the CPU */
            CHECK(s->v[i - 1].rest.place <= s->v[i].rest.place);
        }
        CHECK(room < whole || place_is_whole(s));
        CHECK(room >= whole || s->decode_s > 0);
    }
    CHECK(was_refused);
    release(&b);
}

static void test_limit_and_reasons(void)
{
    struct built b;
    open_model("llama", &b);
    struct place_limits l = limits(UINT64_MAX / 2);
    l.max_layers = 1;
    CHECK(place_choose(&b.s, &l));
    CHECK_INT(b.s.n_gpu_layers + (b.s.v[b.s.n - 1].rest.place == OP_ON_GPU), 1);
    CHECK_STR(place_why(b.s.v[1].why), "--gpu-layers");
    CHECK_STR(place_why(b.s.v[0].why), "a token reads one row of it");
    CHECK(place_all(&b.s));
    l = limits(b.s.vram_bytes - b.s.v[0].rest.vram_bytes - 1 + 4 * b.s.vram_kv_block_bytes);
    CHECK(place_choose(&b.s, &l));
    CHECK_STR(place_why(b.s.v[1].why), "no room in the VRAM");
    release(&b);
}

/* With a card that is slower than the processor, who does not insist gets the processor. */
static void test_slow_card(void)
{
    struct built b;
    open_model("llama", &b);
    place_all(&b.s);
    struct place_limits l = limits(b.s.vram_bytes - 1 + 4 * b.s.vram_kv_block_bytes);
    l.rates.gpu_bytes = 1e6;
    CHECK(place_choose(&b.s, &l));
    l.is_required = false;
    CHECK(!place_choose(&b.s, &l));
    CHECK(b.s.is_slower);
    release(&b);
}

static void test_no_kernel(void)
{
    struct built b;
    open_model("llama", &b);
    b.s.v[1].has_kernels = false; /* the first layer */
    CHECK(!place_all(&b.s));
    struct place_limits l = limits(UINT64_MAX / 2);
    CHECK(place_choose(&b.s, &l));
    CHECK_INT(b.s.v[1].rest.place, OP_ON_CPU);
    CHECK_STR(place_why(b.s.v[1].why), "no GPU kernel");
    CHECK_INT(b.s.n_gpu_layers, b.s.n - 3);
    release(&b);
}

/* Of a model with experts these go first, as a token reads few of them. */
static void test_experts_go_first(void)
{
    struct built b;
    open_model("olmoe", &b);
    CHECK(place_all(&b.s));
    uint64_t experts = 0;
    for (int32_t i = 0; i < b.s.n; i++) {
        experts += b.s.v[i].experts.vram_bytes;
    }
    CHECK(experts > 0);
    struct place_limits l = limits(b.s.vram_bytes - 1 + 4 * b.s.vram_kv_block_bytes);
    CHECK(place_choose(&b.s, &l));
    CHECK_INT(b.s.n_gpu_layers, b.s.n - 2);
    CHECK(b.s.n_cpu_experts > 0 || b.s.v[0].rest.place == OP_ON_CPU);
    l = limits(b.s.vram_bytes - experts / 2 + 4 * b.s.vram_kv_block_bytes);
    CHECK(place_choose(&b.s, &l));
    CHECK_INT(b.s.n_gpu_layers, b.s.n - 2);
    CHECK(b.s.n_cpu_experts > 0);
    CHECK(place_apply(&b.s, &b.p) == 0);
    int n_here = 0, n_there = 0;
    for (size_t i = 0; i < b.p.n_ops; i++) {
        if (b.p.ops[i].code == OP_experts) {
            n_here += b.p.ops[i].place == OP_ON_CPU;
            n_there += b.p.ops[i].place == OP_ON_GPU;
        }
        CHECK(b.p.ops[i].code != OP_attention || b.p.ops[i].place == OP_ON_GPU);
    }
    CHECK(n_here > 0);
    CHECK(n_there > 0 || b.s.n_cpu_experts == b.s.n - 2);
    release(&b);
}

int main(void)
{
    test_values_cross();
    test_what_fits();
    test_limit_and_reasons();
    test_slow_card();
    test_no_kernel();
    test_experts_go_first();
    return 0;
}
