#include "weights.h"

#include <stdarg.h>
#include <stdio.h>

#include "kernels.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "arrays come in little endian, and are read as they are"
#endif

namespace escsr {

namespace {

constexpr int64_t MOST_VALUES = int64_t{1} << 40;

// FNV-1a
uint32_t hash_of(const char* name) {
    uint32_t hash = 2166136261u;
    for (; *name; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 16777619u;
    return hash;
}

// A shape as people write it, 64x16x3x3.
struct ShapeText {
    char text[MOST_DIMENSIONS * 21 + 1];
    ShapeText(const int64_t* sides, int32_t num_dimensions) {
        if (num_dimensions == 0) {
            snprintf(text, sizeof(text), "a single value");
            return;
        }
        size_t length = 0;
        for (int32_t i = 0; i < num_dimensions; ++i)
            length += static_cast<size_t>(snprintf(text + length, sizeof(text) - length, i ? "x%.0f" : "%.0f",
                                                   static_cast<double>(sides[i])));
    }
};

float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

float float_of_half(uint32_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
    if (exponent == 0) {
        const float value = static_cast<float>(fraction) * (1.0f / 16777216.0f);
        return sign ? -value : value;
    }
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | fraction << 13);
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

enum class Type { f32, f16, bf16, f64, unknown };

Type type_of(const char* name) {
    if (strcmp(name, "F32") == 0) return Type::f32;
    if (strcmp(name, "F16") == 0) return Type::f16;
    if (strcmp(name, "BF16") == 0) return Type::bf16;
    if (strcmp(name, "F64") == 0) return Type::f64;
    return Type::unknown;
}

// The bytes may lie on any boundary.
float value_at(const unsigned char* bytes, Type type, int64_t index) {
    if (type == Type::f32) {
        float value;
        memcpy(&value, bytes + 4 * index, 4);
        return value;
    }
    if (type == Type::f64) {
        double value;
        memcpy(&value, bytes + 8 * index, 8);
        // Beyond float32's range is infinite; in C++ the conversion alone would be undefined.
        return fabs(value) >= 3.4028235677973362e38 ? float_of_bits(0x7f800000u) : static_cast<float>(value);
    }
    uint16_t bits;
    memcpy(&bits, bytes + 2 * index, 2);
    return type == Type::f16 ? float_of_half(bits) : float_of_bits(static_cast<uint32_t>(bits) << 16);
}

bool is_finite(const float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof(bits));
        if ((bits & 0x7f800000u) == 0x7f800000u) return false;
    }
    return true;
}

// NAME.MEMBER; null after setting failure.
const float* take_member(const Tensors& tensors, const char* name, const char* member, Shape shape, Failure& failure) {
    return tensors.take(failure, shape, "%s.%s", name, member);
}

}  // namespace

bool Tensors::add(const char* name, const char* type, const void* data, int32_t num_dimensions, const int64_t* shape,
                  Failure& failure) {
    const Type stored = type_of(type);
    if (stored == Type::unknown)
        return failure.set(ESCSR_INVALID_FILE, "%.200s holds %.20s; only F32, F16, BF16 and F64 can be read.", name,
                           type);
    if (num_dimensions < 0 || num_dimensions > MOST_DIMENSIONS)
        return failure.set(ESCSR_INVALID_FILE, "%.200s has %d dimensions; no network has more than %d.", name,
                           static_cast<int>(num_dimensions), static_cast<int>(MOST_DIMENSIONS));
    int64_t size = 1;
    for (int32_t i = 0; i < num_dimensions; ++i) {
        if (shape[i] < 0 || (shape[i] > 0 && size > MOST_VALUES / shape[i]))
            return failure.set(ESCSR_INVALID_FILE, "%.200s is said to be %s, which cannot be.", name,
                               ShapeText(shape, num_dimensions).text);
        size *= shape[i];
    }
    if (find(name)) return failure.set(ESCSR_INVALID_FILE, "%.200s is there twice.", name);
    if (!grow(failure)) return false;

    Entry& entry = entries_[count_];
    const int64_t name_bytes = static_cast<int64_t>(strlen(name)) + 1;
    // At least one value, so that no array is null.
    if (!entry.name.allocate(name_bytes, failure)) return false;
    if (!entry.values.allocate(most<int64_t>(size, 1), failure)) return false;
    memcpy(entry.name.data(), name, static_cast<size_t>(name_bytes));
    entry.shape.num_dimensions = num_dimensions;
    for (int32_t i = 0; i < num_dimensions; ++i) entry.shape.sides[i] = shape[i];
    const unsigned char* bytes = static_cast<const unsigned char*>(data);
    for (int64_t i = 0; i < size; ++i) entry.values[i] = value_at(bytes, stored, i);
    if (!is_finite(entry.values.data(), size))
        return failure.set(ESCSR_INVALID_FILE,
                           "%.200s holds NaN or infinite values%s: the training run diverged or the file was damaged.",
                           name, stored == Type::f64 ? " as float32" : "");
    entry.hash = hash_of(name);
    entry.is_used = false;
    enter(static_cast<int32_t>(count_++));
    return true;
}

bool Tensors::grow(Failure& failure) {
    if (count_ < entries_.size()) return true;
    if (count_ >= MOST_ARRAYS)
        return failure.set(ESCSR_INVALID_FILE, "There are more than %d arrays; no network has so many.",
                           static_cast<int>(MOST_ARRAYS));
    const int64_t size = most<int64_t>(2 * count_, 256);
    Objects<Entry> larger;
    Buffer<int32_t> places;
    if (!larger.make(size, failure) || !places.allocate(2 * size, failure)) return false;
    for (int64_t i = 0; i < count_; ++i) {
        Entry &from = entries_[i], &to = larger[i];
        to.name = static_cast<Buffer<char>&&>(from.name);
        to.values = static_cast<Buffer<float>&&>(from.values);
        to.shape = from.shape, to.hash = from.hash, to.is_used = from.is_used;
    }
    entries_.swap(larger);
    places_ = static_cast<Buffer<int32_t>&&>(places);
    for (int32_t& place : places_) place = -1;
    for (int64_t i = 0; i < count_; ++i) enter(static_cast<int32_t>(i));
    return true;
}

void Tensors::enter(int32_t index) {
    const int64_t mask = places_.size() - 1;  // the size is a power of two
    int64_t place = static_cast<int64_t>(entries_[index].hash) & mask;
    while (places_[place] >= 0) place = (place + 1) & mask;
    places_[place] = index;
}

const Tensors::Entry* Tensors::find(const char* name) const {
    if (count_ == 0) return nullptr;
    const uint32_t hash = hash_of(name);
    const int64_t mask = places_.size() - 1;
    for (int64_t place = static_cast<int64_t>(hash) & mask; places_[place] >= 0; place = (place + 1) & mask) {
        const Entry& entry = entries_[places_[place]];
        if (entry.hash == hash && strcmp(entry.name.data(), name) == 0) return &entry;
    }
    return nullptr;
}

Name::Name(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
}

const float* Tensors::take(Failure& failure, Shape shape, const char* format, ...) const {
    char name[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof(name), format, arguments);
    va_end(arguments);
    const Entry* entry = find(name);
    const ShapeText wanted(shape.sides, shape.num_dimensions);
    if (!entry) {
        failure.set(ESCSR_MISSING_WEIGHTS, "%s is missing: a network of this configuration has it, %s.", name,
                    wanted.text);
        return nullptr;
    }
    bool fits = entry->shape.num_dimensions == shape.num_dimensions;
    for (int32_t i = 0; fits && i < shape.num_dimensions; ++i) fits = entry->shape.sides[i] == shape.sides[i];
    if (!fits) {
        failure.set(ESCSR_MISSING_WEIGHTS, "%s is %s instead of %s.", name,
                    ShapeText(entry->shape.sides, entry->shape.num_dimensions).text, wanted.text);
        return nullptr;
    }
    entry->is_used = true;
    return entry->values.data();
}

bool Tensors::has(const char* name) const { return find(name) != nullptr; }

bool Tensors::require_all_used(Failure& failure) const {
    char names[320] = "";
    size_t length = 0;
    int64_t unused = 0, shown = 0;
    for (int64_t i = 0; i < count_; ++i) {
        if (entries_[i].is_used) continue;
        ++unused;
        if (shown == 4) continue;
        const int added = snprintf(names + length, sizeof(names) - length, "%s%.70s", shown ? ", " : "",
                                   entries_[i].name.data());
        length += static_cast<size_t>(added), ++shown;
    }
    if (unused == 0) return true;
    if (unused > shown)
        snprintf(names + length, sizeof(names) - length, " and %d more", static_cast<int>(unused - shown));
    return failure.set(ESCSR_MISSING_WEIGHTS, "%d array%s that no network of this configuration has: %s.",
                       static_cast<int>(unused), unused == 1 ? "" : "s", names);
}

int64_t Tensors::num_parameters() const {
    int64_t total = 0;
    for (int64_t i = 0; i < count_; ++i) {
        int64_t size = 1;
        for (int32_t side = 0; side < entries_[i].shape.num_dimensions; ++side) size *= entries_[i].shape.sides[side];
        total += size;
    }
    return total;
}

bool Matrix::make(int64_t new_inputs, int64_t new_outputs, Failure& failure) {
    inputs = new_inputs, outputs = new_outputs;
    return weight.allocate_zeros(inputs * outputs, failure) && bias.allocate_zeros(outputs, failure);
}

bool Matrix::of_convolution(const Tensors& tensors, const char* name, int64_t num_inputs, int64_t num_outputs,
                            Failure& failure, bool has_bias) {
    const float* weights = take_member(tensors, name, "weight", {4, {num_outputs, num_inputs, 1, 1}}, failure);
    if (!weights) return false;
    const float* biases = has_bias ? take_member(tensors, name, "bias", {1, {num_outputs}}, failure) : nullptr;
    if (has_bias && !biases) return false;
    if (!make(num_inputs, num_outputs, failure)) return false;
    for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < inputs; ++i) weight[i * outputs + o] = static_cast<double>(weights[o * inputs + i]);
    for (int64_t o = 0; biases && o < outputs; ++o) bias[o] = static_cast<double>(biases[o]);
    return true;
}

bool Matrix::after_norm(const Tensors& tensors, const char* name, Failure& failure) {
    const float* gain = take_member(tensors, name, "weight", {1, {inputs}}, failure);
    if (!gain) return false;
    const float* shift = take_member(tensors, name, "bias", {1, {inputs}}, failure);
    if (!shift) return false;
    for (int64_t i = 0; i < inputs; ++i)
        for (int64_t o = 0; o < outputs; ++o) {
            double& value = weight[i * outputs + o];
            bias[o] += static_cast<double>(shift[i]) * value;
            value *= static_cast<double>(gain[i]);
        }
    return true;
}

bool Matrix::then(const Matrix& next, Matrix& both, Failure& failure) const {
    if (!both.make(inputs, next.outputs, failure)) return false;
    const int64_t columns = next.outputs;
    for (int64_t i = 0; i <= inputs; ++i) {  // the last row is the bias
        const double* from = i < inputs ? weight.data() + i * outputs : bias.data();
        double* to = i < inputs ? both.weight.data() + i * columns : both.bias.data();
        for (int64_t k = 0; k < outputs; ++k) {
            const double* row = next.weight.data() + k * columns;
            for (int64_t o = 0; o < columns; ++o) to[o] += from[k] * row[o];
        }
    }
    for (int64_t o = 0; o < columns; ++o) both.bias[o] += next.bias[o];
    return true;
}

bool Matrix::some_outputs(int64_t first, int64_t last, Matrix& some, Failure& failure) const {
    if (!some.make(inputs, last - first, failure)) return false;
    for (int64_t i = 0; i < inputs; ++i)
        for (int64_t o = first; o < last; ++o) some.weight[i * some.outputs + o - first] = weight[i * outputs + o];
    for (int64_t o = first; o < last; ++o) some.bias[o - first] = bias[o];
    return true;
}

bool Matrix::some_inputs(int64_t first, int64_t last, bool with_bias, Matrix& some, Failure& failure) const {
    if (!some.make(last - first, outputs, failure)) return false;
    for (int64_t i = first * outputs; i < last * outputs; ++i) some.weight[i - first * outputs] = weight[i];
    for (int64_t o = 0; with_bias && o < outputs; ++o) some.bias[o] = bias[o];
    return true;
}

bool Matrix::ready(int64_t padded_inputs, int64_t padded_outputs, Buffer<float>& ready_weight,
                   Buffer<float>& ready_bias, Failure& failure) const {
    return ready_beside(nullptr, padded_inputs, padded_outputs, 0, ready_weight, ready_bias, failure);
}

bool Matrix::ready_beside(const Matrix* other, int64_t padded_inputs, int64_t padded_outputs, int64_t padded_others,
                          Buffer<float>& ready_weight, Buffer<float>& ready_bias, Failure& failure) const {
    const int64_t width = padded_outputs + padded_others;
    if (!ready_weight.allocate_zeros(padded_inputs * width, failure)) return false;
    if (!ready_bias.allocate_zeros(width, failure)) return false;
    const auto put = [&](const Matrix& matrix, int64_t first) {
        for (int64_t i = 0; i < matrix.inputs; ++i)
            for (int64_t o = 0; o < matrix.outputs; ++o)
                ready_weight[i * width + first + o] = static_cast<float>(matrix.weight[i * matrix.outputs + o]);
        for (int64_t o = 0; o < matrix.outputs; ++o) ready_bias[first + o] = static_cast<float>(matrix.bias[o]);
    };
    put(*this, 0);
    if (other) put(*other, padded_outputs);
    return true;
}

namespace {

// From three weights to six, for F(4x4, 3x3) at the points 0, +-sqrt(1/2), +-sqrt(2) and infinity.
// Source: Lavin and Gray, arXiv:1509.09308. Differs: their points are 0, +-1, +-2 and infinity, at which the largest
// error is four times as large.
const double ROOT = 1.41421356237309504880;
const double WINOGRAD[6][3] = {
    {1, 0, 0},
    {-2.0 / 3, -ROOT / 3, -1.0 / 3},
    {-2.0 / 3, ROOT / 3, -1.0 / 3},
    {1.0 / 6, ROOT / 6, 1.0 / 3},
    {1.0 / 6, -ROOT / 6, 1.0 / 3},
    {0, 0, 1},
};

// (3, 3) -> (6, 6)
void winograd_transform(const float* taps, double* transformed) {
    double rows[6][3];
    for (int a = 0; a < 6; ++a)
        for (int column = 0; column < 3; ++column) {
            rows[a][column] = 0;
            for (int k = 0; k < 3; ++k) rows[a][column] += WINOGRAD[a][k] * static_cast<double>(taps[k * 3 + column]);
        }
    for (int a = 0; a < 6; ++a)
        for (int b = 0; b < 6; ++b) {
            double sum = 0;
            for (int k = 0; k < 3; ++k) sum += rows[a][k] * WINOGRAD[b][k];
            transformed[a * 6 + b] = sum;
        }
}

}  // namespace

bool WinogradWeights::make(const Tensors& tensors, const char* name, int64_t num_inputs, int64_t num_outputs,
                           int64_t lanes, Failure& failure, const int64_t* order) {
    const float* weights = take_member(tensors, name, "weight", {4, {num_outputs, num_inputs, 3, 3}}, failure);
    if (!weights) return false;
    const float* biases = take_member(tensors, name, "bias", {1, {num_outputs}}, failure);
    return biases && of(weights, biases, num_inputs, num_outputs, lanes, failure, order);
}

bool WinogradWeights::of(const float* weights, const float* biases, int64_t num_inputs, int64_t num_outputs,
                         int64_t lanes, Failure& failure, const int64_t* order) {
    inputs = round_up(num_inputs, lanes), outputs = round_up(num_outputs, lanes);
    if (!weight.allocate_zeros(36 * inputs * outputs, failure) || !bias.allocate_zeros(outputs, failure)) return false;
    for (int64_t o = 0; o < num_outputs; ++o) {
        const int64_t source = order ? order[o] : o;
        if (source < 0) continue;
        bias[o] = biases[source];
        const int64_t first = o / WINOGRAD_OUTPUTS * WINOGRAD_OUTPUTS, width = least(WINOGRAD_OUTPUTS, outputs - first);
        float* to = weight.data() + 36 * inputs * first + (o - first);
        for (int64_t i = 0; i < num_inputs; ++i) {
            double transformed[36];
            winograd_transform(weights + (source * num_inputs + i) * 9, transformed);
            for (int64_t t = 0; t < 36; ++t) to[(t * inputs + i) * width] = static_cast<float>(transformed[t]);
        }
    }
    return true;
}

bool ShallowWeights::make(const Tensors& tensors, const char* name, int64_t num_inputs, int64_t num_outputs,
                          int64_t lanes, Failure& failure) {
    const float* weights = take_member(tensors, name, "weight", {4, {num_outputs, num_inputs, 3, 3}}, failure);
    if (!weights) return false;
    const float* biases = take_member(tensors, name, "bias", {1, {num_outputs}}, failure);
    if (!biases) return false;
    inputs = num_inputs, outputs = round_up(num_outputs, lanes);
    if (!weight.allocate_zeros(9 * inputs * outputs, failure) || !bias.allocate_zeros(outputs, failure)) return false;
    for (int64_t o = 0; o < num_outputs; ++o) {
        bias[o] = biases[o];
        for (int64_t i = 0; i < inputs; ++i)
            for (int64_t tap = 0; tap < 9; ++tap)
                weight[(tap * inputs + i) * outputs + o] = weights[(o * inputs + i) * 9 + tap];
    }
    return true;
}

bool depthwise_weights(const Tensors& tensors, const char* name, int64_t channels, int64_t side, int64_t lanes,
                       Buffer<float>& weight, Buffer<float>& bias, Failure& failure) {
    const float* weights = take_member(tensors, name, "weight", {4, {channels, 1, side, side}}, failure);
    if (!weights) return false;
    const float* biases = take_member(tensors, name, "bias", {1, {channels}}, failure);
    if (!biases) return false;
    const int64_t padded = round_up(channels, lanes), taps = side * side;
    if (!weight.allocate_zeros(taps * padded, failure) || !bias.allocate_zeros(padded, failure)) return false;
    for (int64_t c = 0; c < channels; ++c) {
        bias[c] = biases[c];
        for (int64_t tap = 0; tap < taps; ++tap) weight[tap * padded + c] = weights[c * taps + tap];
    }
    return true;
}

}  // namespace escsr
