// What is done with LANES vectors at once, across their lanes: transposition and sums.
#pragma once
#include "vectors.h"

namespace escsr {
namespace ESCSR_LEVEL {

// a0 b0 a1 b1 ... of the first or the second halves of two vectors.
#if ESCSR_LANES == 16
#define ESCSR_FIRST 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ESCSR_SECOND 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif ESCSR_LANES == 8
#define ESCSR_FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define ESCSR_SECOND 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ESCSR_FIRST 0, 4, 1, 5
#define ESCSR_SECOND 2, 6, 3, 7
#endif
#if defined(__clang__) || __GNUC__ >= 12
static inline Vec interleave_first(Vec a, Vec b) { return __builtin_shufflevector(a, b, ESCSR_FIRST); }
static inline Vec interleave_second(Vec a, Vec b) { return __builtin_shufflevector(a, b, ESCSR_SECOND); }
#else
static inline Vec interleave_first(Vec a, Vec b) { return __builtin_shuffle(a, b, IntVec{ESCSR_FIRST}); }
static inline Vec interleave_second(Vec a, Vec b) { return __builtin_shuffle(a, b, IntVec{ESCSR_SECOND}); }
#endif
#undef ESCSR_FIRST
#undef ESCSR_SECOND

// Rows become columns.
static inline void transpose(Vec (&rows)[LANES]) {
    // Each step halves the distance of what belongs together.
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        Vec next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; ++i) {
            next[2 * i] = interleave_first(rows[i], rows[i + LANES / 2]);
            next[2 * i + 1] = interleave_second(rows[i], rows[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) rows[i] = next[i];
    }
}

// The sums of LANES vectors, each added up in the order of sum_of.
static inline Vec sums_of(Vec (&rows)[LANES]) {
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i)
            rows[i] = interleave_first(rows[i], rows[i + half]) + interleave_second(rows[i], rows[i + half]);
    return rows[0];
}

// to (width, LANES) = the first `width` columns of LANES rows. Whole vectors are read of each row.
static inline void transpose(const float* from, int64_t step, int64_t width, float* to) {
    for (int64_t first = 0; first < width; first += LANES) {
        Vec rows[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) rows[i] = load(from + i * step + first);
        transpose(rows);
        const int64_t count = least<int64_t>(LANES, width - first);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (i < count) store(to + (first + i) * LANES, rows[i]);
    }
}

}  // namespace ESCSR_LEVEL
}  // namespace escsr
