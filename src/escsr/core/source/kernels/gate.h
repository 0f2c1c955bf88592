// How much of each attended value passes, from a pixel of the features and its neighbours (see GateTask).
#pragma once
#include "../kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace gate {

constexpr int64_t COLUMNS = PIECE_COLUMNS;  // at a time
constexpr int64_t ROW = COLUMNS + 2;

class Strip {
   public:
    Strip(const GateTask& task, const Place& place, float* scratch)
        : task_(task), place_(place), channels_(task.features.channels) {
        Cut cut(scratch);
        inputs_ = cut.take(3 * ROW * channels_);
        mixed_ = cut.take(COLUMNS * channels_);
        weights_ = cut.take(COLUMNS * channels_);
    }

    static int64_t floats(const GateTask& task) {
        const int64_t channels = task.features.channels;
        return Cut::size(3 * ROW * channels) + 2 * Cut::size(COLUMNS * channels);
    }

    void run() {
        prepare(place_.top - 1);
        prepare(place_.top);
        for (int64_t row = place_.top; row < place_.bottom; ++row) {
            prepare(row + 1);
            mix(row);
            multiply(mixed_, channels_, place_.width(), channels_, task_.pointwise_weight, channels_, weights_, channels_,
                     From::bias, task_.pointwise_bias);
            float* result = task_.result.at(row, place_.left);
            for (int64_t i = 0; i < place_.width() * channels_; i += LANES)
                store(result + i, load(result + i) * sigmoid_of(load(weights_ + i)));
        }
    }

   private:
    // Where a row lies in its ring; column place.left - 1 comes first.
    float* input(int64_t row) { return inputs_ + (row + 3) % 3 * ROW * channels_; }

    // Features of a row, normalised; beyond the map there are zeros.
    void prepare(int64_t row) {
        const Map& map = task_.features;
        float* to = input(row);
        memset(to, 0, sizeof(float) * static_cast<size_t>((place_.width() + 2) * channels_));
        if (row < 0 || row >= map.height) return;
        const int64_t first = most<int64_t>(place_.left - 1, 0), last = least(place_.right + 1, map.width);
        const int64_t count = last - first;
        to += (first - (place_.left - 1)) * channels_;
        if (!task_.norm_gain) {
            memcpy(to, map.at(row, first), sizeof(float) * static_cast<size_t>(count * channels_));
            return;
        }
        normalise(map.at(row, first), channels_, count, channels_, task_.dim, to, channels_);
        for (int64_t p = 0; p < count; ++p, to += channels_)
            for (int64_t c = 0; c < channels_; c += LANES)
                store(to + c, load(to + c) * load(task_.norm_gain + c) + load(task_.norm_bias + c));
    }

    // The depthwise convolution.
    void mix(int64_t row) {
        const float* rows[3] = {input(row - 1), input(row), input(row + 1)};
        for (int64_t p = 0; p < place_.width(); ++p)
            for (int64_t c = 0; c < channels_; c += LANES) {
                Vec sum = load(task_.depthwise_bias + c);
#pragma GCC unroll 9
                for (int tap = 0; tap < 9; ++tap)
                    sum += load(rows[tap / 3] + (p + tap % 3) * channels_ + c) *
                           load(task_.depthwise_weight + tap * channels_ + c);
                store(mixed_ + p * channels_ + c, sum);
            }
    }

    const GateTask& task_;
    const Place place_;
    const int64_t channels_;
    float *inputs_, *mixed_, *weights_;
};

static int64_t scratch(const GateTask& task) { return Strip::floats(task); }

static void run(const GateTask& task, Place place, float* scratch) {
    for (int64_t left = place.left; left < place.right; left += COLUMNS)
        Strip(task, Place{place.top, place.bottom, left, least(left + COLUMNS, place.right)}, scratch).run();
}

}  // namespace gate
}  // namespace ESCSR_LEVEL
}  // namespace escsr
