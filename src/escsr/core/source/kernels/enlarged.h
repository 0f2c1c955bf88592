// 3x3 convolution of a map enlarged by nearest neighbour, by 2 or 3, from the map itself.
//
// In one dimension, with weights u, v, w and their sum s, pixels a, b, c, d enlarged by 2 give, of b and c,
//     s b + u (a - b),  s b + w (c - b),  s c + u (b - c),  s c + w (d - c)
// which five products make,
//     P = s/2 (b + c),  Q = u (a - c),  R = w (d - b),  S = (u - s/2) (b - c),  T = (w - s/2) (b - c):
//     P + Q - S,  P - T,  P + S,  P + R + T
// and enlarged by 3, of b alone, three: P = s b, Q = u (a - b), R = w (c - b): P + Q, P, P + R.
// In two dimensions these are 25 products for 16 results, and 9 for 9, and the sums before and after them are few.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "multiply.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace enlarged {

struct By2 {
    static constexpr int FACTOR = 2, SIDE = 2;           // pixels of the map that a tile's results come from, a side
    static constexpr int IN = 4, SUMS = 4, PRODUCTS = 5, OUT = 4;
    static constexpr int PRODUCTS_OF[SUMS] = {1, 1, 1, 2};
    static constexpr int SUM_OF[PRODUCTS] = {0, 1, 2, 3, 3};
    static void transform_in(const Vec* d, Vec* t) {
        t[0] = d[1] + d[2], t[1] = d[0] - d[2], t[2] = d[3] - d[1], t[3] = d[1] - d[2];
    }
    static void transform_out(const Vec* m, Vec* y) {
        y[0] = m[0] + m[1] - m[3], y[1] = m[0] - m[4], y[2] = m[0] + m[3], y[3] = m[0] + m[2] + m[4];
    }
};

struct By3 {
    static constexpr int FACTOR = 3, SIDE = 1;
    static constexpr int IN = 3, SUMS = 3, PRODUCTS = 3, OUT = 3;
    static constexpr int PRODUCTS_OF[SUMS] = {1, 1, 1};
    static constexpr int SUM_OF[PRODUCTS] = {0, 1, 2};
    static void transform_in(const Vec* d, Vec* t) { t[0] = d[1], t[1] = d[0] - d[1], t[2] = d[2] - d[1]; }
    static void transform_out(const Vec* m, Vec* y) { y[0] = m[0] + m[1], y[1] = m[0], y[2] = m[0] + m[2]; }
};

constexpr int64_t TILES = 12;  // at a time

static int64_t scratch(const EnlargedTask& task) {
    const bool by_2 = task.factor == 2;
    return Cut::size((by_2 ? 16 : 9) * TILES * task.features.channels) +
           Cut::size((by_2 ? 25 : 9) * TILES * task.result.channels) + Cut::size(task.features.channels);
}

template <class By>
class RowOfTiles {
   public:
    RowOfTiles(const EnlargedTask& task, float* scratch)
        : task_(task), ins_(task.features.channels), outs_(task.result.channels) {
        Cut cut(scratch);
        in_ = cut.take(By::SUMS * By::SUMS * TILES * ins_);
        out_ = cut.take(By::PRODUCTS * By::PRODUCTS * TILES * outs_);
        zeros_ = cut.take(ins_);
        memset(zeros_, 0, sizeof(float) * static_cast<size_t>(ins_));
    }

    // `tiles` whose results begin at (top, left), (top, left + OUT), ... and end where the place does.
    void run(int64_t top, int64_t left, int64_t tiles, const Place& place) {
        for (int64_t tile = 0; tile < tiles; ++tile)
            take(top / By::FACTOR - 1, left / By::FACTOR + tile * By::SIDE - 1, tile, place);
        const float* weight = task_.weight;
        float* out = out_;
        for (int row = 0; row < By::SUMS; ++row)
            for (int column = 0; column < By::SUMS; ++column) {
                const int64_t width = By::PRODUCTS_OF[row] * By::PRODUCTS_OF[column] * outs_;
                multiply(in_ + (row * By::SUMS + column) * TILES * ins_, ins_, tiles, ins_, weight, width, out, width,
                         From::zero);
                weight += ins_ * width, out += TILES * width;
            }
        for (int64_t tile = 0; tile < tiles; ++tile)
            for (int64_t c = 0; c < outs_; c += LANES) put(top, left + By::OUT * tile, tile, c, place);
    }

   private:
    void take(int64_t top, int64_t left, int64_t tile, const Place& place) {
        const float* from[By::IN][By::IN];
        const Map& map = task_.features;
        // Beyond what the place needs nothing may be in memory.
        const int64_t bottom = least(map.height, place.bottom / By::FACTOR + 1);
        const int64_t right = least(map.width, place.right / By::FACTOR + 1);
        for (int row = 0; row < By::IN; ++row)
            for (int column = 0; column < By::IN; ++column) {
                const int64_t y = top + row, x = left + column;
                from[row][column] = y >= 0 && y < bottom && x >= 0 && x < right ? map.at(y, x) : zeros_;
            }
        for (int64_t c = 0; c < ins_; c += LANES) {
            Vec half[By::IN][By::SUMS];
            for (int row = 0; row < By::IN; ++row) {
                Vec pixels[By::IN];
                for (int column = 0; column < By::IN; ++column) pixels[column] = load(from[row][column] + c);
                By::transform_in(pixels, half[row]);
            }
            for (int column = 0; column < By::SUMS; ++column) {
                Vec pixels[By::IN], whole[By::SUMS];
                for (int row = 0; row < By::IN; ++row) pixels[row] = half[row][column];
                By::transform_in(pixels, whole);
                for (int row = 0; row < By::SUMS; ++row)
                    store(in_ + ((row * By::SUMS + column) * TILES + tile) * ins_ + c, whole[row]);
            }
        }
    }

    // Products of the same sums lie beside one another.
    const float* product(int row, int column, int64_t tile) const {
        const int sum_row = By::SUM_OF[row], sum_column = By::SUM_OF[column];
        const int across = By::PRODUCTS_OF[sum_column], count = By::PRODUCTS_OF[sum_row] * across;
        const int number = (row - sum_row) * across + column - sum_column;
        // Those of all sums before: whole rows of sums, and in this row as many columns as there are products.
        const int before = By::PRODUCTS * sum_row + By::PRODUCTS_OF[sum_row] * sum_column;
        return out_ + (before * TILES + tile * count + number) * outs_;
    }

    void put(int64_t top, int64_t left, int64_t tile, int64_t c, const Place& place) {
        Vec half[By::OUT][By::PRODUCTS];
        for (int column = 0; column < By::PRODUCTS; ++column) {
            Vec products[By::PRODUCTS], results[By::OUT];
            for (int row = 0; row < By::PRODUCTS; ++row) products[row] = load(product(row, column, tile) + c);
            By::transform_out(products, results);
            for (int row = 0; row < By::OUT; ++row) half[row][column] = results[row];
        }
        const Vec bias = load(task_.bias + c);
        const float slope = task_.slope;
        const int64_t rows = least<int64_t>(By::OUT, place.bottom - top);
        const int64_t columns = least<int64_t>(By::OUT, place.right - left);
        for (int64_t row = 0; row < rows; ++row) {
            Vec results[By::OUT];
            By::transform_out(half[row], results);
            float* to = task_.result.at(top + row, left) + c;
            for (int64_t column = 0; column < columns; ++column) {
                const Vec value = results[column] + bias;
                store(to + column * outs_, value < 0 ? value * slope : value);
            }
        }
    }

    const EnlargedTask& task_;
    const int64_t ins_, outs_;
    float *in_, *out_, *zeros_;
};

template <class By>
static void run_tiles(const EnlargedTask& task, Place place, float* scratch) {
    RowOfTiles<By> tiles(task, scratch);
    const int64_t total = divide_up(place.width(), By::OUT);
    for (int64_t top = place.top; top < place.bottom; top += By::OUT)
        for (int64_t tile = 0; tile < total; tile += TILES)
            tiles.run(top, place.left + tile * By::OUT, least(TILES, total - tile), place);
}

// The place begins at a whole pixel of the map that is enlarged.
static void run(const EnlargedTask& task, Place place, float* scratch) {
    if (task.factor == 2) return run_tiles<By2>(task, place, scratch);
    run_tiles<By3>(task, place, scratch);
}

}  // namespace enlarged
}  // namespace ESCSR_LEVEL
}  // namespace escsr
