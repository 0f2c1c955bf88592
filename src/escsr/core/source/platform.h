// What the core asks of the operating system; platform.cpp alone knows which one it is.
#pragma once
#include "base.h"

namespace escsr {

// Memory on a boundary of 64 bytes and, where large, in large pages; null where there is none.
void* allocate_aligned(size_t bytes);
void free_aligned(void* memory);

// Processors that this process may use; at least 1.
int32_t usable_processors();

// Seconds from some moment on, monotonic.
double seconds();

// A thread; `start` returns false where the platform starts none (any more), and the caller does the work itself.
class Thread {
   public:
    bool start(void (*run)(void*), void* data);
    void join();

   private:
    void (*run_)(void*) = nullptr;
    void* data_ = nullptr;
    alignas(8) unsigned char handle_[64] = {};
    friend struct ThreadEntry;
};

// A number that threads wait on: `wait_while` sleeps while it equals `value` (it may wake without a reason),
// `wake_all` is called after it was changed.
void wait_while(const int32_t* number, int32_t value);
void wake_all(const int32_t* number);

// Tell the processor that this thread is waiting in a loop.
void pause_briefly();

// Whether this processor has all instructions of a level, and the system keeps its registers.
bool has_avx512();  // x86-64-v4
bool has_avx2();    // x86-64-v3
bool has_sse42();   // x86-64-v2

// The environment variable; null where it is not set.
const char* environment(const char* name);

}  // namespace escsr
