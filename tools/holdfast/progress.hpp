// How far a long command has come: one line on a terminal, gone when the command is done.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace holdfast::tool {

// Shows nothing during the first second, and nothing at all where standard error is no terminal.
class Progress {
  public:
    explicit Progress(std::string what);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    // `total_bytes` is 0 where nobody knows it.
    void update(std::uint64_t done_bytes, std::uint64_t total_bytes);

  private:
    using Clock = std::chrono::steady_clock;

    std::string what_;
    bool on_terminal_;
    bool shown_ = false;
    Clock::time_point begin_ = Clock::now();
    Clock::time_point next_ = begin_ + std::chrono::seconds(1);
};

}  // namespace holdfast::tool
