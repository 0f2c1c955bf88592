// Work in several threads, for as long as one run takes.
#pragma once
#include "base.h"
#include "platform.h"

namespace escsr {

// Tells the caller how far the work is, and hears whether to stop. Used by one run.
class Progress {
   public:
    Progress(escsr_progress callback, void* user) : callback_(callback), user_(user) {}
    void set_total(double work) { total_ = work; }
    // What work_in_threads is about to do, in the unit of the total.
    void begin(double work) { begun_ += current_, current_ = work; }
    // Call back if it is time for it; `share` of what was begun is done. False: stop.
    bool tell(double share);
    bool is_stopped() const { return __atomic_load_n(&stopped_, __ATOMIC_RELAXED) != 0; }

   private:
    escsr_progress callback_;
    void* user_;
    double total_ = 1, begun_ = 0, current_ = 0, last_ = -1e9;
    int32_t stopped_ = 0;
};

// The threads of one run, each with memory of its own. They are started when a piece of work first needs them, wait
// actively for some 50 us after each piece and sleep after that, so that the next piece finds them awake but another
// process is not in their way. A piece is done when its items are, whether all threads came to it or not: one that the
// system does not run just then keeps nobody waiting.
class Workers {
   public:
    // 0: one for each processor that this process may use.
    Workers(int32_t num_threads, Progress& progress);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    int64_t num_threads() const { return num_threads_; }

    // At least so many floats for each thread, on a cache line; what was there is lost.
    bool reserve(int64_t floats, Failure& failure);

    // Run work(item, scratch) for items 0 to count - 1, in any order; each thread takes the next one when it is done
    // with one. The work fails never. False when the caller's progress callback asked to stop: then not all is done.
    template <class Work>
    bool run(int64_t count, const Work& work, Failure& failure) {
        return run_items(
            count, [](const void* data, int64_t item, float* scratch) { (*static_cast<const Work*>(data))(item, scratch); },
            &work, failure);
    }

    Progress& progress() { return progress_; }

   private:
    typedef void (*RunItem)(const void* work, int64_t item, float* scratch);
    struct Member {
        Workers* workers;
        int64_t number;
        Thread thread;
    };
    bool run_items(int64_t count, RunItem run, const void* work, Failure& failure);
    bool make(Failure& failure);
    void start(int64_t members);
    void open(int64_t count, RunItem run, const void* work);
    void close();
    void take_items(int64_t thread);
    bool next_item(int64_t& item);
    static void enter(void* member);
    void serve(int64_t thread);
    bool join_piece();
    void leave_piece();
    int32_t wait_for_other(int32_t epoch);

    Progress& progress_;
    int64_t num_threads_;
    int64_t num_started_ = 0;         // members that run
    bool starts_more_ = true;         // false after the system refused
    Objects<Member> members_;         // beside the calling thread, which is number 0
    Objects<Buffer<float>> scratch_;  // of each thread
    // Of the piece of work that is being done; written while no member is inside.
    RunItem run_ = nullptr;
    const void* work_ = nullptr;
    int64_t count_ = 0;
    alignas(64) int64_t next_ = 0;   // item to take
    alignas(64) int32_t epoch_ = 0;  // grows with each piece; members wait on it
    int32_t sleeping_ = 0;           // members that do so asleep
    int32_t leaving_ = 0;            // 1: members are to end
    alignas(64) int32_t inside_;     // members at work, and flags: see threads.cpp
};

}  // namespace escsr
