// SHA-256 (FIPS 180-4).
#pragma once
#include "base.h"

namespace escsr {

class Sha256 {
   public:
    void add(const void* bytes, size_t num_bytes);
    // As 64 hexadecimal digits and a zero. Nothing can be added after that.
    void finish(char digits[65]);

   private:
    void add_block(const unsigned char* block);
    uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char block_[64] = {};
    uint64_t num_bytes_ = 0;
};

}  // namespace escsr
