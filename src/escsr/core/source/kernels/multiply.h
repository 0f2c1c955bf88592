// Products of a few pixels with a small matrix of weights, and LayerNorm, on rows that are in cache.
#pragma once
#include "transpose.h"
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

namespace detail {

static inline Vec sum_of_pixel(const float* in, int64_t width) {
    Vec sum = Vec{};
    for (int64_t c = 0; c < width; c += LANES) sum += load(in + c);
    return sum;
}

// Of the first `dim` channels; `last`: which lanes of the last vector are among them.
static inline Vec squares_of_pixel(const float* in, int64_t dim, float mean, IntVec last) {
    Vec squares = Vec{};
    int64_t c = 0;
    for (; c + LANES <= dim; c += LANES) {
        const Vec centred = load(in + c) - mean;
        squares += centred * centred;
    }
    if (c < dim) {
        const Vec centred = last ? load(in + c) - mean : Vec{};
        squares += centred * centred;
    }
    return squares;
}

static inline void scale_pixel(const float* in, int64_t width, float mean, float share, float* out) {
    for (int64_t c = 0; c < width; c += LANES) store(out + c, (load(in + c) - mean) * share);
}

}  // namespace detail

// Each pixel of (pixels, width) to mean 0 and variance 1 over its first `dim` channels. The others are zeros, and
// anything afterwards: weights that meet them are zeros. What comes of a pixel does not depend on the others.
static inline void normalise(const float* in, int64_t in_step, int64_t pixels, int64_t width, int64_t dim, float* out,
                             int64_t out_step) {
    constexpr float EPSILON = 1e-6f;
    const float share_of_one = 1.0f / static_cast<float>(dim);
    IntVec last;
    for (int lane = 0; lane < LANES; ++lane) last[lane] = lane < dim % LANES ? -1 : 0;
    int64_t p = 0;
    for (; p + LANES <= pixels; p += LANES, in += LANES * in_step, out += LANES * out_step) {
        Vec parts[LANES];
        float means[LANES], shares[LANES];
        for (int i = 0; i < LANES; ++i) parts[i] = detail::sum_of_pixel(in + i * in_step, width);
        store(means, sums_of(parts) * share_of_one);
        for (int i = 0; i < LANES; ++i) parts[i] = detail::squares_of_pixel(in + i * in_step, dim, means[i], last);
        store(shares, sums_of(parts));
        for (int i = 0; i < LANES; ++i) shares[i] = 1.0f / sqrtf(shares[i] * share_of_one + EPSILON);
        for (int i = 0; i < LANES; ++i)
            detail::scale_pixel(in + i * in_step, width, means[i], shares[i], out + i * out_step);
    }
    for (; p < pixels; ++p, in += in_step, out += out_step) {
        const float mean = sum_of(detail::sum_of_pixel(in, width)) * share_of_one;
        const float variance = sum_of(detail::squares_of_pixel(in, dim, mean, last));
        detail::scale_pixel(in, width, mean, 1.0f / sqrtf(variance * share_of_one + EPSILON), out);
    }
}

}  // namespace ESCSR_LEVEL
}  // namespace escsr
