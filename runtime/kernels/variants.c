#include "variants.h"

#include <stddef.h>

static int allowed = AVX512;

static int level_here(void) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return AVX512;
    /* Every processor with AVX2 has FMA and F16C. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? AVX2 : NO_KERNELS;
}

int chosen_level(void) {
    const int here = level_here();
    return here < allowed ? here : allowed;
}

void allow_level(int at_most) { allowed = at_most; }

const kernel_variant *chosen_kernels(void) {
    static const kernel_variant *const levels[] = {NULL, &AVX2_KERNELS, &AVX512_KERNELS};
    return levels[chosen_level()];
}
