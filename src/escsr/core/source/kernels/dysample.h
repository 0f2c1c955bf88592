// DySample: where sub-pixels are sampled, and their values.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace dysample {

typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

static inline Four load_four(const float* from) { return *reinterpret_cast<const UnalignedFour*>(from); }

constexpr int64_t AT_ONCE = 24;  // pixels

static int64_t scratch(const DySampleTask& task) {
    return most(Cut::size(AT_ONCE * 4 * task.num_places), 3 * Cut::size(task.num_places));
}

struct Bounds {
    Vec least, most;
    void take(Vec value) {
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    // From the first neighbour to one past the last.
    void pixels(int64_t origin, int64_t length, int64_t& first, int64_t& last) const {
        float low[LANES], high[LANES];
        store(low, least), store(high, most);
        for (int lane = 1; lane < LANES; ++lane) {
            if (low[lane] < low[0]) low[0] = low[lane];
            if (high[lane] > high[0]) high[0] = high[lane];
        }
        first = origin + static_cast<int64_t>(floorf(low[0]));
        last = escsr::least(origin + static_cast<int64_t>(floorf(high[0])) + 2, length);
    }
};

static Place find_places(const DySampleTask& task, Place place, float* places, float* scratch) {
    const Map& map = task.features;
    const int64_t count = task.num_places, width = 4 * count, channels = map.channels;
    const Vec far = all(3e38f);
    Bounds across = {far, -far}, down = {far, -far};
    const float left = static_cast<float>(-place.left), right = static_cast<float>(map.width - 1 - place.left);
    const float top = static_cast<float>(-place.top), bottom = static_cast<float>(map.height - 1 - place.top);
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t first = place.left; first < place.right; first += AT_ONCE) {
            const int64_t pixels = least(AT_ONCE, place.right - first);
            multiply(map.at(y, first), channels, pixels, channels, task.weight, width, scratch, width, From::bias,
                     task.bias);
            for (int64_t p = 0; p < pixels; ++p, places += 2 * count) {
                const float* from = scratch + p * width;
                const float x0 = static_cast<float>(first + p - place.left), y0 = static_cast<float>(y - place.top);
                for (int64_t k = 0; k < count; k += LANES) {
                    const Vec moved_x = load(from + k) * sigmoid_of(load(from + 2 * count + k));
                    const Vec moved_y = load(from + count + k) * sigmoid_of(load(from + 3 * count + k));
                    const Vec x = within(x0 + load(task.centres + k) + moved_x, left, right);
                    const Vec y_place = within(y0 + load(task.centres + count + k) + moved_y, top, bottom);
                    across.take(x), down.take(y_place);
                    store(places + k, x), store(places + count + k, y_place);
                }
            }
        }
    Place reach;
    across.pixels(place.left, map.width, reach.left, reach.right);
    down.pixels(place.top, map.height, reach.top, reach.bottom);
    return reach;
}

static bool has_places_in(const DySampleTask& task, Place place, const float* places, Place tile) {
    const int64_t count = task.num_places;
    // A neighbour lies less than a pixel from the place that is sampled.
    const float left = static_cast<float>(tile.left - place.left) - 1, top = static_cast<float>(tile.top - place.top) - 1;
    const float right = static_cast<float>(tile.right - place.left);
    const float bottom = static_cast<float>(tile.bottom - place.top);
    IntVec any = IntVec{};
    for (int64_t p = 0; p < place.num_pixels(); ++p, places += 2 * count)
        for (int64_t k = 0; k < count; k += LANES) {
            const Vec x = load(places + k), y = load(places + count + k);
            any |= (IntVec)(x > left) & (IntVec)(x < right) & (IntVec)(y > top) & (IntVec)(y < bottom);
        }
    int32_t total = 0;
    for (int lane = 0; lane < LANES; ++lane) total |= any[lane];
    return total != 0;
}

// The sub-pixels of one pixel after another.
class Sampler {
   public:
    Sampler(const DySampleTask& task, Place place, Place tile, float* scratch)
        : task_(task), across_(task.mixed.channels), down_(task.mixed.row_step()), left_(tile.left - place.left),
          top_(tile.top - place.top), width_(tile.width()), height_(tile.height()) {
        Cut cut(scratch);
        at_ = cut.take(task.num_places), beyond_x_ = cut.take(task.num_places), beyond_y_ = cut.take(task.num_places);
    }

    // All neighbours lie in the tile.
    void begin(const float* places) {
        const int64_t count = task_.num_places;
        const Vec left = all(static_cast<float>(left_)), top = all(static_cast<float>(top_));
        for (int64_t k = 0; k < count; k += LANES) {
            const Vec x = load(places + k) - left, y = load(places + count + k) - top;
            const IntVec column = __builtin_convertvector(x, IntVec), row = __builtin_convertvector(y, IntVec);
            store(beyond_x_ + k, x - __builtin_convertvector(column, Vec));
            store(beyond_y_ + k, y - __builtin_convertvector(row, Vec));
            const IntVec at = row * static_cast<int32_t>(down_) + column * static_cast<int32_t>(across_);
            store_whole(at_ + k, at);
        }
    }

    Four sample(int64_t subpixel) const {
        const int64_t step = task_.scale * task_.scale;
        Four total = {};
        for (int64_t group = 0, k = subpixel; group < task_.groups; ++group, k += step) {
            const float* from = task_.mixed.data + load_whole(at_ + k) + 4 * group;
            const float x = beyond_x_[k], y = beyond_y_[k];
            const Four a = load_four(from), b = load_four(from + across_);
            const Four c = load_four(from + down_), d = load_four(from + down_ + across_);
            const Four upper = a + (b - a) * x, lower = c + (d - c) * x;
            total += upper + (lower - upper) * y;
        }
        return total;
    }

    // What neighbours in the tile contribute.
    Four sample_some(const float* places, int64_t subpixel) const {
        const int64_t step = task_.scale * task_.scale, count = task_.num_places;
        Four total = {};
        for (int64_t group = 0, k = subpixel; group < task_.groups; ++group, k += step) {
            const float x = places[k] - static_cast<float>(left_), y = places[count + k] - static_cast<float>(top_);
            const float whole_x = floorf(x), whole_y = floorf(y), beyond_x = x - whole_x, beyond_y = y - whole_y;
            const int64_t column = static_cast<int64_t>(whole_x), row = static_cast<int64_t>(whole_y);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 2; ++j) {
                    if (row + i < 0 || row + i >= height_ || column + j < 0 || column + j >= width_) continue;
                    const float weight = (i ? beyond_y : 1 - beyond_y) * (j ? beyond_x : 1 - beyond_x);
                    const float* from = task_.mixed.data + (row + i) * down_ + (column + j) * across_ + 4 * group;
                    total += load_four(from) * weight;
                }
        }
        return total;
    }

   private:
    const DySampleTask& task_;
    const int64_t across_, down_, left_, top_, width_, height_;
    float *at_, *beyond_x_, *beyond_y_;
};

static void sample_places(const DySampleTask& task, Place place, Place result, Place tile, const float* places,
                          bool adds, float* scratch) {
    Sampler sampler(task, place, tile, scratch);
    const int64_t scale = task.scale;
    const Four bias = {task.result_bias[0], task.result_bias[1], task.result_bias[2], 0};
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t x = place.left; x < place.right; ++x, places += 2 * task.num_places) {
            const int64_t top = most(result.top, y * scale), bottom = least(result.bottom, (y + 1) * scale);
            const int64_t left = most(result.left, x * scale), right = least(result.right, (x + 1) * scale);
            if (!adds) sampler.begin(places);
            for (int64_t row = top; row < bottom; ++row) {
                float* to = task.result.at(0, row, left);
                for (int64_t column = left; column < right; ++column, ++to) {
                    const int64_t subpixel = (row - y * scale) * scale + column - x * scale;
                    const Four value = adds ? sampler.sample_some(places, subpixel) : bias + sampler.sample(subpixel);
                    for (int colour = 0; colour < 3; ++colour) {
                        float& pixel = to[colour * task.result.plane_step];
                        pixel = adds ? pixel + value[colour] : value[colour];
                    }
                }
            }
        }
}

}  // namespace dysample
}  // namespace ESCSR_LEVEL
}  // namespace escsr
