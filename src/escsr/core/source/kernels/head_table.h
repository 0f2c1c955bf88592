// The kernels of heads, of one level.
#pragma once
#include "dysample.h"
#include "enlarged.h"
#include "feature_skip.h"
#include "local_attention.h"
#include "pixels.h"
#include "planes.h"

namespace escsr {
namespace ESCSR_LEVEL {

static const HeadKernels head_kernels = {
    enlarged::scratch,
    enlarged::run,
    planes::convolve_to_planes,
    planes::shuffle_scratch,
    planes::shuffle_to_planes,
    pixels::shuffle_to_map,
    pixels::pixel_attention_scratch,
    pixels::attend_to_pixels,
    planes::convolve_planes,
    dysample::scratch,
    dysample::find_places,
    dysample::has_places_in,
    dysample::sample_places,
    local_attention::scratch,
    local_attention::run,
    feature_skip::scratch,
    feature_skip::add,
};

}  // namespace ESCSR_LEVEL
}  // namespace escsr
