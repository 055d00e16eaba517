#include "team.h"

#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>

enum {
    LINE = 64,
    READ_AHEAD = 32 << 10, /* bytes asked for while waiting: a small part of the second cache */
    LINES_AT_ONCE = 4,     /* between two looks at whether the others are done */
    PATIENCE = 512,        /* looks, some tens of microseconds, before the processor is offered to others */
};

/* A thread's pieces of a phase, of which the others take what it has not begun. */
typedef struct {
    _Alignas(LINE) _Atomic int64_t next;
    int64_t end;
} stretch;

typedef struct {
    const phase *phases;
    void *shared;
    int64_t threads;
    int count;
    _Alignas(LINE) _Atomic int64_t done[MOST_PHASES];
    stretch stretches[MOST_PHASES][MOST_THREADS];
} team;

static int64_t first_piece(int64_t pieces, int64_t threads, int64_t thread) { return pieces * thread / threads; }

static void do_pieces(team *of, int at, int64_t self) {
    int64_t done = 0, piece;
    for (int64_t i = 0; i < of->threads; i++) {
        stretch *from = &of->stretches[at][(self + i) % of->threads];
        while ((piece = atomic_fetch_add_explicit(&from->next, 1, memory_order_relaxed)) < from->end) {
            of->phases[at].work(of->shared, piece);
            done++;
        }
    }
    atomic_fetch_add_explicit(&of->done[at], done, memory_order_release);
}

/* Where this thread's first piece of the next phase that reads weights begins. */
static const uint8_t *next_read(const team *of, int at, int64_t self) {
    for (at++; at < of->count; at++) {
        const phase *next = of->phases + at;
        if (next->reads != NULL) return next->reads(of->shared, first_piece(next->pieces, of->threads, self));
    }
    return NULL;
}

static void await(team *of, int at, int64_t self) {
    const uint8_t *from = next_read(of, at, self);
    int asked = from == NULL ? READ_AHEAD : 0, looks = 0;
    while (atomic_load_explicit(&of->done[at], memory_order_acquire) < of->phases[at].pieces) {
        for (int i = 0; i < LINES_AT_ONCE && asked < READ_AHEAD; i++, asked += LINE)
            _mm_prefetch((const char *)from + asked, _MM_HINT_T1);
        _mm_pause();
        if (++looks > PATIENCE) sched_yield();
    }
}

static void take_part(void *shared, size_t index) {
    team *of = shared;
    for (int at = 0; at < of->count; at++) {
        do_pieces(of, at, (int64_t)index);
        if (at + 1 < of->count) await(of, at, (int64_t)index);
    }
}

OrtStatus *work_in_phases(const workers *by, int64_t threads, const phase *phases, int count, void *shared) {
    team of;
    of.phases = phases;
    of.shared = shared;
    of.threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    of.count = count;
    for (int at = 0; at < count; at++) {
        atomic_init(&of.done[at], 0);
        for (int64_t thread = 0; thread < of.threads; thread++) {
            atomic_init(&of.stretches[at][thread].next, first_piece(phases[at].pieces, of.threads, thread));
            of.stretches[at][thread].end = first_piece(phases[at].pieces, of.threads, thread + 1);
        }
    }
    return ort_KernelContext_ParallelFor(by->api)(by->context, take_part, (size_t)of.threads, 0, &of);
}
