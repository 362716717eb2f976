// Limbo: what was detached by a committed change and is not released yet. A stack of records in
// pages, each page a frame; the superblock names the first page.
//
//   limbo page
//   offset size
//        0    8  next page's frame number (checked word)
//        8    8  number of records here (checked word)
//       16   16  (zero)
//       32       127 records of 32 bytes
//
//   limbo record
//        0    8  entry: points to the detached table (its level is `level`), or, for a space, holds
//                the frame number of the space record
//        8    4  owner
//       12    1  LimboKind
//       13    1  level of the detached table
//       14    2  (zero)
//       16    8  index of the detached table
//       24    8  CRC-32 over bytes 0..23, zero-extended
//
// A record is published by the count word, in the transaction that detaches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "format/checked_word.hpp"
#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

enum class LimboKind : std::uint8_t {
    subtree = 1,  // a table, and one reference of each table and frame that it leads to
    shell = 2,    // a table and the tables below it; the frames are mapped by other tables now
    space = 3,    // a space record and its annotations
};

struct LimboRecord {
    std::uint64_t entry;
    std::uint32_t owner;
    LimboKind kind;
    std::uint8_t level;
    std::uint16_t reserved;
    std::uint64_t index;
    std::uint64_t checksum;

    std::uint64_t computed_checksum() const {
        return Crc32().add({reinterpret_cast<const std::byte*>(this), 24}).value();
    }
};
static_assert(sizeof(LimboRecord) == 32 && std::is_trivially_copyable_v<LimboRecord>);

inline constexpr unsigned kLimboRecordsPerPage = 127;
inline constexpr std::uint32_t kSeedLimboNext = 0x6e657874, kSeedLimboCount = 0x636f756e;

struct LimboPage {
    std::uint64_t next;
    std::uint64_t count;
    std::uint64_t reserved[2];
    LimboRecord records[kLimboRecordsPerPage];
};
static_assert(sizeof(LimboPage) == kPageSize && offsetof(LimboPage, records) == 32);

}  // namespace holdfast::format
