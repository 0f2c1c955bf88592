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

constexpr int64_t TILES = 12;  // at a time
constexpr int64_t IN = 6, OUT = 4;

// The points of interpolation are 0, +-NEAR, +-FAR and infinity, which round much less than 0, +-1, +-2 and infinity.
constexpr float NEAR = 0.70710678f, FAR = 1.41421356f;

// Six numbers to six.
static inline void transform_in(const Vec* d, Vec* t) {
    const Vec a = d[4] - 2.0f * d[2], b = d[3] - 2.0f * d[1];
    const Vec c = d[4] - 0.5f * d[2], e = d[3] - 0.5f * d[1];
    t[0] = d[0] - 2.5f * d[2] + d[4];
    t[1] = a + NEAR * b;
    t[2] = a - NEAR * b;
    t[3] = c + FAR * e;
    t[4] = c - FAR * e;
    t[5] = d[1] - 2.5f * d[3] + d[5];
}

// Six numbers to four.
static inline void transform_out(const Vec* m, Vec* y) {
    const Vec s = m[1] + m[2], d = NEAR * (m[1] - m[2]), t = m[3] + m[4], e = FAR * (m[3] - m[4]);
    y[0] = m[0] + s + t;
    y[1] = d + e;
    y[2] = 0.5f * s + 2.0f * t;
    y[3] = 0.5f * d + 2.0f * e + m[5];
}

class RowOfTiles {
   public:
    RowOfTiles(const ConvolutionTask& task, float* scratch)
        : task_(task), ins_(task.features.channels), outs_(task.result.channels) {
        Cut cut(scratch);
        in_ = cut.take(IN * IN * tiles_at_once(task) * ins_);
        out_ = cut.take(IN * IN * TILES * least(outs_, WINOGRAD_OUTPUTS));
        zeros_ = cut.take(ins_);
        memset(zeros_, 0, sizeof(float) * static_cast<size_t>(ins_));
    }

    static int64_t floats(const ConvolutionTask& task) {
        return Cut::size(IN * IN * tiles_at_once(task) * task.features.channels) +
               Cut::size(IN * IN * TILES * least(task.result.channels, WINOGRAD_OUTPUTS)) +
               Cut::size(task.features.channels);
    }

    // Where weights do not fit into the cache, they are used for many tiles when they are there.
    static int64_t tiles_at_once(const ConvolutionTask& task) {
        return task.result.channels > WINOGRAD_OUTPUTS ? 3 * TILES : TILES;
    }

    // Tiles whose results begin at (top, left), (top, left + 4), ... and end where `place` does.
    void run(int64_t top, int64_t left, int64_t tiles, const Place& place) {
        tiles_ = tiles;
        for (int64_t tile = 0; tile < tiles; ++tile) take(top - 1, left + OUT * tile - 1, tile, place);
        const float* weight = task_.weight;
        for (int64_t first = 0; first < outs_; first += WINOGRAD_OUTPUTS) {
            const int64_t width = least(WINOGRAD_OUTPUTS, outs_ - first);
            for (int64_t tile = 0; tile < tiles; tile += TILES) {
                const int64_t count = least(TILES, tiles - tile);
                for (int64_t number = 0; number < IN * IN; ++number)
                    multiply(in_ + (number * tiles + tile) * ins_, ins_, count, ins_, weight + number * ins_ * width,
                             width, out_ + number * count * width, width, From::zero);
                for (int64_t i = 0; i < count; ++i)
                    for (int64_t c = 0; c < width; c += LANES)
                        put(top, left + OUT * (tile + i), out_ + i * width + c, count * width, first + c, place);
            }
            weight += IN * IN * ins_ * width;
        }
    }

   private:
    void take(int64_t top, int64_t left, int64_t tile, const Place& place) {
        // Where each number lies; beyond the map, and beyond what the place needs, there are zeros.
        const float* from[IN][IN];
        const Map& map = task_.features;
        for (int64_t row = 0; row < IN; ++row)
            for (int64_t column = 0; column < IN; ++column) {
                const int64_t y = top + row, x = left + column;
                const bool is_within = y >= 0 && y < map.height && x >= 0 && x < map.width;
                from[row][column] = is_within && y <= place.bottom && x <= place.right ? map.at(y, x) : zeros_;
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
                    store(in_ + ((row * IN + column) * tiles_ + tile) * ins_ + c, whole[row]);
            }
        }
    }

    // Channels from c on of the tile at (top, left), from products `step` apart.
    void put(int64_t top, int64_t left, const float* products, int64_t step, int64_t c, const Place& place) {
        Vec half[OUT][IN];
        for (int64_t column = 0; column < IN; ++column) {
            Vec numbers[IN], four[OUT];
            for (int64_t row = 0; row < IN; ++row) numbers[row] = load(products + (row * IN + column) * step);
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
    int64_t tiles_ = 0;
    float *in_, *out_, *zeros_;
};

static int64_t scratch(const ConvolutionTask& task) { return RowOfTiles::floats(task); }

static void run(const ConvolutionTask& task, Place place, float* scratch) {
    RowOfTiles row(task, scratch);
    const int64_t total = divide_up(place.width(), OUT), most_tiles = RowOfTiles::tiles_at_once(task);
    for (int64_t top = place.top; top < place.bottom; top += OUT)
        for (int64_t tile = 0; tile < total; tile += most_tiles)
            row.run(top, place.left + OUT * tile, least(most_tiles, total - tile), place);
}

}  // namespace winograd
}  // namespace ESCSR_LEVEL
}  // namespace escsr
