/* The loops of attention, in the vectors of whoever includes this. */
#include <math.h>

#include "attention.h"

enum {
    VECTORS_TOGETHER = SUMS_TOGETHER / 2, /* of a head, whose sums of at least two rows stay in registers */
    POSITIONS_AHEAD = 16,                 /* 4 KiB of heads of 64 channels */
};

/* e to the power of scores that are at most 0: 2^whole times a polynomial for 2^fraction (Taylor's, 6 terms, 2e-7). */
INLINE floats exponential(floats of) {
    const floats power = product(of, all(1.44269504f)), whole = nearest_whole(power);
    const floats x = product(difference(power, whole), all(0.693147181f));
    floats found = all(1.0f / 720);
    found = product_and(found, x, all(1.0f / 120));
    found = product_and(found, x, all(1.0f / 24));
    found = product_and(found, x, all(1.0f / 6));
    found = product_and(found, x, all(0.5f));
    found = product_and(found, x, all(1.0f));
    found = product_and(found, x, all(1.0f));
    return times_power(found, whole);
}

/* Keys or values as they follow one another: `left` of them, and then those of a stretch that is read next. */
typedef struct {
    const float *here, *next;
    int64_t left;
} stream;

/* Where what comes so much later than the next position lies. */
INLINE const float *later(const stream *of, int64_t position, int vectors) {
    const int64_t at = position + POSITIONS_AHEAD;
    return at < of->left ? of->here + at * vectors * LANES : of->next + (at - of->left) * vectors * LANES;
}

/* Ask for a key or value: of its cache lines for the `first` and those that lie `step` apart behind it; into the second
   cache, since in the first one they would be in the way. */
INLINE void ask_for(const float *it, int vectors, int first, int step) {
    enum { LINE = 64 / sizeof(float) };
    for (int line = first; line < vectors * LANES / LINE; line += step)
        _mm_prefetch((const char *)(it + line * LINE), _MM_HINT_T1);
}

/* Scores of one row of several for as many positions as a vector has lanes; behind the first `count`, the last one
   again. Each row asks for its part of what is read later: asked for all at once, it would be waited for. */
INLINE floats score_lanes(const attention_rows *rows, int row, const float *keys, const float *ahead, int vectors,
                          int64_t count) {
    const float *query = rows->query[row];
    floats products[LANES];
#pragma GCC unroll 16
    for (int position = 0; position < LANES; position++) {
        const float *key = keys + (position < count ? position : count - 1) * vectors * LANES;
        ask_for(ahead + position * vectors * LANES, vectors, row, rows->count);
        products[position] = product(load(query), load(key));
#pragma GCC unroll 16
        for (int vector = 1; vector < vectors; vector++)
            products[position] =
                product_and(load(query + vector * LANES), load(key + vector * LANES), products[position]);
    }
    return sums_of_lanes(products);
}

/* Scores of the positions of at most a stretch, into `weights`. */
INLINE void score(const attention *of, attention_rows *rows, const stream *keys, int vectors) {
    for (int64_t at = 0; at < keys->left; at += LANES) {
        const float *here = keys->here + at * vectors * LANES, *ahead = later(keys, at, vectors);
        for (int row = 0; row < rows->count; row++) {
            const floats found = at + LANES <= keys->left
                                     ? score_lanes(rows, row, here, ahead, vectors, LANES)
                                     : score_lanes(rows, row, here, ahead, vectors, keys->left - at);
            store(rows->weights[row] + at, product(found, all(of->scale)));
        }
    }
}

/* Scores become weights relative to the largest one so far, and what was mixed before is brought to that measure. */
INLINE void weigh(attention_rows *rows, int row, int64_t start, int64_t end, int vectors) {
    row_state *state = rows->state + row;
    float *weights = rows->weights[row];
    const int64_t seen = rows->visible[row] - start, stretch = end - start;
    const floats nothing = all(-INFINITY);
    floats largest = nothing, total = all(0.0f);
    for (int64_t at = 0; at < stretch; at += LANES) {
        const mask there = first_lanes((seen < stretch ? seen : stretch) - at);
        const floats scores = choose(there, load(weights + at), nothing);
        store(weights + at, scores);
        largest = larger(largest, scores);
    }
    const float before = state->largest, now = fmaxf(before, largest_lane(largest));
    for (int64_t at = 0; at < stretch; at += LANES) {
        const floats scores = load(weights + at);
        const floats found = exponential(difference(scores, all(now)));
        const floats weight = choose(lanes_that_differ(scores, nothing), found, all(0.0f));
        store(weights + at, weight);
        total = sum(total, weight);
    }
    const float kept = state->sum == 0.0f ? 0.0f : expf(before - now);
    state->largest = now;
    state->sum = state->sum * kept + sum_of_lanes(total);
    for (int vector = 0; vector < vectors; vector++) {
        float *mixed = state->mixed + vector * LANES;
        store(mixed, product(load(mixed), all(kept)));
    }
}

/* Add some vectors of a stretch's values to `count` rows; `vectors`, `part` and `count` are constants at every call. */
INLINE void mix(attention_rows *rows, int first, int count, const stream *values, int vectors, int from, int part) {
    floats mixed[SUMS_TOGETHER];
#pragma GCC unroll 16
    for (int i = 0; i < count * part; i++)
        mixed[i] = load(rows->state[first + i / part].mixed + (from + i % part) * LANES);
    const float *at = values->here;
    for (int64_t position = 0; position < values->left; position++, at += vectors * LANES) {
        if (first == 0 && from == 0) ask_for(later(values, position, vectors), vectors, 0, 1);
#pragma GCC unroll 8
        for (int vector = 0; vector < part; vector++) {
            const floats value = load(at + (from + vector) * LANES);
#pragma GCC unroll 4
            for (int row = 0; row < count; row++)
                mixed[row * part + vector] =
                    product_and(all(rows->weights[first + row][position]), value, mixed[row * part + vector]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < count * part; i++)
        store(rows->state[first + i / part].mixed + (from + i % part) * LANES, mixed[i]);
}

INLINE void mix_rows(attention_rows *rows, const stream *values, int vectors, int from, int part) {
    const int together = SUMS_TOGETHER / part < 4 ? SUMS_TOGETHER / part : 4;
    int row = 0;
    for (; row + together <= rows->count; row += together)
        mix(rows, row, together, values, vectors, from, part);
    if (row + 3 == rows->count && 3 * part <= SUMS_TOGETHER) { /* three query heads a KV head are common */
        mix(rows, row, 3, values, vectors, from, part);
        return;
    }
    for (; row + 2 <= rows->count; row += 2) mix(rows, row, 2, values, vectors, from, part);
    for (; row < rows->count; row++) mix(rows, row, 1, values, vectors, from, part);
}

INLINE void attend_with(const attention *of, attention_rows *rows, int64_t kv_head, int64_t from, int64_t to,
                        int vectors) {
    const int64_t head = kv_head * of->capacity * vectors * LANES;
    const int whole_parts = vectors / VECTORS_TOGETHER * VECTORS_TOGETHER;
    for (int64_t start = from; start < to; start += STRETCH) {
        const int64_t end = start + STRETCH < to ? start + STRETCH : to;
        const float *at = of->keys + head + start * vectors * LANES, *next = of->keys + head + end * vectors * LANES;
        const stream values = {of->values + head + start * vectors * LANES, next, end - start};
        const stream keys = {at, values.here, end - start};
        score(of, rows, &keys, vectors);
        for (int row = 0; row < rows->count; row++) weigh(rows, row, start, end, vectors);
        for (int vector = 0; vector < whole_parts; vector += VECTORS_TOGETHER)
            mix_rows(rows, &values, vectors, vector, VECTORS_TOGETHER);
        if (vectors > whole_parts) mix_rows(rows, &values, vectors, whole_parts, vectors - whole_parts);
    }
}

/* The loops above become registers for each size of a head. */
static void attend_rows(const attention *of, attention_rows *rows, int64_t kv_head, int64_t from, int64_t to) {
    switch (of->head_size / 16) {
        case 1: attend_with(of, rows, kv_head, from, to, 16 / LANES); break;
        case 2: attend_with(of, rows, kv_head, from, to, 32 / LANES); break;
        case 3: attend_with(of, rows, kv_head, from, to, 48 / LANES); break;
        case 4: attend_with(of, rows, kv_head, from, to, 64 / LANES); break;
        case 5: attend_with(of, rows, kv_head, from, to, 80 / LANES); break;
        case 6: attend_with(of, rows, kv_head, from, to, 96 / LANES); break;
        case 7: attend_with(of, rows, kv_head, from, to, 112 / LANES); break;
        default: attend_with(of, rows, kv_head, from, to, 128 / LANES);
    }
}
