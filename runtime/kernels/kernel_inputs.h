/* Reading a kernel's attributes, inputs and outputs. */
#ifndef SOTTOVOCE_KERNEL_INPUTS_H
#define SOTTOVOCE_KERNEL_INPUTS_H

#include "onnxruntime_interface.h"

enum { MOST_DIMENSIONS = 8 };

/* An input; `data` is NULL where an optional one is not there. */
typedef struct {
    void *data;
    int element_type;
    size_t dimensions;
    int64_t sizes[MOST_DIMENSIONS];
} tensor;

OrtStatus *refuse(OrtApi *api, const char *why);
OrtStatus *no_memory(OrtApi *api);

/* `otherwise` where the node has no such attribute. */
int64_t integer_attribute(OrtApi *api, const OrtKernelInfo *info, const char *name, int64_t otherwise);
float float_attribute(OrtApi *api, const OrtKernelInfo *info, const char *name, float otherwise);

int64_t element_count(const tensor *of);

/* Whether it is there, with elements of this type. */
int is_of(const tensor *of, int element_type);

/* Whether `b` is there, and as large as `a`. */
int same_sizes(const tensor *a, const tensor *b);

/* A constant input; its data is NULL where the graph gives none. */
OrtStatus *constant_input(OrtApi *api, const OrtKernelInfo *info, size_t index, tensor *found);

OrtStatus *run_input(OrtApi *api, const OrtKernelContext *context, size_t index, tensor *found);
OrtStatus *run_output(OrtApi *api, OrtKernelContext *context, size_t index, const int64_t *sizes, size_t dimensions,
                      void **data);

#endif
