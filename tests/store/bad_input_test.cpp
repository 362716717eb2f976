// Bad input: one clear error that names the file or address and what to do, and nothing is changed.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libpmemobj.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "format/superblock.hpp"
#include "support/model.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Opening fails with this code, the message names the file and says `advice`, and not a byte of the
// file is changed; `skip` bytes at its start are libpmemobj's own, where it notes that it was
// there.
void expect_refused(const std::string& path, ErrorCode code, const std::string& advice,
                    std::size_t skip = 0) {
    const std::string before = bytes_of(path).substr(skip);
    const auto opened = Store::open(path, {.emulation = PmemEmulation::on});
    ASSERT_FALSE(opened);
    EXPECT_STREQ(to_string(opened.error().code), to_string(code)) << opened.error().message;
    EXPECT_THAT(opened.error().message, HasSubstr(path));
    EXPECT_THAT(opened.error().message, HasSubstr(advice));
    EXPECT_TRUE(bytes_of(path).substr(skip) == before) << "the file was changed";
}

template <typename T>
void expect_error(const Result<T>& result, ErrorCode code,
                  const std::vector<std::string>& message) {
    ASSERT_FALSE(result);
    EXPECT_STREQ(to_string(result.error().code), to_string(code)) << result.error().message;
    for (const std::string& part : message) EXPECT_THAT(result.error().message, HasSubstr(part));
}

// Changes the superblock of a closed pool.
void edit_superblock(const std::string& path,
                     const std::function<void(format::Superblock&)>& edit) {
    const int fd = open(path.c_str(), O_RDWR);
    ASSERT_GE(fd, 0);
    struct stat status{};
    ASSERT_EQ(fstat(fd, &status), 0);
    std::string bytes = bytes_of(path);
    const auto at = bytes.find(std::string("HOLDFAST"));
    ASSERT_NE(at, std::string::npos);
    auto block = std::make_unique<format::Superblock>();
    std::memcpy(static_cast<void*>(block.get()), bytes.data() + at, sizeof *block);
    edit(*block);
    ASSERT_EQ(pwrite(fd, block.get(), sizeof *block, static_cast<off_t>(at)),
              static_cast<ssize_t>(sizeof *block));
    close(fd);
}

TEST(BadFile, MissingFile) {
    const TemporaryPool pool;
    expect_error(Store::open(pool.path()), ErrorCode::not_found, {pool.path(), "create"});
}

TEST(BadFile, NoPool) {
    const TemporaryPool file;
    std::ofstream(file.path()) << std::string(100'000, 'x');
    expect_refused(file.path(), ErrorCode::not_a_pool, "not a libpmemobj pool");
    std::filesystem::resize_file(file.path(), 0);
    expect_refused(file.path(), ErrorCode::not_a_pool, "not a libpmemobj pool");
}

TEST(BadFile, Directory) {
    expect_error(Store::open("/dev/shm"), ErrorCode::not_a_pool, {"/dev/shm"});
}

TEST(BadFile, AnotherProgramsPool) {
    const TemporaryPool file;
    PMEMobjpool* const pool = pmemobj_create(file.path().c_str(), "their-layout", 8_MiB, 0600);
    ASSERT_NE(pool, nullptr);
    pmemobj_close(pool);
    expect_refused(file.path(), ErrorCode::not_a_pool, "their-layout");
}

TEST(BadFile, PoolOfOurLayoutWithoutAStore) {
    const TemporaryPool file;
    PMEMobjpool* const pool = pmemobj_create(file.path().c_str(), format::kLayout, 8_MiB, 0600);
    ASSERT_NE(pool, nullptr);
    pmemobj_close(pool);
    const auto opened = Store::open(file.path());
    expect_error(opened, ErrorCode::damaged, {file.path(), "create it anew"});
}

TEST(BadFile, TruncatedPool) {
    const TemporaryPool pool;
    pool.create(16_MiB);
    for (const std::uint64_t size : {std::uint64_t{12_MiB}, std::uint64_t{4_MiB},
                                     std::uint64_t{100'000}, std::uint64_t{5000}}) {
        std::filesystem::resize_file(pool.path(), size);
        expect_refused(pool.path(), ErrorCode::damaged, "cut off");
    }
}

TEST(BadFile, OpenInAnotherProcess) {
    const TemporaryPool pool;
    pool.create();
    int ready[2], done[2];
    ASSERT_EQ(pipe(ready) + pipe(done), 0);
    const pid_t child = fork();
    if (child == 0) {
        const Store store = pool.open();
        char byte = 1;
        if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    expect_error(Store::open(pool.path(), {.emulation = PmemEmulation::on}), ErrorCode::busy,
                 {pool.path(), "another process"});
    ASSERT_EQ(write(done[1], &byte, 1), 1);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    pool.open();
}

TEST(BadFile, OpenTwiceInThisProcess) {
    const TemporaryPool pool;
    const Store store = pool.create();
    expect_error(Store::open(pool.path(), {.emulation = PmemEmulation::on}), ErrorCode::busy,
                 {pool.path()});
}

TEST(BadFile, NewerFormatVersion) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(), [](format::Superblock& block) {
        block.format_version = format::kFormatVersion + 1;
        block.checksum = 12345;  // theirs, computed as they like
    });
    expect_refused(pool.path(), ErrorCode::unsupported, "use a newer holdfast");
}

TEST(BadFile, OlderFormatVersion) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(), [](format::Superblock& block) {
        block.format_version = format::kFormatVersion - 1;
        block.checksum = block.computed_checksum();
    });
    expect_refused(pool.path(), ErrorCode::unsupported, "export with the build that made it");
}

TEST(BadFile, UnknownIncompatibleFeature) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(), [](format::Superblock& block) {
        block.incompatible_features |= std::uint64_t{1} << 40;
        block.checksum = block.computed_checksum();
    });
    expect_refused(pool.path(), ErrorCode::unsupported, "0x10000000000");
}

TEST(BadFile, UnknownCompatibleFeatureIsIgnored) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(), [](format::Superblock& block) {
        block.compatible_features |= std::uint64_t{1} << 40;
        block.checksum = block.computed_checksum();
    });
    pool.open();
}

TEST(BadFile, DamagedSuperblock) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(), [](format::Superblock& block) { block.uuid[3] ^= 4; });
    expect_refused(pool.path(), ErrorCode::damaged, "checksum");
}

TEST(BadFile, DamagedRegionRecord) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    edit_superblock(pool.path(),
                    [](format::Superblock& block) { block.regions[0].frame_count ^= 1; });
    expect_refused(pool.path(), ErrorCode::damaged, "region 0", 8192);
}

TEST(BadFile, ReadOnlyFile) {
    const TemporaryPool pool;
    pool.create(8_MiB);
    chmod(pool.path().c_str(), 0400);
    expect_refused(pool.path(), ErrorCode::permission_denied, "write permission");
}

TEST(BadFile, PoolsetWithReplicasIsRefusedAndWithoutIsNot) {
    const TemporaryPool set, part_a, part_b;
    std::ofstream(set.path()) << "PMEMPOOLSET\n20M " << part_a.path() << "\nREPLICA\n20M "
                              << part_b.path() << "\n";
    expect_error(Store::create(set.path(), {.emulation = PmemEmulation::on}),
                 ErrorCode::unsupported, {set.path(), "REPLICA"});
    EXPECT_FALSE(std::filesystem::exists(part_a.path()));

    std::ofstream(set.path(), std::ios::trunc)
        << "PMEMPOOLSET\n20M " << part_a.path() << "\n30M " << part_b.path() << "\n";
    Model model;
    {
        Store store = value_of(Store::create(set.path(), {.emulation = PmemEmulation::on}));
        Space space = value_of(store.create_space("a"));
        model.create("a", Levels::four);
        const Range range{VirtAddr(0), 30_MiB};
        must(space.map(range, protection::rw));
        model.map("a", range, protection::rw, false);
        const std::uint64_t word = 77;
        for (VirtAddr page : {VirtAddr(0), VirtAddr(15_MiB), VirtAddr(29_MiB)}) {
            must(space.write(page, std::as_bytes(std::span(&word, 1))));
            model.write("a", page, word);
        }
        // Frames of a region lie in one part, and line up with it.
        for (const RegionInfo& region : store.regions()) {
            EXPECT_TRUE(region.file == part_a.path() || region.file == part_b.path());
            EXPECT_EQ(region.physical_base.bits() % 1_GiB, region.file_offset % 1_GiB);
        }
        EXPECT_GE(store.regions().size(), 2u) << "one part holds everything: not what is tested";
    }
    const Store again = value_of(Store::open(set.path(), {.emulation = PmemEmulation::on}));
    EXPECT_TRUE(agrees(again, model));
}

TEST(BadFile, CreateRefusals) {
    const TemporaryPool pool;
    expect_error(Store::create(pool.path(), {.size_bytes = 1_MiB}), ErrorCode::invalid_argument,
                 {pool.path(), "8 MiB"});
    expect_error(Store::create("/dev/shm/no/such/folder/pool", {.size_bytes = 8_MiB}),
                 ErrorCode::not_found, {"/dev/shm/no/such/folder", "make the folder"});
    expect_error(Store::create(pool.path(), {.size_bytes = std::uint64_t{1} << 50}),
                 ErrorCode::no_space, {pool.path(), "left"});
    EXPECT_FALSE(std::filesystem::exists(pool.path()));
    pool.create(8_MiB);
    expect_error(Store::create(pool.path(), {.size_bytes = 8_MiB}), ErrorCode::already_exists,
                 {pool.path(), "another name"});
}

class BadCall : public testing::Test {
  protected:
    BadCall() : store(pool.create(24_MiB)), space(value_of(store.create_space("space"))) {
        model.create("space", Levels::four);
        map({VirtAddr(0x10'0000), 16 * kPageSize});
    }
    ~BadCall() override { EXPECT_TRUE(agrees(store, model)) << "a refused call changed something"; }
    void map(Range range) {
        must(space.map(range, protection::rw));
        model.map("space", range, protection::rw, false);
    }
    const TemporaryPool pool;
    Store store;
    Space space;
    Model model;
};

TEST_F(BadCall, Overlap) {
    expect_error(space.map({VirtAddr(0xf'f000), 3 * kPageSize}, protection::rw), ErrorCode::overlap,
                 {"0x100000", "unmap it first"});
}

TEST_F(BadCall, UnalignedEmptyWrappingAndNonCanonicalRanges) {
    const auto refused = [&](std::uint64_t start, std::uint64_t size, const char* why) {
        expect_error(space.map({VirtAddr(start), size}, protection::rw),
                     ErrorCode::invalid_argument, {fmt::format("{:#x}", start), why});
        expect_error(space.unmap({VirtAddr(start), size}), ErrorCode::invalid_argument, {why});
        expect_error(space.protect({VirtAddr(start), size}, protection::r),
                     ErrorCode::invalid_argument, {why});
    };
    refused(0x10'0001, kPageSize, "multiples of 4096");
    refused(0x10'0000, 100, "multiples of 4096");
    refused(0x10'0000, 0, "empty");
    refused(0x8000'0000'0000, kPageSize, "canonical");
    refused(0x7fff'ffff'f000, 2 * kPageSize, "canonical");
    refused(0xffff'7fff'ffff'f000, 2 * kPageSize, "canonical");
    refused(0xffff'ffff'ffff'f000, 2 * kPageSize, "wraps");
    refused(0x0, 0xffff'ffff'ffff'f000, "canonical");
    // The last page of each half is a page as any other.
    map({VirtAddr(0x7fff'ffff'f000), kPageSize});
    map({VirtAddr(0xffff'ffff'ffff'f000), kPageSize});
    EXPECT_EQ(space.translate(VirtAddr(0x8000'0000'0000)).error().kind, FaultKind::non_canonical);
}

TEST_F(BadCall, LevelsDecideWhatIsCanonical) {
    for (const auto& [levels, bits] : {std::pair(Levels::three, 39u), {Levels::five, 57u}}) {
        const std::string name = fmt::format("{} bits", bits);
        Space other = value_of(store.create_space(name, {levels}));
        model.create(name, levels);
        const std::uint64_t half = std::uint64_t{1} << (bits - 1);
        expect_error(other.map({VirtAddr(half), kPageSize}, protection::rw),
                     ErrorCode::invalid_argument, {"canonical"});
        for (const std::uint64_t start : {half - kPageSize, ~half + 1, ~kPageSize + 1}) {
            must(other.map({VirtAddr(start), kPageSize}, protection::rw));
            EXPECT_FALSE(model.map(name, {VirtAddr(start), kPageSize}, protection::rw, false));
        }
    }
}

TEST_F(BadCall, ProtectAcrossAHole) {
    expect_error(space.protect({VirtAddr(0x10'0000), 17 * kPageSize}, protection::r),
                 ErrorCode::not_mapped, {"0x110000", "whole or not at all"});
}

TEST_F(BadCall, ProtectionWithoutRead) {
    expect_error(space.map({VirtAddr(0), kPageSize}, protection::w), ErrorCode::invalid_argument,
                 {"needs r"});
}

TEST_F(BadCall, NoSpaceInTheMiddleOfARangeIsRolledBackWhole) {
    expect_error(space.map({VirtAddr(0x4000'0000), 1_GiB}, protection::rw), ErrorCode::no_space,
                 {pool.path(), "not enough free frames"});
    EXPECT_TRUE(agrees(store, model));
    // In a transaction: what went before is rolled back as well.
    Transaction transaction = store.begin();
    must(transaction.unmap(space, {VirtAddr(0x10'0000), 8 * kPageSize}));
    must(transaction.map(space, {VirtAddr(0x2000'0000), 1_MiB}, protection::rw));
    expect_error(transaction.map(space, {VirtAddr(0x4000'0000), 1_GiB}, protection::rw),
                 ErrorCode::no_space, {});
    expect_error(transaction.commit(), ErrorCode::no_space, {});
    EXPECT_TRUE(agrees(store, model));
    // And all that is left can still be had, to the last frame but those for tables and the few
    // that are held back.
    const std::uint64_t free = value_of(store.info()).frames.free;
    const Range rest{VirtAddr(0x4000'0000), (free - 70) * kPageSize};
    map(rest);
    must(space.unmap(rest));
    model.unmap("space", rest);
    map(rest);
}

TEST_F(BadCall, AFullStoreCanBeEmptied) {
    const VirtAddr start{0x4000'0000};
    std::uint64_t pages = 0;
    const auto map_more = [&](std::uint64_t count) {
        const Range range{start + pages * kPageSize, count * kPageSize};
        if (!space.map(range, protection::rw)) return false;
        model.map("space", range, protection::rw, false);
        pages += count;
        return true;
    };
    for (std::uint64_t step = 1024; step != 0; step /= 2)
        while (map_more(step)) {
        }
    expect_error(space.map({VirtAddr(0x7000'0000'0000), kPageSize}, protection::rw),
                 ErrorCode::no_space, {});
    // Neither the long unmap, which needs tables of its own for limbo, nor the removal is refused.
    const Range most{start + 100 * kPageSize, (pages - 200) * kPageSize};
    must(space.unmap(most));
    model.unmap("space", most);
    EXPECT_TRUE(agrees(store, model));
    must(store.remove_space("space"));
    model.remove("space");
    value_of(store.release_limbo());
    const VerifyReport report = store.verify();
    EXPECT_EQ(report.frames_free, report.frames_total);
}

TEST_F(BadCall, Names) {
    expect_error(store.create_space("space"), ErrorCode::already_exists, {"space", "another name"});
    expect_error(store.open_space("other"), ErrorCode::not_found, {"other", "space list"});
    expect_error(store.remove_space("other"), ErrorCode::not_found, {"other"});
    expect_error(store.rename_space("other", "more"), ErrorCode::not_found, {"other"});
    expect_error(store.rename_space("space", "space"), ErrorCode::already_exists, {"space"});
    for (const std::string& name : {std::string(), std::string(300, 'n'), std::string("a\nb")})
        expect_error(store.create_space(name), ErrorCode::invalid_argument, {"name of a space"});
    const std::string longest(255, 'n');
    value_of(store.create_space(longest));
    model.create(longest, Levels::four);
}

TEST_F(BadCall, AccessWithoutPermissionOrMapping) {
    must(space.protect({VirtAddr(0x10'0000), kPageSize}, protection::r));
    model.protect("space", {VirtAddr(0x10'0000), kPageSize}, protection::r);
    std::array<std::byte, 2 * kPageSize> bytes{};
    expect_error(space.write(VirtAddr(0x10'0ff0), std::span(bytes).first(8)),
                 ErrorCode::permission_denied, {"0x100ff0", "write"});
    expect_error(space.read(VirtAddr(0x10'f800), bytes), ErrorCode::not_mapped,
                 {"0x110000", "read"});
    expect_error(space.persist({VirtAddr(0x20'0000), 8}), ErrorCode::not_mapped, {"0x200000"});
}

TEST_F(BadCall, HandleOfARemovedSpace) {
    Space removed = value_of(store.create_space("removed"));
    must(removed.map({VirtAddr(0), kPageSize}, protection::rw));
    must(store.remove_space("removed"));
    expect_error(removed.map({VirtAddr(0x1000), kPageSize}, protection::rw), ErrorCode::stale,
                 {"removed"});
    EXPECT_FALSE(removed.translate(VirtAddr(0)));
    // A new space of the same name is another one.
    Space fresh = value_of(store.create_space("removed"));
    model.create("removed", Levels::four);
    EXPECT_FALSE(removed.translate(VirtAddr(0)));
    EXPECT_FALSE(fresh.translate(VirtAddr(0)));
}

TEST_F(BadCall, TransactionsThatWouldWaitForEachOther) {
    Space other = value_of(store.create_space("other"));
    model.create("other", Levels::four);
    Transaction first = store.begin(), second = store.begin();
    must(first.map(space, {VirtAddr(0), kPageSize}, protection::rw));
    must(second.map(other, {VirtAddr(0), kPageSize}, protection::rw));
    expect_error(second.map(space, {VirtAddr(0x5000), kPageSize}, protection::rw), ErrorCode::busy,
                 {"space"});
    expect_error(space.map({VirtAddr(0x5000), kPageSize}, protection::rw), ErrorCode::busy,
                 {"this thread"});
    first.abort();
    second.abort();
}

TEST_F(BadCall, FillOfAnOlderPage) {
    Transaction transaction = store.begin();
    const std::array<std::byte, 8> bytes{};
    expect_error(transaction.fill(space, VirtAddr(0x10'0000), bytes), ErrorCode::invalid_argument,
                 {"0x100000", "Space::write"});
    expect_error(transaction.fill(space, VirtAddr(0x70'0000), bytes), ErrorCode::not_mapped,
                 {"0x700000"});
    // Neither spoils the transaction.
    must(transaction.map(space, {VirtAddr(0), kPageSize}, protection::rw));
    must(transaction.commit());
    model.map("space", {VirtAddr(0), kPageSize}, protection::rw, false);
}

}  // namespace
}  // namespace holdfast::test
