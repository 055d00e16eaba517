#include "vectors_avx512.h"

#include "attention_loops.h"
#include "dot_products.h"
#include "product_loops.h"
#include "row_loops.h"
#include "variants.h"

const kernel_variant AVX512_KERNELS = {round_row, multiply_tile, attend_rows, normalize_row, gate_row};
