// One run of a network: the body, then the head part by part.
#pragma once
#include "network.h"

namespace escsr {

bool run_whole(const escsr_network& network, const float* image, int64_t height, int64_t width, float* result,
               int64_t output_height, int64_t output_width, const escsr_options& options, Failure& failure);

bool run_rows(const escsr_network& network, int64_t height, int64_t width, int64_t output_height, int64_t output_width,
              const escsr_rows& rows, const escsr_storage* storage, int64_t limit_bytes, const escsr_options& options,
              Failure& failure);

bool plan_run(const escsr_network& network, int64_t height, int64_t width, int64_t output_height, int64_t output_width,
              const escsr_options& options, int64_t limit_bytes, bool with_storage, escsr_needs& needs, Failure& failure);

}  // namespace escsr
