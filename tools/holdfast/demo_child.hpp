// A child process of the demo, with its standard input and output in our hands.
#pragma once

#include <holdfast/error.hpp>

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "demo_cleanup.hpp"

namespace holdfast::tool::demo {

// Killed when it goes out of scope, and by the kernel should this process be killed itself.
class Child {
  public:
    using Clock = std::chrono::steady_clock;

    // Starts the program (looked for in PATH) with these arguments.
    static Result<Child> start(const std::vector<std::string>& command);
    // Starts this very program: `holdfast ARGUMENT...`.
    static Result<Child> start_self(const std::vector<std::string>& arguments);

    ~Child();
    Child(Child&& other) noexcept;
    Child& operator=(Child&&) = delete;

    pid_t pid() const { return process_.pid(); }

    // The next bytes of its output; none when the deadline has passed, and `ended` is set when
    // there will be no more.
    std::size_t read_until(Clock::time_point deadline, std::span<std::byte> buffer, bool& ended);
    // The next line of its output, without its end; io if there is none within ten seconds.
    Result<std::string> read_line();
    void write_line(const std::string& line);

    // Ends it by SIGKILL; false if it had ended by itself. What it said before can still be read.
    bool kill();
    // Reads its output to the end and waits; io unless it exited with 0.
    Result<std::string> finish();

  private:
    Child(pid_t pid, std::string program, int input, int output);
    static Result<Child> start_file(const std::string& file,
                                    const std::vector<std::string>& command);

    DoomedProcess process_;
    std::string program_;
    int input_;   // its standard input
    int output_;  // its standard output
};

}  // namespace holdfast::tool::demo
