#include "blocked_product.h"

#include <math.h>
#include <string.h>

#include "weight_memory.h"

static int64_t ceiling(int64_t of, int64_t by) { return (of + by - 1) / by; }

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

/* Of a column that the graph holds so, one block's values, a lane of each of its vectors. */
static void pack_values(const blocked_weights *from, int64_t column, int64_t block, uint8_t *lane) {
    const int64_t stored = ceiling(from->depth, from->block) * from->block;
    const uint8_t *values = from->values + (column * stored + block * BLOCK_DEPTH) * from->bits / 8;
    for (int eight = 0; eight < BLOCK_DEPTH / 8; eight++) {
        if (from->bits == 4)
            memcpy(lane + eight * TILE_LINE, values + eight * 4, 4);
        else
            even_then_odd(values + eight * 8, lane + 2 * eight * TILE_LINE, lane + (2 * eight + 1) * TILE_LINE);
    }
}

static void pack_column(const blocked_weights *from, int64_t column, int lane, uint8_t *tile) {
    const int64_t scale_count = ceiling(from->depth, from->block), blocks = ceiling(from->depth, BLOCK_DEPTH);
    const float *scales = from->scales + column * scale_count;
    float largest = 0;
    for (int64_t i = 0; i < scale_count; i++) largest = fmaxf(largest, fabsf(scales[i]));
    ((float *)tile)[lane] = largest;
    for (int64_t block = 0; block < blocks; block++) {
        uint8_t *pair = tile + TILE_LINE + block / 2 * pair_bytes(from->bits);
        const float scale = scales[block * BLOCK_DEPTH / from->block];
        ((uint16_t *)pair)[block % 2 * TILE_COLUMNS + lane] = half_of(largest > 0 ? scale / largest : 0);
        pack_values(from, column, block, pair + TILE_LINE + block % 2 * block_value_bytes(from->bits) + lane * 4);
    }
}

int pack_weights(const blocked_weights *from, packed_weights *into) {
    *into = (packed_weights){.bits = from->bits, .columns = from->columns, .depth = from->depth};
    into->tiles = ceiling(from->columns, TILE_COLUMNS);
    into->blocks = 2 * ceiling(from->depth, 2 * BLOCK_DEPTH);
    into->memory = take_weight_memory((size_t)(into->tiles * tile_bytes(into)));
    if (into->memory == NULL) return 0;
    for (int64_t column = 0; column < from->columns; column++)
        pack_column(from, column, (int)(column % TILE_COLUMNS),
                    into->memory + column / TILE_COLUMNS * tile_bytes(into));
    return 1;
}

void release_weights(packed_weights *weights) { release_weight_memory(weights->memory); }

size_t rounded_rows_bytes(const packed_weights *weights, int64_t rows) {
    return (size_t)(rows * weights->blocks) * (BLOCK_DEPTH + sizeof(int32_t) + sizeof(float)) + TILE_LINE;
}

rounded_rows place_rounded_rows(const packed_weights *weights, int64_t rows, void *memory) {
    rounded_rows placed = {.rows = rows, .blocks = weights->blocks};
    placed.values = (int8_t *)(((uintptr_t)memory + TILE_LINE - 1) / TILE_LINE * TILE_LINE);
    placed.zeros = (int32_t *)(placed.values + rows * placed.blocks * BLOCK_DEPTH);
    placed.scales = (float *)(placed.zeros + rows * placed.blocks);
    return placed;
}
