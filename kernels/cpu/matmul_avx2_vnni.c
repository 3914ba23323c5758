/* The tiles for AVX2 with AVX-VNNI (processors without AVX-512 that have its dot products). Pure
 * compute; any thread. */
#include "kernels/cpu/tile_table.h"

const struct matmul_kernel matmul_avx2_vnni = {tile_run, tile_act};
