#include "layer_weights.h"

#include "whole_numbers.h"

OrtStatus *read_norm(OrtApi *api, const OrtKernelInfo *info, size_t input, row_norm *into) {
    tensor weights;
    ORT_TRY(constant_input(api, info, input, &weights));
    if (!is_of(&weights, ORT_FLOAT) || weights.dimensions != 1 || weights.sizes[0] < 1 || weights.sizes[0] > MOST_WEIGHT_SIZE)
        return refuse(api, "a norm's weights here are constant, one a channel");
    into->weights = weights.data;
    into->width = weights.sizes[0];
    into->epsilon = float_attribute(api, info, "epsilon", 1e-5f);
    return NULL;
}

/* A graph is not trusted: its tensors must be as large as they say of one another. */
static OrtStatus *read_sizes(OrtApi *api, const tensor *values, const tensor *scales, blocked_weights *found) {
    if (values->dimensions != 2 || scales->dimensions < 1 || scales->dimensions > 2)
        return refuse(api, "a product's weights here have two axes, and their scales one or two");
    const int64_t blocks = scales->dimensions == 2 ? scales->sizes[0] : 1, in_a_row = values->sizes[1];
    found->columns = scales->sizes[scales->dimensions - 1];
    found->bits = in_a_row == found->columns ? 8 : 4;
    if (values->sizes[0] != found->depth || found->columns < 1 || found->columns > MOST_WEIGHT_SIZE ||
        (found->bits == 4 && in_a_row * 2 != found->columns))
        return refuse(api, "a product's weights here are nibbles or bytes, as many as the axes say");
    if (blocks < 1 || blocks > found->depth || (blocks > 1 && found->depth % (blocks * BLOCK_DEPTH) != 0))
        return refuse(api, "a product's weights here share a scale by 32, 64 … of the depth, or all of it");
    found->block = blocks > 1 ? found->depth / blocks : ceiling(found->depth, BLOCK_DEPTH) * BLOCK_DEPTH;
    return NULL;
}

OrtStatus *read_product(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t depth, packed_weights *into) {
    tensor values, scales;
    blocked_weights found = {.order = BY_DEPTH, .depth = depth};
    ORT_TRY(constant_input(api, info, input, &values));
    ORT_TRY(constant_input(api, info, input + 1, &scales));
    if (!is_of(&values, ORT_UINT8) || !is_of(&scales, ORT_FLOAT))
        return refuse(api, "a product's weights here are constant bytes, its scales constant float32");
    if (depth < 1 || depth > MOST_WEIGHT_SIZE) return refuse(api, "a product here is not so deep");
    ORT_TRY(read_sizes(api, &values, &scales, &found));
    found.values = values.data;
    found.scales = scales.data;
    return pack_weights(&found, into) ? NULL : no_memory(api);
}

OrtStatus *read_constants(OrtApi *api, const OrtKernelInfo *info, size_t input, int64_t count, const float **into) {
    tensor found;
    ORT_TRY(constant_input(api, info, input, &found));
    if (!is_of(&found, ORT_FLOAT) || element_count(&found) != count)
        return refuse(api, "constants here are float32, as many as columns");
    *into = found.data;
    return NULL;
}

void multiply_one_tile(void *product, int64_t tile) {
    const tile_product *of = product;
    of->kernels->multiply_tile(of->weights, of->rows, tile, &of->into);
}

extent read_by_tiles(void *product, int64_t from, int64_t to) {
    const packed_weights *weights = ((const tile_product *)product)->weights;
    return (extent){tile_memory(weights, from), (to - from) * tile_bytes(weights)};
}

phase product_phase(tile_product *product) {
    return (phase){product, product->weights->tiles, multiply_one_tile, read_by_tiles};
}

static void prepare_row(void *rows, int64_t row) {
    normed_rows *of = rows;
    const row_norm *norm = of->norm;
    float *normed = of->normed + row * norm->width;
    of->kernels->normalize_row(of->hidden + row * norm->width, norm->weights, norm->width, norm->epsilon, normed);
    of->kernels->round_row(of->weights, normed, row, &of->rounded);
}

static extent read_by_rows(void *rows, int64_t from, int64_t to) {
    const row_norm *norm = ((const normed_rows *)rows)->norm;
    return (void)from, (void)to, (extent){norm->weights, norm->width * (int64_t)sizeof *norm->weights};
}

phase norm_phase(normed_rows *rows) { return (phase){rows, rows->rounded.rows, prepare_row, read_by_rows}; }
