#include "blocked_product.h"

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

static void pack_block(const blocked_weights *from, int64_t column, int64_t block, int lane, uint8_t *into) {
    const int64_t stored_blocks = ceiling(from->depth, from->block);
    const uint8_t *values = from->values + (column * stored_blocks * from->block + block * BLOCK_DEPTH) * from->bits / 8;
    uint8_t *vectors = into + TILE_COLUMNS * sizeof(float) + lane * 4;
    ((float *)into)[lane] = from->scales[column * stored_blocks + block * BLOCK_DEPTH / from->block];
    for (int eight = 0; eight < BLOCK_DEPTH / 8; eight++) {
        if (from->bits == 4)
            memcpy(vectors + eight * TILE_LINE, values + eight * 4, 4);
        else
            even_then_odd(values + eight * 8, vectors + 2 * eight * TILE_LINE, vectors + (2 * eight + 1) * TILE_LINE);
    }
}

int pack_weights(const blocked_weights *from, packed_weights *into) {
    *into = (packed_weights){.bits = from->bits, .columns = from->columns, .depth = from->depth};
    into->tiles = ceiling(from->columns, TILE_COLUMNS);
    into->blocks = ceiling(from->depth, BLOCK_DEPTH);
    into->memory = take_weight_memory((size_t)(into->tiles * into->blocks * packed_block_bytes(from->bits)));
    if (into->memory == NULL) return 0;
    uint8_t *at = into->memory;
    for (int64_t tile = 0; tile < into->tiles; tile++)
        for (int64_t block = 0; block < into->blocks; block++, at += packed_block_bytes(from->bits))
            for (int lane = 0; lane < TILE_COLUMNS && tile * TILE_COLUMNS + lane < from->columns; lane++)
                pack_block(from, tile * TILE_COLUMNS + lane, block, lane, at);
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
