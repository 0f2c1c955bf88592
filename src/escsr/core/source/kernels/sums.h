// Sums of the lanes of several vectors at once.
#pragma once
#include "vectors.h"

namespace escsr {
namespace ESCSR_LEVEL {

namespace detail {

// A list of numbers for the compiler: 0 to COUNT - 1.
template <int... I>
struct Indices {};
template <int COUNT, int... I>
struct CountTo : CountTo<COUNT - 1, COUNT - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
    typedef Indices<I...> Type;
};

// Two vectors are blocks of 2 * BLOCK lanes. Of the vector of the sums of their halves, lane i is the sum of two lanes,
// the first of which is this.
template <int BLOCK>
constexpr int first_half(int i) {
    const int block = i / BLOCK, blocks = LANES / (2 * BLOCK);
    return block / blocks * LANES + block % blocks * 2 * BLOCK + i % BLOCK;
}

template <int BLOCK, int... I>
static inline Vec add_halves(Vec a, Vec b, Indices<I...>) {
    return __builtin_shufflevector(a, b, first_half<BLOCK>(I)...) +
           __builtin_shufflevector(a, b, (first_half<BLOCK>(I) + BLOCK)...);
}

// Of blocks of SIZE lanes, sums over all but BLOCK.
template <int BLOCK, int SIZE>
static inline Vec sums_of_blocks(const Vec* from) {
    if constexpr (2 * BLOCK == SIZE)
        return add_halves<BLOCK>(from[0], from[1], typename CountTo<LANES>::Type());
    else
        return add_halves<BLOCK>(sums_of_blocks<2 * BLOCK, SIZE>(from),
                                 sums_of_blocks<2 * BLOCK, SIZE>(from + SIZE / (2 * BLOCK)),
                                 typename CountTo<LANES>::Type());
}

}  // namespace detail

// SIZE vectors are LANES blocks of SIZE lanes, one after another: lane i is the sum of block i.
template <int SIZE>
static inline Vec sums_of_blocks(const Vec* from) {
    return detail::sums_of_blocks<1, SIZE>(from);
}

}  // namespace ESCSR_LEVEL
}  // namespace escsr
