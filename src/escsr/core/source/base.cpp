// Failures and memory.
#include "base.h"

#include <stdarg.h>
#include <stdio.h>

#include "platform.h"

namespace escsr {

bool Failure::set(escsr_status new_status, const char* format, ...) {
    if (status != ESCSR_OK) return false;
    status = new_status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return false;
}

bool Failure::out_of_memory(int64_t bytes) {
    if (bytes == INT64_MAX) return set(ESCSR_OUT_OF_MEMORY, "More memory is needed than any machine has.");
    return set(ESCSR_OUT_OF_MEMORY, "There is no memory for %.1f MB more.", static_cast<double>(bytes) / 1e6);
}

void* allocate_bytes(size_t bytes) { return allocate_aligned(bytes > 0 ? bytes : 1); }

void free_bytes(void* memory) {
    if (memory) free_aligned(memory);
}

}  // namespace escsr
