/* com.microsoft's MatMulNBits for float32 rows and symmetric weights of 4 or 8 bits. */
#include <stdlib.h>

#include "blocked_product.h"
#include "kernel_inputs.h"
#include "operators.h"
#include "variants.h"

enum { ROWS, WEIGHTS, SCALES, ZERO_POINTS, GROUP_INDEX, BIAS, INPUTS };
enum { ROWS_WORTH_SHARING = 16 };

typedef struct {
    OrtApi *api;
    packed_weights weights;
} kernel;

/* What the threads share in one run. */
typedef struct {
    const packed_weights *weights;
    const float *input, *bias;
    float *result;
    rounded_rows rows;
} product;

/* Whether each zero point is the middle of the range, which is what none means. */
static int are_in_the_middle(const uint8_t *zero_points, const blocked_weights *weights) {
    const int64_t blocks = (weights->depth + weights->block - 1) / weights->block;
    const int64_t bytes = weights->bits == 4 ? (blocks + 1) / 2 : blocks;
    for (int64_t column = 0; column < weights->columns; column++)
        for (int64_t block = 0; block < blocks; block++) {
            const uint8_t byte = zero_points[column * bytes + (weights->bits == 4 ? block / 2 : block)];
            if (weights->bits == 8 ? byte != 128 : (byte >> (block % 2 * 4) & 0x0f) != 8) return 0;
        }
    return 1;
}

static OrtStatus *read_weights(OrtApi *api, const OrtKernelInfo *info, blocked_weights *found) {
    int64_t bits;
    void *values, *scales, *zero_points;
    ORT_TRY(ort_KernelInfoGetAttribute_int64(api)(info, "K", &found->depth));
    ORT_TRY(ort_KernelInfoGetAttribute_int64(api)(info, "N", &found->columns));
    ORT_TRY(ort_KernelInfoGetAttribute_int64(api)(info, "bits", &bits));
    ORT_TRY(ort_KernelInfoGetAttribute_int64(api)(info, "block_size", &found->block));
    ORT_TRY(constant_input(api, info, WEIGHTS, &values));
    ORT_TRY(constant_input(api, info, SCALES, &scales));
    ORT_TRY(constant_input(api, info, ZERO_POINTS, &zero_points));
    found->bits = (int)bits;
    found->values = values;
    found->scales = scales;
    if (bits != 4 && bits != 8) return refuse(api, "MatMulNBits here has weights of 4 or 8 bits");
    if (found->block < 32 || found->block % 32 != 0) return refuse(api, "MatMulNBits here has blocks of 32, 64, 128 …");
    if (values == NULL || scales == NULL) return refuse(api, "MatMulNBits here has constant weights and scales");
    if (zero_points != NULL && !are_in_the_middle(zero_points, found))
        return refuse(api, "MatMulNBits here has symmetric weights");
    return NULL;
}

static OrtStatus *create(const OrtCustomOp *operator, OrtApi *api, const OrtKernelInfo *info, void **made) {
    (void)operator;
    blocked_weights weights;
    ORT_TRY(read_weights(api, info, &weights));
    kernel *kept = malloc(sizeof *kept);
    if (kept != NULL && pack_weights(&weights, &kept->weights)) {
        kept->api = api;
        *made = kept;
        return NULL;
    }
    free(kept);
    return ort_CreateStatus(api)(ORT_FAIL, "no memory for packed weights");
}

static void destroy(void *self) {
    release_weights(&((kernel *)self)->weights);
    free(self);
}

static void round_one(void *shared, size_t row) {
    product *of = shared;
    chosen_kernels()->round_row(of->weights, of->input + (int64_t)row * of->weights->depth, (int64_t)row, &of->rows);
}

static void multiply_one(void *shared, size_t tile) {
    product *of = shared;
    chosen_kernels()->multiply_tile(of->weights, &of->rows, of->bias, (int64_t)tile, of->result);
}

static OrtStatus *multiply(OrtApi *api, const OrtKernelContext *context, product *of) {
    const size_t rows = (size_t)of->rows.rows;
    if (rows >= ROWS_WORTH_SHARING)
        ORT_TRY(ort_KernelContext_ParallelFor(api)(context, round_one, rows, 0, of));
    else
        for (size_t row = 0; row < rows; row++) round_one(of, row);
    return ort_KernelContext_ParallelFor(api)(context, multiply_one, (size_t)of->weights->tiles, 0, of);
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    kernel *of = self;
    tensor rows, bias, group_index;
    void *result;
    ORT_TRY(run_input(of->api, context, ROWS, &rows));
    ORT_TRY(run_input(of->api, context, BIAS, &bias));
    ORT_TRY(run_input(of->api, context, GROUP_INDEX, &group_index));
    if (group_index.data != NULL) return refuse(of->api, "MatMulNBits here has no group index");
    if (rows.dimensions < 1 || rows.sizes[rows.dimensions - 1] != of->weights.depth)
        return refuse(of->api, "MatMulNBits: the rows are not as long as K says");
    int64_t count = 1;
    for (size_t i = 0; i + 1 < rows.dimensions; i++) count *= rows.sizes[i];
    rows.sizes[rows.dimensions - 1] = of->weights.columns;
    ORT_TRY(run_output(of->api, context, 0, rows.sizes, rows.dimensions, &result));
    if (count == 0) return NULL;
    void *memory = malloc(rounded_rows_bytes(&of->weights, count));
    if (memory == NULL) return ort_CreateStatus(of->api)(ORT_FAIL, "no memory for rounded rows");
    product shared = {.weights = &of->weights, .input = rows.data, .bias = bias.data, .result = result};
    shared.rows = place_rounded_rows(&of->weights, count, memory);
    OrtStatus *problem = multiply(of->api, context, &shared);
    free(memory);
    return problem;
}

static const char *name(const OrtCustomOp *operator) { return (void)operator, "MatMulNBits"; }
static size_t input_count(const OrtCustomOp *operator) { return (void)operator, INPUTS; }
static size_t output_count(const OrtCustomOp *operator) { return (void)operator, 1; }

static int input_type(const OrtCustomOp *operator, size_t index) {
    static const int types[INPUTS] = {ORT_FLOAT, ORT_UINT8, ORT_FLOAT, ORT_UINT8, ORT_INT32, ORT_FLOAT};
    return (void)operator, types[index];
}

static int is_optional(const OrtCustomOp *operator, size_t index) {
    return (void)operator, index > SCALES ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp MATMUL_NBITS = {
    OPERATOR_ON_CPU,
    .GetName = name,
    .GetInputTypeCount = input_count,
    .GetInputType = input_type,
    .GetInputCharacteristic = is_optional,
    .GetOutputTypeCount = output_count,
    .GetOutputType = always_float,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .KernelDestroy = destroy,
};
