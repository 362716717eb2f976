// What a long operation has reserved while it builds new tables aside: the frames of these extents
// were free when the record was published in a build slot of the superblock, and belong to nobody
// else until the slot is cleared. The operation's commit clears the slot; after a crash, whoever
// finds the slot occupied frees every frame of every extent, as often as it likes, and then clears
// it. So nothing that is written into these frames or their metadata needs a log.
//
//   offset size
//        0    8  frame number of the next record, 0 for none
//        8    4  number of extents here
//       12    4  CRC-32 over bytes 0..11 and the extents
//       16       510 extents: frame number in bits 0..39, number of frames less one in 40..63
//
// The record stands in the first frames of its own extents; their metadata says "free" all along.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

struct Extent {
    FrameNumber first;
    std::uint64_t count = 0;

    friend constexpr bool operator==(const Extent&, const Extent&) = default;

    static constexpr std::uint64_t kCountMax = std::uint64_t{1} << 24;

    constexpr FrameNumber end() const { return first + count; }
    constexpr bool contains(FrameNumber frame) const {
        return frame.value() - first.value() < count;
    }
    constexpr std::uint64_t encoded() const { return first.value() | (count - 1) << 40; }
    static constexpr Extent decode(std::uint64_t word) {
        return {FrameNumber(word & ((std::uint64_t{1} << 40) - 1)), (word >> 40) + 1};
    }
};

inline constexpr unsigned kExtentsPerRecord = 510;

struct BuildRecord {
    std::uint64_t next;
    std::uint32_t count;
    std::uint32_t checksum;
    std::uint64_t extents[kExtentsPerRecord];

    std::uint32_t computed_checksum() const {
        return Crc32()
            .add({reinterpret_cast<const std::byte*>(this), 12})
            .add({reinterpret_cast<const std::byte*>(extents),
                  count <= kExtentsPerRecord ? count * sizeof(std::uint64_t) : 0})
            .value();
    }
};
static_assert(sizeof(BuildRecord) == kPageSize && std::is_trivially_copyable_v<BuildRecord>);

}  // namespace holdfast::format
