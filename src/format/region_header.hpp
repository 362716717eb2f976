// The first page of an external region's file, and the record of its path in the pool.
//
//   header of the file
//   offset size
//        0    8  magic "HFREGION"
//        8    4  format version of the store that made it
//       12    4  generation
//       16   16  UUID of the store
//       32   16  UUID of the region
//       48    8  number of frames; where the first is, the pool's record says: at
//                kRegionFramesOffset, of a device region at kDeviceFramesOffset
//       56   64  (zero)
//      120    8  CRC-32 over bytes 0..119, zero-extended
//   -- mutable --
//      128    8  stamp (checked word)
//      136       (zero, to the end of the page)
//
// The stamp pairs the file with the pool. Before the first change after opening, the pool notes a
// random number as `pending`, the file's header takes it as its stamp, and the pool notes that this
// is done: so at any moment the header's stamp is one of the two that the pool knows, and a copy of
// either that was taken in an earlier boot has another. Copies that were taken within one boot are
// not told apart.
//
//   path record, an object of the pool
//        0    4  length of the path in bytes
//        4    4  CRC-32 over the length and the path
//        8       the path; not absolute: relative to the folder of the pool
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

inline constexpr std::uint64_t kRegionMagic = 0x4e4f'4947'4552'4648;  // "HFREGION" in memory
inline constexpr std::uint64_t kRegionFramesOffset = kPageSize;
// So that pages of 2 MiB line up.
inline constexpr std::uint64_t kDeviceFramesOffset = std::uint64_t{2} << 20;
inline constexpr std::uint32_t kSeedRegionStamp = 0x7374616d;

struct RegionHeader {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t generation;
    std::uint8_t store_uuid[16];
    std::uint8_t uuid[16];
    std::uint64_t frame_count;
    std::uint8_t reserved0[64];
    std::uint64_t checksum;
    std::uint64_t stamp;
    std::uint8_t reserved1[kPageSize - 136];

    std::uint64_t computed_checksum() const {
        return Crc32().add({reinterpret_cast<const std::byte*>(this), 120}).value();
    }
};
static_assert(sizeof(RegionHeader) == kPageSize && offsetof(RegionHeader, checksum) == 120);
static_assert(offsetof(RegionHeader, stamp) == 128);
static_assert(std::is_trivially_copyable_v<RegionHeader>);

struct PathRecord {
    static constexpr std::uint32_t kLengthMax = 4095;

    std::uint32_t length;
    std::uint32_t checksum;  // the path follows

    static std::uint32_t computed_checksum(std::span<const std::byte> path) {
        const auto length = static_cast<std::uint32_t>(path.size());
        return Crc32()
            .add({reinterpret_cast<const std::byte*>(&length), sizeof length})
            .add(path)
            .value();
    }
};
static_assert(sizeof(PathRecord) == 8);

}  // namespace holdfast::format
