// How far a long command has come: one line on a terminal, gone when the command is done.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::tool {

// Shows nothing during the first second, and nothing at all where standard error is no terminal.
class StatusLine {
  public:
    using Clock = std::chrono::steady_clock;

    StatusLine();
    ~StatusLine() { clear(); }
    StatusLine(const StatusLine&) = delete;
    StatusLine& operator=(const StatusLine&) = delete;

    // Whether it is time for another `show`.
    bool is_due() const { return on_terminal_ && Clock::now() >= next_; }
    void show(std::string_view text);
    void clear();
    double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  private:
    bool on_terminal_;
    bool shown_ = false;
    Clock::time_point begin_ = Clock::now();
    Clock::time_point next_ = begin_ + std::chrono::seconds(1);
};

// Of bytes.
class Progress {
  public:
    explicit Progress(std::string what) : what_(std::move(what)) {}

    // `total_bytes` is 0 where nobody knows it.
    void update(std::uint64_t done_bytes, std::uint64_t total_bytes);

  private:
    std::string what_;
    StatusLine line_;
};

}  // namespace holdfast::tool
