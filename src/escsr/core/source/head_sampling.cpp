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

}  // namespace escsr
