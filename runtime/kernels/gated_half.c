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

static void prepare_row(void *shared, int64_t row) {
    gated_run *of = shared;
    prepare_product(of->kernels, &of->of->norm, &of->of->gate, &of->rows, row, of->normed, &of->outer);
}

static void multiply_inner(void *shared, int64_t tile) {
    const gated_run *of = shared;
    const packed_weights *gate = &of->of->gate, *up = &of->of->up;
    const result_rows into = {.values = tile < gate->tiles ? of->gate : of->up};
    if (tile < gate->tiles)
        of->kernels->multiply_tile(gate, &of->outer, tile, &into);
    else
        of->kernels->multiply_tile(up, &of->outer, tile - gate->tiles, &into);
}

static extent read_by_rows(void *shared, int64_t from, int64_t to) {
    return (void)from, (void)to, norm_extent(&((const gated_run *)shared)->of->norm);
}

static extent read_by_inner(void *shared, int64_t from, int64_t to) {
    const gated_half *of = ((const gated_run *)shared)->of;
    const int64_t tiles = of->gate.tiles;
    return from < tiles ? tile_extent(&of->gate, from, smaller(to, tiles)) : tile_extent(&of->up, from - tiles, to - tiles);
}

static void gate_row(void *shared, int64_t row) {
    gated_run *of = shared;
    const int64_t width = of->of->gate.columns;
    of->kernels->gate_row(of->gate + row * width, of->up + row * width, width);
    of->kernels->round_row(&of->of->down, of->gate + row * width, row, &of->inner);
}

static void multiply_down(void *shared, int64_t tile) {
    const gated_run *of = shared;
    const result_rows into = {of->rows.hidden, of->of->norm.width, of->rows.result};
    of->kernels->multiply_tile(&of->of->down, &of->inner, tile, &into);
}

static extent read_by_down(void *shared, int64_t from, int64_t to) {
    return tile_extent(&((const gated_run *)shared)->of->down, from, to);
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
    of->normed = memory;
    of->gate = of->normed + of->count * of->of->norm.width;
    of->up = of->gate + of->count * of->of->gate.columns;
    uint8_t *rounded = (uint8_t *)(of->normed + floats_of(of));
    of->outer = place_rounded_rows(&of->of->gate, of->count, rounded);
    of->inner = place_rounded_rows(&of->of->down, of->count, rounded + rounded_rows_bytes(&of->of->gate, of->count));
}

phase *add_gated_phases(gated_run *of, phase *into) {
    const phase phases[GATED_PHASES] = {
        {of, of->count, prepare_row, read_by_rows},
        {of, of->of->gate.tiles + of->of->up.tiles, multiply_inner, read_by_inner},
        {of, of->count, gate_row, NULL},
        {of, of->of->down.tiles, multiply_down, read_by_down},
    };
    memcpy(into, phases, sizeof phases);
    return into + GATED_PHASES;
}
