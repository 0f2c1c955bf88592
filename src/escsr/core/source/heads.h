// From the features of the body to the result. A head makes any rectangle of the result, in one thread, from what it
// needs of the features around; run.cpp cuts the result into such parts and gives them to threads.
#pragma once
#include "configuration.h"
#include "kernels.h"
#include "weights.h"

namespace escsr {

// Rows of the image as the caller gave it, planar, held for all columns: (3, held rows, width).
struct ImageRows {
    const float* data = nullptr;
    int64_t top = 0, bottom = 0;    // held
    int64_t height = 0, width = 0;  // of the whole image
    const float* row(int64_t channel, int64_t y) const {
        return data + ((channel * (bottom - top)) + (y - top)) * width;
    }
};

// Rows of the result, planar, held for all columns: (3, held rows, width).
struct ResultRows {
    float* data = nullptr;
    int64_t top = 0, bottom = 0;
    int64_t height = 0, width = 0;
    float* row(int64_t channel, int64_t y) const { return data + ((channel * (bottom - top)) + (y - top)) * width; }
};

// Places of any-size results: as escsr_axis, for whole images start = output_start = 0.
struct Axes {
    escsr_axis rows, columns;
};

struct HeadTask {
    Map features;  // (C) what the body gave, with the image's features added; holds what `reach` asks for
    ImageRows image;
    ResultRows result;
    Axes axes;
};

// One kind of upsampler with its weights. Kinds are told apart by the configuration, inside.
class Head {
   public:
    ~Head();
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);

    // Rows and columns of the features that a rectangle of the result may depend on.
    // dysample looks where its features say; this is its first guess (see `make`).
    Place needed(const HeadTask& task, Place result) const;
    // Rows of the image likewise (the skip).
    Place needed_image(const HeadTask& task, Place result) const;

    // Into how large rectangles the result is best cut, in pixels of the result: multiples of the scale, chosen for
    // the processor's cache.
    void best_part(const HeadTask& task, int64_t& height, int64_t& width) const;
    // Floats of scratch for a part of that size or smaller.
    int64_t scratch(const HeadTask& task, int64_t height, int64_t width) const;
    // Multiply-adds of a part, for the progress.
    double work(const HeadTask& task, Place result) const;

    // Make a rectangle of the result. 0, or how many more rows of features than `needed` said it takes (then nothing
    // was made).
    int64_t make(const HeadTask& task, Place result, float* scratch) const;

   private:
    struct Parts;
    Parts* parts_ = nullptr;
};

}  // namespace escsr
