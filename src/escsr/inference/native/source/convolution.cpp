// 3x3 convolution by Winograd's F(4x4, 3x3): tiles of 6x6 numbers in, 4x4 out, a quarter of the products.
//
// Every number of a tile is a vector of channels. 36 small matrix products, one for each place of a
// transformed tile, do the work; a row of tiles goes through all steps while it is in the cache.
#include "matrix.h"

struct ConvolutionTask {
    const float* features;  // (H*W, C in)
    const float* weight;    // (36, C in, C out), transformed
    const float* bias;      // (C out,)
    const float* added;     // (H*W, C out), added to the result; null for nothing
    float* result;          // (H*W, C out)
    int64_t height, width, num_inputs, num_outputs, threads;
};

namespace {

constexpr int64_t TILES = 16;  // at a time
constexpr int64_t IN = 6, OUT = 4;

// Six numbers to six.
inline void transform_in(const Vec* d, Vec* t) {
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
inline void transform_out(const Vec* m, Vec* y) {
    const Vec s = m[1] + m[2], d = m[1] - m[2], t = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + s + t;
    y[1] = d + 2.0f * e;
    y[2] = s + 4.0f * t;
    y[3] = d + 8.0f * e + m[5];
}

class RowOfTiles {
   public:
    RowOfTiles(const ConvolutionTask& task, float* scratch)
        : task_(task), in_(scratch), out_(in_ + IN * IN * TILES * task.num_inputs),
          zeros_(out_ + IN * IN * TILES * task.num_outputs) {
        std::memset(zeros_, 0, 4 * task.num_outputs);
    }

    static size_t floats(const ConvolutionTask& task) {
        return IN * IN * TILES * (task.num_inputs + task.num_outputs) + task.num_outputs;
    }

    // Tiles whose results begin at (top, left), (top, left + 4), ...
    void run(int64_t top, int64_t left) {
        const int64_t tiles = std::min(TILES, (task_.width - left + OUT - 1) / OUT);
        for (int64_t tile = 0; tile < tiles; ++tile)
            for (int64_t c = 0; c < task_.num_inputs; c += LANES) take(top - 1, left + OUT * tile - 1, tile, c);
        const int64_t ins = task_.num_inputs, outs = task_.num_outputs;
        for (int64_t place = 0; place < IN * IN; ++place)
            multiply(in_ + place * TILES * ins, ins, tiles, ins, task_.weight + place * ins * outs, outs,
                     out_ + place * TILES * outs, outs, From::bias, zeros_);
        for (int64_t tile = 0; tile < tiles; ++tile)
            for (int64_t c = 0; c < outs; c += LANES) put(top, left + OUT * tile, tile, c);
    }

   private:
    void take(int64_t top, int64_t left, int64_t tile, int64_t c) {
        Vec half[IN][IN];
        for (int64_t row = 0; row < IN; ++row) {
            Vec numbers[IN];
            for (int64_t column = 0; column < IN; ++column) numbers[column] = number(top + row, left + column, c);
            transform_in(numbers, half[row]);
        }
        for (int64_t column = 0; column < IN; ++column) {
            Vec numbers[IN], whole[IN];
            for (int64_t row = 0; row < IN; ++row) numbers[row] = half[row][column];
            transform_in(numbers, whole);
            for (int64_t row = 0; row < IN; ++row)
                store(in_ + ((row * IN + column) * TILES + tile) * task_.num_inputs + c, whole[row]);
        }
    }

    Vec number(int64_t y, int64_t x, int64_t c) const {
        const bool is_within = y >= 0 && y < task_.height && x >= 0 && x < task_.width;
        return is_within ? load(task_.features + (y * task_.width + x) * task_.num_inputs + c) : Vec{};
    }

    void put(int64_t top, int64_t left, int64_t tile, int64_t c) {
        Vec half[OUT][IN];
        for (int64_t column = 0; column < IN; ++column) {
            Vec numbers[IN], four[OUT];
            for (int64_t row = 0; row < IN; ++row)
                numbers[row] = load(out_ + ((row * IN + column) * TILES + tile) * task_.num_outputs + c);
            transform_out(numbers, four);
            for (int64_t row = 0; row < OUT; ++row) half[row][column] = four[row];
        }
        const Vec bias = load(task_.bias + c);
        for (int64_t row = 0; row < std::min(OUT, task_.height - top); ++row) {
            Vec four[OUT];
            transform_out(half[row], four);
            for (int64_t column = 0; column < std::min(OUT, task_.width - left); ++column) {
                const int64_t at = ((top + row) * task_.width + left + column) * task_.num_outputs + c;
                const Vec value = four[column] + bias;
                store(task_.result + at, task_.added ? value + load(task_.added + at) : value);
            }
        }
    }

    const ConvolutionTask& task_;
    float *in_, *out_, *zeros_;
};

}  // namespace

extern "C" int escsr_convolve_3x3(const ConvolutionTask* task) {
    return guarded([&] {
        const int64_t threads = std::max<int64_t>(1, task->threads);
        const int64_t rows = (task->height + OUT - 1) / OUT, step = OUT * TILES;
        const int64_t columns = (task->width + step - 1) / step;
        std::vector<std::unique_ptr<Scratch>> scratch;
        for (int64_t thread = 0; thread < threads; ++thread)
            scratch.push_back(std::make_unique<Scratch>(RowOfTiles::floats(*task)));
        in_threads(rows * columns, threads, [&](int64_t item, int64_t thread) {
            RowOfTiles(*task, scratch[thread]->get()).run(item / columns * OUT, item % columns * step);
        });
        return DONE;
    });
}
