/* Packing of the types with codebooks: indices as they are, signs turned into masks. Pure. */
#include "kernels/block.h"
#include "kernels/cpu/panel_pack.h"

#include <string.h>

/* Row r's signs of octet o (8 bits). */
static void put_signs(struct panel_signs *s, int r, int o, unsigned signs)
{
    s->quads[2 * o] |= (uint64_t)(signs & 15) << 4 * r;
    s->quads[2 * o + 1] |= (uint64_t)(signs >> 4 & 15) << 4 * r;
}

/* Seven bits: the eighth follows from them. */
static void put_signs7(struct panel_signs7 *s, int r, int o, unsigned signs)
{
    uint64_t odd = 0;
    s->even[o] |= (uint64_t)(signs & 15) << 4 * r;
    memcpy(&odd, s->odd[o], sizeof s->odd[o]);
    odd |= (uint64_t)(signs >> 4 & 7) << 3 * r;
    memcpy(s->odd[o], &odd, sizeof s->odd[o]);
}

/* Where row r of index n stands among 64. */
static int index_at(int r, int n)
{
    return r / 4 * 16 + 4 * n + r % 4;
}

static void put_scale(uint8_t to[8], int r, unsigned scale)
{
    to[r % 8] = (uint8_t)(to[r % 8] | scale << r / 8 * 4);
}

void panel_pack_iq2_xxs(const void *const rows[], void *to)
{
    struct panel_iq2_xxs *p = to;
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq2_xxs *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            uint32_t word;
            memcpy(&word, b->qs + 8 * u + 4, sizeof word);
            put_scale(p->scale[u], r, word >> 28);
            for (int o = 0; o < 4; o++) {
                p->index[u][index_at(r, o)] = b->qs[8 * u + o];
                put_signs7(&p->signs[u], r, o, word >> 7 * o);
            }
        }
    }
}

void panel_pack_iq2_xs(const void *const rows[], void *to)
{
    struct panel_iq2_xs *p = to;
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq2_xs *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            p->scale[u][r] = b->scales[u];
            for (int o = 0; o < 4; o++) {
                unsigned word = b->qs[4 * u + o];
                p->index[u][index_at(r, o)] = (uint8_t)word;
                p->index_high[u] |= (uint64_t)(word >> 8 & 1) << index_at(r, o);
                put_signs7(&p->signs[u], r, o, word >> 9);
            }
        }
    }
}

void panel_pack_iq2_s(const void *const rows[], void *to)
{
    struct panel_iq2_s *p = to;
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq2_s *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            p->scale[u][r] = b->scales[u];
            for (int o = 0; o < 4; o++) {
                unsigned high = b->qh[u] >> 2 * o;
                p->index[u][index_at(r, o)] = b->qs[4 * u + o];
                p->index_high[u][0] |= (uint64_t)(high & 1) << index_at(r, o);
                p->index_high[u][1] |= (uint64_t)(high >> 1 & 1) << index_at(r, o);
                put_signs(&p->signs[u], r, o, b->signs[4 * u + o]);
            }
        }
    }
}

void panel_pack_iq3_xxs(const void *const rows[], void *to)
{
    struct panel_iq3_xxs *p = to;
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq3_xxs *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            put_scale(p->scale[u], r, b->signs[u] >> 28);
            for (int q = 0; q < 8; q++) {
                p->index[u][q / 4][index_at(r, q % 4)] = b->qs[8 * u + q];
            }
            for (int o = 0; o < 4; o++) {
                put_signs7(&p->signs[u], r, o, b->signs[u] >> 7 * o);
            }
        }
    }
}

void panel_pack_iq3_s(const void *const rows[], void *to)
{
    struct panel_iq3_s *p = to;
    memset(p, 0, sizeof *p);
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq3_s *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            put_scale(p->scale[u], r, b->scales[u / 2] >> u % 2 * 4 & 15u);
            for (int q = 0; q < 8; q++) {
                uint64_t high = b->qh[u] >> q & 1u;
                p->index[u][q / 4][index_at(r, q % 4)] = b->qs[8 * u + q];
                p->index_high[u][q / 4] |= high << index_at(r, q % 4);
            }
            for (int o = 0; o < 4; o++) {
                put_signs(&p->signs[u], r, o, b->signs[4 * u + o]);
            }
        }
    }
}

void panel_pack_iq1_s(const void *const rows[], void *to)
{
    struct panel_iq1_s *p = to;
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq1_s *b = rows[r];
        p->d[r] = b->d;
        for (int u = 0; u < 8; u++) {
            p->high[u][r] = b->qh[u];
            for (int o = 0; o < 4; o++) {
                p->index[u][o][r] = b->qs[4 * u + o];
            }
        }
    }
}

void panel_pack_iq1_m(const void *const rows[], void *to)
{
    struct panel_iq1_m *p = to;
    for (int r = 0; r < PANEL_ROWS; r++) {
        const struct block_iq1_m *b = rows[r];
        for (int i = 0; i < 4; i++) {
            p->scale[i][r] = b->scales[i];
        }
        for (int u = 0; u < 8; u++) {
            p->high[u][0][r] = b->qh[2 * u];
            p->high[u][1][r] = b->qh[2 * u + 1];
            for (int o = 0; o < 4; o++) {
                p->index[u][o][r] = b->qs[4 * u + o];
            }
        }
    }
}
