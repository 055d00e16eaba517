/* What the operators of a decoder layer's halves have in common: a norm's weights, and products with constant ones. */
#ifndef SOTTOVOCE_BLOCK_WEIGHTS_H
#define SOTTOVOCE_BLOCK_WEIGHTS_H

#include "blocked_product.h"
#include "kernel_inputs.h"

/* RMSNorm's: a weight for each of `width` channels. */
typedef struct {
    const float *weights;
    int64_t width;
    float epsilon;
} row_norm;

OrtStatus *read_norm(OrtApi *api, const OrtKernelInfo *info, size_t input, row_norm *into);

/* Input `input`: (depth, columns) in bytes or nibbles, as DequantizeLinear has them; the one behind it: a scale for each
 * column, (columns), or one for every so many of the depth, (blocks, columns). They are packed, and to be released. */
OrtStatus *read_product(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t depth, packed_weights *into);

/* Of an optional input `count` constants; NULL where it is not there. */
OrtStatus *read_constants(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t count, const float **into);

#endif
