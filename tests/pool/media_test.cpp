// The kinds of media: emulated PMem on tmpfs and on an ordinary file, and an ordinary file made
// durable by msync; what PMDK's own tools say of a pool; more than 16 GiB.
// ctest-timeout: 600
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "space/space_state.hpp"
#include "store/store_state.hpp"
#include "support/model.hpp"
#include "support/pmem_counters.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

// A folder on a disk, where files are not PMem.
std::string disk() { return std::filesystem::temp_directory_path(); }

// Some of everything, and the same on the model.
Model work(Store& store) {
    Model model;
    Space space = value_of(store.create_space("space"));
    model.create("space", Levels::four);
    const Range range{VirtAddr(0x4000'0000), 700 * kPageSize};
    must(space.map(range, protection::rw, {.name = "name"}));
    model.map("space", range, protection::rw, false);
    const std::uint64_t word = 0x1122'3344;
    must(space.write(range.start, std::as_bytes(std::span(&word, 1))));
    must(space.persist({range.start, sizeof word}));
    model.write("space", range.start, word);
    const Range part{range.start + 10 * kPageSize, 600 * kPageSize};
    must(space.protect(part, protection::r));
    model.protect("space", part, protection::r);
    const Range end{range.start + 650 * kPageSize, 50 * kPageSize};
    must(space.unmap(end));
    model.unmap("space", end);
    return model;
}

std::pair<int, std::string> output_of(const std::string& command) {
    FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
    std::string text;
    std::array<char, 4096> buffer;
    while (fgets(buffer.data(), buffer.size(), pipe) != nullptr) text += buffer.data();
    const int status = pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
}

TEST(Media, EmulatedOnTmpfsNeverCallsMsync) {
    const TemporaryPool pool;
    const PmemCounters counters;
    Model model;
    {
        Store store = pool.create(16_MiB);
        EXPECT_TRUE(store.is_pmem());
        model = work(store);
    }
    EXPECT_EQ(counters.snapshot().syncs, 0u);
    EXPECT_GT(counters.snapshot().fences, 0u);
    EXPECT_TRUE(agrees(pool.open(), model));
}

TEST(Media, EmulatedOnAnOrdinaryFileNeverCallsMsync) {
    const TemporaryPool pool(disk());
    const PmemCounters counters;
    Model model;
    {
        Store store = pool.create(16_MiB);
        EXPECT_TRUE(store.is_pmem());
        model = work(store);
    }
    EXPECT_EQ(counters.snapshot().syncs, 0u);
    EXPECT_TRUE(agrees(pool.open(), model));
}

TEST(Media, AnOrdinaryFileIsMadeDurableByMsync) {
    const TemporaryPool pool(disk());
    Model model;
    {
        Store store = value_of(
            Store::create(pool.path(), {.size_bytes = 16_MiB, .emulation = PmemEmulation::off}));
        EXPECT_FALSE(store.is_pmem());
        const PmemCounters counters;
        model = work(store);
        // Every call that returned has synced; libpmem's flushes alone would leave it in memory.
        EXPECT_GT(counters.snapshot().syncs, 10u);
        EXPECT_EQ(counters.snapshot().flush_calls, 0u);
        Space space = value_of(store.open_space("space"));
        const auto before = counters.snapshot().syncs;
        must(space.persist({VirtAddr(0x4000'0000), 3 * kPageSize}));
        EXPECT_GE(counters.snapshot().syncs, before + 3);
    }
    const Store again = value_of(Store::open(pool.path(), {.emulation = PmemEmulation::off}));
    EXPECT_TRUE(agrees(again, model));
}

TEST(Media, TheEnvironmentVariableSwitchesEmulationOn) {
    const TemporaryPool pool(disk());
    pool.create(16_MiB);
    unsetenv("HOLDFAST_EMULATE_PMEM");
    EXPECT_FALSE(value_of(Store::open(pool.path())).is_pmem());
    setenv("HOLDFAST_EMULATE_PMEM", "1", 1);
    EXPECT_TRUE(value_of(Store::open(pool.path())).is_pmem());
    setenv("HOLDFAST_EMULATE_PMEM", "0", 1);
    EXPECT_FALSE(value_of(Store::open(pool.path())).is_pmem());
    unsetenv("HOLDFAST_EMULATE_PMEM");
}

TEST(Media, PmdksToolsFindAHealthyPool) {
    const TemporaryPool pool;
    {
        Store store = pool.create(16_MiB);
        work(store);
    }
    const auto [check_status, check] = output_of("pmempool check -v " + pool.path());
    EXPECT_EQ(check_status, 0) << check;
    EXPECT_THAT(check, testing::HasSubstr("consistent"));
    const auto [info_status, info] = output_of("pmempool info " + pool.path());
    EXPECT_EQ(info_status, 0) << info;
    EXPECT_THAT(info, testing::HasSubstr("holdfast"));
    EXPECT_THAT(info, testing::HasSubstr("PMEMOBJ"));
}

TEST(Media, MoreThan16GiBInSeveralRegions) {
    struct statvfs file_system{};
    ASSERT_EQ(statvfs(disk().c_str(), &file_system), 0);
    const std::uint64_t available = std::uint64_t{file_system.f_bavail} * file_system.f_frsize;
    // The file is allocated, and hardly anything of it is written.
    constexpr std::uint64_t kSize = std::uint64_t{18} << 30;
    if (available < kSize + (std::uint64_t{2} << 30))
        GTEST_SKIP() << disk() << " has " << (available >> 30) << " GiB left, and 20 are needed";
    const TemporaryPool pool(disk());
    const auto made =
        Store::create(pool.path(), {.size_bytes = kSize, .emulation = PmemEmulation::on});
    ASSERT_TRUE(made) << made.error().message;
    Store store = *made;
    ASSERT_GE(store.regions().size(), 2u);
    std::uint64_t total = 0;
    for (const RegionInfo& region : store.regions()) {
        total += region.size_bytes;
        EXPECT_LT(region.size_bytes, std::uint64_t{16} << 30);
        EXPECT_EQ(region.physical_base.bits() % 1_GiB, region.file_offset % 1_GiB);
    }
    EXPECT_GT(total, std::uint64_t{16} << 30);
    // Frames of the second region are reached by the same walk.
    Space space = value_of(store.create_space("space"));
    const RegionInfo second = store.regions()[1];
    const auto in_second = [&](VirtAddr address) {
        const std::uint64_t at = space.translate(address)->physical.bits();
        return at - second.physical_base.bits() < second.size_bytes;
    };
    VirtAddr at{0};
    // Take the allocator there without touching 16 GiB of frames: mark the first region as used.
    must(space.map({at, kPageSize}, protection::rw));
    EXPECT_FALSE(in_second(at));
    auto& allocator = space.state().store->allocator;
    const std::uint64_t first_frames = store.regions().front().size_bytes / kPageSize;
    const auto taken = allocator.allocate(first_frames - 64);
    ASSERT_TRUE(taken);
    at = VirtAddr(0x4000'0000);
    must(space.map({at, 200 * kPageSize}, protection::rw));
    EXPECT_TRUE(in_second(at + 199 * kPageSize));
    const std::uint64_t word = 0xfeed;
    must(space.write(at + 199 * kPageSize, std::as_bytes(std::span(&word, 1))));
    std::uint64_t seen = 0;
    must(space.read(at + 199 * kPageSize, std::as_writable_bytes(std::span(&seen, 1))));
    EXPECT_EQ(seen, word);
    for (const auto& extent : *taken) allocator.give_back(extent);
    expect_clean(store);
}

TEST(Media, GrowingAFullPoolSaysThatThereIsNoRoom) {
    const TemporaryPool pool;
    Store store = pool.create(16_MiB);
    const auto grown = store.grow(1_MiB);
    ASSERT_FALSE(grown);
    EXPECT_STREQ(to_string(grown.error().code), "no_space");
    EXPECT_THAT(grown.error().message, testing::HasSubstr("no room for another region"));
}

// A poolset over a folder: libpmemobj adds files to it as its heap grows.
TEST(Media, APoolThatHasRoomGrowsByRegionsWhenFramesRunOut) {
    const TemporaryPool set, folder;
    std::filesystem::create_directory(folder.path());
    FILE* const file = fopen(set.path().c_str(), "w");
    fmt::print(file, "PMEMPOOLSET\nOPTION SINGLEHDR\n600M {}/\n", folder.path());
    fclose(file);
    Model model;
    {
        Store store = value_of(Store::create(set.path(), {.emulation = PmemEmulation::on}));
        const std::size_t regions = store.regions().size();
        Space space = value_of(store.create_space("space"));
        model.create("space", Levels::four);
        const std::uint64_t free = value_of(store.info()).frames.free;
        const Range range{VirtAddr(0x4000'0000), (free + 2000) * kPageSize};
        must(space.map(range, protection::rw));
        model.map("space", range, protection::rw, false);
        EXPECT_GT(store.regions().size(), regions);
        const std::uint64_t word = 0x9999;
        const VirtAddr last = range.end() + (std::uint64_t{0} - kPageSize);
        must(space.write(last, std::as_bytes(std::span(&word, 1))));
        must(space.persist({last, sizeof word}));
        model.write("space", last, word);
        expect_clean(store);
    }
    {
        const Store again = value_of(Store::open(set.path(), {.emulation = PmemEmulation::on}));
        EXPECT_TRUE(agrees(again, model));
    }
    std::filesystem::remove_all(folder.path());
}

}  // namespace
}  // namespace holdfast::test
