// What the kernels share with the program that loads them: its threads, its memory, its vectors.
#include "lanes.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

StartTeam start_team = nullptr;

extern "C" void escsr_use_team(StartTeam team) { start_team = team; }

// Ask for pages of 2 MB before memory is touched: 88 MB of maps are 22000 pages of 4 KB otherwise.
extern "C" void escsr_prefer_large_pages(char* memory, int64_t bytes) {
#if defined(__linux__)
    constexpr int64_t PAGE = 4096;
    char* first = memory + (PAGE - reinterpret_cast<intptr_t>(memory) % PAGE) % PAGE;
    const int64_t length = (memory + bytes - first) / PAGE * PAGE;
    if (length > 0) madvise(first, length, MADV_HUGEPAGE);
#endif
}

extern "C" int escsr_lanes() { return LANES; }
