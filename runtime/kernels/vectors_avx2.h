/* Eight lanes, for processors with AVX2, FMA and F16C; and with AVX-VNNI, where WITH_AVX_VNNI is defined. */
#ifndef SOTTOVOCE_VECTORS_H
#define SOTTOVOCE_VECTORS_H

#ifdef WITH_AVX_VNNI
#pragma GCC target("avx2,fma,f16c,avxvnni")
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, ROWS_TOGETHER = 4, SUMS_TOGETHER = 8 };

typedef __m256 floats;
typedef __m256i integers; /* of 8 or of 32 bits */
typedef __m256i mask;     /* all bits of a lane, or none */

INLINE floats load(const float *from) { return _mm256_loadu_ps(from); }
INLINE floats load_some(mask lanes, const float *from) { return _mm256_maskload_ps(from, lanes); }
INLINE floats load_halves(const uint16_t *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }
INLINE void store(float *into, floats of) { _mm256_storeu_ps(into, of); }
INLINE void store_some(float *into, mask lanes, floats of) { _mm256_maskstore_ps(into, lanes, of); }
INLINE floats all(float of) { return _mm256_set1_ps(of); }
INLINE floats sum(floats a, floats b) { return _mm256_add_ps(a, b); }
INLINE floats difference(floats a, floats b) { return _mm256_sub_ps(a, b); }
INLINE floats product(floats a, floats b) { return _mm256_mul_ps(a, b); }
INLINE floats quotient(floats a, floats b) { return _mm256_div_ps(a, b); }
INLINE floats product_and(floats a, floats b, floats added) { return _mm256_fmadd_ps(a, b, added); }
INLINE floats larger(floats a, floats b) { return _mm256_max_ps(a, b); }
INLINE floats magnitude(floats of) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), of); }
INLINE float largest_lane(floats of) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(of), _mm256_extractf128_ps(of, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
INLINE float sum_of_lanes(floats of) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(of), _mm256_extractf128_ps(of, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
INLINE floats nearest_whole(floats of) {
    return _mm256_round_ps(of, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* `of`, near one, times two to the power of a whole number; below 2^-126 that is nothing. */
INLINE floats times_power(floats of, floats power) {
    const __m256i exponent = _mm256_cvtps_epi32(larger(power, all(-127.0f)));
    return product(of, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23)));
}

INLINE mask first_lanes(int64_t count) {
    const int32_t bounded = count > LANES ? LANES : count < 0 ? 0 : (int32_t)count;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(bounded), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE mask lanes_that_differ(floats a, floats b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ));
}
INLINE floats choose(mask lanes, floats there, floats elsewhere) {
    return _mm256_blendv_ps(elsewhere, there, _mm256_castsi256_ps(lanes));
}

/* The sums over the lanes of eight vectors, one in each lane. */
INLINE floats sums_of_lanes(const floats *of) {
    const floats first = _mm256_hadd_ps(_mm256_hadd_ps(of[0], of[1]), _mm256_hadd_ps(of[2], of[3]));
    const floats second = _mm256_hadd_ps(_mm256_hadd_ps(of[4], of[5]), _mm256_hadd_ps(of[6], of[7]));
    return sum(_mm256_permute2f128_ps(first, second, 0x20), _mm256_permute2f128_ps(first, second, 0x31));
}

INLINE integers load_bytes(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE integers low_nibbles(integers of) { return _mm256_and_si256(of, _mm256_set1_epi8(0x0f)); }
INLINE integers high_nibbles(integers of) { return low_nibbles(_mm256_srli_epi16(of, 4)); }
INLINE integers all_integers(int32_t of) { return _mm256_set1_epi32(of); }
INLINE integers sum_of_integers(integers a, integers b) { return _mm256_add_epi32(a, b); }
INLINE floats as_floats(integers of) { return _mm256_cvtepi32_ps(of); }
#ifdef WITH_AVX_VNNI
/* In each lane four unsigned bytes times four signed ones, added. */
INLINE integers add_dot_products(integers added, integers bytes, int32_t four) {
    return _mm256_dpbusd_avx_epi32(added, bytes, _mm256_set1_epi32(four));
}
#else
/* In each lane two sums in 16 bits: of two unsigned bytes times two signed ones. */
INLINE integers pair_products(integers bytes, integers four) { return _mm256_maddubs_epi16(bytes, four); }
INLINE integers sum_of_pairs(integers a, integers b) { return _mm256_add_epi16(a, b); }
INLINE integers joined_pairs(integers of) { return _mm256_madd_epi16(of, _mm256_set1_epi16(1)); }
/* `of` with the signs of the bytes of `like`, and bytes without theirs. */
INLINE integers signed_like(integers of, integers like) { return _mm256_sign_epi8(of, like); }
INLINE integers magnitudes(integers bytes) { return _mm256_abs_epi8(bytes); }
/* Weights from 0 to 255 as such from -128 to 127. */
INLINE integers centred(integers bytes) { return _mm256_xor_si256(bytes, _mm256_set1_epi8((char)0x80)); }
#endif

/* Whole numbers of at most 127, each in its lane, as bytes; their sum. */
INLINE int32_t store_as_bytes(int8_t *into, floats whole) {
    int32_t found[LANES], total = 0;
    _mm256_storeu_si256((__m256i *)found, _mm256_cvtps_epi32(whole));
    for (int lane = 0; lane < LANES; lane++) {
        into[lane] = (int8_t)found[lane];
        total += found[lane];
    }
    return total;
}

#endif
