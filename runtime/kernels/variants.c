#include "variants.h"

#include <cpuid.h>
#include <stddef.h>

static int allowed = AVX512;

#ifdef COMPILES_AVX_VNNI
#define AVX_VNNI_HERE &AVX_VNNI_KERNELS
/* Not every compiler that knows the instructions knows their name; and to ask takes long in a virtual machine. */
static int avx_vnni_is_here(void) {
    enum { NOT_ASKED, NO, YES, LEAF = 7, SUBLEAF = 1, AVX_VNNI_BIT = 1 << 4 };
    static _Atomic int found = NOT_ASKED;
    unsigned a, b, c, d;
    if (found == NOT_ASKED)
        found = __get_cpuid_count(LEAF, SUBLEAF, &a, &b, &c, &d) && (a & AVX_VNNI_BIT) != 0 ? YES : NO;
    return found == YES;
}
#else
#define AVX_VNNI_HERE NULL
static int avx_vnni_is_here(void) { return 0; }
#endif

static int avx512_is_here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

int chosen_level(void) {
    /* Every processor with AVX2 has FMA and F16C. */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NO_KERNELS;
    if (allowed >= AVX512 && avx512_is_here()) return AVX512;
    if (allowed >= AVX_VNNI && avx_vnni_is_here()) return AVX_VNNI;
    return allowed >= AVX2 ? AVX2 : NO_KERNELS;
}

void allow_level(int at_most) { allowed = at_most; }

const kernel_variant *chosen_kernels(void) {
    static const kernel_variant *const levels[] = {NULL, &AVX2_KERNELS, AVX_VNNI_HERE, &AVX512_KERNELS};
    return levels[chosen_level()];
}
