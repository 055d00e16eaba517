/* What is done value by value between products, in the vectors of whoever includes this. */
#include <math.h>

/* Sums of squares are float32's, in as many parts as a vector has lanes. */
static void normalize_row(const float *values, const float *weights, int64_t count, float epsilon, float *into) {
    floats squares = all(0.0f);
    for (int64_t at = 0; at < count; at += LANES) {
        const floats some = load_some(first_lanes(count - at), values + at);
        squares = product_and(some, some, squares);
    }
    const floats factor = all(1.0f / sqrtf(sum_of_lanes(squares) / (float)count + epsilon));
    for (int64_t at = 0; at < count; at += LANES) {
        const mask there = first_lanes(count - at);
        const floats scaled = product(load_some(there, values + at), factor);
        store_some(into + at, there, product(scaled, load_some(there, weights + at)));
    }
}

/* 1 / (1 + e^-x) and, below 0, e^x / (1 + e^x): the power is never above 1. */
INLINE floats sigmoid(floats of) {
    const floats power = exponential(difference(all(0.0f), magnitude(of))), whole = sum(all(1.0f), power);
    const mask negative = lanes_that_differ(larger(of, all(0.0f)), of);
    return quotient(choose(negative, power, all(1.0f)), whole);
}

static void gate_row(float *gate, const float *up, int64_t count) {
    for (int64_t at = 0; at < count; at += LANES) {
        const mask there = first_lanes(count - at);
        const floats some = load_some(there, gate + at);
        store_some(gate + at, there, product(product(some, sigmoid(some)), load_some(there, up + at)));
    }
}
