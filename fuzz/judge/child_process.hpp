// Work in a forked process, with a time limit; what it says comes back as a message.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::crash {

// Runs `work` in a child and waits. Its error is the result; an io error says how the child ended
// if it ended otherwise: by a signal, by an exit, or killed because it took longer than `seconds`.
Result<void> run_in_child(const std::string& what, double seconds,
                          const std::function<Result<void>()>& work);

// The same for work that has an answer.
Result<std::string> run_in_child_with_answer(const std::string& what, double seconds,
                                             const std::function<Result<std::string>()>& work);

// How such a child came to its end.
enum class ChildEnd : std::uint8_t {
    answered,
    failed,       // with an error of the work's own
    died,         // by a signal or an exit, without an answer
    hung,         // it was killed for the time it took
    interrupted,  // it was killed because crash::interrupt was called
};

struct ChildReport {
    ChildEnd end{};
    std::string text;                // the answer, or a sentence on why there is none
    ErrorCode code = ErrorCode::io;  // of what is no answer
};

// The same, for who must know which it was. `is_overdue` is asked now and then (ten times a
// second), in this process: the child is killed when it says so.
ChildReport watch_child(const std::string& what, const std::function<bool()>& is_overdue,
                        const std::function<Result<std::string>()>& work);

// A child that dies with this process and does not run its exit handlers. It leads a process group,
// so that what it has started can be ended with it.
pid_t fork_child(const std::function<void()>& work);

// SIGKILL to the child and to all of its group; waits for the child.
void end_child(pid_t child);

// Whether crash::interrupt was called: whoever waits for a child gives up.
bool interrupted();

// "signal 11 (Segmentation fault)", "exit status 3".
std::string describe_end(int wait_status);

// Zeroed memory shared with children; pages cost nothing until they are used.
std::span<std::byte> shared_memory(std::size_t size_bytes);
void release_shared_memory(std::span<std::byte> memory);

}  // namespace holdfast::crash
