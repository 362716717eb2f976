#include "subjects/fewer_lanes.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "judge/libpmemobj_layout.hpp"

namespace holdfast::crash {
namespace {

constexpr std::size_t kPersistentBytes = 2048, kChecksumAt = kPersistentBytes - 8;
constexpr std::size_t kLanesAt = layout::kLaneCountAt - layout::kHeaderBytes;
using Descriptor = std::array<std::byte, kPersistentBytes>;

template <typename Word>
Word load(const Descriptor& descriptor, std::size_t at) {
    Word word{};
    std::memcpy(&word, descriptor.data() + at, sizeof word);
    return word;
}

// Fletcher's, over words of 32 bits, the checksum itself counted as zeros.
std::uint64_t checksum_of(const Descriptor& descriptor) {
    std::uint32_t low = 0, high = 0;
    for (std::size_t at = 0; at < kPersistentBytes; at += 4) {
        if (at < kChecksumAt) low += load<std::uint32_t>(descriptor, at);
        high += low;
    }
    return std::uint64_t{high} << 32 | low;
}

}  // namespace

Result<void> reduce_lanes(const std::string& path, std::uint64_t lanes) {
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    Descriptor descriptor{};
    const bool was_read = file >= 0 && pread(file, descriptor.data(), descriptor.size(),
                                             layout::kHeaderBytes) == kPersistentBytes;
    const bool is_known = was_read &&
                          load<std::uint64_t>(descriptor, kChecksumAt) == checksum_of(descriptor) &&
                          load<std::uint64_t>(descriptor, kLanesAt) >= lanes && lanes > 0;
    bool written = false;
    if (is_known) {
        std::memcpy(descriptor.data() + kLanesAt, &lanes, sizeof lanes);
        const std::uint64_t checksum = checksum_of(descriptor);
        std::memcpy(descriptor.data() + kChecksumAt, &checksum, sizeof checksum);
        written = pwrite(file, descriptor.data(), descriptor.size(), layout::kHeaderBytes) ==
                  kPersistentBytes;
    }
    if (file >= 0) close(file);
    if (!was_read) return fail(ErrorCode::io, fmt::format("{} cannot be read", path));
    if (!is_known)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: its descriptor is not one of libpmemobj 1.4 and later with {} "
                                "lanes or more; give the workload the line `lanes 0`",
                                path, lanes));
    if (!written) return fail(ErrorCode::io, fmt::format("{} cannot be written", path));
    return {};
}

}  // namespace holdfast::crash
