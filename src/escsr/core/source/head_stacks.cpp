#include "head_stacks.h"

namespace escsr {

namespace {

// The bands of rows in which a part of the result is made, so that what one convolution made is in cache for the next.
constexpr int64_t BAND_ROWS = 8;
// Rows that convolutions make at least, and their pixel shuffles take at a time: a row of Winograd's tiles.
constexpr int64_t TILE_ROWS = 4;
constexpr int64_t MOST_STAGES = 64;

// Floats on whole cache lines, as kernels cut scratch.
int64_t lines(int64_t floats) { return round_up(floats, 16); }

struct Range {
    int64_t first, last;
    int64_t length() const { return last - first; }
};

// What a 3x3 convolution looks at that enlarges its input, and shuffles its results, on an axis of `length` inputs.
Range before(Range result, int64_t enlarged, int64_t shuffled, int64_t length) {
    Range pixels = {result.first / shuffled, divide_up(result.last, shuffled)};
    pixels = {most<int64_t>(pixels.first - 1, 0), least(pixels.last + 1, length * enlarged)};
    return {pixels.first / enlarged, divide_up(pixels.last, enlarged)};
}

// So many at most, for any so many results.
int64_t most_before(int64_t results, int64_t enlarged, int64_t shuffled) {
    const int64_t pixels = (shuffled == 1 ? results : results / shuffled + 2) + 2;
    return enlarged == 1 ? pixels : pixels / enlarged + 2;
}

Name name_of(int64_t layer) { return Name("reconstruction.layers.%d", static_cast<int>(layer)); }

// By what a stack enlarges step by step: 4 -> 2, 2; 3 -> 3.
int64_t num_steps(int64_t scale) {
    if (scale == 3) return 1;
    int64_t steps = 0;
    for (; scale > 1; scale /= 2) ++steps;
    return steps;
}
int64_t step_factor(int64_t scale) { return scale == 3 ? 3 : 2; }

constexpr float SLOPE = 0.2f;
constexpr float FIRST_SLOPE = 0.01f;  // torch's default

}  // namespace

Planes planes_of(const ResultRows& rows) {
    Planes planes;
    planes.data = rows.data, planes.held = {rows.top, rows.bottom, 0, rows.width};
    planes.row_step = rows.width, planes.plane_step = (rows.bottom - rows.top) * rows.width;
    return planes;
}

Planes planes_of(const ImageRows& rows) {
    Planes planes;
    // Kernels only read it.
    planes.data = const_cast<float*>(rows.data), planes.held = {rows.top, rows.bottom, 0, rows.width};
    planes.row_step = rows.width, planes.plane_step = (rows.bottom - rows.top) * rows.width;
    return planes;
}

bool to_planes_weights(const Tensors& tensors, const char* name, int64_t inputs, int64_t groups, int64_t lanes,
                       Buffer<float>& weight, float* bias, Failure& failure) {
    const float* weights = tensors.take(failure, {4, {3, inputs, 3, 3}}, "%s.weight", name);
    if (!weights) return false;
    const float* biases = tensors.take(failure, {1, {3}}, "%s.bias", name);
    const int64_t in_group = inputs / groups, padded = round_up(in_group, lanes), vectors = groups * padded / lanes;
    if (!biases || !weight.allocate_zeros(27 * groups * padded, failure)) return false;
    for (int64_t colour = 0; colour < 3; ++colour) {
        bias[colour] = biases[colour];
        for (int64_t i = 0; i < inputs; ++i)
            for (int64_t tap = 0; tap < 9; ++tap) {
                const int64_t channel = i / in_group * padded + i % in_group;
                const int64_t vector = (tap / 3 * vectors + channel / lanes) * 9 + tap % 3 * 3 + colour;
                weight[vector * lanes + channel % lanes] = weights[(colour * inputs + i) * 9 + tap];
            }
    }
    return true;
}

bool EnlargedWeights::make(const Tensors& tensors, const char* name, int64_t num_inputs, int64_t num_outputs,
                           int64_t by, int64_t lanes, Failure& failure) {
    // Of three weights, what each product takes; those of the same sum of pixels follow one another.
    static const double BY_2[5][3] = {{.5, .5, .5}, {1, 0, 0}, {0, 0, 1}, {.5, -.5, -.5}, {-.5, -.5, .5}};
    static const double BY_3[3][3] = {{1, 1, 1}, {1, 0, 0}, {0, 0, 1}};
    const double(*taken)[3] = by == 2 ? BY_2 : BY_3;
    const int64_t products = by == 2 ? 5 : 3, sums = by == 2 ? 4 : 3;
    const float* weights = tensors.take(failure, {4, {num_outputs, num_inputs, 3, 3}}, "%s.weight", name);
    if (!weights) return false;
    const float* biases = tensors.take(failure, {1, {num_outputs}}, "%s.bias", name);
    if (!biases) return false;
    factor = by, inputs = round_up(num_inputs, lanes), outputs = round_up(num_outputs, lanes);
    if (!weight.allocate_zeros(products * products * inputs * outputs, failure)) return false;
    if (!bias.allocate_zeros(outputs, failure)) return false;
    for (int64_t o = 0; o < num_outputs; ++o) bias[o] = biases[o];
    float* to = weight.data();
    for (int64_t row = 0; row < sums; ++row)
        for (int64_t column = 0; column < sums; ++column) {
            const int64_t down = row == 3 ? 2 : 1, across = column == 3 ? 2 : 1, step = down * across * outputs;
            for (int64_t number = 0; number < down * across; ++number)
                for (int64_t o = 0; o < num_outputs; ++o)
                    for (int64_t i = 0; i < num_inputs; ++i) {
                        const float* taps = weights + (o * num_inputs + i) * 9;
                        double sum = 0;
                        for (int64_t tap = 0; tap < 9; ++tap)
                            sum += taken[row + number / across][tap / 3] * taken[column + number % across][tap % 3] *
                                   static_cast<double>(taps[tap]);
                        to[i * step + number * outputs + o] = static_cast<float>(sum);
                    }
            to += inputs * step;
        }
    return true;
}

bool StackHead::convolve(int64_t number, int64_t layer, int64_t inputs, int64_t outputs, int64_t enlarged,
                         float slope, const Tensors& tensors, Failure& failure) {
    Stage& stage = stages_[number];
    stage.enlarged = enlarged, stage.slope = slope, stage.channels = round_up(outputs, kernels_->lanes);
    if (enlarged > 1)
        return stage.enlarged_weights.make(tensors, name_of(layer).text, inputs, outputs, enlarged, kernels_->lanes,
                                           failure);
    return stage.weights.make(tensors, name_of(layer).text, inputs, outputs, kernels_->lanes, failure);
}

bool StackHead::convolve_and_shuffle(int64_t number, int64_t layer, int64_t channels, int64_t factor,
                                     const Tensors& tensors, Failure& failure) {
    Stage& stage = stages_[number];
    const int64_t subpixels = factor * factor, padded = round_up(channels, kernels_->lanes);
    stage.shuffled = factor, stage.channels = padded;
    Buffer<int64_t> order;
    if (!order.allocate(subpixels * padded, failure)) return false;
    for (int64_t i = 0; i < subpixels; ++i)
        for (int64_t c = 0; c < padded; ++c) order[i * padded + c] = c < channels ? c * subpixels + i : -1;
    const float* weights =
        tensors.take(failure, {4, {subpixels * channels, channels, 3, 3}}, "%s.weight", name_of(layer).text);
    if (!weights) return false;
    const float* biases = tensors.take(failure, {1, {subpixels * channels}}, "%s.bias", name_of(layer).text);
    return biases && stage.weights.of(weights, biases, channels, subpixels * padded, kernels_->lanes, failure,
                                      order.data());
}

bool StackHead::end_with_convolution(int64_t layer, int64_t inputs, const Tensors& tensors, Failure& failure) {
    return to_planes_weights(tensors, name_of(layer).text, inputs, 1, kernels_->lanes, to_planes_, last_bias_, failure);
}

bool StackHead::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels,
                        Failure& failure) {
    kernels_ = &kernels;
    scale_ = configuration.inner_scale();
    if (configuration.upsampler == Upsampler::pixelshuffledirect) {
        last_factor_ = scale_, skip_ = configuration.image_skip;
        return to_subpixels_.make(tensors, "reconstruction.to_subpixels", configuration.dim, 3 * scale_ * scale_,
                                  kernels.lanes, failure);
    }
    return prepare_stages(configuration, tensors, failure);
}

bool StackHead::prepare_stages(const Configuration& configuration, const Tensors& tensors, Failure& failure) {
    const int64_t dim = configuration.dim, inner = configuration.upsampler_dim;
    const int64_t steps = num_steps(scale_), factor = step_factor(scale_);
    const Upsampler kind = configuration.upsampler;
    if (2 * steps > MOST_STAGES) return failure.set(ESCSR_INVALID_CONFIGURATION, "The scale is too large.");
    switch (kind) {
        case Upsampler::nearest_conv:
            if (!stages_.make(steps + 1, failure)) return false;
            for (int64_t i = 0; i < steps; ++i)
                if (!convolve(i, 3 * i + 1, dim, dim, factor, SLOPE, tensors, failure)) return false;
            return convolve(steps, 3 * steps, dim, dim, 1, SLOPE, tensors, failure) &&
                   end_with_convolution(3 * steps + 2, dim, tensors, failure);
        case Upsampler::conv_nearest:
            // Nearest neighbours of leaky ReLUs are leaky ReLUs of nearest neighbours.
            if (!stages_.make(steps + 1, failure)) return false;
            for (int64_t i = 0; i <= steps; ++i)
                if (!convolve(i, 3 * i, dim, dim, i == 0 ? 1 : factor, SLOPE, tensors, failure)) return false;
            return end_with_convolution(3 * steps + 2, dim, tensors, failure);
        case Upsampler::pixelshuffle:
            if (!stages_.make(steps + 1, failure)) return false;
            if (!convolve(0, 0, dim, inner, 1, FIRST_SLOPE, tensors, failure)) return false;
            for (int64_t i = 0; i < steps; ++i)
                if (!convolve_and_shuffle(i + 1, 2 + 2 * i, inner, factor, tensors, failure)) return false;
            return end_with_convolution(2 + 2 * steps, inner, tensors, failure);
        case Upsampler::pa_up:
            if (!stages_.make(2 * steps, failure)) return false;
            for (int64_t i = 0; i < steps; ++i) {
                const int64_t layer = 6 * i, inputs = i == 0 ? dim : inner;
                if (!convolve(2 * i, layer + 1, inputs, inner, factor, SLOPE, tensors, failure)) return false;
                Matrix gate;
                Stage& stage = stages_[2 * i];
                if (!gate.of_convolution(tensors, Name("%s.gate", name_of(layer + 2).text), inner, inner, failure))
                    return false;
                if (!gate.ready(stage.channels, stage.channels, stage.gate_weight, stage.gate_bias, failure))
                    return false;
                if (!convolve(2 * i + 1, layer + 4, inner, inner, 1, SLOPE, tensors, failure)) return false;
            }
            return end_with_convolution(6 * steps, inner, tensors, failure);
        case Upsampler::transpose_conv: return prepare_transposed(configuration, tensors, failure);
        default: return failure.set(ESCSR_INVALID_CONFIGURATION, "The upsampler is no stack of convolutions.");
    }
}

// A transposed convolution is one of 3x3 to the sub-pixels: sub-pixel i of pixel y, which is pixel f y + i of the
// result, takes tap i + padding - f d from pixel y + d.
bool StackHead::transpose(WinogradWeights& ready, int64_t layer, int64_t inputs, int64_t outputs, int64_t factor,
                          bool to_planes, const Tensors& tensors, Failure& failure) const {
    const int64_t side = factor == 3 ? 3 : 4, padding = factor == 3 ? 0 : 1, subpixels = factor * factor;
    const float* weights = tensors.take(failure, {4, {inputs, outputs, side, side}}, "%s.weight", name_of(layer).text);
    if (!weights) return false;
    const float* biases = tensors.take(failure, {1, {outputs}}, "%s.bias", name_of(layer).text);
    if (!biases) return false;
    const int64_t padded = to_planes ? outputs : round_up(outputs, kernels_->lanes);
    Buffer<float> weight, bias;
    if (!weight.allocate_zeros(subpixels * padded * inputs * 9, failure)) return false;
    if (!bias.allocate_zeros(subpixels * padded, failure)) return false;
    for (int64_t i = 0; i < subpixels; ++i)
        for (int64_t o = 0; o < outputs; ++o) {
            const int64_t channel = to_planes ? o * subpixels + i : i * padded + o;
            bias[channel] = biases[o];
            for (int64_t tap = 0; tap < 9; ++tap) {
                const int64_t row = i / factor + padding - factor * (tap / 3 - 1);
                const int64_t column = i % factor + padding - factor * (tap % 3 - 1);
                if (row < 0 || row >= side || column < 0 || column >= side) continue;
                for (int64_t c = 0; c < inputs; ++c)
                    weight[(channel * inputs + c) * 9 + tap] =
                        weights[((c * outputs + o) * side + row) * side + column];
            }
        }
    return ready.of(weight.data(), bias.data(), inputs, subpixels * padded, kernels_->lanes, failure);
}

bool StackHead::prepare_transposed(const Configuration& configuration, const Tensors& tensors, Failure& failure) {
    const int64_t dim = configuration.dim, steps = num_steps(scale_), factor = step_factor(scale_);
    if (steps < 1) return failure.set(ESCSR_INVALID_CONFIGURATION, "transpose+conv cannot enlarge by 1.");
    if (!stages_.make(steps - 1, failure)) return false;
    for (int64_t i = 0; i < steps - 1; ++i) {
        Stage& stage = stages_[i];
        stage.shuffled = factor, stage.channels = round_up(dim, kernels_->lanes), stage.has_gelu = true;
        if (!transpose(stage.weights, 2 * i, dim, dim, factor, false, tensors, failure)) return false;
    }
    const int64_t layer = 2 * (steps - 1);
    if (!transpose(to_subpixels_, layer, dim, 3, factor, true, tensors, failure)) return false;
    last_factor_ = factor;
    const float* weights = tensors.take(failure, {4, {3, 3, 3, 3}}, "%s.weight", name_of(layer + 1).text);
    if (!weights) return false;
    const float* biases = tensors.take(failure, {1, {3}}, "%s.bias", name_of(layer + 1).text);
    if (!biases || !planes_weight_.allocate(81, failure)) return false;
    for (int64_t i = 0; i < 81; ++i) planes_weight_[i] = weights[i];
    for (int64_t i = 0; i < 3; ++i) last_bias_[i] = biases[i];
    return true;
}

// One part of the result. Maps between the convolutions hold as many rows as the next convolution looks at; when it
// goes on, those that it still needs move to the front.
class StackRun {
   public:
    StackRun(const StackHead& head, const HeadTask& task, Place result)
        : head_(head), task_(task), result_(result), count_(head.num_stages()) {
        // What each map is needed for, from the last to the features.
        int64_t factor = head.scale_;
        last_result_ = result;
        if (head.planes_weight_.size())
            last_result_ = result.grown(1, task.features.height * factor, task.features.width * factor);
        factor /= head.last_factor_;
        levels_[count_].needed = before_last(last_result_, factor);
        for (int64_t i = count_; i > 0; --i) {
            const StackHead::Stage& stage = head.stages_[i - 1];
            Level& level = levels_[i];
            // Tiles of enlarged maps begin at whole pixels of the map before.
            level.needed.top -= level.needed.top % stage.enlarged;
            level.needed.left -= level.needed.left % stage.enlarged;
            level.factor = factor;
            factor /= stage.enlarged * stage.shuffled;
            levels_[i - 1].needed = before(level.needed, stage.enlarged, stage.shuffled, factor);
        }
        levels_[0].factor = 1;
    }

    Place needed() const { return levels_[0].needed; }

    // Floats for parts of so many rows and columns.
    static int64_t floats(const StackHead& head, int64_t height, int64_t width) {
        Sizes rows, columns;
        sizes(head, least(height, band_rows(head)), TILE_ROWS, rows);
        sizes(head, width, 1, columns);
        int64_t total = 0, most_work = head.kernels_->heads->shuffle_scratch(width + 2);
        for (int64_t i = 0; i < head.num_stages(); ++i) {
            const StackHead::Stage& stage = head.stages_[i];
            total += lines(rows.of[i + 1] * columns.of[i + 1] * stage.channels);
            if (stage.shuffled > 1)
                total += lines(TILE_ROWS * most_before(columns.of[i + 1], 1, stage.shuffled) * stage.weights.outputs);
            most_work = most(most_work, stage_scratch(head, stage));
        }
        if (head.to_subpixels_.outputs) {
            total += lines(TILE_ROWS * most_before(width + 2, 1, head.last_factor_) * head.to_subpixels_.outputs);
            most_work = most(most_work, convolution_scratch(head, head.to_subpixels_));
        }
        if (head.planes_weight_.size()) total += lines(3 * (height + 2) * planes_step(width));
        return total + most_work;
    }

    double work() const {
        double total = 0;
        for (int64_t i = 0; i < count_; ++i) {
            const StackHead::Stage& stage = head_.stages_[i];
            const double pixels = static_cast<double>(levels_[i + 1].needed.num_pixels()) /
                                  static_cast<double>(stage.shuffled * stage.shuffled);
            total += pixels * (products(stage.weights) + products(stage.enlarged_weights) +
                               static_cast<double>(stage.gate_weight.size()));
        }
        const double pixels = static_cast<double>(last_result_.num_pixels());
        if (head_.to_planes_.size()) return total + pixels * static_cast<double>(head_.to_planes_.size());
        return total + pixels * products(head_.to_subpixels_) /
                           static_cast<double>(head_.last_factor_ * head_.last_factor_);
    }

    void make(float* scratch) {
        float* next = scratch;
        const auto take = [&next](int64_t floats) {
            float* taken = next;
            next += lines(floats);
            return taken;
        };
        Sizes rows;
        sizes(head_, least(result_.height(), band_rows(head_)), TILE_ROWS, rows);
        for (int64_t i = 1; i <= count_; ++i) {
            const StackHead::Stage& stage = head_.stages_[i - 1];
            Level& level = levels_[i];
            level.rows = least(rows.of[i], level.needed.height());
            level.done = level.needed.top;
            level.map.channels = stage.channels;
            level.map.height = task_.features.height * level.factor;
            level.map.width = task_.features.width * level.factor;
            level.map.held = {level.done, level.done + level.rows, level.needed.left, level.needed.right};
            level.map.data = take(level.rows * level.needed.width() * stage.channels);
            if (stage.shuffled > 1)
                level.subpixels =
                    take(TILE_ROWS * most_before(level.needed.width(), 1, stage.shuffled) * stage.weights.outputs);
        }
        levels_[0].map = task_.features;
        levels_[0].done = levels_[0].needed.bottom;
        if (head_.to_subpixels_.outputs)
            subpixels_ = take(TILE_ROWS * most_before(last_result_.width(), 1, head_.last_factor_) *
                              head_.to_subpixels_.outputs);
        const Planes result = planes_of(task_.result);
        Planes planes = result;
        if (head_.planes_weight_.size()) {
            const Place held = {result_.top - 1, result_.bottom + 1, result_.left - 1, result_.right + 1};
            planes.held = held, planes.row_step = planes_step(result_.width());
            planes.plane_step = held.height() * planes.row_step;
            planes.data = take(3 * planes.plane_step);
            memset(planes.data, 0, sizeof(float) * static_cast<size_t>(3 * planes.plane_step));
        }
        work_ = next;
        for (int64_t top = last_result_.top; top < last_result_.bottom;) {
            const int64_t bottom = head_.to_subpixels_.outputs
                                       ? end_of_rows(last_result_, top + 1, head_.last_factor_)
                                       : least(top + BAND_ROWS, last_result_.bottom);
            make_last({top, bottom, last_result_.left, last_result_.right}, planes);
            top = bottom;
        }
        if (head_.planes_weight_.size()) {
            const PlanesTask task = {planes, head_.planes_weight_.data(), head_.last_bias_, result};
            head_.kernels_->heads->convolve_planes(task, result_);
        }
    }

   private:
    // A map: the features, and the result of each stage.
    struct Level {
        Place needed = {0, 0, 0, 0};
        int64_t factor = 1;  // times the size of the features
        Map map;
        int64_t rows = 0, done = 0;  // that fit; made until there
        int64_t kept_from = 0;       // rows before are not needed any more
        float* subpixels = nullptr;  // before their shuffle
    };
    struct Sizes {
        int64_t of[MOST_STAGES + 1];
    };

    // In units of rows of tiles where results are shuffled.
    static int64_t band_rows(const StackHead& head) {
        return head.to_subpixels_.outputs ? TILE_ROWS * head.last_factor_ : BAND_ROWS;
    }

    static int64_t planes_step(int64_t width) { return width + 2 + 16; }  // a vector more

    // Rows or columns of each map at a time, for so many of the result, where whole tiles of so many are made.
    static void sizes(const StackHead& head, int64_t results, int64_t tile, Sizes& sizes) {
        if (head.planes_weight_.size()) results += 2;
        int64_t size = most_before(results, 1, head.last_factor_);
        for (int64_t i = head.num_stages(); i > 0; --i) {
            const StackHead::Stage& stage = head.stages_[i - 1];
            size += tile * stage.shuffled - 1 + stage.enlarged - 1;
            sizes.of[i] = size;
            size = most_before(size, stage.enlarged, stage.shuffled);
        }
    }

    static double products(const WinogradWeights& weights) {
        return static_cast<double>(weights.inputs * weights.outputs) * 36 / 16;
    }

    static double products(const EnlargedWeights& weights) {
        return static_cast<double>(weights.weight.size()) / (weights.factor == 2 ? 16 : 9);
    }

    static int64_t convolution_scratch(const StackHead& head, const WinogradWeights& weights) {
        ConvolutionTask task = {};
        task.features.channels = weights.inputs, task.result.channels = weights.outputs;
        return head.kernels_->convolution_scratch(task);
    }

    static int64_t stage_scratch(const StackHead& head, const StackHead::Stage& stage) {
        PixelAttentionTask task = {};
        task.features.channels = stage.channels;
        const int64_t gate = stage.gate_weight.size() ? head.kernels_->heads->pixel_attention_scratch(task) : 0;
        if (stage.enlarged == 1) return most(gate, convolution_scratch(head, stage.weights));
        EnlargedTask enlarged = {};
        enlarged.factor = stage.enlarged, enlarged.features.channels = stage.enlarged_weights.inputs;
        enlarged.result.channels = stage.channels;
        return most(gate, head.kernels_->heads->enlarged_scratch(enlarged));
    }

    Place before(Place results, int64_t enlarged, int64_t shuffled, int64_t factor) const {
        const int64_t height = task_.features.height * factor, width = task_.features.width * factor;
        const Range rows = escsr::before({results.top, results.bottom}, enlarged, shuffled, height);
        const Range columns = escsr::before({results.left, results.right}, enlarged, shuffled, width);
        return {rows.first, rows.last, columns.first, columns.last};
    }
    Place before_last(Place results, int64_t factor) const { return before(results, 1, head_.last_factor_, factor); }

    // Where the rows of tiles end that a row before `bottom` lies in: Winograd's convolutions make whole ones, and the
    // rows that follow are needed soon. Tiles begin where what is needed does.
    static int64_t end_of_rows(const Place& needed, int64_t bottom, int64_t shuffled, int64_t enlarged = 1) {
        const int64_t tile = enlarged == 3 ? 3 : TILE_ROWS;
        const int64_t first = needed.top / shuffled, rows = round_up(divide_up(bottom, shuffled) - first, tile);
        return least(needed.bottom, (first + rows) * shuffled);
    }

    // Make rows of a map until `bottom` at least.
    void ensure(int64_t index, int64_t bottom) {
        Level& level = levels_[index];
        if (bottom <= level.done) return;
        const Place needed = level.needed;
        const StackHead::Stage& stage = head_.stages_[index - 1];
        bottom = end_of_rows(needed, bottom, stage.shuffled, stage.enlarged);
        const Place place = {level.done, bottom, needed.left, needed.right};
        const Place input = before(place, stage.enlarged, stage.shuffled, levels_[index - 1].factor);
        levels_[index - 1].kept_from = input.top;
        ensure(index - 1, input.bottom);
        make_room(level, bottom);
        if (stage.shuffled == 1) {
            const bool has_gate = stage.gate_weight.size() > 0;
            const float slope = has_gate ? 1.0f : stage.slope;
            if (stage.enlarged > 1)
                convolve_enlarged(stage.enlarged_weights, levels_[index - 1].map, slope, level.map, place);
            else
                convolve(stage.weights, levels_[index - 1].map, slope, level.map, place);
            if (has_gate) attend(stage, level.map, place);
        } else {
            for (int64_t top = place.top; top < bottom;) {
                Place some = place;
                some.top = top, some.bottom = least(end_of_rows(needed, top + 1, stage.shuffled), bottom);
                const ShuffleToMapTask task = {
                    subpixels(stage.weights, levels_[index - 1].map, some, stage.shuffled, level.subpixels),
                    stage.shuffled, level.map, stage.has_gelu};
                head_.kernels_->heads->shuffle_to_map(task, some);
                top = some.bottom;
            }
        }
        level.done = bottom;
    }

    static void make_room(Level& level, int64_t bottom) {
        Map& map = level.map;
        if (bottom <= map.held.bottom) return;
        const int64_t from = least(level.kept_from, level.done);
        memmove(map.data, map.at(from, map.held.left),
                sizeof(float) * static_cast<size_t>((level.done - from) * map.row_step()));
        map.held.top = from, map.held.bottom = from + level.rows;
    }

    void convolve(const WinogradWeights& weights, const Map& features, float slope, const Map& result,
                  Place place) const {
        const ConvolutionTask task = {features, weights.weight.data(), weights.bias.data(), Map(), result, slope};
        head_.kernels_->convolve_3x3(task, place, work_);
    }

    void convolve_enlarged(const EnlargedWeights& weights, const Map& features, float slope, const Map& result,
                           Place place) const {
        const EnlargedTask task = {features, weights.factor, weights.weight.data(), weights.bias.data(), result, slope};
        head_.kernels_->heads->convolve_enlarged(task, place, work_);
    }

    // The sub-pixels of a place of what they are shuffled to.
    Map subpixels(const WinogradWeights& weights, const Map& features, Place place, int64_t factor, float* data) const {
        Map map;
        map.data = data, map.channels = weights.outputs, map.height = features.height, map.width = features.width;
        map.held = {place.top / factor, divide_up(place.bottom, factor), place.left / factor,
                    divide_up(place.right, factor)};
        convolve(weights, features, 1, map, map.held);
        return map;
    }

    void attend(const StackHead::Stage& stage, const Map& map, Place place) const {
        const PixelAttentionTask task = {map, stage.gate_weight.data(), stage.gate_bias.data(), stage.slope};
        head_.kernels_->heads->attend_to_pixels(task, place, work_);
    }

    void make_last(Place place, const Planes& planes) {
        Level& level = levels_[count_];
        const Place input = before_last(place, level.factor);
        level.kept_from = input.top;
        ensure(count_, input.bottom);
        if (head_.to_planes_.size()) {
            const ToPlanesTask task = {level.map, head_.to_planes_.data(), head_.last_bias_, planes};
            return head_.kernels_->heads->convolve_to_planes(task, place);
        }
        const int64_t factor = head_.last_factor_;
        const ShuffleToPlanesTask task = {
            subpixels(head_.to_subpixels_, level.map, place, factor, subpixels_), factor, planes, head_.skip_,
            planes_of(task_.image), task_.image.height, task_.image.width};
        head_.kernels_->heads->shuffle_to_planes(task, place, work_);
    }

    const StackHead& head_;
    const HeadTask& task_;
    const Place result_;
    const int64_t count_;
    Place last_result_;  // of what comes before the convolution of planes
    Level levels_[MOST_STAGES + 1];
    float *subpixels_ = nullptr, *work_ = nullptr;
};

Place StackHead::needed(const HeadTask& task, Place result) const { return StackRun(*this, task, result).needed(); }

Place StackHead::needed_image(const HeadTask& task, Place result) const {
    if (skip_ == ImageSkip::none) return {0, 0, 0, 0};
    const Place pixels = {result.top / scale_, divide_up(result.bottom, scale_), result.left / scale_,
                          divide_up(result.right, scale_)};
    // Bicubic weights are of two pixels before a place and two after it.
    return skip_ == ImageSkip::nearest ? pixels : pixels.grown(2, task.image.height, task.image.width);
}

void StackHead::best_part(const HeadTask& task, int64_t& height, int64_t& width) const {
    const int64_t most_width = 128, most_height = 128;
    width = round_up(divide_up(task.result.width, divide_up(task.result.width, most_width)), scale_);
    height = round_up(divide_up(task.result.height, divide_up(task.result.height, most_height)), scale_);
}

int64_t StackHead::scratch(const HeadTask&, int64_t height, int64_t width) const {
    return StackRun::floats(*this, height, width);
}

double StackHead::work(const HeadTask& task, Place result) const { return StackRun(*this, task, result).work(); }

int64_t StackHead::make(const HeadTask& task, Place result, float* scratch) const {
    StackRun(*this, task, result).make(scratch);
    return 0;
}

}  // namespace escsr
