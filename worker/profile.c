/* Sampled times of ops (see profile.h). Memory is taken at load; measuring takes two reads of the
 * clock an op. */
#include "worker/profile.h"
#include "shared/buf.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "worker/program_use.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t matrix_bytes(const struct op *op)
{
    if (op->code != OP_matmul) {
        return 0;
    }
    const struct matmul_weight *w = op->u.matmul.w;
    return (uint64_t)w->n_rows * w->row_bytes;
}

/* The tensor behind a matrix; NULL: none. */
static const char *tensor_of(const struct program *p, const struct matmul_weight *w)
{
    for (size_t i = 0; i < p->n_weights; i++) {
        if (p->weights[i].w == w) {
            return p->weights[i].name;
        }
    }
    return NULL;
}

/* A product is called after its matrix ("ffn_down" of "blk.7.ffn_down.weight"), another op after
 * what it writes; kv_write writes no buffer. */
static void name_op(const struct program *p, const struct op *op, char *ret, size_t n)
{
    const char *what = ops_name(op->code), *of = NULL;
    int out = program_output(op), number = 0, skip = 0;
    if (op->code == OP_matmul || op->code == OP_experts) {
        of = tensor_of(p, op->code == OP_matmul ? op->u.matmul.w : op->u.experts.w);
    }
    if (of && sscanf(of, "blk.%d.%n", &number, &skip) == 1) {
        of += skip;
    }
    of = of ? of : out >= 0 && strcmp(p->bufs[out].name, what) != 0 ? p->bufs[out].name : "";
    snprintf(ret, n, "%s%s%.*s", what, *of ? " " : "", (int)strcspn(of, "."), of);
    if (op->n_joined > 0) {
        size_t len = strlen(ret);
        snprintf(ret + len, n - len, " +%d", op->n_joined);
    }
}

int profile_init(struct profile *f, const struct program *p)
{
    *f = (struct profile){.rows = calloc(p->n_ops, sizeof(*f->rows)),
                          .row_of = calloc(p->n_ops, sizeof(*f->row_of))};
    if (!f->rows || !f->row_of || p->n_ops > UINT16_MAX) {
        profile_finish(f);
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        struct profile_row row = {0};
        size_t k = 0;
        name_op(p, &p->ops[i], row.name, sizeof(row.name));
        while (k < f->n_rows && strcmp(f->rows[k].name, row.name) != 0) {
            k++;
        }
        if (k == f->n_rows) {
            f->rows[f->n_rows++] = row;
        }
        f->row_of[i] = (uint16_t)k;
    }
    return 0;
}

void profile_finish(struct profile *f)
{
    free(f->rows);
    free(f->row_of);
    *f = (struct profile){0};
}

void profile_clear(struct profile *f)
{
    f->n_steps = f->n_tokens = f->ns = 0;
    for (size_t i = 0; i < f->n_rows; i++) {
        f->rows[i].n = f->rows[i].ns = f->rows[i].bytes = 0;
    }
}

void profile_run(struct profile *f, const struct program *p, const struct op_step *s, int64_t n_out)
{
    uint64_t start = clock_ns(), last = start;
    for (size_t i = 0; i < p->n_ops; i += 1u + p->ops[i].n_joined) {
        if (!program_run_op(p, i, s, n_out)) {
            continue;
        }
        struct profile_row *r = &f->rows[f->row_of[i]];
        uint64_t now = clock_ns();
        r->n++;
        r->ns += now - last;
        for (size_t k = 0; k <= p->ops[i].n_joined; k++) {
            r->bytes += matrix_bytes(&p->ops[i + k]);
        }
        last = now;
    }
    f->n_steps++;
    f->n_tokens += (uint64_t)s->n_rows;
    f->ns += last - start;
}

static double share(const struct profile *f, const struct profile_row *r)
{
    return f->ns ? (double)r->ns / (double)f->ns : 0;
}

static double ms_per_step(const struct profile *f, const struct profile_row *r)
{
    return f->n_steps ? (double)r->ns * 1e-6 / (double)f->n_steps : 0;
}

void profile_put_json(const struct profile *f, struct buf *b)
{
    buf_printf(b, "{\"steps\":%llu,\"tokens\":%llu,\"ops\":[", (unsigned long long)f->n_steps,
               (unsigned long long)f->n_tokens);
    for (size_t i = 0; i < f->n_rows; i++) {
        const struct profile_row *r = &f->rows[i];
        buf_str(b, i ? ",{\"op\":" : "{\"op\":");
        json_put_string(b, r->name, strlen(r->name));
        buf_printf(b, ",\"runs\":%llu,\"ms_per_step\":%.4f,\"share\":%.4f",
                   (unsigned long long)r->n, ms_per_step(f, r), share(f, r));
        if (r->bytes && r->ns) {
            buf_printf(b, ",\"gb_per_s\":%.2f", (double)r->bytes / (double)r->ns);
        }
        buf_char(b, '}');
    }
    buf_str(b, "]}");
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = ((const struct profile_row *)a)->ns, y = ((const struct profile_row *)b)->ns;
    return (x < y) - (x > y);
}

void profile_put_table(const struct profile *f, struct buf *b)
{
    struct profile_row *rows = calloc(f->n_rows, sizeof(*rows));
    if (!rows || f->n_steps == 0) {
        free(rows);
        return;
    }
    memcpy(rows, f->rows, f->n_rows * sizeof(*rows));
    qsort(rows, f->n_rows, sizeof(*rows), by_time);
    buf_printf(b, "  %-40s %8s %10s %7s %s\n", "op", "runs/step", "ms/step", "share", "weights");
    for (size_t i = 0; i < f->n_rows && rows[i].n > 0; i++) {
        const struct profile_row *r = &rows[i];
        buf_printf(b, "  %-40s %8.1f %10.3f %5.1f %%", r->name,
                   (double)r->n / (double)f->n_steps, ms_per_step(f, r), share(f, r) * 100);
        if (r->bytes && r->ns) {
            buf_printf(b, " %6.1f GB/s", (double)r->bytes / (double)r->ns);
        }
        buf_char(b, '\n');
    }
    free(rows);
}
