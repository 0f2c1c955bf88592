// Products of a few pixels with a small matrix of weights, and LayerNorm, on rows that are in cache.
#pragma once
#include "transpose.h"
#include "vectors.h"

namespace escsr {
namespace ESCSR_LEVEL {

// What a product starts from.
enum class From { zero, bias, result };

// How a matrix of weights lies: row by row, or in panels, so many columns as are multiplied at once, each row by row.
// Rows of panels follow one another, so that the cache holds them whatever the width of the matrix is.
enum class Weights { rows, panels };

namespace detail {

// `begin` and `end` take pixels and channels as multiply_between's do; this block begins at (pixel, channel).
template <int VECTORS, int PIXELS, class Begin, class End>
static inline void multiply_block(const float* in, int64_t in_step, int64_t depth, const float* weight,
                                  int64_t weight_step, int64_t pixel, int64_t channel, const Begin& begin,
                                  const End& end) {
    Vec total[PIXELS][VECTORS];
#pragma GCC unroll 12
    for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) total[p][v] = begin(pixel + p, channel + v * LANES);
    for (int64_t k = 0; k < depth; ++k) {
        Vec row[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) row[v] = load(weight + k * weight_step + v * LANES);
#pragma GCC unroll 12
        for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) total[p][v] += in[p * in_step + k] * row[v];
    }
#pragma GCC unroll 12
    for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) end(pixel + p, channel + v * LANES, total[p][v]);
}

template <int VECTORS, int PIXELS, class Begin, class End>
static inline void multiply_columns(const float* in, int64_t in_step, int64_t pixels, int64_t depth,
                                    const float* weight, int64_t weight_step, int64_t channel, const Begin& begin,
                                    const End& end) {
    int64_t p = 0;
    for (; p + PIXELS <= pixels; p += PIXELS)
        multiply_block<VECTORS, PIXELS>(in + p * in_step, in_step, depth, weight, weight_step, p, channel, begin, end);
    // One pixel at a time would wait for each sum: few are taken together.
    if (PIXELS > 4 && p + 4 <= pixels) {
        multiply_block<VECTORS, 4>(in + p * in_step, in_step, depth, weight, weight_step, p, channel, begin, end);
        p += 4;
    }
    if (PIXELS > 2 && p + 2 <= pixels) {
        multiply_block<VECTORS, 2>(in + p * in_step, in_step, depth, weight, weight_step, p, channel, begin, end);
        p += 2;
    }
    for (; p < pixels; ++p)
        multiply_block<VECTORS, 1>(in + p * in_step, in_step, depth, weight, weight_step, p, channel, begin, end);
}

// Vectors of the result, of a row of `width` floats that is yet to be made: as many sums as registers hold, and neither
// more nor fewer.
static inline int64_t vectors_at_once(int64_t width) {
    const int64_t left = width / LANES;
    return REGISTERS == 32 && left == 5 ? 5 : least<int64_t>(left, REGISTERS == 32 ? 4 : 2);
}

}  // namespace detail

// weight (depth, width) row by row, to panels.
static inline void to_panels(const float* weight, int64_t depth, int64_t width, float* panels) {
    for (int64_t done = 0; done < width;) {
        const int64_t columns = detail::vectors_at_once(width - done) * LANES;
        for (int64_t k = 0; k < depth; ++k, panels += columns)
            for (int64_t c = 0; c < columns; c += LANES) store(panels + c, load(weight + k * width + done + c));
        done += columns;
    }
}

// in (pixels, depth) times weight (depth, width); width in whole vectors. For each vector of the result,
// begin(pixel, channel) gives what its sum starts from, and end(pixel, channel, sum) takes it: what comes before and
// after a product costs no pass over memory of its own.
template <Weights WEIGHTS, class Begin, class End>
static inline void multiply_between(const float* in, int64_t in_step, int64_t pixels, int64_t depth,
                                    const float* weight, int64_t width, const Begin& begin, const End& end) {
    int64_t done = 0;
    while (done < width) {
        const int64_t taken = detail::vectors_at_once(width - done);
        const float* w = weight + (WEIGHTS == Weights::panels ? done * depth : done);
        const int64_t step = WEIGHTS == Weights::panels ? taken * LANES : width;
        if (REGISTERS == 32 && taken == 5) {
            detail::multiply_columns<5, 5>(in, in_step, pixels, depth, w, step, done, begin, end);
        } else if (taken == 4) {
            detail::multiply_columns<4, 6>(in, in_step, pixels, depth, w, step, done, begin, end);
        } else if (taken == 3) {
            detail::multiply_columns<3, 8>(in, in_step, pixels, depth, w, step, done, begin, end);
        } else if (taken == 2) {
            detail::multiply_columns<2, 6>(in, in_step, pixels, depth, w, step, done, begin, end);
        } else {
            detail::multiply_columns<1, 12>(in, in_step, pixels, depth, w, step, done, begin, end);
        }
        done += taken * LANES;
    }
}

// out (pixels, width) = zero, bias or out, + in (pixels, depth) times weight (depth, width); width in whole vectors.
static inline void multiply(const float* in, int64_t in_step, int64_t pixels, int64_t depth, const float* weight,
                            int64_t width, float* out, int64_t out_step, From from, const float* bias = nullptr) {
    const auto begin = [=](int64_t pixel, int64_t channel) ESCSR_INLINED {
        return from == From::zero   ? Vec{}
               : from == From::bias ? load(bias + channel)
                                    : load(out + pixel * out_step + channel);
    };
    const auto end = [=](int64_t pixel, int64_t channel, Vec sum) ESCSR_INLINED {
        store(out + pixel * out_step + channel, sum);
    };
    multiply_between<Weights::rows>(in, in_step, pixels, depth, weight, width, begin, end);
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
