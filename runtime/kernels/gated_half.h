/* The second half of a decoder layer: norm, gate and up, their product (SwiGLU), down, and the sum with what came in. */
#ifndef SOTTOVOCE_GATED_HALF_H
#define SOTTOVOCE_GATED_HALF_H

#include "layer_weights.h"
#include "team.h"
#include "variants.h"

typedef struct {
    row_norm norm;
    packed_weights gate, up, down;
} gated_half;

/* What the threads share. */
typedef struct {
    const gated_half *of;
    const kernel_variant *kernels; /* one for the whole run: what they take as zero differs */
    int64_t count;                 /* of rows */
    residual_rows rows;
    normed_rows normed;
    rounded_rows rounded; /* gate times up */
    tile_product gate, up, down;
} gated_run;

enum { GATED_INPUTS = 7, GATED_PHASES = 4 };

/* From the operator's inputs `first` on: the norm's weights; then weights and scales of gate, up and down. To be
 * released whatever comes of it. */
OrtStatus *read_gated_half(OrtApi *api, const OrtKernelInfo *info, size_t first, gated_half *into);
void release_gated_half(gated_half *of);

/* A run without its working memory, which can be that of all halves that follow one another. */
gated_run plan_gated_run(const gated_half *of, int64_t count, const residual_rows *rows);
size_t gated_run_bytes(const gated_run *of);
void place_gated_run(gated_run *of, void *memory);

/* What is to be done, one after the other: `GATED_PHASES` of them; where the next ones go. */
phase *add_gated_phases(gated_run *of, phase *into);

#endif
