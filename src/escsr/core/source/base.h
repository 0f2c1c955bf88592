// What every part of the core uses: memory, errors, places in a map. No C++ library: the core links libc alone.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "escsr.h"

namespace escsr {

template <class T>
inline T least(T a, T b) { return b < a ? b : a; }
template <class T>
inline T most(T a, T b) { return a < b ? b : a; }
inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Why something failed. Functions that may fail take one and return false after setting it.
class Failure {
   public:
    escsr_status status = ESCSR_OK;
    char message[sizeof(escsr_error::message)] = "";

    // printf's formats; the first failure is kept. Always false, so that `return failure.set(...)` works.
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    bool set(escsr_status status, const char* format, ...);
    bool out_of_memory(int64_t bytes);
};

// Memory of the platform's, on a boundary of 64 bytes and, where large, in large pages; null where there is none.
void* allocate_bytes(size_t bytes);
void free_bytes(void* memory);

// An array of plain values that owns its memory. Its values are not initialised.
template <class T>
class Buffer {
   public:
    Buffer() = default;
    ~Buffer() { free_bytes(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
    Buffer& operator=(Buffer&& other) noexcept {
        T* data = data_;
        const int64_t size = size_;
        data_ = other.data_, size_ = other.size_;
        other.data_ = data, other.size_ = size;
        return *this;
    }

    // Room for `size` values; what was there is lost. At most 2^62 bytes.
    bool allocate(int64_t size, Failure& failure) {
        free_bytes(data_);
        data_ = nullptr, size_ = 0;
        if (size < 0 || static_cast<uint64_t>(size) > (uint64_t{1} << 62) / sizeof(T))
            return failure.out_of_memory(INT64_MAX);
        if (size == 0) return true;
        data_ = static_cast<T*>(allocate_bytes(static_cast<size_t>(size) * sizeof(T)));
        if (!data_) return failure.out_of_memory(size * static_cast<int64_t>(sizeof(T)));
        size_ = size;
        return true;
    }
    bool allocate_zeros(int64_t size, Failure& failure) {
        if (!allocate(size, failure)) return false;
        if (size > 0) memset(static_cast<void*>(data_), 0, static_cast<size_t>(size) * sizeof(T));
        return true;
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    int64_t size() const { return size_; }
    T& operator[](int64_t index) { return data_[index]; }
    const T& operator[](int64_t index) const { return data_[index]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }

   private:
    T* data_ = nullptr;
    int64_t size_ = 0;
};

// An array of objects with constructors and destructors.
template <class T>
class Objects {
   public:
    ~Objects() { clear(); }
    Objects() = default;
    Objects(const Objects&) = delete;
    Objects& operator=(const Objects&) = delete;
    bool make(int64_t size, Failure& failure);
    void clear() {
        for (int64_t i = 0; i < size_; ++i) items_[i].~T();
        free_bytes(items_);
        items_ = nullptr, size_ = 0;
    }
    void swap(Objects& other) {
        T* items = items_;
        const int64_t size = size_;
        items_ = other.items_, size_ = other.size_;
        other.items_ = items, other.size_ = size;
    }
    int64_t size() const { return size_; }
    T& operator[](int64_t index) { return items_[index]; }
    const T& operator[](int64_t index) const { return items_[index]; }

   private:
    T* items_ = nullptr;
    int64_t size_ = 0;
};

// A rectangle of a map: rows [top, bottom), columns [left, right).
struct Place {
    int64_t top, bottom, left, right;
    int64_t height() const { return bottom - top; }
    int64_t width() const { return right - left; }
    int64_t num_pixels() const { return height() * width(); }
    // So many pixels more on each side, as far as a map of height x width goes.
    Place grown(int64_t pixels, int64_t height, int64_t width) const {
        return {most<int64_t>(top - pixels, 0), least(bottom + pixels, height), most<int64_t>(left - pixels, 0),
                least(right + pixels, width)};
    }
};

// The part of a map that is in memory: pixels of `held`, row by row, `channels` float32 each. Channels of features are
// padded with zeros to whole vectors of the level in use; kernels see zeros beyond the whole map, height x width.
struct Map {
    float* data = nullptr;  // of pixel (held.top, held.left); null for no map
    Place held = {0, 0, 0, 0};
    int64_t height = 0, width = 0;
    int64_t channels = 0;

    float* at(int64_t y, int64_t x) const {
        return data + ((y - held.top) * (held.right - held.left) + (x - held.left)) * channels;
    }
    bool holds(int64_t y, int64_t x) const {
        return y >= held.top && y < held.bottom && x >= held.left && x < held.right;
    }
    int64_t row_step() const { return held.width() * channels; }  // floats from one row to the next
    bool is_none() const { return !data; }
};

// A whole map, all of it held.
inline Map whole_map(float* data, int64_t height, int64_t width, int64_t channels) {
    Map map;
    map.data = data, map.held = {0, height, 0, width}, map.height = height, map.width = width, map.channels = channels;
    return map;
}

// Where position lies on an axis of `length` that goes on beyond its end, and before its beginning, by reflection
// without repeating the border pixel; a length of 1 is repeated.
inline int64_t reflected(int64_t position, int64_t length) {
    if (length == 1) return 0;
    const int64_t period = 2 * (length - 1);
    int64_t folded = position % period;
    if (folded < 0) folded += period;
    return folded < length ? folded : period - folded;
}

}  // namespace escsr

// Construction in memory that is there already; the core uses no other new.
struct EscsrPlacement {
    void* memory;
};
inline void* operator new(size_t, EscsrPlacement place) noexcept { return place.memory; }
inline void operator delete(void*, EscsrPlacement) noexcept {}

namespace escsr {
template <class T>
bool Objects<T>::make(int64_t size, Failure& failure) {
    clear();
    if (size < 0 || size > INT32_MAX) return failure.out_of_memory(INT64_MAX);
    if (size == 0) return true;
    items_ = static_cast<T*>(allocate_bytes(static_cast<size_t>(size) * sizeof(T)));
    if (!items_) return failure.out_of_memory(size * static_cast<int64_t>(sizeof(T)));
    for (; size_ < size; ++size_) new (EscsrPlacement{items_ + size_}) T();
    return true;
}
}  // namespace escsr
