#include "attention.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = 16,
    MOST_VECTORS = 8,   /* of a head */
    MOST_ROWS = 8,      /* of a task */
    STRETCH = 128,      /* positions between two looks at the largest score: their keys and values fit into L1 and L2 */
    SPLIT = 256,        /* positions of a task where few queries leave threads without work */
    READ_AHEAD = 2048,  /* bytes */
};

/* What a task has found for one row; `sum` and `mixed` are relative to exp(largest). */
typedef struct {
    float largest, sum;
    float mixed[MOST_VECTORS * LANES];
} row_state;

enum { STATE_FLOATS = sizeof(row_state) / sizeof(float) };

static int64_t ceiling(int64_t of, int64_t by) { return (of + by - 1) / by; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

int attention_takes(int64_t head_size) {
    return head_size > 0 && head_size % LANES == 0 && head_size <= MOST_VECTORS * LANES;
}

attention_plan plan_attention(const attention *of) {
    attention_plan plan = {.rows = of->queries * (of->query_heads / of->kv_heads), .splits = 1};
    plan.row_tiles = ceiling(plan.rows, MOST_ROWS);
    if (plan.row_tiles == 1) plan.splits = ceiling(of->filled, SPLIT);
    if (plan.splits > 1) plan.scratch_floats = (size_t)(of->kv_heads * plan.splits * MOST_ROWS * STATE_FLOATS);
    return plan;
}

int64_t attention_tasks(const attention *of, const attention_plan *plan) {
    return of->kv_heads * plan->row_tiles * plan->splits;
}

/* e to the power of scores that are at most 0: 2^whole times a polynomial for 2^fraction (Taylor's, 6 terms, 2e-7). */
INLINE AVX512 __m512 exponential(__m512 of) {
    const __m512 power = _mm512_mul_ps(of, _mm512_set1_ps(1.44269504f));
    const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 x = _mm512_mul_ps(_mm512_sub_ps(power, whole), _mm512_set1_ps(0.693147181f));
    __m512 sum = _mm512_set1_ps(1.0f / 720);
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(1.0f / 120));
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(1.0f / 24));
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(1.0f / 6));
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(0.5f));
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(1.0f));
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

/* The sums over the lanes of sixteen registers, one in each lane. */
INLINE AVX512 __m512 sums_of_lanes(const __m512 *of) {
    __m512 pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(of[2 * i], of[2 * i + 1]),
                                 _mm512_unpackhi_ps(of[2 * i], of[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512d one = _mm512_castps_pd(pairs[2 * i]), other = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(one, other)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(one, other)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                  _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                         _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd));
}

/* Scores of one row for 16 positions, of which there are `count`: the last one stands in for those that are not. */
INLINE AVX512 __m512 score_sixteen(const float *query, const float *keys, int vectors, int64_t count) {
    __m512 products[LANES];
#pragma GCC unroll 16
    for (int position = 0; position < LANES; position++) {
        const float *key = keys + smaller(position, count - 1) * vectors * LANES;
        products[position] = _mm512_mul_ps(_mm512_loadu_ps(query), _mm512_loadu_ps(key));
#pragma GCC unroll 8
        for (int vector = 1; vector < vectors; vector++)
            products[position] = _mm512_fmadd_ps(_mm512_loadu_ps(query + vector * LANES),
                                                 _mm512_loadu_ps(key + vector * LANES), products[position]);
    }
    return sums_of_lanes(products);
}

INLINE AVX512 void read_ahead(const float *from, int64_t floats) {
    for (int64_t line = 0; line < floats; line += LANES)
        _mm_prefetch((const char *)(from + line) + READ_AHEAD, _MM_HINT_T0);
}

/* A task's rows and how far each of them sees. */
typedef struct {
    int count;
    const float *query[MOST_ROWS];
    int64_t visible[MOST_ROWS];
    row_state *state; /* of the first; the others follow */
    float weights[MOST_ROWS][STRETCH];
} task_rows;

/* Scores of positions `start` to `end` (at most a stretch), into `weights`. */
INLINE AVX512 void score(const attention *of, task_rows *rows, const float *keys, int64_t start, int64_t end,
                         int vectors) {
    const __m512 scale = _mm512_set1_ps(of->scale);
    for (int64_t at = start; at < end; at += LANES) {
        const float *sixteen = keys + at * vectors * LANES;
        read_ahead(sixteen, vectors * LANES * LANES);
        for (int row = 0; row < rows->count; row++) {
            const __m512 found = at + LANES <= end ? score_sixteen(rows->query[row], sixteen, vectors, LANES)
                                                   : score_sixteen(rows->query[row], sixteen, vectors, end - at);
            _mm512_storeu_ps(rows->weights[row] + (at - start), _mm512_mul_ps(found, scale));
        }
    }
}

/* Scores become weights relative to the largest one so far, and what was mixed before is brought to the same measure. */
INLINE AVX512 void weigh(task_rows *rows, int row, int64_t start, int64_t end, int vectors) {
    row_state *state = rows->state + row;
    float *weights = rows->weights[row];
    const int64_t seen = smaller(rows->visible[row], end) - start, stretch = ceiling(end - start, LANES) * LANES;
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 largest = nothing, sum = _mm512_setzero_ps();
    for (int64_t at = 0; at < stretch; at += LANES) {
        const __mmask16 there = seen - at >= LANES ? 0xffff : seen <= at ? 0 : (__mmask16)((1u << (seen - at)) - 1);
        const __m512 scores = _mm512_mask_mov_ps(nothing, there, _mm512_loadu_ps(weights + at));
        _mm512_storeu_ps(weights + at, scores);
        largest = _mm512_max_ps(largest, scores);
    }
    const float before = state->largest, now = fmaxf(before, _mm512_reduce_max_ps(largest));
    for (int64_t at = 0; at < stretch; at += LANES) {
        const __m512 scores = _mm512_loadu_ps(weights + at);
        const __mmask16 there = _mm512_cmp_ps_mask(scores, nothing, _CMP_NEQ_UQ);
        const __m512 weight = _mm512_maskz_mov_ps(there, exponential(_mm512_sub_ps(scores, _mm512_set1_ps(now))));
        _mm512_storeu_ps(weights + at, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    const float kept = state->sum == 0.0f ? 0.0f : expf(before - now);
    state->largest = now;
    state->sum = state->sum * kept + _mm512_reduce_add_ps(sum);
#pragma GCC unroll 8
    for (int vector = 0; vector < vectors; vector++) {
        float *mixed = state->mixed + vector * LANES;
        _mm512_storeu_ps(mixed, _mm512_mul_ps(_mm512_loadu_ps(mixed), _mm512_set1_ps(kept)));
    }
}

/* Add the values of a stretch to `count` rows; a constant wherever this is called. */
INLINE AVX512 void mix(task_rows *rows, int first, int count, const float *values, int64_t positions, int vectors) {
    __m512 mixed[MOST_VECTORS * 2];
#pragma GCC unroll 16
    for (int i = 0; i < count * vectors; i++)
        mixed[i] = _mm512_loadu_ps(rows->state[first + i / vectors].mixed + i % vectors * LANES);
    for (int64_t position = 0; position < positions; position++, values += vectors * LANES) {
        if (first == 0) read_ahead(values, vectors * LANES);
#pragma GCC unroll 8
        for (int vector = 0; vector < vectors; vector++) {
            const __m512 value = _mm512_loadu_ps(values + vector * LANES);
#pragma GCC unroll 4
            for (int row = 0; row < count; row++)
                mixed[row * vectors + vector] = _mm512_fmadd_ps(
                    _mm512_set1_ps(rows->weights[first + row][position]), value, mixed[row * vectors + vector]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < count * vectors; i++)
        _mm512_storeu_ps(rows->state[first + i / vectors].mixed + i % vectors * LANES, mixed[i]);
}

INLINE AVX512 void attend_with(const attention *of, task_rows *rows, int64_t kv_head, int64_t from, int64_t to,
                               int vectors) {
    const int64_t head = kv_head * of->capacity * vectors * LANES;
    const int together = vectors > 4 ? 2 : 4;
    for (int64_t start = from; start < to; start += STRETCH) {
        const int64_t end = smaller(start + STRETCH, to);
        score(of, rows, of->keys + head, start, end, vectors);
        for (int row = 0; row < rows->count; row++) weigh(rows, row, start, end, vectors);
        const float *values = of->values + head + start * vectors * LANES;
        int row = 0;
        for (; row + together <= rows->count; row += together) mix(rows, row, together, values, end - start, vectors);
        for (; row + 2 <= rows->count; row += 2) mix(rows, row, 2, values, end - start, vectors);
        for (; row < rows->count; row++) mix(rows, row, 1, values, end - start, vectors);
    }
}

/* The loops above become registers for each size of a head. */
AVX512 static void attend_rows(const attention *of, task_rows *rows, int64_t kv_head, int64_t from, int64_t to) {
    switch (of->head_size / LANES) {
        case 1: attend_with(of, rows, kv_head, from, to, 1); break;
        case 2: attend_with(of, rows, kv_head, from, to, 2); break;
        case 3: attend_with(of, rows, kv_head, from, to, 3); break;
        case 4: attend_with(of, rows, kv_head, from, to, 4); break;
        case 5: attend_with(of, rows, kv_head, from, to, 5); break;
        case 6: attend_with(of, rows, kv_head, from, to, 6); break;
        case 7: attend_with(of, rows, kv_head, from, to, 7); break;
        default: attend_with(of, rows, kv_head, from, to, 8);
    }
}

/* Where a row of a KV head lies in query and result. */
static int64_t row_offset(const attention *of, int64_t kv_head, int64_t row) {
    const int64_t group = of->query_heads / of->kv_heads;
    return (row / group * of->query_heads + kv_head * group + row % group) * of->head_size;
}

/* Divide by the sum of all weights, the sink's among them. */
static void finish_row(const attention *of, int64_t kv_head, int64_t row, const row_state *state) {
    const int64_t group = of->query_heads / of->kv_heads;
    float *result = of->result + row_offset(of, kv_head, row), sum = state->sum;
    if (of->sinks != NULL) sum += expf(of->sinks[kv_head * group + row % group] - state->largest);
    for (int64_t channel = 0; channel < of->head_size; channel++) result[channel] = state->mixed[channel] / sum;
}

static row_state *split_states(const attention_plan *plan, float *scratch, int64_t kv_head, int64_t split) {
    return (row_state *)scratch + (kv_head * plan->splits + split) * MOST_ROWS;
}

void attend(const attention *of, const attention_plan *plan, int64_t task, float *scratch) {
    const int64_t split = task % plan->splits, tile = task / plan->splits % plan->row_tiles;
    const int64_t kv_head = task / plan->splits / plan->row_tiles, first = tile * MOST_ROWS;
    const int64_t group = of->query_heads / of->kv_heads;
    row_state own[MOST_ROWS];
    task_rows rows = {.count = (int)smaller(plan->rows - first, MOST_ROWS)};
    rows.state = plan->splits > 1 ? split_states(plan, scratch, kv_head, split) : own;
    for (int row = 0; row < rows.count; row++) {
        rows.query[row] = of->query + row_offset(of, kv_head, first + row);
        rows.visible[row] = of->filled - of->queries + (first + row) / group + 1;
        memset(rows.state + row, 0, sizeof(row_state));
        rows.state[row].largest = -INFINITY;
    }
    const int64_t from = plan->splits > 1 ? split * SPLIT : 0;
    const int64_t to = smaller(plan->splits > 1 ? from + SPLIT : of->filled, rows.visible[rows.count - 1]);
    attend_rows(of, &rows, kv_head, from, to);
    if (plan->splits == 1)
        for (int row = 0; row < rows.count; row++) finish_row(of, kv_head, first + row, rows.state + row);
}

static void join(row_state *into, const row_state *other, int64_t head_size) {
    if (other->sum == 0.0f) return;
    const float largest = fmaxf(into->largest, other->largest);
    const float ours = into->sum == 0.0f ? 0.0f : expf(into->largest - largest), theirs = expf(other->largest - largest);
    into->largest = largest;
    into->sum = into->sum * ours + other->sum * theirs;
    for (int64_t i = 0; i < head_size; i++) into->mixed[i] = into->mixed[i] * ours + other->mixed[i] * theirs;
}

void join_splits(const attention *of, const attention_plan *plan, float *scratch) {
    if (plan->splits == 1) return;
    for (int64_t kv_head = 0; kv_head < of->kv_heads; kv_head++)
        for (int64_t row = 0; row < plan->rows; row++) {
            row_state *first = split_states(plan, scratch, kv_head, 0) + row;
            for (int64_t split = 1; split < plan->splits; split++)
                join(first, split_states(plan, scratch, kv_head, split) + row, of->head_size);
            finish_row(of, kv_head, row, first);
        }
}
