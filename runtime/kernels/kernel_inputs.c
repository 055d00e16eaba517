#include "kernel_inputs.h"

#include <string.h>

OrtStatus *refuse(OrtApi *api, const char *why) { return ort_CreateStatus(api)(ORT_INVALID_ARGUMENT, why); }
OrtStatus *no_memory(OrtApi *api) { return ort_CreateStatus(api)(ORT_FAIL, "no memory for a kernel"); }

int64_t integer_attribute(OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t otherwise) {
    int64_t found;
    OrtStatus *missing = ort_KernelInfoGetAttribute_int64(api)(info, name, &found);
    if (missing == NULL) return found;
    ort_ReleaseStatus(api)(missing);
    return otherwise;
}

float float_attribute(OrtApi *api, const OrtKernelInfo *info, const char *name, float otherwise) {
    float found;
    OrtStatus *missing = ort_KernelInfoGetAttribute_float(api)(info, name, &found);
    if (missing == NULL) return found;
    ort_ReleaseStatus(api)(missing);
    return otherwise;
}

int64_t element_count(const tensor *of) {
    int64_t count = 1;
    for (size_t i = 0; i < of->dimensions; i++) count *= of->sizes[i];
    return count;
}

int is_of(const tensor *of, int element_type) { return of->data != NULL && of->element_type == element_type; }

int same_sizes(const tensor *a, const tensor *b) {
    return b->data != NULL && a->dimensions == b->dimensions &&
           memcmp(a->sizes, b->sizes, a->dimensions * sizeof *a->sizes) == 0;
}

static OrtStatus *read_tensor(OrtApi *api, const OrtValue *value, tensor *found) {
    OrtTensorTypeAndShapeInfo *shape;
    ORT_TRY(ort_GetTensorMutableData(api)((OrtValue *)value, &found->data));
    ORT_TRY(ort_GetTensorTypeAndShape(api)(value, &shape));
    OrtStatus *problem = ort_GetTensorElementType(api)(shape, &found->element_type);
    if (problem == NULL) problem = ort_GetDimensionsCount(api)(shape, &found->dimensions);
    if (problem == NULL && found->dimensions > MOST_DIMENSIONS) problem = refuse(api, "too many dimensions");
    if (problem == NULL) problem = ort_GetDimensions(api)(shape, found->sizes, found->dimensions);
    ort_ReleaseTensorTypeAndShapeInfo(api)(shape);
    return problem;
}

OrtStatus *constant_input(OrtApi *api, const OrtKernelInfo *info, size_t index, tensor *found) {
    size_t count;
    int is_constant = 0;
    const OrtValue *value = NULL;
    *found = (tensor){.data = NULL};
    ORT_TRY(ort_KernelInfo_GetInputCount(api)(info, &count));
    if (index >= count) return NULL;
    ORT_TRY(ort_KernelInfoGetConstantInput_tensor(api)(info, index, &is_constant, &value));
    return is_constant && value != NULL ? read_tensor(api, value, found) : NULL;
}

OrtStatus *run_input(OrtApi *api, const OrtKernelContext *context, size_t index, tensor *found) {
    const OrtValue *value;
    *found = (tensor){.data = NULL};
    ORT_TRY(ort_KernelContext_GetInput(api)(context, index, &value));
    return value != NULL ? read_tensor(api, value, found) : NULL;
}

OrtStatus *run_output(OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t dimensions,
                      void **data) {
    OrtValue *value;
    ORT_TRY(ort_KernelContext_GetOutput(api)(context, index, sizes, dimensions, &value));
    return ort_GetTensorMutableData(api)(value, data);
}
