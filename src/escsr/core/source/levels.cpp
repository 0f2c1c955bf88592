// Which level of instructions the kernels use. -DESCSR_HAS_avx512 and so on say for which ones level.cpp is compiled.
#include <stdio.h>

#include "kernels.h"
#include "platform.h"

namespace escsr {

extern const Kernels kernels_avx512, kernels_avx2, kernels_sse42, kernels_neon, kernels_simd128, kernels_generic;

#if !defined(ESCSR_HAS_avx512) && !defined(ESCSR_HAS_avx2) && !defined(ESCSR_HAS_sse42) && \
    !defined(ESCSR_HAS_neon) && !defined(ESCSR_HAS_simd128) && !defined(ESCSR_HAS_generic)
#error "define ESCSR_HAS_avx512, _avx2, _sse42, _neon, _simd128 or _generic for each level that level.cpp is compiled for"
#endif

namespace {

struct Level {
    const char* name;
    const Kernels* kernels;
    bool (*supports)();  // null: every processor does
    bool is_supported() const { return !supports || supports(); }
};

// The best first.
const Level LEVELS[] = {
#if defined(ESCSR_HAS_avx512)
    {"avx512", &kernels_avx512, has_avx512},
#endif
#if defined(ESCSR_HAS_avx2)
    {"avx2", &kernels_avx2, has_avx2},
#endif
#if defined(ESCSR_HAS_sse42)
    {"sse4.2", &kernels_sse42, has_sse42},
#endif
#if defined(ESCSR_HAS_neon)
    {"neon", &kernels_neon, nullptr},
#endif
#if defined(ESCSR_HAS_simd128)
    {"simd128", &kernels_simd128, nullptr},
#endif
#if defined(ESCSR_HAS_generic)
    {"generic", &kernels_generic, nullptr},
#endif
};

// "avx2, sse4.2": what this processor supports of what the library has.
void list_supported(char* text, size_t size) {
    size_t length = 0;
    text[0] = 0;
    for (const Level& level : LEVELS) {
        if (!level.is_supported() || length >= size) continue;
        const int added = snprintf(text + length, size - length, "%s%s", length > 0 ? ", " : "", level.name);
        if (added > 0) length += static_cast<size_t>(added);
    }
}

}  // namespace

const Kernels* choose_kernels(Failure& failure) {
    const char* wanted = environment("ESCSR_CPU");
    if (wanted && !*wanted) wanted = nullptr;
    bool is_known = false;
    for (const Level& level : LEVELS) {
        if (wanted && strcmp(wanted, level.name) != 0) continue;
        is_known = true;
        if (level.is_supported()) return level.kernels;
    }
    char supported[100];
    list_supported(supported, sizeof supported);
    if (!wanted)
        failure.set(ESCSR_UNSUPPORTED, "This processor is too old: SSE4.2 (x86-64-v2) is the least that is needed.");
    else if (is_known)
        failure.set(ESCSR_UNSUPPORTED, "ESCSR_CPU is \"%.40s\", which this processor does not support; it supports %s.",
                    wanted, *supported ? supported : "none of the library's levels");
    else
        failure.set(ESCSR_UNSUPPORTED, "ESCSR_CPU is \"%.40s\", which this library does not have; possible here: %s.",
                    wanted, *supported ? supported : "none");
    return nullptr;
}

}  // namespace escsr
