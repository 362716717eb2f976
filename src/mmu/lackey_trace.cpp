#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "holdfast/replay.hpp"

namespace holdfast {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

std::optional<AccessKind> kind_of(std::string_view line) {
    if (line.size() < 4 || line[2] != ' ') return std::nullopt;
    if (line[0] == 'I' && line[1] == ' ') return AccessKind::instruction;
    if (line[0] != ' ') return std::nullopt;
    switch (line[1]) {
        case 'L':
            return AccessKind::load;
        case 'S':
            return AccessKind::store;
        case 'M':
            return AccessKind::modify;
        default:
            return std::nullopt;
    }
}

std::optional<TraceAccess> parsed(std::string_view line) {
    const auto kind = kind_of(line);
    if (!kind) return std::nullopt;
    std::uint64_t address = 0;
    std::uint32_t size = 0;
    const char* const end = line.data() + line.size();
    const auto at = std::from_chars(line.data() + 3, end, address, 16);
    if (at.ec != std::errc() || at.ptr == end || *at.ptr != ',') return std::nullopt;
    const auto last = std::from_chars(at.ptr + 1, end, size, 10);
    if (last.ec != std::errc() || last.ptr != end) return std::nullopt;
    if (size == 0 || size > LackeyTrace::kMaxAccessBytes || address + (size - 1) < address)
        return std::nullopt;
    return TraceAccess{*kind, VirtAddr(address), size};
}

}  // namespace

LackeyTrace::LackeyTrace(int descriptor, std::string name)
    : descriptor_(descriptor), name_(std::move(name)), buffer_(kBufferBytes) {}

// Makes room and reads on; false at the end of the file, or when a line fills the whole buffer.
Result<bool> LackeyTrace::fill() {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (at_end_ || end_ == buffer_.size()) return false;
    for (;;) {
        const ssize_t got = read(descriptor_, buffer_.data() + end_, buffer_.size() - end_);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(ErrorCode::io, fmt::format("{}: {}", name_, std::strerror(errno)));
        at_end_ = got == 0;
        end_ += static_cast<std::size_t>(got);
        bytes_read_ += static_cast<std::uint64_t>(got);
        return got != 0;
    }
}

std::unexpected<Error> LackeyTrace::bad_line(std::string_view line) const {
    constexpr std::size_t kQuoted = 60;
    std::string quoted(line.substr(0, kQuoted));
    for (char& letter : quoted)
        if (letter < ' ' || letter > '~') letter = '?';
    if (line.size() > kQuoted) quoted += "...";
    return fail(ErrorCode::invalid_argument,
                fmt::format("{}, line {}: \"{}\" is no access that valgrind's lackey would print, "
                            "such as \" L 1ffeffe7e0,8\"; make the trace with valgrind "
                            "--tool=lackey --trace-mem=yes --log-file=FILE, which keeps the "
                            "program's own output out of it",
                            name_, line_number_, quoted));
}

Result<std::optional<TraceAccess>> LackeyTrace::next() {
    for (;;) {
        const char* const begin = buffer_.data() + begin_;
        const auto* newline = static_cast<const char*>(std::memchr(begin, '\n', end_ - begin_));
        if (newline == nullptr) {
            const auto more = fill();
            if (!more) return std::unexpected(more.error());
            if (*more) continue;
            if (begin_ == end_) return std::nullopt;
            // The last line, without its end; or one that is longer than any.
            newline = buffer_.data() + end_;
        }
        const std::string_view line(buffer_.data() + begin_, newline);
        begin_ = std::min(begin_ + line.size() + 1, end_);
        ++line_number_;
        if (auto access = parsed(line)) return access;
        if (!line.starts_with("==") && !line.starts_with("--") && !line.starts_with("**"))
            return bad_line(line);
        ++skipped_lines_;
    }
}

}  // namespace holdfast
