/* What the files that pack panels share. */
#ifndef KERNELS_CPU_PANEL_PACK_H
#define KERNELS_CPU_PANEL_PACK_H

#include "kernels/cpu/panel.h"

/* Packs one block of sixteen rows. */
typedef void panel_pack_fn(const void *const rows[], void *to);

panel_pack_fn panel_pack_iq2_xxs, panel_pack_iq2_xs, panel_pack_iq2_s, panel_pack_iq3_xxs,
    panel_pack_iq3_s, panel_pack_iq1_s, panel_pack_iq1_m;

/* Packs the panel of n_rows rows (the rest zero) of a float type; rows row_bytes apart. */
void panel_pack_columns(enum type t, const char *from, size_t row_bytes, int n_rows, int64_t n_cols,
                        char *to);
void panel_pack_words(enum type t, const char *from, size_t row_bytes, int n_rows, int64_t n_cols,
                      char *to);

#endif
