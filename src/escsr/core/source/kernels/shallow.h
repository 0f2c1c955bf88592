// 3x3 convolution of a map with few channels: all numbers around a pixel beside one another, times a matrix.
#pragma once
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace shallow {

constexpr int64_t PIXELS = 64;  // at a time

static int64_t scratch(const ShallowTask& task) { return Cut::size(9 * PIXELS * task.features.channels); }

static void run(const ShallowTask& task, Place place, float* scratch) {
    const Map& map = task.features;
    const int64_t inputs = map.channels, depth = 9 * inputs, outs = task.result.channels;
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t left = place.left; left < place.right; left += PIXELS) {
            const int64_t count = least(PIXELS, place.right - left);
            for (int64_t pixel = 0; pixel < count; ++pixel)
                for (int64_t tap = 0; tap < 9; ++tap) {
                    const int64_t row = y + tap / 3 - 1, column = left + pixel + tap % 3 - 1;
                    float* to = scratch + pixel * depth + tap * inputs;
                    const bool is_within = row >= 0 && row < map.height && column >= 0 && column < map.width;
                    const float* from = is_within ? map.at(row, column) : nullptr;
                    for (int64_t c = 0; c < inputs; ++c) to[c] = from ? from[c] : 0.0f;
                }
            float* out = task.result.at(y, left);
            if (task.adds) {
                for (int64_t pixel = 0; pixel < count; ++pixel)
                    for (int64_t c = 0; c < outs; c += LANES)
                        store(out + pixel * outs + c, load(out + pixel * outs + c) + load(task.bias + c));
                multiply(scratch, depth, count, depth, task.weight, outs, out, outs, From::result);
            } else {
                multiply(scratch, depth, count, depth, task.weight, outs, out, outs, From::bias, task.bias);
            }
        }
}

}  // namespace shallow
}  // namespace ESCSR_LEVEL
}  // namespace escsr
