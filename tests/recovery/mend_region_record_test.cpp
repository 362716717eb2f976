// ctest-labels: noasan
//
// A region's record with a flipped bit: refused by open, told by verify, put right by repair; with
// more than one, refused by all.
#include "recovery/mend_region_record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <unordered_set>

#include "holdfast/repair.hpp"
#include "store/store_state.hpp"
#include "support/region_fixture.hpp"

namespace holdfast::test {
namespace {

using format::RegionRecord;

const RepairOptions kRepair{.emulation = PmemEmulation::on, .threads = 1};
constexpr unsigned kBits = 8 * sizeof(RegionRecord);

void flip(RegionRecord& record, unsigned bit) {
    std::as_writable_bytes(std::span(&record, 1))[bit / 8] ^= std::byte{1} << bit % 8;
}

// The premise: no two bits of damage look like one, and no two like none. The checksum is linear,
// so that it is enough to look at one record.
TEST(RegionRecord, OneFlippedBitIsNeverTakenForAnother) {
    RegionRecord record{};
    record.checksum = record.computed_checksum();
    std::unordered_set<std::uint64_t> of_one = {0};
    std::vector<std::uint64_t> syndromes;
    for (unsigned bit = 0; bit < kBits; ++bit) {
        RegionRecord damaged = record;
        flip(damaged, bit);
        syndromes.push_back(damaged.checksum ^ damaged.computed_checksum());
        EXPECT_TRUE(of_one.insert(syndromes.back()).second) << bit;
    }
    for (unsigned one = 0; one < kBits; ++one)
        for (unsigned other = 0; other < one; ++other)
            ASSERT_FALSE(of_one.contains(syndromes[one] ^ syndromes[other]))
                << one << " and " << other;
}

class MendRegionRecord : public Regions {
  protected:
    MendRegionRecord() {
        fill(value_of(store().add_external_region(file(), {.size_bytes = kRegionBytes})));
        at_ = store().state().pool->offset_of(&store().state().memory.superblock().regions[0]);
        close();
    }
    void flip_in_file(unsigned index, unsigned bit) const {
        const auto at = static_cast<std::streamoff>(at_ + index * sizeof(RegionRecord) + bit / 8);
        std::fstream pool(pool_.path(), std::ios::in | std::ios::out | std::ios::binary);
        char byte = 0;
        pool.seekg(at).read(&byte, 1);
        byte = static_cast<char>(byte ^ (1 << bit % 8));
        pool.seekp(at).write(&byte, 1);
    }
    std::string content() const {
        std::ifstream pool(pool_.path(), std::ios::binary);
        return {std::istreambuf_iterator<char>(pool), {}};
    }
    std::uint64_t at_ = 0;
};

TEST_F(MendRegionRecord, OfThePoolAndOfAFileWithWhateverBit) {
    // Each field, and the checksum, whose upper half is zeros.
    for (const unsigned bit : {0U,   9U,   17U,  24U,  40U,  70U,  195U, 258U, 330U,  390U, 449U,
                               513U, 580U, 648U, 720U, 770U, 833U, 900U, 965U, 1000U, 1023U})
        for (const unsigned index : {0U, 1U}) {
            flip_in_file(index, bit);
            const auto refused = Store::open(pool_.path(), {.emulation = PmemEmulation::on});
            ASSERT_FALSE(refused);
            EXPECT_THAT(refused.error().message, testing::HasSubstr("`repair`"));
            const auto told = value_of(Store::verify_file(pool_.path(), {}, PmemEmulation::on));
            ASSERT_EQ(told.findings.size(), 1U);
            EXPECT_EQ(told.findings[0].what, "I8 superblock");
            const auto report = value_of(repair_file(pool_.path(), kRepair));
            ASSERT_EQ(report.repaired.size(), 1U);
            EXPECT_THAT(report.repaired[0].detail, testing::HasSubstr("by one bit"));
            reopen();
            const Space opened = space();
            expect_all(opened, kInPool, kPages);
            expect_all(opened, kInRegion, kPages + kMorePages);
            expect_clean(store());
            close();
            if (HasFailure()) FAIL() << "bit " << bit << " of region " << index;
        }
}

TEST_F(MendRegionRecord, WithTheNumberOfRegionsLostAsWell) {
    flip_in_file(1, 195);
    {
        std::fstream pool(pool_.path(), std::ios::in | std::ios::out | std::ios::binary);
        const auto count = static_cast<std::streamoff>(at_ - offsetof(format::Superblock, regions) +
                                                       offsetof(format::Superblock, region_count));
        const std::uint64_t nonsense = 0x1234;
        pool.seekp(count).write(reinterpret_cast<const char*>(&nonsense), sizeof nonsense);
    }
    EXPECT_EQ(value_of(repair_file(pool_.path(), kRepair)).repaired.size(), 2U);
    reopen();
    expect_all(space(), kInRegion, kPages + kMorePages);
    expect_clean(store());
}

TEST_F(MendRegionRecord, WithTwoBitsIsRefusedAndNotChanged) {
    flip_in_file(1, 195);
    flip_in_file(1, 390);
    const std::string before = content();
    const auto refused = repair_file(pool_.path(), kRepair);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::damaged);
    EXPECT_THAT(refused.error().message, testing::HasSubstr("restore a copy"));
    EXPECT_TRUE(content() == before);
}

}  // namespace
}  // namespace holdfast::test
