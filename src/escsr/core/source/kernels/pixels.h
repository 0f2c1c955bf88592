// What is done to the pixels of a map between the convolutions of a head.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace pixels {

static void shuffle_to_map(const ShuffleToMapTask& task, Place place) {
    const int64_t factor = task.factor, channels = task.result.channels;
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t x = place.left; x < place.right; ++x) {
            const int64_t subpixel = y % factor * factor + x % factor;
            const float* from = task.subpixels.at(y / factor, x / factor) + subpixel * channels;
            float* to = task.result.at(y, x);
            if (task.has_gelu)
                for (int64_t c = 0; c < channels; c += LANES) store(to + c, gelu_of(load(from + c)));
            else
                for (int64_t c = 0; c < channels; c += LANES) store(to + c, load(from + c));
        }
}

constexpr int64_t AT_ONCE = 48;

static int64_t pixel_attention_scratch(const PixelAttentionTask& task) {
    return Cut::size(AT_ONCE * task.features.channels);
}

static void attend_to_pixels(const PixelAttentionTask& task, Place place, float* scratch) {
    const int64_t channels = task.features.channels;
    const float slope = task.slope;
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t left = place.left; left < place.right; left += AT_ONCE) {
            const int64_t count = least(AT_ONCE, place.right - left);
            float* row = task.features.at(y, left);
            multiply(row, channels, count, channels, task.weight, channels, scratch, channels, From::bias, task.bias);
            for (int64_t i = 0; i < count * channels; i += LANES) {
                const Vec value = load(row + i) * sigmoid_of(load(scratch + i));
                store(row + i, value < 0 ? value * slope : value);
            }
        }
}

}  // namespace pixels
}  // namespace ESCSR_LEVEL
}  // namespace escsr
