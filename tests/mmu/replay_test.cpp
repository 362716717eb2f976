// Traces through tables and a TLB: the reader of lackey's output, sweeps whose misses, reach and
// walks are known, and what each page size costs against a plain count.
#include "holdfast/replay.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <set>

#include "mmu/touched_bytes.hpp"
#include "mmu/walk_caches.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

// --- the reader ---

class TraceFile {
  public:
    explicit TraceFile(const std::string& text) : file_(std::tmpfile(), std::fclose) {
        std::fwrite(text.data(), 1, text.size(), file_.get());
        std::fflush(file_.get());
        lseek(fileno(file_.get()), 0, SEEK_SET);
    }
    int descriptor() const { return fileno(file_.get()); }

  private:
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

TEST(LackeyTrace, ReadsAccessesAndPassesOverWhatValgrindSays) {
    const TraceFile file(
        "==7== Lackey, an example Valgrind tool\n--7-- a warning\n**7** a client's words\n"
        "I  0401ab70,3\n S 1fff000708,8\n L 0,1\n==7== \n M ffffffffffffffff,1");
    LackeyTrace trace(file.descriptor(), "trace");
    const auto next = [&] { return value_of(trace.next()); };
    const auto expect = [&](AccessKind kind, std::uint64_t address, std::uint32_t size,
                            std::uint64_t line) {
        const auto access = next();
        ASSERT_TRUE(access);
        EXPECT_EQ(access->kind, kind);
        EXPECT_EQ(access->address.bits(), address);
        EXPECT_EQ(access->size_bytes, size);
        EXPECT_EQ(trace.line_number(), line);
    };
    expect(AccessKind::instruction, 0x401ab70, 3, 4);
    expect(AccessKind::store, 0x1f'ff00'0708, 8, 5);
    expect(AccessKind::load, 0, 1, 6);
    expect(AccessKind::modify, ~std::uint64_t{0}, 1, 8);
    EXPECT_FALSE(next());
    EXPECT_FALSE(next());
    EXPECT_EQ(trace.skipped_lines(), 4u);
}

TEST(LackeyTrace, SaysWhichLineItDoesNotUnderstand) {
    for (const char* line :
         {"hello", "", " ", "I 04,3", " X 04,3", " L 04", " L 04,", " L ,4", " L 04,4 ", " L 4,x",
          " L 0x4,4", " L 4,0", " L 4,65537", " L -4,4", " L ffffffffffffffff,2", "L  04,3",
          " L 10000000000000000,4", "SB 0401ab70", "I  04,3\r"}) {
        const TraceFile file("==1== x\n L 04,4\n" + std::string(line) + "\n L 04,4\n");
        LackeyTrace trace(file.descriptor(), "my.trace");
        EXPECT_TRUE(trace.next()) << line;
        const auto refused = trace.next();
        ASSERT_FALSE(refused) << line;
        EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
        EXPECT_EQ(refused.error().message.find("my.trace, line 3: \""), 0u)
            << refused.error().message;
        EXPECT_EQ(refused.error().message.find('\n'), std::string::npos);
        EXPECT_EQ(refused.error().message.find('\r'), std::string::npos);
    }
    // A line that never ends is quoted in part.
    const TraceFile endless(std::string(3 << 20, '\x1b'));
    const auto refused = LackeyTrace(endless.descriptor(), "t").next();
    ASSERT_FALSE(refused);
    EXPECT_LT(refused.error().message.size(), 400u);
    const int folder = open("/", O_RDONLY | O_DIRECTORY);
    EXPECT_EQ(LackeyTrace(folder, "/").next().error().code, ErrorCode::io);
    close(folder);
}

TEST(LackeyTrace, ReadsInPiecesWhereverTheyEnd) {
    // More than one buffer, through a pipe, whose reads end in the middle of lines.
    constexpr std::uint64_t kLines = 200'000;
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        std::FILE* const out = fdopen(ends[1], "w");
        for (std::uint64_t i = 0; i < kLines; ++i)
            fmt::print(out, " L {:x},{}\n", i * i, i % 8 + 1);
        std::fclose(out);
        _exit(0);
    }
    close(ends[1]);
    LackeyTrace trace(ends[0], "pipe");
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < kLines; ++i) {
        const auto access = value_of(trace.next());
        ASSERT_TRUE(access) << i;
        if (access->address.bits() != i * i || access->size_bytes != i % 8 + 1) ++wrong;
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_FALSE(value_of(trace.next()));
    EXPECT_GT(trace.bytes_read(), 2_MiB);
    close(ends[0]);
}

// --- sweeps ---

class Replay : public testing::Test {
  protected:
    static constexpr VirtAddr kStart{0x40'0000'0000};

    Replay() : store(pool.create(32_MiB)), space(value_of(store.create_space("space"))) {}

    TraceReplay make(const ReplayOptions& options = {}) {
        return value_of(TraceReplay::create(store, space, options));
    }
    static void sweep(TraceReplay& replay, std::uint64_t pages, VirtAddr start = kStart) {
        for (std::uint64_t i = 0; i < pages; ++i)
            must(replay.run({AccessKind::load, start + i * kPageSize, 8}));
    }
    const TemporaryPool pool;
    Store store;
    Space space;
};

const PageSizeCost& cost_of(const ReplayReport& report, std::uint64_t page_bytes) {
    for (const PageSizeCost& cost : report.costs)
        if (cost.page_bytes == page_bytes) return cost;
    throw std::runtime_error("no such page size");
}

TEST_F(Replay, ASweepMissesEachPageOnceAndNoneAgainWithinTheReach) {
    TraceReplay replay = make();
    sweep(replay, 1000);
    for (int round = 0; round < 2; ++round) {
        const ReplayReport report = replay.report();
        EXPECT_EQ(report.loads, 1000u * (1 + round));
        ASSERT_EQ(report.runs.size(), 2u);
        const PageSizeRun &small = report.runs[0], &large = report.runs[1];
        EXPECT_EQ(large.tables, 3u);
        EXPECT_EQ(small.page_size, PageSize::size_4KiB);
        EXPECT_EQ(small.misses, 1000u);
        EXPECT_EQ(small.compulsory, 1000u);
        EXPECT_EQ(small.mapped_on_demand, 1000u);
        EXPECT_EQ(small.hits, 1000u * round);
        EXPECT_EQ(small.reach_bytes, 1000 * kPageSize);
        EXPECT_EQ(large.page_size, PageSize::size_2MiB);
        EXPECT_EQ(large.misses, 2u);
        EXPECT_EQ(large.compulsory, 2u);
        EXPECT_EQ(large.hits, 998u + 1000 * round);
        EXPECT_EQ(large.reach_bytes, 4_MiB);
        EXPECT_EQ(small.evictions + large.evictions, 0u);
        EXPECT_TRUE(small.faults.empty() && large.faults.empty());
        sweep(replay, 1000);
    }
    EXPECT_EQ(space.info().mapped_bytes, 1000 * kPageSize);
    EXPECT_TRUE(store.verify().clean());
}

TEST_F(Replay, ASweepBeyondTheReachNeverHits) {
    TraceReplay replay = make({.tlb = {.pages_4KiB = {64, 64}, .pages_2MiB = {2, 2}}});
    for (int round = 0; round < 3; ++round) sweep(replay, 3 * 512);
    const ReplayReport report = replay.report();
    EXPECT_EQ(report.runs[0].misses, 3u * 3 * 512);
    EXPECT_EQ(report.runs[0].evictions, 3u * 3 * 512 - 64);
    EXPECT_EQ(report.runs[0].compulsory, 3u * 512);
    EXPECT_EQ(report.runs[0].reach_bytes, 64 * kPageSize);
    EXPECT_EQ(report.runs[1].misses, 9u);
    EXPECT_EQ(report.runs[1].reach_bytes, 4_MiB);
}

TEST_F(Replay, WalksReadALevelEachLessWhatIsCached) {
    constexpr std::uint64_t kPages = 4 * 512;
    TraceReplay replay = make();
    sweep(replay, kPages);
    const ReplayReport report = replay.report();
    EXPECT_EQ(report.runs[0].entries_read, 4 * kPages);
    // The first walk reads all; the first in each further 2 MiB the PDE and the PTE; others the
    // PTE.
    EXPECT_EQ(report.runs[0].entries_read_cached, kPages + 3 + 3);
    EXPECT_EQ(report.runs[1].entries_read, 3u * 4);
    EXPECT_EQ(report.runs[1].entries_read_cached, 3u + 3);
    EXPECT_EQ(report.runs[0].entries_per_walk(), 4.0);

    space = value_of(store.create_space("another"));
    TraceReplay without = make({.walk_caches = {{0, 0, 0, 0}}});
    sweep(without, kPages);
    EXPECT_EQ(without.report().runs[0].entries_read_cached, 4 * kPages);
}

TEST(WalkCaches, EachLevelForgetsWhatWasUsedLongestAgo) {
    mmu::WalkCaches caches(WalkCacheSizes{{2, 1, 0, 0}});
    const auto walk = [&](std::uint64_t address) {
        return caches.walk(VirtAddr(address), Levels::four, 1);
    };
    EXPECT_EQ(walk(0), 4u);
    EXPECT_EQ(walk(4_KiB), 1u);
    EXPECT_EQ(walk(2_MiB), 2u);
    EXPECT_EQ(walk(0), 1u);
    EXPECT_EQ(walk(4_MiB), 2u);  // takes the place of 2 MiB
    EXPECT_EQ(walk(0), 1u);
    EXPECT_EQ(walk(2_MiB), 2u);
    EXPECT_EQ(walk(1_GiB), 4u);  // another PDPTE, and no cache above
    EXPECT_EQ(walk(3_MiB), 1u);  // by its PDE, whatever became of its PDPTE
    EXPECT_EQ(walk(6_MiB), 4u);
}

TEST_F(Replay, AnAccessOverTheEdgeOfAPageIsTwoLookUps) {
    TraceReplay replay = make();
    must(replay.run({AccessKind::store, kStart + 4092, 8}));
    must(replay.run({AccessKind::modify, kStart + 4088, 8}));
    must(replay.run({AccessKind::instruction, kStart + (2_MiB - 1), 3}));
    const ReplayReport report = replay.report();
    EXPECT_EQ(report.runs[0].lookups, 5u);
    EXPECT_EQ(report.runs[0].misses, 4u);
    EXPECT_EQ(report.runs[1].lookups, 4u);
    EXPECT_EQ(report.runs[1].misses, 2u);
    EXPECT_EQ(report.touched_bytes, 12u + 3);
    EXPECT_EQ(report.accesses(), 3u);
}

TEST_F(Replay, CountsOnlyTheAccessesAskedFor) {
    TraceReplay replay = make({.instructions = false});
    must(replay.run({AccessKind::instruction, kStart, 4}));
    must(replay.run({AccessKind::load, kStart + 4_KiB, 4}));
    EXPECT_EQ(replay.report().accesses(), 1u);
    EXPECT_EQ(replay.report().runs[0].lookups, 1u);
}

TEST_F(Replay, ThroughASpaceAsItIs) {
    must(space.map({kStart, 4_KiB}, protection::r | protection::u));
    must(space.map({kStart + 4_KiB, 8_KiB}, protection::rw, {.lazy = true}));
    must(space.map({kStart + 12_KiB, 4_KiB}, protection::r, {.lazy = true}));
    TraceReplay replay = make();
    for (int round = 0; round < 2; ++round) {
        must(replay.run({AccessKind::load, kStart, 8}));
        must(replay.run({AccessKind::store, kStart, 8}));
        must(replay.run({AccessKind::load, kStart + 4_KiB, 8}));
        must(replay.run({AccessKind::store, kStart + 8_KiB, 8}));
        must(replay.run({AccessKind::load, kStart + 12_KiB, 8}));
        must(replay.run({AccessKind::store, kStart + 16_KiB, 8}));
    }
    const PageSizeRun run = replay.report().runs[0];
    EXPECT_EQ(run.lookups, 12u);
    EXPECT_EQ(run.misses, 4u);
    EXPECT_EQ(run.hits, 4u);
    EXPECT_EQ(run.mapped_on_demand, 3u);
    const std::map<FaultKind, std::uint64_t> expected = {{FaultKind::protection, 2},
                                                         {FaultKind::demand_zero, 2}};
    EXPECT_EQ(run.faults, expected);
}

TEST_F(Replay, ThroughAForkTheFirstStoreToAPageCopiesIt) {
    must(space.map({kStart, 8_KiB}, protection::rw));
    Space source = space;
    space = value_of(store.fork_space(source.name(), "fork"));
    TraceReplay replay = make();
    for (int round = 0; round < 2; ++round) {
        must(replay.run({AccessKind::load, kStart, 8}));
        must(replay.run({AccessKind::store, kStart, 8}));
    }
    const PageSizeRun run = replay.report().runs[0];
    EXPECT_EQ(run.mapped_on_demand, 1u);
    EXPECT_TRUE(run.faults.empty());
    EXPECT_NE(space.translate(kStart)->physical, source.translate(kStart)->physical);
    EXPECT_EQ(space.translate(kStart + 4_KiB)->physical,
              source.translate(kStart + 4_KiB)->physical);
}

TEST_F(Replay, AddressesThatTheLevelsCannotTranslate) {
    space = value_of(store.create_space("small", {.levels = Levels::three}));
    TraceReplay replay = make();
    must(replay.run({AccessKind::load, VirtAddr((std::uint64_t{1} << 38) - 8), 8}));
    for (const std::uint64_t address : {std::uint64_t{1} << 38, (std::uint64_t{1} << 38) - 4}) {
        const auto refused = replay.run({AccessKind::load, VirtAddr(address), 8});
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
        EXPECT_NE(refused.error().message.find("3 levels"), std::string::npos);
    }
    EXPECT_EQ(replay.report().accesses(), 1u);
}

TEST_F(Replay, NoRoomForTables) {
    TraceReplay replay = make();
    Result<void> done;
    for (std::uint64_t i = 0; done && i < 20'000; ++i)
        done = replay.run({AccessKind::load, VirtAddr(i * 2_MiB), 8});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::no_space);
}

// --- costs ---

// Of each page size, against sets: pages, tables by the rule that any 512 neighbours share one.
RC_GTEST_PROP(ReplayProperty, CostsAreWhatACountSays, ()) {
    const TemporaryPool pool;
    Store store = pool.create(32_MiB);
    const Levels levels = *rc::gen::element(Levels::three, Levels::four, Levels::five);
    Space space = value_of(store.create_space("space", {.levels = levels}));
    TraceReplay replay = value_of(TraceReplay::create(store, space));
    std::set<std::uint64_t> touched;
    const auto count = *rc::gen::inRange(1, 60);
    for (int i = 0; i < count; ++i) {
        const std::uint64_t half = *rc::gen::arbitrary<bool>()
                                       ? std::uint64_t{1} << (virtual_address_bits(levels) - 1)
                                       : 0;
        // Near by and far apart; all bytes of an access in one half.
        const auto shift = *rc::gen::inRange<unsigned>(0, virtual_address_bits(levels) - 1 - 16);
        const VirtAddr address = VirtAddr::truncated(
            half | (*rc::gen::inRange<std::uint64_t>(0, 1u << 15) << shift), levels);
        const auto size = *rc::gen::weightedElement<std::uint32_t>({{8, 8}, {1, 1}, {1, 9000}});
        must(replay.run({AccessKind::store, address, size}));
        for (std::uint32_t byte = 0; byte < size; ++byte) touched.insert((address + byte).bits());
    }
    const ReplayReport report = replay.report();
    RC_ASSERT(report.touched_bytes == touched.size());
    for (const PageSizeCost& cost : report.costs) {
        const auto page_shift = static_cast<unsigned>(std::countr_zero(cost.page_bytes));
        std::set<std::uint64_t> pages;
        for (const std::uint64_t byte : touched) pages.insert(byte >> page_shift);
        std::set<std::pair<unsigned, std::uint64_t>> tables;
        for (const std::uint64_t byte : touched)
            for (unsigned span = page_shift + 9;; span += 9) {
                const bool is_root = span >= virtual_address_bits(levels);
                tables.emplace(is_root ? 64 : span, is_root ? 0 : byte >> span);
                if (is_root) break;
            }
        RC_ASSERT(cost.pages == pages.size());
        RC_ASSERT(cost.mapped_bytes == pages.size() * cost.page_bytes);
        RC_ASSERT(cost.wasted_bytes == cost.mapped_bytes - touched.size());
        RC_ASSERT(cost.tables == tables.size());
        RC_ASSERT(cost.table_bytes == 4096 * cost.tables);
        RC_ASSERT(cost.metadata_bytes == 16 * (cost.mapped_bytes / 4096 + cost.tables));
        RC_ASSERT(cost.on_x86 == (page_shift == 12 || page_shift == 21 || page_shift == 30));
    }
    // The tables that there really are.
    for (const PageSizeRun& run : report.runs) {
        RC_ASSERT(run.tables == cost_of(report, bytes(run.page_size)).tables);
        RC_ASSERT(run.misses >= run.compulsory);
        RC_ASSERT(run.lookups == run.hits + run.misses);
    }
}

}  // namespace
}  // namespace holdfast::test
