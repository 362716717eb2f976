// Pools of this format version that were made once and are kept in the tree: for as long as the
// version lives they are opened, read, checked and changed. (What is refused, other versions and
// unknown features, is in store/bad_input_test.cpp.)
//
// A format that changes has another version, and then these are made anew:
//     HOLDFAST_MAKE_POOLS=1 format_compatibility_test
// writes tests/format/pools/. What the pool must hold is `contents` below, not what some build has
// found in it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "format/superblock.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
namespace fs = std::filesystem;

const fs::path kPools = HOLDFAST_TEST_POOLS;

fs::path kept_pool() { return kPools / fmt::format("v{}.pool.gz", format::kFormatVersion); }
fs::path kept_handle() { return kPools / fmt::format("v{}.handle", format::kFormatVersion); }

constexpr Range kText{VirtAddr(0x7f00'0000'0000), 20 * kPageSize};
constexpr Range kLazy{VirtAddr(0x7f10'0000'0000), 1_GiB};
constexpr Range kShared{VirtAddr(0x7f00'4000'0000), 2 * kPageSize};
constexpr Range kHuge{VirtAddr(0x7f20'0000'0000), 2_MiB};
constexpr Range kStack{VirtAddr(0x7f30'0000'0000), 64_KiB};
constexpr Range kFilePrivate{VirtAddr(0x4000'0000), 3 * kPageSize};
constexpr Range kFileShared{VirtAddr(0x5000'0000), 3 * kPageSize};
// There while the pool is made, and then no more.
constexpr const char* kFile = "/dev/shm/holdfast-kept-file";
constexpr Range kDevice{VirtAddr(0x6000'0000), 2 * kPageSize};
constexpr const char* kDeviceFile = "/dev/shm/holdfast-kept-device";
constexpr Range kVolatile{VirtAddr(0x7f00'8000'0000), kPageSize};

void write(Space& space, VirtAddr address, const std::string& text) {
    must(space.write(address, std::as_bytes(std::span(text))));
    must(space.persist({address, text.size()}));
}

// Everything that the format knows.
void fill(Store& store) {
    Space four = value_of(store.create_space("four"));
    must(four.map(kText, protection::rw | protection::u, {.name = "text", .name_offset = 4096}));
    for (std::uint64_t page = 0; page < kText.pages(); ++page)
        write(four, kText.start + page * kPageSize, fmt::format("page {}", page));
    must(four.protect({kText.start, kPageSize}, protection::rx));
    must(four.map(kLazy, protection::rw, {.lazy = true}));
    write(four, kLazy.start + 512_MiB, "in the middle");
    must(four.fault(kLazy.start, protection::r));  // the frame of zeros
    must(four.map_shared(kShared, protection::r, four, {kText.start, kPageSize}));
    const unsigned region = value_of(store.add_volatile_region(1_MiB));
    must(four.map(kVolatile, protection::rw, {.region = region}));
    must(four.map(kHuge, protection::rw, {.page_size = PageSize::size_2MiB}));
    write(four, kHuge.start + 1_MiB, "in a huge page");
    must(four.map(kStack, protection::rw, {.grows_down = GrowsDown{.guard_bytes = 4 * kPageSize}}));
    must(four.set_quota(8_MiB));
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    must(set_overcommit(store, {OvercommitPolicy::heuristic, 70}));
    Space kernel = value_of(store.create_space("kernel", {.is_supervisor = true}));
    must(kernel.map({VirtAddr(0xffff'8000'0000'0000), kPageSize}, protection::rw));
    write(kernel, VirtAddr(0xffff'8000'0000'0000), "kernel");
    value_of(store.create_space("ruled", {.supervisor = "kernel"}));
    for (const auto& [name, levels] : {std::pair("three", Levels::three), {"five", Levels::five}}) {
        Space space = value_of(store.create_space(name, {.levels = levels}));
        must(space.map({VirtAddr(0x1000), kPageSize}, protection::rw));
        write(space, VirtAddr(0x1000), name);
    }
    // Shared tables, and a page that was copied since.
    value_of(store.create_snapshot("four", "four@1"));
    write(four, kText.start + kPageSize, "page 1, again");
    value_of(store.fork_space("three", "three too"));
    std::ofstream(kFile) << std::string(2 * kPageSize, 'f');
    Space files = value_of(store.create_space("files"));
    must(files.map(kFilePrivate, protection::rw, {.file = FileMapping{.path = kFile}}));
    must(files.map(kFileShared, protection::r,
                   {.file = FileMapping{.path = kFile, .offset = kPageSize, .shared = true}}));
    write(files, kFilePrivate.start, "private");
    EXPECT_EQ(bytes_at(files, kFileShared.start.bits(), 3), "fff");
    fs::remove(kFile);
    const unsigned device =
        value_of(store.add_device_region(kDeviceFile, {.size_bytes = 64_KiB, .sparse = true}));
    must(files.map(kDevice, protection::rw,
                   {.device = DeviceMapping{.region = device, .offset = kPageSize}}));
    EXPECT_EQ(bytes_at(files, kDevice.start.bits(), 1), std::string(1, '\0'));
    fs::remove(kDeviceFile);
    // In limbo: a space, and a range of several tables.
    Space removed = value_of(store.create_space("removed"));
    must(removed.map({VirtAddr(0x1000), 600 * kPageSize}, protection::rw));
    must(store.remove_space("removed"));
    // And a build that its process did not finish.
    auto& state = store.state();
    memory::Build build = value_of(state.build_log.acquire());
    must(state.build_log.reserve(build, 30));
}

void expect_contents(const Store& store) {
    EXPECT_EQ(value_of(store.space_names()),
              (std::vector<std::string>{"files", "five", "four", "kernel", "ruled", "three",
                                        "three too"}));
    EXPECT_EQ(value_of(store.snapshots("four")).size(), 1u);
    const Space four = value_of(store.open_space("four"));
    for (std::uint64_t page = 0; page < kText.pages(); ++page) {
        const std::string text = page == 1 ? "page 1, again" : fmt::format("page {}", page);
        EXPECT_EQ(bytes_at(four, (kText.start + page * kPageSize).bits(), text.size() + 1),
                  text + '\0');
    }
    const auto maps = value_of(four.maps());
    ASSERT_GE(maps.size(), 5u);
    EXPECT_EQ(maps[0],
              (Mapping{{kText.start, kPageSize}, protection::rx, kPageSize, "text", 4096}));
    EXPECT_EQ(maps[1], (Mapping{{kText.start + kPageSize, kText.size_bytes - kPageSize},
                                protection::rw | protection::u,
                                kText.size_bytes - kPageSize,
                                "text",
                                8192}));
    EXPECT_EQ(maps[2].range, kShared);
    EXPECT_EQ(maps[3].range, kVolatile);
    EXPECT_EQ(maps[4].range, kLazy);
    EXPECT_EQ(maps[4].resident_bytes, kPageSize);
    EXPECT_EQ(bytes_at(four, (kLazy.start + 512_MiB).bits(), 13), "in the middle");
    EXPECT_EQ(bytes_at(four, kLazy.start.bits(), 1), std::string(1, '\0'));
    EXPECT_EQ(four.translate(kLazy.start)->physical.frame(), store.state().memory.zero_frame());
    EXPECT_EQ(four.translate(kShared.start)->physical, four.translate(kText.start)->physical);
    EXPECT_EQ(four.translate(kVolatile.start).error().kind, FaultKind::volatile_lost);
    EXPECT_EQ(four.translate(kHuge.start)->page_size, PageSize::size_2MiB);
    EXPECT_EQ(bytes_at(four, (kHuge.start + 1_MiB).bits(), 14), "in a huge page");
    EXPECT_EQ(four.translate(kStack.start + 32_KiB).error().kind, FaultKind::stack_room);
    EXPECT_EQ(four.frame_use().quota_bytes, 8_MiB);
    EXPECT_EQ(store.reclaim_policy(), (ReclaimPolicy{FramePolicy::local, OomPolicy::refuse}));
    EXPECT_EQ(commit_account(store).overcommit, (Overcommit{OvercommitPolicy::heuristic, 70}));
    EXPECT_EQ(bytes_at(value_of(store.open_space("ruled")), 0xffff'8000'0000'0000, 6), "kernel");
    for (const char* name : {"three", "three too", "five"})
        EXPECT_EQ(bytes_at(value_of(store.open_space(name)), 0x1000, 4),
                  std::string(name).substr(0, 4));
    const Space files = value_of(store.open_space("files"));
    EXPECT_EQ(bytes_at(files, kFilePrivate.start.bits(), 10), "privatefff");
    EXPECT_EQ(files.translate(kFilePrivate.start + kPageSize).error().kind,
              FaultKind::file_missing);
    EXPECT_EQ(files.translate(kFileShared.start).error().kind, FaultKind::file_missing);
    EXPECT_EQ(value_of(store.files()).front().path, kFile);
    EXPECT_EQ(value_of(store.files()).front().size_bytes, 2 * kPageSize);
    const auto file_maps = value_of(files.maps());
    ASSERT_EQ(file_maps.size(), 4u);
    EXPECT_EQ(file_maps[0].name, kFile);
    EXPECT_FALSE(file_maps[0].is_shared);
    EXPECT_EQ(file_maps[1].name, "[lost]");
    EXPECT_EQ(file_maps[2].name_offset, 2 * kPageSize);
    EXPECT_TRUE(file_maps[2].is_shared);
    EXPECT_EQ(file_maps[3].range, kDevice);
    EXPECT_EQ(files.translate(kDevice.start).error().kind, FaultKind::region_missing);
    const Space kept = value_of(store.open_space("four@1"));
    EXPECT_EQ(bytes_at(kept, (kText.start + kPageSize).bits(), 7), std::string("page 1\0", 7));
    EXPECT_TRUE(kept.is_snapshot());
}

TEST(FormatCompatibility, APoolOfThisVersion) {
    if (const char* make = std::getenv("HOLDFAST_MAKE_POOLS"); make != nullptr) {
        const TemporaryPool pool;
        {
            Store store = pool.create(24_MiB);
            fill(store);
            std::ofstream(kept_handle())
                << value_of(value_of(store.open_space("four")).handle(kText)).to_string();
        }
        const std::string command =
            fmt::format("gzip -9nc '{}' > '{}'", pool.path(), kept_pool().string());
        ASSERT_EQ(std::system(command.c_str()), 0);
    }
    ASSERT_TRUE(fs::exists(kept_pool()))
        << "the format has a new version: make its pool, see the head of this test";
    const TemporaryPool pool;
    const std::string command =
        fmt::format("gzip -dc '{}' > '{}'", kept_pool().string(), pool.path());
    ASSERT_EQ(std::system(command.c_str()), 0);
    {
        Store store = pool.open();
        expect_contents(store);
        const VerifyReport report = store.verify();
        // Of the volatile region, of the device, and of the file: its own page, and the space's.
        ASSERT_EQ(report.findings.size(), 4u);
        for (const Finding& each : report.findings) EXPECT_EQ(each.what, "lost page");
        EXPECT_NE(report.frames_limbo, 0u);
        EXPECT_NE(report.frames_building, 0u);
        std::string text;
        std::getline(std::ifstream(kept_handle()), text);
        const auto found = store.resolve(value_of(Handle::parse(text)));
        ASSERT_TRUE(found) << found.error().message;
        EXPECT_EQ(found->range, kText);
    }
    // And is changed.
    Store store = pool.open();
    value_of(store.release_limbo());
    Space four = value_of(store.open_space("four"));
    must(four.unmap(kVolatile));
    must(store.remove_space("four@1"));  // which has it, too
    must(store.remove_space("files"));
    must(store.forget_file(kFile));
    value_of(store.release_limbo());
    expect_clean(store);
    EXPECT_EQ(store.verify().frames_limbo + store.verify().frames_building, 0u);
    must(four.map(kVolatile, protection::rw));
    must(four.unmap(kText));
    must(four.protect(kLazy, protection::r));
    must(store.remove_space("five"));
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
