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

// The threads of one run, each with memory of its own. They wait actively for some 50 us after each piece of work
// and sleep after that, so that the next piece finds them awake but another process is not in their way.
class Workers {
   public:
    Workers(int32_t num_threads, Progress& progress);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    int64_t num_threads() const { return num_threads_; }

    // At least so many floats for each thread, on a cache line.
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
    bool run_items(int64_t count, RunItem run, const void* work, Failure& failure);
    void serve(int64_t thread);
    void take_items(int64_t thread);
    static void enter(void* member);

    struct Member {
        Workers* workers;
        int64_t number;
        Thread thread;
    };
    Progress& progress_;
    int64_t num_threads_;
    bool started_ = false;
    Objects<Member> members_;         // beside the calling thread
    Objects<Buffer<float>> scratch_;  // of each thread
    // Of the piece of work that is being done.
    RunItem run_ = nullptr;
    const void* work_ = nullptr;
    int64_t count_ = 0, next_ = 0;
    int32_t epoch_ = 0, busy_ = 0, leaving_ = 0;
};

}  // namespace escsr
