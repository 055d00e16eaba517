/* com.microsoft's MatMulNBits for float32 rows and symmetric weights of 4 or 8 bits. */
#include <stdlib.h>

#include "blocked_product.h"
#include "kernel_inputs.h"
#include "operators.h"
#include "shared_work.h"

enum { ROWS, WEIGHTS, SCALES, ZERO_POINTS, GROUP_INDEX, BIAS, INPUTS };
enum { MOST_BLOCK = 1 << 20 };

typedef struct {
    OrtApi *api;
    packed_weights weights;
    int has_zero_points; /* constant ones, and they have been looked at */
} kernel;

static int64_t block_count(const blocked_weights *weights) {
    return (weights->depth + weights->block - 1) / weights->block;
}

/* Whether each zero point is the middle of the range, which is what none means. */
static int are_in_the_middle(const uint8_t *zero_points, const blocked_weights *weights) {
    const int64_t blocks = block_count(weights), bytes = weights->bits == 4 ? (blocks + 1) / 2 : blocks;
    for (int64_t column = 0; column < weights->columns; column++)
        for (int64_t block = 0; block < blocks; block++) {
            const uint8_t byte = zero_points[column * bytes + (weights->bits == 4 ? block / 2 : block)];
            if (weights->bits == 8 ? byte != 128 : (byte >> (block % 2 * 4) & 0x0f) != 8) return 0;
        }
    return 1;
}

static OrtStatus *read_sizes(OrtApi *api, const OrtKernelInfo *info, blocked_weights *found) {
    const int64_t bits = integer_attribute(api, info, "bits", 4);
    found->order = BY_COLUMN;
    found->depth = integer_attribute(api, info, "K", 0);
    found->columns = integer_attribute(api, info, "N", 0);
    found->block = integer_attribute(api, info, "block_size", 0);
    found->bits = (int)bits;
    if (bits != 4 && bits != 8) return refuse(api, "MatMulNBits here has weights of 4 or 8 bits");
    if (found->block < 32 || found->block > MOST_BLOCK || found->block % 32 != 0)
        return refuse(api, "MatMulNBits here has blocks of 32, 64, 128 …");
    if (found->depth < 1 || found->columns < 1 || found->depth > MOST_WEIGHT_SIZE || found->columns > MOST_WEIGHT_SIZE)
        return refuse(api, "MatMulNBits: K or N is no size");
    return NULL;
}

/* A graph is not trusted: its tensors must be as large as its attributes say. */
static OrtStatus *read_weights(OrtApi *api, const OrtKernelInfo *info, blocked_weights *found, int *has_zero_points) {
    tensor values, scales, zero_points;
    ORT_TRY(read_sizes(api, info, found));
    ORT_TRY(constant_input(api, info, WEIGHTS, &values));
    ORT_TRY(constant_input(api, info, SCALES, &scales));
    ORT_TRY(constant_input(api, info, ZERO_POINTS, &zero_points));
    if (values.data == NULL || scales.data == NULL)
        return refuse(api, "MatMulNBits here has constant weights and scales");
    const int64_t blocks = block_count(found), in_a_column = found->bits == 4 ? (blocks + 1) / 2 : blocks;
    if (element_count(&values) != found->columns * blocks * found->block * found->bits / 8 ||
        element_count(&scales) != found->columns * blocks ||
        (zero_points.data != NULL && element_count(&zero_points) != found->columns * in_a_column))
        return refuse(api, "MatMulNBits: weights, scales or zero points are not as large as K and N say");
    if (zero_points.data != NULL && !are_in_the_middle(zero_points.data, found))
        return refuse(api, "MatMulNBits here has symmetric weights");
    *has_zero_points = zero_points.data != NULL;
    found->values = values.data;
    found->scales = scales.data;
    return NULL;
}

static OrtStatus *create(const OrtCustomOp *operator, OrtApi *api, const OrtKernelInfo *info, void **made) {
    (void)operator;
    blocked_weights weights;
    int has_zero_points = 0;
    ORT_TRY(read_weights(api, info, &weights, &has_zero_points));
    kernel *kept = malloc(sizeof *kept);
    if (kept != NULL && pack_weights(&weights, &kept->weights)) {
        kept->api = api;
        kept->has_zero_points = has_zero_points;
        *made = kept;
        return NULL;
    }
    free(kept);
    return no_memory(api);
}

static void destroy(void *self) {
    release_weights(&((kernel *)self)->weights);
    free(self);
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    kernel *of = self;
    tensor rows, bias, zero_points, group_index;
    void *result;
    ORT_TRY(run_input(of->api, context, ROWS, &rows));
    ORT_TRY(run_input(of->api, context, BIAS, &bias));
    ORT_TRY(run_input(of->api, context, ZERO_POINTS, &zero_points));
    ORT_TRY(run_input(of->api, context, GROUP_INDEX, &group_index));
    if (group_index.data != NULL || (zero_points.data != NULL && !of->has_zero_points))
        return refuse(of->api, "MatMulNBits here has neither a group index nor computed zero points");
    if (rows.dimensions < 1 || rows.sizes[rows.dimensions - 1] != of->weights.depth)
        return refuse(of->api, "MatMulNBits: the rows are not as long as K says");
    if (bias.data != NULL && element_count(&bias) != of->weights.columns)
        return refuse(of->api, "MatMulNBits: the bias is not as long as N says");
    int64_t count = 1;
    for (size_t i = 0; i + 1 < rows.dimensions; i++) count *= rows.sizes[i];
    rows.sizes[rows.dimensions - 1] = of->weights.columns;
    ORT_TRY(run_output(of->api, context, 0, rows.sizes, rows.dimensions, &result));
    const workers by = {of->api, context};
    const result_rows into = {.added = bias.data, .values = result};
    return count > 0 ? multiply(&by, rows.data, count, &of->weights, &into) : NULL;
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

const OrtCustomOp MATMUL_NBITS = OPERATOR_OF_THIS_FILE;
