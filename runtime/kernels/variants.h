/* The loops that are compiled for several kinds of processors, and which of them this one takes. */
#ifndef SOTTOVOCE_VARIANTS_H
#define SOTTOVOCE_VARIANTS_H

#include "attention.h"
#include "blocked_product.h"

typedef struct {
    /* Round one row of `weights->depth` values. */
    void (*round_row)(const packed_weights *weights, const float *values, int64_t row, rounded_rows *into);
    /* All rows times the 16 columns of one tile. */
    void (*multiply_tile)(const packed_weights *weights, const rounded_rows *rows, int64_t tile,
                          const result_rows *result);
    /* What positions `from` to `to` of a KV head add to some rows. */
    void (*attend_rows)(const attention *of, attention_rows *rows, int64_t kv_head, int64_t from, int64_t to);
    /* `count` values by the root of their mean square (Zhang and Sennrich, 2019, RMSNorm), times `weights`. */
    void (*normalize_row)(const float *values, const float *weights, int64_t count, float epsilon, float *into);
    /* gate * sigmoid(gate) * up (Shazeer, 2020, SwiGLU), in the place of `gate`. */
    void (*gate_row)(float *gate, const float *up, int64_t count);
} kernel_variant;

/* Compilers that know AVX-VNNI. */
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define COMPILES_AVX_VNNI
#endif

extern const kernel_variant AVX512_KERNELS, AVX_VNNI_KERNELS, AVX2_KERNELS;

/* From the slowest to the fastest. */
enum { NO_KERNELS, AVX2, AVX_VNNI, AVX512 };

/* The fastest that this processor has instructions for, and at most what was allowed; NULL if none. */
const kernel_variant *chosen_kernels(void);

/* Which one that is. */
int chosen_level(void);
void allow_level(int at_most);

#endif
