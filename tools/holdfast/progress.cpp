#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "quantity.hpp"

namespace holdfast::tool {
namespace {

constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

StatusLine::StatusLine() : on_terminal_(isatty(STDERR_FILENO) == 1) {}

void StatusLine::show(std::string_view text) {
    next_ = Clock::now() + std::chrono::milliseconds(100);
    shown_ = true;
    fmt::print(stderr, "{}{}", kEraseLine, text);
    std::fflush(stderr);
}

void StatusLine::clear() {
    if (shown_) fmt::print(stderr, "{}", kEraseLine);
    shown_ = false;
}

void Progress::update(std::uint64_t done_bytes, std::uint64_t total_bytes) {
    if (!line_.is_due()) return;
    const double done_MiB = static_cast<double>(done_bytes) / (1 << 20);
    const std::string amount =
        total_bytes == 0 ? format_size(done_bytes)
                         : fmt::format("{:3.0f} %", 100 * static_cast<double>(done_bytes) /
                                                        static_cast<double>(total_bytes));
    line_.show(fmt::format("{} {}  {:.0f} MiB/s", what_, amount, done_MiB / line_.seconds()));
}

}  // namespace holdfast::tool
