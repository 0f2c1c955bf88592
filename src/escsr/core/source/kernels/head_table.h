// The kernels of heads, of one level.
#pragma once
#include "feature_skip.h"
#include "pixels.h"
#include "planes.h"

namespace escsr {
namespace ESCSR_LEVEL {

static const HeadKernels head_kernels = {
    planes::convolve_to_planes,
    planes::shuffle_scratch,
    planes::shuffle_to_planes,
    pixels::shuffle_to_map,
    pixels::pixel_attention_scratch,
    pixels::attend_to_pixels,
    planes::convolve_planes,
    feature_skip::scratch,
    feature_skip::add,
};

}  // namespace ESCSR_LEVEL
}  // namespace escsr
