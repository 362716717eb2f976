// How libpmemobj lays out a pool (layout version 6, libpmemobj 1.4 and later):
//
//     0        pool header, 4 KiB, under a checksum
//     4096     descriptor: layout's name, where lanes and heap lie; 2 KiB, under a checksum
//     6144     root, run id; 512 bytes
//     6656     state of the process that has the pool open (pointers), made anew by each opening
//     lanes    3 KiB each: an internal and an external redo log, an undo log
//     heap     header 1 KiB; then zones: header 64 bytes, 65,528 chunk headers of 8 bytes,
//              chunks of 256 KiB; a run of small objects begins with sizes and a bitmap
#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast::crash::layout {

inline constexpr std::uint64_t kHeaderBytes = 4096, kDescriptorBytes = 4096;
// Of the header its features; a newer one has zeros for its second half in the checksum.
inline constexpr std::uint64_t kCompatFeaturesAt = 12, kHeaderBytesUnderChecksum = 2048;
inline constexpr std::uint32_t kCheckBadBlocks = 1;
inline constexpr std::uint64_t kDescriptorBytesUnderChecksum = 2048;
inline constexpr std::uint64_t kProcessStateAt = kHeaderBytes + kDescriptorBytesUnderChecksum + 512;
inline constexpr std::string_view kPoolSignature = "PMEMOBJ";
inline constexpr std::uint64_t kLanesOffsetAt = kHeaderBytes + 1024;
inline constexpr std::uint64_t kLaneCountAt = kLanesOffsetAt + 8, kHeapOffsetAt = kLaneCountAt + 8;
inline constexpr std::uint64_t kLaneBytes = 3072;
inline constexpr std::uint64_t kHeapHeaderBytes = 1024, kZoneHeaderBytes = 64;
inline constexpr std::uint64_t kChunksPerZone = 65528, kChunkHeaderBytes = 8;
inline constexpr std::uint64_t kChunkBytes = 256 << 10;
inline constexpr std::uint16_t kChunkIsRun = 4;
inline constexpr std::string_view kHeapSignature = "MEMORY_HEAP_HDR";

}  // namespace holdfast::crash::layout
