/* Placement: which layers of a model the GPU computes and which the CPU. A pass over the program,
 * before anything is allocated.
 *
 * Units are the layers, what stands before them (embedding) and behind them (output). The first
 * ones go to the CPU, as many as it takes: a step so crosses from one to the other once. Of
 * mixture-of-experts models the experts alone may go, which are most of the bytes and of which a
 * token reads few; rows then cross twice in such a layer. What has no kernel goes where it can be
 * computed. As many layers go to the GPU as fit; which way, and whether the CPU alone would not be
 * faster, a model of cost says: bytes that a step reads over the memory's rate or operations over
 * the processor's, whichever takes longer, and the crossings. */
#ifndef WORKER_PLACE_H
#define WORKER_PLACE_H

#include "worker/program.h"
#include "worker/rates.h"

enum place_why {
    PLACE_FITS,      /* on the GPU */
    PLACE_NO_ROOM,   /* on the CPU: there is no VRAM for it, or for the KV cache of it */
    PLACE_NO_KERNEL, /* on the CPU: the GPU cannot */
    PLACE_LIMIT,     /* on the CPU: --gpu-layers */
    PLACE_CHEAP,     /* on the CPU: of the embedding a token reads one row */
    PLACE_SLOWER,    /* on the CPU: it would be no faster on the GPU */
};

struct place_part { /* the experts of a unit, or the rest of it */
    enum op_place place;
    uint64_t vram_bytes;   /* of its parameters, packed for the GPU */
    uint64_t file_bytes;   /* the same, for the CPU */
    double token_bytes;    /* of them that one token reads */
    double token_ops;      /* for one token */
    bool is_there;
};

struct place_unit {
    int32_t layer; /* -1: before the layers; the number of layers: behind them */
    struct place_part rest, experts;
    uint64_t kv_block_bytes;
    bool has_kernels;
    int32_t kv_from; /* the unit whose KV cache it reads; -1: its own, or none */
    enum place_why why; /* of the rest; experts may be on the CPU for PLACE_NO_ROOM only */
};

struct place {
    struct place_unit *v; /* owned */
    int32_t n;            /* layers + 2 */
    int64_t n_embd;       /* floats that cross for a row */
    char no_kernel[120];  /* what the first op without a kernel is; or "" */
    /* of the choice */
    uint64_t vram_bytes; /* of parameters there */
    uint64_t vram_kv_block_bytes, ram_kv_block_bytes;
    int32_t n_gpu_layers, n_cpu_experts; /* layers there; of those, with experts here */
    double decode_s, prefill_s; /* of a token; of PLACE_PROMPT tokens */
    double cpu_decode_s, cpu_prefill_s; /* with all on the CPU */
    struct rates rates; /* that it went by; zeros: everything fitted */
    bool is_slower; /* the best with a GPU than the CPU alone */
};

enum { PLACE_PROMPT = 512 };

struct place_limits {
    uint64_t vram_bytes;  /* for parameters and KV cache */
    int64_t n_blocks;     /* of KV cache that must fit */
    int64_t
        max_layers; /* on the GPU, the output counted as one; below 0: as many as make it faster */
    bool is_required;     /* the GPU is used, slower or not */
    struct rates rates;
};

/* The units of a program as it was built, before any pass. -ENOMEM. */
MUST_CHECK int place_read(struct place *ret, const struct program *p);
void place_finish(struct place *s);
/* Everything on the GPU; false: something has no kernel there. */
bool place_all(struct place *s);
/* Of one that is wholly on the GPU, how fast it should be. */
void place_estimate(struct place *s, const struct rates *r);
/* The best that the limits allow; false: all goes to the CPU, as no layer fits, or it is faster
 * (is_slower). */
bool place_choose(struct place *s, const struct place_limits *l);
/* Marks the ops and matrices of a program built as the one that was read. -ENOMEM. */
MUST_CHECK int place_apply(const struct place *s, struct program *p);
bool place_is_whole(const struct place *s); /* on the GPU */
int64_t place_gpu_layers(const struct place *s); /* as --gpu-layers counts them */

/* "layers 12-31 and output on the GPU, the rest on the CPU". */
void place_words(const struct place *s, char *ret, size_t n);
const char *place_why(enum place_why why);
/* Units from `at` on that were placed alike: their number. */
int32_t place_run(const struct place *s, int32_t at);

#endif
