/* A block of a row times that of a tile's columns, where the processor multiplies pairs of bytes, into 16 bits. */
#include "blocked_product.h"

/* What is taken as zero in a weight of 8 bits. */
#define ZERO_OF_BYTES 0

/* All of a block's pairs fit into 16 bits together: at most 8 * 2 * 15 * 127 = 30,480. */
INLINE integers multiply_nibbles(const integers *nibbles, const rounded_block *with) {
    integers pairs = pair_products(nibbles[0], all_integers(with->fours[0]));
#pragma GCC unroll 8
    for (int four = 1; four < FOURS; four++)
        pairs = sum_of_pairs(pairs, pair_products(nibbles[four], all_integers(with->fours[four])));
    return joined_pairs(pairs);
}

/* Whole bytes' pairs would not fit, but those of magnitudes of signed weights do, one by one: at most 2 * 128 * 127. */
INLINE integers multiply_bytes(const integers *bytes, const rounded_block *with) {
    integers sums = all_integers(0);
#pragma GCC unroll 8
    for (int four = 0; four < FOURS; four++) {
        const integers weights = centred(bytes[four]), rows = signed_like(all_integers(with->fours[four]), weights);
        sums = sum_of_integers(sums, joined_pairs(pair_products(magnitudes(weights), rows)));
    }
    return sums;
}

INLINE integers multiply_block(const integers *bytes, const rounded_block *with, int bits) {
    const integers found = bits == 4 ? multiply_nibbles(bytes, with) : multiply_bytes(bytes, with);
    return sum_of_integers(found, all_integers(with->zeros));
}
