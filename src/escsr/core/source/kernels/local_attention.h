// Local deformable attention (see LocalAttentionTask), row by row of the result.
//
// The network of offsets and the places are computed with pixels in lanes, what is sampled with channels in lanes.
#pragma once
#include "../head_kernels.h"
#include "maps.h"
#include "sums.h"

namespace escsr {
namespace ESCSR_LEVEL {
namespace local_attention {

typedef float Eight __attribute__((vector_size(32)));
typedef float UnalignedEight __attribute__((vector_size(32), aligned(4), may_alias));
static_assert(KEY_BLOCK == 8, "");

static inline Eight load_eight(const float* from) { return *reinterpret_cast<const UnalignedEight*>(from); }

constexpr int GROUPS = 2, PLACES = 9, AXES = 2, TAPS = 9;
constexpr int64_t RING = 3;  // rows of queries and hidden values
constexpr int64_t BORDER = 2;  // columns of queries around the place

// Of one of the two axes: where pixels of the result lie among the features.
struct Axis {
    double step;
    Axis(int64_t length, int64_t scale)
        : step(static_cast<double>(length - 1) / static_cast<double>(most<int64_t>(scale * length - 1, 1))) {}
    double place(int64_t pixel) const { return static_cast<double>(pixel) * step; }
};

static inline int64_t row_length(int64_t width) { return round_up(width + 2 * BORDER, LANES) + LANES; }

static int64_t scratch(const LocalAttentionTask& task, int64_t width) {
    const int64_t length = row_length(width), planes = RING * GROUPS * task.group_channels * length;
    return 2 * Cut::size(planes) + Cut::size(RING * length * task.queries.channels) + Cut::size(length) +
           Cut::size(task.group_channels * LANES) + Cut::size(GROUPS * PLACES * AXES * LANES) +
           Cut::size(GROUPS * PLACES * LANES) + Cut::size(4 * GROUPS * PLACES * LANES) +
           Cut::size(PLACES * LANES * KEY_BLOCK);
}

class Rows {
   public:
    Rows(const LocalAttentionTask& task, Place place, float* scratch)
        : task_(task), place_(place), down_(task.values.height, task.scale), across_(task.values.width, task.scale),
          height_(task.values.height * task.scale), width_(task.values.width * task.scale),
          length_(row_length(place.width())), channels_(task.group_channels), keys_(task.queries.channels) {
        Cut cut(scratch);
        const int64_t planes = RING * GROUPS * channels_ * length_;
        queries_ = cut.take(planes), hidden_ = cut.take(planes);
        query_pixels_ = cut.take(RING * length_ * keys_);
        columns_ = cut.take(length_);
        convolved_ = cut.take(channels_ * LANES);
        offsets_ = cut.take(GROUPS * PLACES * AXES * LANES);
        at_ = cut.take(GROUPS * PLACES * LANES);
        weights_ = cut.take(4 * GROUPS * PLACES * LANES);
        products_ = cut.take(PLACES * LANES * KEY_BLOCK);
        // What lies beyond the columns is computed, too, and not used.
        memset(scratch, 0, sizeof(float) * static_cast<size_t>(local_attention::scratch(task, place.width())));
        for (int64_t i = 0; i < length_; ++i) {
            const double column = across_.place(place.left - BORDER + i);
            columns_[i] = static_cast<float>(column - static_cast<double>(task.values.held.left));
        }
    }

    void run() {
        enlarge_queries(place_.top - 2);
        enlarge_queries(place_.top - 1);
        enlarge_queries(place_.top);
        make_hidden(place_.top - 1);
        enlarge_queries(place_.top + 1);
        make_hidden(place_.top);
        for (int64_t row = place_.top; row < place_.bottom; ++row) {
            enlarge_queries(row + 2);
            make_hidden(row + 1);
            for (int64_t left = place_.left; left < place_.right; left += LANES)
                attend(row, left, least<int64_t>(LANES, place_.right - left));
        }
    }

   private:
    // Rows of planes: column 0 is BORDER before the place's first.
    float* plane(float* planes, int64_t row, int64_t channel) const {
        return planes + (((row + RING) % RING) * GROUPS * channels_ + channel) * length_;
    }
    // The queries of a pixel of the result, all channels. Two rows before the one that was made last are there.
    float* query(int64_t row, int64_t column) const {
        return query_pixels_ + (((row + RING) % RING) * length_ + column - place_.left + BORDER) * keys_;
    }
    bool has_row(int64_t row) const { return row >= 0 && row < height_; }

    // A row of the queries at the size of the result: zeros beyond it.
    void enlarge_queries(int64_t row) {
        const Map& map = task_.queries;
        for (int64_t channel = 0; channel < GROUPS * channels_; ++channel)
            memset(plane(queries_, row, channel), 0, sizeof(float) * static_cast<size_t>(length_));
        if (!has_row(row)) return;
        const double y = down_.place(row);
        const int64_t upper = least(static_cast<int64_t>(y), map.height - 1), lower = least(upper + 1, map.height - 1);
        const float beyond_y = static_cast<float>(y - static_cast<double>(upper));
        const int64_t first = most<int64_t>(place_.left - BORDER, 0), last = least(place_.right + BORDER, width_);
        for (int64_t column = first; column < last; ++column) {
            const double x = across_.place(column);
            const int64_t left = least(static_cast<int64_t>(x), map.width - 1), right = least(left + 1, map.width - 1);
            const float beyond_x = static_cast<float>(x - static_cast<double>(left));
            const float *a = map.at(upper, left), *b = map.at(upper, right), *c = map.at(lower, left),
                        *d = map.at(lower, right);
            float* to = query(row, column);
            for (int64_t k = 0; k < keys_; k += LANES) {
                const Vec above = load(a + k) + (load(b + k) - load(a + k)) * beyond_x;
                const Vec below = load(c + k) + (load(d + k) - load(c + k)) * beyond_x;
                store(to + k, above + (below - above) * beyond_y);
            }
            for (int64_t group = 0; group < GROUPS; ++group)
                for (int64_t k = 0; k < channels_; ++k)
                    plane(queries_, row, group * channels_ + k)[column - place_.left + BORDER] =
                        to[group * (keys_ / GROUPS) + k];
        }
    }

    // SiLU of the normalised depthwise convolution of a row of queries.
    void make_hidden(int64_t row) {
        if (!has_row(row)) {
            for (int64_t channel = 0; channel < GROUPS * channels_; ++channel)
                memset(plane(hidden_, row, channel), 0, sizeof(float) * static_cast<size_t>(length_));
            return;
        }
        for (int64_t group = 0; group < GROUPS; ++group) {
            for (int64_t i = 1; i < place_.width() + 2 * BORDER - 1; i += LANES) make_hidden(row, group, i);
            // Beyond the result there are zeros.
            for (int64_t k = group * channels_; k < (group + 1) * channels_; ++k) {
                if (place_.left == 0) plane(hidden_, row, k)[BORDER - 1] = 0;
                if (place_.right == width_) plane(hidden_, row, k)[place_.width() + BORDER] = 0;
            }
        }
    }

    void make_hidden(int64_t row, int64_t group, int64_t i) {
        Vec sum = Vec{};
        for (int64_t k = 0; k < channels_; ++k) {
            const float* taps = task_.depthwise + k * TAPS;
            Vec total = Vec{};
            for (int64_t tap = 0; tap < TAPS; ++tap)
                total += load(plane(queries_, row + tap / 3 - 1, group * channels_ + k) + i + tap % 3 - 1) * taps[tap];
            store(convolved_ + k * LANES, total);
            sum += total;
        }
        const float share = 1.0f / static_cast<float>(channels_);
        const Vec mean = sum * share;
        Vec squares = Vec{};
        for (int64_t k = 0; k < channels_; ++k) {
            const Vec centred = load(convolved_ + k * LANES) - mean;
            squares += centred * centred;
        }
        float deviation[LANES];
        store(deviation, squares * share + 1e-6f);
        for (int lane = 0; lane < LANES; ++lane) deviation[lane] = 1.0f / sqrtf(deviation[lane]);
        for (int64_t k = 0; k < channels_; ++k) {
            const Vec normal = (load(convolved_ + k * LANES) - mean) * load(deviation);
            const Vec value = normal * task_.norm_gain[k] + task_.norm_bias[k];
            store(plane(hidden_, row, group * channels_ + k) + i, value * sigmoid_of(value));
        }
    }

    // `count` pixels of a row of the result.
    void attend(int64_t row, int64_t left, int64_t count) {
        const int64_t i = left - place_.left + BORDER;
        for (int64_t group = 0; group < GROUPS; ++group) {
            constexpr int AT_ONCE = REGISTERS == 32 ? PLACES * AXES : PLACES;
            for (int first = 0; first < PLACES * AXES; first += AT_ONCE) find_offsets<AT_ONCE>(row, group, i, first);
            find_places(row, group, i);
        }
        for (int64_t p = 0; p < count; ++p) score(query(row, left + p), p);
        soften();
        for (int64_t p = 0; p < count; ++p) {
            float* to = task_.result.at(row, left + p);
            const int64_t width = task_.result.channels / GROUPS;
            for (int64_t group = 0; group < GROUPS; ++group, to += width) {
                int64_t c = 0;
                for (; c + 4 * LANES <= width; c += 4 * LANES) sample<4>(p, group, c, to + c);
                for (; c + 2 * LANES <= width; c += 2 * LANES) sample<2>(p, group, c, to + c);
                for (; c < width; c += LANES) sample<1>(p, group, c, to + c);
            }
        }
    }

    template <int COUNT>
    void find_offsets(int64_t row, int64_t group, int64_t i, int first) {
        Vec total[COUNT];
#pragma GCC unroll 18
        for (int o = 0; o < COUNT; ++o) total[o] = all(task_.offset_bias[first + o]);
        const float* weight = task_.to_offsets + first;
        for (int64_t k = 0; k < channels_; ++k)
            for (int64_t y = -1; y <= 1; ++y) {
                const float* from = plane(hidden_, row + y, group * channels_ + k) + i;
                for (int64_t x = -1; x <= 1; ++x, weight += PLACES * AXES) {
                    const Vec value = load(from + x);
#pragma GCC unroll 18
                    for (int o = 0; o < COUNT; ++o) total[o] += value * weight[o];
                }
            }
#pragma GCC unroll 18
        for (int o = 0; o < COUNT; ++o)
            // 11 tanh(total)
            store(offsets_ + (group * PLACES * AXES + first + o) * LANES,
                  2 * LARGEST_OFFSET * sigmoid_of(2.0f * total[o]) - LARGEST_OFFSET);
    }

    // The first of two neighbours along an axis, counted from the first held, and the weights of both: none beyond the
    // map, which begins at `begin` and ends at `end`. `held` of them are in memory.
    static Vec split(Vec place, float begin, float end, int64_t held, Vec& first_weight, Vec& second_weight) {
        place = within(place, -16777216.0f, 16777216.0f);
        Vec whole = __builtin_convertvector(__builtin_convertvector(place, IntVec), Vec);
        whole = whole > place ? whole - 1.0f : whole;
        const Vec beyond = place - whole, none = Vec{};
        first_weight = whole < begin ? none : whole > end ? none : 1.0f - beyond;
        second_weight = whole < begin - 1.0f ? none : whole > end - 1.0f ? none : beyond;
        return within(whole, 0.0f, static_cast<float>(held - 2));
    }

    void find_places(int64_t row, int64_t group, int64_t i) {
        const Map& map = task_.values;
        const Place& held = map.held;
        const float step_y = static_cast<float>(down_.step), step_x = static_cast<float>(across_.step);
        const Vec y_place = all(static_cast<float>(down_.place(row) - static_cast<double>(held.top)));
        const Vec x_place = load(columns_ + i);
        const float top = static_cast<float>(-held.top), left = static_cast<float>(-held.left);
        const float bottom = static_cast<float>(map.height - 1 - held.top);
        const float right = static_cast<float>(map.width - 1 - held.left);
        for (int n = 0; n < PLACES; ++n) {
            const float* offset = offsets_ + (group * PLACES + n) * AXES * LANES;
            const Vec y = y_place + (load(offset) + static_cast<float>(n / 3 - 1)) * step_y;
            const Vec x = x_place + (load(offset + LANES) + static_cast<float>(n % 3 - 1)) * step_x;
            Vec upper, lower, before, after;
            const Vec first_row = split(y, top, bottom, held.height(), upper, lower);
            const Vec first_column = split(x, left, right, held.width(), before, after);
            const int64_t number = group * PLACES + n;
            const IntVec rows = __builtin_convertvector(first_row, IntVec);
            store_whole(at_ + number * LANES,
                        rows * static_cast<int32_t>(held.width()) + __builtin_convertvector(first_column, IntVec));
            float* weight = weights_ + 4 * number * LANES;
            store(weight, upper * before), store(weight + LANES, upper * after);
            store(weight + 2 * LANES, lower * before), store(weight + 3 * LANES, lower * after);
        }
    }

    // Products of a pixel's queries with the keys that it sampled, KEY_BLOCK to be summed for each place.
    void score(const float* query, int64_t p) {
        const Map& map = task_.keys;
        const int64_t right = map.channels, down = map.row_step(), width = map.channels / GROUPS;
        Eight total[PLACES] = {};
        for (int64_t group = 0; group < GROUPS; ++group)
            for (int64_t k = group * width; k < (group + 1) * width; k += KEY_BLOCK) {
                const Eight factor = load_eight(query + k);
#pragma GCC unroll 9
                for (int n = 0; n < PLACES; ++n) {
                    const int64_t number = group * PLACES + n;
                    const float* from = map.data + load_whole(at_ + number * LANES + p) * right + k;
                    const float* weight = weights_ + 4 * number * LANES + p;
                    Eight key = load_eight(task_.table + n * map.channels + k);
                    key += load_eight(from) * weight[0] + load_eight(from + right) * weight[LANES];
                    from += down;
                    key += load_eight(from) * weight[2 * LANES] + load_eight(from + right) * weight[3 * LANES];
                    total[n] += factor * key;
                }
            }
        for (int n = 0; n < PLACES; ++n)
            memcpy(products_ + (n * LANES + p) * KEY_BLOCK, &total[n], sizeof(Eight));
    }

    // The sums of products of a place, for all pixels.
    Vec sums(int n) const {
        const float* from = products_ + n * LANES * KEY_BLOCK;
        constexpr int SIZE = LANES < KEY_BLOCK ? LANES : static_cast<int>(KEY_BLOCK);
        Vec blocks[SIZE];
        for (int block = 0; block < SIZE; ++block) {
            if constexpr (SIZE == KEY_BLOCK)
                blocks[block] = load(from + block * LANES);
            else
                blocks[block] = load(from + block * KEY_BLOCK) + load(from + block * KEY_BLOCK + LANES);
        }
        return sums_of_blocks<SIZE>(blocks);
    }

    // Attention: the softmax of the scores, which multiplies the weights of what is sampled.
    void soften() {
        Vec score[PLACES], highest = sums(0), total = Vec{};
        score[0] = highest;
        for (int n = 1; n < PLACES; ++n) score[n] = sums(n), highest = larger(score[n], highest);
        for (int n = 0; n < PLACES; ++n) score[n] = exp2_of(score[n] - highest), total += score[n];
        for (int n = 0; n < PLACES; ++n) {
            const Vec share = score[n] / total;
            for (int64_t group = 0; group < GROUPS; ++group)
                for (int corner = 0; corner < 4; ++corner) {
                    float* weight = weights_ + (4 * (group * PLACES + n) + corner) * LANES;
                    store(weight, load(weight) * share);
                }
        }
    }

    // VECTORS vectors of a group's channels from c on, of one pixel.
    template <int VECTORS>
    void sample(int64_t p, int64_t group, int64_t c, float* to) const {
        const Map& map = task_.values;
        const int64_t right = map.channels, down = map.row_step();
        const float* values = map.data + group * (map.channels / GROUPS) + c;
        Vec total[VECTORS] = {};
        for (int n = 0; n < PLACES; ++n) {
            const int64_t number = group * PLACES + n;
            const float* from = values + load_whole(at_ + number * LANES + p) * right;
            const float* weight = weights_ + 4 * number * LANES + p;
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v, from += LANES) {
                total[v] += load(from) * weight[0];
                total[v] += load(from + right) * weight[LANES];
                total[v] += load(from + down) * weight[2 * LANES];
                total[v] += load(from + down + right) * weight[3 * LANES];
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(to + v * LANES, total[v]);
    }

    const LocalAttentionTask& task_;
    const Place place_;
    const Axis down_, across_;
    const int64_t height_, width_;  // of the whole result
    const int64_t length_, channels_, keys_;
    float *queries_, *hidden_, *query_pixels_, *columns_, *convolved_, *offsets_, *at_, *weights_, *products_;
};

static void run(const LocalAttentionTask& task, Place place, float* scratch) { Rows(task, place, scratch).run(); }

}  // namespace local_attention
}  // namespace ESCSR_LEVEL
}  // namespace escsr
