#define _GNU_SOURCE
#include "weight_memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LINE 64
#define SLAB ((size_t)64 << 20) /* of addresses: memory is only what has been written */

typedef struct slab slab;
struct slab {
    slab *next;
    uint8_t *start;
    size_t bytes, used, pieces;
};

static slab *slabs; /* the newest first */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static slab *new_slab(size_t bytes) {
    slab *made = malloc(sizeof *made);
    if (made == NULL) return NULL;
    *made = (slab){.next = slabs, .bytes = bytes > SLAB ? bytes : SLAB};
    made->start = mmap(NULL, made->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made->start == MAP_FAILED) {
        free(made);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    madvise(made->start, made->bytes, MADV_HUGEPAGE); /* where the system has none, small pages do */
#endif
    return slabs = made;
}

void *take_weight_memory(size_t bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    pthread_mutex_lock(&lock);
    slab *from = slabs;
    if (from == NULL || from->bytes - from->used < bytes) from = new_slab(bytes);
    void *piece = NULL;
    if (from != NULL) {
        piece = from->start + from->used;
        from->used += bytes;
        from->pieces++;
    }
    pthread_mutex_unlock(&lock);
    return piece;
}

void release_weight_memory(void *piece) {
    pthread_mutex_lock(&lock);
    for (slab **at = &slabs; *at != NULL; at = &(*at)->next) {
        slab *from = *at;
        if ((uint8_t *)piece < from->start || (uint8_t *)piece >= from->start + from->bytes) continue;
        if (--from->pieces == 0) {
            *at = from->next;
            munmap(from->start, from->bytes);
            free(from);
        }
        break;
    }
    pthread_mutex_unlock(&lock);
}
