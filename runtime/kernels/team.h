/* Work in phases, each of which needs all of the one before, on as many threads as come.
 *
 * Handing each phase to ONNX Runtime's threads costs some microseconds, of which a decoder's token has hundreds. They
 * are called once instead, and go from phase to phase together. Nobody waits for a thread that has not come: whoever is
 * there does its pieces, too. Who waits for the others' last pieces asks memory for what comes next.
 */
#ifndef SOTTOVOCE_TEAM_H
#define SOTTOVOCE_TEAM_H

#include "shared_work.h"

enum { MOST_THREADS = 64 };

/* Memory that lies together. */
typedef struct {
    const void *from;
    int64_t bytes;
} extent;

typedef struct {
    void *shared;
    int64_t pieces;
    void (*work)(void *shared, int64_t piece);
    extent (*reads)(void *shared, int64_t from, int64_t to); /* what pieces read that nobody has read before; or NULL */
} phase;

/* Each piece of each phase once; the pieces of a thread follow one another as far as they can. */
OrtStatus *work_in_phases(const workers *by, int64_t threads, const phase *phases, int64_t count);

#endif
