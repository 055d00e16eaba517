/* Memory for packed weights: few large slabs in huge pages, given out piece by piece.
 *
 * A decoder reads each weight once a token. In pages of 4 KiB an Intel Xeon finds 10 GB/s that way, in pages of 2 MiB
 * 14, and 23 where the processor is told 4 KiB ahead, which it cannot do over the end of a small page.
 */
#ifndef SOTTOVOCE_WEIGHT_MEMORY_H
#define SOTTOVOCE_WEIGHT_MEMORY_H

#include <stddef.h>

/* `bytes` that begin at a multiple of 64; NULL if there is no memory. */
void *take_weight_memory(size_t bytes);
/* A slab goes back to the system with the last of its pieces. */
void release_weight_memory(void *piece);

#endif
