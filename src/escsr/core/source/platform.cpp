// The one file that knows the operating system and the processor: Linux, macOS and other POSIX systems, Windows, and
// WebAssembly (emscripten, WASI).
#include "platform.h"

#include <stdlib.h>

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <malloc.h>
#include <windows.h>
#else
#include <time.h>
#include <unistd.h>
#endif

#if defined(_WIN32)
#define ESCSR_THREADS_WINDOWS
#elif !defined(__wasi__) && (!defined(__EMSCRIPTEN__) || defined(__EMSCRIPTEN_PTHREADS__))
#define ESCSR_THREADS_POSIX
#include <pthread.h>
#include <signal.h>
#endif

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace escsr {

// ---------------------------------------------------------------------------------------------------------- memory

static constexpr size_t CACHE_LINE = 64;

#if defined(_WIN32)

void* allocate_aligned(size_t bytes) { return _aligned_malloc(bytes, CACHE_LINE); }
void free_aligned(void* memory) { _aligned_free(memory); }

#else

// Pages of 2 MB before memory is touched: 88 MB of maps are 22000 pages of 4 KB otherwise.
static constexpr size_t LARGE_PAGE = size_t{1} << 21;

void* allocate_aligned(size_t bytes) {
    const bool is_large = bytes >= 2 * LARGE_PAGE;
    void* memory = nullptr;
    if (posix_memalign(&memory, is_large ? LARGE_PAGE : CACHE_LINE, bytes) != 0) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Of whole large pages alone: what follows the last one belongs to somebody else, or to nobody yet. It is a wish,
    // and systems without large pages refuse it.
    if (is_large) madvise(memory, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
}

void free_aligned(void* memory) { free(memory); }

#endif

// ------------------------------------------------------------------------------------------------------ processors

#if defined(__linux__)

// A file of some numbers and words, as the kernel shows it; an empty text where there is none.
static void read_text(const char* path, char* text, size_t size) {
    FILE* file = fopen(path, "re");
    const size_t length = file ? fread(text, 1, size - 1, file) : 0;
    if (file) fclose(file);
    text[length] = 0;
}

// Processors that the two numbers of a quota come to, rounded up; 0 for no limit.
static int64_t processors_of(const char* quota_text, const char* period_text) {
    const long long quota = atoll(quota_text), period = atoll(period_text);  // "max" and -1 are no limits
    return quota > 0 && period > 0 ? (quota + period - 1) / period : 0;
}

static void read_member(const char* folder, const char* name, char* text, size_t size) {
    char path[700];
    text[0] = 0;
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length > 0 && length < static_cast<int>(sizeof path)) read_text(path, text, size);
}

// What one control group allows, of version 1 or 2; 0 for no limit, and where there is no such group.
static int64_t quota_of_group(const char* folder, bool is_version_2) {
    char quota[64], period[64];
    if (is_version_2) {
        read_member(folder, "cpu.max", quota, sizeof quota);  // "150000 100000" or "max 100000"
        const char* blank = strchr(quota, ' ');
        return blank ? processors_of(quota, blank + 1) : 0;
    }
    read_member(folder, "cpu.cfs_quota_us", quota, sizeof quota);
    read_member(folder, "cpu.cfs_period_us", period, sizeof period);
    return processors_of(quota, period);
}

// The least of what a group and those above it allow. A container may see its own group as the root, while it is told
// the name that the host has for it: groups that cannot be found are passed over.
static int64_t quota_of_groups(const char* mount, const char* path, bool is_version_2, int64_t processors) {
    char folder[600];
    const size_t root = strlen(mount);
    const int length = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (length < 0 || length >= static_cast<int>(sizeof folder)) return processors;
    for (;;) {
        const int64_t quota = quota_of_group(folder, is_version_2);
        if (quota > 0) processors = least(processors, quota);
        char* slash = strrchr(folder, '/');
        if (!slash || slash < folder + root) return processors;
        *slash = 0;
    }
}

// Whether `controllers`, as in "cpu,cpuacct", has the processor's.
static bool is_of_processor(const char* controllers) {
    for (const char* word = controllers; word; word = strchr(word, ',')) {
        if (*word == ',') ++word;
        if (strncmp(word, "cpu", 3) == 0 && (word[3] == 0 || word[3] == ',')) return true;
    }
    return false;
}

// What the control groups leave of so many processors.
static int64_t within_quota(int64_t processors) {
    char groups[4096];
    read_text("/proc/self/cgroup", groups, sizeof groups);
    for (char *line = groups, *next = nullptr; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        char* controllers = strchr(line, ':');
        char* path = controllers ? strchr(++controllers, ':') : nullptr;
        if (!path) continue;
        *path++ = 0;
        if (*controllers == 0)
            processors = quota_of_groups("/sys/fs/cgroup", path, true, processors);
        else if (is_of_processor(controllers))
            processors = quota_of_groups("/sys/fs/cgroup/cpu", path, false, processors);
    }
    return processors;
}

int32_t usable_processors() {
    cpu_set_t allowed;  // fails where there are more than 1024
    int64_t processors = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed)
                                                                             : sysconf(_SC_NPROCESSORS_ONLN);
    return static_cast<int32_t>(most<int64_t>(within_quota(most<int64_t>(processors, 1)), 1));
}

#elif defined(_WIN32)

int32_t usable_processors() {
    DWORD_PTR allowed = 0, present = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &allowed, &present)) return 1;
    int32_t processors = 0;
    for (; allowed; allowed &= allowed - 1) ++processors;
    return most(processors, 1);
}

#elif defined(__wasi__)

int32_t usable_processors() { return 1; }

#else

int32_t usable_processors() {
    return static_cast<int32_t>(most<int64_t>(sysconf(_SC_NPROCESSORS_ONLN), 1));
}

#endif

// ------------------------------------------------------------------------------------------------------------ time

#if defined(_WIN32)

double seconds() {
    LARGE_INTEGER count, per_second;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&per_second);
    return static_cast<double>(count.QuadPart) / static_cast<double>(per_second.QuadPart);
}

#else

double seconds() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

#endif

// --------------------------------------------------------------------------------------------------------- threads

#if defined(ESCSR_THREADS_WINDOWS) || defined(ESCSR_THREADS_POSIX)

// Kernels keep large arrays in the memory of their thread, not on its stack; musl's default of 128 KB is too little
// under sanitizers, and ulimit's may be more than there is.
static constexpr size_t STACK_BYTES = size_t{1} << 21;

#endif

#if defined(ESCSR_THREADS_WINDOWS)

struct ThreadEntry {
    static DWORD WINAPI enter(void* data) {
        Thread& thread = *static_cast<Thread*>(data);
        thread.run_(thread.data_);
        return 0;
    }
};

bool Thread::start(void (*run)(void*), void* data) {
    run_ = run, data_ = data;
    const HANDLE handle =
        CreateThread(nullptr, STACK_BYTES, ThreadEntry::enter, this, STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
    if (!handle) return false;
    static_assert(sizeof handle <= sizeof handle_, "room for a handle");
    memcpy(handle_, &handle, sizeof handle);
    return true;
}

void Thread::join() {
    HANDLE handle;
    memcpy(&handle, handle_, sizeof handle);
    WaitForSingleObject(handle, INFINITE);
    CloseHandle(handle);
}

#elif defined(ESCSR_THREADS_POSIX)

struct ThreadEntry {
    static void* enter(void* data) {
        Thread& thread = *static_cast<Thread*>(data);
        thread.run_(thread.data_);
        return nullptr;
    }
};

// Signals are for the program's own threads: the new one starts with those blocked that do not tell of a fault of its
// own.
static void block_signals(sigset_t* before) {
    sigset_t blocked;
    sigfillset(&blocked);
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (int fault : faults) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

bool Thread::start(void (*run)(void*), void* data) {
    run_ = run, data_ = data;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t before;
    block_signals(&before);
    pthread_t handle;
    const bool is_started = pthread_create(&handle, &attributes, ThreadEntry::enter, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    static_assert(sizeof handle <= sizeof handle_, "room for a handle");
    if (is_started) memcpy(handle_, &handle, sizeof handle);
    return is_started;
}

void Thread::join() {
    pthread_t handle;
    memcpy(&handle, handle_, sizeof handle);
    pthread_join(handle, nullptr);
}

#else

bool Thread::start(void (*)(void*), void*) { return false; }
void Thread::join() {}

#endif

// --------------------------------------------------------------------------------------------------------- waiting

#if defined(__linux__) && defined(SYS_futex)

void wait_while(const int32_t* number, int32_t value) {
    if (__atomic_load_n(number, __ATOMIC_ACQUIRE) != value) return;
    syscall(SYS_futex, number, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_all(const int32_t* number) {
    syscall(SYS_futex, number, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

#elif defined(ESCSR_THREADS_WINDOWS)

// One for all numbers: WaitOnAddress would need a library more, and whoever wakes without a reason looks again.
static SRWLOCK waiting_lock = SRWLOCK_INIT;
static CONDITION_VARIABLE waiting = CONDITION_VARIABLE_INIT;

void wait_while(const int32_t* number, int32_t value) {
    AcquireSRWLockExclusive(&waiting_lock);
    while (__atomic_load_n(number, __ATOMIC_ACQUIRE) == value)
        SleepConditionVariableSRW(&waiting, &waiting_lock, INFINITE, 0);
    ReleaseSRWLockExclusive(&waiting_lock);
}

void wake_all(const int32_t*) {
    // A thread that looked before the change has begun to wait once the lock is to be had.
    AcquireSRWLockExclusive(&waiting_lock);
    ReleaseSRWLockExclusive(&waiting_lock);
    WakeAllConditionVariable(&waiting);
}

#elif defined(ESCSR_THREADS_POSIX)

// One for all numbers: whoever wakes without a reason looks again.
static pthread_mutex_t waiting_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t waiting = PTHREAD_COND_INITIALIZER;

void wait_while(const int32_t* number, int32_t value) {
    pthread_mutex_lock(&waiting_lock);
    while (__atomic_load_n(number, __ATOMIC_ACQUIRE) == value) pthread_cond_wait(&waiting, &waiting_lock);
    pthread_mutex_unlock(&waiting_lock);
}

void wake_all(const int32_t*) {
    // A thread that looked before the change has begun to wait once the lock is to be had.
    pthread_mutex_lock(&waiting_lock);
    pthread_mutex_unlock(&waiting_lock);
    pthread_cond_broadcast(&waiting);
}

#else

void wait_while(const int32_t*, int32_t) {}
void wake_all(const int32_t*) {}

#endif

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");  // "yield" does nothing on most processors
#endif
}

// ------------------------------------------------------------------------------------------------- the processor

#if defined(__x86_64__) || defined(__i386__)

namespace {

// The bits of CPUID that the levels of x86-64 are made of. Not __builtin_cpu_supports: it needs the compiler's own
// library, and not every compiler has it there.
struct Processor {
    unsigned int basic_c = 0, basic_d = 0;  // leaf 1
    unsigned int more_b = 0;                // leaf 7
    unsigned int extended_c = 0;            // leaf 0x80000001
    unsigned int kept = 0;                  // registers that the system keeps: XCR0

    Processor() {
        unsigned int a = 0, b = 0, d = 0;
        __get_cpuid(1, &a, &b, &basic_c, &basic_d);
        unsigned int more_c = 0;
        if (!__get_cpuid_count(7, 0, &a, &more_b, &more_c, &d)) more_b = 0;
        if (!__get_cpuid(0x80000001u, &a, &b, &extended_c, &d)) extended_c = 0;
        if (basic_c & bit_OSXSAVE) {
            unsigned int low, high;
            __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            kept = low;
        }
    }
};

bool has_all(unsigned int bits, unsigned int wanted) { return (bits & wanted) == wanted; }

}  // namespace

bool has_sse42() {
    const Processor processor;
    return has_all(processor.basic_c, bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B);
}

bool has_avx2() {
    const Processor processor;
    const unsigned int LZCNT = 1u << 5;
    return has_sse42() && has_all(processor.kept, 0x6) &&
           has_all(processor.basic_c, bit_AVX | bit_FMA | bit_F16C | bit_MOVBE) &&
           has_all(processor.more_b, bit_AVX2 | bit_BMI | bit_BMI2) && has_all(processor.extended_c, LZCNT);
}

bool has_avx512() {
    const Processor processor;
#if defined(__APPLE__)
    const unsigned int kept = 0x6;  // the system keeps the larger registers from their first use on
#else
    const unsigned int kept = 0xe6;
#endif
    return has_avx2() && has_all(processor.kept, kept) &&
           has_all(processor.more_b, bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
}

#else

bool has_avx512() { return false; }
bool has_avx2() { return false; }
bool has_sse42() { return false; }

#endif

const char* environment(const char* name) { return getenv(name); }

}  // namespace escsr
