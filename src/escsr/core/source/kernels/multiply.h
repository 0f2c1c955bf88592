// Products of a few pixels with a small matrix of weights, and LayerNorm, on rows that are in cache.
#pragma once
#include "vectors.h"

namespace escsr {
namespace ESCSR_LEVEL {

// What a product starts from.
enum class From { zero, bias, result };

namespace detail {

template <int VECTORS, int PIXELS>
static inline void multiply_block(const float* in, int64_t in_step, int64_t depth, const float* weight,
                                  int64_t weight_step, float* out, int64_t out_step, From from, const float* bias) {
    Vec total[PIXELS][VECTORS];
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v)
            total[p][v] = from == From::zero   ? Vec{}
                          : from == From::bias ? load(bias + v * LANES)
                                               : load(out + p * out_step + v * LANES);
    for (int64_t k = 0; k < depth; ++k) {
        Vec row[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) row[v] = load(weight + k * weight_step + v * LANES);
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) total[p][v] += in[p * in_step + k] * row[v];
    }
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) store(out + p * out_step + v * LANES, total[p][v]);
}

template <int VECTORS, int PIXELS>
static inline void multiply_columns(const float* in, int64_t in_step, int64_t pixels, int64_t depth,
                                    const float* weight, int64_t weight_step, float* out, int64_t out_step,
                                    From from, const float* bias) {
    int64_t p = 0;
    for (; p + PIXELS <= pixels; p += PIXELS)
        multiply_block<VECTORS, PIXELS>(in + p * in_step, in_step, depth, weight, weight_step, out + p * out_step,
                                        out_step, from, bias);
    // One pixel at a time would wait for each sum: few are taken together.
    if (PIXELS > 4 && p + 4 <= pixels) {
        multiply_block<VECTORS, 4>(in + p * in_step, in_step, depth, weight, weight_step, out + p * out_step, out_step,
                                   from, bias);
        p += 4;
    }
    if (PIXELS > 2 && p + 2 <= pixels) {
        multiply_block<VECTORS, 2>(in + p * in_step, in_step, depth, weight, weight_step, out + p * out_step, out_step,
                                   from, bias);
        p += 2;
    }
    for (; p < pixels; ++p)
        multiply_block<VECTORS, 1>(in + p * in_step, in_step, depth, weight, weight_step, out + p * out_step,
                                   out_step, from, bias);
}

}  // namespace detail

// out (pixels, width) = zero, bias or out, + in (pixels, depth) times weight (depth, width); width in whole vectors.
static inline void multiply(const float* in, int64_t in_step, int64_t pixels, int64_t depth, const float* weight,
                            int64_t width, float* out, int64_t out_step, From from, const float* bias = nullptr) {
    // As many sums as registers hold, and neither more nor fewer.
    constexpr int WIDE = REGISTERS == 32 ? 4 : 2;
    int64_t done = 0;
    while (done < width) {
        const int64_t left = (width - done) / LANES;
        const float* w = weight + done;
        const float* b = from == From::bias ? bias + done : nullptr;
        float* o = out + done;
        int64_t taken = least<int64_t>(left, WIDE);
        if (REGISTERS == 32 && left == 5) {
            detail::multiply_columns<5, 5>(in, in_step, pixels, depth, w, width, o, out_step, from, b);
            taken = 5;
        } else if (taken == 4) {
            detail::multiply_columns<4, 6>(in, in_step, pixels, depth, w, width, o, out_step, from, b);
        } else if (taken == 3) {
            detail::multiply_columns<3, 8>(in, in_step, pixels, depth, w, width, o, out_step, from, b);
        } else if (taken == 2) {
            detail::multiply_columns<2, 6>(in, in_step, pixels, depth, w, width, o, out_step, from, b);
        } else {
            detail::multiply_columns<1, 12>(in, in_step, pixels, depth, w, width, o, out_step, from, b);
        }
        done += taken * LANES;
    }
}

// Each pixel of (pixels, width) to mean 0 and variance 1 over its first `dim` channels. The others are zeros, and
// anything afterwards: weights that meet them are zeros.
static inline void normalise(const float* in, int64_t in_step, int64_t pixels, int64_t width, int64_t dim, float* out,
                             int64_t out_step) {
    constexpr float EPSILON = 1e-6f;
    const int64_t whole = dim / LANES * LANES;
    const float share_of_one = 1.0f / static_cast<float>(dim);
    for (int64_t p = 0; p < pixels; ++p, in += in_step, out += out_step) {
        Vec sum = Vec{}, squares = Vec{};
        for (int64_t c = 0; c < width; c += LANES) sum += load(in + c);
        const float mean = sum_of(sum) * share_of_one;
        for (int64_t c = 0; c < whole; c += LANES) {
            const Vec centred = load(in + c) - mean;
            squares += centred * centred;
        }
        float variance = sum_of(squares);
        for (int64_t c = whole; c < dim; ++c) variance += (in[c] - mean) * (in[c] - mean);
        const float share = 1.0f / sqrtf(variance * share_of_one + EPSILON);
        for (int64_t c = 0; c < width; c += LANES) store(out + c, (load(in + c) - mean) * share);
    }
}

}  // namespace ESCSR_LEVEL
}  // namespace escsr
