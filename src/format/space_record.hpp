// The persistent record of one address space; it fills a frame of its own, whose number is what the
// directory holds and whose metadata says who owns it.
//
//   offset size
//        0    8  magic "SPACEREC"
//        8    4  owner: the lineage this space belongs to
//       12    1  levels (3, 4, 5)
//       13    1  kind: SpaceKind
//       14    2  length of the name
//       16    8  annotations: pool offset of the ordered map from start addresses to annotations
//       24    8  boot epoch in which it was made
//       32  256  name, not terminated
//      288    1  preferred region: its index plus 1, 0 for none
//      289    5  (zero)
//      294    2  generation of the frame that origin names
//      296    8  origin: the record of the space that a snapshot was taken of, by its home number
//                (superblock.hpp); 0 for a space
//      304    8  supervisor half: the record of the supervisor object that the upper half is of, as
//                `origin`; 0 for none
//      312    4  owner of that object, of whose lineage the tables of the upper half are
//      316    2  generation of the frame that supervisor names
//      318    2  (zero)
//      320    8  quota: how many pages may have frames, 0 for no limit (reclaim.hpp)
//      328  176  (zero)
//      504    8  CRC-32 over bytes 0..503, zero-extended
//   -- mutable --
//      512    8  root: an entry (entry.hpp) at level levels+1 and slot 0, which points to the root
//                table; CR3 is its frame number
//      520       (zero; of a file object, from 1024 on, file_record.hpp)
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "format/crc.hpp"

namespace holdfast::format {

inline constexpr std::uint64_t kSpaceMagic = 0x4345'5245'4341'5053;  // "SPACEREC" in memory
inline constexpr std::size_t kSpaceNameMax = 255;

// A snapshot is a space that nobody changes. Forks and snapshots of a space have its owner: they
// are of one lineage, and share tables. A file object (file_record.hpp) is nobody's address space.
// A supervisor object has an upper half only, which other spaces have by links from their roots to
// the same tables.
enum class SpaceKind : std::uint8_t { address_space = 1, snapshot = 2, file = 3, supervisor = 4 };

struct SpaceRecord {
    std::uint64_t magic;
    std::uint32_t owner;
    std::uint8_t levels;
    SpaceKind kind;
    std::uint16_t name_length;
    std::uint64_t annotations_offset;
    std::uint64_t created_epoch;
    char name[256];
    std::uint8_t preferred_region;
    std::uint8_t reserved0[5];
    std::uint16_t origin_generation;
    std::uint64_t origin;
    std::uint64_t supervisor;
    std::uint32_t supervisor_owner;
    std::uint16_t supervisor_generation;
    std::uint8_t reserved1[2];
    std::uint64_t quota_pages;
    std::uint8_t reserved2[176];
    std::uint64_t checksum;
    std::uint64_t root;

    std::uint64_t computed_checksum() const {
        return Crc32().add({reinterpret_cast<const std::byte*>(this), 504}).value();
    }
    // Of whose lineage the tables of the upper half are: of its own for a supervisor object, and 0
    // for a space that has a half of its own.
    std::uint32_t upper_owner() const {
        return kind == SpaceKind::supervisor ? owner : supervisor_owner;
    }
    std::string_view name_view() const {
        return {name, name_length <= kSpaceNameMax ? name_length : kSpaceNameMax};
    }
};
static_assert(offsetof(SpaceRecord, origin_generation) == 294 &&
              offsetof(SpaceRecord, origin) == 296);
static_assert(offsetof(SpaceRecord, supervisor) == 304 &&
              offsetof(SpaceRecord, supervisor_generation) == 316);
static_assert(offsetof(SpaceRecord, checksum) == 504 && offsetof(SpaceRecord, root) == 512);
static_assert(sizeof(SpaceRecord) == 520 && std::is_trivially_copyable_v<SpaceRecord>);

}  // namespace holdfast::format
