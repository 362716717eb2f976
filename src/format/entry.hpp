// One entry of a page table, exactly as an x86-64 processor reads it (SDM vol. 3A, 4.5), and the
// tag that we keep in bits which the processor ignores.
//
//   present (P=1)
//   bit   0      P      present
//   bit   1      R/W    writable
//   bit   2      U/S    user
//   bit   3, 4   PWT, PCD (always 0 so far)
//   bit   5      A      accessed; set by the processor, not covered by the tag
//   bit   6      D      dirty; set by the processor, not covered by the tag
//   bit   7      PS     a leaf of 2 MiB (level 2) or 1 GiB (level 3); 0 at level 1
//   bit   8      G      global
//   bits  9..11  tag, bits 0..2
//   bits 12..51  PFN of the next table, or of the frame
//   bits 52..58  tag, bits 3..9
//   bits 59..62  0; in a leaf also 0b0101, copy-on-write: R/W is 0 though the mapping permits
//   writing,
//                and whoever writes first gets a frame of his own (a processor ignores these bits
//                while CR4.PKE is 0)
//   bit  63      NX     not executable
//
//   A link to a table has R/W = 0 for the same reason, and for no other: the table and all below it
//   are, or were, shared with other trees. What a mapping permits is said by leaves alone.
//
//   absent (P=0), at any level: then it stands for the whole range that the entry spans
//   bits  1..3   AbsentKind
//   bits  4..7   protection (rwxu)
//   bits  9..11, 52..58  tag
//   bits 12..51  payload: of a demand-zero range, the size of page that it wishes (0 for 4 KiB,
//                1 for 2 MiB, 2 for 1 GiB); of a swapped page its frame in a swap region; a page
//                in a file, …
//   bits 59..62  0b1010, from which those of a present entry differ in two bits or more: so one
//                flipped bit, P included, never turns one kind of entry into the other
//   bits  8, 63  0
//   The word 0 is the empty entry: nothing is mapped.
//
// The tag is a CRC-10 over the entry (without A, D and the tag itself), the place where it stands,
// and the generation of the frame it points to. A flipped bit, an entry in another slot, level or
// table, be it with all of its table, and an entry to a frame that was freed since, all fail it.
// The place names the table by what its frame's metadata says (owner, level, index), and no space:
// tables are shared between the spaces of one lineage, and between lineages as an owner of their
// own.
#pragma once

#include <cstdint>

#include "format/crc.hpp"
#include "format/frame_metadata.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

inline constexpr unsigned kEntriesPerTable = 512;
inline constexpr unsigned kMaxLevels = 5;
inline constexpr unsigned kLeafLevelMax = 3;  // 1 GiB
// The level at which the word that holds a root is tagged: one above the highest root.
inline constexpr unsigned kRootSlot = 0;

enum class AbsentKind : std::uint8_t {
    demand_zero = 1,
    guard = 2,
    swapped = 3,
    file_backed = 4,
    stack_room =
        5,  // what a stack may grow into; payload: the pages that stay between it and others
};

// Whether a writable mapping may be written where it is, or has to be copied first.
enum class Sharing : std::uint8_t { exclusive, copy_on_write };

// Where an entry stands.
struct EntryPlace {
    unsigned level = 0;
    unsigned slot = 0;
    OwnerId owner = 0;        // of the table, as its frame's metadata has it
    std::uint64_t index = 0;  // the same
};

class Entry {
  public:
    static constexpr std::uint64_t kPresent = 1u << 0;
    static constexpr std::uint64_t kWritable = 1u << 1;
    static constexpr std::uint64_t kUser = 1u << 2;
    static constexpr std::uint64_t kAccessed = 1u << 5;
    static constexpr std::uint64_t kDirty = 1u << 6;
    static constexpr std::uint64_t kLargePage = 1u << 7;
    static constexpr std::uint64_t kGlobal = 1u << 8;
    static constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;
    static constexpr std::uint64_t kFrameMask = 0x000f'ffff'ffff'f000;
    static constexpr std::uint64_t kTagMask = 0x07f0'0000'0000'0e00;
    static constexpr std::uint64_t kAbsentMarkMask = std::uint64_t{0xf} << 59;
    static constexpr std::uint64_t kAbsentMark = std::uint64_t{0xa} << 59;
    static constexpr std::uint64_t kCopyOnWrite = std::uint64_t{0x5} << 59;
    // What no present entry has set: PWT, PCD.
    static constexpr std::uint64_t kPresentReserved = 3u << 3;

    constexpr Entry() = default;
    constexpr explicit Entry(std::uint64_t bits) : bits_(bits) {}

    // An entry that points to a lower table. It permits everything (protection is the leaf's), but
    // for writing while the table is shared.
    static constexpr Entry table(FrameNumber frame, const EntryPlace& place,
                                 std::uint16_t generation, Sharing sharing = Sharing::exclusive) {
        return tagged(kPresent | (sharing == Sharing::exclusive ? kWritable : 0) | kUser |
                          (frame.value() << kPageShift),
                      place, generation);
    }
    static constexpr Entry leaf(FrameNumber frame, Protection protection, const EntryPlace& place,
                                std::uint16_t generation, Sharing sharing = Sharing::exclusive) {
        return tagged(kPresent | protection_bits(protection, sharing) |
                          (place.level > 1 ? kLargePage : 0) | (frame.value() << kPageShift),
                      place, generation);
    }
    static constexpr Entry absent(AbsentKind kind, Protection protection, std::uint64_t payload,
                                  const EntryPlace& place) {
        return tagged(kAbsentMark | (static_cast<std::uint64_t>(kind) << 1) |
                          (static_cast<std::uint64_t>(protection.mask()) << 4) |
                          ((payload << kPageShift) & kFrameMask),
                      place, 0);
    }
    // A page whose bytes are in a frame of a swap region, which has metadata as if it were mapped:
    // the tag covers its generation, too.
    static constexpr Entry swapped(FrameNumber frame, Protection protection,
                                   const EntryPlace& place, std::uint16_t generation) {
        return tagged(kAbsentMark | (static_cast<std::uint64_t>(AbsentKind::swapped) << 1) |
                          (static_cast<std::uint64_t>(protection.mask()) << 4) |
                          (frame.value() << kPageShift),
                      place, generation);
    }
    // The same entry with another protection (of a leaf or an absent range), A and D kept.
    constexpr Entry with_protection(Protection protection, const EntryPlace& place,
                                    std::uint16_t generation,
                                    Sharing sharing = Sharing::exclusive) const {
        if (is_swapped()) return swapped(frame(), protection, place, generation);
        if (!is_present()) return absent(absent_kind(), protection, payload(), place);
        return tagged((bits_ & ~(kWritable | kUser | kNoExecute | kCopyOnWrite | kTagMask)) |
                          protection_bits(protection, sharing),
                      place, generation);
    }
    // The same present entry, a leaf or a link, to what is shared from now on, or not any more.
    constexpr Entry with_sharing(Sharing sharing, const EntryPlace& place,
                                 std::uint16_t generation) const {
        if (is_leaf(place.level))
            return with_protection(mapped_protection(), place, generation, sharing);
        return tagged(
            (bits_ & ~(kWritable | kTagMask)) | (sharing == Sharing::exclusive ? kWritable : 0),
            place, generation);
    }

    // The same present entry to a frame that has another number now, A and D kept.
    constexpr Entry with_frame(FrameNumber frame, const EntryPlace& place,
                               std::uint16_t generation) const {
        return tagged((bits_ & ~(kFrameMask | kTagMask)) | (frame.value() << kPageShift), place,
                      generation);
    }

    constexpr std::uint64_t bits() const { return bits_; }
    constexpr bool is_empty() const { return bits_ == 0; }
    constexpr bool is_present() const { return bits_ & kPresent; }
    constexpr bool is_swapped() const {
        return !is_present() && absent_kind() == AbsentKind::swapped;
    }
    // Whether it names a frame, with a reference: a present entry, or a swapped page's.
    constexpr bool has_frame() const { return is_present() || is_swapped(); }
    constexpr bool is_leaf(unsigned level) const { return level == 1 || (bits_ & kLargePage); }
    constexpr bool is_table(unsigned level) const {
        return is_present() && level > 1 && !(bits_ & kLargePage);
    }
    constexpr FrameNumber frame() const { return FrameNumber((bits_ & kFrameMask) >> kPageShift); }
    constexpr AbsentKind absent_kind() const { return static_cast<AbsentKind>(bits_ >> 1 & 7); }
    constexpr std::uint64_t payload() const { return (bits_ & kFrameMask) >> kPageShift; }
    // Of a present entry what it permits now; of an absent one what its mapping permits.
    constexpr Protection protection() const {
        if (!is_present()) return Protection(static_cast<std::uint8_t>(bits_ >> 4 & 15));
        return protection_of(bits_, bits_);
    }
    constexpr bool is_writable() const { return bits_ & kWritable; }
    constexpr bool is_copy_on_write() const { return (bits_ & kCopyOnWrite) == kCopyOnWrite; }
    // What the mapping of a leaf or an absent range permits, be it that it is copied first.
    constexpr Protection mapped_protection() const {
        return is_present() && is_copy_on_write() ? protection() | protection::w : protection();
    }
    // What a path permits: R/W and U/S are ANDed along it, NX is ORed.
    static constexpr Protection protection_of(std::uint64_t bits_anded, std::uint64_t bits_ored) {
        static_assert(kPresent == Protection::kRead && kWritable == Protection::kWrite &&
                      kUser << 1 == Protection::kUser);
        return Protection(static_cast<std::uint8_t>(
            (bits_anded & (kPresent | kWritable)) | (bits_anded & kUser) << 1 |
            (bits_ored & kNoExecute ? 0 : Protection::kExecute)));
    }

    // Whether bits, place and the target's generation belong together. `generation` is that
    // of the frame that the entry names, and is ignored if there is none.
    constexpr bool tag_fits(const EntryPlace& place, std::uint16_t generation) const {
        if (is_present() ? !has_present_form(place.level)
                         : (bits_ & kAbsentMarkMask) != kAbsentMark)
            return false;
        if (is_present() && (bits_ & kLargePage) && place.level != 2 && place.level != 3)
            return false;
        return (bits_ & kTagMask) ==
               spread(tag_of(bits_, place, has_frame() ? generation : std::uint16_t{0}));
    }

    friend constexpr bool operator==(Entry, Entry) = default;

  private:
    constexpr bool has_present_form(unsigned level) const {
        if ((bits_ & kPresentReserved) != 0) return false;
        if ((bits_ & kAbsentMarkMask) == 0) return true;
        return (bits_ & kAbsentMarkMask) == kCopyOnWrite && is_leaf(level) && !is_writable();
    }
    static constexpr std::uint64_t protection_bits(Protection protection, Sharing sharing) {
        const std::uint64_t writable = !protection.writable()          ? 0
                                       : sharing == Sharing::exclusive ? kWritable
                                                                       : kCopyOnWrite;
        return writable | (protection.user() ? kUser : 0) |
               (protection.executable() ? 0 : kNoExecute);
    }
    static constexpr std::uint32_t tag_of(std::uint64_t bits, const EntryPlace& place,
                                          std::uint16_t generation) {
        bits &= ~(kTagMask | (bits & kPresent ? kAccessed | kDirty : 0));
        return Crc10()
            .add_bytes((place.level << 9 | place.slot) << 16 | generation, 4)
            .add_bytes(FrameMetadata{.owner = place.owner, .index = place.index}.word1(), 8)
            .add_bytes(bits, 8)
            .value();
    }
    static constexpr std::uint64_t spread(std::uint32_t tag) {
        return (std::uint64_t{tag} & 7) << 9 | (std::uint64_t{tag} >> 3) << 52;
    }
    static constexpr Entry tagged(std::uint64_t bits, const EntryPlace& place,
                                  std::uint16_t generation) {
        return Entry(bits | spread(tag_of(bits, place, generation)));
    }

    std::uint64_t bits_ = 0;
};
static_assert(sizeof(Entry) == 8);

// Which of a table's 512 entries translates `address`, and what a table or entry spans.
constexpr unsigned slot_of(VirtAddr address, unsigned level) {
    return static_cast<unsigned>(address.bits() >> (kPageShift + 9 * (level - 1))) &
           (kEntriesPerTable - 1);
}
constexpr std::uint64_t entry_span_bytes(unsigned level) {
    return std::uint64_t{1} << (kPageShift + 9 * (level - 1));
}

}  // namespace holdfast::format
