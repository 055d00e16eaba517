/* The first half of a decoder layer: norm, queries, keys and values, rotary positions, attention over the cache, the
 * product with its result, and the sum with what came in. */
#ifndef SOTTOVOCE_ATTENTION_HALF_H
#define SOTTOVOCE_ATTENTION_HALF_H

#include "attention.h"
#include "layer_weights.h"
#include "team.h"
#include "variants.h"

/* Attributes of the operator, the same for all of its layers. */
typedef struct {
    int64_t query_heads, kv_heads, head_size;
    float scale;
    int has_bias, has_sinks; /* 0 or 1 */
} attention_shape;

typedef struct {
    attention_shape shape;
    row_norm norm;
    packed_weights projection; /* columns of queries, then of keys, then of values */
    packed_weights out;
    const float *bias, *sinks; /* of the projection's columns, and of the heads; or NULL */
} attention_half;

/* What a call says of its rows, which are positions; the same for all layers. */
typedef struct {
    int64_t queries;        /* how many */
    int64_t filled;         /* positions of the cache, with these */
    const float *angles[4]; /* cosines and sines for queries, then for keys: (queries, head_size / 2) each */
} call_positions;

/* One layer's cache, in which the call's own positions are not written yet: (kv_heads, capacity, head_size) each. */
typedef struct {
    float *keys, *values;
    int64_t capacity;
} layer_cache;

/* What the threads share. */
typedef struct {
    const attention_half *of;
    const kernel_variant *kernels; /* one for the whole run: what they take as zero differs */
    const call_positions *at;
    layer_cache cache;
    residual_rows rows;
    attention attention;
    attention_plan plan;
    float *projected;       /* (rows, columns of the projection) */
    float *query, *context; /* (rows, query_heads, head_size), turned; and the attention's result */
    float *scratch;         /* the attention's */
    normed_rows normed;
    rounded_rows rounded; /* the context */
    tile_product project, out;
} attention_run;

/* A layer's inputs: the norm's weights; weights and scales of the projection and of the last product; the cache's two
 * buffers; then the projection's bias, and the sinks, where there are any. */
enum { PAST_KEY = 5, PAST_VALUE = 6 };
enum { ATTENTION_PHASES = 6 };

OrtStatus *read_attention_shape(OrtApi *api, const OrtKernelInfo *info, attention_shape *into);
size_t attention_inputs(const attention_shape *of);

/* What is constant among the operator's inputs from `first` on; to be released whatever comes of it. */
OrtStatus *read_attention_half(OrtApi *api, const OrtKernelInfo *info, size_t first, attention_half *into);
void release_attention_half(attention_half *of);

/* A run without its working memory, which can be that of all halves that follow one another. */
attention_run plan_attention_run(const attention_half *of, const call_positions *at, const layer_cache *cache,
                                 const residual_rows *rows);
size_t attention_run_bytes(const attention_run *of);
void place_attention_run(attention_run *of, void *memory);

/* What is to be done, one after the other: `ATTENTION_PHASES` of them; where the next ones go. */
phase *add_attention_phases(attention_run *of, phase *into);

#endif
