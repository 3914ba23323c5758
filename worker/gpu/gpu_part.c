/* Parts of a program (see gpu_part.h). */
#include "worker/gpu/gpu_part.h"

#include "worker/program_use.h"

#include <errno.h>
#include <stdlib.h>

/* Tables of rotations are not copied: the GPU gets them among the inputs of a step. */
static bool is_copied(const struct program *p, const struct program_use *use, int32_t buf)
{
    return use[buf].writer >= 0 && p->ops[use[buf].writer].code != OP_rope_table;
}

struct crossing {
    const struct program *p;
    struct gpu_parts *parts;
    const struct program_use *use;
    const int32_t *part_of;     /* by op */
    unsigned char *is_crossed;  /* by buffer */
    enum op_place reader;
    int32_t part; /* of the reader */
};

/* A value that is read at the other place: into that part if the GPU reads it, else out of the part
 * that writes it. */
static void note_crossing(void *arg, struct op_rows *r, bool is_out)
{
    struct crossing *c = arg;
    if (is_out || c->is_crossed[r->buf] || !is_copied(c->p, c->use, r->buf) ||
        (enum op_place)c->p->ops[c->use[r->buf].writer].place == c->reader) {
        return;
    }
    c->is_crossed[r->buf] = 1;
    if (c->reader == OP_ON_GPU) {
        struct gpu_part *to = &c->parts->v[c->part];
        to->in[to->n_in++] = r->buf;
    } else {
        struct gpu_part *from = &c->parts->v[c->part_of[c->use[r->buf].writer]];
        from->out[from->n_out++] = r->buf;
    }
}

static int cut(struct gpu_parts *s, const struct program *p, int32_t *part_of)
{
    s->v = calloc(p->n_ops + 1, sizeof *s->v);
    if (!s->v) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        enum op_place place = p->ops[i].place;
        if (i == 0 || p->ops[i - 1].place != place) {
            struct gpu_part *fresh = &s->v[s->n++];
            *fresh = (struct gpu_part){.first = i, .place = place};
            s->n_gpu += place == OP_ON_GPU;
        }
        s->v[s->n - 1].end = i + 1;
        part_of[i] = s->n - 1;
    }
    for (int32_t i = 0; i < s->n; i++) {
        struct gpu_part *part = &s->v[i];
        if (part->place == OP_ON_GPU) {
            part->in = malloc((p->n_bufs + 1) * sizeof *part->in);
            part->out = malloc((p->n_bufs + 1) * sizeof *part->out);
            if (!part->in || !part->out) {
                return -ENOMEM;
            }
        }
    }
    return 0;
}

/* Each part gets no more than it needs: a model may have many. */
static void trim(int32_t **list, int32_t n)
{
    int32_t *less = realloc(*list, ((size_t)n + 1) * sizeof **list);
    *list = less ? less : *list;
}

int gpu_parts_find(struct gpu_parts *ret, const struct program *p)
{
    *ret = (struct gpu_parts){0};
    struct program_use *use = program_find_uses(p);
    int32_t *part_of = malloc((p->n_ops + 1) * sizeof *part_of);
    unsigned char *is_crossed = calloc(p->n_bufs + 1, 1);
    int err = use && part_of && is_crossed ? cut(ret, p, part_of) : -ENOMEM;
    struct crossing c = {
        .p = p, .parts = ret, .use = use, .part_of = part_of, .is_crossed = is_crossed};
    for (size_t i = 0; i < p->n_ops && err == 0; i++) {
        struct op op = p->ops[i];
        c.reader = op.place;
        c.part = part_of[i];
        program_visit(&op, note_crossing, &c);
    }
    for (int32_t i = 0; i < ret->n && err == 0; i++) {
        if (ret->v[i].place == OP_ON_GPU) {
            trim(&ret->v[i].in, ret->v[i].n_in);
            trim(&ret->v[i].out, ret->v[i].n_out);
        }
    }
    free(use);
    free(part_of);
    free(is_crossed);
    if (err < 0) {
        gpu_parts_finish(ret);
    }
    return err;
}

void gpu_parts_finish(struct gpu_parts *s)
{
    for (int32_t i = 0; i < s->n; i++) {
        free(s->v[i].in);
        free(s->v[i].out);
    }
    free(s->v);
    *s = (struct gpu_parts){0};
}

size_t gpu_parts_bytes(const struct program *p, int32_t buf, int64_t n_rows, int64_t n_out)
{
    return (size_t)program_buffer_rows(p, buf, n_rows, n_out) * (size_t)p->bufs[buf].n_cols *
           sizeof(float);
}
