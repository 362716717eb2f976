#include "image/stopped_process.hpp"

#include <dirent.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "image/process_maps.hpp"

namespace holdfast::image {
namespace {

std::vector<pid_t> thread_ids(pid_t process) {
    std::vector<pid_t> ids;
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(
        opendir(fmt::format("/proc/{}/task", process).c_str()), closedir);
    if (!folder) return ids;
    while (const dirent* item = readdir(folder.get()))
        if (const pid_t id = std::atoi(item->d_name); id > 0) ids.push_back(id);
    return ids;
}

bool has_ended(pid_t thread) {
    const auto status = read_status(thread);
    return !status || status->state == 'Z' || status->state == 'X';
}

std::unexpected<Error> refusal(pid_t process, int error_number) {
    const auto status = read_status(process);
    if (status && status->tracer != 0)
        return fail(ErrorCode::permission_denied,
                    fmt::format("process {} is traced by process {} already; end that debugger "
                                "first",
                                process, status->tracer));
    return fail(
        ErrorCode::permission_denied,
        fmt::format("process {} may not be traced ({}): import it as its own user or as root, "
                    "with CAP_SYS_PTRACE in a container, and see "
                    "/proc/sys/kernel/yama/ptrace_scope; kernel threads cannot be imported",
                    process, std::strerror(error_number)));
}

}  // namespace

Result<StoppedProcess> StoppedProcess::stop(pid_t process) {
    StoppedProcess stopped(process);
    const Clock::time_point deadline = Clock::now() + kPatience;
    // A thread that runs may make others. Only when all that are known stand still, and the list
    // has no other, is there none left to make one.
    for (;;) {
        auto found = stopped.seize_new_threads();
        if (!found) return std::unexpected(std::move(found.error()));
        if (!*found) break;
        auto done = stopped.wait_for_stops(deadline);
        if (!done) return std::unexpected(std::move(done.error()));
    }
    if (stopped.threads_.empty())
        return fail(ErrorCode::not_found,
                    fmt::format("process {} has ended; there is nothing left to import", process));
    return stopped;
}

Result<bool> StoppedProcess::seize_new_threads() {
    bool found = false;
    for (const pid_t id : thread_ids(process_)) {
        if (std::any_of(threads_.begin(), threads_.end(),
                        [id](const Thread& thread) { return thread.id == id; }))
            continue;
        if (ptrace(PTRACE_SEIZE, id, nullptr, nullptr) != 0) {
            const int error_number = errno;
            if (error_number == ESRCH || has_ended(id)) continue;
            return refusal(process_, error_number);
        }
        ptrace(PTRACE_INTERRUPT, id, nullptr, nullptr);
        threads_.push_back({.id = id});
        found = true;
    }
    return found;
}

Result<void> StoppedProcess::wait_for_stops(Clock::time_point deadline) {
    std::chrono::microseconds pause{20};
    for (std::size_t i = 0; i < threads_.size();) {
        Thread& thread = threads_[i];
        if (thread.stopped) {
            ++i;
            continue;
        }
        // Looking must not take away the end of a thread: that belongs to its parent.
        siginfo_t info{};
        const int outcome = waitid(P_PID, static_cast<id_t>(thread.id), &info,
                                   WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL);
        if (outcome != 0 && errno == EINTR) continue;
        if (outcome != 0 ||
            (info.si_pid != 0 && info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED)) {
            threads_.erase(threads_.begin() + static_cast<std::ptrdiff_t>(i));  // it has ended
            continue;
        }
        if (info.si_pid != 0) {
            int status = 0;
            if (waitpid(thread.id, &status, WNOHANG | __WALL) != thread.id || !WIFSTOPPED(status))
                continue;
            thread.stopped = true;
            // Stopped by the interrupt or by a stop signal of its own, both of which pass with the
            // tracing; or on the way to a signal that it has yet to be given.
            thread.signal = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
            continue;
        }
        if (Clock::now() > deadline)
            return fail(ErrorCode::busy,
                        fmt::format("thread {} of process {} does not stop within {} s: it waits "
                                    "in the kernel for a device, or for a child made by vfork; "
                                    "try again",
                                    thread.id, process_, kPatience.count()));
        std::this_thread::sleep_for(pause);
        pause = std::min<std::chrono::microseconds>(2 * pause, std::chrono::milliseconds(5));
    }
    return {};
}

bool StoppedProcess::is_still_stopped() const {
    return std::all_of(threads_.begin(), threads_.end(), [](const Thread& thread) {
        // Any request does; it fails for a thread that SIGKILL has woken, from that moment on.
        unsigned long message = 0;
        return ptrace(PTRACE_GETEVENTMSG, thread.id, nullptr, &message) == 0;
    });
}

void StoppedProcess::go_on() {
    for (const Thread& thread : threads_)
        if (thread.stopped)
            ptrace(PTRACE_DETACH, thread.id, nullptr, static_cast<long>(thread.signal));
    threads_.clear();
}

}  // namespace holdfast::image
