/* Arithmetic of counts. */
#ifndef SOTTOVOCE_WHOLE_NUMBERS_H
#define SOTTOVOCE_WHOLE_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

static inline int64_t ceiling(int64_t of, int64_t by) { return (of + by - 1) / by; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline size_t larger_size(size_t a, size_t b) { return a > b ? a : b; }

#endif
