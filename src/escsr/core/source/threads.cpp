// Work in several threads, for as long as one run takes.
#include "threads.h"

namespace escsr {

static constexpr double SECONDS_BETWEEN_CALLS = 0.05;

// How long a thread waits actively. Waking one that sleeps takes about as long; more would take processors from others.
static constexpr double SECONDS_AWAKE = 50e-6;

// inside_ counts the members that are at work on the open piece. While CLOSED is in it none may come in; AWAITED: the
// calling thread sleeps until the last one has gone out.
static constexpr int32_t CLOSED = 1 << 30, AWAITED = 1 << 29;

bool Progress::tell(double share) {
    if (is_stopped()) return false;
    if (!callback_) return true;
    const double now = seconds();
    if (now - last_ < SECONDS_BETWEEN_CALLS) return true;
    const double done = total_ > 0 ? (begun_ + share * current_) / total_ : 0;
    const bool goes_on = callback_(user_, least(most(done, 0.0), 1.0)) == 0;
    last_ = seconds();
    if (!goes_on) __atomic_store_n(&stopped_, 1, __ATOMIC_RELAXED);
    return goes_on;
}

// Wait actively until the condition holds, or for as long as that is worth it.
template <class Condition>
static bool comes_soon(const Condition& condition) {
    if (condition()) return true;
    const double until = seconds() + SECONDS_AWAKE;
    do {
        for (int i = 0; i < 8; ++i) {
            pause_briefly();
            if (condition()) return true;
        }
    } while (seconds() < until);
    return false;
}

Workers::Workers(int32_t num_threads, Progress& progress)
    : progress_(progress), num_threads_(num_threads > 0 ? num_threads : usable_processors()), inside_(CLOSED) {}

Workers::~Workers() {
    __atomic_store_n(&leaving_, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&epoch_, 1, __ATOMIC_SEQ_CST);
    if (num_started_ > 0) wake_all(&epoch_);
    for (int64_t i = 0; i < num_started_; ++i) members_[i].thread.join();
}

bool Workers::reserve(int64_t floats, Failure& failure) {
    if (!make(failure)) return false;
    for (int64_t thread = 0; thread < num_threads_; ++thread)
        if (scratch_[thread].size() < floats && !scratch_[thread].allocate(floats, failure)) return false;
    return true;
}

bool Workers::make(Failure& failure) {
    if (scratch_.size() > 0) return true;
    return members_.make(num_threads_ - 1, failure) && scratch_.make(num_threads_, failure);
}

bool Workers::run_items(int64_t count, RunItem run, const void* work, Failure& failure) {
    if (!make(failure)) return false;
    if (count > 0 && progress_.tell(0)) {
        const int64_t members = least(num_threads_, count) - 1;
        if (members > num_started_) start(members);
        open(count, run, work);
        take_items(0);
        close();
    }
    return progress_.is_stopped() ? failure.set(ESCSR_STOPPED, "The caller stopped the work.") : true;
}

// Fewer where the system starts no more of them: they do the same work.
void Workers::start(int64_t members) {
    while (starts_more_ && num_started_ < members) {
        Member& member = members_[num_started_];
        member.workers = this;
        member.number = num_started_ + 1;
        starts_more_ = member.thread.start(enter, &member);
        if (starts_more_) ++num_started_;
    }
}

void Workers::open(int64_t count, RunItem run, const void* work) {
    run_ = run, work_ = work, count_ = count;
    __atomic_store_n(&next_, 0, __ATOMIC_RELAXED);
    if (count <= 1 || num_started_ == 0) return;  // the calling thread does it alone
    __atomic_store_n(&inside_, 0, __ATOMIC_RELEASE);
    __atomic_add_fetch(&epoch_, 1, __ATOMIC_SEQ_CST);
    // A member counts itself as sleeping before it looks at the epoch for the last time.
    if (__atomic_load_n(&sleeping_, __ATOMIC_SEQ_CST) > 0) wake_all(&epoch_);
}

// Let nobody in any more, and wait for those inside.
void Workers::close() {
    __atomic_or_fetch(&inside_, CLOSED, __ATOMIC_ACQ_REL);
    const auto is_empty = [this] { return (__atomic_load_n(&inside_, __ATOMIC_ACQUIRE) & ~AWAITED) == CLOSED; };
    if (comes_soon(is_empty)) return;
    __atomic_or_fetch(&inside_, AWAITED, __ATOMIC_ACQ_REL);
    while (!is_empty()) {
        const int32_t inside = __atomic_load_n(&inside_, __ATOMIC_ACQUIRE);
        if ((inside & ~AWAITED) != CLOSED) wait_while(&inside_, inside);
    }
}

bool Workers::next_item(int64_t& item) {
    if (progress_.is_stopped()) return false;
    item = __atomic_fetch_add(&next_, 1, __ATOMIC_RELAXED);
    return item < count_;
}

void Workers::take_items(int64_t thread) {
    float* scratch = scratch_[thread].data();
    for (int64_t item; next_item(item);) {
        run_(work_, item, scratch);
        if (thread == 0) {
            const int64_t taken = least(__atomic_load_n(&next_, __ATOMIC_RELAXED), count_);
            progress_.tell(static_cast<double>(taken) / static_cast<double>(count_));
        }
    }
}

// ------------------------------------------------------------------------------------------ what the members do

void Workers::enter(void* data) {
    Member& member = *static_cast<Member*>(data);
    member.workers->serve(member.number);
}

void Workers::serve(int64_t thread) {
    for (int32_t epoch = 0;;) {
        epoch = wait_for_other(epoch);
        if (__atomic_load_n(&leaving_, __ATOMIC_ACQUIRE)) return;
        if (!join_piece()) continue;
        take_items(thread);
        leave_piece();
    }
}

// The epoch, once it is another than the one given.
int32_t Workers::wait_for_other(int32_t epoch) {
    const auto is_other = [this, epoch] { return __atomic_load_n(&epoch_, __ATOMIC_ACQUIRE) != epoch; };
    if (!comes_soon(is_other)) {
        __atomic_add_fetch(&sleeping_, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&epoch_, __ATOMIC_SEQ_CST) == epoch) wait_while(&epoch_, epoch);
        __atomic_sub_fetch(&sleeping_, 1, __ATOMIC_RELAXED);
    }
    return __atomic_load_n(&epoch_, __ATOMIC_ACQUIRE);
}

// False where the piece is closed already.
bool Workers::join_piece() {
    int32_t inside = __atomic_load_n(&inside_, __ATOMIC_RELAXED);
    do {
        if (inside & CLOSED) return false;
    } while (!__atomic_compare_exchange_n(&inside_, &inside, inside + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    return true;
}

void Workers::leave_piece() {
    const int32_t inside = __atomic_sub_fetch(&inside_, 1, __ATOMIC_RELEASE);
    if (inside == (CLOSED | AWAITED)) wake_all(&inside_);
}

}  // namespace escsr
