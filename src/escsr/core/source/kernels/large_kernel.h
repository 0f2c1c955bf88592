// A large kernel of any size, directly (see LargeKernelTask): what the frequency domain has no room for.
#pragma once
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace large_kernel {

// Add one tap of a depthwise kernel to `count` pixels.
static inline void add_depthwise(const float* in, const float* weight, int64_t channels, int64_t count, float* out) {
    for (int64_t p = 0; p < count; ++p)
        for (int64_t c = 0; c < channels; c += LANES)
            store(out + p * channels + c, load(out + p * channels + c) + load(in + p * channels + c) * load(weight + c));
}

// Add all taps of a kernel of `size` to a row of the result.
static void add_kernel(const LargeKernelTask& task, const Place& place, int64_t row, int64_t size, const float* dense,
                       const float* depthwise) {
    const Map& map = task.features;
    const int64_t channels = map.channels, margin = size / 2;
    for (int64_t tap = 0; tap < size * size; ++tap) {
        const int64_t y = row + tap / size - margin, shift = tap % size - margin;
        const int64_t first = most(place.left, -shift), last = least(place.right, map.width - shift);
        if (y < 0 || y >= map.height || first >= last) continue;
        const float* in = map.at(y, first + shift);
        float* out = task.result.at(row, first);
        if (dense)
            multiply(in, channels, last - first, channels, dense + tap * channels * channels, channels, out, channels,
                     From::result);
        if (depthwise) add_depthwise(in, depthwise + tap * channels, channels, last - first, out);
    }
}

static void run(const LargeKernelTask& task, Place place) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(place.width() * task.result.channels);
    for (int64_t row = place.top; row < place.bottom; ++row) {
        memset(task.result.at(row, place.left), 0, bytes);
        add_kernel(task, place, row, task.kernel_size, task.dense, task.depthwise);
        if (task.dynamic) add_kernel(task, place, row, 3, nullptr, task.dynamic);
    }
}

}  // namespace large_kernel
}  // namespace ESCSR_LEVEL
}  // namespace escsr
