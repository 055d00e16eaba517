/* Products with weights in blocks of integers: rows of float32 times (columns, depth) weights of 4 or 8 bits.
 *
 * The rows are rounded to 8 bits first, with a scale for every 32 values, as ONNX Runtime's own MatMulNBits does at
 * accuracy level 4; integers are then multiplied exactly, and summed in float32 over the blocks.
 */
#ifndef SOTTOVOCE_BLOCKED_PRODUCT_H
#define SOTTOVOCE_BLOCKED_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

enum {
    MOST_WEIGHT_SIZE = 1 << 28, /* columns or depth */
    TILE_COLUMNS = 16,
    BLOCK_DEPTH = 32,
    FOURS = BLOCK_DEPTH / 4, /* bytes that a lane multiplies at once */
    TILE_LINE = 64, /* bytes: four of the depth for each column, or two blocks' scales */
};

/* How a graph holds weights; nibbles lie the low one first. */
typedef enum {
    BY_COLUMN, /* as MatMulNBits: (columns, ceil(depth / block), block), unsigned, zero in the middle of the range */
    BY_DEPTH,  /* as DequantizeLinear: (depth, columns), signed */
} weight_order;

typedef struct {
    weight_order order;
    int bits;               /* 4 or 8 */
    int64_t columns, depth; /* of the product: (rows, depth) x (depth, columns) */
    int64_t block;          /* how many along the depth share a scale: a multiple of 32 */
    const uint8_t *values;
    const float *scales; /* (columns, ceil(depth / block)), or (ceil(depth / block), columns) where they lie by depth */
} blocked_weights;

/* The same, in the order in which they are read. A tile of 16 columns begins with the largest scale of each column;
 * then come, for every 64 of the depth, 2 * 16 scales as parts of that one, in 16 bits, and the values, four bytes of a
 * column beside those of the next. Scales in 32 bits would be a fifth of all that is read; rounded, they are off by at
 * most 1/4096 of their size, where the weights are by a tenth. */
typedef struct {
    int bits;
    int64_t columns, depth;
    int64_t tiles;  /* of 16 columns; what is over is zeros */
    int64_t blocks; /* of 32 along the depth, an even number; what is over is multiplied with zeros */
    uint8_t *memory;
} packed_weights;

/* 32 values of a row in 8 bits: of every eight the even ones come first, as low and high nibbles ask. What goes with
 * them lies beside them, so that a row is one address where many are multiplied together. */
typedef struct {
    int32_t fours[FOURS]; /* four values each */
    int32_t zeros; /* what the weights' zero adds to a sum, negated */
    float scale;
} rounded_block;

typedef struct {
    int64_t rows, blocks;
    rounded_block *at; /* (rows, blocks) */
} rounded_rows;

/* Where a product goes. */
typedef struct {
    const float *added;   /* to it: a value a column, for each row or for all of them; or NULL */
    int64_t added_stride; /* from one row's to the next one's: 0 where they are the same */
    float *values;        /* (rows, columns) */
} result_rows;

/* 0 if there is no memory. */
int pack_weights(const blocked_weights *from, packed_weights *into);
void release_weights(packed_weights *weights);

/* Bytes of working memory that `rows` rows need, and its division. */
size_t rounded_rows_bytes(const packed_weights *weights, int64_t rows);
rounded_rows place_rounded_rows(const packed_weights *weights, int64_t rows, void *memory);

/* The values of a block of a tile. */
static inline int64_t block_value_bytes(int bits) { return TILE_COLUMNS * BLOCK_DEPTH * bits / 8; }

/* Two blocks of a tile, with their scales. */
static inline int64_t pair_bytes(int bits) { return TILE_LINE + 2 * block_value_bytes(bits); }

static inline int64_t tile_bytes(const packed_weights *weights) {
    return TILE_LINE + weights->blocks / 2 * pair_bytes(weights->bits);
}

static inline const uint8_t *tile_memory(const packed_weights *weights, int64_t tile) {
    return weights->memory + tile * tile_bytes(weights);
}

#endif
