/* What the halves of a decoder layer have in common: a norm, products with constant weights, and the residual stream. */
#ifndef SOTTOVOCE_LAYER_WEIGHTS_H
#define SOTTOVOCE_LAYER_WEIGHTS_H

#include "blocked_product.h"
#include "kernel_inputs.h"
#include "team.h"
#include "variants.h"

/* RMSNorm's: a weight for each of `width` channels. */
typedef struct {
    const float *weights;
    int64_t width;
    float epsilon;
} row_norm;

/* Rows of `width` channels: what comes into a half, and what goes out; they may be the same memory. */
typedef struct {
    const float *hidden;
    float *result;
} residual_rows;

OrtStatus *read_norm(OrtApi *api, const OrtKernelInfo *info, size_t input, row_norm *into);

/* Input `input`: (depth, columns) in bytes or nibbles, as DequantizeLinear has them; the one behind it: a scale for each
 * column, (columns), or one for every so many of the depth, (blocks, columns). They are packed, and to be released. */
OrtStatus *read_product(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t depth, packed_weights *into);

/* An input's `count` constants. */
OrtStatus *read_constants(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t count, const float **into);

/* What tiles `from` to `to` of a product read. */
static inline extent tile_extent(const packed_weights *weights, int64_t from, int64_t to) {
    return (extent){tile_memory(weights, from), (to - from) * tile_bytes(weights)};
}

static inline extent norm_extent(const row_norm *norm) {
    return (extent){norm->weights, norm->width * (int64_t)sizeof *norm->weights};
}

/* A row's norm, into its place in `normed`, and rounded for a product. */
static inline void prepare_product(const kernel_variant *kernels, const row_norm *norm, const packed_weights *weights,
                                   const residual_rows *rows, int64_t row, float *normed, rounded_rows *into) {
    const int64_t at = row * norm->width;
    kernels->normalize_row(rows->hidden + at, norm->weights, norm->width, norm->epsilon, normed + at);
    kernels->round_row(weights, normed + at, row, into);
}

#endif
