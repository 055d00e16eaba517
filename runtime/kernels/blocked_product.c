#include "blocked_product.h"

#include <immintrin.h>
#include <string.h>

#include "weight_memory.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))

enum {
    COLUMNS = 16,    /* of a tile: float32 lanes of a register */
    DEPTH = 32,      /* of a block */
    REGISTER = 64,   /* bytes */
    MOST_ROWS = 8,   /* computed together: their sums stay in registers */
    READ_AHEAD = 4096, /* bytes: with one row, memory is what takes the time */
};

static int64_t ceiling(int64_t of, int64_t by) { return (of + by - 1) / by; }

static int64_t block_bytes(int bits) { return COLUMNS * (int64_t)sizeof(float) + COLUMNS * DEPTH * bits / 8; }

int products_run_here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* Eight 8-bit values of a column, the even ones and then the odd ones, as nibbles come apart by themselves. */
static void even_then_odd(const uint8_t *from, uint8_t *even, uint8_t *odd) {
    for (int i = 0; i < 4; i++) {
        even[i] = from[2 * i];
        odd[i] = from[2 * i + 1];
    }
}

static void pack_block(const blocked_weights *from, int64_t column, int64_t block, int lane, uint8_t *into) {
    const int64_t stored_blocks = ceiling(from->depth, from->block);
    const uint8_t *values = from->values + (column * stored_blocks * from->block + block * DEPTH) * from->bits / 8;
    uint8_t *vectors = into + COLUMNS * sizeof(float) + lane * 4;
    ((float *)into)[lane] = from->scales[column * stored_blocks + block * DEPTH / from->block];
    for (int eight = 0; eight < DEPTH / 8; eight++) {
        if (from->bits == 4)
            memcpy(vectors + eight * REGISTER, values + eight * 4, 4);
        else
            even_then_odd(values + eight * 8, vectors + 2 * eight * REGISTER, vectors + (2 * eight + 1) * REGISTER);
    }
}

int pack_weights(const blocked_weights *from, packed_weights *into) {
    *into = (packed_weights){.bits = from->bits, .columns = from->columns, .depth = from->depth};
    into->tiles = ceiling(from->columns, COLUMNS);
    into->blocks = ceiling(from->depth, DEPTH);
    into->memory = take_weight_memory((size_t)(into->tiles * into->blocks * block_bytes(from->bits)));
    if (into->memory == NULL) return 0;
    uint8_t *at = into->memory;
    for (int64_t tile = 0; tile < into->tiles; tile++)
        for (int64_t block = 0; block < into->blocks; block++, at += block_bytes(from->bits))
            for (int lane = 0; lane < COLUMNS && tile * COLUMNS + lane < from->columns; lane++)
                pack_block(from, tile * COLUMNS + lane, block, lane, at);
    return 1;
}

void release_weights(packed_weights *weights) { release_weight_memory(weights->memory); }

size_t rounded_rows_bytes(const packed_weights *weights, int64_t rows) {
    return (size_t)(rows * weights->blocks) * (DEPTH + sizeof(int32_t) + sizeof(float)) + REGISTER;
}

rounded_rows place_rounded_rows(const packed_weights *weights, int64_t rows, void *memory) {
    rounded_rows placed = {.rows = rows, .blocks = weights->blocks};
    placed.values = (int8_t *)(((uintptr_t)memory + REGISTER - 1) / REGISTER * REGISTER);
    placed.zeros = (int32_t *)(placed.values + rows * placed.blocks * DEPTH);
    placed.scales = (float *)(placed.zeros + rows * placed.blocks);
    return placed;
}

INLINE AVX512 __mmask16 first_lanes(int64_t count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

AVX512 void round_row(const packed_weights *weights, const float *values, int64_t row, rounded_rows *into) {
    const __m256i apart = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7,
                                           8, 10, 12, 14, 9, 11, 13, 15);
    const int32_t zero = 1 << (weights->bits - 1);
    for (int64_t block = 0; block < into->blocks; block++) {
        const int64_t left = weights->depth - block * DEPTH, slot = row * into->blocks + block;
        const __m512 front = _mm512_maskz_loadu_ps(first_lanes(left), values + block * DEPTH);
        const __m512 back = _mm512_maskz_loadu_ps(first_lanes(left - 16), values + block * DEPTH + 16);
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(front), _mm512_abs_ps(back)));
        const __m512 steps = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(front, steps));
        const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(back, steps));
        const __m256i rounded = _mm256_set_m128i(_mm512_cvtsepi32_epi8(second), _mm512_cvtsepi32_epi8(first));
        _mm256_storeu_si256((__m256i *)(into->values + slot * DEPTH), _mm256_shuffle_epi8(rounded, apart));
        into->zeros[slot] = -zero * _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
        into->scales[slot] = largest / 127.0f;
    }
}

/* One block of a tile: 8 registers of unsigned bytes, each four of the depth for 16 columns. */
INLINE AVX512 void read_block(const uint8_t *at, int bits, __m512i *bytes) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
#pragma GCC unroll 4
    for (int eight = 0; eight < DEPTH / 8; eight++) {
        if (bits == 4) {
            const __m512i both = _mm512_load_si512(at + COLUMNS * sizeof(float) + eight * REGISTER);
            bytes[2 * eight] = _mm512_and_si512(both, nibble);
            bytes[2 * eight + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        } else {
            bytes[2 * eight] = _mm512_load_si512(at + COLUMNS * sizeof(float) + 2 * eight * REGISTER);
            bytes[2 * eight + 1] = _mm512_load_si512(at + COLUMNS * sizeof(float) + (2 * eight + 1) * REGISTER);
        }
    }
}

/* `count` and `bits` are constants wherever this is called, so that its loops become registers. */
INLINE AVX512 void multiply_rows(const packed_weights *weights, const rounded_rows *rows, const float *bias,
                                 int64_t tile, int64_t first, int count, int bits, float *result) {
    const uint8_t *at = weights->memory + tile * weights->blocks * block_bytes(bits);
    __m512 sums[MOST_ROWS];
#pragma GCC unroll 8
    for (int row = 0; row < count; row++) sums[row] = _mm512_setzero_ps();
    for (int64_t block = 0; block < weights->blocks; block++, at += block_bytes(bits)) {
        __m512i bytes[DEPTH / 4];
        read_block(at, bits, bytes);
        const __m512 scales = _mm512_load_ps(at);
        if (count == 1) {
#pragma GCC unroll 9
            for (int line = 0; line < block_bytes(bits); line += REGISTER)
                _mm_prefetch((const char *)at + READ_AHEAD + line, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (int row = 0; row < count; row++) {
            const int64_t slot = (first + row) * rows->blocks + block;
            const int32_t *fours = (const int32_t *)(rows->values + slot * DEPTH);
            /* Two sums: each waits only for every other product. */
            __m512i even = _mm512_set1_epi32(rows->zeros[slot]), odd = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int four = 0; four < DEPTH / 4; four += 2) {
                even = _mm512_dpbusd_epi32(even, bytes[four], _mm512_set1_epi32(fours[four]));
                odd = _mm512_dpbusd_epi32(odd, bytes[four + 1], _mm512_set1_epi32(fours[four + 1]));
            }
            const __m512 steps = _mm512_mul_ps(scales, _mm512_set1_ps(rows->scales[slot]));
            sums[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), steps, sums[row]);
        }
    }
    const int64_t column = tile * COLUMNS;
    const __mmask16 there = first_lanes(weights->columns - column);
    const __m512 added = bias != NULL ? _mm512_maskz_loadu_ps(there, bias + column) : _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int row = 0; row < count; row++)
        _mm512_mask_storeu_ps(result + (first + row) * weights->columns + column, there,
                              _mm512_add_ps(sums[row], added));
}

#define MULTIPLY_BY(count, bits)                       \
    for (; row + (count) <= rows->rows; row += (count)) \
    multiply_rows(weights, rows, bias, tile, row, count, bits, result)

AVX512 void multiply_tile(const packed_weights *weights, const rounded_rows *rows, const float *bias, int64_t tile,
                          float *result) {
    int64_t row = 0;
    if (weights->bits == 4) {
        MULTIPLY_BY(MOST_ROWS, 4);
        MULTIPLY_BY(2, 4);
        MULTIPLY_BY(1, 4);
    } else {
        MULTIPLY_BY(MOST_ROWS, 8);
        MULTIPLY_BY(2, 8);
        MULTIPLY_BY(1, 8);
    }
}
