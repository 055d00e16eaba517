/* Products and attention of one run of an operator, on ONNX Runtime's threads. */
#ifndef SOTTOVOCE_SHARED_WORK_H
#define SOTTOVOCE_SHARED_WORK_H

#include "attention.h"
#include "blocked_product.h"
#include "onnxruntime_interface.h"

typedef struct {
    OrtApi *api;
    const OrtKernelContext *context;
} workers;

/* Rows (rows, depth) times the weights. */
OrtStatus *multiply(const workers *by, const float *values, int64_t rows, const packed_weights *weights,
                    const result_rows *result);

OrtStatus *attend_all(const workers *by, const attention *of);

/* What is filled before this call's positions, from the past's buffer to the present's, where they are not one. */
void keep_past(const attention *of, const float *past, float *present);

/* `bytes` of working memory in `into`. */
OrtStatus *take_memory(OrtApi *api, size_t bytes, void **into);

#endif
