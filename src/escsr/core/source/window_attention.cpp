#include "window_attention.h"

namespace escsr {

namespace {

constexpr double LOG2_E = 1.4426950408889634;

// What is made of the tensors of one module.
class Preparation {
   public:
    Preparation(WindowAttentionWeights& weights, const Tensors& tensors, const char* name, const char* norm,
                int64_t lanes, Failure& failure)
        : weights_(weights), tensors_(tensors), name_(name), norm_(norm), lanes_(lanes), failure_(failure) {}

    bool run(const Configuration& configuration) {
        return project() && finish() &&
               (configuration.position_bias == PositionBias::table
                    ? bias()
                    : factors(configuration.position_hidden_dim, configuration.position_frequencies)) &&
               (!weights_.has_gate || gate());
    }

   private:
    // q, k and v of a head beside one another.
    bool project() {
        const int64_t dim = weights_.dim, head_dim = weights_.head_dim, channels = weights_.channels;
        const int64_t width = round_up(3 * head_dim, lanes_);
        Matrix all;
        if (!all.of_convolution(tensors_, Name("%s.query_key_value", name_), dim, 3 * dim, failure_)) return false;
        if (norm_ && !all.after_norm(tensors_, norm_, failure_)) return false;
        if (!weights_.project_weight.allocate_zeros(weights_.heads * channels * width, failure_) ||
            !weights_.project_bias.allocate_zeros(weights_.heads * width, failure_))
            return false;
        const double query_scale = SCORE_UNIT * LOG2_E / sqrt(static_cast<double>(head_dim));
        for (int64_t head = 0; head < weights_.heads; ++head)
            for (int64_t o = 0; o < 3 * head_dim; ++o) {
                const int64_t from = o / head_dim * dim + head * head_dim + o % head_dim;
                const double scale = o < head_dim ? query_scale : 1.0;
                for (int64_t i = 0; i < dim; ++i)
                    weights_.project_weight[(head * channels + i) * width + o] =
                        static_cast<float>(all.weight[i * 3 * dim + from] * scale);
                weights_.project_bias[head * width + o] = static_cast<float>(all.bias[from] * scale);
            }
        return true;
    }

    bool finish() {
        Matrix output;
        return output.of_convolution(tensors_, Name("%s.output_projection", name_), weights_.dim, weights_.dim, failure_) &&
               output.ready(weights_.attended_channels(lanes_), weights_.channels, weights_.output_weight,
                            weights_.output_bias, failure_);
    }

    // The table's columns are in order of key minus query; ours in reverse.
    bool bias() {
        const int64_t offsets = 2 * weights_.window - 1, step = offsets + lanes_;
        const float* table =
            tensors_.take(failure_, {2, {weights_.heads, offsets * offsets}}, "%s.position_bias.table", name_);
        if (!table || !weights_.bias.allocate_zeros(weights_.heads * offsets * step, failure_)) return false;
        for (int64_t row = 0; row < weights_.heads * offsets; ++row)
            for (int64_t column = 0; column < offsets; ++column)
                weights_.bias[row * step + column] =
                    static_cast<float>(SCORE_UNIT * LOG2_E * static_cast<double>(table[(row + 1) * offsets - 1 - column]));
        weights_.bias_step = step;
        return true;
    }

    // A network of each place in a window gives the factors of the bias; it is run once, here.
    // Source: ESC-RIB, arXiv:2603.06738.
    bool factors(int64_t hidden_dim, int64_t frequencies) {
        const int64_t inputs = 2 + 4 * frequencies, window = weights_.window, heads = weights_.heads;
        const int64_t rank = weights_.rank;
        const Name bias("%s.position_bias", name_);
        const float* to_hidden = tensors_.take(failure_, {2, {inputs, hidden_dim}}, "%s.to_hidden", bias.text);
        if (!to_hidden) return false;
        const float* hidden_bias = tensors_.take(failure_, {2, {1, hidden_dim}}, "%s.hidden_bias", bias.text);
        if (!hidden_bias) return false;
        const float* to_query = tensors_.take(failure_, {3, {heads, hidden_dim, rank}}, "%s.to_query", bias.text);
        if (!to_query) return false;
        const float* to_key = tensors_.take(failure_, {3, {heads, hidden_dim, rank}}, "%s.to_key", bias.text);
        if (!to_key) return false;

        const int64_t columns = round_up(window, lanes_);
        Buffer<double> place, hidden;
        if (!place.allocate(inputs, failure_) || !hidden.allocate(hidden_dim, failure_) ||
            !weights_.query_factors.allocate_zeros(heads * window * columns * rank, failure_) ||
            !weights_.key_factors.allocate_zeros(heads * window * columns * rank, failure_))
            return false;
        const double query_scale = SCORE_UNIT * LOG2_E / sqrt(static_cast<double>(rank));
        for (int64_t token = 0; token < window * window; ++token) {
            const int64_t row = token / window, column = token % window;
            describe_place(row, column, frequencies, place.data());
            for (int64_t h = 0; h < hidden_dim; ++h) {
                double sum = static_cast<double>(hidden_bias[h]);
                for (int64_t i = 0; i < inputs; ++i) sum += place[i] * static_cast<double>(to_hidden[i * hidden_dim + h]);
                hidden[h] = most(sum, 0.0);
            }
            for (int64_t head = 0; head < heads; ++head) {
                const int64_t from = head * hidden_dim * rank;
                const int64_t to = ((head * window + row) * columns + column / lanes_ * lanes_) * rank + column % lanes_;
                make_factors(hidden, to_query + from, query_scale, weights_.query_factors.data() + to);
                make_factors(hidden, to_key + from, 1.0, weights_.key_factors.data() + to);
            }
        }
        return true;
    }

    // x and y in (-1, 1), then sin x, sin y, cos x and cos y of each frequency.
    void describe_place(int64_t row, int64_t column, int64_t frequencies, double* place) const {
        const double window = static_cast<double>(weights_.window);
        const double x = (2.0 * static_cast<double>(column) + 1.0) / window - 1.0;
        const double y = (2.0 * static_cast<double>(row) + 1.0) / window - 1.0;
        *place++ = x, *place++ = y;
        double frequency = 1.0;
        for (int64_t i = 0; i < frequencies; ++i, frequency *= 2.0) {
            *place++ = sin(frequency * x), *place++ = sin(frequency * y);
            *place++ = cos(frequency * x), *place++ = cos(frequency * y);
        }
    }

    // hidden times (hidden_dim, rank), `lanes` apart
    void make_factors(const Buffer<double>& hidden, const float* weight, double scale, float* factors) const {
        for (int64_t r = 0; r < weights_.rank; ++r) {
            double sum = 0.0;
            for (int64_t h = 0; h < hidden.size(); ++h) sum += hidden[h] * static_cast<double>(weight[h * weights_.rank + r]);
            factors[r * lanes_] = static_cast<float>(sum * scale);
        }
    }

    bool gate() {
        const int64_t dim = weights_.dim, channels = weights_.channels;
        const Name depthwise("%s.gate.depthwise", name_), pointwise("%s.gate.pointwise", name_);
        Matrix matrix;
        if (!depthwise_weights(tensors_, depthwise, dim, 3, lanes_, weights_.gate_depthwise_weight,
                               weights_.gate_depthwise_bias, failure_) ||
            !matrix.of_convolution(tensors_, pointwise, dim, dim, failure_) ||
            !matrix.ready(channels, channels, weights_.gate_pointwise_weight, weights_.gate_pointwise_bias, failure_))
            return false;
        return !norm_ || (padded(Name("%s.weight", norm_), weights_.gate_norm_gain) &&
                          padded(Name("%s.bias", norm_), weights_.gate_norm_bias));
    }

    bool padded(const char* name, Buffer<float>& values) {
        const float* from = tensors_.take(failure_, {1, {weights_.dim}}, "%s", name);
        if (!from || !values.allocate_zeros(weights_.channels, failure_)) return false;
        memcpy(values.data(), from, sizeof(float) * static_cast<size_t>(weights_.dim));
        return true;
    }

    WindowAttentionWeights& weights_;
    const Tensors& tensors_;
    const char *name_, *norm_;
    const int64_t lanes_;
    Failure& failure_;
};

}  // namespace

bool WindowAttentionWeights::prepare(const Configuration& configuration, const Tensors& tensors, const char* name,
                                     const char* norm, int64_t lanes, Failure& failure) {
    window = configuration.window_size, heads = configuration.num_heads, dim = configuration.dim;
    head_dim = dim / heads, channels = round_up(dim, lanes);
    rank = configuration.position_bias == PositionBias::implicit ? configuration.position_rank : 0;
    normalises = norm != nullptr, has_gate = configuration.attention_gate;
    return Preparation(*this, tensors, name, norm, lanes, failure).run(configuration);
}

AttentionTask WindowAttentionWeights::attention_task(Map features, Map attended) const {
    AttentionTask task{};
    task.features = features, task.attended = attended;
    task.project_weight = project_weight.data(), task.project_bias = project_bias.data();
    task.bias = bias.data(), task.bias_step = bias_step;
    task.query_factors = query_factors.data(), task.key_factors = key_factors.data();
    task.window = window, task.heads = heads, task.head_dim = head_dim, task.rank = rank;
    task.dim = dim, task.normalises = normalises;
    return task;
}

GateTask WindowAttentionWeights::gate_task(Map features, Map attended) const {
    GateTask task{};
    task.features = features, task.result = attended, task.dim = dim;
    task.norm_gain = gate_norm_gain.data(), task.norm_bias = gate_norm_bias.data();
    task.depthwise_weight = gate_depthwise_weight.data(), task.depthwise_bias = gate_depthwise_bias.data();
    task.pointwise_weight = gate_pointwise_weight.data(), task.pointwise_bias = gate_pointwise_bias.data();
    return task;
}

}  // namespace escsr
