/* The tiles for AVX-512 with VNNI: 16 rows in a register, 64 multiply-adds an instruction. Pure
 * compute; any thread. */
#include "kernels/cpu/tile_table.h"

const struct matmul_kernel matmul_avx512 = {tile_run, tile_act};
