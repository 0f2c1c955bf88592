// What makes, takes or fills three planes of colours.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "sums.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace planes {

static inline void store_some(float* to, Vec value, int64_t count) {
    if (count >= LANES) return store(to, value);
    float lanes[LANES];
    store(lanes, value);
    for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

constexpr int COLOURS = 3;
// Pixels whose sums registers hold.
constexpr int AT_ONCE = REGISTERS == 32 ? 8 : 4;
static_assert(LANES % 4 == 0, "");

// Sums of PIXELS pixels beside one another: sums[colour * LANES + pixel]. Of the three columns of taps, those from
// first_tap to last_tap lie within the map.
template <int PIXELS>
static inline void sum_pixels(const ToPlanesTask& task, int64_t y, int64_t x, int64_t first_tap, int64_t last_tap,
                              Vec* sums) {
    const Map& map = task.features;
    const int64_t channels = map.channels;
    Vec total[COLOURS][PIXELS];
#pragma GCC unroll 3
    for (int colour = 0; colour < COLOURS; ++colour)
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; ++p) total[colour][p] = Vec{};
    for (int64_t row = 0; row < 3; ++row) {
        if (y + row < 1 || y + row > map.height) continue;
        const float* from = map.at(y + row - 1, x) - channels;
        const float* weight = task.weight + row * channels * 9;
        for (int64_t c = 0; c < channels; c += LANES, weight += 9 * LANES)
            for (int64_t tap = first_tap; tap <= last_tap; ++tap) {
                const float* pixels = from + tap * channels + c;
                Vec factor[COLOURS];
#pragma GCC unroll 3
                for (int colour = 0; colour < COLOURS; ++colour)
                    factor[colour] = load(weight + (tap * COLOURS + colour) * LANES);
#pragma GCC unroll 8
                for (int p = 0; p < PIXELS; ++p) {
                    const Vec value = load(pixels + p * channels);
#pragma GCC unroll 3
                    for (int colour = 0; colour < COLOURS; ++colour) total[colour][p] += value * factor[colour];
                }
            }
    }
#pragma GCC unroll 3
    for (int colour = 0; colour < COLOURS; ++colour)
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; ++p) sums[colour * LANES + p] = total[colour][p];
}

// Sums over channels lie in lanes until the end: three results would not fill a vector.
static void convolve_to_planes(const ToPlanesTask& task, Place place) {
    const int64_t width = task.features.width;
    Vec sums[COLOURS * LANES];
    for (Vec& sum : sums) sum = Vec{};
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t left = place.left; left < place.right; left += LANES) {
            const int64_t count = least<int64_t>(LANES, place.right - left);
            for (int64_t p = 0; p < count;) {
                const int64_t x = left + p;
                // Beyond the map there is nothing to load.
                if (p + AT_ONCE <= count && x > 0 && x + AT_ONCE < width) {
                    sum_pixels<AT_ONCE>(task, y, x, 0, 2, sums + p);
                    p += AT_ONCE;
                } else {
                    sum_pixels<1>(task, y, x, x == 0 ? 1 : 0, x == width - 1 ? 1 : 2, sums + p);
                    p += 1;
                }
            }
            for (int colour = 0; colour < COLOURS; ++colour) {
                const Vec result = sums_of_blocks<LANES>(sums + colour * LANES) + task.bias[colour];
                store_some(task.result.at(colour, y, left), result, count);
            }
        }
}

// Weights of the four pixels around a place, a quarter of a pixel etc. beyond the second: torch's bicubic.
static inline void bicubic_weights(double beyond, float* weights) {
    constexpr double A = -0.75;
    for (int i = 0; i < 4; ++i) {
        const double d = fabs(beyond + 1 - i);
        weights[i] = static_cast<float>(d <= 1 ? ((A + 2) * d - (A + 3)) * d * d + 1
                                               : ((A * d - 5 * A) * d + 8 * A) * d - 4 * A);
    }
}

// A row of an image, enlarged by whole factors.
class EnlargedRow {
   public:
    EnlargedRow(const ShuffleToPlanesTask& task, Place place, float* scratch) : task_(task), place_(place) {
        const int64_t factor = task.factor;
        first_ = place.left / factor - 2, count_ = divide_up(place.right, factor) + 3 - first_;
        Cut cut(scratch);
        row_ = cut.take(place.width());
        mixed_ = cut.take(count_ + LANES);
    }
    static int64_t floats(int64_t width) { return Cut::size(width) + Cut::size(width + 8 + LANES); }

    // Pixels place.left to place.right of row y of the result.
    const float* make(int64_t colour, int64_t y) {
        if (task_.skip == ImageSkip::nearest) {
            const float* image = task_.image.at(colour, y / task_.factor, 0);
            for (int64_t x = place_.left; x < place_.right; ++x) row_[x - place_.left] = image[x / task_.factor];
            return row_;
        }
        mix_rows(colour, y);
        for (int64_t phase = 0; phase < task_.factor; ++phase) mix_columns(phase);
        return row_;
    }

   private:
    // Where a phase lies: from which pixel beside its own the four begin, and their weights.
    static int64_t split(int64_t phase, int64_t factor, float* weights) {
        const double place = (static_cast<double>(phase) + 0.5) / static_cast<double>(factor) - 0.5;
        const double whole = floor(place);
        bicubic_weights(place - whole, weights);
        return static_cast<int64_t>(whole) - 1;
    }

    void mix_rows(int64_t colour, int64_t y) {
        float weights[4];
        const int64_t top = y / task_.factor + split(y % task_.factor, task_.factor, weights);
        const float* rows[4];
        for (int64_t i = 0; i < 4; ++i) {
            const int64_t row = least(most<int64_t>(top + i, 0), task_.image_height - 1);
            rows[i] = task_.image.at(colour, row, 0);
        }
        const int64_t width = task_.image_width;
        for (int64_t i = 0; i < count_; ++i) {
            const int64_t x = least(most<int64_t>(first_ + i, 0), width - 1);
            mixed_[i] = weights[0] * rows[0][x] + weights[1] * rows[1][x] + weights[2] * rows[2][x] +
                        weights[3] * rows[3][x];
        }
    }

    void mix_columns(int64_t phase) {
        float weights[4];
        const int64_t factor = task_.factor, shift = split(phase, factor, weights) - first_;
        int64_t x = divide_up(most<int64_t>(place_.left - phase, 0), factor);
        const int64_t end = place_.right > phase ? divide_up(place_.right - phase, factor) : 0;
        for (; x < end; ++x) {
            const float* from = mixed_ + x + shift;
            row_[x * factor + phase - place_.left] =
                weights[0] * from[0] + weights[1] * from[1] + weights[2] * from[2] + weights[3] * from[3];
        }
    }

    const ShuffleToPlanesTask& task_;
    const Place place_;
    int64_t first_, count_;  // of pixels of the image
    float *row_, *mixed_;
};

static int64_t shuffle_scratch(int64_t width) { return EnlargedRow::floats(width); }

// `count` runs of FACTOR numbers, `step` apart, to one run; `added` to them where not null.
template <int FACTOR>
static inline void gather_runs(const float* from, int64_t step, int64_t count, const float* added, float* to) {
    if (added) {
        for (int64_t i = 0; i < count; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < FACTOR; ++j) to[i * FACTOR + j] = from[i * step + j] + added[i * FACTOR + j];
    } else {
        for (int64_t i = 0; i < count; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < FACTOR; ++j) to[i * FACTOR + j] = from[i * step + j];
    }
}

static void shuffle_to_planes(const ShuffleToPlanesTask& task, Place place, float* scratch) {
    const int64_t factor = task.factor, step = task.subpixels.channels;
    EnlargedRow enlarged(task, place, scratch);
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t colour = 0; colour < COLOURS; ++colour) {
            const float* added = task.skip == ImageSkip::none ? nullptr : enlarged.make(colour, y);
            const int64_t run = (colour * factor + y % factor) * factor;
            float* to = task.result.at(colour, y, place.left);
            int64_t x = place.left;
            const auto put_one = [&] {
                const float value = task.subpixels.at(y / factor, x / factor)[run + x % factor];
                to[x - place.left] = value + (added ? added[x - place.left] : 0.0f);
                ++x;
            };
            while (x < place.right && x % factor) put_one();
            const int64_t count = (place.right - x) / factor, done = x - place.left;
            if (count > 0) {
                const float* from = task.subpixels.at(y / factor, x / factor) + run;
                const float* more = added ? added + done : nullptr;
                bool is_done = true;
                if (factor == 2) gather_runs<2>(from, step, count, more, to + done);
                else if (factor == 3) gather_runs<3>(from, step, count, more, to + done);
                else if (factor == 4) gather_runs<4>(from, step, count, more, to + done);
                else is_done = false;
                if (is_done) x += count * factor;
            }
            while (x < place.right) put_one();
        }
}

// A vector of pixels of one row at a time.
static void convolve_planes(const PlanesTask& task, Place place) {
    for (int64_t y = place.top; y < place.bottom; ++y)
        for (int64_t x = place.left; x < place.right; x += LANES) {
            Vec total[COLOURS];
            for (int result = 0; result < COLOURS; ++result) total[result] = all(task.bias[result]);
            for (int64_t colour = 0; colour < COLOURS; ++colour)
                for (int64_t tap = 0; tap < 9; ++tap) {
                    const Vec value = load(task.image.at(colour, y + tap / 3 - 1, x + tap % 3 - 1));
                    for (int result = 0; result < COLOURS; ++result)
                        total[result] += value * task.weight[(result * COLOURS + colour) * 9 + tap];
                }
            for (int result = 0; result < COLOURS; ++result)
                store_some(task.result.at(result, y, x), total[result], place.right - x);
        }
}

}  // namespace planes
}  // namespace ESCSR_LEVEL
}  // namespace escsr
