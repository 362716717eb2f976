// `verify` names each invariant that does not hold: every one is broken here on purpose.
#include "holdfast/verify.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "format/entry.hpp"
#include "format/frame_metadata.hpp"
#include "format/space_record.hpp"
#include "space/space_state.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using format::Entry;
using format::FrameKind;
using format::FrameMetadata;

class Verify : public testing::Test {
  protected:
    Verify() : store(pool.create()), space(value_of(store.create_space("space"))) {
        must(space.map({kAddress, 3 * kPageSize}, protection::rw, {.name = "name"}));
        EXPECT_TRUE(store.verify().clean());
    }
    memory::PhysicalMemory& memory() { return store.state().memory; }
    std::uint64_t* entry(unsigned level) {
        FrameNumber table = space.state().root().entry.frame();
        for (unsigned at = 4; at > level; --at)
            table = Entry(memory().table(table)[format::slot_of(kAddress, at)]).frame();
        return memory().table(table) + format::slot_of(kAddress, level);
    }
    FrameNumber frame() { return space.translate(kAddress)->physical.frame(); }
    void set_metadata(FrameNumber frame, const FrameMetadata& metadata) {
        memory().metadata(frame).word0[0] = metadata.word0(memory().metadata(frame).home);
        memory().metadata(frame).word0[1] = metadata.word1();
    }
    // Exactly these invariants are reported.
    void expect(const std::vector<std::string>& invariants) {
        std::set<std::string> found;
        for (const Finding& finding : store.verify().findings) found.insert(finding.what);
        EXPECT_THAT(found, testing::UnorderedElementsAreArray(invariants));
    }
    static constexpr VirtAddr kAddress{0x1234'5678'9000};
    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST_F(Verify, CountsWhatIsThere) {
    const VerifyReport report = store.verify();
    EXPECT_EQ(report.mapped_pages, 3u);
    EXPECT_EQ(report.tables, 4u);
    EXPECT_EQ(report.frames_reachable, 3u + 4 + 1);  // pages, tables, the space record
    EXPECT_EQ(report.frames_total, report.frames_reachable + report.frames_free);
}

TEST_F(Verify, I1EntryAndTheRangeThatIsLost) {
    *entry(1) ^= Entry::kWritable;
    const VerifyReport report = store.verify();
    ASSERT_FALSE(report.clean());
    EXPECT_EQ(report.findings[0].what, "I1 entry");
    EXPECT_EQ(report.findings[0].space, "space");
    EXPECT_EQ(report.findings[0].range, (Range{kAddress, kPageSize}));
    // What the entry led to is accounted for by nothing now.
    expect({"I1 entry", "I4 account"});
}

TEST_F(Verify, I2Table) {
    const FrameNumber table = Entry(*entry(2)).frame();
    FrameMetadata metadata = *memory().valid_metadata(table);
    ++metadata.index;
    set_metadata(table, metadata);
    expect({"I2 table", "I4 account"});
}

TEST_F(Verify, I3Reference) {
    FrameMetadata metadata = *memory().valid_metadata(frame());
    metadata.references = 2;
    set_metadata(frame(), metadata);
    expect({"I3 reference"});
}

TEST_F(Verify, SaysWhereAFrameIsThatIsUsedTwice) {
    Space other = value_of(store.create_space("other"));
    const VirtAddr elsewhere(0x5000'0000);
    must(other.map_shared({elsewhere, kPageSize}, protection::r, space, {kAddress, kPageSize}));
    must(space.map_shared({elsewhere, kPageSize}, protection::r, space, {kAddress, kPageSize}));
    ASSERT_TRUE(store.verify().clean());
    FrameMetadata metadata = *memory().valid_metadata(frame());
    ASSERT_EQ(metadata.references, 3u);
    metadata.references = 1;
    set_metadata(frame(), metadata);
    const VerifyReport report = store.verify();
    ASSERT_EQ(report.findings.size(), 1u);
    EXPECT_THAT(report.findings[0].detail,
                testing::HasSubstr("has 3 references and says 1; in \"other\" at "
                                   "0x50000000-0x50001000, in \"space\" at 0x50000000-0x50001000, "
                                   "in \"space\" at 0x123456789000-0x12345678a000"));
}

TEST_F(Verify, I4LeakedFrame) {
    const FrameNumber leaked = frame() + 1000;
    set_metadata(leaked, {.kind = FrameKind::data, .references = 1, .owner = 1, .index = 9});
    expect({"I4 account"});
}

TEST_F(Verify, I4UsedAndFree) {
    const FrameNumber used = frame();
    memory().metadata(used).word0[0] =
        FrameMetadata::free_word0(used, memory().valid_metadata(used)->generation);
    const VerifyReport report = store.verify();
    EXPECT_FALSE(report.clean());
    expect({"I1 entry"});
}

TEST_F(Verify, I5FrameMetadata) {
    memory().metadata(frame() + 1000).word0[0] ^= 1u << 20;
    expect({"I5 metadata"});
}

TEST_F(Verify, I5SpaceRecord) {
    auto* const record =
        reinterpret_cast<format::SpaceRecord*>(memory().host(space.state().record));
    record->created_epoch ^= 1;
    expect({"I5 metadata", "I4 account"});
}

TEST_F(Verify, I6Directory) {
    auto* const record =
        reinterpret_cast<format::SpaceRecord*>(memory().host(space.state().record));
    record->name[0] = 'x';
    record->checksum = record->computed_checksum();
    expect({"I6 directory"});
}

TEST_F(Verify, I7Annotation) {
    // A name over pages that are not mapped.
    *entry(1) = 0;
    expect({"I7 annotation", "I4 account"});
}

TEST_F(Verify, TheRootItself) {
    auto* const record =
        reinterpret_cast<format::SpaceRecord*>(memory().host(space.state().record));
    record->root ^= std::uint64_t{1} << 20;
    expect({"I2 table", "I4 account"});
}

TEST_F(Verify, ATableThatLeadsToItselfEndsTheCheck) {
    const FrameNumber table = Entry(*entry(3)).frame();
    const FrameMetadata metadata = *memory().valid_metadata(table);
    // Well tagged, and the wrong level for its place.
    const unsigned slot = format::slot_of(kAddress, 2) ^ 1;
    memory().table(table)[slot] =
        Entry::table(table, {2, slot, metadata.owner, metadata.index}, metadata.generation).bits();
    expect({"I2 table"});
}

TEST_F(Verify, LimboThatNamesWhatIsInUse) {
    // As if the space had been removed, and had not.
    table::EditSession session(store.state().services);
    const FrameNumber root = space.state().root().entry.frame();
    session.detach(format::LimboKind::subtree, {4, space.state().owner, 0},
                   {root, memory().valid_metadata(root)->generation});
    must(session.commit({}));
    expect({"I4 account"});
    EXPECT_THAT(store.verify().findings[0].detail,
                testing::HasSubstr("; in \"space\" at 0x0-0x1000000000000, in limbo"));
}

TEST_F(Verify, TheSameWithAnyNumberOfThreads) {
    // A few thousand tables, and damage in some.
    for (std::uint64_t i = 0; i < 1500; ++i)
        must(space.map({VirtAddr(0x4000'0000 + (i << 21)), kPageSize}, protection::rwx,
                       {.lazy = i % 3 == 0}));
    for (std::uint64_t i = 0; i < 1500; i += 7)
        if (const auto found = space.translate(VirtAddr(0x4000'0000 + (i << 21))))
            memory().metadata(found->physical.frame()).word0[0] ^= 1u << 20;
    std::uint64_t told = 0;
    VerifyProgress last;
    const VerifyReport alone = store.verify({.threads = 1,
                                             .list_writable_executable = true,
                                             .on_progress = [&](const VerifyProgress& progress) {
                                                 ++told;
                                                 EXPECT_GE(progress.tables, last.tables);
                                                 EXPECT_GE(progress.frames, last.frames);
                                                 last = progress;
                                             }});
    EXPECT_GT(told, 10u);
    EXPECT_EQ(last.tables, alone.tables);
    EXPECT_EQ(last.frames, last.frames_total);
    EXPECT_GT(alone.findings.size(), 200u);
    EXPECT_GT(alone.writable_executable.size(), 1000u);
    for (const unsigned threads : {2u, 5u}) {
        const VerifyReport shared =
            store.verify({.threads = threads, .list_writable_executable = true});
        EXPECT_EQ(shared.findings, alone.findings);
        EXPECT_EQ(shared.writable_executable, alone.writable_executable);
        EXPECT_EQ(shared.frames_by_kind, alone.frames_by_kind);
        EXPECT_EQ(shared.mapped_pages, alone.mapped_pages);
    }
}

TEST_F(Verify, SaysWhatKindsOfFramesThereAre) {
    const FrameNumber leaked = frame() + 1000;
    for (std::uint64_t i = 0; i < 5; ++i)
        set_metadata(leaked + i, {.kind = FrameKind::shared_data, .references = 1});
    const VerifyReport report = store.verify();
    EXPECT_EQ(report.frames_by_kind, (std::map<std::string, std::uint64_t>{{"data", 3},
                                                                           {"space_record", 1},
                                                                           {"table_1", 1},
                                                                           {"table_2", 1},
                                                                           {"table_3", 1},
                                                                           {"table_4", 1}}));
    ASSERT_EQ(report.findings.size(), 1u) << "one finding for frames that are leaked alike";
    EXPECT_THAT(report.findings[0].detail, testing::HasSubstr("5 frames from"));
    EXPECT_THAT(report.findings[0].detail, testing::HasSubstr("kind shared_data"));
}

TEST_F(Verify, OfACopyWhileTheStoreLivesOn) {
    const std::string path = pool.path();
    EXPECT_EQ(Store::verify_file(path, {}, PmemEmulation::on).error().code, ErrorCode::busy);
}

}  // namespace
}  // namespace holdfast::test
