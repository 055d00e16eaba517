/* The loops of products with weights in blocks, in the vectors and with the `multiply_block` of whoever includes this. */
#include "blocked_product.h"

enum {
    PARTS = TILE_COLUMNS / LANES,
    WEIGHT_READ_AHEAD = 4096, /* bytes: with one row, memory is what takes the time */
};

static void round_row(const packed_weights *weights, const float *values, int64_t row, rounded_rows *into) {
    const __m256i apart = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7,
                                           8, 10, 12, 14, 9, 11, 13, 15);
    const int32_t zero = weights->bits == 4 ? 8 : ZERO_OF_BYTES;
    for (int64_t block = 0; block < into->blocks; block++) {
        const int64_t left = weights->depth - block * BLOCK_DEPTH;
        rounded_block *found_block = into->at + row * into->blocks + block;
        floats found[BLOCK_DEPTH / LANES], largest = all(0.0f);
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK_DEPTH / LANES; i++) {
            found[i] = load_some(first_lanes(left - i * LANES), values + block * BLOCK_DEPTH + i * LANES);
            largest = larger(largest, magnitude(found[i]));
        }
        const float most = largest_lane(largest);
        const floats steps = all(most > 0 ? 127.0f / most : 0.0f);
        int8_t bytes[BLOCK_DEPTH];
        int32_t total = 0;
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK_DEPTH / LANES; i++)
            total += store_as_bytes(bytes + i * LANES, product(found[i], steps));
        _mm256_storeu_si256((__m256i *)found_block->fours,
                            _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)bytes), apart));
        found_block->zeros = -zero * total;
        found_block->scale = most / 127.0f;
    }
}

/* One block of a tile, some of its columns: each vector has four bytes of the depth a column. */
INLINE void read_block(const uint8_t *at, int bits, integers *bytes) {
#pragma GCC unroll 4
    for (int two = 0; two < FOURS; two += 2) {
        if (bits == 4) {
            const integers both = load_bytes(at + two / 2 * TILE_LINE);
            bytes[two] = low_nibbles(both);
            bytes[two + 1] = high_nibbles(both);
        } else {
            bytes[two] = load_bytes(at + two * TILE_LINE);
            bytes[two + 1] = load_bytes(at + (two + 1) * TILE_LINE);
        }
    }
}

INLINE void read_weights_ahead(const uint8_t *pair, int bits) {
#pragma GCC unroll 17
    for (int line = 0; line < pair_bytes(bits); line += TILE_LINE)
        _mm_prefetch((const char *)pair + WEIGHT_READ_AHEAD + line, _MM_HINT_T0);
}

/* A block of a tile times that of `count` rows, added to `sums` (count, PARTS). */
INLINE void add_block(const rounded_rows *rows, const uint8_t *pair, int64_t block, int64_t first, int count, int bits,
                      floats *sums) {
    const uint16_t *scales_at = (const uint16_t *)pair + block % 2 * TILE_COLUMNS;
    const uint8_t *values = pair + TILE_LINE + block % 2 * block_value_bytes(bits);
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
        integers bytes[FOURS];
        read_block(values + part * LANES * 4, bits, bytes);
        const floats scales = load_halves(scales_at + part * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < count; row++) {
            const rounded_block *with = rows->at + (first + row) * rows->blocks + block;
            const integers found = multiply_block(bytes, with, bits);
            floats *sum_at = sums + row * PARTS + part;
            *sum_at = product_and(as_floats(found), product(scales, all(with->scale)), *sum_at);
        }
    }
}

/* `count` and `bits` are constants wherever this is called, so that its loops become registers. */
INLINE void multiply_rows(const packed_weights *weights, const rounded_rows *rows, int64_t tile, int64_t first,
                          int count, int bits, const result_rows *result) {
    const uint8_t *start = tile_memory(weights, tile), *pair = start + TILE_LINE;
    floats sums[ROWS_TOGETHER * PARTS];
#pragma GCC unroll 8
    for (int i = 0; i < count * PARTS; i++) sums[i] = all(0.0f);
    for (int64_t block = 0; block < weights->blocks; block += 2, pair += pair_bytes(bits)) {
        if (count == 1) read_weights_ahead(pair, bits);
        add_block(rows, pair, block, first, count, bits, sums);
        add_block(rows, pair, block + 1, first, count, bits, sums);
    }
#pragma GCC unroll 8
    for (int i = 0; i < count * PARTS; i++) {
        const int64_t part = i % PARTS * LANES, column = tile * TILE_COLUMNS + part, row = first + i / PARTS;
        const mask there = first_lanes(weights->columns - column);
        const float *added = result->added != NULL ? result->added + row * result->added_stride + column : NULL;
        store_some(result->values + row * weights->columns + column, there,
                   product_and(sums[i], load((const float *)start + part),
                               added != NULL ? load_some(there, added) : all(0.0f)));
    }
}

#define MULTIPLY_BY(count, bits)                        \
    for (; row + (count) <= rows->rows; row += (count)) \
    multiply_rows(weights, rows, tile, row, count, bits, result)

static void multiply_tile(const packed_weights *weights, const rounded_rows *rows, int64_t tile,
                          const result_rows *result) {
    int64_t row = 0;
    if (weights->bits == 4) {
        MULTIPLY_BY(ROWS_TOGETHER, 4);
        MULTIPLY_BY(2, 4);
        MULTIPLY_BY(1, 4);
    } else {
        MULTIPLY_BY(ROWS_TOGETHER, 8);
        MULTIPLY_BY(2, 8);
        MULTIPLY_BY(1, 8);
    }
}
