#include "head_sampling.h"

#include "head_stacks.h"

namespace escsr {

namespace {

constexpr float FIRST_SLOPE = 0.01f;  // torch's default

int64_t lines(int64_t floats) { return round_up(floats, 16); }

// The pixels of the features that a place of the result lies in.
Place core_of(Place result, int64_t scale) {
    return {result.top / scale, divide_up(result.bottom, scale), result.left / scale, divide_up(result.right, scale)};
}

bool contains(const Place& outer, const Place& inner) {
    return inner.top >= outer.top && inner.bottom <= outer.bottom && inner.left >= outer.left &&
           inner.right <= outer.right;
}

// So many equal parts of an axis that none is longer than `most_length`, in steps.
int64_t part_of(int64_t length, int64_t most_length, int64_t step) {
    return round_up(divide_up(length, divide_up(length, most_length)), step);
}

}  // namespace

bool Narrowing::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& level,
                        Failure& failure) {
    kernels = &level;
    channels = round_up(configuration.upsampler_dim, level.lanes);
    return configuration.upsampler_dim == configuration.dim ||
           weights.make(tensors, "reconstruction.narrow", configuration.dim, configuration.upsampler_dim, level.lanes,
                        failure);
}

int64_t Narrowing::scratch() const {
    ConvolutionTask task = {};
    task.features.channels = weights.inputs, task.result.channels = weights.outputs;
    return is_none() ? 0 : kernels->convolution_scratch(task);
}

Map Narrowing::narrowed(const Map& features, Place place, float* memory, float* scratch) const {
    if (is_none()) return features;
    Map result = features;
    result.data = memory, result.held = place, result.channels = channels;
    const ConvolutionTask task = {features, weights.weight.data(), weights.bias.data(), Map(), result, FIRST_SLOPE};
    kernels->convolve_3x3(task, place, scratch);
    return result;
}

bool DySampleHead::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels,
                           Failure& failure) {
    kernels_ = &kernels;
    scale_ = configuration.inner_scale(), groups_ = configuration.dysample_groups;
    if (!narrowing_.prepare(configuration, tensors, kernels, failure)) return false;
    const int64_t inputs = configuration.upsampler_dim, subpixels = scale_ * scale_, count = groups_ * subpixels;
    Matrix offset, scope, both, mix, by_group;
    if (!offset.of_convolution(tensors, "reconstruction.sampler.offset", inputs, 2 * count, failure)) return false;
    if (!scope.of_convolution(tensors, "reconstruction.sampler.scope", inputs, 2 * count, failure, false)) return false;
    places_ = round_up(count, kernels.lanes);
    if (!both.make(inputs, 4 * places_, failure) || !centres_.allocate_zeros(2 * places_, failure)) return false;
    for (int64_t axis = 0; axis < 2; ++axis)
        for (int64_t k = 0; k < count; ++k) {
            const int64_t from = axis * count + k, to = axis * places_ + k, subpixel = k % subpixels;
            for (int64_t i = 0; i < inputs; ++i) {
                both.weight[i * both.outputs + to] = 0.5 * offset.weight[i * offset.outputs + from];
                both.weight[i * both.outputs + 2 * places_ + to] = scope.weight[i * scope.outputs + from];
            }
            both.bias[to] = 0.5 * offset.bias[from];
            const int64_t number = axis == 0 ? subpixel % scale_ : subpixel / scale_;
            centres_[to] = static_cast<float>(2 * number - (scale_ - 1)) / static_cast<float>(2 * scale_);
        }
    if (!both.ready(narrowing_.channels, both.outputs, weight_, bias_, failure)) return false;
    // Interpolation is linear, so that channels may be mixed before it: three numbers a group instead of all channels.
    if (!mix.of_convolution(tensors, "reconstruction.sampler.mix", inputs, 3, failure)) return false;
    mixed_ = round_up(4 * groups_, kernels.lanes);
    if (!by_group.make(inputs, mixed_, failure)) return false;
    for (int64_t i = 0; i < inputs; ++i)
        for (int64_t colour = 0; colour < 3; ++colour)
            by_group.weight[i * mixed_ + i / (inputs / groups_) * 4 + colour] = mix.weight[i * 3 + colour];
    for (int64_t colour = 0; colour < 3; ++colour) mix_bias_[colour] = static_cast<float>(mix.bias[colour]);
    Buffer<float> no_bias;
    return by_group.ready(narrowing_.channels, mixed_, mix_weight_, no_bias, failure);
}

DySampleTask DySampleHead::task(const Map& features) const {
    DySampleTask task = {};
    task.features = features, task.weight = weight_.data(), task.bias = bias_.data(), task.centres = centres_.data();
    task.num_places = places_, task.groups = groups_, task.scale = scale_, task.result_bias = mix_bias_;
    return task;
}

namespace {

constexpr int64_t CORE_HEIGHT = 16, CORE_WIDTH = 64;  // in pixels of the features
constexpr int64_t USUAL_REACH = 2;                    // of offsets: half a pixel to the sub-pixel, one to its neighbour
constexpr int64_t FIRST_MARGIN = 4;

}  // namespace

// Tiles of features that are sampled: as large as the parts of most networks need.
struct DySampleHead::Room {
    int64_t core_pixels, height, width;
};

struct DySampleHead::Memory {
    float *places, *narrowed, *mixed, *work;
};

DySampleHead::Room DySampleHead::room(int64_t height, int64_t width) const {
    const int64_t core_height = divide_up(height, scale_) + 1, core_width = divide_up(width, scale_) + 1;
    return {core_height * core_width, core_height + 2 * USUAL_REACH, core_width + 2 * USUAL_REACH};
}

int64_t DySampleHead::scratch(const HeadTask&, int64_t height, int64_t width) const {
    const Room room = this->room(height, width);
    Map features;
    features.channels = narrowing_.channels;
    LinearTask mixing = {};
    mixing.features = features, mixing.result.channels = mixed_;
    const int64_t work = most(most(narrowing_.scratch(), kernels_->linear_scratch(mixing)),
                              kernels_->heads->dysample_scratch(task(features)));
    return lines(room.core_pixels * 2 * places_) + lines(room.height * room.width * narrowing_.channels) +
           lines((room.height + 1) * (room.width + 1) * mixed_) + work;
}

Place DySampleHead::needed(const HeadTask& task, Place result) const {
    return core_of(result, scale_).grown(FIRST_MARGIN, task.features.height, task.features.width);
}

void DySampleHead::best_part(const HeadTask& task, int64_t& height, int64_t& width) const {
    height = part_of(task.result.height, CORE_HEIGHT * scale_, scale_);
    width = part_of(task.result.width, CORE_WIDTH * scale_, scale_);
}

double DySampleHead::work(const HeadTask&, Place result) const {
    const double subpixels = static_cast<double>(scale_ * scale_), pixels = static_cast<double>(result.num_pixels());
    const double per_pixel = 1.3 * narrowing_.work() + static_cast<double>(weight_.size() + mix_weight_.size());
    return pixels * (per_pixel / subpixels + static_cast<double>(30 * groups_));
}

// The mixed channels of a place, with a row and a column of zeros beyond it: neighbours whose weight is zero.
Map DySampleHead::mix(const Map& features, Place place, const Memory& memory) const {
    LinearTask task = {};
    task.features = features, task.weight = mix_weight_.data();
    Map& mixed = task.result;
    mixed = features;
    mixed.data = memory.mixed, mixed.channels = mixed_;
    mixed.held = {place.top, place.bottom + 1, place.left, place.right + 1};
    for (int64_t y = place.top; y < place.bottom; ++y)
        memset(mixed.at(y, place.right), 0, sizeof(float) * static_cast<size_t>(mixed_));
    memset(mixed.at(place.bottom, place.left), 0, sizeof(float) * static_cast<size_t>(mixed.row_step()));
    kernels_->run_linear(task, place, nullptr, memory.work);
    return mixed;
}

int64_t DySampleHead::make(const HeadTask& task, Place result, float* scratch) const {
    const Place core = core_of(result, scale_);
    const Room room = this->room(result.height(), result.width());
    Memory memory;
    memory.places = scratch;
    memory.narrowed = memory.places + lines(room.core_pixels * 2 * places_);
    memory.mixed = memory.narrowed + lines(room.height * room.width * narrowing_.channels);
    memory.work = memory.mixed + lines((room.height + 1) * (room.width + 1) * mixed_);

    const Map& features = task.features;
    const Place usual = core.grown(USUAL_REACH, features.height, features.width);
    DySampleTask sampling = this->task(narrowing_.narrowed(features, usual, memory.narrowed, memory.work));
    sampling.result = planes_of(task.result);
    const Place reach = kernels_->heads->find_places(sampling, core, memory.places, memory.work);
    const Place needed = narrowing_.needed(features, reach);
    if (!contains(features.held, needed)) {
        const Place& held = features.held;
        return most(most(held.top - needed.top, needed.bottom - held.bottom),
                    most(held.left - needed.left, needed.right - held.right));
    }
    if (contains(usual, reach)) {
        sampling.mixed = mix(sampling.features, usual, memory);
        kernels_->heads->sample_places(sampling, core, result, usual, memory.places, false, memory.work);
    } else {
        sample_tiles(task, sampling, core, result, reach, room, memory);
    }
    return 0;
}

// Where offsets are large: tile by tile, what each contributes.
void DySampleHead::sample_tiles(const HeadTask& task, DySampleTask sampling, Place core, Place result, Place reach,
                                const Room& room, const Memory& memory) const {
    for (int64_t colour = 0; colour < 3; ++colour)
        for (int64_t y = result.top; y < result.bottom; ++y)
            for (int64_t x = result.left; x < result.right; ++x) *sampling.result.at(colour, y, x) = mix_bias_[colour];
    for (int64_t top = reach.top; top < reach.bottom; top += room.height)
        for (int64_t left = reach.left; left < reach.right; left += room.width) {
            const Place tile = {top, least(top + room.height, reach.bottom), left,
                                least(left + room.width, reach.right)};
            if (!kernels_->heads->has_places_in(sampling, core, memory.places, tile)) continue;
            const Map narrowed = narrowing_.narrowed(task.features, tile, memory.narrowed, memory.work);
            sampling.mixed = mix(narrowed, tile, memory);
            kernels_->heads->sample_places(sampling, core, result, tile, memory.places, true, memory.work);
        }
}

namespace {

constexpr int64_t GROUPS = 2, PLACES = 9;
constexpr int64_t REDUCTION = 4;                  // channels of values over those of queries and keys
constexpr int64_t FARTHEST = LARGEST_OFFSET + 1;  // pixels of the result: offsets start from neighbours
constexpr int64_t BAND_ROWS = 16;
constexpr int64_t PART_HEIGHT = 64, PART_WIDTH = 128;

int64_t divide_down(int64_t value, int64_t by) { return value >= 0 ? value / by : -divide_up(-value, by); }

// Pixels of the features between which the result's pixels [first, last) may be sampled.
void region_of_axis(int64_t first, int64_t last, int64_t length, int64_t scale, int64_t& from, int64_t& to) {
    const int64_t steps = most<int64_t>(scale * length - 1, 1);
    from = most<int64_t>(divide_down((first - FARTHEST) * (length - 1), steps), 0);
    to = least(divide_down((last - 1 + FARTHEST) * (length - 1), steps) + 2, length);
}

// Channels of two groups, each padded.
int64_t place_in_groups(int64_t channel, int64_t channels, int64_t padded) {
    return channel / (channels / GROUPS) * (padded / GROUPS) + channel % (channels / GROUPS);
}

}  // namespace

bool LocalAttentionHead::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels,
                                 Failure& failure) {
    kernels_ = &kernels;
    scale_ = configuration.inner_scale(), dim_ = configuration.upsampler_dim;
    group_channels_ = dim_ / REDUCTION / GROUPS;
    keys_ = GROUPS * round_up(group_channels_, KEY_BLOCK), values_ = GROUPS * round_up(dim_ / GROUPS, kernels.lanes);
    return narrowing_.prepare(configuration, tensors, kernels, failure) && prepare_projections(tensors, failure) &&
           prepare_offsets(tensors, failure) &&
           to_planes_weights(tensors, "reconstruction.to_image", dim_, GROUPS, kernels.lanes, to_planes_, planes_bias_,
                             failure);
}

bool LocalAttentionHead::prepare_projections(const Tensors& tensors, Failure& failure) {
    const int64_t hidden = GROUPS * group_channels_;
    // Scores are powers of two.
    const double unit = 1.4426950408889634 / sqrt(static_cast<double>(hidden));
    for (int kind = 0; kind < 2; ++kind) {
        const char* name = kind == 0 ? "reconstruction.attention.to_query" : "reconstruction.attention.to_key";
        Matrix given, padded;
        if (!given.of_convolution(tensors, name, dim_, hidden, failure, false)) return false;
        if (!given.after_norm(tensors, "reconstruction.attention.norm", failure)) return false;
        if (!padded.make(dim_, keys_, failure)) return false;
        for (int64_t o = 0; o < hidden; ++o) {
            const int64_t to = place_in_groups(o, hidden, keys_);
            const double factor = kind == 0 ? 1 : unit;
            for (int64_t i = 0; i < dim_; ++i) padded.weight[i * keys_ + to] = factor * given.weight[i * hidden + o];
            padded.bias[to] = factor * given.bias[o];
        }
        if (!padded.ready(narrowing_.channels, keys_, kind == 0 ? query_weight_ : key_weight_,
                          kind == 0 ? query_bias_ : key_bias_, failure))
            return false;
    }
    const float* table = tensors.take(failure, {2, {PLACES, hidden}}, "reconstruction.attention.position_bias");
    if (!table || !table_.allocate_zeros(PLACES * keys_, failure)) return false;
    for (int64_t n = 0; n < PLACES; ++n)
        for (int64_t o = 0; o < hidden; ++o)
            table_[n * keys_ + place_in_groups(o, hidden, keys_)] =
                static_cast<float>(unit * static_cast<double>(table[n * hidden + o]));
    return true;
}

bool LocalAttentionHead::prepare_offsets(const Tensors& tensors, Failure& failure) {
    const int64_t channels = group_channels_, outputs = 2 * PLACES;
    const auto copy = [&](const char* name, Shape shape, int64_t count, Buffer<float>& to) {
        const float* from = tensors.take(failure, shape, "reconstruction.attention.%s", name);
        if (!from || !to.allocate(count, failure)) return false;
        memcpy(to.data(), from, sizeof(float) * static_cast<size_t>(count));
        return true;
    };
    if (!copy("offset_depthwise.weight", {4, {channels, 1, 3, 3}}, 9 * channels, depthwise_)) return false;
    if (!copy("offset_norm.weight", {1, {channels}}, channels, norm_gain_)) return false;
    if (!copy("offset_norm.bias", {1, {channels}}, channels, norm_bias_)) return false;
    if (!copy("to_offset.bias", {1, {outputs}}, outputs, offset_bias_)) return false;
    const float* weights =
        tensors.take(failure, {4, {outputs, channels, 3, 3}}, "reconstruction.attention.to_offset.weight");
    if (!weights || !to_offsets_.allocate(channels * 9 * outputs, failure)) return false;
    for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < channels * 9; ++i) to_offsets_[i * outputs + o] = weights[o * channels * 9 + i];
    return true;
}

LocalAttentionTask LocalAttentionHead::task() const {
    LocalAttentionTask task = {};
    task.depthwise = depthwise_.data(), task.norm_gain = norm_gain_.data(), task.norm_bias = norm_bias_.data();
    task.to_offsets = to_offsets_.data(), task.offset_bias = offset_bias_.data(), task.table = table_.data();
    task.group_channels = group_channels_, task.scale = scale_;
    task.queries.channels = task.keys.channels = keys_;
    task.values.channels = task.result.channels = values_;
    return task;
}

// The last convolution looks at one pixel around.
Place LocalAttentionHead::attended_place(const HeadTask& task, Place result) const {
    return result.grown(1, task.features.height * scale_, task.features.width * scale_);
}

// Of the narrowed features, what may be sampled.
Place LocalAttentionHead::region(const HeadTask& task, Place result) const {
    const Place attended = attended_place(task, result);
    Place region;
    region_of_axis(attended.top, attended.bottom, task.features.height, scale_, region.top, region.bottom);
    region_of_axis(attended.left, attended.right, task.features.width, scale_, region.left, region.right);
    return region;
}

Place LocalAttentionHead::needed(const HeadTask& task, Place result) const {
    return narrowing_.needed(task.features, region(task, result));
}

void LocalAttentionHead::best_part(const HeadTask& task, int64_t& height, int64_t& width) const {
    height = part_of(task.result.height, PART_HEIGHT, scale_);
    width = part_of(task.result.width, PART_WIDTH, scale_);
}

double LocalAttentionHead::work(const HeadTask&, Place result) const {
    const double at_features = 2 * (narrowing_.work() + 2 * static_cast<double>(query_weight_.size()));
    const int64_t at_result = to_planes_.size() + GROUPS * to_offsets_.size() + 4 * PLACES * (keys_ + values_);
    return static_cast<double>(result.num_pixels()) *
           (static_cast<double>(at_result) + at_features / static_cast<double>(scale_ * scale_));
}

int64_t LocalAttentionHead::scratch(const HeadTask&, int64_t height, int64_t width) const {
    const int64_t rows = (height + 2 + 2 * FARTHEST) / scale_ + 4, columns = (width + 2 + 2 * FARTHEST) / scale_ + 4;
    const int64_t with_border = (rows + 2) * (columns + 2);
    LinearTask projection = {};
    projection.features.channels = narrowing_.channels, projection.result.channels = keys_;
    const int64_t work = most(most(narrowing_.scratch(), kernels_->linear_scratch(projection)),
                              kernels_->heads->local_attention_scratch(task(), width + 2));
    return (narrowing_.is_none() ? 0 : lines(rows * columns * narrowing_.channels)) + lines(rows * columns * keys_) +
           lines(with_border * keys_) + lines(with_border * values_) +
           lines((BAND_ROWS + 2) * (width + 2) * values_) + work;
}

int64_t LocalAttentionHead::make(const HeadTask& task, Place result, float* scratch) const {
    const Place region = this->region(task, result), attended = attended_place(task, result);
    const Place with_border = {region.top - 1, region.bottom + 1, region.left - 1, region.right + 1};
    float* next = scratch;
    const auto take = [&next](int64_t floats) {
        float* taken = next;
        next += lines(floats);
        return taken;
    };
    LocalAttentionTask attention = this->task();
    const auto place_map = [&](Map& map, Place held) {
        map.data = take(held.num_pixels() * map.channels), map.held = held;
        map.height = task.features.height, map.width = task.features.width;
        memset(map.data, 0, sizeof(float) * static_cast<size_t>(held.num_pixels() * map.channels));
    };
    place_map(attention.queries, region);
    place_map(attention.keys, with_border);
    place_map(attention.values, with_border);
    Map& rows = attention.result;
    rows.data = take((BAND_ROWS + 2) * attended.width() * values_);
    rows.height = task.features.height * scale_, rows.width = task.features.width * scale_;
    float* memory = narrowing_.is_none() ? nullptr : take(region.num_pixels() * narrowing_.channels);
    float* work = next;

    const Map narrowed = narrowing_.narrowed(task.features, region, memory, work);
    LinearTask projection = {};
    projection.features = narrowed, projection.dim = dim_, projection.normalises = true;
    projection.weight = query_weight_.data(), projection.bias = query_bias_.data();
    projection.result = attention.queries;
    kernels_->run_linear(projection, region, nullptr, work);
    projection.weight = key_weight_.data(), projection.bias = key_bias_.data();
    projection.result = attention.keys;
    kernels_->run_linear(projection, region, nullptr, work);
    const size_t group_bytes = sizeof(float) * static_cast<size_t>(dim_ / GROUPS);
    for (int64_t y = region.top; y < region.bottom; ++y)
        for (int64_t x = region.left; x < region.right; ++x)
            for (int64_t group = 0; group < GROUPS; ++group)
                memcpy(attention.values.at(y, x) + group * (values_ / GROUPS),
                       narrowed.at(y, x) + group * (dim_ / GROUPS), group_bytes);

    // Bands of the result; two rows that the next one looks at, too, move to the front.
    rows.held = {attended.top, attended.top, attended.left, attended.right};
    for (int64_t top = result.top; top < result.bottom; top += BAND_ROWS) {
        const int64_t bottom = least(top + BAND_ROWS, result.bottom), done = rows.held.bottom;
        const int64_t first = most<int64_t>(top - 1, attended.top), last = least(bottom + 1, attended.bottom);
        memmove(rows.data, rows.at(first, attended.left),
                sizeof(float) * static_cast<size_t>((done - first) * rows.row_step()));
        rows.held.top = first, rows.held.bottom = last;
        kernels_->heads->attend_locally(attention, {done, last, attended.left, attended.right}, work);
        const ToPlanesTask to_planes = {rows, to_planes_.data(), planes_bias_, planes_of(task.result)};
        kernels_->heads->convolve_to_planes(to_planes, {top, bottom, result.left, result.right});
    }
    return 0;
}

}  // namespace escsr
