// Attention of one head within one window, from the feature map to the values that the output projection takes.
//
// Queries fill the lanes: a vector holds neighbouring queries of one row of a window, whose biases for one key lie
// beside each other in the table of relative offsets. Two such vectors are worked on at a time, so that each number
// read of a key or a value serves both. Scores of a few rows of keys are in memory at a time; those of all pairs, and
// an expanded bias, never.
//
// Scores are SCORE_UNIT log2(e) times what softmax takes: as whole numbers they are exponent and mantissa of the
// weights.
#pragma once
#include "../kernels.h"
#include "maps.h"
#include "multiply.h"
#include "transpose.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace attention {

// As many sums as registers hold, and neither more nor fewer.
constexpr int VECTORS = REGISTERS == 32 && LANES == 4 ? 4 : 2;  // of queries at a time
constexpr int QUERIES = VECTORS * LANES;                        // likewise
constexpr int KEYS = REGISTERS == 32 && LANES > 4 ? 8 : 4;      // whose scores are in registers at a time
constexpr int CHANNELS = KEYS == 8 ? 8 : 6;                     // of values whose sums are in registers at a time, at most
constexpr int64_t PIECE = 32;                      // pixels projected at a time
constexpr int64_t FEW_KEYS = 64;                   // about so many scores are kept of each query,
constexpr int64_t MANY_KEYS = 256;                 // or so many where the highest has to be found first

// Scores below this need no highest score subtracted: powers and their sums neither overflow nor lose precision.
constexpr float HIGHEST_PLAIN = 80.0f * SCORE_UNIT;
// Weights that are so much smaller than another are left out: 2^-40 of it.
constexpr float NEGLIGIBLE = -40.0f * SCORE_UNIT;

// 2^(1 + x / SCORE_UNIT) for |x| < 126 * SCORE_UNIT. Relative error 2.7e-7.
static inline Vec power_of(Vec x) {
    const IntVec fixed = __builtin_convertvector(x, IntVec);
    const Vec m = (Vec)((fixed & 0x7fffff) | 0x3f800000);  // 1 + the fraction
    // 2^m, nowhere below 2 and everywhere below 4, so that its exponent's bits are 10000000. Tested for all 2^23
    // fractions, with and without fused multiply-adds.
    Vec p = m * 3.6473095e-3f + 1.96605506e-5f;
    p = p * m + 7.48475417e-2f;
    p = p * m + 0.219270363f;
    p = p * m + 0.704893887f;
    p = p * m + 0.997321486f;
    // The whole number, biased by 128, takes their place.
    return (Vec)((IntVec)p ^ (fixed & 0x7f800000));
}

// For -infinity < x <= 0; 2^-119 where it is less.
static inline Vec power_of_any(Vec x) { return power_of(larger(x, all(-120.0f * SCORE_UNIT))); }

static inline bool any_of(IntVec mask) {
    int64_t part[LANES / 2];
    memcpy(part, &mask, sizeof mask);
    int64_t any = 0;
    for (int i = 0; i < LANES / 2; ++i) any |= part[i];
    return any != 0;
}

// score += queries, VECTORS times (depth, LANES), times keys, (depth, LANES), of which those from `keys` on are taken
static inline void add_products(const float* const* queries, const float* keys, int64_t depth,
                                Vec (*score)[VECTORS]) {
    const float* query[VECTORS];
    for (int v = 0; v < VECTORS; ++v) query[v] = queries[v];
    for (int64_t d = 0; d < depth * LANES; d += LANES) {
        Vec row[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) row[v] = load(query[v] + d);
#pragma GCC unroll 8
        for (int key = 0; key < KEYS; ++key)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) score[key][v] += keys[d + key] * row[v];
    }
}

// total (N, QUERIES) += N channels of `keys` values, weighted by (keys, QUERIES). Not inlined: sums that several of
// these load first would be loaded before the choice among them, and clang then keeps one on the stack.
template <int N>
__attribute__((noinline)) static void add_channels(const float* weights, const float* values, int64_t value_step, int64_t keys,
                                float* total) {
    Vec sum[N][VECTORS];
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[c][v] = load(total + c * QUERIES + v * LANES);
    for (int64_t key = 0; key < keys; ++key, weights += QUERIES, values += value_step) {
        Vec weight[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) weight[v] = load(weights + v * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[c][v] += values[c] * weight[v];
    }
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(total + c * QUERIES + v * LANES, sum[c][v]);
}

class WindowOfHead {
   public:
    WindowOfHead(const AttentionTask& task, int64_t window_row, int64_t window_column, int64_t head, float* scratch)
        : task_(task), side_(task.window), top_(window_row * side_), left_(window_column * side_), head_(head),
          head_dim_(task.head_dim), blocks_(divide_up(side_, LANES)) {
        Cut cut(scratch);
        const Sizes sizes(task);
        pixels_ = cut.take(sizes.pixels), projected_ = cut.take(sizes.projected);
        queries_ = cut.take(sizes.packed), keys_ = cut.take(sizes.packed), values_ = cut.take(sizes.values);
        total_ = cut.take(sizes.total), scores_ = cut.take(sizes.scores), peaks_ = cut.take(sizes.peaks);
        no_bias_ = cut.take(sizes.no_bias);
    }

    static int64_t scratch_floats(const AttentionTask& task) {
        const Sizes sizes(task);
        return Cut::size(sizes.pixels) + Cut::size(sizes.projected) + 2 * Cut::size(sizes.packed) +
               Cut::size(sizes.values) + Cut::size(sizes.total) + Cut::size(sizes.scores) + Cut::size(sizes.peaks) +
               Cut::size(sizes.no_bias);
    }

    void run() {
        project();
        measure();
        const int64_t rows = least(side_, task_.features.height - top_);
        const int64_t row_vectors = divide_up(least(side_, task_.features.width - left_), LANES);
        const int64_t last = rows * row_vectors - 1;
        for (int64_t first = 0; first <= last; first += VECTORS) {
            // The last one fills up what is left over.
            for (int v = 0; v < VECTORS; ++v) {
                const int64_t number = least(first + v, last);
                row_[v] = number / row_vectors, block_[v] = number % row_vectors;
            }
            attend();
            for (int v = 0; v < VECTORS && first + v <= last; ++v) put(v);
        }
    }

   private:
    struct Sizes {
        int64_t pixels, projected, packed, values, total, scores, peaks, no_bias;
        explicit Sizes(const AttentionTask& task) {
            const int64_t side = task.window, rows = rows_at_once(side, MANY_KEYS);
            pixels = PIECE * task.features.channels;
            projected = PIECE * projected_width(task) + LANES;
            packed = side * round_up(side, LANES) * task.head_dim;
            values = side * side * task.head_dim + LANES;
            total = round_up(task.head_dim, LANES) * QUERIES;
            scores = rows * side * QUERIES;
            peaks = rows * divide_up(side, KEYS) * QUERIES;
            no_bias = side + LANES;
        }
    };
    static int64_t projected_width(const AttentionTask& task) { return round_up(3 * task.head_dim, LANES); }
    static int64_t rows_at_once(int64_t side, int64_t keys) { return least(side, most<int64_t>(1, keys / side)); }

    // Queries, keys and values of all places of the window.
    void project() {
        const int64_t channels = task_.features.channels, width = projected_width(task_);
        const float* weight = task_.project_weight + head_ * channels * width;
        for (int64_t row = 0; row < side_; ++row)
            for (int64_t column = 0; column < side_; column += PIECE) {
                const int64_t count = least(PIECE, side_ - column), padded = round_up(count, LANES);
                multiply(gather(row, column, count), channels, count, channels, weight, width, projected_, width,
                         From::bias, task_.project_bias + head_ * width);
                memset(projected_ + count * width, 0, sizeof(float) * static_cast<size_t>((padded - count) * width));
                for (int64_t first = 0; first < padded; first += LANES) {
                    const float* from = projected_ + first * width;
                    const int64_t to = (row * blocks_ + (column + first) / LANES) * head_dim_ * LANES;
                    transpose(from, width, head_dim_, queries_ + to);
                    transpose(from + head_dim_, width, head_dim_, keys_ + to);
                }
                keep_values(row * side_ + column, count, width);
            }
    }

    // Features of pixels beside each other, normalised where they have to be.
    const float* gather(int64_t row, int64_t column, int64_t count) {
        const Map& map = task_.features;
        const int64_t y = reflected(top_ + row, map.height), left = left_ + column;
        const int64_t inside = most<int64_t>(0, least(count, map.width - left));
        if (!task_.normalises && inside == count) return map.at(y, left);
        if (inside > 0) copy(map.at(y, left), inside, pixels_);
        for (int64_t i = inside; i < count; ++i)
            copy(map.at(y, reflected(left + i, map.width)), 1, pixels_ + i * map.channels);
        return pixels_;
    }

    void copy(const float* from, int64_t pixels, float* to) const {
        const int64_t channels = task_.features.channels;
        if (task_.normalises)
            normalise(from, channels, pixels, channels, task_.dim, to, channels);
        else
            memcpy(to, from, sizeof(float) * static_cast<size_t>(pixels * channels));
    }

    // In whole vectors: what comes after a value is the next one's place.
    void keep_values(int64_t token, int64_t count, int64_t width) {
        const float* from = projected_ + 2 * head_dim_;
        float* to = values_ + token * head_dim_;
        for (int64_t i = 0; i < count; ++i, from += width, to += head_dim_)
            for (int64_t d = 0; d < head_dim_; d += LANES) store(to + d, load(from + d));
    }

    // How long queries may be that no score exceeds HIGHEST_PLAIN.
    void measure() {
        Vec longest = Vec{}, poison = Vec{};
        for (int64_t i = 0; i < side_ * blocks_; ++i) {
            Vec squares = squares_of(keys_ + i * head_dim_ * LANES, head_dim_);
            if (task_.rank > 0) squares += squares_of(key_factors(i), task_.rank);
            longest = larger(squares, longest);
            poison += squares * 0.0f;
        }
        poison_ = sum_of(poison);
        const float room = HIGHEST_PLAIN - largest_bias();
        longest_query_ = room > 0 ? room * room / most(highest_of(longest), 1e-30f) : -1.0f;
    }

    static Vec squares_of(const float* from, int64_t depth) {
        Vec squares = Vec{};
        for (int64_t d = 0; d < depth; ++d) squares += load(from + d * LANES) * load(from + d * LANES);
        return squares;
    }

    float largest_bias() {
        if (!task_.bias) {
            memset(no_bias_, 0, sizeof(float) * static_cast<size_t>(side_ + LANES));
            return 0;
        }
        const int64_t offsets = 2 * side_ - 1;
        const float* bias = task_.bias + head_ * offsets * task_.bias_step;
        Vec largest = Vec{};
        // Whole vectors: rows are padded by zeros.
        for (int64_t row = 0; row < offsets; ++row, bias += task_.bias_step)
            for (int64_t column = 0; column < offsets; column += LANES) {
                const Vec value = load(bias + column);
                largest = larger(larger(value, -value), largest);
            }
        return highest_of(largest);
    }

    static float highest_of(Vec value) {
        float part[LANES], highest = 0;
        store(part, value);
        for (int lane = 0; lane < LANES; ++lane) highest = most(highest, part[lane]);
        return highest;
    }

    // Of a block of LANES places of the window, for this head.
    const float* key_factors(int64_t block) const {
        return task_.key_factors + (head_ * side_ * blocks_ + block) * task_.rank * LANES;
    }

    void attend() {
        bool is_plain = poison_ == 0;
        for (int v = 0; v < VECTORS; ++v) {
            const int64_t block = row_[v] * blocks_ + block_[v];
            query_[v] = queries_ + block * head_dim_ * LANES;
            Vec squares = squares_of(query_[v], head_dim_);
            if (task_.rank > 0) {
                query_factors_[v] = task_.query_factors + (head_ * side_ * blocks_ + block) * task_.rank * LANES;
                squares += squares_of(query_factors_[v], task_.rank);
            }
            is_plain = is_plain && !any_of(~(squares <= longest_query_));
            // Not a number where the query or a key is none.
            mass_[v] = squares * 0.0f + poison_;
        }
        memset(total_, 0, sizeof(float) * static_cast<size_t>(head_dim_ * QUERIES));
        if (is_plain)
            attend_plainly();
        else
            attend_carefully();
    }

    // No score is too high: weights are powers of the scores as they are.
    void attend_plainly() {
        const int64_t at_once = rows_at_once(side_, FEW_KEYS);
        for (int64_t row = 0; row < side_; row += at_once) {
            const int64_t rows = least(at_once, side_ - row);
            for (int64_t i = 0; i < rows; ++i) score_row<false>(row + i, i, nullptr);
            weigh_plainly(rows * side_);
            add_values(scores_, row * side_, rows * side_);
        }
    }

    // Weights take the places of the first `count` scores.
    void weigh_plainly(int64_t count) {
        Vec mass[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) mass[v] = mass_[v];
        float* weights = scores_;
        for (int64_t key = 0; key < count; ++key, weights += QUERIES)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                const Vec weight = power_of(load(weights + v * LANES));
                mass[v] += weight;
                store(weights + v * LANES, weight);
            }
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) mass_[v] = mass[v];
    }

    // Scores of a row of keys; where PEAKS, the highest of each block of KEYS too, and of all.
    template <bool PEAKS>
    void score_row(int64_t row, int64_t number, Vec* highest) {
        float* to = scores_ + number * side_ * QUERIES;
        float* peaks = peaks_ + number * divide_up(side_, KEYS) * QUERIES;
        const float* bias[VECTORS];
        for (int v = 0; v < VECTORS; ++v) bias[v] = bias_of(v, row);
        for (int64_t column = 0; column < side_; column += KEYS) {
            const int64_t count = least<int64_t>(KEYS, side_ - column);
            if (count == KEYS)
                score_block<PEAKS, true>(row, column, KEYS, bias, to, peaks, highest);
            else
                score_block<PEAKS, false>(row, column, count, bias, to, peaks, highest);
            for (int v = 0; v < VECTORS; ++v) bias[v] -= KEYS;
            to += KEYS * QUERIES, peaks += QUERIES;
        }
    }

    // The bias of the first key of a row for the queries of a vector; that of the next key lies one float before it.
    const float* bias_of(int v, int64_t row) const {
        if (!task_.bias) return no_bias_ + side_ - 1;
        const int64_t offsets = 2 * side_ - 1;
        return task_.bias + (head_ * offsets + row - row_[v] + side_ - 1) * task_.bias_step + block_[v] * LANES + side_ - 1;
    }

    template <bool PEAKS, bool WHOLE>
    void score_block(int64_t row, int64_t column, int64_t count, const float* const* bias, float* to, float* peaks,
                     Vec* highest) {
        Vec score[KEYS][VECTORS];
#pragma GCC unroll 8
        for (int key = 0; key < KEYS; ++key)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) score[key][v] = WHOLE || key < count ? load(bias[v] - key) : Vec{};
        const int64_t block = row * blocks_ + column / LANES;
        add_products(query_, keys_ + block * head_dim_ * LANES + column % LANES, head_dim_, score);
        if (task_.rank > 0) add_products(query_factors_, key_factors(block) + column % LANES, task_.rank, score);
#pragma GCC unroll 8
        for (int key = 0; key < KEYS; ++key)
            if (WHOLE || key < count)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) store(to + key * QUERIES + v * LANES, score[key][v]);
        if (!PEAKS) return;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            Vec peak = score[0][v];
#pragma GCC unroll 8
            for (int key = 1; key < KEYS; ++key)
                if (WHOLE || key < count) peak = larger(peak, score[key][v]);
            store(peaks + v * LANES, peak);
            highest[v] = larger(highest[v], peak);
        }
    }

    void add_values(const float* weights, int64_t first, int64_t count) {
        for (int64_t done = 0; done < head_dim_;) {
            // In parts of about the same size.
            const int64_t left = head_dim_ - done, part = divide_up(left, divide_up(left, CHANNELS));
            const float* values = values_ + first * head_dim_ + done;
            float* total = total_ + done * QUERIES;
            switch (part) {
                case 8: add_channels<8>(weights, values, head_dim_, count, total); break;
                case 7: add_channels<7>(weights, values, head_dim_, count, total); break;
                case 6: add_channels<6>(weights, values, head_dim_, count, total); break;
                case 5: add_channels<5>(weights, values, head_dim_, count, total); break;
                case 4: add_channels<4>(weights, values, head_dim_, count, total); break;
                case 3: add_channels<3>(weights, values, head_dim_, count, total); break;
                case 2: add_channels<2>(weights, values, head_dim_, count, total); break;
                default: add_channels<1>(weights, values, head_dim_, count, total); break;
            }
            done += part;
        }
    }

    // Any scores: the highest of many keys is found, and subtracted, before weights are made of them. Where attention
    // is so sharp, most weights are next to nothing; these are left out.
    void attend_carefully() {
        Vec highest[VECTORS];
        for (int v = 0; v < VECTORS; ++v) highest[v] = all(-1e38f);
        const int64_t at_once = rows_at_once(side_, MANY_KEYS);
        for (int64_t row = 0; row < side_; row += at_once) {
            const int64_t rows = least(at_once, side_ - row);
            Vec higher[VECTORS];
            for (int v = 0; v < VECTORS; ++v) higher[v] = highest[v];
            for (int64_t i = 0; i < rows; ++i) score_row<true>(row + i, i, higher);
            for (int v = 0; v < VECTORS; ++v) {
                if (row > 0) shrink(v, highest[v] - higher[v]);
                highest[v] = higher[v];
            }
            for (int64_t i = 0; i < rows; ++i) weigh_row(row + i, i, highest);
        }
    }

    void shrink(int v, Vec by) {
        const Vec factor = 0.5f * power_of_any(by);
        mass_[v] *= factor;
        for (int64_t d = 0; d < head_dim_; ++d) {
            float* total = total_ + d * QUERIES + v * LANES;
            store(total, load(total) * factor);
        }
    }

    void weigh_row(int64_t row, int64_t number, const Vec* highest) {
        float* weights = scores_ + number * side_ * QUERIES;
        const float* peaks = peaks_ + number * divide_up(side_, KEYS) * QUERIES;
        int64_t begin = 0;  // of the weights that are made, but whose values are not added yet
        for (int64_t first = 0; first < side_; first += KEYS, peaks += QUERIES) {
            const int64_t last = least(first + KEYS, side_);
            IntVec counts = IntVec{};
            for (int v = 0; v < VECTORS; ++v) counts |= load(peaks + v * LANES) - highest[v] > NEGLIGIBLE;
            if (any_of(counts)) {
                weigh_block(weights + first * QUERIES, last - first, highest);
                continue;
            }
            if (begin < first) add_values(weights + begin * QUERIES, row * side_ + begin, first - begin);
            begin = last;
        }
        if (begin < side_) add_values(weights + begin * QUERIES, row * side_ + begin, side_ - begin);
    }

    void weigh_block(float* weights, int64_t count, const Vec* highest) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            Vec mass = mass_[v];
            for (int64_t key = 0; key < count; ++key) {
                float* weight = weights + key * QUERIES + v * LANES;
                const Vec power = power_of_any(load(weight) - highest[v]);
                mass += power;
                store(weight, power);
            }
            mass_[v] = mass;
        }
    }

    // The attended values of the pixels of a vector that lie in the map.
    void put(int v) {
        const Map& map = task_.attended;
        const int64_t y = top_ + row_[v], column = block_[v] * LANES, x = left_ + column;
        const int64_t lanes = least(least<int64_t>(LANES, side_ - column), map.width - x);
        const Vec share = 1.0f / mass_[v];
        float* to = map.at(y, x) + head_ * head_dim_;
        for (int64_t first = 0; first < head_dim_; first += LANES) {
            const int64_t count = least<int64_t>(LANES, head_dim_ - first);
            Vec result[LANES];
#pragma GCC unroll 16
            for (int d = 0; d < LANES; ++d) result[d] = load(total_ + (first + d) * QUERIES + v * LANES) * share;
            transpose(result);
            for (int64_t lane = 0; lane < lanes; ++lane)
                memcpy(to + lane * map.channels + first, &result[lane], sizeof(float) * static_cast<size_t>(count));
        }
    }

    const AttentionTask& task_;
    const int64_t side_, top_, left_, head_, head_dim_;
    const int64_t blocks_;  // of LANES places in a row of the window
    float *pixels_, *projected_;
    float *queries_, *keys_;   // (side, blocks, head_dim, LANES)
    float* values_;            // (side * side, head_dim)
    float* total_;             // (head_dim, QUERIES): weighted sums for the queries that are worked on
    float *scores_, *peaks_;   // (keys, QUERIES), (blocks of KEYS, QUERIES): of a few rows of keys
    float* no_bias_;
    // Of the queries that are worked on.
    int64_t row_[VECTORS], block_[VECTORS];
    const float *query_[VECTORS], *query_factors_[VECTORS];
    Vec mass_[VECTORS];
    float longest_query_, poison_;
};

static int64_t scratch(const AttentionTask& task) { return WindowOfHead::scratch_floats(task); }

static void run(const AttentionTask& task, int64_t window_row, int64_t window_column, int64_t head, float* scratch) {
    WindowOfHead(task, window_row, window_column, head, scratch).run();
}

}  // namespace attention
}  // namespace ESCSR_LEVEL
}  // namespace escsr
