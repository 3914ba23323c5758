/* The tiles for AVX2. Pure compute; any thread. */
#include "kernels/cpu/tile_table.h"

const struct matmul_kernel matmul_avx2 = {tile_run, tile_act};
