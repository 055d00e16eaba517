#include "gated_half.h"

#include <string.h>

#include "whole_numbers.h"

enum { NORM, GATE, GATE_SCALES, UP, UP_SCALES, DOWN, DOWN_SCALES };

OrtStatus *read_gated_half(OrtApi *api, const OrtKernelInfo *info, size_t first, gated_half *into) {
    ORT_TRY(read_norm(api, info, first + NORM, &into->norm));
    ORT_TRY(read_product(api, info, first + GATE, into->norm.width, &into->gate));
    ORT_TRY(read_product(api, info, first + UP, into->norm.width, &into->up));
    ORT_TRY(read_product(api, info, first + DOWN, into->gate.columns, &into->down));
    if (into->up.columns != into->gate.columns || into->up.bits != into->gate.bits ||
        into->down.columns != into->norm.width)
        return refuse(api, "a layer's gate, up and down: they do not fit one another");
    return NULL;
}

void release_gated_half(gated_half *of) {
    release_weights(&of->gate);
    release_weights(&of->up);
    release_weights(&of->down);
}

/* Gate's tiles, and then up's: of as many columns, and of the same rows. */
static void multiply_inner(void *shared, int64_t tile) {
    gated_run *of = shared;
    const int64_t tiles = of->of->gate.tiles;
    if (tile < tiles)
        multiply_one_tile(&of->gate, tile);
    else
        multiply_one_tile(&of->up, tile - tiles);
}

static extent read_by_inner(void *shared, int64_t from, int64_t to) {
    gated_run *of = shared;
    const int64_t tiles = of->of->gate.tiles;
    return from < tiles ? read_by_tiles(&of->gate, from, smaller(to, tiles))
                        : read_by_tiles(&of->up, from - tiles, to - tiles);
}

static void gate_row(void *shared, int64_t row) {
    gated_run *of = shared;
    const int64_t width = of->of->gate.columns, at = row * width;
    of->kernels->gate_row(of->gate.into.values + at, of->up.into.values + at, width);
    of->kernels->round_row(&of->of->down, of->gate.into.values + at, row, &of->rounded);
}

gated_run plan_gated_run(const gated_half *of, int64_t count, const residual_rows *rows) {
    return (gated_run){.of = of, .kernels = chosen_kernels(), .count = count, .rows = *rows};
}

/* In floats, in the order in which they lie: normed, gate, up. */
static size_t floats_of(const gated_run *of) {
    return (size_t)of->count * (size_t)(of->of->norm.width + 2 * of->of->gate.columns);
}

size_t gated_run_bytes(const gated_run *of) {
    return floats_of(of) * sizeof(float) + rounded_rows_bytes(&of->of->gate, of->count) +
           rounded_rows_bytes(&of->of->down, of->count);
}

void place_gated_run(gated_run *of, void *memory) {
    const gated_half *with = of->of;
    float *normed = memory, *gate = normed + of->count * with->norm.width, *up = gate + of->count * with->gate.columns;
    uint8_t *rounded = (uint8_t *)(normed + floats_of(of));
    of->normed = (normed_rows){of->kernels, &with->norm, &with->gate, of->rows.hidden, normed,
                               place_rounded_rows(&with->gate, of->count, rounded)};
    of->rounded = place_rounded_rows(&with->down, of->count, rounded + rounded_rows_bytes(&with->gate, of->count));
    of->gate = (tile_product){of->kernels, &with->gate, &of->normed.rounded, {.values = gate}};
    of->up = (tile_product){of->kernels, &with->up, &of->normed.rounded, {.values = up}};
    of->down = (tile_product){of->kernels, &with->down, &of->rounded,
                              {of->rows.hidden, with->norm.width, of->rows.result}};
}

phase *add_gated_phases(gated_run *of, phase *into) {
    const phase phases[GATED_PHASES] = {
        norm_phase(&of->normed),
        {of, of->of->gate.tiles + of->of->up.tiles, multiply_inner, read_by_inner},
        {of, of->count, gate_row, NULL},
        product_phase(&of->down),
    };
    memcpy(into, phases, sizeof phases);
    return into + GATED_PHASES;
}
