/* The passes and the memory plan of programs, on every architecture: buffers that are needed at the
 * same time never share bytes; every buffer is written before it is read; products are joined where
 * they should be; only wanted rows go through the last network. */
#include "tests/worker/tiny_model.h"

#include "shared/buf.h"
#include "shared/num.h"
#include "tests/test.h"
#include "worker/model.h"

struct built {
    struct gguf g;
    struct pool *pool;
    struct program p;
};

static void build(const struct tiny_model *m, struct built *b)
{
    struct err e = {0};
    char warn[160];
    program_init(&b->p);
    CHECK(pool_create(1, &b->pool) == 0);
    if (gguf_open(tiny_model_file(m, TYPE_Q8_0), &b->g, &e) != 0 ||
        model_build(&b->g, TINY_CTX, TYPE_F16, &b->p, warn, &e) != 0 ||
        program_describe_weights(&b->p, isa_detect(), &e) != 0) {
        TEST_FAIL("%s: %s", m->name, e.detail);
    }
    CHECK_STR(warn, ""); /* every tensor of the file is used */
    CHECK(program_compile(&b->p) == 0);
    CHECK(program_link(&b->p, 64, 8, TINY_CTX, 2) == 0);
}

static void release(struct built *b)
{
    program_finish(&b->p);
    pool_destroy(&b->pool);
    gguf_close(&b->g);
}

struct life { /* of a buffer, in jobs: joined ops are one */
    int written, read;
};

struct walk {
    struct life *life;
    int job;
};

static void note(void *arg, struct op_rows *r, bool is_out)
{
    struct walk *w = arg;
    struct life *l = &w->life[r->buf];
    if (is_out) {
        CHECK_INT(l->written, -1); /* once */
        l->written = l->read = w->job;
    } else {
        CHECK(l->written >= 0); /* before */
        l->read = w->job;
    }
}

/* A joined glu may stand where its gate stood. */
static bool is_glu_over_gate(const struct program *p, size_t x, size_t y)
{
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct op_glu *o = &p->ops[i].u.glu;
        if (p->ops[i].code == OP_glu && (size_t)o->gate.buf == x && (size_t)o->y.buf == y) {
            return true;
        }
    }
    return false;
}

static void check_plan(const struct tiny_model *m)
{
    struct built b;
    build(m, &b);
    struct program *p = &b.p;
    struct walk w = {calloc(p->n_bufs, sizeof *w.life), 0};
    CHECK(w.life);
    for (size_t i = 0; i < p->n_bufs; i++) {
        w.life[i] = (struct life){-1, -1};
    }
    for (size_t i = 0; i < p->n_ops; w.job++) {
        size_t end = i + 1 + p->ops[i].n_joined;
        for (; i < end; i++) {
            program_visit(&p->ops[i], note, &w);
        }
    }
    CHECK(p->result.buf >= 0);
    w.life[p->result.buf].read = w.job;
    for (size_t i = 0; i < p->n_bufs; i++) {
        const struct program_buffer *x = &p->bufs[i];
        if (w.life[i].written < 0) {
            continue;
        }
        uint64_t rows = (uint64_t)(x->is_out ? 8 : 64) * (uint64_t)x->mult;
        CHECK(x->bytes >= rows * (uint64_t)x->n_cols * sizeof(float));
        CHECK(x->offset % 64 == 0 && x->offset + x->bytes <= p->memory_bytes);
        for (size_t k = i + 1; k < p->n_bufs; k++) {
            const struct program_buffer *y = &p->bufs[k];
            bool together = w.life[k].written >= 0 && w.life[i].written <= w.life[k].read &&
                            w.life[k].written <= w.life[i].read;
            bool apart = x->offset + x->bytes <= y->offset || y->offset + y->bytes <= x->offset;
            if (together && !apart && !is_glu_over_gate(p, i, k)) {
                TEST_FAIL("%s: %s and %s share bytes", m->name, x->name, y->name);
            }
        }
    }
    free(w.life);
    release(&b);
}

static int count(const struct program *p, enum op_code code, int layer)
{
    int n = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        n += p->ops[i].code == code && p->ops[i].layer == layer;
    }
    return n;
}

/* Jobs that the pool runs for products in a layer. */
static int count_product_jobs(const struct program *p, int layer)
{
    int n = 0;
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        n += p->ops[i].layer == layer &&
             (p->ops[i].code == OP_matmul || p->ops[i].code == OP_experts);
    }
    return n;
}

static void check_shape_of_llama(void)
{
    struct built b;
    struct buf text;
    build(tiny_model_find("llama"), &b);
    CHECK_INT(count(&b.p, OP_matmul, 0), 7);
    CHECK_INT(count_product_jobs(&b.p, 0), 4); /* q+k+v, output, gate+up+glu, down */
    CHECK_INT(count(&b.p, OP_add, 0), 0);
    CHECK_INT(count(&b.p, OP_gather, 0) + count(&b.p, OP_gather, 1), 2);
    for (size_t i = 0; i < b.p.n_ops;
         i++) { /* q, k, v over all rows of the last layer, the rest not */
        const struct op *op = &b.p.ops[i];
        if (op->layer == 1 && op->code == OP_matmul) {
            const struct program_buffer *y = &b.p.bufs[op->u.matmul.y.buf];
            CHECK(y->is_out == (strncmp(y->name, "attn_", 5) != 0));
        }
    }
    buf_init(&text, 0);
    program_print(&b.p, &text);
    CHECK(strstr(text.data, "layer 1") && strstr(text.data, "= attention(rope."));
    buf_finish(&text);
    release(&b);
    build(tiny_model_find("qwen3next"), &b);
    CHECK_INT(count_product_jobs(&b.p, 1),
              6); /* qkv, output, router+shared, experts, down, shared down */
    release(&b);
}

int main(void)
{
    for (size_t i = 0; i < tiny_n_models; i++) {
        check_plan(&tiny_models[i]);
    }
    check_shape_of_llama();
    return 0;
}
