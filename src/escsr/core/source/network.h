// A network that is open: what escsr_network is.
#pragma once
#include "body.h"
#include "heads.h"

struct escsr_network {
    escsr::Configuration configuration;
    escsr::Buffer<char> json;
    const escsr::Kernels* kernels = nullptr;
    escsr::Body body;
    escsr::Head head;
    int64_t num_parameters = 0;
};
