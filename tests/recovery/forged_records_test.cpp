// Records whose checks fit and that cannot be: they are refused as damaged, and lead nowhere.
// Found by the fuzzers (fuzz/targets).
#include <gtest/gtest.h>

#include <optional>

#include "format/annotation.hpp"
#include "format/build_record.hpp"
#include "format/limbo.hpp"
#include "holdfast/repair.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace format;
using namespace holdfast::literals;

class ForgedRecords : public testing::Test {
  protected:
    ForgedRecords() : store(pool.create(16_MiB)) {}
    memory::PhysicalMemory& memory() { return store->state().memory; }
    void forge_region(void (*change)(RegionRecord&)) {
        RegionRecord& record = memory().superblock().regions[0];
        change(record);
        record.checksum = record.computed_checksum();
        store.reset();
        const auto opened = Store::open(pool.path(), {.emulation = PmemEmulation::on});
        ASSERT_FALSE(opened);
        EXPECT_EQ(opened.error().code, ErrorCode::damaged) << opened.error().message;
    }

    const TemporaryPool pool;
    std::optional<Store> store;
};

TEST_F(ForgedRecords, MetadataOutsideThePool) {
    forge_region([](RegionRecord& record) { record.metadata_offset = std::uint64_t{1} << 40; });
}
TEST_F(ForgedRecords, FramesOutsideThePool) {
    forge_region([](RegionRecord& record) { record.frames_offset = 0 - std::uint64_t{4096}; });
}
TEST_F(ForgedRecords, MoreFramesThanThePoolHas) {
    forge_region([](RegionRecord& record) {
        record.frame_count = record.window_frames = std::uint64_t{1} << 30;
    });
}
TEST_F(ForgedRecords, MoreFramesThanTheWindow) {
    forge_region([](RegionRecord& record) { record.window_frames = 10; });
}
TEST_F(ForgedRecords, ARegionWithoutFrames) {
    forge_region([](RegionRecord& record) { record.frame_count = record.initialized = 0; });
}

TEST_F(ForgedRecords, NoRegions) {
    memory().superblock().region_count = CheckedWord::encode(0, kSeedRegionCount);
    store.reset();
    const auto opened = Store::open(pool.path(), {.emulation = PmemEmulation::on});
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::damaged);
}

TEST_F(ForgedRecords, ABuildRecordThatLeadsToItself) {
    auto build = value_of(store->state().build_log.acquire());
    must(store->state().build_log.reserve(build, 3));
    for (const std::uint32_t count : {1U, 0U}) {
        auto* const record = reinterpret_cast<BuildRecord*>(memory().host(build.head));
        record->next = build.head.value();
        record->count = count;
        record->checksum = record->computed_checksum();
        const auto read = memory::BuildLog::read_slot(memory(), build.slot);
        ASSERT_FALSE(read);
        EXPECT_EQ(read.error().code, ErrorCode::damaged);
    }
}

TEST_F(ForgedRecords, ABuildOfMoreFramesThanThereAre) {
    auto build = value_of(store->state().build_log.acquire());
    must(store->state().build_log.reserve(build, 3));
    auto* const record = reinterpret_cast<BuildRecord*>(memory().host(build.head));
    record->extents[0] = Extent{build.head, Extent::kCountMax}.encoded();
    record->checksum = record->computed_checksum();
    EXPECT_FALSE(memory::BuildLog::read_slot(memory(), build.slot));
}

TEST_F(ForgedRecords, ALimboPageThatLeadsToItself) {
    value_of(store->create_space("gone"));
    must(store->remove_space("gone"));
    const FrameNumber head(*CheckedWord::decode(memory().superblock().limbo_head, kSeedLimboHead));
    ASSERT_NE(head, FrameNumber{});
    reinterpret_cast<LimboPage*>(memory().host(head))->next =
        CheckedWord::encode(head.value(), kSeedLimboNext);
    EXPECT_FALSE(store->verify().clean());
}

// A range that no space has: it is not walked (the longest would take for ever), and trimmed.
TEST_F(ForgedRecords, AnAnnotationThatReachesOutOfItsSpace) {
    constexpr VirtAddr kPlace(0x4000'0000);
    for (const std::uint64_t pages :
         {std::uint64_t{1} << 36, std::uint64_t{1} << 60, ~std::uint64_t{0}}) {
        SCOPED_TRACE(pages);
        const TemporaryPool own;
        {
            Store made = own.create(16_MiB);
            Space space = value_of(made.create_space("a"));
            must(space.map({kPlace, kPageSize}, protection::rw, {.name = "name"}));
            auto& state = made.state();
            const auto of = value_of(state.find_space("a"));
            pool::OrderedMap map(*state.pool, of->annotations);
            const std::uint64_t first = table::page_index(kPlace, Levels::four);
            auto forged = *Annotation::decode(Annotation::encode_key(first),
                                              *map.get(Annotation::encode_key(first)));
            forged.page_count = pages;
            holdfast::pool::WriteSet none;
            must(state.pool->commit(none, [&](holdfast::pool::TransactionScope& scope) {
                map.put(scope, Annotation::encode_key(first), forged.encode_value());
                return Result<void>();
            }));
            const VerifyReport report = made.verify({.threads = 1});
            ASSERT_EQ(report.findings.size(), 1U);
            EXPECT_EQ(report.findings.front().what, "I7 annotation");
        }
        value_of(repair_file(own.path(), {.emulation = PmemEmulation::on, .threads = 1}));
        Store mended = own.open();
        expect_clean(mended);
        const auto maps = value_of(value_of(mended.open_space("a")).maps());
        ASSERT_EQ(maps.size(), 1U);
        EXPECT_EQ(maps[0].range, (Range{kPlace, kPageSize}));
        // Where the range has no end, nothing says what of it is named.
        EXPECT_EQ(maps[0].name, pages == ~std::uint64_t{0} ? "" : "name");
    }
}

}  // namespace
}  // namespace holdfast::test
