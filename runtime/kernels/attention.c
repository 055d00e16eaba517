#include "attention.h"

#include <math.h>
#include <string.h>

#include "variants.h"
#include "whole_numbers.h"

enum {
    CHANNEL_STEP = 16,
    MOST_HEADS = 1 << 16,
    /* Where few queries would leave threads without work, positions are divided, too: into at most so many tasks of a
     * KV head, since they are put together one by one, and none of fewer positions than are weighed at once. */
    MOST_SPLITS = 8,
    STATE_FLOATS = sizeof(row_state) / sizeof(float),
};

int heads_fit(int64_t query_heads, int64_t kv_heads) {
    return kv_heads > 0 && query_heads >= kv_heads && query_heads <= MOST_HEADS && query_heads % kv_heads == 0;
}

int attention_takes(int64_t head_size) {
    return head_size > 0 && head_size % CHANNEL_STEP == 0 && head_size <= MOST_CHANNELS;
}

attention_plan plan_attention(const attention *of) {
    attention_plan plan = {.rows = of->queries * (of->query_heads / of->kv_heads), .splits = 1};
    plan.row_tiles = ceiling(plan.rows, MOST_ROWS);
    plan.split = plan.row_tiles == 1 ? ceiling(ceiling(of->filled, MOST_SPLITS), STRETCH) * STRETCH : of->filled;
    plan.splits = ceiling(of->filled, plan.split);
    if (plan.splits > 1) plan.scratch_floats = (size_t)(of->kv_heads * plan.splits * MOST_ROWS * STATE_FLOATS);
    return plan;
}

int64_t attention_tasks(const attention *of, const attention_plan *plan) {
    return of->kv_heads * plan->row_tiles * plan->splits;
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

static int64_t kv_head_of(const attention_plan *plan, int64_t task) { return task / plan->splits / plan->row_tiles; }
static int64_t split_of(const attention_plan *plan, int64_t task) { return task % plan->splits; }

const float *first_key(const attention *of, const attention_plan *plan, int64_t task) {
    const int64_t position = split_of(plan, task) * plan->split;
    return of->keys + (kv_head_of(plan, task) * of->capacity + position) * of->head_size;
}

void attend(const attention *of, const attention_plan *plan, int64_t task, float *scratch) {
    const int64_t split = split_of(plan, task), tile = task / plan->splits % plan->row_tiles;
    const int64_t kv_head = kv_head_of(plan, task), first = tile * MOST_ROWS;
    const int64_t group = of->query_heads / of->kv_heads;
    row_state own[MOST_ROWS];
    attention_rows rows = {.count = (int)smaller(plan->rows - first, MOST_ROWS)};
    rows.state = plan->splits > 1 ? split_states(plan, scratch, kv_head, split) : own;
    for (int row = 0; row < rows.count; row++) {
        rows.query[row] = of->query + row_offset(of, kv_head, first + row);
        rows.visible[row] = of->filled - of->queries + (first + row) / group + 1;
        memset(rows.state + row, 0, sizeof(row_state));
        rows.state[row].largest = -INFINITY;
    }
    const int64_t from = split * plan->split, to = smaller(from + plan->split, rows.visible[rows.count - 1]);
    chosen_kernels()->attend_rows(of, &rows, kv_head, from, to);
    if (plan->splits == 1)
        for (int row = 0; row < rows.count; row++) finish_row(of, kv_head, first + row, rows.state + row);
}

static void join(row_state *into, const row_state *other, int64_t head_size) {
    if (other->sum == 0.0f) return;
    const float largest = fmaxf(into->largest, other->largest);
    const float ours = into->sum == 0.0f ? 0.0f : expf(into->largest - largest);
    const float theirs = expf(other->largest - largest);
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
