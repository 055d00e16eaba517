#include "team.h"

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_inputs.h"
#include "whole_numbers.h"

enum {
    LINE = 64,
    COUNTERS_OF_A_LINE = LINE / sizeof(int64_t),
    READ_AHEAD = 32 << 10, /* bytes asked for while waiting: a small part of the second cache */
    LINES_AT_ONCE = 4,     /* between two looks at whether the others are done */
    PATIENCE = 512,        /* looks, some tens of microseconds, before the processor is offered to others */
};

/* Of each phase a counter of the pieces that are done; and for each thread of those begun of its stretch, of which the
 * others take what it has not begun. A thread's counters lie in lines of its own. */
typedef struct {
    const phase *phases;
    int64_t threads, count, row; /* counters of a row: `count`, in whole lines */
    _Atomic int64_t *counters;   /* (1 + threads, row) */
} team;

static int64_t first_piece(int64_t pieces, int64_t threads, int64_t thread) { return pieces * thread / threads; }

static _Atomic int64_t *done(const team *of, int64_t at) { return of->counters + at; }
static _Atomic int64_t *begun(const team *of, int64_t at, int64_t thread) {
    return of->counters + (1 + thread) * of->row + at;
}

static void do_pieces(const team *of, int64_t at, int64_t self) {
    const phase *now = of->phases + at;
    int64_t did = 0, piece;
    for (int64_t i = 0; i < of->threads; i++) {
        const int64_t thread = (self + i) % of->threads, end = first_piece(now->pieces, of->threads, thread + 1);
        const int64_t first = first_piece(now->pieces, of->threads, thread);
        _Atomic int64_t *next = begun(of, at, thread);
        while ((piece = first + atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < end) {
            now->work(now->shared, piece);
            did++;
        }
    }
    atomic_fetch_add_explicit(done(of, at), did, memory_order_release);
}

/* What a thread reads in the phases behind one, line by line. */
typedef struct {
    const team *of;
    int64_t self, at;
    extent left;
} ahead;

/* Ask memory for the next line; whether there was one. */
static int ask_for_a_line(ahead *next) {
    while (next->left.bytes <= 0) {
        if (++next->at >= next->of->count) return 0;
        const phase *then = next->of->phases + next->at;
        const int64_t from = first_piece(then->pieces, next->of->threads, next->self);
        const int64_t to = first_piece(then->pieces, next->of->threads, next->self + 1);
        if (then->reads != NULL && from < to) next->left = then->reads(then->shared, from, to);
    }
    _mm_prefetch(next->left.from, _MM_HINT_T1);
    next->left.from = (const char *)next->left.from + LINE;
    next->left.bytes -= LINE;
    return 1;
}

static void await(const team *of, int64_t at, int64_t self) {
    ahead next = {of, self, at, {NULL, 0}};
    int asked = 0, looks = 0;
    while (atomic_load_explicit(done(of, at), memory_order_acquire) < of->phases[at].pieces) {
        for (int i = 0; i < LINES_AT_ONCE && asked < READ_AHEAD; i++, asked += LINE)
            if (!ask_for_a_line(&next)) asked = READ_AHEAD;
        _mm_pause();
        if (++looks > PATIENCE) sched_yield();
    }
}

static void take_part(void *shared, size_t index) {
    const team *of = shared;
    for (int64_t at = 0; at < of->count; at++) {
        do_pieces(of, at, (int64_t)index);
        if (at + 1 < of->count) await(of, at, (int64_t)index);
    }
}

OrtStatus *work_in_phases(const workers *by, int64_t threads, const phase *phases, int64_t count) {
    team of = {.phases = phases, .count = count};
    of.threads = threads < 1 ? 1 : smaller(threads, MOST_THREADS);
    of.row = ceiling(count, COUNTERS_OF_A_LINE) * COUNTERS_OF_A_LINE;
    const size_t bytes = (size_t)((1 + of.threads) * of.row) * sizeof *of.counters;
    void *memory;
    ORT_TRY(take_memory(by->api, bytes + LINE, &memory));
    of.counters = (_Atomic int64_t *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    memset((void *)of.counters, 0, bytes);
    OrtStatus *problem =
        ort_KernelContext_ParallelFor(by->api)(by->context, take_part, (size_t)of.threads, 0, &of);
    free(memory);
    return problem;
}
