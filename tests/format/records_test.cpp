// The other records on the medium: each notices every flipped bit.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <memory>

#include "format/annotation.hpp"
#include "format/build_record.hpp"
#include "format/checked_word.hpp"
#include "format/frame_metadata.hpp"
#include "format/limbo.hpp"
#include "format/space_record.hpp"
#include "format/superblock.hpp"

namespace holdfast::format {
namespace {

// Flips each bit of `size_bytes` bytes of a record in turn; `is_valid` must refuse all of them.
template <typename Record, typename IsValid>
void expect_every_flip_noticed(Record& record, std::size_t size_bytes, const IsValid& is_valid) {
    ASSERT_TRUE(is_valid(record));
    auto* const bytes = reinterpret_cast<unsigned char*>(&record);
    for (std::size_t bit = 0; bit < size_bytes * 8; ++bit) {
        bytes[bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
        EXPECT_FALSE(is_valid(record)) << "bit " << bit;
        bytes[bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
    }
}

TEST(FrameMetadata, RoundTrips) {
    const FrameMetadata metadata{.kind = FrameKind::table_3,
                                 .references = FrameMetadata::kReferencesMax,
                                 .generation = 0xfffe,
                                 .owner = kOwnerCount - 1,
                                 .index = FrameMetadata::kIndexMask};
    const FrameNumber frame(0x10'0007);
    EXPECT_TRUE(FrameMetadata::is_valid(frame, metadata.word0(frame), metadata.word1()));
    EXPECT_EQ(FrameMetadata::decode(metadata.word0(frame), metadata.word1()), metadata);
}

TEST(FrameMetadata, EveryFlippedBitIsNoticed) {
    const FrameNumber frame(0x10'0007);
    for (const unsigned kind : {2u, 4u, 6u, 7u, 8u, 10u, 11u, 12u, 13u, 14u, 15u}) {
        EXPECT_GE(std::popcount(kind ^ static_cast<unsigned>(FrameKind::free)), 2) << kind;
        const FrameMetadata metadata{.kind = static_cast<FrameKind>(kind),
                                     .references = 3,
                                     .generation = 0x1234,
                                     .owner = 77,
                                     .index = 0x1'2345'6789};
        std::uint64_t words[2] = {metadata.word0(frame), metadata.word1()};
        expect_every_flip_noticed(words, sizeof words, [&](const std::uint64_t(&each)[2]) {
            return FrameMetadata::is_valid(frame, each[0], each[1]);
        });
    }
}

TEST(FrameMetadata, AFreeFrameIsDecidedByItsFirstWordAlone) {
    const FrameNumber frame(0x10'0007);
    const std::uint64_t word0 = FrameMetadata::free_word0(frame, 9);
    for (const std::uint64_t word1 : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0x5555}})
        EXPECT_TRUE(FrameMetadata::is_valid(frame, word0, word1));
    for (unsigned bit = 0; bit < 64; ++bit)
        EXPECT_FALSE(FrameMetadata::is_valid(frame, word0 ^ std::uint64_t{1} << bit, 0)) << bit;
}

TEST(FrameMetadata, BelongsToItsFrame) {
    const FrameMetadata metadata{.kind = FrameKind::data, .references = 1, .owner = 1, .index = 2};
    EXPECT_FALSE(
        FrameMetadata::is_valid(FrameNumber(8), metadata.word0(FrameNumber(9)), metadata.word1()));
    EXPECT_FALSE(FrameMetadata::is_valid(FrameNumber(8), 0, 0)) << "zeroed metadata is damage";
}

TEST(CheckedWord, EveryFlippedBitAndEveryOtherPlaceIsNoticed) {
    std::uint64_t word = CheckedWord::encode(0x1234'5678, kSeedLimboHead);
    EXPECT_EQ(CheckedWord::decode(word, kSeedLimboHead), 0x1234'5678u);
    expect_every_flip_noticed(word, sizeof word, [](std::uint64_t each) {
        return CheckedWord::decode(each, kSeedLimboHead).has_value();
    });
    EXPECT_FALSE(CheckedWord::decode(word, kSeedBootEpoch));
    EXPECT_FALSE(CheckedWord::decode(0, kSeedLimboHead)) << "a lost line is not a valid zero";
}

TEST(Superblock, EveryFlippedBitIsNoticed) {
    auto block = std::make_unique<Superblock>();
    std::memset(static_cast<void*>(block.get()), 0, sizeof *block);
    block->magic = kMagic;
    block->format_version = kFormatVersion;
    block->checksum = block->computed_checksum();
    expect_every_flip_noticed(*block, 128, [](const Superblock& each) {
        return each.checksum == each.computed_checksum();
    });
}

TEST(RegionRecord, EveryFlippedBitIsNoticed) {
    RegionRecord record{};
    record.base_frame = 0x10'0000;
    record.checksum = record.computed_checksum();
    expect_every_flip_noticed(record, sizeof record, [](const RegionRecord& each) {
        return each.checksum == each.computed_checksum();
    });
}

TEST(SpaceRecord, EveryFlippedBitOfTheFixedPartIsNoticed) {
    SpaceRecord record{};
    record.magic = kSpaceMagic;
    record.checksum = record.computed_checksum();
    expect_every_flip_noticed(record, offsetof(SpaceRecord, root), [](const SpaceRecord& each) {
        return each.checksum == each.computed_checksum();
    });
}

TEST(LimboRecord, EveryFlippedBitIsNoticed) {
    LimboRecord record{};
    record.entry = 0x1234;
    record.checksum = record.computed_checksum();
    expect_every_flip_noticed(record, sizeof record, [](const LimboRecord& each) {
        return each.checksum == each.computed_checksum();
    });
}

TEST(BuildRecord, EveryFlippedBitOfWhatItHoldsIsNoticed) {
    auto record = std::make_unique<BuildRecord>();
    std::memset(static_cast<void*>(record.get()), 0, sizeof *record);
    record->count = 3;
    for (unsigned i = 0; i < 3; ++i) record->extents[i] = Extent{FrameNumber(i), i + 1}.encoded();
    record->checksum = record->computed_checksum();
    expect_every_flip_noticed(*record, 16 + 3 * 8, [](const BuildRecord& each) {
        return each.checksum == each.computed_checksum();
    });
}

TEST(Extent, RoundTrips) {
    const Extent extent{FrameNumber((std::uint64_t{1} << 40) - 1), Extent::kCountMax};
    EXPECT_EQ(Extent::decode(extent.encoded()), extent);
}

TEST(Annotation, RoundTripsAndNoticesDamage) {
    const Annotation annotation{
        .first_page = 0x1234, .page_count = 17, .name_offset = 0x3000, .name = "/usr/lib/libc.so"};
    const std::string key = Annotation::encode_key(0x1234);
    std::string value = annotation.encode_value();
    EXPECT_EQ(Annotation::decode(key, value), annotation);
    for (std::size_t bit = 0; bit < value.size() * 8; ++bit) {
        value[bit / 8] = static_cast<char>(value[bit / 8] ^ 1 << bit % 8);
        EXPECT_FALSE(Annotation::decode(key, value)) << bit;
        value[bit / 8] = static_cast<char>(value[bit / 8] ^ 1 << bit % 8);
    }
    EXPECT_FALSE(Annotation::decode(Annotation::encode_key(0x1235), value));
    EXPECT_LT(Annotation::encode_key(0xff), Annotation::encode_key(0x100)) << "keys sort";
}

}  // namespace
}  // namespace holdfast::format
