// The arrays of a network, by name, and what is made of them before any image comes.
#pragma once
#include "base.h"

namespace escsr {

constexpr int32_t MOST_DIMENSIONS = 6;
constexpr int64_t MOST_ARRAYS = 1 << 15;

struct Shape {
    int32_t num_dimensions;
    int64_t sides[MOST_DIMENSIONS];
};

// A name that is made as by printf.
struct Name {
    char text[256];
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    explicit Name(const char* format, ...);
    operator const char*() const { return text; }
};

// All arrays as float32.
class Tensors {
   public:
    // Copies. Types "F32", "F16", "BF16", "F64". Refuses a name that is there already, and values that are not finite.
    bool add(const char* name, const char* type, const void* data, int32_t num_dimensions, const int64_t* shape,
             Failure& failure);
    // Of exactly this shape; it counts as used. The name is made as by printf. Null after setting failure.
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    const float* take(Failure& failure, Shape shape, const char* name, ...) const;
    // Whether there is one of this name.
    bool has(const char* name) const;
    // False, naming some, where there are arrays that nothing took.
    bool require_all_used(Failure& failure) const;
    int64_t num_parameters() const;
    int64_t count() const { return count_; }

   private:
    struct Entry {
        Buffer<char> name;
        Buffer<float> values;
        Shape shape = {0, {}};
        uint32_t hash = 0;
        mutable bool is_used = false;
    };
    bool grow(Failure& failure);
    void enter(int32_t index);
    const Entry* find(const char* name) const;
    Objects<Entry> entries_;
    Buffer<int32_t> places_;  // hash table of indices of entries, -1 for none; twice as large as entries_
    int64_t count_ = 0;
};

// x (inputs) @ weight + bias, in float64 until a kernel needs it.
class Matrix {
   public:
    Buffer<double> weight;  // (inputs, outputs)
    Buffer<double> bias;    // (outputs,)
    int64_t inputs = 0, outputs = 0;

    bool make(int64_t inputs, int64_t outputs, Failure& failure);  // of zeros
    // NAME.weight (outputs, inputs, 1, 1) and NAME.bias; without a bias it is zero.
    bool of_convolution(const Tensors& tensors, const char* name, int64_t inputs, int64_t outputs, Failure& failure,
                        bool has_bias = true);
    // The LayerNorm NAME.weight and NAME.bias taken in; what is left of it only normalises.
    bool after_norm(const Tensors& tensors, const char* name, Failure& failure);
    // this, then next.
    bool then(const Matrix& next, Matrix& both, Failure& failure) const;
    bool some_outputs(int64_t first, int64_t last, Matrix& some, Failure& failure) const;
    // What some inputs contribute, with the bias or without.
    bool some_inputs(int64_t first, int64_t last, bool with_bias, Matrix& some, Failure& failure) const;
    // float32, padded by zeros to (padded_inputs, padded_outputs).
    bool ready(int64_t padded_inputs, int64_t padded_outputs, Buffer<float>& weight, Buffer<float>& bias,
               Failure& failure) const;
    // Likewise, with the outputs of another matrix of the same inputs, padded too, after this one's; null for none.
    bool ready_beside(const Matrix* other, int64_t padded_inputs, int64_t padded_outputs, int64_t padded_others,
                      Buffer<float>& weight, Buffer<float>& bias, Failure& failure) const;
};

// A 3x3 convolution NAME.weight (outputs, inputs, 3, 3), NAME.bias, for Kernels::convolve_3x3, padded to whole
// vectors. `order`: where not null, output channel o of the result is order[o] of the weights.
struct WinogradWeights {
    Buffer<float> weight;  // as ConvolutionTask has them
    Buffer<float> bias;    // (O,)
    int64_t inputs = 0, outputs = 0;  // padded
    bool make(const Tensors& tensors, const char* name, int64_t inputs, int64_t outputs, int64_t lanes,
              Failure& failure, const int64_t* order = nullptr);
    // From arrays as those are: (any number, inputs, 3, 3) and (any number). An output that is -1 in `order` is zero.
    bool of(const float* weights, const float* biases, int64_t inputs, int64_t outputs, int64_t lanes, Failure& failure,
            const int64_t* order = nullptr);
};

// For Kernels::convolve_shallow.
struct ShallowWeights {
    Buffer<float> weight;  // (9 * I, O)
    Buffer<float> bias;    // (O,)
    int64_t inputs = 0, outputs = 0;  // outputs padded
    bool make(const Tensors& tensors, const char* name, int64_t inputs, int64_t outputs, int64_t lanes,
              Failure& failure);
};

// NAME.weight (channels, 1, side, side) as (side * side, padded channels), and NAME.bias.
bool depthwise_weights(const Tensors& tensors, const char* name, int64_t channels, int64_t side, int64_t lanes,
                       Buffer<float>& weight, Buffer<float>& bias, Failure& failure);

}  // namespace escsr
