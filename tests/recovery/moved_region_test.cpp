// A region with another physical base: entries with the earlier numbers go on to work, and follow
// when they are walked, edited, or all at once.
#include <algorithm>

#include "format/entry.hpp"
#include "store/store_state.hpp"
#include "support/region_fixture.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

class MovedRegion : public ExternalRegion {
  protected:
    // The words of the table that maps the address, as they stand in the pool.
    std::vector<format::Entry> entries_of(VirtAddr address) {
        const auto& memory = store().state().memory;
        format::Entry entry = format::Entry(
            memory.table(FrameNumber(space().root().frame()))[format::slot_of(address, 4)]);
        for (unsigned level = 3; level > 0; --level) {
            if (level == 1) break;
            entry = format::Entry(memory.table(entry.frame())[format::slot_of(address, level)]);
        }
        std::vector<format::Entry> entries;
        for (std::uint64_t page = 0; page < kPages; ++page)
            entries.emplace_back(
                memory.table(entry.frame())[format::slot_of(address + page * kPageSize, 1)]);
        return entries;
    }
    static std::uint64_t count_within(const std::vector<format::Entry>& entries,
                                      const RegionInfo& region) {
        return static_cast<std::uint64_t>(
            std::count_if(entries.begin(), entries.end(), [&](format::Entry entry) {
                return PhysAddr::of(entry.frame()).bits() - region.physical_base.bits() <
                       region.size_bytes;
            }));
    }
    void expect_all_everywhere() {
        expect_all(space(), kInPool, kPages);
        expect_all(space(), kInRegion, kPages + kMorePages);
    }
};

TEST_F(MovedRegion, EntriesFollowWhenTheyAreWalked) {
    const PhysAddr before = store().regions().at(region_).physical_base;
    must(store().move_region(region_));
    reopen();
    const RegionInfo region = store().regions().at(region_);
    EXPECT_GT(region.physical_base.bits(), before.bits());
    EXPECT_EQ(region.physical_base.bits() % 1_GiB, region.file_offset % 1_GiB);
    EXPECT_EQ(count_within(entries_of(kInRegion), region), 0u) << "nothing is repaired by opening";
    // One walk repairs the entry that it needs, and has the right answer already.
    EXPECT_LT(space().translate(kInRegion)->physical.bits() - region.physical_base.bits(),
              region.size_bytes);
    EXPECT_EQ(count_within(entries_of(kInRegion), region), 1u);
    expect_all_everywhere();
    EXPECT_EQ(count_within(entries_of(kInRegion), region), kPages);
    expect_clean(store());
}

TEST_F(MovedRegion, ThePoolsOwn) {
    const auto before = store().regions().at(0).physical_base;
    const std::uint64_t root_before = space().root().bits();
    must(store().move_region(0));
    reopen();
    const std::uint64_t distance = store().regions().at(0).physical_base.bits() - before.bits();
    EXPECT_NE(distance, 0u);
    EXPECT_EQ(space().root().bits(), root_before + distance) << "as CR3 wants it";
    expect_clean(store());
    expect_all_everywhere();
    reopen();
    expect_all_everywhere();
    expect_clean(store());
}

TEST_F(MovedRegion, EditsBeforeAnyWalk) {
    for (const unsigned moved : {0u, region_}) must(store().move_region(moved));
    reopen();
    Space opened = space();
    const std::uint64_t pages = kPages + kMorePages;
    must(opened.protect({kInRegion, pages * kPageSize}, protection::r));
    must(opened.map_shared({VirtAddr(0x4000'0000), 3 * kPageSize}, protection::rw, opened,
                           {kInPool, kPageSize}));
    must(opened.unmap({kInPool + kPageSize, 2 * kPageSize}));
    must(opened.unmap({kInPool + 3 * kPageSize, (kPages - 3) * kPageSize}));
    value_of(store().create_space("another"));
    must(store().rename_space("another", "other"));
    must(store().remove_space("other"));
    expect_all(opened, kInRegion, pages);
    for (std::uint64_t page = 0; page < 3; ++page)
        expect_all(opened, VirtAddr(0x4000'0000) + page * kPageSize, 1);
    value_of(store().release_limbo());
    expect_clean(store());
}

// What stood in limbo, and in the record of a build that never ended, has numbers of before.
TEST_F(MovedRegion, LimboAndBuilds) {
    must(space().map({VirtAddr(0x8000'0000), 8_MiB}, protection::rw));
    must(space().unmap({VirtAddr(0x8000'0000), 8_MiB}));
    auto& state = store().state();
    memory::Build build = value_of(state.build_log.acquire());
    must(state.build_log.reserve(build, 50));  // and the process "dies"
    must(store().move_region(0));
    reopen();
    EXPECT_NE(store().verify().frames_building, 0u);
    EXPECT_NE(store().verify().frames_limbo, 0u);
    expect_clean(store());
    value_of(store().release_limbo());
    EXPECT_EQ(store().verify().frames_building + store().verify().frames_limbo, 0u);
    expect_clean(store());
    expect_all_everywhere();
}

TEST_F(MovedRegion, AgainOnlyWhenFinished) {
    for (int round = 0; round < 3; ++round) {
        for (const unsigned moved : {0u, region_}) {
            must(store().move_region(moved));
            EXPECT_EQ(store().move_region(moved).error().code, ErrorCode::busy);
            EXPECT_EQ(store().finish_moves().error().code, ErrorCode::busy);
        }
        reopen();
        EXPECT_EQ(store().move_region(0).error().code, ErrorCode::busy);
        if (round == 1) expect_all_everywhere();
        must(store().finish_moves());
        EXPECT_EQ(count_within(entries_of(kInRegion), store().regions().at(region_)), kPages);
        reopen();
        expect_all_everywhere();
        expect_clean(store());
    }
}

// The earlier numbers of the second move were forgotten, and with them every table.
TEST_F(MovedRegion, FinishedMovedAndNotFinishedInOneOpening) {
    must(store().move_region(0));
    reopen();
    must(store().finish_moves());
    must(store().move_region(0));
    EXPECT_EQ(store().finish_moves().error().code, ErrorCode::busy);
    reopen();
    expect_all_everywhere();
    expect_clean(store());
    must(store().finish_moves());
    reopen();
    expect_all_everywhere();
}

TEST_F(MovedRegion, ToAWishedBase) {
    const RegionInfo region = store().regions().at(region_);
    const PhysAddr wish(region.physical_base.bits() + 64_GiB);
    EXPECT_EQ(store().move_region(region_, PhysAddr(wish.bits() + kPageSize)).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(store().move_region(region_, region.physical_base).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(store().move_region(9).error().code, ErrorCode::invalid_argument);
    must(store().move_region(region_, wish));
    reopen();
    EXPECT_EQ(store().regions().at(region_).physical_base, wish);
    expect_all_everywhere();
}

}  // namespace
}  // namespace holdfast::test
