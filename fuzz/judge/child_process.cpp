#include "judge/child_process.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "holdfast/crash.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::crash {
namespace {

volatile std::sig_atomic_t interrupt_asked = 0;

// What the child says: 0 and its answer, or an error's code and message.
void write_all(int file, const void* data, std::size_t size) {
    const auto* at = static_cast<const char*>(data);
    while (size != 0) {
        const ssize_t written = write(file, at, size);
        if (written <= 0) return;
        at += written;
        size -= static_cast<std::size_t>(written);
    }
}

// Until the other end is closed, somebody interrupts, or `is_overdue`.
std::string read_until_end(int file, const std::function<bool()>& is_overdue, bool* overdue) {
    std::string text;
    pollfd waiting{file, POLLIN, 0};
    *overdue = false;
    constexpr int kLookUpEvery = 100;  // milliseconds
    for (;;) {
        if (interrupted()) return text;
        if (is_overdue()) {
            *overdue = true;
            return text;
        }
        if (poll(&waiting, 1, kLookUpEvery) <= 0) continue;
        char part[4096];
        const ssize_t size = read(file, part, sizeof part);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return text;
        text.append(part, static_cast<std::size_t>(size));
    }
}

}  // namespace

std::string describe_end(int wait_status) {
    if (WIFSIGNALED(wait_status))
        return fmt::format("signal {} ({})", WTERMSIG(wait_status),
                           strsignal(WTERMSIG(wait_status)));
    return fmt::format("exit status {}", WEXITSTATUS(wait_status));
}

pid_t fork_child(const std::function<void()>& work) {
    const pid_t parent = getpid();
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child > 0) setpgid(child, child);
    if (child != 0) return child;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    signal(SIGINT, SIG_IGN);  // the parent decides
    signal(SIGTERM, SIG_DFL);
    work();
    _exit(0);
}

void end_child(pid_t child) {
    kill(-child, SIGKILL);
    kill(child, SIGKILL);  // should it not have come to have a group
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
}

void interrupt() { interrupt_asked = 1; }
bool interrupted() { return interrupt_asked != 0; }

Result<void> run_in_child(const std::string& what, double seconds,
                          const std::function<Result<void>()>& work) {
    auto answer = run_in_child_with_answer(what, seconds, [&]() -> Result<std::string> {
        if (auto done = work(); !done) return std::unexpected(done.error());
        return std::string();
    });
    if (!answer) return std::unexpected(answer.error());
    return {};
}

Result<std::string> run_in_child_with_answer(const std::string& what, double seconds,
                                             const std::function<Result<std::string>()>& work) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    ChildReport report = watch_child(
        what, [&] { return std::chrono::duration<double>(Clock::now() - begin).count() > seconds; },
        work);
    if (report.end == ChildEnd::answered) return std::move(report.text);
    if (report.end == ChildEnd::hung)
        report.text = fmt::format("{} did not end within {} s and was killed", what, seconds);
    return fail(report.code, std::move(report.text));
}

ChildReport watch_child(const std::string& what, const std::function<bool()>& is_overdue,
                        const std::function<Result<std::string>()>& work) {
    int ends[2];
    if (pipe(ends) != 0) return {ChildEnd::failed, "no pipe to a child process"};
    const pid_t child = fork_child([&] {
        close(ends[0]);
        std::string answer;
        try {
            const Result<std::string> done = work();
            answer = done ? std::string(1, '\0') + *done
                          : static_cast<char>(1 + static_cast<int>(done.error().code)) +
                                done.error().message;
        } catch (const std::exception& error) {
            answer =
                static_cast<char>(1 + static_cast<int>(ErrorCode::io)) + std::string(error.what());
        }
        write_all(ends[1], answer.data(), answer.size());
    });
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return {ChildEnd::failed, fmt::format("cannot start a process: {}", std::strerror(errno))};
    }
    bool overdue = false;
    const std::string answer = read_until_end(ends[0], is_overdue, &overdue);
    close(ends[0]);
    int status = 0;
    if (overdue || interrupted())
        end_child(child);
    else
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    if (interrupted()) return {ChildEnd::interrupted, fmt::format("{} was interrupted", what)};
    if (overdue)
        return {ChildEnd::hung, fmt::format("{} did not end in time and was killed", what)};
    if (answer.empty())
        return {ChildEnd::died, fmt::format("{} ended with {}", what, describe_end(status))};
    if (answer[0] == '\0') return {ChildEnd::answered, answer.substr(1)};
    return {ChildEnd::failed, answer.substr(1), static_cast<ErrorCode>(answer[0] - 1)};
}

std::span<std::byte> shared_memory(std::size_t size_bytes) {
    void* const at = raw_mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return {};
    return {static_cast<std::byte*>(at), size_bytes};
}

void release_shared_memory(std::span<std::byte> memory) {
    if (!memory.empty()) raw_munmap(memory.data(), memory.size());
}

}  // namespace holdfast::crash
