#include "large_kernel.h"

#include <stdio.h>

namespace escsr {

namespace {

constexpr int64_t SIDE = 32;         // of a tile of the transform
constexpr int64_t LARGEST_SIZE = 31;  // of a kernel that a tile has room for

// Place 8k + m of a transformed row holds frequency 4m + k.
int64_t frequency_of(int64_t place) { return 4 * (place % 8) + place / 8; }

struct Waves {
    double cosine[SIDE], sine[SIDE];
    Waves() {
        const double pi = 3.14159265358979323846;
        for (int64_t k = 0; k < SIDE; ++k) {
            cosine[k] = cos(2 * pi * static_cast<double>(k) / SIDE);
            sine[k] = sin(2 * pi * static_cast<double>(k) / SIDE);
        }
    }
    // Of frequency times position, which may be negative.
    int64_t at(int64_t frequency, int64_t position) const { return ((frequency * position) % SIDE + SIDE) % SIDE; }
};

// Places sorted by class: the frequencies at which a kernel with all symmetries of the square is the same.
bool make_classes(Buffer<int32_t>& classes, Buffer<int32_t>& places, Failure& failure) {
    if (!places.allocate(SIDE * SIDE, failure) || !classes.allocate((SIDE / 2 + 1) * (SIDE / 2 + 2) / 2 + 1, failure))
        return false;
    int32_t next = 0, one = 0;
    for (int64_t far = 0; far <= SIDE / 2; ++far)
        for (int64_t near = 0; near <= far; ++near) {
            classes[one++] = next;
            for (int64_t place = 0; place < SIDE * SIDE; ++place) {
                const int64_t row = frequency_of(place / SIDE), column = frequency_of(place % SIDE);
                const int64_t down = least(row, SIDE - row), across = least(column, SIDE - column);
                if (most(down, across) == far && least(down, across) == near) places[next++] = static_cast<int32_t>(place);
            }
        }
    classes[one] = next;
    return true;
}

// The mean of a kernel (size, size) over the 8 flips and rotations of the square.
void average(const float* kernel, int64_t size, double* averaged) {
    for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
            const int64_t v = size - 1 - y, u = size - 1 - x;
            const int64_t all[8] = {y * size + x, y * size + u, v * size + x, v * size + u,
                                    x * size + y, u * size + y, x * size + v, u * size + v};
            double sum = 0;
            for (int64_t one : all) sum += static_cast<double>(kernel[one]);
            averaged[y * size + x] = sum / 8;
        }
}

// What a symmetric kernel does to each class of frequencies.
void real_spectrum(const Waves& waves, const double* kernel, int64_t size, int64_t step, float* of_class) {
    double across[LARGEST_SIZE][SIDE / 2 + 1];
    const int64_t margin = size / 2;
    for (int64_t y = 0; y < size; ++y)
        for (int64_t f = 0; f <= SIDE / 2; ++f) {
            double sum = 0;
            for (int64_t x = 0; x < size; ++x) sum += kernel[y * size + x] * waves.cosine[waves.at(f, x - margin)];
            across[y][f] = sum;
        }
    for (int64_t far = 0; far <= SIDE / 2; ++far)
        for (int64_t near = 0; near <= far; ++near, of_class += step) {
            double sum = 0;
            for (int64_t y = 0; y < size; ++y) sum += across[y][near] * waves.cosine[waves.at(far, y - margin)];
            *of_class = static_cast<float>(sum);
        }
}

// What a depthwise kernel does to each place's frequency.
void complex_spectrum(const Waves& waves, const float* kernel, int64_t size, int64_t step, float* real, float* imag) {
    double re[LARGEST_SIZE][SIDE], im[LARGEST_SIZE][SIDE];
    const int64_t margin = size / 2;
    for (int64_t y = 0; y < size; ++y)
        for (int64_t f = 0; f < SIDE; ++f) {
            re[y][f] = im[y][f] = 0;
            for (int64_t x = 0; x < size; ++x) {
                const double value = static_cast<double>(kernel[y * size + x]);
                re[y][f] += value * waves.cosine[waves.at(f, x - margin)];
                im[y][f] += value * waves.sine[waves.at(f, x - margin)];
            }
        }
    for (int64_t place = 0; place < SIDE * SIDE; ++place) {
        const int64_t row = frequency_of(place / SIDE), column = frequency_of(place % SIDE);
        double r = 0, i = 0;
        for (int64_t y = 0; y < size; ++y) {
            const int64_t at = waves.at(row, y - margin);
            r += re[y][column] * waves.cosine[at] - im[y][column] * waves.sine[at];
            i += re[y][column] * waves.sine[at] + im[y][column] * waves.cosine[at];
        }
        real[place * step] = static_cast<float>(r), imag[place * step] = static_cast<float>(i);
    }
}

bool dense_spectrum(const Waves& waves, const float* kernels, LargeKernelWeights& weights, Failure& failure) {
    const int64_t pdim = weights.pdim, channels = weights.channels, size = weights.kernel_size;
    if (!make_classes(weights.classes, weights.places, failure)) return false;
    const int64_t num_classes = weights.classes.size() - 1;
    Buffer<double> averaged;
    if (!averaged.allocate(size * size, failure)) return false;
    if (!weights.dense.allocate_zeros(num_classes * channels * channels, failure)) return false;
    for (int64_t out = 0; out < pdim; ++out)
        for (int64_t in = 0; in < pdim; ++in) {
            average(kernels + (out * pdim + in) * size * size, size, averaged.data());
            real_spectrum(waves, averaged.data(), size, channels * channels, weights.dense.data() + in * channels + out);
        }
    return true;
}

bool depthwise_spectrum(const Waves& waves, const float* kernels, LargeKernelWeights& weights, Failure& failure) {
    const int64_t pdim = weights.pdim, channels = weights.channels, size = weights.kernel_size;
    if (!weights.depthwise_real.allocate_zeros(SIDE * SIDE * channels, failure)) return false;
    if (!weights.depthwise_imag.allocate_zeros(SIDE * SIDE * channels, failure)) return false;
    for (int64_t c = 0; c < pdim; ++c)
        complex_spectrum(waves, kernels + c * size * size, size, channels, weights.depthwise_real.data() + c,
                         weights.depthwise_imag.data() + c);
    return true;
}

bool spectrum_of_taps(const Waves& waves, LargeKernelWeights& weights, Failure& failure) {
    if (!weights.taps_real.allocate(SIDE * SIDE * 9, failure)) return false;
    if (!weights.taps_imag.allocate(SIDE * SIDE * 9, failure)) return false;
    for (int64_t tap = 0; tap < 9; ++tap) {
        float kernel[9] = {};
        kernel[tap] = 1;
        complex_spectrum(waves, kernel, 3, 9, weights.taps_real.data() + tap, weights.taps_imag.data() + tap);
    }
    return true;
}

// Weights for Kernels::run_large_kernel.
bool direct_weights(const float* kernels, LargeKernelWeights& weights, Failure& failure) {
    const int64_t pdim = weights.pdim, channels = weights.channels, size = weights.kernel_size, taps = size * size;
    if (!weights.is_dense) {
        if (!weights.direct.allocate_zeros(taps * channels, failure)) return false;
        for (int64_t c = 0; c < pdim; ++c)
            for (int64_t tap = 0; tap < taps; ++tap) weights.direct[tap * channels + c] = kernels[c * taps + tap];
        return true;
    }
    Buffer<double> averaged;
    if (!averaged.allocate(taps, failure)) return false;
    if (!weights.direct.allocate_zeros(taps * channels * channels, failure)) return false;
    for (int64_t out = 0; out < pdim; ++out)
        for (int64_t in = 0; in < pdim; ++in) {
            average(kernels + (out * pdim + in) * taps, size, averaged.data());
            for (int64_t tap = 0; tap < taps; ++tap)
                weights.direct[(tap * channels + in) * channels + out] = static_cast<float>(averaged[tap]);
        }
    return true;
}

bool copy_as_double(const float* values, int64_t size, Buffer<double>& copy, Failure& failure) {
    if (!copy.allocate(size, failure)) return false;
    for (int64_t i = 0; i < size; ++i) copy[i] = static_cast<double>(values[i]);
    return true;
}

// Kernels of 1x1 in the middle of 3x3 zeros: the dynamic kernel is added around them.
bool with_room(const float* kernels, int64_t count, Buffer<float>& widened, Failure& failure) {
    if (!widened.allocate_zeros(9 * count, failure)) return false;
    for (int64_t i = 0; i < count; ++i) widened[9 * i + 4] = kernels[i];
    return true;
}

double gelu(double x) { return 0.5 * x * (1 + erf(x * 0.70710678118654752440)); }

}  // namespace

bool LargeKernelWeights::prepare(const Configuration& configuration, const Tensors& tensors, const char* name,
                                 int64_t lanes, Failure& failure) {
    kernel_size = configuration.large_kernel_size, pdim = configuration.pdim, channels = round_up(pdim, lanes);
    is_dense = configuration.large_kernel == LargeKernel::dense;
    const float* kernels = nullptr;
    if (is_dense) {
        kernels = tensors.take(failure, Shape{4, {pdim, pdim, kernel_size, kernel_size}}, "%s.weights.0", name);
    } else {
        const float* mix = tensors.take(failure, Shape{4, {pdim, pdim, 1, 1}}, "%s.weights.0", name);
        if (!mix || !mixing.allocate(pdim * pdim, failure)) return false;
        for (int64_t in = 0; in < pdim; ++in)
            for (int64_t out = 0; out < pdim; ++out) mixing[in * pdim + out] = static_cast<double>(mix[out * pdim + in]);
        kernels = tensors.take(failure, Shape{4, {pdim, 1, kernel_size, kernel_size}}, "%s.weights.1", name);
    }
    if (!kernels) return false;
    Buffer<float> widened;
    if (kernel_size == 1) {
        if (!with_room(kernels, is_dense ? pdim * pdim : pdim, widened, failure)) return false;
        kernels = widened.data(), kernel_size = 3;
    }
    if (kernel_size > LARGEST_SIZE) return direct_weights(kernels, *this, failure);
    const Waves waves;
    const bool made = is_dense ? dense_spectrum(waves, kernels, *this, failure)
                               : depthwise_spectrum(waves, kernels, *this, failure);
    return made && spectrum_of_taps(waves, *this, failure);
}

bool DynamicKernelWeights::prepare(const Configuration& configuration, const Tensors& tensors, const char* name,
                                   Failure& failure) {
    const int64_t share = configuration.large_kernel == LargeKernel::dense ? 2 : 4;
    const int64_t inputs = configuration.pdim, units = most<int64_t>(1, inputs / share);
    const float* weight = tensors.take(failure, Shape{4, {units, inputs, 1, 1}}, "%s.to_hidden.weight", name);
    if (!weight || !copy_as_double(weight, units * inputs, hidden_weight, failure)) return false;
    const float* bias = tensors.take(failure, Shape{1, {units}}, "%s.to_hidden.bias", name);
    if (!bias || !copy_as_double(bias, units, hidden_bias, failure)) return false;
    weight = tensors.take(failure, Shape{4, {9 * inputs, units, 1, 1}}, "%s.to_kernel.weight", name);
    if (!weight || !copy_as_double(weight, 9 * inputs * units, kernel_weight, failure)) return false;
    bias = tensors.take(failure, Shape{1, {9 * inputs}}, "%s.to_kernel.bias", name);
    if (!bias || !copy_as_double(bias, 9 * inputs, kernel_bias, failure)) return false;
    pdim = inputs, hidden = units;
    return true;
}

bool DynamicKernelWeights::make(const double* mean, int64_t channels, float* kernel, Failure& failure) const {
    Buffer<double> units;
    if (!units.allocate(hidden, failure)) return false;
    for (int64_t unit = 0; unit < hidden; ++unit) {
        double sum = hidden_bias[unit];
        for (int64_t c = 0; c < pdim; ++c) sum += hidden_weight[unit * pdim + c] * mean[c];
        units[unit] = gelu(sum);
    }
    memset(kernel, 0, sizeof(float) * static_cast<size_t>(9 * channels));
    for (int64_t c = 0; c < pdim; ++c)
        for (int64_t tap = 0; tap < 9; ++tap) {
            double sum = kernel_bias[c * 9 + tap];
            for (int64_t unit = 0; unit < hidden; ++unit) sum += kernel_weight[(c * 9 + tap) * hidden + unit] * units[unit];
            if (!(fabs(sum) < 1e30)) return failure.set(ESCSR_NOT_FINITE, "the network gives NaN or infinite values");
            kernel[tap * channels + c] = static_cast<float>(sum);
        }
    return true;
}

}  // namespace escsr
