// The bytes of a weights file of escsr's: safetensors, with the configuration in its header.
#pragma once
#include "configuration.h"
#include "weights.h"

namespace escsr {

// Read a file as escsr.weights.store writes it: 8 bytes that give the header's length, the header in JSON, the values
// of the arrays. Every offset, shape and length is checked before it is used, and the checksum of all arrays.
// json: the configuration's text, terminated by a zero.
bool read_container(const void* bytes, size_t num_bytes, Tensors& tensors, Buffer<char>& json, Failure& failure);

}  // namespace escsr
