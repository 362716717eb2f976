#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "quantity.hpp"

namespace holdfast::tool {
namespace {

constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

Progress::Progress(std::string what)
    : what_(std::move(what)), on_terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    if (shown_) fmt::print(stderr, "{}", kEraseLine);
}

void Progress::update(std::uint64_t done_bytes, std::uint64_t total_bytes) {
    if (!on_terminal_) return;
    const Clock::time_point now = Clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::milliseconds(100);
    shown_ = true;
    const double done_MiB = static_cast<double>(done_bytes) / (1 << 20);
    const double rate = done_MiB / std::chrono::duration<double>(now - begin_).count();
    const std::string amount =
        total_bytes == 0 ? format_size(done_bytes)
                         : fmt::format("{:3.0f} %", 100 * static_cast<double>(done_bytes) /
                                                        static_cast<double>(total_bytes));
    fmt::print(stderr, "{}{} {}  {:.0f} MiB/s", kEraseLine, what_, amount, rate);
    std::fflush(stderr);
}

}  // namespace holdfast::tool
