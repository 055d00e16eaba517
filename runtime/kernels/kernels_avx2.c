#include "vectors_avx2.h"

#include "attention_loops.h"
#include "pair_products.h"
#include "product_loops.h"
#include "row_loops.h"
#include "variants.h"

const kernel_variant AVX2_KERNELS = {round_row, multiply_tile, attend_rows, normalize_row, gate_row};
