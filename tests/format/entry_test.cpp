// The tag of an entry: what it must notice, exhaustively where the space is small enough.
#include "format/entry.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string_view>
#include <vector>

namespace holdfast::format {
namespace {

constexpr std::uint64_t kIgnoredByTag = Entry::kAccessed | Entry::kDirty;

std::vector<std::pair<Entry, unsigned>> sample_entries(unsigned slot, std::uint16_t generation) {
    std::vector<std::pair<Entry, unsigned>> entries;
    for (const std::uint64_t frame : {0x10'0000ull, 0x10'0001ull, 0xff'ffff'ffffull, 0x12'3456ull})
        for (unsigned level = 1; level <= 5; ++level) {
            entries.emplace_back(Entry::table(FrameNumber(frame), {level, slot}, generation),
                                 level);
            entries.emplace_back(
                Entry::table(FrameNumber(frame), {level, slot}, generation, Sharing::copy_on_write),
                level);
            if (level > 3) continue;
            for (const Sharing sharing : {Sharing::exclusive, Sharing::copy_on_write})
                for (std::uint8_t mask = 0; mask < 16; ++mask)
                    entries.emplace_back(Entry::leaf(FrameNumber(frame), Protection(mask),
                                                     {level, slot}, generation, sharing),
                                         level);
        }
    return entries;
}

TEST(Entry, HasTheProcessorsBits) {
    const Entry entry =
        Entry::leaf(FrameNumber(0x12345), protection::rw | protection::u, {1, 7}, 3);
    EXPECT_EQ(entry.bits() & 0xfff & ~Entry::kTagMask, 0x7u);  // P, R/W, U/S
    EXPECT_EQ(entry.bits() & Entry::kFrameMask, 0x12345000u);
    EXPECT_NE(entry.bits() & Entry::kNoExecute, 0u);
    EXPECT_EQ(Entry::leaf(FrameNumber(512), protection::rx, {2, 0}, 0).bits() & 0x80, 0x80u);  // PS
    EXPECT_EQ(Entry::leaf(FrameNumber(512), protection::rx, {2, 0}, 0).bits() >> 63, 0u);
    EXPECT_EQ(Entry::table(FrameNumber(9), {4, 511}, 1).bits() & 0x87, 0x7u);
}

TEST(Entry, OfWhatIsSharedPermitsNoWritingAndKeepsWhatTheMappingPermits) {
    for (const unsigned level : {1u, 2u, 3u})
        for (std::uint8_t mask = 0; mask < 16; ++mask) {
            const Protection mapped = Protection(mask) | protection::r;
            const Entry own =
                Entry(Entry::leaf(FrameNumber(512), mapped, {level, 5}, 7).bits() | kIgnoredByTag);
            const Entry shared = own.with_sharing(Sharing::copy_on_write, {level, 5}, 7);
            EXPECT_TRUE(shared.tag_fits({level, 5}, 7));
            EXPECT_FALSE(shared.is_writable());
            EXPECT_EQ(shared.is_copy_on_write(), mapped.writable());
            EXPECT_EQ(shared.mapped_protection(), mapped);
            EXPECT_EQ(shared.frame(), own.frame());
            // A and D are kept, and so is all else.
            EXPECT_EQ(shared.with_sharing(Sharing::exclusive, {level, 5}, 7), own);
            EXPECT_EQ(shared.with_protection(protection::r, {level, 5}, 7).mapped_protection(),
                      protection::r);
        }
    const Entry link = Entry::table(FrameNumber(9), {4, 1}, 2);
    const Entry shared = link.with_sharing(Sharing::copy_on_write, {4, 1}, 2);
    EXPECT_EQ(shared, Entry::table(FrameNumber(9), {4, 1}, 2, Sharing::copy_on_write));
    EXPECT_TRUE(shared.is_table(4));
    EXPECT_FALSE(shared.is_copy_on_write());
    // The mark is a leaf's, and no leaf that may be written has it.
    EXPECT_FALSE(Entry(link.bits() | Entry::kCopyOnWrite).tag_fits({4, 1}, 2));
}

TEST(Entry, RoundTripsProtectionAndPayload) {
    for (std::uint8_t mask = 0; mask < 16; ++mask) {
        const Protection protection(mask);
        EXPECT_EQ(Entry::leaf(FrameNumber(1), protection, {1, 0}, 0).protection(),
                  protection | protection::r);
        const Entry absent = Entry::absent(AbsentKind::demand_zero, protection, 0xabcdef, {3, 17});
        EXPECT_EQ(absent.protection(), protection);
        EXPECT_EQ(absent.payload(), 0xabcdefu);
        EXPECT_EQ(absent.absent_kind(), AbsentKind::demand_zero);
        EXPECT_FALSE(absent.is_present());
        EXPECT_TRUE(absent.tag_fits({3, 17}, 0));
    }
}

TEST(Entry, EveryFlippedBitIsNoticedOrIsTheProcessorsToSet) {
    for (const unsigned slot : {0u, 1u, 255u, 511u})
        for (const auto& [entry, level] : sample_entries(slot, 0x5a5a)) {
            ASSERT_TRUE(entry.tag_fits({level, slot}, 0x5a5a));
            for (unsigned bit = 0; bit < 64; ++bit) {
                const Entry flipped(entry.bits() ^ (std::uint64_t{1} << bit));
                const bool harmless = kIgnoredByTag >> bit & 1;
                EXPECT_EQ(flipped.tag_fits({level, slot}, 0x5a5a), harmless)
                    << "bit " << bit << " of level " << level;
            }
        }
}

TEST(Entry, EveryFlippedBitOfAnAbsentEntryIsNoticed) {
    for (unsigned kind = 1; kind <= 5; ++kind)
        for (unsigned level = 1; level <= 5; ++level)
            for (const std::uint64_t payload : {0ull, 1ull, 0xff'ffff'ffffull}) {
                const Entry entry = Entry::absent(static_cast<AbsentKind>(kind), protection::rw,
                                                  payload, {level, 300});
                ASSERT_TRUE(entry.tag_fits({level, 300}, 0));
                for (unsigned bit = 0; bit < 64; ++bit)
                    EXPECT_FALSE(
                        Entry(entry.bits() ^ (std::uint64_t{1} << bit)).tag_fits({level, 300}, 0));
            }
}

TEST(Entry, EveryPairOfFlippedBitsIsNoticed) {
    const Entry entry = Entry::leaf(FrameNumber(0x4'0007), protection::rw, {1, 33}, 9);
    for (unsigned a = 0; a < 64; ++a)
        for (unsigned b = a + 1; b < 64; ++b) {
            const std::uint64_t mask = std::uint64_t{1} << a | std::uint64_t{1} << b;
            if ((mask & ~kIgnoredByTag) == 0) continue;
            EXPECT_FALSE(Entry(entry.bits() ^ mask).tag_fits({1, 33}, 9)) << a << " " << b;
        }
}

TEST(Entry, FlippedBitOfAnEmptyEntryIsNoticed) {
    // With P flipped the target is frame 0, which no region has; otherwise the absent mark is
    // missing, or there is no kind.
    for (unsigned level = 1; level <= 5; ++level)
        for (unsigned bit = 1; bit < 64; ++bit)
            EXPECT_FALSE(Entry(std::uint64_t{1} << bit).tag_fits({level, 5}, 0)) << bit;
}

TEST(Entry, BelongsToOneSlotAndLevel) {
    const Entry entry = Entry::table(FrameNumber(0x4'0007), {2, 100}, 9);
    for (unsigned level = 1; level <= 5; ++level)
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot)
            // A CRC of ten bits notices every change within ten neighbouring bits: any other
            // slot of this level. Another level together with another slot may collide.
            if ((level == 2) != (slot == 100)) {
                EXPECT_FALSE(entry.tag_fits({level, slot}, 9)) << level << " " << slot;
            }
}

TEST(Entry, BelongsToOneTable) {
    const EntryPlace in_table_1{1, 33, 5, 0x1234'5678}, in_table_2{2, 33, 5, 0x1234'5678};
    const std::pair<Entry, EntryPlace> entries[] = {
        {Entry::leaf(FrameNumber(0x4'0007), protection::rw, in_table_1, 9), in_table_1},
        {Entry::absent(AbsentKind::guard, protection::r, 0, in_table_1), in_table_1},
        {Entry::table(FrameNumber(0x4'0007), in_table_2, 9), in_table_2}};
    for (const auto& [entry, own] : entries) {
        ASSERT_TRUE(entry.tag_fits(own, 9));
        EntryPlace other = own;
        for (unsigned bit = 0; bit < 45; ++bit) {
            other.index = own.index ^ std::uint64_t{1} << bit;
            EXPECT_FALSE(entry.tag_fits(other, 9)) << "index, bit " << bit;
        }
        other = own;
        for (unsigned bit = 0; bit < 19; ++bit) {
            other.owner = own.owner ^ 1U << bit;
            EXPECT_FALSE(entry.tag_fits(other, 9)) << "owner, bit " << bit;
        }
        // Neighbours, and other lineages that are not far.
        other = own;
        for (std::uint64_t next = 1; next < 512; ++next) {
            other.index = own.index ^ next;
            EXPECT_FALSE(entry.tag_fits(other, 9)) << next;
        }
    }
}

TEST(Entry, TheNextThousandGenerationsAreNoticed) {
    // A frame that was freed and reused carries a later generation, wrapping included.
    for (std::uint32_t generation = 0; generation < 0x1'0000; generation += 7) {
        const Entry entry = Entry::leaf(FrameNumber(0x4'0007), protection::rw, {1, 33},
                                        static_cast<std::uint16_t>(generation));
        for (std::uint32_t later = 1; later <= 3; ++later)
            EXPECT_FALSE(entry.tag_fits({1, 33}, static_cast<std::uint16_t>(generation + later)));
    }
}

TEST(Entry, ChangingProtectionKeepsAccessedAndDirty) {
    const Entry entry(Entry::leaf(FrameNumber(77), protection::rwx, {1, 3}, 4).bits() |
                      kIgnoredByTag);
    const Entry changed = entry.with_protection(protection::r, {1, 3}, 4);
    EXPECT_EQ(changed.bits() & kIgnoredByTag, kIgnoredByTag);
    EXPECT_TRUE(changed.tag_fits({1, 3}, 4));
    EXPECT_EQ(changed.frame(), FrameNumber(77));
    EXPECT_EQ(changed.protection(), protection::r);
}

TEST(Crc, MatchesThePublishedCheckValues) {
    // "123456789", as in the catalogue of parametrised CRC algorithms.
    const auto of_digits = [](auto crc) {
        for (const char c : std::string_view("123456789"))
            crc.add_byte(static_cast<std::uint8_t>(c));
        return crc.value();
    };
    EXPECT_EQ(of_digits(Crc<10, 0x233, 0>()), 0x199u);                     // CRC-10/ATM
    EXPECT_EQ(of_digits(Crc16()), 0x29b1u);                                // CRC-16/IBM-3740
    EXPECT_EQ(of_digits(Crc<32, 0x04c11db7, 0xffffffff>()), 0x0376e6e7u);  // CRC-32/MPEG-2
}

template <typename Each>
class CrcOfWidth : public testing::Test {};
using Widths = testing::Types<Crc10, Crc16, Crc32, Crc<8, 0x07, 0>, Crc<24, 0x864cfb, 0xb704ce>>;
TYPED_TEST_SUITE(CrcOfWidth, Widths);

TYPED_TEST(CrcOfWidth, BytesTogetherAreTheSameAsOneAfterAnother) {
    std::uint64_t word = 0x0123'4567'89ab'cdef;
    for (int round = 0; round < 1000; ++round) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        for (unsigned count = 0; count <= 8; ++count) {
            // Behind another word, so that the remainder so far is any.
            TypeParam together, alone;
            together.add_bytes(~word, 8).add_bytes(word, count);
            for (unsigned i = 8; i-- > 0;)
                alone.add_byte(static_cast<std::uint8_t>(~word >> 8 * i));
            for (unsigned i = count; i-- > 0;)
                alone.add_byte(static_cast<std::uint8_t>(word >> 8 * i));
            ASSERT_EQ(together.value(), alone.value()) << word << " " << count;
        }
    }
}

TYPED_TEST(CrcOfWidth, ARunOfBytesIsTheSameAsOneAfterAnother) {
    std::array<std::byte, 41> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 + 11);
    TypeParam alone;
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_EQ(TypeParam().add(std::span(bytes).first(size)).value(), alone.value()) << size;
        alone.add_byte(static_cast<std::uint8_t>(bytes[size]));
    }
}

}  // namespace
}  // namespace holdfast::format
