// The kernels of one level of instructions; compiled once for each, with that level's flags.
#include "kernels.h"
#include "kernels/attention.h"
#include "kernels/gate.h"
#include "kernels/head_table.h"
#include "kernels/large_kernel.h"
#include "kernels/layer.h"
#include "kernels/linear.h"
#include "kernels/maps.h"
#include "kernels/multiply.h"
#include "kernels/shallow.h"
#include "kernels/spectrum.h"
#include "kernels/texture.h"
#include "kernels/vectors.h"
#include "kernels/winograd.h"

#define ESCSR_JOIN_OF(a, b) a##b
#define ESCSR_JOIN(a, b) ESCSR_JOIN_OF(a, b)

// As ESCSR_CPU and escsr_description name it.
#define ESCSR_NAME_avx512 "avx512"
#define ESCSR_NAME_avx2 "avx2"
#define ESCSR_NAME_sse42 "sse4.2"
#define ESCSR_NAME_neon "neon"
#define ESCSR_NAME_simd128 "simd128"
#define ESCSR_NAME_generic "generic"

namespace escsr {

// kernels_avx512 and so on.
extern const Kernels ESCSR_JOIN(kernels_, ESCSR_LEVEL);
const Kernels ESCSR_JOIN(kernels_, ESCSR_LEVEL) = {
    ESCSR_JOIN(ESCSR_NAME_, ESCSR_LEVEL),
    ESCSR_LANES,
    ESCSR_LEVEL::to_panels,
    ESCSR_LEVEL::layer::scratch,
    ESCSR_LEVEL::layer::run,
    ESCSR_LEVEL::linear::scratch,
    ESCSR_LEVEL::linear::run,
    ESCSR_LEVEL::attention::scratch,
    ESCSR_LEVEL::attention::run,
    ESCSR_LEVEL::gate::scratch,
    ESCSR_LEVEL::gate::run,
    ESCSR_LEVEL::spectrum::scratch,
    ESCSR_LEVEL::spectrum::run,
    ESCSR_LEVEL::spectrum::with_dynamic,
    ESCSR_LEVEL::large_kernel::run,
    ESCSR_LEVEL::winograd::scratch,
    ESCSR_LEVEL::winograd::run,
    ESCSR_LEVEL::shallow::scratch,
    ESCSR_LEVEL::shallow::run,
    &ESCSR_LEVEL::head_kernels,
    &ESCSR_LEVEL::texture::kernels,
};

}  // namespace escsr
