/* A block of a row times that of a tile's columns, where the processor has an instruction for four bytes at once. */
#include "blocked_product.h"

/* What is taken as zero in a weight of 8 bits. */
#define ZERO_OF_BYTES 128

/* Two sums, so that each waits only for every other product. */
INLINE integers multiply_block(const integers *bytes, const rounded_block *with, int bits) {
    integers even = all_integers(with->zeros), odd = all_integers(0);
    (void)bits;
#pragma GCC unroll 4
    for (int four = 0; four < FOURS; four += 2) {
        even = add_dot_products(even, bytes[four], with->fours[four]);
        odd = add_dot_products(odd, bytes[four + 1], with->fours[four + 1]);
    }
    return sum_of_integers(even, odd);
}
