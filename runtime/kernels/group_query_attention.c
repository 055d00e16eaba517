/* com.microsoft's GroupQueryAttention as the `cpu` dialect writes it: one sequence, float32, turned beforehand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "kernel_inputs.h"
#include "operators.h"
#include "shared_work.h"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LAST_PLACE, FILLED, NOT_TAKEN, SINKS = 11, INPUTS };
enum { CONTEXT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };

typedef struct {
    OrtApi *api;
    int64_t query_heads, kv_heads;
    float scale; /* 0: one by the root of the head's size */
} kernel;

static OrtStatus *create(const OrtCustomOp *operator, OrtApi *api, const OrtKernelInfo *info, void **made) {
    (void)operator;
    if (integer_attribute(api, info, "do_rotary", 0) != 0 || integer_attribute(api, info, "smooth_softmax", 0) > 0 ||
        integer_attribute(api, info, "local_window_size", -1) != -1 || float_attribute(api, info, "softcap", 0) != 0)
        return refuse(api, "GroupQueryAttention here is plain: no rotary positions, window, cap or smoothing");
    const int64_t query_heads = integer_attribute(api, info, "num_heads", 0);
    const int64_t kv_heads = integer_attribute(api, info, "kv_num_heads", 0);
    if (!heads_fit(query_heads, kv_heads))
        return refuse(api, "GroupQueryAttention: KV heads do not divide the query heads");
    kernel *kept = malloc(sizeof *kept);
    if (kept == NULL) return no_memory(api);
    kept->api = api;
    kept->query_heads = query_heads;
    kept->kv_heads = kv_heads;
    kept->scale = float_attribute(api, info, "scale", 0);
    *made = kept;
    return NULL;
}

/* A graph is not trusted: heads times their size are the widths, and what comes in pairs is of one size. */
static int fit_one_another(const kernel *of, const tensor *inputs) {
    const tensor *query = inputs + QUERY, *key = inputs + KEY, *past = inputs + PAST_KEY, *sinks = inputs + SINKS;
    return key->data != NULL && key->dimensions == 3 && key->sizes[0] == 1 && key->sizes[1] == query->sizes[1] &&
           query->sizes[2] == of->query_heads * past->sizes[3] && key->sizes[2] == of->kv_heads * past->sizes[3] &&
           past->sizes[1] == of->kv_heads && same_sizes(key, inputs + VALUE) && same_sizes(past, inputs + PAST_VALUE) &&
           (sinks->data == NULL || element_count(sinks) == of->query_heads);
}

/* The call's inputs, as far as they fit one another. */
static OrtStatus *read_inputs(const kernel *of, const OrtKernelContext *context, tensor *inputs, attention *found) {
    for (size_t index = 0; index < INPUTS; index++) ORT_TRY(run_input(of->api, context, index, inputs + index));
    for (size_t index = NOT_TAKEN; index < SINKS; index++)
        if (inputs[index].data != NULL) return refuse(of->api, "GroupQueryAttention here takes no bias or angles");
    const tensor *query = inputs + QUERY, *past = inputs + PAST_KEY;
    if (query->dimensions != 3 || query->sizes[0] != 1 || past->dimensions != 4 || past->sizes[0] != 1)
        return refuse(of->api, "GroupQueryAttention here takes one sequence, with a past");
    found->query_heads = of->query_heads;
    found->kv_heads = of->kv_heads;
    found->head_size = past->sizes[3];
    found->capacity = past->sizes[2];
    found->queries = query->sizes[1];
    found->filled = element_count(inputs + FILLED) == 1 ? *(const int32_t *)inputs[FILLED].data : -1;
    found->scale = of->scale != 0 ? of->scale : 1.0f / sqrtf((float)found->head_size);
    if (!fit_one_another(of, inputs)) return refuse(of->api, "GroupQueryAttention: its inputs do not fit one another");
    if (!attention_takes(found->head_size)) return refuse(of->api, "GroupQueryAttention here has heads of 16 to 128");
    if (found->filled < found->queries || found->filled > found->capacity)
        return refuse(of->api, "GroupQueryAttention: the past has no room for these positions");
    return NULL;
}

/* Keys or values of this call, behind those of the past. */
static void append(const attention *of, const float *past, const float *added, float *present) {
    const int64_t size = of->head_size, before = of->filled - of->queries;
    keep_past(of, past, present);
    for (int64_t head = 0; head < of->kv_heads; head++) {
        float *into = present + (head * of->capacity + before) * size;
        for (int64_t position = 0; position < of->queries; position++)
            memcpy(into + position * size, added + (position * of->kv_heads + head) * size,
                   (size_t)size * sizeof *into);
    }
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    const kernel *kernel_of = self;
    OrtApi *api = kernel_of->api;
    tensor inputs[INPUTS];
    attention of;
    void *result, *keys, *values;
    ORT_TRY(read_inputs(kernel_of, context, inputs, &of));
    ORT_TRY(run_output(api, context, CONTEXT, inputs[QUERY].sizes, 3, &result));
    ORT_TRY(run_output(api, context, PRESENT_KEY, inputs[PAST_KEY].sizes, 4, &keys));
    ORT_TRY(run_output(api, context, PRESENT_VALUE, inputs[PAST_KEY].sizes, 4, &values));
    append(&of, inputs[PAST_KEY].data, inputs[KEY].data, keys);
    append(&of, inputs[PAST_VALUE].data, inputs[VALUE].data, values);
    if (of.queries == 0) return NULL;
    of.query = inputs[QUERY].data;
    of.keys = keys;
    of.values = values;
    of.sinks = inputs[SINKS].data;
    of.result = result;
    const workers by = {api, context};
    return attend_all(&by, &of);
}

static void destroy(void *self) { free(self); }

static const char *name(const OrtCustomOp *operator) { return (void)operator, "GroupQueryAttention"; }
static size_t input_count(const OrtCustomOp *operator) { return (void)operator, INPUTS; }
static size_t output_count(const OrtCustomOp *operator) { return (void)operator, OUTPUTS; }

static int input_type(const OrtCustomOp *operator, size_t index) {
    enum { POSITION_IDS = 9 };
    (void)operator;
    if (index == LAST_PLACE || index == FILLED) return ORT_INT32;
    return index == POSITION_IDS ? ORT_INT64 : ORT_FLOAT;
}

static int is_optional(const OrtCustomOp *operator, size_t index) {
    (void)operator;
    return index == QUERY || index == LAST_PLACE || index == FILLED ? ORT_REQUIRED : ORT_OPTIONAL;
}

const OrtCustomOp GROUP_QUERY_ATTENTION = OPERATOR_OF_THIS_FILE;
