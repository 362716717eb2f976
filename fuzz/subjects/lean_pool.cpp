#include "subjects/lean_pool.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <vector>

#include "judge/libpmemobj_layout.hpp"

namespace holdfast::crash {
namespace {

// A part of the pool under a checksum of Fletcher's over words of 32 bits, where the checksum
// itself and what lies behind `covered` count as zeros.
class Sealed {
  public:
    static std::optional<Sealed> read(int file, std::uint64_t offset, std::size_t size_bytes,
                                      std::size_t covered) {
        Sealed part;
        part.offset_ = offset;
        part.covered_ = covered;
        part.bytes_.resize(size_bytes);
        if (pread(file, part.bytes_.data(), size_bytes, static_cast<off_t>(offset)) !=
                static_cast<ssize_t>(size_bytes) ||
            part.load<std::uint64_t>(part.checksum_at()) != part.checksum())
            return std::nullopt;
        return part;
    }

    template <typename Word>
    Word load(std::size_t at) const {
        Word word{};
        std::memcpy(&word, bytes_.data() + at, sizeof word);
        return word;
    }
    template <typename Word>
    void store(std::size_t at, Word word) {
        std::memcpy(bytes_.data() + at, &word, sizeof word);
    }
    bool write(int file) {
        store(checksum_at(), checksum());
        return pwrite(file, bytes_.data(), bytes_.size(), static_cast<off_t>(offset_)) ==
               static_cast<ssize_t>(bytes_.size());
    }

  private:
    std::size_t checksum_at() const { return bytes_.size() - sizeof(std::uint64_t); }
    std::uint64_t checksum() const {
        std::uint32_t low = 0, high = 0;
        for (std::size_t at = 0; at < bytes_.size(); at += 4) {
            if (at < covered_ && at < checksum_at()) low += load<std::uint32_t>(at);
            high += low;
        }
        return std::uint64_t{high} << 32 | low;
    }

    std::uint64_t offset_ = 0;
    std::size_t covered_ = 0;
    std::vector<std::byte> bytes_;
};

}  // namespace

Result<void> make_lean(const std::string& path, std::uint64_t lanes) {
    const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return fail(ErrorCode::io, fmt::format("{} cannot be opened", path));
    auto header = Sealed::read(file, 0, layout::kHeaderBytes, layout::kHeaderBytesUnderChecksum);
    auto descriptor =
        Sealed::read(file, layout::kHeaderBytes, layout::kDescriptorBytesUnderChecksum,
                     layout::kDescriptorBytesUnderChecksum);
    constexpr std::size_t kLanesAt = layout::kLaneCountAt - layout::kHeaderBytes;
    const bool is_known =
        header && descriptor && lanes > 0 && descriptor->load<std::uint64_t>(kLanesAt) >= lanes;
    bool written = false;
    if (is_known) {
        header->store(
            layout::kCompatFeaturesAt,
            header->load<std::uint32_t>(layout::kCompatFeaturesAt) & ~layout::kCheckBadBlocks);
        descriptor->store(kLanesAt, lanes);
        written = header->write(file) && descriptor->write(file);
    }
    close(file);
    if (!is_known)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: its header is not one of libpmemobj 1.4 and later with {} "
                                "lanes or more; give the workload the line `lanes 0`",
                                path, lanes));
    if (!written) return fail(ErrorCode::io, fmt::format("{} cannot be written", path));
    return {};
}

}  // namespace holdfast::crash
