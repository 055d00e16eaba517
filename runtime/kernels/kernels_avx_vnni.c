#include "variants.h"

#ifdef COMPILES_AVX_VNNI
#define WITH_AVX_VNNI
#include "vectors_avx2.h"

#include "attention_loops.h"
#include "dot_products.h"
#include "product_loops.h"
#include "row_loops.h"

const kernel_variant AVX_VNNI_KERNELS = {round_row, multiply_tile, attend_rows, normalize_row, gate_row};
#endif
