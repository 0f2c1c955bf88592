// The body of a network: from the image to the features that the head takes.
#pragma once
#include "configuration.h"
#include "kernels.h"
#include "threads.h"
#include "weights.h"
#include "window_attention.h"

namespace escsr {

class Body {
   public:
    ~Body();
    bool prepare(const Configuration& configuration, const Tensors& tensors, const Kernels& kernels, Failure& failure);

   private:
    struct Parts;
    Parts* parts_ = nullptr;
};

}  // namespace escsr
