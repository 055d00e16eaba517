/* The first half of a decoder layer: norm, queries, keys and values, rotary positions, attention over the cache, the
 * product with its result, and the sum with what came in. */
#include <stdlib.h>
#include <string.h>

#include "block_weights.h"
#include "operators.h"
#include "team.h"
#include "variants.h"

enum {
    HIDDEN, NORM, PROJECTION, PROJECTION_SCALES, BIAS, SINKS, OUT, OUT_SCALES, /* all but the first are constant */
    QUERY_COSINES, QUERY_SINES, KEY_COSINES, KEY_SINES, PAST_KEY, PAST_VALUE, FILLED, INPUTS,
};
enum { RESULT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };
enum { MOST_HEADS = 1 << 16 };

typedef struct {
    OrtApi *api;
    int64_t query_heads, kv_heads, head_size;
    float scale;
    row_norm norm;
    packed_weights projection; /* columns of queries, then of keys, then of values */
    packed_weights out;
    const float *bias, *sinks; /* of the projection's columns, and of the heads; or NULL */
    int64_t threads;
} kernel;

/* What the threads share in one run; rows are positions. */
typedef struct {
    const kernel *of;
    const kernel_variant *kernels; /* one for the whole run: what they take as zero differs */
    const tensor *inputs;
    attention attention;
    attention_plan plan;
    float *keys, *values;        /* the attention's, to be written */
    float *normed, *projected;   /* (rows, width), (rows, columns of the projection) */
    float *query, *context;      /* (rows, query_heads, head_size), turned; and the attention's result */
    float *scratch;              /* the attention's */
    rounded_rows outer, inner;   /* what is projected, and the context */
    float *result;
} run;

static void destroy(void *self) {
    kernel *of = self;
    release_weights(&of->projection);
    release_weights(&of->out);
    free(of);
}

static OrtStatus *read_heads(OrtApi *api, const OrtKernelInfo *info, kernel *into) {
    into->query_heads = integer_attribute(api, info, "num_heads", 0);
    into->kv_heads = integer_attribute(api, info, "kv_num_heads", 0);
    into->head_size = integer_attribute(api, info, "head_size", 0);
    into->scale = float_attribute(api, info, "scale", 1);
    if (into->kv_heads < 1 || into->query_heads < into->kv_heads || into->query_heads > MOST_HEADS ||
        into->query_heads % into->kv_heads != 0 || !attention_takes(into->head_size))
        return refuse(api, "AttentionBlock: KV heads do not divide the query heads, or have a size that is not taken");
    return NULL;
}

static OrtStatus *read_weights(OrtApi *api, const OrtKernelInfo *info, kernel *into) {
    ORT_TRY(read_heads(api, info, into));
    ORT_TRY(read_norm(api, info, NORM, &into->norm));
    ORT_TRY(read_product(api, info, PROJECTION, into->norm.width, &into->projection));
    ORT_TRY(read_product(api, info, OUT, into->query_heads * into->head_size, &into->out));
    if (into->projection.columns != (into->query_heads + 2 * into->kv_heads) * into->head_size ||
        into->out.columns != into->norm.width)
        return refuse(api, "AttentionBlock: its weights do not fit one another");
    ORT_TRY(read_constants(api, info, BIAS, into->projection.columns, &into->bias));
    return read_constants(api, info, SINKS, into->query_heads, &into->sinks);
}

static OrtStatus *create(const OrtCustomOp *operator, OrtApi *api, const OrtKernelInfo *info, void **made) {
    (void)operator;
    kernel *kept = calloc(1, sizeof *kept);
    if (kept == NULL) return no_memory(api);
    kept->api = api;
    kept->threads = integer_attribute(api, info, "threads", 1);
    OrtStatus *problem = read_weights(api, info, kept);
    if (problem != NULL)
        destroy(kept);
    else
        *made = kept;
    return problem;
}

/* Angles have half a head a position; cache buffers are of this kernel's heads; the rest is as large as it must be. */
static int fit(const kernel *of, const tensor *inputs) {
    const tensor *hidden = inputs + HIDDEN, *past = inputs + PAST_KEY;
    if (hidden->dimensions != 3 || hidden->sizes[0] != 1 || hidden->sizes[2] != of->norm.width) return 0;
    if (past->data == NULL || past->dimensions != 4 || !same_sizes(past, inputs + PAST_VALUE)) return 0;
    for (int angles = QUERY_COSINES; angles <= KEY_SINES; angles++)
        if (element_count(inputs + angles) != hidden->sizes[1] * of->head_size / 2) return 0;
    return past->sizes[0] == 1 && past->sizes[1] == of->kv_heads && past->sizes[3] == of->head_size &&
           element_count(inputs + FILLED) == 1;
}

static OrtStatus *read_inputs(const kernel *of, const OrtKernelContext *context, tensor *inputs, attention *found) {
    ORT_TRY(run_input(of->api, context, HIDDEN, inputs + HIDDEN));
    for (size_t index = QUERY_COSINES; index <= FILLED; index++)
        ORT_TRY(run_input(of->api, context, index, inputs + index)); /* the others are constant, and have been read */
    if (!fit(of, inputs)) return refuse(of->api, "AttentionBlock: its inputs do not fit one another");
    *found = (attention){.query_heads = of->query_heads, .kv_heads = of->kv_heads, .head_size = of->head_size};
    found->queries = inputs[HIDDEN].sizes[1];
    found->filled = *(const int32_t *)inputs[FILLED].data;
    found->capacity = inputs[PAST_KEY].sizes[2];
    found->scale = of->scale;
    found->sinks = of->sinks;
    if (found->filled < found->queries || found->filled > found->capacity)
        return refuse(of->api, "AttentionBlock: the past has no room for these positions");
    return NULL;
}

static void prepare_row(void *shared, int64_t row) {
    run *of = shared;
    const row_norm *norm = &of->of->norm;
    const float *hidden = (const float *)of->inputs[HIDDEN].data + row * norm->width;
    float *normed = of->normed + row * norm->width;
    of->kernels->normalize_row(hidden, norm->weights, norm->width, norm->epsilon, normed);
    of->kernels->round_row(&of->of->projection, normed, row, &of->outer);
}

static void project(void *shared, int64_t tile) {
    const run *of = shared;
    const result_rows into = {.added = of->of->bias, .values = of->projected};
    of->kernels->multiply_tile(&of->of->projection, &of->outer, tile, &into);
}

static const uint8_t *projection_memory(void *shared, int64_t tile) {
    return tile_memory(&((const run *)shared)->of->projection, tile);
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
    const run *of = shared;
    const attention *with = &of->attention;
    const int64_t size = with->head_size, half = size / 2;
    const float *from = of->projected + position * of->of->projection.columns, *angles[4];
    for (int i = 0; i < 4; i++) angles[i] = (const float *)of->inputs[QUERY_COSINES + i].data + position * half;
    for (int64_t head = 0; head < with->query_heads; head++, from += size)
        turn(from, angles[0], angles[1], half, of->query + (position * with->query_heads + head) * size);
    const int64_t place = with->filled - with->queries + position;
    for (int64_t head = 0; head < with->kv_heads; head++, from += size) {
        const int64_t at = (head * with->capacity + place) * size;
        turn(from, angles[2], angles[3], half, of->keys + at);
        memcpy(of->values + at, from + with->kv_heads * size, (size_t)size * sizeof *from);
    }
}

static void attend_task(void *shared, int64_t task) {
    const run *of = shared;
    attend(&of->attention, &of->plan, task, of->scratch);
}

/* Where the positions were divided, all rows are one piece: they are few then. */
static int64_t join_pieces(const run *of) { return of->plan.splits > 1 ? 1 : of->attention.queries; }

static void join_rows(void *shared, int64_t piece) {
    run *of = shared;
    const int64_t pieces = join_pieces(of), rows = of->attention.queries;
    join_splits(&of->attention, &of->plan, of->scratch);
    for (int64_t row = piece; row < (pieces == 1 ? rows : piece + 1); row++)
        of->kernels->round_row(&of->of->out, of->context + row * of->of->out.depth, row, &of->inner);
}

static void multiply_out(void *shared, int64_t tile) {
    const run *of = shared;
    const result_rows into = {of->inputs[HIDDEN].data, of->of->norm.width, of->result};
    of->kernels->multiply_tile(&of->of->out, &of->inner, tile, &into);
}

static const uint8_t *out_memory(void *shared, int64_t tile) {
    return tile_memory(&((const run *)shared)->of->out, tile);
}

static OrtStatus *run_phases(const kernel *of, const workers *by, run *shared) {
    const int64_t rows = shared->attention.queries;
    const phase phases[] = {
        {rows, prepare_row, NULL},
        {of->projection.tiles, project, projection_memory},
        {rows, place_row, NULL},
        {attention_tasks(&shared->attention, &shared->plan), attend_task, NULL},
        {join_pieces(shared), join_rows, NULL},
        {of->out.tiles, multiply_out, out_memory},
    };
    return work_in_phases(by, of->threads, phases, sizeof phases / sizeof *phases, shared);
}

/* In one piece of memory all that is between the products. */
static OrtStatus *run_rows(const kernel *of, const workers *by, run *shared) {
    const int64_t rows = shared->attention.queries;
    const size_t normed = (size_t)(rows * of->norm.width), projected = (size_t)(rows * of->projection.columns);
    const size_t context = (size_t)(rows * of->out.depth), scratch = shared->plan.scratch_floats;
    const size_t outer = rounded_rows_bytes(&of->projection, rows), inner = rounded_rows_bytes(&of->out, rows);
    const size_t floats = normed + projected + 2 * context + scratch;
    void *memory;
    ORT_TRY(take_memory(of->api, floats * sizeof(float) + outer + inner, &memory));
    shared->normed = memory;
    shared->projected = shared->normed + normed;
    shared->query = shared->projected + projected;
    shared->context = shared->query + context;
    shared->scratch = shared->context + context;
    shared->outer = place_rounded_rows(&of->projection, rows, shared->normed + floats);
    shared->inner = place_rounded_rows(&of->out, rows, (uint8_t *)(shared->normed + floats) + outer);
    shared->attention.query = shared->query;
    shared->attention.result = shared->context;
    OrtStatus *problem = run_phases(of, by, shared);
    free(memory);
    return problem;
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    const kernel *of = self;
    const workers by = {of->api, context};
    tensor inputs[INPUTS];
    run shared = {.of = of, .kernels = chosen_kernels(), .inputs = inputs};
    void *result, *keys, *values;
    ORT_TRY(read_inputs(of, context, inputs, &shared.attention));
    ORT_TRY(run_output(of->api, context, RESULT, inputs[HIDDEN].sizes, 3, &result));
    ORT_TRY(run_output(of->api, context, PRESENT_KEY, inputs[PAST_KEY].sizes, 4, &keys));
    ORT_TRY(run_output(of->api, context, PRESENT_VALUE, inputs[PAST_KEY].sizes, 4, &values));
    keep_past(&shared.attention, inputs[PAST_KEY].data, keys);
    keep_past(&shared.attention, inputs[PAST_VALUE].data, values);
    if (shared.attention.queries == 0) return NULL;
    shared.attention.keys = shared.keys = keys;
    shared.attention.values = shared.values = values;
    shared.result = result;
    shared.plan = plan_attention(&shared.attention);
    return run_rows(of, &by, &shared);
}

static const char *name(const OrtCustomOp *operator) { return (void)operator, "AttentionBlock"; }
static size_t input_count(const OrtCustomOp *operator) { return (void)operator, INPUTS; }
static size_t output_count(const OrtCustomOp *operator) { return (void)operator, OUTPUTS; }

static int input_type(const OrtCustomOp *operator, size_t index) {
    (void)operator;
    if (index == FILLED) return ORT_INT32;
    return index == PROJECTION || index == OUT ? ORT_UINT8 : ORT_FLOAT;
}

static int is_optional(const OrtCustomOp *operator, size_t index) {
    return (void)operator, index == BIAS || index == SINKS ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp ATTENTION_BLOCK = OPERATOR_OF_THIS_FILE;
