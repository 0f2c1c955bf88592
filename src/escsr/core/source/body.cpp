#include "body.h"

#include "feature_skip.h"
#include "large_kernel.h"
#include "window_attention.h"

namespace escsr {

namespace {

// [LayerNorm], 1x1, GELU, depthwise 3x3, GELU, 1x1; and a second result beside.
struct FeedForward {
    Buffer<float> expand_weight, expand_bias, depthwise_weight, depthwise_bias;
    Buffer<float> last_weight, last_bias;  // of both results, beside one another
    int64_t hidden = 0, expanded = 0;  // without and with padding
    bool normalises = false, has_residual = false;
};

// What a layer has yet to add to its features: a map times a matrix.
struct Addition {
    const FeatureMap* map = nullptr;
    const Buffer<float>* weight = nullptr;
    const Buffer<float>* bias = nullptr;
    bool is_none() const { return !map; }
};

double work_of(const FeedForward& weights) {
    return static_cast<double>(weights.expand_weight.size() + weights.depthwise_weight.size() +
                               weights.last_weight.size());
}

struct ConvolutionMixer {
    const LargeKernelWeights* kernel = nullptr;
    LargeKernelWeights own_kernel;
    DynamicKernelWeights dynamic;
    Matrix statistics;  // from the mean of what the channels to be convolved are made of, to their mean
    Buffer<float> aggregate_weight, aggregate_bias;  // (P, C): of what was convolved
    // Where it stands first in a block: from the normalised features.
    Buffer<float> gain, bias, select_weight, select_bias, untouched_weight, untouched_bias;
};

struct Mixing {
    bool is_window = true;
    WindowAttentionWeights attention;
    ConvolutionMixer convolution;
};

struct Layer {
    FeedForward feed_forward;
    Mixing mixing;
};

struct Block {
    FeedForward feed_forward;
    Mixing mixing;
    Objects<Layer> layers;
    Buffer<float> norm_gain, norm_bias;
    WinogradWeights convolution;
};

bool norm_weights(const Tensors& tensors, const char* name, int64_t dim, int64_t lanes, Buffer<float>& gain,
                  Buffer<float>& bias, Failure& failure) {
    const float* weight = tensors.take(failure, Shape{1, {dim}}, "%s.weight", name);
    const float* shift = weight ? tensors.take(failure, Shape{1, {dim}}, "%s.bias", name) : nullptr;
    if (!shift || !gain.allocate_zeros(round_up(dim, lanes), failure)) return false;
    if (!bias.allocate_zeros(round_up(dim, lanes), failure)) return false;
    memcpy(gain.data(), weight, sizeof(float) * static_cast<size_t>(dim));
    memcpy(bias.data(), shift, sizeof(float) * static_cast<size_t>(dim));
    return true;
}

}  // namespace

struct Body::Parts {
    Configuration configuration;
    const Kernels* kernels = nullptr;
    int64_t lanes = 0, dim = 0, channels = 0, convolved = 0, attended = 0;
    LargeKernelWeights shared_kernel;
    Objects<Block> blocks;
    ShallowWeights shallow;
    Buffer<float> norm_gain, norm_bias;
    WinogradWeights deep;
    FeatureSkip feature_skip;

    bool prepare(const Tensors& tensors, Failure& failure);
    bool prepare_feed_forward(FeedForward& parts, const Tensors& tensors, const char* name, const char* norm,
                              double expansion, const Matrix* reduce_other, const Matrix* side, Failure& failure) const;
    bool to_panels(Buffer<float>& weight, int64_t depth, Failure& failure) const;
    bool prepare_convolution(ConvolutionMixer& parts, const Tensors& tensors, const char* name, Failure& failure) const;
    bool prepare_first(Mixing& parts, const Tensors& tensors, const char* block, Failure& failure) const;
    bool prepare_layer(Layer& parts, const Tensors& tensors, const char* name, Failure& failure) const;
    bool prepare_block(Block& parts, const Tensors& tensors, int64_t number, Failure& failure) const;
    bool has_convolution() const {
        return configuration.first_mixer == Mixer::convolution ||
               (configuration.layer_mixer == Mixer::convolution && configuration.num_conv_layers > 0);
    }
    bool has_window() const {
        return configuration.first_mixer == Mixer::window ||
               (configuration.layer_mixer == Mixer::window && configuration.num_conv_layers > 0);
    }
    const WindowAttentionWeights* any_attention() const;
};

bool Body::Parts::prepare_feed_forward(FeedForward& parts, const Tensors& tensors, const char* name, const char* norm,
                                       double expansion, const Matrix* after_reduce, const Matrix* side,
                                       Failure& failure) const {
    const int64_t hidden = configuration.hidden_of(expansion), expanded = round_up(hidden, lanes);
    parts.hidden = hidden, parts.expanded = expanded, parts.normalises = norm != nullptr;
    Matrix expand;
    if (!expand.of_convolution(tensors, Name("%s.expand", name), dim, hidden, failure)) return false;
    if (norm && !expand.after_norm(tensors, norm, failure)) return false;
    if (!expand.ready(channels, expanded, parts.expand_weight, parts.expand_bias, failure)) return false;
    if (!to_panels(parts.expand_weight, channels, failure)) return false;
    if (!depthwise_weights(tensors, Name("%s.depthwise", name), hidden, 3, lanes, parts.depthwise_weight,
                           parts.depthwise_bias, failure))
        return false;
    return after_reduce->ready_beside(side, expanded, channels, side ? convolved : 0, parts.last_weight,
                                      parts.last_bias, failure) &&
           to_panels(parts.last_weight, expanded, failure);
}

bool Body::Parts::to_panels(Buffer<float>& weight, int64_t depth, Failure& failure) const {
    Buffer<float> panels;
    if (!panels.allocate(weight.size(), failure)) return false;
    kernels->to_panels(weight.data(), depth, weight.size() / depth, panels.data());
    weight = static_cast<Buffer<float>&&>(panels);
    return true;
}

bool Body::Parts::prepare_convolution(ConvolutionMixer& parts, const Tensors& tensors, const char* name,
                                      Failure& failure) const {
    parts.kernel = &shared_kernel;
    if (!configuration.share_large_kernel) {
        parts.kernel = &parts.own_kernel;
        if (!parts.own_kernel.prepare(configuration, tensors, Name("%s.own_kernel", name), lanes, failure)) return false;
    }
    return !configuration.dynamic_kernel ||
           parts.dynamic.prepare(configuration, tensors, Name("%s.dynamic_kernel", name), failure);
}

namespace {

// The channels to be convolved, after a decomposed kernel's own mixing of them.
bool mixed_by_kernel(const Matrix& statistics, const LargeKernelWeights& kernel, Matrix& mixed, Failure& failure) {
    if (kernel.is_dense) return statistics.some_outputs(0, statistics.outputs, mixed, failure);
    Matrix mixing;
    if (!mixing.make(kernel.pdim, kernel.pdim, failure)) return false;
    for (int64_t i = 0; i < kernel.mixing.size(); ++i) mixing.weight[i] = kernel.mixing[i];
    return statistics.then(mixing, mixed, failure);
}

}  // namespace

bool Body::Parts::prepare_layer(Layer& parts, const Tensors& tensors, const char* name, Failure& failure) const {
    const Name feed_forward("%s.feed_forward", name), mixer("%s.conv_attention", name), norm_name("%s.norm", name);
    const char* norm = configuration.norm_in_conv_layers ? norm_name.text : nullptr;
    const int64_t hidden = configuration.hidden_of(configuration.expansion), pdim = configuration.pdim;
    Mixing& mixing = parts.mixing;
    Matrix reduce;
    if (!reduce.of_convolution(tensors, Name("%s.reduce", feed_forward.text), hidden, dim, failure)) return false;
    mixing.is_window = configuration.layer_mixer == Mixer::window;
    if (mixing.is_window) {
        return mixing.attention.prepare(configuration, tensors, mixer, nullptr, lanes, failure) &&
               prepare_feed_forward(parts.feed_forward, tensors, feed_forward, norm, configuration.expansion, &reduce,
                                    nullptr, failure);
    }
    // 1x1 convolutions that follow one another are multiplied. Channels that no kernel touches go from the hidden map
    // straight to the result; only those that are convolved become a map of their own.
    ConvolutionMixer& convolution = mixing.convolution;
    if (!prepare_convolution(convolution, tensors, mixer, failure)) return false;
    Matrix aggregate, untouched, of_untouched, through, of_convolved, side;
    if (!aggregate.of_convolution(tensors, Name("%s.aggregate", mixer.text), dim, dim, failure)) return false;
    if (!reduce.some_outputs(0, pdim, convolution.statistics, failure)) return false;
    if (!mixed_by_kernel(convolution.statistics, *convolution.kernel, side, failure)) return false;
    if (!reduce.some_outputs(pdim, dim, untouched, failure)) return false;
    if (!aggregate.some_inputs(pdim, dim, true, of_untouched, failure)) return false;
    if (!untouched.then(of_untouched, through, failure)) return false;
    if (!aggregate.some_inputs(0, pdim, false, of_convolved, failure)) return false;
    parts.feed_forward.has_residual = true;
    return of_convolved.ready(convolved, channels, convolution.aggregate_weight, convolution.aggregate_bias, failure) &&
           prepare_feed_forward(parts.feed_forward, tensors, feed_forward, norm, configuration.expansion, &through,
                                &side, failure);
}

bool Body::Parts::prepare_first(Mixing& parts, const Tensors& tensors, const char* block, Failure& failure) const {
    const Name mixer("%s.attention", block), norm("%s.norm_attention", block);
    const int64_t pdim = configuration.pdim;
    parts.is_window = configuration.first_mixer == Mixer::window;
    if (parts.is_window) return parts.attention.prepare(configuration, tensors, mixer, norm, lanes, failure);
    ConvolutionMixer& convolution = parts.convolution;
    if (!prepare_convolution(convolution, tensors, mixer, failure)) return false;
    if (!norm_weights(tensors, norm, dim, lanes, convolution.gain, convolution.bias, failure)) return false;
    Matrix aggregate, some, side, of_convolved;
    if (!aggregate.of_convolution(tensors, Name("%s.aggregate", mixer.text), dim, dim, failure)) return false;
    if (!convolution.statistics.make(dim, pdim, failure)) return false;
    for (int64_t c = 0; c < pdim; ++c) convolution.statistics.weight[c * pdim + c] = 1;
    if (!mixed_by_kernel(convolution.statistics, *convolution.kernel, side, failure)) return false;
    if (!side.ready(channels, convolved, convolution.select_weight, convolution.select_bias, failure)) return false;
    if (!aggregate.some_inputs(0, pdim, false, of_convolved, failure)) return false;
    for (int64_t i = 0; i < pdim * dim; ++i) aggregate.weight[i] = 0;  // what is left: the channels no kernel touches
    return aggregate.ready(channels, channels, convolution.untouched_weight, convolution.untouched_bias, failure) &&
           of_convolved.ready(convolved, channels, convolution.aggregate_weight, convolution.aggregate_bias, failure);
}

bool Body::Parts::prepare_block(Block& parts, const Tensors& tensors, int64_t number, Failure& failure) const {
    const Name name("blocks.%lld", static_cast<long long>(number)), feed_forward("%s.feed_forward", name.text);
    const Name norm_in("%s.norm_in", name.text);
    const int64_t hidden = configuration.hidden_of(configuration.first_expansion);
    Matrix reduce;
    if (!reduce.of_convolution(tensors, Name("%s.reduce", feed_forward.text), hidden, dim, failure)) return false;
    if (!prepare_feed_forward(parts.feed_forward, tensors, feed_forward, norm_in, configuration.first_expansion, &reduce,
                              nullptr, failure))
        return false;
    if (!prepare_first(parts.mixing, tensors, name, failure)) return false;
    if (!parts.layers.make(configuration.num_conv_layers, failure)) return false;
    for (int64_t i = 0; i < parts.layers.size(); ++i) {
        const Name layer("%s.conv_layers.%lld", name.text, static_cast<long long>(i));
        if (!prepare_layer(parts.layers[i], tensors, layer, failure)) return false;
    }
    return norm_weights(tensors, Name("%s.norm_out", name.text), dim, lanes, parts.norm_gain, parts.norm_bias, failure) &&
           parts.convolution.make(tensors, Name("%s.conv_out", name.text), dim, dim, lanes, failure);
}

bool Body::Parts::prepare(const Tensors& tensors, Failure& failure) {
    dim = configuration.dim, channels = round_up(dim, lanes);
    convolved = round_up(configuration.pdim, lanes);
    attended = channels;
    if (!shallow.make(tensors, "shallow", 3 * configuration.unshuffle * configuration.unshuffle, dim, lanes, failure))
        return false;
    const bool is_used = configuration.first_mixer == Mixer::convolution || configuration.layer_mixer == Mixer::convolution;
    if (configuration.share_large_kernel && is_used &&
        !shared_kernel.prepare(configuration, tensors, "shared_large_kernel", lanes, failure))
        return false;
    if (!blocks.make(configuration.num_blocks, failure)) return false;
    for (int64_t i = 0; i < blocks.size(); ++i)
        if (!prepare_block(blocks[i], tensors, i, failure)) return false;
    if (configuration.norm_before_last_conv &&
        !norm_weights(tensors, "norm", dim, lanes, norm_gain, norm_bias, failure))
        return false;
    if (!deep.make(tensors, "deep", dim, dim, lanes, failure)) return false;
    return !configuration.feature_skip || feature_skip.prepare(configuration, tensors, lanes, failure);
}

const WindowAttentionWeights* Body::Parts::any_attention() const {
    if (configuration.first_mixer == Mixer::window) return &blocks[0].mixing.attention;
    return has_window() ? &blocks[0].layers[0].mixing.attention : nullptr;
}

Body::~Body() {
    if (!parts_) return;
    parts_->~Parts();
    free_bytes(parts_);
}

bool Body::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure) {
    void* memory = allocate_bytes(sizeof(Parts));
    if (!memory) return failure.out_of_memory(sizeof(Parts));
    parts_ = new (EscsrPlacement{memory}) Parts();
    parts_->configuration = configuration, parts_->kernels = &kernels, parts_->lanes = kernels.lanes;
    return parts_->prepare(tensors, failure);
}

namespace {

// One run of a body.
class BodyRun {
   public:
    BodyRun(const Body::Parts& parts, Session& session, ImageSource& image)
        : parts_(parts), session_(session), kernels_(session.kernels()), image_(image) {}
    bool run(FeatureMap& features, Failure& failure);

   private:
    bool make_maps(Failure& failure);
    bool enter(FeatureMap& result, Failure& failure);
    bool run_block(const Block& block, Failure& failure);
    bool run_layer(const Layer& layer, Addition& addition, Failure& failure);
    bool feed_forward(const FeedForward& weights, const FeatureMap& features, const Addition& addition,
                      FeatureMap& result, FeatureMap* side, Buffer<double>* sums, Failure& failure);
    bool attend(const WindowAttentionWeights& weights, FeatureMap& features, FeatureMap* residual, Addition& addition,
                Failure& failure);
    bool attend_core(const WindowAttentionWeights& weights, const Map& features, const Map& attended, Place core,
                     Failure& failure);
    bool mix_first(const ConvolutionMixer& weights, Addition& addition, Failure& failure);
    bool convolve(const ConvolutionMixer& weights, const Buffer<double>& sums, Addition& addition, Failure& failure);
    bool convolve_core(const ConvolutionMixer& weights, const Map& features, const Map& result, Place core,
                       Failure& failure);
    bool linear_core(const LinearTask& task, Place core, Buffer<double>* sums, Failure& failure);
    bool add_dynamic(const ConvolutionMixer& weights, const Buffer<double>& sums, Failure& failure);
    bool leave(const Block& block, const Addition& addition, Failure& failure);
    bool convolve_3x3(const WinogradWeights& weights, const Map& features, const Map& added, const Map& result, Place core,
                      Failure& failure);
    bool finish(FeatureMap& features, Failure& failure);
    void begin(double per_pixel, Place core) {
        session_.workers().progress().begin(per_pixel * static_cast<double>(core.num_pixels()));
    }
    void swap() {
        FeatureMap other = inner_;
        inner_ = spare_, spare_ = other;
    }
    Place around(Place core, int64_t pixels) const { return core.grown(pixels, session_.height(), session_.width()); }

    const Body::Parts& parts_;
    Session& session_;
    const Kernels& kernels_;
    ImageSource& image_;
    FeatureMap features_, inner_, spare_, attended_, to_convolve_, convolved_, mixed_;
    Buffer<float> dynamic_, dynamic_real_, dynamic_imag_;
};

bool BodyRun::make_maps(Failure& failure) {
    const int64_t channels = parts_.channels;
    if (!session_.make(features_, channels, failure) || !session_.make(inner_, channels, failure) ||
        !session_.make(spare_, channels, failure))
        return false;
    // Attended values are done with when a map of convolved channels is written, so these may lie in one place.
    const bool needs_attended = parts_.has_window() && !session_.is_stored();
    if (needs_attended && !session_.make(attended_, parts_.attended, failure)) return false;
    if (!parts_.has_convolution()) return true;
    if (!session_.make(to_convolve_, parts_.convolved, failure)) return false;
    if (needs_attended && parts_.convolved <= parts_.attended) {
        convolved_ = attended_, convolved_.channels = parts_.convolved;
        return true;
    }
    return session_.make(convolved_, parts_.convolved, failure);
}

// The first convolution.
bool BodyRun::enter(FeatureMap& result, Failure& failure) {
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number);
        ShallowTask task{};
        if (!image_.enter(parts_.configuration, around(core, 1), task.features, failure)) return false;
        task.weight = parts_.shallow.weight.data(), task.bias = parts_.shallow.bias.data();
        if (!session_.begin(0, result, core, task.result, failure)) return false;
        if (!session_.workers().reserve(kernels_.shallow_scratch(task), failure)) return false;
        begin(static_cast<double>(parts_.shallow.weight.size()), core);
        const auto work = [&](int64_t row, float* scratch) {
            kernels_.convolve_shallow(task, Place{core.top + row, core.top + row + 1, core.left, core.right}, scratch);
        };
        if (!session_.workers().run(core.height(), work, failure) || !session_.close(result, task.result, failure))
            return false;
    }
    return true;
}

bool BodyRun::feed_forward(const FeedForward& weights, const FeatureMap& features, const Addition& addition,
                           FeatureMap& result, FeatureMap* side, Buffer<double>* sums, Failure& failure) {
    const int64_t expanded = weights.expanded;
    if (sums && !sums->allocate_zeros(expanded, failure)) return false;
    Buffer<double> partial;
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number), read = around(core, 1);
        LayerTask task{};
        if (!session_.open(0, features, read, task.features, failure)) return false;
        if (!addition.is_none()) {
            if (!session_.open(1, *addition.map, read, task.added, failure)) return false;
            task.added_weight = addition.weight->data(), task.added_bias = addition.bias->data();
        }
        task.expand_weight = weights.expand_weight.data(), task.expand_bias = weights.expand_bias.data();
        task.depthwise_weight = weights.depthwise_weight.data(), task.depthwise_bias = weights.depthwise_bias.data();
        task.last_weight = weights.last_weight.data(), task.last_bias = weights.last_bias.data();
        task.expanded = expanded, task.dim = parts_.dim;
        task.normalises = weights.normalises, task.has_residual = weights.has_residual;
        if (!session_.begin(2, result, core, task.result, failure)) return false;
        if (side && !session_.begin(3, *side, core, task.side, failure)) return false;
        if (!session_.workers().reserve(kernels_.layer_scratch(task), failure)) return false;
        // Pieces for all threads, each high enough to hide its two extra rows; sums are of SUM_ROWS rows each, so that
        // they do not depend on how it is cut.
        const int64_t columns = divide_up(core.width(), PIECE_COLUMNS), bands = divide_up(core.height(), SUM_ROWS);
        const int64_t wanted = divide_up(6 * session_.workers().num_threads(), columns);
        const int64_t piece_bands = divide_up(bands, wanted), rows = divide_up(bands, piece_bands);
        if (sums && !partial.allocate_zeros(columns * bands * expanded, failure)) return false;
        begin(work_of(weights), core);
        const auto work = [&](int64_t item, float* scratch) {
            const int64_t band = item / columns * piece_bands, column = item % columns;
            const int64_t top = core.top + band * SUM_ROWS, left = core.left + column * PIECE_COLUMNS;
            const Place place = {top, least(top + piece_bands * SUM_ROWS, core.bottom), left,
                                 least(left + PIECE_COLUMNS, core.right)};
            kernels_.run_layer(task, place, sums ? partial.data() + (column * bands + band) * expanded : nullptr, scratch);
        };
        if (!session_.workers().run(rows * columns, work, failure)) return false;
        for (int64_t i = 0; i < partial.size(); ++i) (*sums)[i % expanded] += partial[i];
        if (!session_.close(result, task.result, failure)) return false;
        if (side && !session_.close(*side, task.side, failure)) return false;
    }
    return true;
}

bool BodyRun::linear_core(const LinearTask& task, Place core, Buffer<double>* sums, Failure& failure) {
    const int64_t outs = task.result.channels, bands = divide_up(core.height(), SUM_ROWS);
    Buffer<double> partial;
    if (sums && !partial.allocate_zeros(bands * outs, failure)) return false;
    if (!session_.workers().reserve(kernels_.linear_scratch(task), failure)) return false;
    begin(static_cast<double>(task.features.channels * (task.weight ? outs : 1) +
                              (task.added.is_none() ? 0 : task.added.channels * task.features.channels)),
          core);
    const auto work = [&](int64_t band, float* scratch) {
        const int64_t top = core.top + band * SUM_ROWS;
        const Place place = {top, least(top + SUM_ROWS, core.bottom), core.left, core.right};
        kernels_.run_linear(task, place, sums ? partial.data() + band * outs : nullptr, scratch);
    };
    if (!session_.workers().run(bands, work, failure)) return false;
    for (int64_t i = 0; i < partial.size(); ++i) (*sums)[i % outs] += partial[i];
    return true;
}

// The place of a map that windows need which go on beyond its end by reflection.
Place with_reflected(Place core, int64_t window, int64_t height, int64_t width) {
    const int64_t bottom = round_up(core.bottom, window), right = round_up(core.right, window);
    Place place = core;
    if (bottom > height) place.top = height < window ? 0 : least(core.top, most<int64_t>(0, 2 * (height - 1) - (bottom - 1)));
    if (right > width) place.left = width < window ? 0 : least(core.left, most<int64_t>(0, 2 * (width - 1) - (right - 1)));
    return place;
}

bool BodyRun::attend_core(const WindowAttentionWeights& weights, const Map& features, const Map& attended, Place core,
                          Failure& failure) {
    const AttentionTask task = weights.attention_task(features, attended);
    const int64_t window = weights.window, heads = weights.heads;
    const int64_t rows = divide_up(core.height(), window), columns = divide_up(core.width(), window);
    if (!session_.workers().reserve(kernels_.attention_scratch(task), failure)) return false;
    begin(static_cast<double>(window * window * heads * (2 * weights.head_dim + weights.rank + 8)), core);
    const auto attend = [&](int64_t item, float* scratch) {
        const int64_t head = item % heads, number = item / heads;
        kernels_.attend(task, core.top / window + number / columns, core.left / window + number % columns, head, scratch);
    };
    if (!session_.workers().run(rows * columns * heads, attend, failure)) return false;
    const int64_t used = heads * weights.head_dim;
    if (used < attended.channels) {  // the padding meets weights of zero, and must be numbers
        for (int64_t y = core.top; y < core.bottom; ++y)
            for (int64_t x = core.left; x < core.right; ++x)
                memset(attended.at(y, x) + used, 0, sizeof(float) * static_cast<size_t>(attended.channels - used));
    }
    if (!weights.has_gate) return true;
    const GateTask gate = weights.gate_task(features, attended);
    if (!session_.workers().reserve(kernels_.gate_scratch(gate), failure)) return false;
    begin(static_cast<double>(gate.features.channels * (gate.features.channels + 9)), core);
    const auto weigh = [&](int64_t row, float* scratch) {
        kernels_.run_gate(gate, Place{core.top + row, core.top + row + 1, core.left, core.right}, scratch);
    };
    return session_.workers().run(core.height(), weigh, failure);
}

// Attention of `features`. What comes of it is to be added to the features, or to the residual where one is given.
bool BodyRun::attend(const WindowAttentionWeights& weights, FeatureMap& features, FeatureMap* residual,
                     Addition& addition, Failure& failure) {
    FeatureMap& target = residual ? *residual : features;
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number);
        Place read = with_reflected(core, weights.window, session_.height(), session_.width());
        if (weights.has_gate) {
            const Place more = around(core, 1);
            read = {least(read.top, more.top), most(read.bottom, more.bottom), least(read.left, more.left),
                    most(read.right, more.right)};
        }
        Map in, out;
        if (!session_.open(0, features, read, in, failure)) return false;
        if (!session_.is_stored()) {
            if (!session_.begin(1, attended_, core, out, failure) || !attend_core(weights, in, out, core, failure))
                return false;
            continue;
        }
        // In storage there is no map of attended values: they are added at once.
        if (!session_.temporary(1, parts_.attended, core, out, failure) || !attend_core(weights, in, out, core, failure))
            return false;
        LinearTask task{};
        task.features = out, task.weight = weights.output_weight.data(), task.bias = weights.output_bias.data();
        task.dim = parts_.dim;
        if (!session_.open(2, target, core, task.residual, failure)) return false;
        task.result = task.residual;
        if (!linear_core(task, core, nullptr, failure)) return false;
        // To the spare map: where windows go on by reflection, a later core may read these features again.
        if (!session_.close(spare_, task.result, failure)) return false;
    }
    if (!session_.is_stored()) {
        addition = {&attended_, &weights.output_weight, &weights.output_bias};
        return true;
    }
    addition = {};
    FeatureMap other = target;
    target = spare_, spare_ = other;
    return true;
}

bool BodyRun::add_dynamic(const ConvolutionMixer& weights, const Buffer<double>& sums, Failure& failure) {
    const Matrix& statistics = weights.statistics;
    const LargeKernelWeights& kernel = *weights.kernel;
    const double num_pixels = static_cast<double>(session_.height()) * static_cast<double>(session_.width());
    Buffer<double> mean;
    if (!mean.allocate(statistics.outputs, failure)) return false;
    for (int64_t c = 0; c < statistics.outputs; ++c) {
        mean[c] = statistics.bias[c];
        for (int64_t i = 0; i < statistics.inputs; ++i)
            mean[c] += sums[i] / num_pixels * statistics.weight[i * statistics.outputs + c];
    }
    if (!dynamic_.allocate(9 * kernel.channels, failure)) return false;
    if (!weights.dynamic.make(mean.data(), kernel.channels, dynamic_.data(), failure)) return false;
    if (!kernel.is_by_spectrum()) return true;
    const int64_t floats = 1024 * kernel.channels;
    if (dynamic_real_.size() < floats &&
        (!dynamic_real_.allocate(floats, failure) || !dynamic_imag_.allocate(floats, failure)))
        return false;
    const float* real = kernel.is_dense ? nullptr : kernel.depthwise_real.data();
    const float* imag = kernel.is_dense ? nullptr : kernel.depthwise_imag.data();
    kernels_.dynamic_spectrum(kernel.taps_real.data(), kernel.taps_imag.data(), dynamic_.data(), real, imag,
                              kernel.channels, dynamic_real_.data(), dynamic_imag_.data());
    return true;
}

bool BodyRun::convolve_core(const ConvolutionMixer& weights, const Map& features, const Map& result, Place core,
                            Failure& failure) {
    const LargeKernelWeights& kernel = *weights.kernel;
    const bool has_dynamic = !weights.dynamic.is_none();
    if (!kernel.is_by_spectrum()) {
        LargeKernelTask task{};
        task.features = features, task.result = result, task.kernel_size = kernel.kernel_size;
        (kernel.is_dense ? task.dense : task.depthwise) = kernel.direct.data();
        task.dynamic = has_dynamic ? dynamic_.data() : nullptr;
        begin(static_cast<double>(kernel.direct.size()), core);
        const int64_t columns = divide_up(core.width(), PIECE_COLUMNS);
        const auto work = [&](int64_t item, float*) {
            const int64_t y = core.top + item / columns, x = core.left + item % columns * PIECE_COLUMNS;
            kernels_.run_large_kernel(task, Place{y, y + 1, x, least(x + PIECE_COLUMNS, core.right)});
        };
        return session_.workers().run(core.height() * columns, work, failure);
    }
    SpectrumTask task{};
    task.features = features, task.result = result, task.kernel_size = kernel.kernel_size;
    task.dense = kernel.is_dense ? kernel.dense.data() : nullptr;
    task.classes = kernel.classes.data(), task.places = kernel.places.data();
    task.num_classes = kernel.is_dense ? kernel.classes.size() - 1 : 0;
    if (has_dynamic) task.depthwise_real = dynamic_real_.data(), task.depthwise_imag = dynamic_imag_.data();
    else if (!kernel.is_dense)
        task.depthwise_real = kernel.depthwise_real.data(), task.depthwise_imag = kernel.depthwise_imag.data();
    if (!session_.workers().reserve(kernels_.spectrum_scratch(task), failure)) return false;
    const int64_t inner = 33 - kernel.kernel_size;
    const int64_t rows = divide_up(core.height(), inner), pairs = divide_up(core.width(), 2 * inner);
    const double share = 1024.0 / static_cast<double>(inner * inner);
    begin(share * static_cast<double>(kernel.channels * (kernel.channels + 60)), core);
    const auto work = [&](int64_t item, float* scratch) {
        kernels_.run_spectrum(task, core.top + item / pairs * inner, core.left + item % pairs * 2 * inner, core, scratch);
    };
    return session_.workers().run(rows * pairs, work, failure);
}

bool BodyRun::convolve(const ConvolutionMixer& weights, const Buffer<double>& sums, Addition& addition,
                       Failure& failure) {
    if (!weights.dynamic.is_none() && !add_dynamic(weights, sums, failure)) return false;
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number);
        Map in, out;
        if (!session_.open(0, to_convolve_, around(core, weights.kernel->kernel_size / 2 + 1), in, failure)) return false;
        if (!session_.begin(1, convolved_, core, out, failure) || !convolve_core(weights, in, out, core, failure) ||
            !session_.close(convolved_, out, failure))
            return false;
    }
    addition = {&convolved_, &weights.aggregate_weight, &weights.aggregate_bias};
    return true;
}

// ConvAttention as the first mixer of a block (an ablation): of the normalised features.
bool BodyRun::mix_first(const ConvolutionMixer& weights, Addition& addition, Failure& failure) {
    Buffer<double> sums;
    if (!sums.allocate_zeros(parts_.channels, failure)) return false;
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number);
        LinearTask norm{};
        norm.gain = weights.gain.data(), norm.bias = weights.bias.data();
        norm.dim = parts_.dim, norm.normalises = true;
        if (!session_.open(0, inner_, core, norm.features, failure)) return false;
        if (!session_.temporary(4, parts_.channels, core, norm.result, failure)) return false;
        if (!linear_core(norm, core, &sums, failure)) return false;
        LinearTask select{};
        select.features = norm.result, select.dim = parts_.dim;
        select.weight = weights.select_weight.data(), select.bias = weights.select_bias.data();
        if (!session_.begin(1, to_convolve_, core, select.result, failure)) return false;
        if (!linear_core(select, core, nullptr, failure) || !session_.close(to_convolve_, select.result, failure))
            return false;
        LinearTask untouched{};
        untouched.features = norm.result, untouched.residual = norm.features, untouched.dim = parts_.dim;
        untouched.weight = weights.untouched_weight.data(), untouched.bias = weights.untouched_bias.data();
        if (!session_.begin(2, spare_, core, untouched.result, failure)) return false;
        if (!linear_core(untouched, core, nullptr, failure) || !session_.close(spare_, untouched.result, failure))
            return false;
    }
    swap();
    return convolve(weights, sums, addition, failure);
}

bool BodyRun::run_layer(const Layer& layer, Addition& addition, Failure& failure) {
    const Mixing& mixing = layer.mixing;
    if (!mixing.is_window) {
        Buffer<double> sums;
        if (!feed_forward(layer.feed_forward, inner_, addition, spare_, &to_convolve_, &sums, failure)) return false;
        swap();
        return convolve(mixing.convolution, sums, addition, failure);
    }
    // Attention everywhere (an ablation): the features are completed first, since the layer leaves them as they are.
    if (!addition.is_none()) {
        for (int64_t number = 0; number < session_.num_cores(); ++number) {
            const Place core = session_.core(number);
            LinearTask task{};
            task.dim = parts_.dim;
            if (!session_.open(0, inner_, core, task.features, failure)) return false;
            if (!session_.open(1, *addition.map, core, task.added, failure)) return false;
            task.added_weight = addition.weight->data(), task.added_bias = addition.bias->data();
            if (!session_.begin(2, spare_, core, task.result, failure)) return false;
            if (!linear_core(task, core, nullptr, failure) || !session_.close(spare_, task.result, failure)) return false;
        }
        swap();
        addition = {};
    }
    if (!session_.is_stored()) {
        if (!feed_forward(layer.feed_forward, inner_, {}, spare_, nullptr, nullptr, failure)) return false;
        return attend(mixing.attention, spare_, nullptr, addition, failure);
    }
    if (!mixed_.channels && !session_.make(mixed_, parts_.channels, failure)) return false;
    if (!feed_forward(layer.feed_forward, inner_, {}, mixed_, nullptr, nullptr, failure)) return false;
    return attend(mixing.attention, mixed_, &inner_, addition, failure);
}

bool BodyRun::convolve_3x3(const WinogradWeights& weights, const Map& features, const Map& added, const Map& result,
                           Place core, Failure& failure) {
    ConvolutionTask task{};
    task.features = features, task.added = added, task.result = result, task.slope = 1;
    task.weight = weights.weight.data(), task.bias = weights.bias.data();
    if (!session_.workers().reserve(kernels_.convolution_scratch(task), failure)) return false;
    begin(static_cast<double>(weights.inputs * weights.outputs) * 9 / 4, core);
    const int64_t columns = divide_up(core.width(), PIECE_COLUMNS);
    const auto work = [&](int64_t item, float* scratch) {
        const int64_t top = core.top + item / columns * 4, left = core.left + item % columns * PIECE_COLUMNS;
        const Place place = {top, least(top + 4, core.bottom), left, least(left + PIECE_COLUMNS, core.right)};
        kernels_.convolve_3x3(task, place, scratch);
    };
    return session_.workers().run(divide_up(core.height(), 4) * columns, work, failure);
}

// LayerNorm, 3x3 convolution, and the block's input added.
bool BodyRun::leave(const Block& block, const Addition& addition, Failure& failure) {
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number), read = session_.is_stored() ? around(core, 1) : core;
        LinearTask task{};
        task.gain = block.norm_gain.data(), task.bias = block.norm_bias.data();
        task.dim = parts_.dim, task.normalises = true;
        if (!session_.open(0, inner_, read, task.features, failure)) return false;
        if (!addition.is_none()) {
            if (!session_.open(1, *addition.map, read, task.added, failure)) return false;
            task.added_weight = addition.weight->data(), task.added_bias = addition.bias->data();
        }
        Map out;
        if (session_.is_stored()) {
            if (!session_.temporary(2, parts_.channels, read, task.result, failure)) return false;
        } else if (!session_.begin(2, spare_, read, task.result, failure)) {
            return false;
        }
        if (!linear_core(task, read, nullptr, failure)) return false;
        if (!session_.open(3, features_, core, out, failure)) return false;
        if (!convolve_3x3(block.convolution, task.result, out, out, core, failure) ||
            !session_.close(features_, out, failure))
            return false;
    }
    return true;
}

bool BodyRun::run_block(const Block& block, Failure& failure) {
    Addition addition;
    if (!feed_forward(block.feed_forward, features_, addition, inner_, nullptr, nullptr, failure)) return false;
    const bool is_mixed = block.mixing.is_window ? attend(block.mixing.attention, inner_, nullptr, addition, failure)
                                                 : mix_first(block.mixing.convolution, addition, failure);
    if (!is_mixed) return false;
    for (int64_t i = 0; i < block.layers.size(); ++i)
        if (!run_layer(block.layers[i], addition, failure)) return false;
    return leave(block, addition, failure);
}

// The last convolution, and what comes straight from the image.
bool BodyRun::finish(FeatureMap& result, Failure& failure) {
    if (!enter(inner_, failure)) return false;
    for (int64_t number = 0; number < session_.num_cores(); ++number) {
        const Place core = session_.core(number), read = session_.is_stored() ? around(core, 1) : core;
        Map in, out;
        if (!session_.open(0, features_, read, in, failure)) return false;
        if (parts_.configuration.norm_before_last_conv) {
            LinearTask task{};
            task.gain = parts_.norm_gain.data(), task.bias = parts_.norm_bias.data();
            task.dim = parts_.dim, task.normalises = true, task.features = in;
            if (session_.is_stored() ? !session_.temporary(1, parts_.channels, read, task.result, failure)
                                     : !session_.begin(1, spare_, read, task.result, failure))
                return false;
            if (!linear_core(task, read, nullptr, failure)) return false;
            in = task.result;
        }
        if (!session_.open(2, inner_, core, out, failure)) return false;
        if (!convolve_3x3(parts_.deep, in, out, out, core, failure)) return false;
        if (parts_.configuration.feature_skip && !parts_.feature_skip.add(session_, image_, core, out, failure))
            return false;
        if (!session_.close(inner_, out, failure)) return false;
    }
    result = inner_;
    return true;
}

bool BodyRun::run(FeatureMap& features, Failure& failure) {
    if (!make_maps(failure) || !enter(features_, failure)) return false;
    for (int64_t i = 0; i < parts_.blocks.size(); ++i)
        if (!run_block(parts_.blocks[i], failure)) return false;
    return finish(features, failure);
}

}  // namespace

int64_t Body::floats_per_pixel(bool is_stored) const {
    const Parts& parts = *parts_;
    int64_t floats = 3 * parts.channels + (parts.has_convolution() ? 2 * parts.convolved : 0);
    if (is_stored) return floats + (parts.configuration.layer_mixer == Mixer::window ? parts.channels : 0);
    if (!parts.has_window()) return floats;
    const bool shares = parts.has_convolution() && parts.convolved <= parts.attended;
    return floats + parts.attended - (shares ? parts.convolved : 0);
}

int64_t Body::floats_per_core_pixel() const { return 5 * parts_->channels; }

int64_t Body::largest_margin() const { return most<int64_t>(2, parts_->configuration.large_kernel_size / 2 + 1); }

int64_t Body::scratch() const {
    const Parts& parts = *parts_;
    Map map;
    map.channels = parts.channels;
    Map convolved = map;
    convolved.channels = parts.convolved;
    int64_t floats = 0;
    const auto need = [&](int64_t more) { floats = most(floats, more); };
    const auto need_layer = [&](const FeedForward& weights) {
        LayerTask layer{};
        layer.features = map, layer.expanded = weights.expanded;
        need(parts.kernels->layer_scratch(layer));
    };
    need_layer(parts.blocks[0].feed_forward);
    if (parts.blocks[0].layers.size() > 0) need_layer(parts.blocks[0].layers[0].feed_forward);
    ConvolutionTask convolution{};
    convolution.features = convolution.result = map;
    need(parts.kernels->convolution_scratch(convolution));
    if (parts.has_convolution()) {
        SpectrumTask spectrum{};
        spectrum.features = convolved;
        need(parts.kernels->spectrum_scratch(spectrum));
    }
    if (parts.configuration.feature_skip) need(parts.feature_skip.scratch(*parts.kernels));
    if (const WindowAttentionWeights* attention = parts.any_attention()) {
        need(parts.kernels->attention_scratch(attention->attention_task(map, map)));
        if (attention->has_gate) need(parts.kernels->gate_scratch(attention->gate_task(map, map)));
    }
    return floats;
}

namespace {

double work_of(const Mixing& mixing, int64_t channels, int64_t convolved) {
    if (mixing.is_window) {
        const WindowAttentionWeights& weights = mixing.attention;
        return static_cast<double>(weights.window * weights.window * weights.heads *
                                   (2 * weights.head_dim + weights.rank + 8));
    }
    const int64_t inner = 33 - most<int64_t>(1, mixing.convolution.kernel->kernel_size);
    if (inner < 2) return static_cast<double>(mixing.convolution.kernel->direct.size());
    return 1024.0 / static_cast<double>(inner * inner) * static_cast<double>(convolved * (convolved + 60)) +
           static_cast<double>(channels);
}

}  // namespace

double Body::work(int64_t height, int64_t width) const {
    const Parts& parts = *parts_;
    double per_pixel = 2 * static_cast<double>(parts.shallow.weight.size()) +
                       static_cast<double>(parts.deep.inputs * parts.deep.outputs) * 9 / 4;
    if (parts.configuration.feature_skip) per_pixel += parts.feature_skip.work();
    for (int64_t i = 0; i < parts.blocks.size(); ++i) {
        const Block& block = parts.blocks[i];
        per_pixel += work_of(block.feed_forward) + work_of(block.mixing, parts.channels, parts.convolved) +
                     static_cast<double>(block.convolution.inputs * block.convolution.outputs) * 9 / 4;
        for (int64_t j = 0; j < block.layers.size(); ++j)
            per_pixel += work_of(block.layers[j].feed_forward) +
                         work_of(block.layers[j].mixing, parts.channels, parts.convolved);
    }
    return per_pixel * static_cast<double>(height) * static_cast<double>(width);
}

bool Body::run(Session& session, ImageSource& image, FeatureMap& features, Failure& failure) const {
    return BodyRun(*parts_, session, image).run(features, failure);
}

}  // namespace escsr
