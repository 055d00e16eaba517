#include "attention_half.h"

#include <string.h>

#include "whole_numbers.h"

enum { NORM, PROJECTION, PROJECTION_SCALES, OUT, OUT_SCALES, AFTER_THE_PAST = PAST_VALUE + 1 };

OrtStatus *read_attention_shape(OrtApi *api, const OrtKernelInfo *info, attention_shape *into) {
    into->query_heads = integer_attribute(api, info, "num_heads", 0);
    into->kv_heads = integer_attribute(api, info, "kv_num_heads", 0);
    into->head_size = integer_attribute(api, info, "head_size", 0);
    into->scale = float_attribute(api, info, "scale", 1);
    into->has_bias = integer_attribute(api, info, "has_bias", 0) != 0;
    into->has_sinks = integer_attribute(api, info, "has_sinks", 0) != 0;
    if (!heads_fit(into->query_heads, into->kv_heads) || !attention_takes(into->head_size))
        return refuse(api, "a layer's KV heads here divide its query heads, and have 16, 32 … 128 channels");
    return NULL;
}

size_t attention_inputs(const attention_shape *of) { return (size_t)(AFTER_THE_PAST + of->has_bias + of->has_sinks); }

OrtStatus *read_attention_half(OrtApi *api, const OrtKernelInfo *info, size_t first, attention_half *into) {
    const size_t bias = first + AFTER_THE_PAST;
    attention_shape *shape = &into->shape;
    ORT_TRY(read_attention_shape(api, info, shape));
    ORT_TRY(read_norm(api, info, first + NORM, &into->norm));
    ORT_TRY(read_product(api, info, first + PROJECTION, into->norm.width, &into->projection));
    ORT_TRY(read_product(api, info, first + OUT, shape->query_heads * shape->head_size, &into->out));
    if (into->projection.columns != (shape->query_heads + 2 * shape->kv_heads) * shape->head_size ||
        into->out.columns != into->norm.width)
        return refuse(api, "a layer's attention: its weights do not fit one another");
    if (shape->has_bias) ORT_TRY(read_constants(api, info, bias, into->projection.columns, &into->bias));
    if (!shape->has_sinks) return NULL;
    return read_constants(api, info, bias + (size_t)shape->has_bias, shape->query_heads, &into->sinks);
}

void release_attention_half(attention_half *of) {
    release_weights(&of->projection);
    release_weights(&of->out);
}

/* A head turned by its position's angles, the first half of the channels with the second (Su et al., 2021, RoPE). */
static void turn(const float *from, const float *cosines, const float *sines, int64_t half, float *into) {
    for (int64_t i = 0; i < half; i++) {
        const float one = from[i], other = from[half + i];
        into[i] = one * cosines[i] - other * sines[i];
        into[half + i] = other * cosines[i] + one * sines[i];
    }
}

/* Queries of a position, turned; its keys, turned, and values, into the cache. */
static void place_row(void *shared, int64_t position) {
    const attention_run *of = shared;
    const attention *with = &of->attention;
    const int64_t size = with->head_size, half = size / 2;
    const float *from = of->projected + position * of->of->projection.columns, *angles[4];
    for (int i = 0; i < 4; i++) angles[i] = of->at->angles[i] + position * half;
    for (int64_t head = 0; head < with->query_heads; head++, from += size)
        turn(from, angles[0], angles[1], half, of->query + (position * with->query_heads + head) * size);
    const int64_t place = with->filled - with->queries + position;
    for (int64_t head = 0; head < with->kv_heads; head++, from += size) {
        const int64_t at = (head * with->capacity + place) * size;
        turn(from, angles[2], angles[3], half, of->cache.keys + at);
        memcpy(of->cache.values + at, from + with->kv_heads * size, (size_t)size * sizeof *from);
    }
}

static void attend_task(void *shared, int64_t task) {
    const attention_run *of = shared;
    attend(&of->attention, &of->plan, task, of->scratch);
}

/* The first task's keys that are weighed at once: its values are read before the next ones. */
static extent read_by_attention(void *shared, int64_t from, int64_t to) {
    const attention_run *of = shared;
    const int64_t positions = smaller(of->plan.split, STRETCH);
    (void)to;
    return (extent){first_key(&of->attention, &of->plan, from),
                    positions * of->attention.head_size * (int64_t)sizeof(float)};
}

/* Where the positions were divided, all rows are one piece: they are few then. */
static int64_t join_pieces(const attention_run *of) { return of->plan.splits > 1 ? 1 : of->attention.queries; }

static void join_rows(void *shared, int64_t piece) {
    attention_run *of = shared;
    const int64_t pieces = join_pieces(of), rows = of->attention.queries;
    join_splits(&of->attention, &of->plan, of->scratch);
    for (int64_t row = piece; row < (pieces == 1 ? rows : piece + 1); row++)
        of->kernels->round_row(&of->of->out, of->context + row * of->of->out.depth, row, &of->rounded);
}

attention_run plan_attention_run(const attention_half *of, const call_positions *at, const layer_cache *cache,
                                 const residual_rows *rows) {
    attention_run run = {.of = of, .kernels = chosen_kernels(), .at = at, .cache = *cache, .rows = *rows};
    run.attention = (attention){
        .query_heads = of->shape.query_heads,
        .kv_heads = of->shape.kv_heads,
        .head_size = of->shape.head_size,
        .queries = at->queries,
        .filled = at->filled,
        .capacity = cache->capacity,
        .scale = of->shape.scale,
        .keys = cache->keys,
        .values = cache->values,
        .sinks = of->sinks,
    };
    if (at->queries > 0) run.plan = plan_attention(&run.attention);
    return run;
}

/* In floats, in the order in which they lie: normed, projected, query, context, scratch. */
static size_t floats_of(const attention_run *of) {
    const size_t channels = (size_t)(of->of->norm.width + of->of->projection.columns + 2 * of->of->out.depth);
    return (size_t)of->at->queries * channels + of->plan.scratch_floats;
}

size_t attention_run_bytes(const attention_run *of) {
    const int64_t rows = of->at->queries;
    return floats_of(of) * sizeof(float) + rounded_rows_bytes(&of->of->projection, rows) +
           rounded_rows_bytes(&of->of->out, rows);
}

void place_attention_run(attention_run *of, void *memory) {
    const int64_t rows = of->at->queries;
    float *normed = memory;
    of->projected = normed + rows * of->of->norm.width;
    of->query = of->projected + rows * of->of->projection.columns;
    of->context = of->query + rows * of->of->out.depth;
    of->scratch = of->context + rows * of->of->out.depth;
    uint8_t *rounded = (uint8_t *)(normed + floats_of(of));
    of->normed = (normed_rows){of->kernels, &of->of->norm, &of->of->projection, of->rows.hidden, normed,
                               place_rounded_rows(&of->of->projection, rows, rounded)};
    of->rounded =
        place_rounded_rows(&of->of->out, rows, rounded + rounded_rows_bytes(&of->of->projection, rows));
    of->project = (tile_product){of->kernels, &of->of->projection, &of->normed.rounded,
                                 {.added = of->of->bias, .values = of->projected}};
    of->out = (tile_product){of->kernels, &of->of->out, &of->rounded,
                             {of->rows.hidden, of->of->norm.width, of->rows.result}};
    of->attention.query = of->query;
    of->attention.result = of->context;
}

phase *add_attention_phases(attention_run *of, phase *into) {
    const int64_t rows = of->at->queries;
    const phase phases[ATTENTION_PHASES] = {
        norm_phase(&of->normed),
        product_phase(&of->project),
        {of, rows, place_row, NULL},
        {of, attention_tasks(&of->attention, &of->plan), attend_task, read_by_attention},
        {of, join_pieces(of), join_rows, NULL},
        product_phase(&of->out),
    };
    memcpy(into, phases, sizeof phases);
    return into + ATTENTION_PHASES;
}
