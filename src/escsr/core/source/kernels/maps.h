// Maps as kernels read them.
#pragma once
#include "vectors.h"

namespace escsr {
namespace ESCSR_LEVEL {

// The floats of a thread's scratch are handed out from here; each array begins on a cache line.
class Cut {
   public:
    explicit Cut(float* scratch) : next_(scratch) {}
    float* take(int64_t floats) {
        float* taken = next_;
        next_ += round_up(floats, 16);
        return taken;
    }
    static int64_t size(int64_t floats) { return round_up(floats, 16); }

   private:
    float* next_;
};

}  // namespace ESCSR_LEVEL
}  // namespace escsr
