#include "blocked_product.h"

#include <math.h>
#include <string.h>

#include "weight_memory.h"
#include "whole_numbers.h"

/* Eight 8-bit values of a column, the even ones and then the odd ones, as nibbles come apart by themselves. */
static void even_then_odd(const uint8_t *from, uint8_t *even, uint8_t *odd) {
    for (int i = 0; i < 4; i++) {
        even[i] = from[2 * i];
        odd[i] = from[2 * i + 1];
    }
}

/* A number from -1 to 1 in 16 bits (IEEE 754 binary16), to the nearest. */
static uint16_t half_of(float value) {
    const float magnitude = fabsf(value);
    const uint16_t sign = value < 0 ? 0x8000 : 0;
    uint32_t bits;
    if (magnitude < 0x1p-14f) return sign | (uint16_t)lrintf(magnitude * 0x1p24f);
    memcpy(&bits, &magnitude, sizeof bits);
    bits += 0xfff + (bits >> 13 & 1); /* ties go to the even one */
    return sign | (uint16_t)((bits >> 13) - (112 << 10));
}

static float scale_of(const blocked_weights *from, int64_t column, int64_t scale) {
    const int64_t scales = ceiling(from->depth, from->block);
    return from->scales[from->order == BY_COLUMN ? column * scales + scale : scale * from->columns + column];
}

/* The values of a block and a column, unsigned and as they follow one another; behind the last of the depth, zeros. */
static void read_column_block(const blocked_weights *from, int64_t column, int64_t block, uint8_t *values) {
    const int64_t stored = ceiling(from->depth, from->block) * from->block, first = block * BLOCK_DEPTH;
    const uint8_t zero = from->bits == 4 ? 8 : 128;
    for (int64_t i = 0; i < BLOCK_DEPTH; i++) {
        const int by_depth = from->order == BY_DEPTH;
        const int64_t at = by_depth ? (first + i) * from->columns + column : column * stored + first + i;
        if (by_depth && first + i >= from->depth)
            values[i] = zero;
        else if (from->bits == 4)
            values[i] = (from->values[at / 2] >> at % 2 * 4 & 0x0f) ^ (by_depth ? zero : 0);
        else
            values[i] = from->values[at] ^ (by_depth ? zero : 0);
    }
}

/* One block of a column, a lane of each of its vectors: nibbles in pairs, bytes as `even_then_odd`. */
static void pack_values(const blocked_weights *from, int64_t column, int64_t block, uint8_t *lane) {
    uint8_t values[BLOCK_DEPTH];
    read_column_block(from, column, block, values);
    for (int eight = 0; eight < BLOCK_DEPTH / 8; eight++) {
        if (from->bits == 4)
            for (int i = 0; i < 4; i++)
                lane[eight * TILE_LINE + i] =
                    (uint8_t)(values[eight * 8 + 2 * i] | values[eight * 8 + 2 * i + 1] << 4);
        else
            even_then_odd(values + eight * 8, lane + 2 * eight * TILE_LINE, lane + (2 * eight + 1) * TILE_LINE);
    }
}

/* The largest scale of each column, and then block by block: columns side by side may share their cache lines. */
static void pack_tile(const blocked_weights *from, int64_t first, uint8_t *tile) {
    const int64_t scales = ceiling(from->depth, from->block), blocks = ceiling(from->depth, BLOCK_DEPTH);
    const int64_t left = from->columns - first, columns = left < TILE_COLUMNS ? left : TILE_COLUMNS;
    float largest[TILE_COLUMNS] = {0};
    for (int64_t i = 0; i < scales; i++)
        for (int64_t lane = 0; lane < columns; lane++)
            largest[lane] = fmaxf(largest[lane], fabsf(scale_of(from, first + lane, i)));
    memcpy(tile, largest, sizeof largest);
    for (int64_t block = 0; block < blocks; block++) {
        uint8_t *pair = tile + TILE_LINE + block / 2 * pair_bytes(from->bits);
        uint16_t *parts = (uint16_t *)pair + block % 2 * TILE_COLUMNS;
        uint8_t *values = pair + TILE_LINE + block % 2 * block_value_bytes(from->bits);
        for (int64_t lane = 0; lane < columns; lane++) {
            const float scale = scale_of(from, first + lane, block * BLOCK_DEPTH / from->block);
            parts[lane] = half_of(largest[lane] > 0 ? scale / largest[lane] : 0);
            pack_values(from, first + lane, block, values + lane * 4);
        }
    }
}

int pack_weights(const blocked_weights *from, packed_weights *into) {
    *into = (packed_weights){.bits = from->bits, .columns = from->columns, .depth = from->depth};
    into->tiles = ceiling(from->columns, TILE_COLUMNS);
    into->blocks = 2 * ceiling(from->depth, 2 * BLOCK_DEPTH);
    into->memory = take_weight_memory((size_t)(into->tiles * tile_bytes(into)));
    if (into->memory == NULL) return 0;
    for (int64_t tile = 0; tile < into->tiles; tile++)
        pack_tile(from, tile * TILE_COLUMNS, into->memory + tile * tile_bytes(into));
    return 1;
}

void release_weights(packed_weights *weights) { release_weight_memory(weights->memory); }

size_t rounded_rows_bytes(const packed_weights *weights, int64_t rows) {
    return (size_t)(rows * weights->blocks) * sizeof(rounded_block) + TILE_LINE;
}

rounded_rows place_rounded_rows(const packed_weights *weights, int64_t rows, void *memory) {
    const uintptr_t line = ((uintptr_t)memory + TILE_LINE - 1) / TILE_LINE * TILE_LINE;
    return (rounded_rows){rows, weights->blocks, (rounded_block *)line};
}
