#include "shared_work.h"

#include <stdlib.h>
#include <string.h>

#include "kernel_inputs.h"
#include "variants.h"

enum { ROWS_WORTH_SHARING = 16 };

/* What the threads share in one run of a product. */
typedef struct {
    const kernel_variant *kernels; /* one for the whole run: what they take as zero differs */
    const float *values;
    const packed_weights *weights;
    const result_rows *result;
    rounded_rows rows;
} shared_product;

typedef struct {
    const attention *of;
    const attention_plan *plan;
    float *scratch;
} shared_attention;

OrtStatus *take_memory(OrtApi *api, size_t bytes, void **into) {
    *into = malloc(bytes);
    return *into != NULL ? NULL : no_memory(api);
}

static void round_one(void *shared, size_t row) {
    shared_product *of = shared;
    of->kernels->round_row(of->weights, of->values + (int64_t)row * of->weights->depth, (int64_t)row, &of->rows);
}

static void multiply_one(void *shared, size_t tile) {
    const shared_product *of = shared;
    of->kernels->multiply_tile(of->weights, &of->rows, (int64_t)tile, of->result);
}

static OrtStatus *round_and_multiply(const workers *by, shared_product *of, size_t rows) {
    if (rows >= ROWS_WORTH_SHARING)
        ORT_TRY(ort_KernelContext_ParallelFor(by->api)(by->context, round_one, rows, 0, of));
    else
        for (size_t row = 0; row < rows; row++) round_one(of, row);
    return ort_KernelContext_ParallelFor(by->api)(by->context, multiply_one, (size_t)of->weights->tiles, 0, of);
}

OrtStatus *multiply(const workers *by, const float *values, int64_t rows, const packed_weights *weights,
                    const result_rows *result) {
    shared_product shared = {chosen_kernels(), values, weights, result, {0}};
    void *memory;
    ORT_TRY(take_memory(by->api, rounded_rows_bytes(weights, rows), &memory));
    shared.rows = place_rounded_rows(weights, rows, memory);
    OrtStatus *problem = round_and_multiply(by, &shared, (size_t)rows);
    free(memory);
    return problem;
}

static void attend_one(void *shared, size_t task) {
    shared_attention *of = shared;
    attend(of->of, of->plan, (int64_t)task, of->scratch);
}

OrtStatus *attend_all(const workers *by, const attention *of) {
    const attention_plan plan = plan_attention(of);
    void *scratch = NULL;
    if (plan.scratch_floats > 0) ORT_TRY(take_memory(by->api, plan.scratch_floats * sizeof(float), &scratch));
    shared_attention shared = {of, &plan, scratch};
    OrtStatus *problem = ort_KernelContext_ParallelFor(by->api)(by->context, attend_one,
                                                                (size_t)attention_tasks(of, &plan), 0, &shared);
    if (problem == NULL) join_splits(of, &plan, scratch);
    free(scratch);
    return problem;
}

void keep_past(const attention *of, const float *past, float *present) {
    const int64_t head = of->capacity * of->head_size, before = (of->filled - of->queries) * of->head_size;
    if (past == present) return;
    for (int64_t i = 0; i < of->kv_heads; i++)
        memcpy(present + i * head, past + i * head, (size_t)before * sizeof *present);
}
