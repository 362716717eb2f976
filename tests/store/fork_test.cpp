// Forks and snapshots: what is shared, what is copied when, and what is refused. (That they behave
// as copies of everything, also beside all other calls, is model_test's; every crash, the
// harness's.)
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "format/entry.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"
#include "table/walk.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr VirtAddr kStart{0x4000'0000};

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

void write(Space where, VirtAddr address, std::uint64_t word) {
    must(where.write(address, std::as_bytes(std::span(&word, 1))));
    must(where.persist({address, sizeof word}));
}
std::uint64_t word(const Space& where, VirtAddr address) {
    std::uint64_t word = 0;
    must(where.read(address, std::as_writable_bytes(std::span(&word, 1))));
    return word;
}

class Forks : public testing::Test {
  protected:
    Forks() : store(pool.create()), space(value_of(store.create_space("space"))) {}

    std::uint64_t free_frames() {
        value_of(store.release_limbo());
        return store.verify().frames_free;
    }
    // How many frames the call takes.
    std::uint64_t taken(const std::function<void()>& call) {
        const std::uint64_t before = free_frames();
        call();
        return before - free_frames();
    }

    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST(ForksAcrossARestart, EachHasItsOwnBytes) {
    const TemporaryPool pool;
    {
        Store store = pool.create();
        Space space = value_of(store.create_space("space"));
        must(space.map({kStart, 3 * kPageSize}, protection::rw, {.name = "heap"}));
        write(space, page(0), 1);
        write(space, page(1), 2);
        Space fork = value_of(store.fork_space("space", "fork"));
        EXPECT_EQ(value_of(fork.maps()), value_of(space.maps()));
        write(space, page(0), 10);
        write(fork, page(1), 20);
        must(fork.protect({page(2), kPageSize}, protection::r));
    }
    Store store = pool.open();
    Space space = value_of(store.open_space("space")), fork = value_of(store.open_space("fork"));
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(word(space, page(0)), 10u);
        EXPECT_EQ(word(space, page(1)), 2u);
        EXPECT_EQ(word(fork, page(0)), 1u);
        EXPECT_EQ(word(fork, page(1)), 20u);
        write(space, page(2), 5);
        EXPECT_EQ(word(fork, page(2)), 0u);
    }
    EXPECT_TRUE(value_of(space.maps())[0].protection.writable());
    EXPECT_FALSE(value_of(fork.maps()).back().protection.writable());
    expect_clean(store);
}

TEST_F(Forks, CopiesAPathAndThenAPage) {
    must(space.map({kStart, 400 * kPageSize}, protection::rw));
    // The record and the root table.
    EXPECT_EQ(taken([&] { value_of(store.fork_space("space", "fork")); }), 2u);
    Space fork = value_of(store.open_space("fork"));
    const auto shared = fork.translate(page(7));
    ASSERT_TRUE(shared);
    EXPECT_EQ(shared->physical, space.translate(page(7))->physical);
    EXPECT_TRUE(shared->copy_on_write);
    EXPECT_FALSE(shared->protection.writable());
    const auto refused = fork.translate(page(7), protection::w);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, FaultKind::copy_on_write);
    EXPECT_EQ(refused.error().protection, protection::rw);

    EXPECT_EQ(taken([&] { write(fork, page(7), 1); }), 4u);  // three tables and the page
    EXPECT_FALSE(fork.translate(page(7))->copy_on_write);
    EXPECT_EQ(taken([&] { write(fork, page(7), 2); }), 0u);
    EXPECT_EQ(taken([&] { write(fork, page(8), 3); }), 1u);
    // What the fork has left is the space's alone: it takes nothing.
    EXPECT_EQ(taken([&] { write(space, page(7), 4); }), 0u);
    // And what both have is copied by whoever comes first.
    EXPECT_EQ(taken([&] { write(space, page(9), 5); }), 1u);
    EXPECT_EQ(taken([&] { write(fork, page(9), 6); }), 0u);
    EXPECT_EQ(word(space, page(8)), 0u);
    EXPECT_EQ(word(fork, page(9)), 6u);
    expect_clean(store);
}

TEST_F(Forks, NothingIsCopiedWhenTheOtherIsGone) {
    must(space.map({kStart, 1200 * kPageSize}, protection::rw));
    for (std::uint64_t i = 0; i < 1200; i += 100) write(space, page(i), i + 1);
    const std::uint64_t before = free_frames();
    Space fork = value_of(store.fork_space("space", "fork"));
    write(fork, page(3), 3);
    fork = space;
    must(store.remove_space("fork"));
    EXPECT_EQ(free_frames(), before);
    for (std::uint64_t i = 0; i < 1200; i += 50)
        EXPECT_EQ(taken([&] { write(space, page(i), i + 2); }), 0u) << i;
    for (std::uint64_t i = 0; i < 1200; i += 100) EXPECT_EQ(word(space, page(i)), i + 2);
    expect_clean(store);
}

TEST_F(Forks, ManyShareOneTable) {
    must(space.map({kStart, 600 * kPageSize}, protection::rw));
    std::vector<Space> forks;
    for (int i = 0; i < 20; ++i)
        forks.push_back(value_of(store.fork_space("space", fmt::format("fork{}", i))));
    for (std::size_t i = 0; i < forks.size(); ++i) write(forks[i], page(i), 100 + i);
    for (std::size_t i = 0; i < forks.size(); ++i)
        for (std::size_t k = 0; k < forks.size(); ++k)
            ASSERT_EQ(word(forks[i], page(k)), i == k ? 100 + i : 0);
    expect_clean(store);
    forks.clear();
    for (int i = 0; i < 20; i += 2) must(store.remove_space(fmt::format("fork{}", i)));
    expect_clean(store);
    for (int i = 1; i < 20; i += 2) must(store.remove_space(fmt::format("fork{}", i)));
    EXPECT_EQ(taken([&] { write(space, page(1), 1); }), 0u);
    expect_clean(store);
}

TEST_F(Forks, PagesThatAreMappedSharedStayShared) {
    must(space.map({kStart, 2 * kPageSize}, protection::rw));
    Space other = value_of(store.create_space("other"));
    must(other.map_shared({kStart, kPageSize}, protection::rw, space, {kStart, kPageSize}));
    Space fork = value_of(store.fork_space("space", "fork"));
    write(fork, page(0), 7);
    EXPECT_EQ(word(space, page(0)), 7u);
    EXPECT_EQ(word(other, page(0)), 7u);
    // A page that becomes shared after the fork is one of the forked space's own.
    must(other.map_shared({page(1), kPageSize}, protection::rw, fork, {page(1), kPageSize}));
    write(other, page(1), 8);
    EXPECT_EQ(word(fork, page(1)), 8u);
    EXPECT_EQ(word(space, page(1)), 0u);
    // Also if the mapping that was forked permits no writing.
    must(space.map({page(2), kPageSize}, protection::r));
    Space second = value_of(store.fork_space("space", "second"));
    must(other.map_shared({page(2), kPageSize}, protection::rw, second, {page(2), kPageSize}));
    write(other, page(2), 9);
    EXPECT_EQ(word(second, page(2)), 9u);
    EXPECT_EQ(word(space, page(2)), 0u);
    expect_clean(store);
}

TEST_F(Forks, FramesInPlaceAreCopiedBeforeTheyAreGiven) {
    must(space.map({kStart, kPageSize}, protection::rw));
    write(space, kStart, 1);
    Space fork = value_of(store.fork_space("space", "fork"));
    const auto view = fork.frame_view(kStart);
    ASSERT_TRUE(view);
    EXPECT_EQ(view->data(), space.frame_view(kStart)->data());
    const auto bytes = fork.frame_bytes(kStart);
    ASSERT_TRUE(bytes);
    (*bytes)[0] = std::byte{2};
    EXPECT_EQ(word(space, kStart), 1u);
    EXPECT_EQ(word(fork, kStart), 2u);
}

// Nothing in the entry of a page that may not be written says that others have it too.
TEST_F(Forks, FramesOfReadOnlyPagesAreCopiedBeforeTheyAreGiven) {
    must(space.map({kStart, kPageSize}, protection::rw));
    write(space, kStart, 1);
    must(space.protect({kStart, kPageSize}, protection::r));
    const Space kept = value_of(store.create_snapshot("space", "kept"));
    Space fork = value_of(store.fork_space("space", "fork"));
    const auto bytes = space.frame_bytes(kStart);
    ASSERT_TRUE(bytes);
    (*bytes)[0] = std::byte{2};
    EXPECT_EQ(word(space, kStart), 2u);
    EXPECT_EQ(word(kept, kStart), 1u);
    EXPECT_EQ(word(fork, kStart), 1u);
    EXPECT_EQ(space.translate(kStart)->protection, protection::r);
    EXPECT_FALSE(Space(kept).frame_bytes(kStart)) << "a snapshot's";
    expect_clean(store);
}

TEST_F(Forks, FaultMakesTheAccessPossible) {
    must(space.map({kStart, 2 * kPageSize}, protection::rw, {.lazy = true}));
    must(space.map({page(2), kPageSize}, protection::r));
    must(space.fault(kStart, protection::r));
    EXPECT_TRUE(space.translate(kStart, protection::r));
    EXPECT_FALSE(space.translate(kStart, protection::w)) << "it is the frame of zeros";
    must(space.fault(kStart, protection::w));
    EXPECT_TRUE(space.translate(kStart, protection::rw));
    value_of(store.fork_space("space", "fork"));
    EXPECT_FALSE(space.translate(kStart, protection::w));
    must(space.fault(kStart, protection::w));
    EXPECT_TRUE(space.translate(kStart, protection::w));
    must(space.fault(kStart, protection::w));  // nothing to do
    EXPECT_EQ(space.fault(page(2), protection::w).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.fault(kStart, protection::x).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.fault(page(1), protection::x).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.fault(page(3), protection::r).error().code, ErrorCode::not_mapped);
    expect_clean(store);
}

TEST_F(Forks, AnAbortedOneLeavesNothing) {
    must(space.map({kStart, 3 * kPageSize}, protection::rw));
    const std::uint64_t before = free_frames();
    {
        Transaction transaction = store.begin();
        Space fork = value_of(transaction.fork_space(space, "fork"));
        must(transaction.unmap(fork, {kStart, kPageSize}));
        must(transaction.map(fork, {page(9), kPageSize}, protection::rw));
        must(transaction.protect(space, {page(1), kPageSize}, protection::r));
    }
    EXPECT_THAT(value_of(store.space_names()), ElementsAre("space"));
    EXPECT_EQ(free_frames(), before);
    EXPECT_TRUE(space.translate(page(1), protection::w));
    expect_clean(store);
}

TEST_F(Forks, WithoutFramesIsRefusedAndChangesNothing) {
    must(space.map({kStart, kPageSize}, protection::rw));
    const auto fill_but = [&](std::uint64_t left) {
        const std::uint64_t pages = free_frames() - left;
        must(space.map({page(1 << 20), pages * kPageSize}, protection::rw));
        return pages;
    };
    // Frames that are held back for those who free some, and tables.
    const std::uint64_t pages = fill_but(160);
    std::uint64_t more = 0;
    while (space.map({page(2 << 20) + more * kPageSize, kPageSize}, protection::rw)) ++more;
    const auto fork = store.fork_space("space", "fork");
    ASSERT_FALSE(fork);
    EXPECT_EQ(fork.error().code, ErrorCode::no_space);
    EXPECT_THAT(value_of(store.space_names()), ElementsAre("space"));
    EXPECT_TRUE(space.translate(kStart, protection::w));
    // Enough for the fork, but not for the copy of a path: the write is refused, and both are as
    // they were.
    must(space.unmap({page(2 << 20) + (more - 40) * kPageSize, 40 * kPageSize}));
    Space small = value_of(store.fork_space("space", "fork"));
    Space other = value_of(store.create_space("other"));
    for (std::uint64_t i = 0; other.map({page(i), kPageSize}, protection::rw);) ++i;
    const std::uint64_t value = 1;
    const auto written = small.write(kStart, std::as_bytes(std::span(&value, 1)));
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ErrorCode::no_space);
    EXPECT_EQ(word(space, kStart), 0u);
    EXPECT_EQ(word(small, kStart), 0u);
    // What the space unmaps the fork has still; what another one had is there for it.
    must(space.unmap({page(1 << 20), pages * kPageSize}));
    must(store.remove_space("other"));
    write(small, kStart, 1);
    expect_clean(store);
}

// --- snapshots ---

class Snapshots : public Forks {
  protected:
    Snapshots() {
        must(space.map({kStart, 3 * kPageSize}, protection::rw, {.name = "heap"}));
        write(space, page(0), 1);
    }
};

TEST_F(Snapshots, NobodyChangesThem) {
    must(space.map({page(8), 2 * kPageSize}, protection::rw, {.lazy = true}));
    Space kept = value_of(store.create_snapshot("space", "space@1"));
    EXPECT_TRUE(kept.is_snapshot());
    EXPECT_FALSE(space.is_snapshot());
    const auto refused = [](const Result<void>& outcome) {
        ASSERT_FALSE(outcome);
        EXPECT_EQ(outcome.error().code, ErrorCode::permission_denied) << outcome.error().message;
        EXPECT_THAT(outcome.error().message, HasSubstr("\"space@1\" is a snapshot"));
    };
    const std::uint64_t value = 5;
    const auto bytes = std::as_bytes(std::span(&value, 1));
    refused(kept.map({page(20), kPageSize}, protection::rw));
    refused(kept.unmap({kStart, kPageSize}));
    refused(kept.protect({kStart, kPageSize}, protection::r));
    refused(kept.write(kStart, bytes));
    refused(kept.write(page(8), bytes));
    refused(kept.fault(kStart, protection::w));
    refused(kept.fault(page(8), protection::r));
    refused(space.map_shared({page(20), kPageSize}, protection::rw, kept, {kStart, kPageSize}));
    EXPECT_EQ(kept.handle({kStart, kPageSize}).error().code, ErrorCode::permission_denied);
    EXPECT_FALSE(kept.frame_bytes(kStart));
    Transaction transaction = store.begin();
    refused(transaction.prefer_region(kept, {}));
    refused(transaction.rollback(kept, kept));
    transaction.abort();
    EXPECT_EQ(word(kept, kStart), 1u);
    EXPECT_TRUE(kept.handle());
    // A fork of it is as any other space.
    write(value_of(store.fork_space("space@1", "again")), kStart, 9);
    EXPECT_EQ(word(kept, kStart), 1u);
    expect_clean(store);
}

TEST_F(Snapshots, AreListedByTheSpaceTheyAreOf) {
    value_of(store.create_snapshot("space", "b"));
    value_of(store.create_space("other"));
    value_of(store.create_snapshot("other", "a"));
    value_of(store.create_snapshot("space", "c"));
    EXPECT_THAT(value_of(store.space_names()), ElementsAre("other", "space"));
    const std::uint64_t epoch = value_of(store.info()).boot_epoch;
    EXPECT_THAT(value_of(store.snapshots()),
                ElementsAre(SnapshotInfo{"a", "other", epoch}, SnapshotInfo{"b", "space", epoch},
                            SnapshotInfo{"c", "space", epoch}));
    must(store.rename_space("space", "renamed"));
    must(store.rename_space("c", "d"));
    EXPECT_THAT(
        value_of(store.snapshots("renamed")),
        ElementsAre(SnapshotInfo{"b", "renamed", epoch}, SnapshotInfo{"d", "renamed", epoch}));
    EXPECT_EQ(store.snapshots("space").error().code, ErrorCode::not_found);
    // What is of a removed space is of nobody, also when the name is taken again.
    space = value_of(store.open_space("other"));
    must(store.remove_space("renamed"));
    for (int round = 0; round < 2; ++round) {
        EXPECT_THAT(value_of(store.snapshots()),
                    ElementsAre(SnapshotInfo{"a", "other", epoch}, SnapshotInfo{"b", "", epoch},
                                SnapshotInfo{"d", "", epoch}));
        value_of(store.release_limbo());
        if (round == 0) value_of(store.create_space("renamed"));
    }
    EXPECT_EQ(word(value_of(store.open_space("d")), kStart), 1u);
    must(store.remove_space("b"));
    EXPECT_EQ(value_of(store.snapshots()).size(), 2u);
    expect_clean(store);
}

TEST_F(Snapshots, RollbackBringsBackBytesMappingsAndNames) {
    const Handle before = value_of(space.handle({kStart, 3 * kPageSize}));
    value_of(store.create_snapshot("space", "kept"));
    const auto maps = value_of(space.maps());
    write(space, page(0), 2);
    must(space.unmap({page(1), kPageSize}));
    must(space.map({page(40), kPageSize}, protection::rx, {.name = "later"}));
    const Handle after = value_of(space.handle({page(40), kPageSize}));
    must(store.rollback("space", "kept"));
    EXPECT_EQ(value_of(space.maps()), maps);
    EXPECT_EQ(word(space, page(0)), 1u);
    EXPECT_TRUE(store.resolve(before));
    EXPECT_EQ(store.resolve(after).error().code, ErrorCode::stale);
    // As often as one likes, and the snapshot is not used up.
    for (std::uint64_t i = 0; i < 3; ++i) {
        write(space, page(0), 10 + i);
        EXPECT_EQ(word(space, page(0)), 10 + i);
        must(store.rollback("space", "kept"));
        EXPECT_EQ(word(space, page(0)), 1u);
    }
    EXPECT_EQ(value_of(store.snapshots("space")).size(), 1u);
    expect_clean(store);
}

TEST_F(Snapshots, RollbackToSomethingElseIsRefused) {
    value_of(store.create_space("other"));
    value_of(store.create_snapshot("other", "others"));
    value_of(store.fork_space("space", "fork"));
    value_of(store.create_snapshot("fork", "forks"));
    EXPECT_EQ(store.rollback("space", "others").error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store.rollback("space", "fork").error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store.rollback("space", "none").error().code, ErrorCode::not_found);
    EXPECT_EQ(store.rollback("forks", "forks").error().code, ErrorCode::permission_denied);
    // Of its lineage is enough.
    must(store.rollback("space", "forks"));
    expect_clean(store);
}

TEST_F(Snapshots, ATransactionRollsBackManySpacesAtOnce) {
    Space other = value_of(store.create_space("other"));
    must(other.map({kStart, kPageSize}, protection::rw));
    {
        Transaction both = store.begin();
        value_of(both.create_snapshot(space, "space@1"));
        value_of(both.create_snapshot(other, "other@1"));
        must(both.commit());
    }
    write(space, kStart, 5);
    write(other, kStart, 6);
    {
        Transaction both = store.begin();
        must(both.rollback(space, value_of(store.open_space("space@1"))));
        must(both.rollback(other, value_of(store.open_space("other@1"))));
        EXPECT_EQ(word(space, kStart), 5u);
        must(both.commit());
    }
    EXPECT_EQ(word(space, kStart), 1u);
    EXPECT_EQ(word(other, kStart), 0u);
    expect_clean(store);
}

// --- differences ---

TEST_F(Snapshots, DifferencesAreExact) {
    using Kind = Difference::Kind;
    must(space.map({page(100), 1200 * kPageSize}, protection::rw));
    must(space.map({VirtAddr(0x7f00'0000'0000), 1_GiB}, protection::rw, {.lazy = true}));
    Space kept = value_of(store.create_snapshot("space", "kept"));
    EXPECT_THAT(value_of(differences(space, kept)), testing::IsEmpty());
    write(space, page(1), 7);
    write(space, page(2), 8);
    write(space, page(0), 1);  // the same bytes again
    must(space.protect({page(300), 2 * kPageSize}, protection::r));
    must(space.unmap({page(600), 600 * kPageSize}));
    must(space.map({page(2000), kPageSize}, protection::rw));
    write(space, VirtAddr(0x7f00'1000'0000), 9);
    write(space, VirtAddr(0x7f00'2000'0000), 0);  // a frame of zeros is zeros
    EXPECT_THAT(value_of(differences(space, kept)),
                ElementsAre(Difference{Kind::content, {page(1), 2 * kPageSize}},
                            Difference{Kind::protection, {page(300), 2 * kPageSize}},
                            Difference{Kind::only_in_second, {page(600), 600 * kPageSize}},
                            Difference{Kind::only_in_first, {page(2000), kPageSize}},
                            Difference{Kind::content, {VirtAddr(0x7f00'1000'0000), kPageSize}}));
    Space small = value_of(store.create_space("small", {.levels = Levels::three}));
    EXPECT_EQ(differences(space, small).error().code, ErrorCode::invalid_argument);
    // Of another lineage nothing is shared, and still only what differs is said.
    Space other = value_of(store.create_space("other"));
    EXPECT_EQ(value_of(differences(other, space)).front(),
              (Difference{Kind::only_in_second, {kStart, 3 * kPageSize}}));
}

TEST_F(Snapshots, WhatIsSharedIsNotLookedAt) {
    // A shared table whose entries are zeroed behind the store's back would be a difference if it
    // were read.
    must(space.map({page(512), 512 * kPageSize}, protection::rw));
    Space kept = value_of(store.create_snapshot("space", "kept"));
    write(space, kStart, 2);
    const memory::PhysicalMemory& memory = store.state().memory;
    FrameNumber table = space.state().root().entry.frame();
    for (unsigned level = 4; level > 1; --level)
        table = format::Entry(memory.table(table)[format::slot_of(page(512), level)]).frame();
    std::uint64_t saved[512];
    std::memcpy(saved, memory.table(table), sizeof saved);
    std::memset(memory.table(table), 0xff, sizeof saved);
    EXPECT_EQ(value_of(differences(space, kept)).size(), 1u);
    std::memcpy(memory.table(table), saved, sizeof saved);
    expect_clean(store);
}

// --- the invariant ---

TEST(Sharing, APathThatPermitsWritingToWhatOthersReachIsFoundAndRepaired) {
    const TemporaryPool pool;
    {
        Store store = pool.create();
        Space space = value_of(store.create_space("space"));
        must(space.map({kStart, 3 * kPageSize}, protection::rw));
        Space fork = value_of(store.fork_space("space", "fork"));
        write(fork, page(1), 1);
        const memory::PhysicalMemory& memory = store.state().memory;
        FrameNumber table = fork.state().root().entry.frame();
        for (unsigned level = 4; level > 1; --level)
            table = format::Entry(memory.table(table)[format::slot_of(kStart, level)]).frame();
        std::uint64_t* const entry = memory.table(table);
        const format::EntryPlace place{1, 0, fork.state().owner, kStart.bits() >> 21};
        const auto metadata = memory.valid_metadata(format::Entry(*entry).frame());
        ASSERT_TRUE(metadata);
        ASSERT_TRUE(format::Entry(*entry).is_copy_on_write());
        *entry = format::Entry(*entry)
                     .with_sharing(format::Sharing::exclusive, place, metadata->generation)
                     .bits();
        const VerifyReport report = store.verify();
        ASSERT_EQ(report.findings.size(), 1u);
        EXPECT_EQ(report.findings[0].what, "I9 sharing");
        EXPECT_EQ(report.findings[0].space, "fork");
        EXPECT_EQ(report.findings[0].range, (Range{kStart, kPageSize}));
    }
    const RepairReport repaired =
        value_of(repair_file(pool.path(), {.emulation = PmemEmulation::on}));
    ASSERT_EQ(repaired.repaired.size(), 1u);
    EXPECT_THAT(repaired.repaired[0].detail, HasSubstr("whoever writes gets a copy"));
    Store store = pool.open();
    write(value_of(store.open_space("fork")), kStart, 3);
    EXPECT_EQ(word(value_of(store.open_space("space")), kStart), 0u);
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
