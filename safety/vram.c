/* The arithmetic of the card's memory (see vram.h). Pure. */
#include "safety/vram.h"

uint64_t vram_others(const struct vram_sample *s)
{
    return s->used_bytes - MIN(s->ours_bytes, s->used_bytes);
}

uint64_t vram_ceiling(const struct vram_sample *s, uint64_t reserve_bytes)
{
    uint64_t others = MIN(vram_others(s), s->total_bytes);
    uint64_t wanted = MIN(others + VRAM_MARGIN_BYTES, s->total_bytes);
    uint64_t kept = MAX(wanted, s->n_displays > 0 ? reserve_bytes : 0);
    return s->total_bytes - MIN(kept, s->total_bytes);
}

uint64_t vram_observe(struct vram_watch *w, const struct vram_sample *s, uint64_t reserve_bytes,
                      uint64_t now_ms, uint64_t calm_ms)
{
    uint64_t ceiling = vram_ceiling(s, reserve_bytes);
    bool is_first = w->ceiling_bytes == 0 && w->low_ms == 0;
    if (is_first || ceiling <= w->ceiling_bytes || now_ms - w->low_ms >= calm_ms) {
        bool rises = ceiling > w->ceiling_bytes;
        w->ceiling_bytes = ceiling;
        w->low_ms = rises && !is_first ? w->low_ms : now_ms;
    }
    return w->ceiling_bytes;
}

uint64_t vram_spill(struct vram_spill *w, const struct vram_sample *s)
{
    bool is_full = s->used_bytes >= s->total_bytes - s->total_bytes / 20;
    if (!w->is_known || !is_full || s->gtt_bytes < w->gtt_bytes) {
        w->gtt_bytes = s->gtt_bytes;
        w->is_known = true;
    }
    uint64_t grown = s->gtt_bytes - w->gtt_bytes;
    return MAX(s->spilled_bytes, grown >= VRAM_SPILL_BYTES ? grown : 0);
}

/* The idle model that was unused longest, of those not chosen yet; n_models: none. */
static size_t oldest_idle(const struct vram_holdings *h, const struct vram_plan *p)
{
    size_t best = h->n_models;
    for (size_t i = 0; i < h->n_models; i++) {
        if (h->models[i].is_idle && !p->unloads[i] &&
            (best == h->n_models || h->models[i].used_ns < h->models[best].used_ns)) {
            best = i;
        }
    }
    return best;
}

struct vram_plan vram_give_back(const struct vram_holdings *h, uint64_t excess_bytes)
{
    struct vram_plan p = {.left_bytes = excess_bytes};
    p.kv_bytes = MIN(h->kv_bytes - MIN(h->kv_least_bytes, h->kv_bytes), p.left_bytes);
    p.left_bytes -= p.kv_bytes;
    for (size_t i; p.left_bytes > 0 && (i = oldest_idle(h, &p)) < h->n_models;) {
        p.unloads[i] = true;
        p.left_bytes -= MIN(h->models[i].bytes, p.left_bytes);
    }
    return p;
}
