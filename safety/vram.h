/* How much of the card's memory is ours. What others use is measured (probe_vram.c), never assumed:
 *
 *   ceiling = total - max(reserve, what others use + VRAM_MARGIN_BYTES)
 *
 * where the reserve counts only while a display hangs on the card. When the desktop grows the
 * ceiling falls at once; it rises only after calm_ms (VRAM_CALM_MS) without having been lower, so
 * that memory is not given and taken back by turns. What is above the ceiling is given back in the
 * order of the ladder (vram_give_back). Pure; time comes with the sample. */
#ifndef SAFETY_VRAM_H
#define SAFETY_VRAM_H

#include "shared/base.h"

#define VRAM_MARGIN_BYTES ((uint64_t)256 << 20)
#define VRAM_SPILL_BYTES ((uint64_t)16 << 20) /* less is some buffer of the runtime's */

enum { VRAM_CALM_MS = 30 * 1000 };

struct vram_sample {
    uint64_t total_bytes, used_bytes; /* of the card, by everybody */
    uint64_t ours_bytes;              /* of used_bytes, the worker's */
    uint64_t gtt_bytes;               /* host memory that the worker uses through the card */
    uint64_t spilled_bytes; /* the driver moved so much of the worker's out of VRAM; it is slow */
    unsigned n_displays;    /* connected */
    int busy_percent;       /* of the last moment; -1: not known */
};

uint64_t vram_others(const struct vram_sample *s);
uint64_t vram_ceiling(const struct vram_sample *s, uint64_t reserve_bytes);

struct vram_watch {
    uint64_t ceiling_bytes; /* the present one; 0 before the first sample */
    uint64_t low_ms;        /* when it was last so low that it could not rise */
};

/* Takes a sample; returns the ceiling that holds now. */
uint64_t vram_observe(struct vram_watch *w, const struct vram_sample *s, uint64_t reserve_bytes,
                      uint64_t now_ms, uint64_t calm_ms);

/* What of the worker's memory the driver has moved out of the card: as it says itself
 * (spilled_bytes), or, where it does not (older ones), what its host memory has grown by since the
 * card became full. */
struct vram_spill {
    uint64_t gtt_bytes; /* that it used while the card had room */
    bool is_known;
};
uint64_t vram_spill(struct vram_spill *w, const struct vram_sample *s);

/* ---- giving back ---- */

enum { VRAM_MAX_MODELS = 16 };

/* What could be given back. */
struct vram_holdings {
    uint64_t kv_bytes, kv_least_bytes; /* of the KV pools; what running sequences hold of them */
    size_t n_models;
    struct {
        uint64_t bytes, used_ns; /* when it was last used */
        bool is_idle;
    } models[VRAM_MAX_MODELS];
};

struct vram_plan {
    uint64_t kv_bytes;             /* to give back of the KV pools */
    bool unloads[VRAM_MAX_MODELS]; /* idle models, longest unused first */
    uint64_t left_bytes; /* that cannot be had so: another worker has to place its models anew */
};

/* The cheapest way to give back excess_bytes: first blocks of the KV pools that nobody runs on,
 * then idle models. */
struct vram_plan vram_give_back(const struct vram_holdings *h, uint64_t excess_bytes);

#endif
