// One run of a network: the body, then the head part by part.
#pragma once
#include "network.h"

namespace escsr {

bool run_whole(const escsr_network& network, const float* image, int64_t height, int64_t width, float* result,
               int64_t output_height, int64_t output_width, const escsr_options& options, Failure& failure);

// A job; null after setting failure. end_job frees it.
escsr_job* begin_job(const escsr_network& network, int64_t height, int64_t width, int64_t output_height,
                     int64_t output_width, const escsr_rows& rows, const escsr_storage* storage, int64_t limit_bytes,
                     const escsr_options& options, Failure& failure);
bool make_rows(escsr_job& job, int64_t top, int64_t bottom, float* rows, Failure& failure);
void end_job(escsr_job* job);
// The height of the result.
int64_t output_height_of(const escsr_job& job);

bool plan_run(const escsr_network& network, int64_t height, int64_t width, int64_t output_height, int64_t output_width,
              const escsr_options& options, int64_t limit_bytes, bool with_storage, escsr_needs& needs, Failure& failure);

}  // namespace escsr
