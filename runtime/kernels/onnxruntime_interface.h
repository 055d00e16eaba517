/* What of ONNX Runtime's C interface these kernels use.
 *
 * Its Python wheel brings no headers. The interface is a table of function pointers that only ever grows at its end, so
 * that a position in it stays what it is; positions and signatures here are those of its onnxruntime_c_api.h.
 */
#ifndef SOTTOVOCE_ONNXRUNTIME_INTERFACE_H
#define SOTTOVOCE_ONNXRUNTIME_INTERFACE_H

#include <stddef.h>
#include <stdint.h>

#define ORT_INTERFACE 17 /* the first one with KernelContext_ParallelFor: ONNX Runtime 1.17 */

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { ORT_ANY_TYPE = 0, ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT32 = 6, ORT_INT64 = 7 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1, ORT_VARIADIC = 2 };

typedef void *const OrtApi; /* the table's first entry */
typedef struct OrtStatus OrtStatus; /* NULL where all is well */
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef struct {
    OrtApi *(*GetApi)(uint32_t interface);
    const char *(*GetVersionString)(void);
} OrtApiBase;

/* One operator; ONNX Runtime calls what is not NULL. */
typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, OrtApi *, const OrtKernelInfo *, void **);
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, OrtShapeInferContext *);
    int (*GetStartVersion)(const OrtCustomOp *);
    int (*GetEndVersion)(const OrtCustomOp *);
};

#define ORT_FUNCTION(position, result, name, parameters)                                                     \
    typedef result(*ort_type_of_##name) parameters;                                                          \
    static inline ort_type_of_##name ort_##name(OrtApi *api) { return (ort_type_of_##name)api[position]; }

ORT_FUNCTION(0, OrtStatus *, CreateStatus, (int code, const char *message))
ORT_FUNCTION(26, OrtStatus *, CreateCustomOpDomain, (const char *domain, OrtCustomOpDomain **))
ORT_FUNCTION(27, OrtStatus *, CustomOpDomain_Add, (OrtCustomOpDomain *, const OrtCustomOp *))
ORT_FUNCTION(28, OrtStatus *, AddCustomOpDomain, (OrtSessionOptions *, OrtCustomOpDomain *))
ORT_FUNCTION(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **))
ORT_FUNCTION(60, OrtStatus *, GetTensorElementType, (const OrtTensorTypeAndShapeInfo *, int *))
ORT_FUNCTION(61, OrtStatus *, GetDimensionsCount, (const OrtTensorTypeAndShapeInfo *, size_t *))
ORT_FUNCTION(62, OrtStatus *, GetDimensions, (const OrtTensorTypeAndShapeInfo *, int64_t *, size_t))
ORT_FUNCTION(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *, OrtTensorTypeAndShapeInfo **))
ORT_FUNCTION(85, OrtStatus *, KernelInfoGetAttribute_float, (const OrtKernelInfo *, const char *, float *))
ORT_FUNCTION(86, OrtStatus *, KernelInfoGetAttribute_int64, (const OrtKernelInfo *, const char *, int64_t *))
ORT_FUNCTION(90, OrtStatus *, KernelContext_GetInput, (const OrtKernelContext *, size_t, const OrtValue **))
ORT_FUNCTION(91, OrtStatus *, KernelContext_GetOutput,
             (OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **))
ORT_FUNCTION(93, void, ReleaseStatus, (OrtStatus *))
ORT_FUNCTION(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorTypeAndShapeInfo *))
ORT_FUNCTION(230, OrtStatus *, KernelInfo_GetInputCount, (const OrtKernelInfo *, size_t *))
ORT_FUNCTION(249, OrtStatus *, KernelInfoGetConstantInput_tensor,
             (const OrtKernelInfo *, size_t, int *is_constant, const OrtValue **))
ORT_FUNCTION(274, OrtStatus *, KernelContext_ParallelFor,
             (const OrtKernelContext *, void (*)(void *, size_t), size_t total, size_t batches, void *))

/* Give a status on to whoever called. */
#define ORT_TRY(call)                      \
    do {                                   \
        OrtStatus *problem_ = (call);      \
        if (problem_ != NULL) return problem_; \
    } while (0)

#endif
