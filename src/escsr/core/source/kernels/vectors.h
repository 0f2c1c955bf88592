// Vectors of float32, and what is computed on them. No intrinsics: the compiler's vector extension becomes AVX-512,
// AVX2, SSE, NEON or SIMD128. Everything here is compiled once for each level, in a namespace of its own.
#pragma once
#include "../base.h"

#ifndef ESCSR_LEVEL
#error "compile level.cpp with -DESCSR_LEVEL=avx512, avx2, sse42, neon, simd128 or generic, and -DESCSR_LANES"
#endif

// Of a lambda that a kernel's inner loops call.
#define ESCSR_INLINED __attribute__((always_inline))

namespace escsr {
namespace ESCSR_LEVEL {

constexpr int LANES = ESCSR_LANES;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * LANES)));
typedef int32_t UnalignedIntVec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float UnalignedVec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vec load(const float* from) { return *reinterpret_cast<const UnalignedVec*>(from); }
static inline void store(float* to, Vec value) { *reinterpret_cast<UnalignedVec*>(to) = value; }
static inline Vec all(float value) { return value - Vec{}; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// Whole numbers where floats lie.
static inline void store_whole(float* to, IntVec value) { *reinterpret_cast<UnalignedIntVec*>(to) = value; }
static inline int32_t load_whole(const float* from) {
    int32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}
// NaN becomes `low`.
static inline Vec within(Vec value, float low, float high) {
    value = value > low ? value : all(low);
    return value < high ? value : all(high);
}

static inline float sum_of(Vec value) {
    float part[LANES];
    store(part, value);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
    return part[0];
}

// 2^x for x <= 127; below -126 it is 2^-126. Relative error 1e-7.
static inline Vec exp2_of(Vec x) {
    const float to_whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    x = larger(all(-126.0f), x);  // in this order NaN stays NaN
    const Vec shifted = x + to_whole;
    const Vec f = x - (shifted - to_whole);  // in [-1/2, 1/2]
    Vec p = f * 1.3276428e-3f + 9.675541e-3f;
    p = p * f + 5.5507135e-2f;
    p = p * f + 0.2402212f;
    p = p * f + 0.69314694f;
    p = p * f + 1.0f;
    // The exponent of p grows by the whole number in the low bits of `shifted`.
    return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// 1 / (1 + e^-x)
static inline Vec sigmoid_of(Vec x) {
    const Vec power = x * -1.44269504f;
    return 1.0f / (1.0f + exp2_of(power > 126.0f ? all(126.0f) : power));
}

// GELU with the exact erf: x Phi(x) = max(x, 0) - |x| Q(|x|), Q the share of the normal distribution beyond |x|. The
// polynomial is the eighth root of Q on [0, 5.25], beyond which the product is below 4e-7; fitted so that the error of
// the whole is at most 1.2e-7 before rounding. It takes neither a division nor an exponential.
static inline Vec gelu_of(Vec x) {
    const Vec y = larger(x, -x);  // NaN stays in one of the two
    const Vec u = y > 5.25f ? all(5.25f) : y;
    Vec p = u * 3.23822237e-6f - 3.56911014e-5f;
    p = p * u - 3.99366259e-5f;
    p = p * u + 1.63040726e-3f;
    p = p * u - 7.92564106e-4f;
    p = p * u - 3.18664526e-2f;
    p = p * u - 9.14720825e-2f;
    p = p * u + 0.917005155f;
    p *= p;
    p *= p;
    p *= p;
    return larger(x, Vec{}) - u * p;
}

}  // namespace ESCSR_LEVEL
}  // namespace escsr
