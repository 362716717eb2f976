// A process that is held still by ptrace(2), all its threads, and goes on as it was.
//
// PTRACE_SEIZE sends no signal, so the process notices nothing: system calls that were interrupted
// are restarted, a process that was stopped by a signal stays stopped afterwards, and a signal that
// arrived just as a thread was caught is delivered when it is let go.
//
// The kernel ties tracing to a thread. A StoppedProcess must be used by one thread only, and that
// thread has to end soon after it: only then are threads let go that could not be stopped, and only
// then does the parent of a process that ended meanwhile learn of it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::image {

class StoppedProcess {
  public:
    // How long a thread may take to stop: one that waits in the kernel for a device, or in vfork
    // for its child, does not stop before that is over.
    static constexpr std::chrono::seconds kPatience{5};

    // Errors: not_found, permission_denied (with advice), busy (a thread does not stop).
    static Result<StoppedProcess> stop(pid_t process);

    StoppedProcess(StoppedProcess&& other) noexcept
        : process_(other.process_), threads_(std::exchange(other.threads_, {})) {}
    StoppedProcess& operator=(StoppedProcess&&) = delete;
    ~StoppedProcess() { go_on(); }

    pid_t process() const { return process_; }
    // A thread that is there, through which /proc shows the address space: the first one may have
    // ended before the others.
    pid_t thread() const { return threads_.front().id; }
    // False as soon as the process was killed, and may have run again for a moment.
    bool is_still_stopped() const;
    void go_on();

  private:
    struct Thread {
        pid_t id = 0;
        bool stopped = false;
        int signal = 0;  // that waits to be delivered to it
    };
    using Clock = std::chrono::steady_clock;

    explicit StoppedProcess(pid_t process) : process_(process) {}
    Result<bool> seize_new_threads();
    Result<void> wait_for_stops(Clock::time_point deadline);

    pid_t process_;
    std::vector<Thread> threads_;
};

}  // namespace holdfast::image
