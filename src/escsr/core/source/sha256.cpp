#include "sha256.h"

namespace escsr {

namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
const uint32_t CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline uint32_t rotated(uint32_t value, int bits) { return value >> bits | value << (32 - bits); }

inline uint32_t big_endian(const unsigned char* bytes) {
    return static_cast<uint32_t>(bytes[0]) << 24 | static_cast<uint32_t>(bytes[1]) << 16 |
           static_cast<uint32_t>(bytes[2]) << 8 | bytes[3];
}

// One round; what is h becomes the a of the next one.
inline void add_word(uint32_t a, uint32_t b, uint32_t c, uint32_t& d, uint32_t e, uint32_t f, uint32_t g, uint32_t& h,
                     uint32_t word) {
    h += (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) + word;
    d += h;
    h += (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
}

}  // namespace

void Sha256::add(const void* bytes, size_t num_bytes) {
    const unsigned char* from = static_cast<const unsigned char*>(bytes);
    while (num_bytes > 0) {
        const size_t filled = num_bytes_ % 64;
        if (filled == 0 && num_bytes >= 64) {
            add_block(from);
            from += 64, num_bytes -= 64, num_bytes_ += 64;
            continue;
        }
        const size_t taken = least(num_bytes, 64 - filled);
        memcpy(block_ + filled, from, taken);
        from += taken, num_bytes -= taken, num_bytes_ += taken;
        if (filled + taken == 64) add_block(block_);
    }
}

void Sha256::finish(char digits[65]) {
    const uint64_t num_bits = 8 * num_bytes_;
    const unsigned char one = 0x80, zero = 0;
    add(&one, 1);
    while (num_bytes_ % 64 != 56) add(&zero, 1);
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(num_bits >> (56 - 8 * i));
    add(length, 8);
    for (int i = 0; i < 64; ++i) digits[i] = "0123456789abcdef"[state_[i / 8] >> (28 - 4 * (i % 8)) & 15];
    digits[64] = 0;
}

void Sha256::add_block(const unsigned char* block) {
    uint32_t words[64];
    for (int i = 0; i < 16; ++i) words[i] = big_endian(block + 4 * i);
    for (int i = 16; i < 64; ++i) {
        const uint32_t second = words[i - 2], fifteenth = words[i - 15];  // before this one
        words[i] = words[i - 16] + words[i - 7] + (rotated(fifteenth, 7) ^ rotated(fifteenth, 18) ^ fifteenth >> 3) +
                   (rotated(second, 17) ^ rotated(second, 19) ^ second >> 10);
    }
    uint32_t a = state_[0], b = state_[1], c = state_[2], d = state_[3];
    uint32_t e = state_[4], f = state_[5], g = state_[6], h = state_[7];
    for (int i = 0; i < 64; i += 8) {
        const uint32_t* word = words + i;
        const uint32_t* constant = CONSTANTS + i;
        add_word(a, b, c, d, e, f, g, h, word[0] + constant[0]);
        add_word(h, a, b, c, d, e, f, g, word[1] + constant[1]);
        add_word(g, h, a, b, c, d, e, f, word[2] + constant[2]);
        add_word(f, g, h, a, b, c, d, e, word[3] + constant[3]);
        add_word(e, f, g, h, a, b, c, d, word[4] + constant[4]);
        add_word(d, e, f, g, h, a, b, c, word[5] + constant[5]);
        add_word(c, d, e, f, g, h, a, b, word[6] + constant[6]);
        add_word(b, c, d, e, f, g, h, a, word[7] + constant[7]);
    }
    state_[0] += a, state_[1] += b, state_[2] += c, state_[3] += d;
    state_[4] += e, state_[5] += f, state_[6] += g, state_[7] += h;
}

}  // namespace escsr
