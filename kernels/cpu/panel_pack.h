/* What panel.c and panel_iq.c share. */
#ifndef KERNELS_CPU_PANEL_PACK_H
#define KERNELS_CPU_PANEL_PACK_H

#include "kernels/cpu/panel.h"

/* Packs one block of sixteen rows. */
typedef void panel_pack_fn(const void *const rows[], void *to);

panel_pack_fn panel_pack_iq2_xxs, panel_pack_iq2_xs, panel_pack_iq2_s, panel_pack_iq3_xxs,
    panel_pack_iq3_s, panel_pack_iq1_s, panel_pack_iq1_m;

#endif
