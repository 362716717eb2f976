// How often each durable operation flushes and fences, and how much it logs: exact figures, which a
// change of the code may only change on purpose. docs/PERFORMANCE.md publishes them.
//
// What libpmemobj 1.12 spends, as found by counting bare transactions:
//   a transaction                    2 fences: begin and end
//   each snapshot                    2 fences: entry, log; 2 copies; 128 undo bytes up to 40 bytes
//   snapshots at all                 1 fence, 1 flush, 8 undo bytes: the log is made invalid
//   each word snapshot and stored    1 flush
//   published words                  2 fences: redo log, its end; 2 copies; 64 redo bytes a line of
//                                    it, 64 more for its end, 64 for its header; 1 flush a word
//   words published without a        the same, and 2 fences: what was flushed before, the words
//     transaction
// and the same flush of lines that a transaction of ours does aside. `Pool::commit` makes one
// snapshot of words that are neighbours, and has no transaction if there are but a few words.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <ostream>

#include "store/store_state.hpp"
#include "support/pmem_counters.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {

static std::ostream& operator<<(std::ostream& out, const PmemCounts& counts) {
    return out << "{.flush_calls = " << counts.flush_calls
               << ", .flush_lines = " << counts.flush_lines
               << ", .copy_calls = " << counts.copy_calls << ", .copy_lines = " << counts.copy_lines
               << ", .fences = " << counts.fences << ", .syncs = " << counts.syncs
               << ", .undo_bytes = " << counts.undo_bytes << ", .redo_bytes = " << counts.redo_bytes
               << "}";
}

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kTablePages = 512;
constexpr std::uint64_t kGiBPages = kTablePages * kTablePages;
const VirtAddr kStart{0x10'0000'0000};  // begins a table at every level but the highest

Range pages(std::uint64_t first, std::uint64_t count) {
    return {kStart + first * kPageSize, count * kPageSize};
}

class PersistCounts : public testing::Test {
  protected:
    PersistCounts()
        : store(file.create(128 * kMiB)),
          space(value_of(store.create_space("space"))),
          source(value_of(store.create_space("source"))) {
        must(source.map(kSource, protection::rw));
        // So that the first table exists, the boot epoch is raised and the metadata of the first
        // 32,768 frames is written.
        must(space.map(pages(kTablePages - 1, 1), protection::rw));
    }

    // Limbo is emptied first: a call pays for its own work, and not for a step of what is left.
    PmemCounts count(const std::function<void()>& operation) {
        value_of(store.release_limbo());
        return counted(store.state().pool->at(0), operation);
    }
    void map(Range range) { must(space.map(range, protection::rw)); }
    void share(Range range) { must(space.map_shared(range, protection::rw, source, kSource)); }
    void protect(Range range) { must(space.protect(range, protection::r)); }
    void unmap(Range range) { must(space.unmap(range)); }

    static constexpr Range kSource{VirtAddr(kTablePages * kPageSize), kTablePages* kPageSize};
    TemporaryPool file;
    Store store;
    Space space, source;
};

TEST_F(PersistCounts, ReadingFlushesNothing) {
    std::array<std::byte, 64> bytes;
    const Range page = pages(kTablePages - 1, 1);
    EXPECT_EQ(count([&] {
                  ASSERT_TRUE(space.translate(page.start));
                  must(space.read(page.start, bytes));
                  value_of(space.maps());
              }),
              PmemCounts{});
}

TEST_F(PersistCounts, WriteAndPersistOfALine) {
    constexpr std::array<std::byte, 8> kBytes{};
    const Range page = pages(kTablePages - 1, 1);
    EXPECT_EQ(count([&] {
                  must(space.write(page.start, kBytes));
                  must(space.persist({page.start, kBytes.size()}));
              }),
              (PmemCounts{.flush_calls = 1, .flush_lines = 1, .fences = 1}));
}

TEST_F(PersistCounts, OnePage) {
    // Two words (the first of the frame's metadata, and its entry) by the redo log. Fences: what
    // was flushed before, the log, its words, its end. Flushes: the second word of the metadata
    // before, and the two words. Copies: the log twice, and the page's 64 lines of zeros.
    EXPECT_EQ(count([&] { map(pages(0, 1)); }), (PmemCounts{.flush_calls = 3,
                                                            .flush_lines = 3,
                                                            .copy_calls = 3,
                                                            .copy_lines = 67,
                                                            .fences = 4,
                                                            .redo_bytes = 192}));
    // A single word needs no log. Fences: what was flushed before, the word.
    EXPECT_EQ(count([&] { protect(pages(0, 1)); }),
              (PmemCounts{.flush_calls = 1, .flush_lines = 1, .fences = 2}));
    // As map, without zeros; and the second word of the frame's metadata stays as it is.
    EXPECT_EQ(count([&] { unmap(pages(0, 1)); }), (PmemCounts{.flush_calls = 2,
                                                              .flush_lines = 2,
                                                              .copy_calls = 2,
                                                              .copy_lines = 3,
                                                              .fences = 4,
                                                              .redo_bytes = 192}));
}

TEST_F(PersistCounts, AHugePage) {
    // One record and one entry, as for a small page, beside 2 MiB of zeros: 32,768 lines.
    EXPECT_EQ(count([&] {
                  must(space.map(pages(kTablePages, kTablePages), protection::rw,
                                 {.page_size = PageSize::size_2MiB}));
              }),
              (PmemCounts{.flush_calls = 3,
                          .flush_lines = 3,
                          .copy_calls = 3,
                          .copy_lines = 32'771,
                          .fences = 4,
                          .redo_bytes = 192}));
    // Split in place: its build record and slot, 511 records of 16 bytes (128 lines), the table.
    EXPECT_EQ(count([&] { must(space.unmap(pages(kTablePages + 7, 1))); }),
              (PmemCounts{.flush_calls = 11,
                          .flush_lines = 201,
                          .copy_calls = 3,
                          .copy_lines = 68,
                          .fences = 6,
                          .redo_bytes = 256}));
}

TEST_F(PersistCounts, AFullTable) {
    // Fences: 2 to reserve the frames (build record, slot), and a commit of two words (the
    // slot, and the entry of the new table). Flushes: the record and the slot; the metadata of 513
    // frames, which are two runs (an aligned 2 MiB, and what is more than that) of 129 lines; the
    // table; the two words. Copies: the log twice, and
    // 513 pages of zeros.
    EXPECT_EQ(count([&] { map(pages(kTablePages, kTablePages)); }),
              (PmemCounts{.flush_calls = 7,
                          .flush_lines = 197,
                          .copy_calls = 515,
                          .copy_lines = 32'835,
                          .fences = 6,
                          .redo_bytes = 192}));
    // A commit of a few words: first words of the metadata of the new tables and of the limbo page,
    // limbo head, an entry. Their second words are one run, flushed before. The copied table has 64
    // lines; it and the shell's one table are zeroed first, and of the latter only what was written
    // is flushed.
    EXPECT_EQ(count([&] { protect(pages(kTablePages, kTablePages)); }),
              (PmemCounts{.flush_calls = 9,
                          .flush_lines = 73,
                          .copy_calls = 4,
                          .copy_lines = 132,
                          .fences = 4,
                          .redo_bytes = 256}));
    // The same with a gather table at each of three levels and no copied table.
    EXPECT_EQ(count([&] { unmap(pages(kTablePages, kTablePages)); }),
              (PmemCounts{.flush_calls = 11,
                          .flush_lines = 11,
                          .copy_calls = 5,
                          .copy_lines = 196,
                          .fences = 4,
                          .redo_bytes = 256}));
}

TEST_F(PersistCounts, Spaces) {
    // Most of it is the directory, libpmemobj-cpp's radix tree, which allocates a leaf and links
    // it.
    EXPECT_EQ(count([&] { value_of(store.create_space("another")); }),
              (PmemCounts{.flush_calls = 11,
                          .flush_lines = 16,
                          .copy_calls = 12,
                          .copy_lines = 85,
                          .fences = 11,
                          .undo_bytes = 392,
                          .redo_bytes = 256}));
    // One leaf more, one less, and the checksummed part of the space's record.
    EXPECT_EQ(count([&] { must(store.rename_space("another", "other")); }),
              (PmemCounts{.flush_calls = 11,
                          .flush_lines = 23,
                          .copy_calls = 16,
                          .copy_lines = 24,
                          .fences = 15,
                          .undo_bytes = 1160,
                          .redo_bytes = 256}));
    // One leaf less, and two records in a new limbo page.
    EXPECT_EQ(count([&] { must(store.remove_space("other")); }), (PmemCounts{.flush_calls = 12,
                                                                             .flush_lines = 12,
                                                                             .copy_calls = 10,
                                                                             .copy_lines = 12,
                                                                             .fences = 13,
                                                                             .undo_bytes = 520,
                                                                             .redo_bytes = 256}));
}

// The same for a page, a table and a gibibyte of them: a fork does not look at what is below the
// root. Most of it is the directory's, as for a new space; beside that there are the root's entry,
// and the metadata of the table that it leads to.
TEST_F(PersistCounts, AForkIsConstantInWhatIsMapped) {
    const auto expect = [](PmemCounts found, PmemCounts expected) {
        // The directory's leaves begin anywhere in a line.
        EXPECT_NEAR(static_cast<double>(found.flush_lines),
                    static_cast<double>(expected.flush_lines), 1);
        found.flush_lines = expected.flush_lines;
        EXPECT_EQ(found, expected);
    };
    std::uint64_t number = 0;
    for (const std::uint64_t mapped : {std::uint64_t{1}, kTablePages, kGiBPages}) {
        const std::string name = std::to_string(++number);
        Space forked = value_of(store.create_space(name));
        if (mapped == 1)
            must(forked.map(pages(0, 1), protection::rw));
        else
            must(forked.map_shared(pages(0, mapped), protection::rw, source, kSource));
        // A leaf and a node that leads to it and to the forked space's.
        expect(count([&] { value_of(store.fork_space(name, name + "f")); }), {.flush_calls = 14,
                                                                              .flush_lines = 83,
                                                                              .copy_calls = 12,
                                                                              .copy_lines = 85,
                                                                              .fences = 11,
                                                                              .undo_bytes = 392,
                                                                              .redo_bytes = 256});
        // A leaf; the root's entry permits no writing already.
        expect(count([&] { value_of(store.create_snapshot(name, name + "s")); }),
               {.flush_calls = 10,
                .flush_lines = 75,
                .copy_calls = 9,
                .copy_lines = 82,
                .fences = 9,
                .undo_bytes = 264,
                .redo_bytes = 256});
    }
}

TEST_F(PersistCounts, TheFirstWriteAfterAFork) {
    constexpr std::array<std::byte, 8> kBytes{};
    map(pages(0, 2));
    value_of(store.fork_space("space", "fork"));
    // Three tables and a page; the tables lead to few others, whose references are few words, too.
    EXPECT_EQ(count([&] { must(space.write(pages(0, 1).start, kBytes)); }),
              (PmemCounts{.flush_calls = 15,
                          .flush_lines = 205,
                          .copy_calls = 6,
                          .copy_lines = 261,
                          .fences = 4,
                          .redo_bytes = 320}));
    // The page beside it: as the mapping of one, and a reference less of the old one.
    EXPECT_EQ(count([&] { must(space.write(pages(1, 1).start, kBytes)); }),
              (PmemCounts{.flush_calls = 4,
                          .flush_lines = 4,
                          .copy_calls = 3,
                          .copy_lines = 67,
                          .fences = 4,
                          .redo_bytes = 192}));
}

TEST_F(PersistCounts, ThreeCallsInOneTransaction) {
    map(pages(8, 4));
    // One commit for all three: the first words of the metadata of the new page and of the one that
    // goes, and three entries; as many fences as one call has.
    EXPECT_EQ(count([&] {
                  Transaction transaction = store.begin();
                  must(transaction.map(space, pages(0, 1), protection::rw));
                  must(transaction.protect(space, pages(8, 1), protection::r));
                  must(transaction.unmap(space, pages(10, 1)));
                  must(transaction.commit());
              }),
              (PmemCounts{.flush_calls = 6,
                          .flush_lines = 6,
                          .copy_calls = 3,
                          .copy_lines = 68,
                          .fences = 4,
                          .redo_bytes = 256}));
}

TEST_F(PersistCounts, AnAbortedTransactionFences0) {
    const PmemCounts counts = count([&] {
        Transaction transaction = store.begin();
        must(transaction.map(space, pages(0, 1), protection::rw));
        must(transaction.unmap(space, pages(kTablePages - 1, 1)));
        transaction.abort();
    });
    // Zeros in a frame that is free again.
    EXPECT_EQ(counts, (PmemCounts{.copy_calls = 1, .copy_lines = 64}));
}

// --- a range's fences and logs do not grow with its length ---

struct RangeCounts {
    PmemCounts map, protect, unmap;
};

class RangeCountsTest : public PersistCounts, public testing::WithParamInterface<std::uint64_t> {
  protected:
    // What ranges of so many pages cost that begin at the given page. Their frames are those of
    // another space, so that the longest needs no memory but for its tables.
    RangeCounts range_counts(std::uint64_t first, std::uint64_t length) {
        const Range range = pages(first, length);
        RangeCounts counts;
        counts.map = count([&] { share(range); });
        counts.protect = count([&] { protect(range); });
        counts.unmap = count([&] { unmap(range); });
        return counts;
    }
};

// Where the range begins: with a table of 2 MiB below a table that exists, and is linked there
// entry by entry; with a new GiB, and is linked by one entry; in the middle of a table.
INSTANTIATE_TEST_SUITE_P(Begin, RangeCountsTest,
                         testing::Values(kTablePages, kGiBPages, kGiBPages + 100),
                         [](const auto& begin) {
                             return begin.param == kTablePages ? "InAnExistingTable"
                                    : begin.param == kGiBPages ? "WithANewTable"
                                                               : "Unaligned";
                         });

TEST_P(RangeCountsTest, FencesAndLogsDoNotGrow) {
    const RangeCounts shortest = range_counts(GetParam(), kTablePages);
    for (const std::uint64_t length : {std::uint64_t{65'536}, std::uint64_t{262'144}}) {
        const RangeCounts counts = range_counts(GetParam(), length);
        const auto expect_no_more = [&](const char* what, const PmemCounts& least,
                                        const PmemCounts& found) {
            // A few snapshots more, for a second edge: 2 fences and 128 bytes each.
            EXPECT_LE(found.fences, least.fences + 16) << what << " of " << length << " pages";
            EXPECT_LE(found.undo_bytes, least.undo_bytes + 1024)
                << what << " of " << length << " pages";
            EXPECT_LE(found.redo_bytes, least.redo_bytes + 640)
                << what << " of " << length << " pages";
            EXPECT_EQ(found.syncs, 0u);
        };
        expect_no_more("map", shortest.map, counts.map);
        expect_no_more("protect", shortest.protect, counts.protect);
        expect_no_more("unmap", shortest.unmap, counts.unmap);
    }
}

// The same with frames of their own.
TEST_F(PersistCounts, FencesOfFreshFramesDoNotGrow) {
    const PmemCounts shortest = count([&] { map(pages(kGiBPages, kTablePages)); });
    unmap(pages(kGiBPages, kTablePages));
    const PmemCounts longer = count([&] { map(pages(kGiBPages, 16'384)); });
    EXPECT_EQ(longer.fences, shortest.fences);
    EXPECT_EQ(longer.undo_bytes, shortest.undo_bytes);
    EXPECT_EQ(longer.redo_bytes, shortest.redo_bytes);
}

}  // namespace
}  // namespace holdfast::test
