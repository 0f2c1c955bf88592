// The Local Texture Estimator: where queries lie, its weights, and its rectangles of the result.
#include "head_lte.h"

namespace escsr {

namespace {

// The largest factor of training; beyond it the cell stays as it was there.
constexpr double TRAINED_SCALE = 4.0;
// Added to a shifted coordinate; it decides where a query lies halfway between two pixels.
constexpr double SHIFT = 1e-6;
// Shifted coordinates are clamped to plus or minus this.
constexpr double EDGE = 1 - 1e-6;
// Pixels of the result in a part: some 1.6 billion multiply-adds, and weights of the convolution, which are larger
// than most caches, are read once for all of them.
constexpr int64_t PART_HEIGHT = 16, PART_WIDTH = 128;

double clamped(double value, double from, double to) { return value < from ? from : value > to ? to : value; }

int64_t nearest_pixel(double shifted, int64_t length) {
    const double place = (clamped(shifted + SHIFT, -EDGE, EDGE) + 1) * (static_cast<double>(length) / 2);
    return most<int64_t>(least(static_cast<int64_t>(place), length - 1), 0);
}

// Coordinates of an axis run from -1 to 1 over the `length` pixels at hand; all in float64, so that rounding never
// decides which pixel is the nearest.
TextureQuery find_query(const escsr_axis& axis, int64_t length, int64_t output) {
    const double pixels = static_cast<double>(length);
    const double position = 2 * static_cast<double>(axis.output_start + output) + 1;
    const double coordinate = position / static_cast<double>(axis.output_length) *
                                  (static_cast<double>(axis.length) / pixels) -
                              2 * static_cast<double>(axis.start) / pixels - 1;
    TextureQuery query;
    for (int side = 0; side < 2; ++side) {
        const int64_t pixel = nearest_pixel(side == 0 ? coordinate - 1 / pixels : coordinate + 1 / pixels, length);
        const double centre = static_cast<double>(2 * pixel + 1) / pixels - 1;
        query.nearest[side] = pixel;
        query.offset[side] = static_cast<float>((coordinate - centre) * pixels);
    }
    const double between = clamped((coordinate + 1) * (pixels / 2) - 0.5, 0, pixels - 1);
    query.between[0] = static_cast<int64_t>(between);
    query.between[1] = least(query.between[0] + 1, length - 1);
    query.share = static_cast<float>(between - static_cast<double>(query.between[0]));
    return query;
}

// Size of a pixel of the result in half pixels of the image.
double cell_of(const escsr_axis& axis) {
    return 2 / least(static_cast<double>(axis.output_length) / static_cast<double>(axis.length), TRAINED_SCALE);
}

// Pixels of the result for one of the image, at most 1.
double shrunk_by(const escsr_axis& axis) {
    return least(1.0, static_cast<double>(axis.output_length) / static_cast<double>(axis.length));
}

// At most so many pixels of an axis of `length` have textures that `outputs` neighbouring queries look at.
int64_t most_pixels(const escsr_axis& axis, int64_t outputs, int64_t length) {
    const double step = static_cast<double>(axis.length) / static_cast<double>(axis.output_length);
    const double most_of_them = static_cast<double>(outputs) * step + 4;
    return most_of_them < static_cast<double>(length) ? static_cast<int64_t>(most_of_them) : length;
}

int64_t floats_of_queries(int64_t queries) {
    return round_up(divide_up(queries * static_cast<int64_t>(sizeof(TextureQuery)), 4), 16);
}

// The queries [first, last) of an axis, in memory for them.
const TextureQuery* find_queries(const escsr_axis& axis, int64_t length, int64_t first, int64_t last, float* memory) {
    void* bytes = memory;
    TextureQuery* queries = static_cast<TextureQuery*>(bytes);
    for (int64_t i = first; i < last; ++i)
        new (EscsrPlacement{queries + (i - first)}) TextureQuery(find_query(axis, length, i));
    return queries;
}

// (inputs, outputs) into panels of `panel` columns.
void cut_into_panels(const float* weight, int64_t inputs, int64_t outputs, int64_t panel, float* panels) {
    for (int64_t first = 0; first < outputs; first += panel) {
        const int64_t columns = least(panel, outputs - first);
        for (int64_t i = 0; i < inputs; ++i, panels += columns)
            memcpy(panels, weight + i * outputs + first, sizeof(float) * static_cast<size_t>(columns));
    }
}

// result += bilinear sample of the image; beyond the outermost centres the border is repeated.
void add_image(const ImageRows& image, const TextureQuery& row, const TextureQuery* columns, int64_t count,
               int64_t channel, float* result) {
    const float* front = image.row(channel, row.between[0]);
    const float* back = image.row(channel, row.between[1]);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t left = columns[i].between[0], right = columns[i].between[1];
        const float share = columns[i].share;
        const float at_front = front[left] + share * (front[right] - front[left]);
        const float at_back = back[left] + share * (back[right] - back[left]);
        result[i] += at_front + row.share * (at_back - at_front);
    }
}

}  // namespace

bool LocalTextureHead::prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels,
                               Failure& failure) {
    kernels_ = &kernels;
    half_ = configuration.texture_dim / 2;
    waves_ = round_up(half_, kernels.lanes);
    return prepare_textures(configuration, tensors, failure) && prepare_layers(configuration, tensors, failure) &&
           prepare_last(configuration, tensors, failure);
}

// Both convolutions in one: amplitudes of cosines, of sines, frequencies along rows, along columns; each padded.
bool LocalTextureHead::prepare_textures(const Configuration& configuration, const Tensors& tensors,
                                        Failure& failure) {
    const int64_t dim = configuration.dim, outputs = 2 * half_, taps = 9 * dim;
    const float* weights[2];
    const float* biases[2];
    const char* names[2] = {"amplitude", "frequency"};
    for (int i = 0; i < 2; ++i) {
        weights[i] = tensors.take(failure, {4, {outputs, dim, 3, 3}}, "reconstruction.%s.weight", names[i]);
        if (!weights[i]) return false;
        biases[i] = tensors.take(failure, {1, {outputs}}, "reconstruction.%s.bias", names[i]);
        if (!biases[i]) return false;
    }
    Buffer<float> weight, bias;
    if (!weight.allocate_zeros(4 * waves_ * taps, failure) || !bias.allocate_zeros(4 * waves_, failure)) return false;
    for (int64_t part = 0; part < 4; ++part)
        for (int64_t wave = 0; wave < half_; ++wave) {
            // Amplitudes come part by part, frequencies wave by wave.
            const int64_t from = part < 2 ? part * half_ + wave : 2 * wave + part - 2, to = part * waves_ + wave;
            memcpy(&weight[to * taps], weights[part / 2] + from * taps, sizeof(float) * static_cast<size_t>(taps));
            bias[to] = biases[part / 2][from];
        }
    Tensors both;
    const int64_t shape[4] = {4 * waves_, dim, 3, 3};
    if (!both.add("textures.weight", "F32", weight.data(), 4, shape, failure) ||
        !both.add("textures.bias", "F32", bias.data(), 1, shape, failure) ||
        !convolution_.make(both, "textures", dim, 4 * waves_, kernels_->lanes, failure))
        return false;
    products_of_pixel_ = static_cast<double>(convolution_.inputs * convolution_.outputs) * 36 / 16;

    const float* phase = tensors.take(failure, {2, {half_, 2}}, "reconstruction.phase.weight");
    if (!phase || !phase_.allocate(2 * half_, failure)) return false;
    memcpy(phase_.data(), phase, sizeof(float) * static_cast<size_t>(2 * half_));
    return true;
}

// Where an input of the MLP lies in a row of waves, whose cosines are padded.
int64_t LocalTextureHead::place_of_input(int64_t input) const { return input < half_ ? input : input - half_ + waves_; }

bool LocalTextureHead::prepare_layers(const Configuration& configuration, const Tensors& tensors, Failure& failure) {
    const int64_t count = configuration.texture_mlp_layers, outputs = configuration.texture_mlp_dim;
    if (!layers_.make(count, failure) || !views_.allocate(count, failure)) return false;
    Buffer<float> rows;
    for (int64_t number = 0; number < count; ++number) {
        const int64_t inputs = number == 0 ? 2 * half_ : outputs;
        const int index = static_cast<int>(2 * number);  // a ReLU follows each
        const float* weight =
            tensors.take(failure, {2, {outputs, inputs}}, "reconstruction.decoder.%d.weight", index);
        if (!weight) return false;
        const float* bias = tensors.take(failure, {1, {outputs}}, "reconstruction.decoder.%d.bias", index);
        if (!bias) return false;
        Layer& layer = layers_[number];
        layer.inputs = number == 0 ? 2 * waves_ : round_up(inputs, kernels_->lanes);
        layer.outputs = round_up(outputs, kernels_->lanes);
        if (!rows.allocate_zeros(layer.inputs * layer.outputs, failure) ||
            !layer.weight.allocate(layer.inputs * layer.outputs, failure) ||
            !layer.bias.allocate_zeros(layer.outputs, failure))
            return false;
        for (int64_t i = 0; i < inputs; ++i) {
            float* row = &rows[(number == 0 ? place_of_input(i) : i) * layer.outputs];
            for (int64_t o = 0; o < outputs; ++o) row[o] = weight[o * inputs + i];
        }
        cut_into_panels(rows.data(), layer.inputs, layer.outputs, kernels_->texture->panel, layer.weight.data());
        memcpy(layer.bias.data(), bias, sizeof(float) * static_cast<size_t>(outputs));
        views_[number] = {layer.weight.data(), layer.bias.data(), layer.inputs, layer.outputs};
        products_of_query_ += 4 * static_cast<double>(layer.inputs * layer.outputs);
    }
    return true;
}

// The last layer; what it gives is in [-1, 1], the result in [0, 1].
bool LocalTextureHead::prepare_last(const Configuration& configuration, const Tensors& tensors, Failure& failure) {
    const int64_t count = configuration.texture_mlp_layers;
    const int64_t inputs = count == 0 ? 2 * half_ : configuration.texture_mlp_dim;
    const int64_t padded = count == 0 ? 2 * waves_ : round_up(inputs, kernels_->lanes);
    const int index = static_cast<int>(2 * count);
    const float* weight = tensors.take(failure, {2, {3, inputs}}, "reconstruction.decoder.%d.weight", index);
    if (!weight) return false;
    const float* bias = tensors.take(failure, {1, {3}}, "reconstruction.decoder.%d.bias", index);
    if (!bias || !last_weight_.allocate_zeros(3 * padded, failure)) return false;
    for (int64_t o = 0; o < 3; ++o) {
        for (int64_t i = 0; i < inputs; ++i)
            last_weight_[o * padded + (count == 0 ? place_of_input(i) : i)] = 0.5f * weight[o * inputs + i];
        last_bias_[o] = 0.5f * bias[o];
    }
    products_of_query_ += 3 * static_cast<double>(padded);
    return true;
}

// Neighbours only move to the back from one query to the next.
Place LocalTextureHead::textures_needed(const HeadTask& task, Place result) const {
    const int64_t height = task.features.height, width = task.features.width;
    return {find_query(task.axes.rows, height, result.top).nearest[0],
            find_query(task.axes.rows, height, result.bottom - 1).nearest[1] + 1,
            find_query(task.axes.columns, width, result.left).nearest[0],
            find_query(task.axes.columns, width, result.right - 1).nearest[1] + 1};
}

Place LocalTextureHead::needed(const HeadTask& task, Place result) const {
    return textures_needed(task, result).grown(1, task.features.height, task.features.width);
}

Place LocalTextureHead::needed_image(const HeadTask& task, Place result) const {
    const int64_t height = task.image.height, width = task.image.width;
    return {find_query(task.axes.rows, height, result.top).between[0],
            find_query(task.axes.rows, height, result.bottom - 1).between[1] + 1,
            find_query(task.axes.columns, width, result.left).between[0],
            find_query(task.axes.columns, width, result.right - 1).between[1] + 1};
}

void LocalTextureHead::best_part(const HeadTask& task, int64_t& height, int64_t& width) const {
    height = most<int64_t>(1, static_cast<int64_t>(PART_HEIGHT * shrunk_by(task.axes.rows)));
    width = most<int64_t>(1, static_cast<int64_t>(PART_WIDTH * shrunk_by(task.axes.columns)));
}

ConvolutionTask LocalTextureHead::convolution(const HeadTask& task, Place pixels, float* textures) const {
    ConvolutionTask convolution = {};
    convolution.features = task.features;
    convolution.weight = convolution_.weight.data();
    convolution.bias = convolution_.bias.data();
    convolution.result.data = textures;
    convolution.result.held = pixels;
    convolution.result.height = task.features.height;
    convolution.result.width = task.features.width;
    convolution.result.channels = convolution_.outputs;
    convolution.slope = 1;
    return convolution;
}

TextureTask LocalTextureHead::task_of_kernel(const HeadTask& task, Place result, Map textures) const {
    TextureTask texture = {};
    texture.textures = textures;
    texture.waves = waves_;
    texture.layers = views_.data();
    texture.num_layers = views_.size();
    texture.last_weight = last_weight_.data();
    memcpy(texture.last_bias, last_bias_, sizeof(last_bias_));
    texture.result = task.result;
    texture.place = result;
    return texture;
}

int64_t LocalTextureHead::scratch(const HeadTask& task, int64_t height, int64_t width) const {
    const int64_t rows = most_pixels(task.axes.rows, height, task.features.height);
    const int64_t columns = most_pixels(task.axes.columns, width, task.features.width);
    const ConvolutionTask convolving = convolution(task, {0, rows, 0, columns}, nullptr);
    const TextureTask texture = task_of_kernel(task, {0, height, 0, width}, convolving.result);
    return round_up(rows * columns * convolution_.outputs, 16) + round_up(waves_, 16) + floats_of_queries(height) +
           floats_of_queries(width) +
           most(kernels_->convolution_scratch(convolving), kernels_->texture->scratch(texture));
}

double LocalTextureHead::work(const HeadTask& task, Place result) const {
    return products_of_query_ * static_cast<double>(result.num_pixels()) +
           products_of_pixel_ * static_cast<double>(textures_needed(task, result).num_pixels());
}

int64_t LocalTextureHead::make(const HeadTask& task, Place result, float* scratch) const {
    const Place pixels = textures_needed(task, result);
    float* textures = scratch;
    float* phase = textures + round_up(pixels.num_pixels() * convolution_.outputs, 16);
    float* rows = phase + round_up(waves_, 16);
    float* columns = rows + floats_of_queries(result.height());
    float* rest = columns + floats_of_queries(result.width());

    const ConvolutionTask convolving = convolution(task, pixels, textures);
    kernels_->convolve_3x3(convolving, pixels, rest);

    TextureTask texture = task_of_kernel(task, result, convolving.result);
    const double cell[2] = {cell_of(task.axes.rows), cell_of(task.axes.columns)};
    for (int64_t wave = 0; wave < waves_; ++wave)
        phase[wave] = wave < half_ ? static_cast<float>(cell[0] * phase_[2 * wave] + cell[1] * phase_[2 * wave + 1]) : 0;
    texture.phase = phase;
    texture.rows = find_queries(task.axes.rows, task.features.height, result.top, result.bottom, rows);
    texture.columns = find_queries(task.axes.columns, task.features.width, result.left, result.right, columns);
    kernels_->texture->run(texture, rest);

    for (int64_t channel = 0; channel < 3; ++channel)
        for (int64_t y = result.top; y < result.bottom; ++y)
            add_image(task.image, texture.rows[y - result.top], texture.columns, result.width(), channel,
                      task.result.row(channel, y) + result.left);
    return 0;
}

}  // namespace escsr
