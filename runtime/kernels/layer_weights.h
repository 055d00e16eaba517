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

/* A product as a phase, by tiles. */
typedef struct {
    const kernel_variant *kernels;
    const packed_weights *weights;
    const rounded_rows *rows;
    result_rows into;
} tile_product;

void multiply_one_tile(void *product, int64_t tile);
extent read_by_tiles(void *product, int64_t from, int64_t to);
phase product_phase(tile_product *product);

/* Rows' norms, rounded for a product, as a phase, by rows. */
typedef struct {
    const kernel_variant *kernels;
    const row_norm *norm;
    const packed_weights *weights; /* the product's */
    const float *hidden;           /* (rows, width) */
    float *normed;                 /* the same */
    rounded_rows rounded;
} normed_rows;

phase norm_phase(normed_rows *rows);

#endif
