/* Layers of a decoder one after another, or one half of a layer: what a graph is rewritten to (fused_graph.py).
 *
 * Inputs are the rows; where there is attention, the angles of their positions (cosines and sines for queries, then for
 * keys) and how many positions of the cache are filled; then for each layer the weights of its attention and the two
 * buffers of its cache, and the weights of its gate. Outputs are the rows, and each layer's two buffers. */
#include <stdlib.h>
#include <string.h>

#include "attention_half.h"
#include "gated_half.h"
#include "operators.h"
#include "whole_numbers.h"

enum { HIDDEN, ANGLES, FILLED = ANGLES + 4, FIRST_OF_LAYERS };
enum { MOST_LAYERS = 1 << 12 };

typedef struct {
    OrtCustomOp operator; /* the first, so that ONNX Runtime's pointer to it is one to this */
    const char *name;
    int attention, gate; /* which halves its layers have */
} layers_operator;

typedef struct {
    attention_half attention;
    gated_half gate;
} layer;

typedef struct {
    OrtApi *api;
    const layers_operator *as;
    int64_t threads, width;
    size_t inputs_of_attention, inputs_of_gate; /* of a layer's own; 0 where it has no such half */
    int64_t count;
    layer layers[];
} kernel;

/* One call: the rows lie in the result's memory from the first half to the last. */
typedef struct {
    const kernel *of;
    OrtKernelContext *context;
    int64_t rows;
    const float *hidden;
    float *result;
    call_positions at;
    attention_run *attention; /* (layers) */
    gated_run *gates;         /* (layers) */
    phase *phases;
} call;

static size_t inputs_before(const layers_operator *as) { return as->attention ? FIRST_OF_LAYERS : HIDDEN + 1; }

static size_t first_input(const kernel *of, int64_t layer) {
    return inputs_before(of->as) + (size_t)layer * (of->inputs_of_attention + of->inputs_of_gate);
}

static OrtStatus *no_fit(OrtApi *api) { return refuse(api, "decoder layers: the inputs do not fit one another"); }

static void destroy(void *self) {
    kernel *of = self;
    for (int64_t i = 0; i < of->count; i++) {
        release_attention_half(&of->layers[i].attention);
        release_gated_half(&of->layers[i].gate);
    }
    free(of);
}

static OrtStatus *read_layer(kernel *into, const OrtKernelInfo *info, int64_t index) {
    OrtApi *api = into->api;
    layer *found = into->layers + index;
    const size_t first = first_input(into, index);
    if (into->as->attention) ORT_TRY(read_attention_half(api, info, first, &found->attention));
    if (into->as->gate) ORT_TRY(read_gated_half(api, info, first + into->inputs_of_attention, &found->gate));
    const int64_t width = into->as->attention ? found->attention.norm.width : found->gate.norm.width;
    if (index == 0) into->width = width;
    if (width != into->width || (into->as->gate && found->gate.norm.width != width)) return no_fit(api);
    return NULL;
}

/* How many layers the inputs are of. */
static OrtStatus *read_sizes(kernel *into, const OrtKernelInfo *info) {
    attention_shape shape;
    size_t inputs;
    if (into->as->attention) {
        ORT_TRY(read_attention_shape(into->api, info, &shape));
        into->inputs_of_attention = attention_inputs(&shape);
    }
    if (into->as->gate) into->inputs_of_gate = GATED_INPUTS;
    into->threads = integer_attribute(into->api, info, "threads", 1);
    ORT_TRY(ort_KernelInfo_GetInputCount(into->api)(info, &inputs));
    const size_t before = inputs_before(into->as), of_a_layer = into->inputs_of_attention + into->inputs_of_gate;
    if (inputs <= before || (inputs - before) % of_a_layer != 0) return no_fit(into->api);
    into->count = (int64_t)((inputs - before) / of_a_layer);
    return into->count > MOST_LAYERS ? refuse(into->api, "decoder layers: more than 4,096") : NULL;
}

static OrtStatus *create(const OrtCustomOp *operator, OrtApi *api, const OrtKernelInfo *info, void **made) {
    kernel said = {.api = api, .as = (const layers_operator *)operator};
    ORT_TRY(read_sizes(&said, info));
    kernel *kept = calloc(1, sizeof *kept + (size_t)said.count * sizeof *kept->layers);
    if (kept == NULL) return no_memory(api);
    *kept = said;
    OrtStatus *problem = NULL;
    for (int64_t i = 0; i < kept->count && problem == NULL; i++) problem = read_layer(kept, info, i);
    if (problem != NULL)
        destroy(kept);
    else
        *made = kept;
    return problem;
}

/* The rows, and the result's memory for them. */
static OrtStatus *read_rows(call *now) {
    const kernel *of = now->of;
    tensor hidden;
    void *result;
    ORT_TRY(run_input(of->api, now->context, HIDDEN, &hidden));
    if (!is_of(&hidden, ORT_FLOAT) || hidden.dimensions < 1 || hidden.sizes[hidden.dimensions - 1] != of->width)
        return no_fit(of->api);
    if (of->as->attention && (hidden.dimensions != 3 || hidden.sizes[0] != 1)) return no_fit(of->api);
    ORT_TRY(run_output(of->api, now->context, 0, hidden.sizes, hidden.dimensions, &result));
    now->rows = element_count(&hidden) / of->width;
    now->hidden = hidden.data;
    now->result = result;
    return NULL;
}

/* Angles have half a head a position. */
static OrtStatus *read_positions(call *now) {
    const kernel *of = now->of;
    const int64_t angles = now->rows * of->layers[0].attention.shape.head_size / 2;
    tensor found;
    for (size_t i = 0; i < FILLED - ANGLES; i++) {
        ORT_TRY(run_input(of->api, now->context, ANGLES + i, &found));
        if (!is_of(&found, ORT_FLOAT) || element_count(&found) != angles) return no_fit(of->api);
        now->at.angles[i] = found.data;
    }
    ORT_TRY(run_input(of->api, now->context, FILLED, &found));
    if (!is_of(&found, ORT_INT32) || element_count(&found) != 1) return no_fit(of->api);
    now->at.queries = now->rows;
    now->at.filled = *(const int32_t *)found.data;
    if (now->at.filled < now->at.queries)
        return refuse(of->api, "decoder layers: fewer positions are filled than there are rows");
    return NULL;
}

/* A layer's attention; its cache goes out with what it held before this call. */
static OrtStatus *plan_attention_of(call *now, int64_t index, const residual_rows *rows) {
    const kernel *of = now->of;
    const attention_half *half = &of->layers[index].attention;
    const size_t first = first_input(of, index), output = (size_t)(1 + 2 * index);
    tensor past_keys, past_values;
    void *keys, *values;
    ORT_TRY(run_input(of->api, now->context, first + PAST_KEY, &past_keys));
    ORT_TRY(run_input(of->api, now->context, first + PAST_VALUE, &past_values));
    if (!is_of(&past_keys, ORT_FLOAT) || !is_of(&past_values, ORT_FLOAT) || !same_sizes(&past_keys, &past_values) ||
        past_keys.dimensions != 4 || past_keys.sizes[0] != 1 || past_keys.sizes[1] != half->shape.kv_heads ||
        past_keys.sizes[3] != half->shape.head_size)
        return no_fit(of->api);
    if (now->at.filled > past_keys.sizes[2])
        return refuse(of->api, "decoder layers: the past has no room for these positions");
    ORT_TRY(run_output(of->api, now->context, output, past_keys.sizes, 4, &keys));
    ORT_TRY(run_output(of->api, now->context, output + 1, past_keys.sizes, 4, &values));
    const layer_cache cache = {keys, values, past_keys.sizes[2]};
    attention_run *run = now->attention + index;
    *run = plan_attention_run(half, &now->at, &cache, rows);
    keep_past(&run->attention, past_keys.data, keys);
    keep_past(&run->attention, past_values.data, values);
    return NULL;
}

/* After the first half the rows are in the result, and stay there. */
static OrtStatus *plan_layers(call *now) {
    const layers_operator *as = now->of->as;
    residual_rows rows = {now->hidden, now->result};
    for (int64_t i = 0; i < now->of->count; i++) {
        if (as->attention) ORT_TRY(plan_attention_of(now, i, &rows));
        if (as->attention) rows.hidden = now->result;
        if (as->gate) now->gates[i] = plan_gated_run(&now->of->layers[i].gate, now->rows, &rows);
        rows.hidden = now->result;
    }
    return NULL;
}

/* Halves follow one another, so that all of them have the same working memory. */
static size_t working_bytes(const call *now) {
    const layers_operator *as = now->of->as;
    size_t bytes = 0;
    for (int64_t i = 0; i < now->of->count; i++) {
        if (as->attention) bytes = larger_size(bytes, attention_run_bytes(now->attention + i));
        if (as->gate) bytes = larger_size(bytes, gated_run_bytes(now->gates + i));
    }
    return bytes;
}

static OrtStatus *run_layers(call *now) {
    const kernel *of = now->of;
    const workers by = {of->api, now->context};
    phase *next = now->phases;
    void *memory;
    ORT_TRY(take_memory(of->api, working_bytes(now), &memory));
    for (int64_t i = 0; i < of->count; i++) {
        if (of->as->attention) {
            place_attention_run(now->attention + i, memory);
            next = add_attention_phases(now->attention + i, next);
        }
        if (of->as->gate) {
            place_gated_run(now->gates + i, memory);
            next = add_gated_phases(now->gates + i, next);
        }
    }
    OrtStatus *problem = work_in_phases(&by, of->threads, now->phases, next - now->phases);
    free(memory);
    return problem;
}

static OrtStatus *compute(void *self, OrtKernelContext *context) {
    const kernel *of = self;
    const size_t count = (size_t)of->count, phases = count * (ATTENTION_PHASES + GATED_PHASES);
    call now = {.of = of, .context = context};
    void *memory;
    ORT_TRY(read_rows(&now));
    if (of->as->attention) ORT_TRY(read_positions(&now));
    ORT_TRY(take_memory(of->api, count * (sizeof *now.attention + sizeof *now.gates) + phases * sizeof *now.phases,
                        &memory));
    now.attention = memory;
    now.gates = (gated_run *)(now.attention + count);
    now.phases = (phase *)(now.gates + count);
    OrtStatus *problem = plan_layers(&now);
    if (problem == NULL && now.rows > 0) problem = run_layers(&now);
    free(memory);
    return problem;
}

static const char *name(const OrtCustomOp *operator) { return ((const layers_operator *)operator)->name; }

/* The last input stands for all that are the layers' own, and the last output for all caches. */
static size_t input_count(const OrtCustomOp *operator) {
    return inputs_before((const layers_operator *)operator) + 1;
}

static size_t output_count(const OrtCustomOp *operator) {
    return (size_t)(1 + ((const layers_operator *)operator)->attention);
}

static int is_variadic(const OrtCustomOp *operator, size_t index) {
    return index + 1 == input_count(operator) ? ORT_VARIADIC : ORT_REQUIRED;
}

static int is_variadic_output(const OrtCustomOp *operator, size_t index) {
    return (void)operator, index > 0 ? ORT_VARIADIC : ORT_REQUIRED;
}

/* Of the layers' own, weights are bytes and all else is float32, which is looked at when they are read. */
static int input_type(const OrtCustomOp *operator, size_t index) {
    if (index + 1 == input_count(operator)) return ORT_ANY_TYPE;
    return index == FILLED ? ORT_INT32 : ORT_FLOAT;
}

static int at_least_one(const OrtCustomOp *operator) { return (void)operator, 1; }
static int of_several_types(const OrtCustomOp *operator) { return (void)operator, 0; }
static int of_one_type(const OrtCustomOp *operator) { return (void)operator, 1; }

#define LAYERS_OPERATOR(called, has_attention, has_gate)                                                                  {.operator = {.version = ORT_INTERFACE, .GetExecutionProviderType = cpu_provider, .GetName = name,                                  .GetInputMemoryType = host_memory, .GetInputTypeCount = input_count, .GetInputType = input_type,                      .GetInputCharacteristic = is_variadic, .GetVariadicInputMinArity = at_least_one,                                      .GetVariadicInputHomogeneity = of_several_types, .GetOutputTypeCount = output_count,                                  .GetOutputType = always_float, .GetOutputCharacteristic = is_variadic_output,                                         .GetVariadicOutputMinArity = at_least_one, .GetVariadicOutputHomogeneity = of_one_type,                               .GetStartVersion = first_version, .GetEndVersion = last_version, .CreateKernelV2 = create,                            .KernelComputeV2 = compute, .KernelDestroy = destroy},                                                   .name = (called), .attention = (has_attention), .gate = (has_gate)}

static const layers_operator WHOLE = LAYERS_OPERATOR("DecoderLayers", 1, 1);
static const layers_operator ATTENTION_ALONE = LAYERS_OPERATOR("AttentionBlock", 1, 0);
static const layers_operator GATE_ALONE = LAYERS_OPERATOR("GatedBlock", 0, 1);

const OrtCustomOp *const LAYER_OPERATORS[LAYER_OPERATOR_COUNT] = {
    &WHOLE.operator, &ATTENTION_ALONE.operator, &GATE_ALONE.operator};
