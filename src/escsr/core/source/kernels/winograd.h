// 3x3 convolution by Winograd's F(4x4, 3x3): tiles of 6x6 numbers in, 4x4 out, a quarter of the products.
//
// Every number of a tile is a vector of channels. 36 small matrix products, one for each place of a transformed tile,
// do the work; a row of tiles goes through all steps while it is in the cache.
// Source: Lavin and Gray, arXiv:1509.09308, section 4.3.
#pragma once
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace winograd {

constexpr int64_t TILES = 16;  // at a time
constexpr int64_t IN = 6, OUT = 4;

// Six numbers to six.
static inline void transform_in(const Vec* d, Vec* t) {
    const Vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1];
    const Vec c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    t[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    t[1] = a + b;
    t[2] = a - b;
    t[3] = c + e;
    t[4] = c - e;
    t[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

// Six numbers to four.
static inline void transform_out(const Vec* m, Vec* y) {
    const Vec s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + s + t;
    y[1] = d + 2.0f * e;
    y[2] = s + 4.0f * t;
    y[3] = d + 8.0f * e + m[5];
}

class RowOfTiles {
   public:
    RowOfTiles(const ConvolutionTask& task, float* scratch) : task_(task), ins_(task.features.channels), outs_(task.result.channels) {
        Cut cut(scratch);
        in_ = cut.take(IN * IN * TILES * ins_);
        out_ = cut.take(IN * IN * TILES * outs_);
        zeros_ = cut.take(ins_);
        memset(zeros_, 0, sizeof(float) * static_cast<size_t>(ins_));
    }

    static int64_t floats(const ConvolutionTask& task) {
        return Cut::size(IN * IN * TILES * task.features.channels) + Cut::size(IN * IN * TILES * task.result.channels) +
               Cut::size(task.features.channels);
    }

    // Tiles whose results begin at (top, left), (top, left + 4), ... and end where `place` does.
    void run(int64_t top, int64_t left, const Place& place) {
        const int64_t tiles = least(TILES, divide_up(place.right - left, OUT));
        for (int64_t tile = 0; tile < tiles; ++tile) take(top - 1, left + OUT * tile - 1, tile, place);
        for (int64_t number = 0; number < IN * IN; ++number)
            multiply(in_ + number * TILES * ins_, ins_, tiles, ins_, task_.weight + number * ins_ * outs_, outs_,
                     out_ + number * TILES * outs_, outs_, From::zero);
        for (int64_t tile = 0; tile < tiles; ++tile)
            for (int64_t c = 0; c < outs_; c += LANES) put(top, left + OUT * tile, tile, c, place);
    }

   private:
    void take(int64_t top, int64_t left, int64_t tile, const Place& place) {
        // Where each number lies; beyond the map, and beyond what the place needs, there are zeros.
        const float* from[IN][IN];
        const Map& map = task_.features;
        const int64_t factor = task_.enlarged, height = map.height * factor, width = map.width * factor;
        for (int64_t row = 0; row < IN; ++row)
            for (int64_t column = 0; column < IN; ++column) {
                const int64_t y = top + row, x = left + column;
                const bool is_within = y >= 0 && y < height && x >= 0 && x < width && y <= place.bottom && x <= place.right;
                from[row][column] = !is_within ? zeros_ : factor == 1 ? map.at(y, x) : map.at(y / factor, x / factor);
            }
        for (int64_t c = 0; c < ins_; c += LANES) {
            Vec half[IN][IN];
            for (int64_t row = 0; row < IN; ++row) {
                Vec numbers[IN];
                for (int64_t column = 0; column < IN; ++column) numbers[column] = load(from[row][column] + c);
                transform_in(numbers, half[row]);
            }
            for (int64_t column = 0; column < IN; ++column) {
                Vec numbers[IN], whole[IN];
                for (int64_t row = 0; row < IN; ++row) numbers[row] = half[row][column];
                transform_in(numbers, whole);
                for (int64_t row = 0; row < IN; ++row)
                    store(in_ + ((row * IN + column) * TILES + tile) * ins_ + c, whole[row]);
            }
        }
    }

    void put(int64_t top, int64_t left, int64_t tile, int64_t c, const Place& place) {
        Vec half[OUT][IN];
        for (int64_t column = 0; column < IN; ++column) {
            Vec numbers[IN], four[OUT];
            for (int64_t row = 0; row < IN; ++row)
                numbers[row] = load(out_ + ((row * IN + column) * TILES + tile) * outs_ + c);
            transform_out(numbers, four);
            for (int64_t row = 0; row < OUT; ++row) half[row][column] = four[row];
        }
        const Vec bias = load(task_.bias + c);
        const float slope = task_.slope;
        for (int64_t row = 0; row < least(OUT, place.bottom - top); ++row) {
            Vec four[OUT];
            transform_out(half[row], four);
            float* to = task_.result.at(top + row, left) + c;
            const float* added = task_.added.is_none() ? nullptr : task_.added.at(top + row, left) + c;
            for (int64_t column = 0; column < least(OUT, place.right - left); ++column) {
                Vec value = four[column] + bias;
                if (added) value += load(added + column * outs_);
                if (slope != 1.0f) value = value < 0 ? value * slope : value;
                store(to + column * outs_, value);
            }
        }
    }

    const ConvolutionTask& task_;
    const int64_t ins_, outs_;
    float *in_, *out_, *zeros_;
};

static int64_t scratch(const ConvolutionTask& task) { return RowOfTiles::floats(task); }

static void run(const ConvolutionTask& task, Place place, float* scratch) {
    RowOfTiles tiles(task, scratch);
    for (int64_t top = place.top; top < place.bottom; top += OUT)
        for (int64_t left = place.left; left < place.right; left += OUT * TILES) tiles.run(top, left, place);
}

}  // namespace winograd
}  // namespace ESCSR_LEVEL
}  // namespace escsr
