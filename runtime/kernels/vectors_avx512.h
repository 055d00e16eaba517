/* Sixteen lanes, for processors with AVX-512 and VNNI. */
#ifndef SOTTOVOCE_VECTORS_H
#define SOTTOVOCE_VECTORS_H

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, ROWS_TOGETHER = 8, SUMS_TOGETHER = 16 };

typedef __m512 floats;
typedef __m512i integers; /* of 8 or of 32 bits */
typedef __mmask16 mask;

INLINE floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE floats load_some(mask lanes, const float *from) { return _mm512_maskz_loadu_ps(lanes, from); }
INLINE floats load_halves(const uint16_t *from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }
INLINE void store(float *into, floats of) { _mm512_storeu_ps(into, of); }
INLINE void store_some(float *into, mask lanes, floats of) { _mm512_mask_storeu_ps(into, lanes, of); }
INLINE floats all(float of) { return _mm512_set1_ps(of); }
INLINE floats sum(floats a, floats b) { return _mm512_add_ps(a, b); }
INLINE floats difference(floats a, floats b) { return _mm512_sub_ps(a, b); }
INLINE floats product(floats a, floats b) { return _mm512_mul_ps(a, b); }
INLINE floats quotient(floats a, floats b) { return _mm512_div_ps(a, b); }
INLINE floats product_and(floats a, floats b, floats added) { return _mm512_fmadd_ps(a, b, added); }
INLINE floats larger(floats a, floats b) { return _mm512_max_ps(a, b); }
INLINE floats magnitude(floats of) { return _mm512_abs_ps(of); }
INLINE float largest_lane(floats of) { return _mm512_reduce_max_ps(of); }
INLINE float sum_of_lanes(floats of) { return _mm512_reduce_add_ps(of); }
INLINE floats nearest_whole(floats of) {
    return _mm512_roundscale_ps(of, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* `of` times two to the power of a whole number, down to nothing. */
INLINE floats times_power(floats of, floats power) { return _mm512_scalef_ps(of, power); }

INLINE mask first_lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (mask)((1u << count) - 1);
}
INLINE mask lanes_that_differ(floats a, floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
INLINE floats choose(mask lanes, floats there, floats elsewhere) { return _mm512_mask_mov_ps(elsewhere, lanes, there); }

/* The sums over the lanes of sixteen vectors, one in each lane. */
INLINE floats sums_of_lanes(const floats *of) {
    floats pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        pairs[i] = sum(_mm512_unpacklo_ps(of[2 * i], of[2 * i + 1]), _mm512_unpackhi_ps(of[2 * i], of[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512d one = _mm512_castps_pd(pairs[2 * i]), other = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] =
            sum(_mm512_castpd_ps(_mm512_unpacklo_pd(one, other)), _mm512_castpd_ps(_mm512_unpackhi_pd(one, other)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        halves[i] = sum(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                        _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    return sum(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88), _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
}

INLINE integers load_bytes(const uint8_t *from) { return _mm512_loadu_si512(from); }
INLINE integers low_nibbles(integers of) { return _mm512_and_si512(of, _mm512_set1_epi8(0x0f)); }
INLINE integers high_nibbles(integers of) { return low_nibbles(_mm512_srli_epi16(of, 4)); }
INLINE integers all_integers(int32_t of) { return _mm512_set1_epi32(of); }
INLINE integers sum_of_integers(integers a, integers b) { return _mm512_add_epi32(a, b); }
INLINE floats as_floats(integers of) { return _mm512_cvtepi32_ps(of); }
/* In each lane four unsigned bytes times four signed ones, added. */
INLINE integers add_dot_products(integers added, integers bytes, int32_t four) {
    return _mm512_dpbusd_epi32(added, bytes, _mm512_set1_epi32(four));
}

/* Whole numbers of at most 127, each in its lane, as bytes; their sum. */
INLINE int32_t store_as_bytes(int8_t *into, floats whole) {
    const integers found = _mm512_cvtps_epi32(whole);
    _mm_storeu_si128((__m128i *)into, _mm512_cvtsepi32_epi8(found));
    return _mm512_reduce_add_epi32(found);
}

#endif
