// Features straight from the image. A strip of columns goes from the top to the bottom, with the seven expanded rows in
// cache that the depthwise convolution looks at.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace feature_skip {

constexpr int64_t COLUMNS = 64;  // of a strip
constexpr int SIDE = 7, REACH = SIDE / 2;
constexpr int64_t WITH_BORDERS = COLUMNS + 2 * REACH;
constexpr float SLOPE = 0.2f;

static int64_t scratch(const FeatureSkipTask& task) {
    return Cut::size(WITH_BORDERS * task.image.channels) + Cut::size(SIDE * WITH_BORDERS * task.expanded) +
           Cut::size(COLUMNS * task.expanded);
}

// PIXELS of one row, a vector of channels each. rows[i] begin REACH columns before the first; `step` floats lie between
// columns, and between taps.
template <int PIXELS>
static inline void convolve_depthwise(const float* const* rows, const float* weight, Vec bias, int64_t step,
                                      float* out) {
    Vec total[PIXELS];
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p) total[p] = bias;
    for (int row = 0; row < SIDE; ++row, weight += SIDE * step) {
        Vec taps[SIDE];
#pragma GCC unroll 7
        for (int tap = 0; tap < SIDE; ++tap) taps[tap] = load(weight + tap * step);
#pragma GCC unroll 16
        for (int column = 0; column < PIXELS + SIDE - 1; ++column) {
            const Vec value = load(rows[row] + column * step);
#pragma GCC unroll 8
            for (int p = 0; p < PIXELS; ++p)
                if (p <= column && column - p < SIDE) total[p] += value * taps[column - p];
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; ++p) store(out + p * step, total[p] < 0 ? total[p] * SLOPE : total[p]);
}

class Strip {
   public:
    Strip(const FeatureSkipTask& task, int64_t left, int64_t right, float* scratch)
        : task_(task), left_(left), count_(right - left), channels_(task.image.channels) {
        Cut cut(scratch);
        pixels_ = cut.take(WITH_BORDERS * channels_);
        rows_ = cut.take(SIDE * WITH_BORDERS * task.expanded);
        convolved_ = cut.take(COLUMNS * task.expanded);
    }

    void run(int64_t top, int64_t bottom) {
        for (int64_t y = top - REACH; y < top + REACH; ++y) expand(y);
        for (int64_t y = top; y < bottom; ++y) {
            expand(y + REACH);
            convolve(y);
            reduce(y);
        }
    }

   private:
    // Rows beyond the map are reflected ones.
    float* row(int64_t y) const { return rows_ + (y + REACH) % SIDE * WITH_BORDERS * task_.expanded; }

    void expand(int64_t y) {
        const Map& image = task_.image;
        const int64_t inside = reflected(y, image.height), expanded = task_.expanded, count = count_ + 2 * REACH;
        for (int64_t i = 0; i < count; ++i)
            memcpy(pixels_ + i * channels_, image.at(inside, reflected(left_ + i - REACH, image.width)),
                   sizeof(float) * static_cast<size_t>(channels_));
        multiply(pixels_, channels_, count, channels_, task_.expand_weight, expanded, row(y), expanded, From::bias,
                 task_.expand_bias);
    }

    void convolve(int64_t y) {
        constexpr int PIXELS = REGISTERS == 32 ? 8 : 4;
        const int64_t expanded = task_.expanded;
        for (int64_t c = 0; c < expanded; c += LANES) {
            const float* rows[SIDE];
            const Vec bias = load(task_.depthwise_bias + c);
            int64_t x = 0;
            const auto begin_at = [&](int64_t column) {
                for (int i = 0; i < SIDE; ++i) rows[i] = row(y + i - REACH) + column * expanded + c;
            };
            for (; x + PIXELS <= count_; x += PIXELS) {
                begin_at(x);
                convolve_depthwise<PIXELS>(rows, task_.depthwise_weight + c, bias, expanded,
                                           convolved_ + x * expanded + c);
            }
            for (; x < count_; ++x) {
                begin_at(x);
                convolve_depthwise<1>(rows, task_.depthwise_weight + c, bias, expanded, convolved_ + x * expanded + c);
            }
        }
    }

    void reduce(int64_t y) {
        const int64_t expanded = task_.expanded, channels = task_.result.channels;
        float* out = task_.result.at(y, left_);
        for (int64_t p = 0; p < count_; ++p)
            for (int64_t c = 0; c < channels; c += LANES)
                store(out + p * channels + c, load(out + p * channels + c) + load(task_.reduce_bias + c));
        multiply(convolved_, expanded, count_, expanded, task_.reduce_weight, channels, out, channels, From::result);
    }

    const FeatureSkipTask& task_;
    const int64_t left_, count_, channels_;
    float *pixels_, *rows_, *convolved_;
};

static void add(const FeatureSkipTask& task, Place place, float* scratch) {
    for (int64_t left = place.left; left < place.right; left += COLUMNS)
        Strip(task, left, least(left + COLUMNS, place.right), scratch).run(place.top, place.bottom);
}

}  // namespace feature_skip
}  // namespace ESCSR_LEVEL
}  // namespace escsr
