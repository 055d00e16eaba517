/* The second half of a decoder layer: norm, gate and up, their product (SwiGLU), down, and the sum with what came in. */
#include <stdlib.h>

#include "block_weights.h"
#include "operators.h"
#include "team.h"
#include "variants.h"

enum { HIDDEN, NORM, GATE, GATE_SCALES, UP, UP_SCALES, DOWN, DOWN_SCALES, INPUTS };

typedef struct {
    OrtApi *api;
    row_norm norm;
    packed_weights gate, up, down;
    int64_t threads;
} kernel;

/* What the threads share in one run. */
typedef struct {
    const kernel *of;
    const kernel_variant *kernels; /* one for the whole run: what they take as zero differs */
    const float *hidden;
    float *normed, *gate, *up; /* (rows, width), (rows, inner width) twice */
    rounded_rows outer, inner;
    float *result;
} run;

static void destroy(void *self) {
    kernel *of = self;
    release_weights(&of->gate);
    release_weights(&of->up);
    release_weights(&of->down);
    free(of);
}

static OrtStatus *read_weights(OrtApi *api, const OrtKernelInfo *info, kernel *into) {
    ORT_TRY(read_norm(api, info, NORM, &into->norm));
    ORT_TRY(read_product(api, info, GATE, into->norm.width, &into->gate));
    ORT_TRY(read_product(api, info, UP, into->norm.width, &into->up));
    ORT_TRY(read_product(api, info, DOWN, into->gate.columns, &into->down));
    if (into->up.columns != into->gate.columns || into->up.bits != into->gate.bits ||
        into->down.columns != into->norm.width)
        return refuse(api, "GatedBlock: its weights do not fit one another");
    return NULL;
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

static void prepare_row(void *shared, int64_t row) {
    run *of = shared;
    const row_norm *norm = &of->of->norm;
    float *normed = of->normed + row * norm->width;
    of->kernels->normalize_row(of->hidden + row * norm->width, norm->weights, norm->width, norm->epsilon, normed);
    of->kernels->round_row(&of->of->gate, normed, row, &of->outer);
}

static void multiply_inner(void *shared, int64_t tile) {
    const run *of = shared;
    const packed_weights *gate = &of->of->gate, *up = &of->of->up;
    const result_rows into = {.values = tile < gate->tiles ? of->gate : of->up};
    if (tile < gate->tiles)
        of->kernels->multiply_tile(gate, &of->outer, tile, &into);
    else
        of->kernels->multiply_tile(up, &of->outer, tile - gate->tiles, &into);
}

static const uint8_t *inner_memory(void *shared, int64_t tile) {
    const kernel *of = ((const run *)shared)->of;
    return tile < of->gate.tiles ? tile_memory(&of->gate, tile) : tile_memory(&of->up, tile - of->gate.tiles);
}

static void gate_row(void *shared, int64_t row) {
    run *of = shared;
    const int64_t width = of->of->gate.columns;
    of->kernels->gate_row(of->gate + row * width, of->up + row * width, width);
    of->kernels->round_row(&of->of->down, of->gate + row * width, row, &of->inner);
}

static void multiply_down(void *shared, int64_t tile) {
    const run *of = shared;
    const result_rows into = {of->hidden, of->of->norm.width, of->result};
    of->kernels->multiply_tile(&of->of->down, &of->inner, tile, &into);
}

static const uint8_t *down_memory(void *shared, int64_t tile) {
    return tile_memory(&((const run *)shared)->of->down, tile);
}

/* In one piece of memory all that is between the products. */
static OrtStatus *run_rows(const kernel *of, const workers *by, run *shared, int64_t rows) {
    const phase phases[] = {
        {rows, prepare_row, NULL},
        {of->gate.tiles + of->up.tiles, multiply_inner, inner_memory},
        {rows, gate_row, NULL},
        {of->down.tiles, multiply_down, down_memory},
    };
    const size_t narrow = (size_t)(rows * of->norm.width), wide = (size_t)(rows * of->gate.columns);
    const size_t outer = rounded_rows_bytes(&of->gate, rows), inner = rounded_rows_bytes(&of->down, rows);
    void *memory;
    ORT_TRY(take_memory(of->api, (narrow + 2 * wide) * sizeof(float) + outer + inner, &memory));
    shared->normed = memory;
    shared->gate = shared->normed + narrow;
    shared->up = shared->gate + wide;
    shared->outer = place_rounded_rows(&of->gate, rows, shared->up + wide);
    shared->inner = place_rounded_rows(&of->down, rows, (uint8_t *)(shared->up + wide) + outer);
    OrtStatus *problem = work_in_phases(by, of->threads, phases, sizeof phases / sizeof *phases, shared);
    free(memory);
    return problem;
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    const kernel *of = self;
    const workers by = {of->api, context};
    tensor hidden;
    void *result;
    ORT_TRY(run_input(of->api, context, HIDDEN, &hidden));
    if (hidden.dimensions < 1 || hidden.sizes[hidden.dimensions - 1] != of->norm.width)
        return refuse(of->api, "GatedBlock: the rows are not as long as the norm's weights");
    const int64_t rows = element_count(&hidden) / of->norm.width;
    ORT_TRY(run_output(of->api, context, 0, hidden.sizes, hidden.dimensions, &result));
    run shared = {.of = of, .kernels = chosen_kernels(), .hidden = hidden.data, .result = result};
    return rows > 0 ? run_rows(of, &by, &shared, rows) : NULL;
}

static const char *name(const OrtCustomOp *operator) { return (void)operator, "GatedBlock"; }
static size_t input_count(const OrtCustomOp *operator) { return (void)operator, INPUTS; }
static size_t output_count(const OrtCustomOp *operator) { return (void)operator, 1; }

static int input_type(const OrtCustomOp *operator, size_t index) {
    (void)operator;
    return index == GATE || index == UP || index == DOWN ? ORT_UINT8 : ORT_FLOAT;
}

static int is_optional(const OrtCustomOp *operator, size_t index) {
    return (void)operator, (void)index, ORT_REQUIRED;
}

const OrtCustomOp GATED_BLOCK = OPERATOR_OF_THIS_FILE;
