// The persistent record of one frame, as Linux keeps a `struct page`: 16 bytes, so that tables and
// metadata together cost 24 bytes for a mapped page.
//
//   word 0   bits  0..3   FrameKind
//            bits  4..31  references: how many entries point here (28 bits)
//            bits 32..47  generation: raised each time the frame is taken into use
//            bits 48..63  CRC-16 over the frame number, the rest of word 0, and (unless free) word
//            1
//   word 1   bits  0..44  index: for data, the page number in the owner; for a table at level k,
//                         the number of the range it spans, in units of 2^(12+9k) bytes
//            bits 45..63  owner: a lineage (a space with its forks and snapshots), or an object
//
// Word 0 alone decides whether a frame is free, and a free frame's check ignores word 1: freeing is
// one 8-byte store, which no crash can tear. Taking a frame into use changes both words: word 1
// first, durably, while it means nothing yet; then word 0, by the log of a commit. In a build
// (build_record.hpp) both are just stored.
//
// The index has all 45 bits that a 5-level space's page number has, upper half included.
//
// *Fixed* frames, of kind data or shared_data with owner 0, are nobody's and are there for good:
// how many entries name them is not counted, and their references stand at 1. Of kind shared_data
// they are a device region's (device.hpp), their index is their place in it, and a leaf of any
// level may map them; of kind data it is the frame of zeros that reads share, which no leaf may
// write.
#pragma once

#include <cstdint>

#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

// The numbers of kinds in use differ from that of `free` in at least two bits, because a free
// frame's check does not cover word 1: one flipped bit must not lead from one check to the other.
enum class FrameKind : std::uint8_t {
    unused = 0,  // never a valid record: zeroed metadata is damage, not a free frame
    free = 1,
    data = 2,         // memory of a lineage; with several references it is copied on write
    shared_data = 4,  // memory that several entries, of any owner, name to see each other's writes
    space_record = 6,
    limbo_page = 7,
    huge_2MiB = 8,  // the first frame of a huge one, for all; the others' records say "free"
    huge_1GiB = 10,
    table_1 = 11,  // page table (PT)
    table_2 = 12,  // page directory (PD, Linux PMD)
    table_3 = 13,  // PDPT (PUD)
    table_4 = 14,  // PML4 (P4D)
    table_5 = 15,  // PML5 (PGD)
};

constexpr FrameKind table_kind(unsigned level) {
    return static_cast<FrameKind>(static_cast<unsigned>(FrameKind::table_1) + level - 1);
}
constexpr bool is_table(FrameKind kind) {
    return kind >= FrameKind::table_1 && kind <= FrameKind::table_5;
}
constexpr unsigned table_level(FrameKind kind) {
    return static_cast<unsigned>(kind) - static_cast<unsigned>(FrameKind::table_1) + 1;
}

// Whether it is memory of a lineage.
constexpr bool is_data(FrameKind kind) {
    return kind == FrameKind::data || kind == FrameKind::huge_2MiB || kind == FrameKind::huge_1GiB;
}
// How many frames the record of a frame of this kind stands for.
constexpr std::uint64_t frames_of(FrameKind kind) {
    if (kind == FrameKind::huge_2MiB) return 512;
    return kind == FrameKind::huge_1GiB ? std::uint64_t{512} * 512 : 1;
}
// What a leaf at this level maps, as long as nothing else shares it by `map_shared`.
constexpr FrameKind leaf_kind(unsigned level) {
    return level == 1 ? FrameKind::data : level == 2 ? FrameKind::huge_2MiB : FrameKind::huge_1GiB;
}

// Who a frame belongs to; 0 is nobody.
using OwnerId = std::uint32_t;
inline constexpr OwnerId kOwnerCount = 1u << 19;

struct FrameMetadata {
    FrameKind kind = FrameKind::unused;
    std::uint32_t references = 0;
    std::uint16_t generation = 0;
    OwnerId owner = 0;
    std::uint64_t index = 0;

    constexpr bool is_fixed() const {
        return owner == 0 && (kind == FrameKind::data || kind == FrameKind::shared_data);
    }
    // The record of a device region's frame, from the beginning and for ever.
    static constexpr FrameMetadata of_device(std::uint64_t index) {
        return {.kind = FrameKind::shared_data, .references = 1, .generation = 1, .index = index};
    }

    static constexpr std::uint32_t kReferencesMax = (1u << 28) - 1;
    static constexpr std::uint64_t kIndexMask = (std::uint64_t{1} << 45) - 1;

    constexpr std::uint64_t word1() const {
        return (index & kIndexMask) | static_cast<std::uint64_t>(owner) << 45;
    }
    constexpr std::uint64_t word0(FrameNumber frame) const {
        const std::uint64_t low = static_cast<std::uint64_t>(kind) |
                                  static_cast<std::uint64_t>(references) << 4 |
                                  static_cast<std::uint64_t>(generation) << 32;
        return low | static_cast<std::uint64_t>(check(frame, low, word1())) << 48;
    }
    // The generation stands in word 0 and is never torn, whatever became of word 1.
    static constexpr std::uint16_t generation_of(std::uint64_t word0) {
        return static_cast<std::uint16_t>(word0 >> 32);
    }
    static constexpr FrameKind kind_of(std::uint64_t word0) {
        return static_cast<FrameKind>(word0 & 15);
    }
    static constexpr bool is_valid(FrameNumber frame, std::uint64_t word0, std::uint64_t word1) {
        return kind_of(word0) != FrameKind::unused &&
               word0 >> 48 == check(frame, word0 & 0xffff'ffff'ffff, word1);
    }
    static constexpr FrameMetadata decode(std::uint64_t word0, std::uint64_t word1) {
        return {.kind = kind_of(word0),
                .references = static_cast<std::uint32_t>(word0 >> 4) & kReferencesMax,
                .generation = generation_of(word0),
                .owner = static_cast<OwnerId>(word1 >> 45),
                .index = word1 & kIndexMask};
    }
    // Word 0 of a free frame that keeps its generation.
    static constexpr std::uint64_t free_word0(FrameNumber frame, std::uint16_t generation) {
        return FrameMetadata{.kind = FrameKind::free, .generation = generation}.word0(frame);
    }

    friend constexpr bool operator==(const FrameMetadata&, const FrameMetadata&) = default;

  private:
    static constexpr std::uint32_t check(FrameNumber frame, std::uint64_t low,
                                         std::uint64_t word1) {
        const bool is_free = kind_of(low) == FrameKind::free;
        return Crc16()
            .add_bytes(frame.value(), 5)
            .add_bytes(low, 6)
            .add_bytes(is_free ? 0 : word1, 8)
            .value();
    }
};

// How many bytes of metadata a frame has on the medium.
inline constexpr std::uint64_t kFrameMetadataBytes = 16;

}  // namespace holdfast::format
