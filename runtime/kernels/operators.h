/* The operators, and what they have in common. */
#ifndef SOTTOVOCE_OPERATORS_H
#define SOTTOVOCE_OPERATORS_H

#include "onnxruntime_interface.h"

/* In place of ONNX Runtime's own of these names. */
extern const OrtCustomOp MATMUL_NBITS;
extern const OrtCustomOp GROUP_QUERY_ATTENTION;
/* Layers of a decoder, and halves of one: what a graph is rewritten to (fused_graph.py). */
enum { LAYER_OPERATOR_COUNT = 3 };
extern const OrtCustomOp *const LAYER_OPERATORS[LAYER_OPERATOR_COUNT];

const char *cpu_provider(const OrtCustomOp *operator);
int host_memory(const OrtCustomOp *operator, size_t index);
int always_float(const OrtCustomOp *operator, size_t index);
int always_there(const OrtCustomOp *operator, size_t index);
int first_version(const OrtCustomOp *operator);
int last_version(const OrtCustomOp *operator);

/* An operator of the functions that its file has by these names. */
#define OPERATOR_OF_THIS_FILE                                                                                 \
    {.version = ORT_INTERFACE, .GetExecutionProviderType = cpu_provider, .GetInputMemoryType = host_memory,   \
     .GetOutputCharacteristic = always_there, .GetOutputType = always_float, .GetStartVersion = first_version, \
     .GetEndVersion = last_version, .GetName = name, .GetInputTypeCount = input_count,                        \
     .GetInputType = input_type, .GetInputCharacteristic = is_optional, .GetOutputTypeCount = output_count,   \
     .CreateKernelV2 = create, .KernelComputeV2 = compute, .KernelDestroy = destroy}

#endif
