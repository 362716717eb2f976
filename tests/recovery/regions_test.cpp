// Physical memory that changes while the store is closed: whatever becomes of a region, opening
// succeeds, the rest works, and no page of it ever reads as something else than it was.
#include "holdfast/region.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "format/entry.hpp"
#include "memory/region_file.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr std::uint64_t kRegionBytes = std::uint64_t{4} << 20;
constexpr VirtAddr kInPool{0x1000'0000}, kInRegion{0x2000'0000};
// More than come one by one, so that they are reserved; and behind them a few that are not.
constexpr std::uint64_t kPages = 40, kMorePages = 3;

std::string text_of(std::uint64_t page) { return fmt::format("page {:4}", page); }

class Regions : public testing::Test {
  protected:
    Regions() : store_(pool_.create()) {
        for (const std::string& path : {file(), copy(), file() + ".elsewhere"}) fs::remove(path);
    }
    ~Regions() override {
        store_.reset();
        for (const std::string& path : {file(), copy(), file() + ".elsewhere"})
            fs::remove_all(path);
    }

    std::string file() const { return pool_.path() + ".region"; }
    std::string copy() const { return pool_.path() + ".copy"; }
    Store& store() { return *store_; }
    Space space() { return value_of(store().open_space("space")); }
    void close() { store_.reset(); }
    void reopen() {
        close();
        store_ = pool_.open();
    }

    // A space with pages in the pool and pages in the region, which all have text.
    void fill(unsigned region) {
        Space made = value_of(store().create_space("space"));
        must(made.map({kInPool, kPages * kPageSize}, protection::rw));
        must(made.map({kInRegion, kPages * kPageSize}, protection::rw, {.region = region}));
        must(made.map({kInRegion + kPages * kPageSize, kMorePages * kPageSize}, protection::rw,
                      {.region = region}));
        write_all(made, kInPool, kPages);
        write_all(made, kInRegion, kPages + kMorePages);
    }
    static void write_all(Space& space, VirtAddr start, std::uint64_t pages) {
        for (std::uint64_t page = 0; page < pages; ++page) {
            const std::string text = text_of(page);
            must(space.write(start + page * kPageSize, std::as_bytes(std::span(text))));
        }
        must(space.persist({start, pages * kPageSize}));
    }
    static void expect_all(const Space& space, VirtAddr start, std::uint64_t pages) {
        for (std::uint64_t page = 0; page < pages; ++page)
            EXPECT_EQ(bytes_at(space, (start + page * kPageSize).bits(), 9), text_of(page));
    }

    // Opening succeeds, and: the region is in this state; its pages from `from` on are faults of
    // this kind that name it; everything else reads as it was; and space around them can be used.
    void expect_lost(unsigned region, RegionState state, FaultKind kind, std::uint64_t from = 0) {
        reopen();
        const RegionInfo info = store().regions().at(region);
        EXPECT_STREQ(to_string(info.state), to_string(state)) << info.trouble;
        if (state != RegionState::attached) {
            EXPECT_THAT(info.trouble, HasSubstr(fmt::format("region {}", region)));
        }
        Space opened = space();
        expect_all(opened, kInPool, kPages);
        expect_all(opened, kInRegion, from);
        for (std::uint64_t page = from; page < kPages + kMorePages; ++page) {
            // More often than a table is looked at before it is validated.
            for (int round = 0; round < 12; ++round) {
                const auto found = opened.translate(kInRegion + page * kPageSize);
                ASSERT_FALSE(found) << "page " << page;
                ASSERT_STREQ(to_string(found.error().kind), to_string(kind));
                ASSERT_EQ(found.error().region, region);
                ASSERT_EQ(found.error().protection, protection::rw);
            }
            std::byte byte{};
            const auto read = opened.read(kInRegion + page * kPageSize, {&byte, 1});
            ASSERT_FALSE(read);
            ASSERT_EQ(read.error().code, ErrorCode::lost);
            EXPECT_THAT(read.error().message, HasSubstr(fmt::format("region {}", region)));
            ASSERT_EQ(opened.write(kInRegion + page * kPageSize, {&byte, 1}).error().code,
                      ErrorCode::lost);
            ASSERT_FALSE(opened.frame_bytes(kInRegion + page * kPageSize));
        }
        // In a table that has lost pages, too.
        const VirtAddr beside = kInRegion + 100 * kPageSize;
        must(opened.map({beside, kPageSize}, protection::rw));
        write_all(opened, beside, 1);
        expect_all(opened, beside, 1);
        must(opened.protect({kInRegion, 2 * kPageSize}, protection::r));
        must(opened.protect({kInRegion, 2 * kPageSize}, protection::rw));
        must(opened.unmap({beside, kPageSize}));
        // A change of so many entries copies the table.
        must(opened.protect({kInRegion, kPages * kPageSize}, protection::r));
        must(opened.protect({kInRegion, kPages * kPageSize}, protection::rw));
        for (std::uint64_t page = 0; page < kPages; ++page)
            ASSERT_EQ(opened.translate(kInRegion + page * kPageSize).has_value(), page < from);
        const VerifyReport report = store().verify();
        ASSERT_EQ(report.findings.size(), 1u) << "neighbours are told as one";
        EXPECT_EQ(report.findings[0].what, "lost page");
        EXPECT_EQ(report.findings[0].space, "space");
        EXPECT_EQ(report.findings[0].range,
                  (Range{kInRegion + from * kPageSize, (kPages + kMorePages - from) * kPageSize}));
        const auto maps = value_of(opened.maps());
        EXPECT_EQ(maps.back().name, "[lost]");
        EXPECT_EQ(maps.back().protection, protection::rw);
    }
    void expect_whole(unsigned region) {
        reopen();
        EXPECT_EQ(store().regions().at(region).state, RegionState::attached)
            << store().regions().at(region).trouble;
        expect_all(space(), kInPool, kPages);
        expect_all(space(), kInRegion, kPages + kMorePages);
        expect_clean(store());
    }
    // What is lost can be unmapped, and then nothing is amiss.
    void expect_unmappable() {
        Space opened = space();
        must(opened.unmap({kInRegion, kPageSize}));
        must(opened.unmap({kInRegion, (kPages + kMorePages) * kPageSize}));
        value_of(store().release_limbo());
        expect_clean(store());
        must(opened.map({kInRegion, kPages * kPageSize}, protection::rw));
        write_all(opened, kInRegion, kPages);
        expect_all(opened, kInRegion, kPages);
    }

    const TemporaryPool pool_;
    std::optional<Store> store_;
};

class ExternalRegion : public Regions {
  protected:
    ExternalRegion()
        : region_(value_of(store().add_external_region(file(), {.size_bytes = kRegionBytes}))) {
        fill(region_);
    }
    void write_newer() {
        const std::string text = "newer";
        must(space().write(kInRegion, std::as_bytes(std::span(text))));
    }
    const unsigned region_;
};

TEST_F(ExternalRegion, HoldsThePagesThatPreferIt) {
    const RegionInfo info = store().regions().at(region_);
    EXPECT_EQ(info.file, file());
    EXPECT_EQ(info.size_bytes, kRegionBytes);
    EXPECT_EQ(info.physical_base.bits() % 1_GiB, info.file_offset % 1_GiB);
    const auto is_in_region = [&](VirtAddr address) {
        const std::uint64_t at = space().translate(address)->physical.bits();
        return at - info.physical_base.bits() < info.size_bytes;
    };
    for (std::uint64_t page = 0; page < kPages + kMorePages; ++page)
        EXPECT_TRUE(is_in_region(kInRegion + page * kPageSize)) << page;
    EXPECT_FALSE(is_in_region(kInPool));
    EXPECT_FALSE(is_in_region(VirtAddr(space().root().bits()))) << "tables are in the pool";
    expect_whole(region_);
    expect_whole(region_);
}

TEST_F(ExternalRegion, OfASpaceThatPrefersIt) {
    {
        Space other = value_of(store().create_space("other", {.region = region_}));
        must(other.map({kInPool, kPageSize}, protection::rw));
        must(other.map({kInRegion, kPageSize}, protection::rw, {.lazy = true}));
    }
    reopen();
    Space other = value_of(store().open_space("other"));
    EXPECT_EQ(other.info().region, region_);
    write_all(other, kInRegion, 1);  // the page gets its frame here
    const RegionInfo info = store().regions().at(region_);
    for (const VirtAddr address : {kInPool, kInRegion})
        EXPECT_LT(other.translate(address)->physical.bits() - info.physical_base.bits(),
                  info.size_bytes);
    Transaction transaction = store().begin();
    must(transaction.prefer_region(other, std::nullopt));
    must(transaction.commit());
    must(other.map({kInPool + kPageSize, kPageSize}, protection::rw));
    EXPECT_GT(other.translate(kInPool + kPageSize)->physical.bits() - info.physical_base.bits(),
              info.size_bytes);
    EXPECT_EQ(store().begin().prefer_region(other, 9).error().code, ErrorCode::not_found);
}

TEST_F(ExternalRegion, FullMeansThePool) {
    Space opened = space();
    const std::uint64_t pages = kRegionBytes / kPageSize + 10;
    must(opened.map({VirtAddr(0x4000'0000), pages * kPageSize}, protection::rw,
                    {.region = region_}));
    expect_clean(store());
    must(opened.map({VirtAddr(0x5000'0000), kPageSize}, protection::rw, {.region = region_}));
    EXPECT_GT(opened.translate(VirtAddr(0x5000'0000))->physical.bits() -
                  store().regions().at(region_).physical_base.bits(),
              kRegionBytes);
}

TEST_F(ExternalRegion, Missing) {
    close();
    fs::rename(file(), copy());
    expect_lost(region_, RegionState::missing, FaultKind::region_missing);
    close();
    fs::rename(copy(), file());
    expect_whole(region_);
}

TEST_F(ExternalRegion, MissingPagesCanBeUnmapped) {
    close();
    fs::remove(file());
    reopen();
    expect_unmappable();
}

TEST_F(ExternalRegion, RepairRemovesLostPagesOnlyIfAsked) {
    close();
    fs::rename(file(), copy());
    RepairOptions options{.emulation = PmemEmulation::on};
    const auto left = value_of(repair_file(pool_.path(), options));
    EXPECT_TRUE(left.repaired.empty());
    ASSERT_EQ(left.after.findings.size(), 1u);
    EXPECT_EQ(left.after.findings[0].range.pages(), kPages + kMorePages);
    fs::rename(copy(), file());
    expect_whole(region_);
    close();
    fs::remove(file());
    options.remove_lost_pages = options.dry_run = true;
    EXPECT_EQ(value_of(repair_file(pool_.path(), options)).freed_frames, kPages + kMorePages);
    options.dry_run = false;
    const auto removed = value_of(repair_file(pool_.path(), options));
    EXPECT_EQ(removed.freed_frames, kPages + kMorePages);
    EXPECT_TRUE(removed.after.clean());
    reopen();
    EXPECT_EQ(space().translate(kInRegion).error().kind, FaultKind::not_mapped);
    expect_all(space(), kInPool, kPages);
    expect_clean(store());
}

// The file is only read, and may be read-only.
TEST_F(ExternalRegion, OfAPoolThatIsOpenedAsACopy) {
    close();
    fs::permissions(file(), fs::perms::owner_read);
    const auto before = fs::last_write_time(file());
    {
        const Store copied =
            value_of(Store::open(pool_.path(), {.emulation = PmemEmulation::on, .as_copy = true}));
        Space opened = value_of(copied.open_space("space"));
        expect_all(opened, kInRegion, kPages);
        must(opened.write(kInRegion, std::as_bytes(std::span("changed"))));
        EXPECT_EQ(bytes_at(opened, kInRegion.bits(), 7), "changed");
        expect_clean(copied);
    }
    EXPECT_EQ(fs::last_write_time(file()), before);
    fs::permissions(file(), fs::perms::owner_read | fs::perms::owner_write);
    expect_whole(region_);
}

TEST_F(ExternalRegion, NotReadable) {
    close();
    fs::permissions(file(), fs::perms::none);
    expect_lost(region_, RegionState::missing, FaultKind::region_missing);
    EXPECT_THAT(store().regions().at(region_).trouble, HasSubstr("not writable"));
    close();
    fs::permissions(file(), fs::perms::owner_read | fs::perms::owner_write);
    expect_whole(region_);
}

TEST_F(ExternalRegion, AFolderOrAnEmptyFileInItsPlace) {
    close();
    fs::rename(file(), copy());
    fs::create_directory(file());
    expect_lost(region_, RegionState::replaced, FaultKind::region_replaced);
    close();
    fs::remove(file());
    std::ofstream(file()).close();
    expect_lost(region_, RegionState::replaced, FaultKind::region_replaced);
    EXPECT_EQ(fs::file_size(file()), 0u) << "nothing is changed";
    close();
    std::ofstream(file()) << std::string(kRegionBytes, 'x');
    expect_lost(region_, RegionState::replaced, FaultKind::region_replaced);
}

TEST_F(ExternalRegion, AnotherStoresRegion) {
    const TemporaryPool other;
    value_of(other.create().add_external_region(copy(), {.size_bytes = kRegionBytes}));
    close();
    fs::rename(copy(), file());
    expect_lost(region_, RegionState::replaced, FaultKind::region_replaced);
    EXPECT_THAT(store().regions().at(region_).trouble, HasSubstr("another store"));
}

TEST_F(ExternalRegion, AnotherRegionOfThisStore) {
    value_of(store().add_external_region(copy(), {.size_bytes = kRegionBytes}));
    close();
    fs::rename(copy(), file());
    expect_lost(region_, RegionState::replaced, FaultKind::region_replaced);
    EXPECT_EQ(store().regions().at(region_ + 1).state, RegionState::missing);
}

TEST_F(ExternalRegion, EveryFlippedBitOfItsHeader) {
    close();
    for (unsigned byte = 0; byte < 136; ++byte) {
        // Zeros besides.
        if (byte >= 56 && byte < 120 && byte % 16 != 0) continue;
        for (unsigned bit = 0; bit < 8; ++bit) {
            std::fstream stream(file(), std::ios::in | std::ios::out | std::ios::binary);
            stream.seekg(byte);
            const auto flipped = static_cast<char>(stream.get() ^ (1 << bit));
            stream.seekp(byte);
            stream.put(flipped);
            stream.close();
            store_ = pool_.open();
            EXPECT_EQ(store().regions().at(region_).state, RegionState::replaced)
                << "byte " << byte << ", bit " << bit;
            close();
            std::fstream back(file(), std::ios::in | std::ios::out | std::ios::binary);
            back.seekp(byte);
            back.put(static_cast<char>(flipped ^ (1 << bit)));
        }
    }
    expect_whole(region_);
}

TEST_F(ExternalRegion, CutOff) {
    close();
    // The pages were taken in order from the region's start.
    fs::resize_file(file(), format::kRegionFramesOffset + 17 * kPageSize + 5);
    expect_lost(region_, RegionState::shrunk, FaultKind::region_shrunk, 17);
    // None of its frames is given out.
    must(space().map({VirtAddr(0x4000'0000), kPageSize}, protection::rw, {.region = region_}));
    EXPECT_GT(space().translate(VirtAddr(0x4000'0000))->physical.bits() -
                  store().regions().at(region_).physical_base.bits(),
              kRegionBytes);
}

TEST_F(ExternalRegion, AnOlderCopyOfIt) {
    close();
    fs::copy_file(file(), copy());
    reopen();
    write_newer();
    close();
    fs::rename(copy(), file());
    expect_lost(region_, RegionState::outdated, FaultKind::region_outdated);
    EXPECT_THAT(store().regions().at(region_).trouble, HasSubstr("older copy"));
    // Accepted, it is what the pages hold.
    EXPECT_EQ(store().replace_region(region_, file()).error().code, ErrorCode::stale);
    must(store().replace_region(region_, file(), {}, true));
    expect_whole(region_);
}

TEST_F(ExternalRegion, AnOlderCopyOfThePool) {
    close();
    fs::copy_file(pool_.path(), copy());
    reopen();
    write_newer();  // and no other change
    close();
    fs::rename(copy(), pool_.path());
    expect_lost(region_, RegionState::outdated, FaultKind::region_outdated);
}

std::uint64_t stamp_in(const std::string& path) {
    format::RegionHeader header{};
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof header);
    return format::CheckedWord::decode(header.stamp, format::kSeedRegionStamp).value();
}

// As a crash in the middle of pairing leaves it: after either of the first two of its steps. The
// next opening must believe the pair; and, crashed at the same place, so must the one after that.
TEST_F(ExternalRegion, PairingThatWasInterrupted) {
    for (int round = 0; round < 3; ++round) {
        for (const bool header_was_written : {false, true}) {
            auto& state = store().state();
            auto& record = state.memory.superblock().regions[region_];
            record.stamp = stamp_in(file());
            const std::uint64_t pending = memory::random_stamp();
            record.pending_stamp = pending;
            record.checksum = record.computed_checksum();
            close();
            if (header_was_written) {
                const std::uint64_t word =
                    format::CheckedWord::encode(pending, format::kSeedRegionStamp);
                std::fstream stream(file(), std::ios::in | std::ios::out | std::ios::binary);
                stream.seekp(offsetof(format::RegionHeader, stamp));
                stream.write(reinterpret_cast<const char*>(&word), sizeof word);
            }
            expect_whole(region_);
            if (round != 1) must(space().map({VirtAddr(0x6000'0000), kPageSize}, protection::r));
            if (round != 1) must(space().unmap({VirtAddr(0x6000'0000), kPageSize}));
            expect_whole(region_);
        }
    }
}

TEST_F(ExternalRegion, MovesWithItsPool) {
    close();
    const fs::path folder = pool_.path() + ".elsewhere-folder";
    fs::create_directory(folder);
    fs::rename(file(), folder / fs::path(file()).filename());
    fs::rename(pool_.path(), folder / fs::path(pool_.path()).filename());
    {
        const Store moved = value_of(Store::open(folder / fs::path(pool_.path()).filename(),
                                                 {.emulation = PmemEmulation::on}));
        EXPECT_EQ(moved.regions().at(region_).state, RegionState::attached);
        expect_all(value_of(moved.open_space("space")), kInRegion, kPages);
    }
    fs::rename(folder / fs::path(file()).filename(), file());
    fs::rename(folder / fs::path(pool_.path()).filename(), pool_.path());
    fs::remove_all(folder);
    expect_whole(region_);
}

TEST_F(ExternalRegion, DetachedAndAttachedAgainElsewhere) {
    must(store().detach_region(region_));
    expect_lost(region_, RegionState::detached, FaultKind::region_detached);
    close();
    fs::rename(file(), copy());
    store_ = pool_.open();
    must(store().replace_region(region_, copy()));
    expect_whole(region_);
    EXPECT_EQ(store().regions().at(region_).file, copy());
}

TEST_F(ExternalRegion, ReplacedByNewMemory) {
    close();
    fs::remove(file());
    store_ = pool_.open();
    must(store().replace_region(region_, copy()));
    expect_lost(region_, RegionState::attached, FaultKind::region_replaced);
    {
        Space opened = space();
        must(opened.map({VirtAddr(0x4000'0000), kPages * kPageSize}, protection::rw,
                        {.region = region_}));
        write_all(opened, VirtAddr(0x4000'0000), kPages);
        const RegionInfo info = store().regions().at(region_);
        EXPECT_LT(
            opened.translate(VirtAddr(0x4000'0000))->physical.bits() - info.physical_base.bits(),
            info.size_bytes);
    }
    expect_unmappable();
    expect_all(space(), VirtAddr(0x4000'0000), kPages);
    reopen();
    expect_all(space(), VirtAddr(0x4000'0000), kPages);
    // Once more, when nothing names what was lost the first time.
    must(store().detach_region(region_));
    EXPECT_EQ(store().replace_region(region_, file()).error().code, ErrorCode::busy);
    EXPECT_FALSE(fs::exists(file()));
    must(store().finish_moves());
    must(store().replace_region(region_, file()));
    reopen();
    EXPECT_EQ(space().translate(VirtAddr(0x4000'0000)).error().kind, FaultKind::region_replaced);
    fs::remove(file());
    // The file of before is nobody's any more.
    EXPECT_FALSE(fs::exists(file()));
}

TEST_F(ExternalRegion, WhatReplaceRefuses) {
    EXPECT_EQ(store().replace_region(region_, copy()).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store().replace_region(0, copy()).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store().detach_region(0).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store().detach_region(9).error().code, ErrorCode::invalid_argument);
    must(store().detach_region(region_));
    std::ofstream(copy()) << "something else";
    EXPECT_EQ(store().replace_region(region_, copy()).error().code, ErrorCode::not_a_pool);
    fs::remove(copy());
    EXPECT_EQ(
        store().replace_region(region_, copy(), {.size_bytes = kRegionBytes * 2}).error().code,
        ErrorCode::invalid_argument);
    EXPECT_FALSE(fs::exists(copy()));
    EXPECT_EQ(store().replace_region(region_, "/nowhere/region").error().code,
              ErrorCode::not_found);
    must(store().replace_region(region_, file()));
    expect_whole(region_);
}

TEST_F(Regions, WhatAddRefuses) {
    const auto refused = [&](const std::string& path, std::uint64_t size_bytes, ErrorCode code) {
        const bool existed = fs::exists(path);
        const auto added = store().add_external_region(path, {.size_bytes = size_bytes});
        ASSERT_FALSE(added);
        EXPECT_STREQ(to_string(added.error().code), to_string(code)) << added.error().message;
        EXPECT_EQ(fs::exists(path), existed);
        EXPECT_EQ(store().regions().size(), 1u);
    };
    refused(file(), 0, ErrorCode::invalid_argument);
    refused(file(), 5000, ErrorCode::invalid_argument);
    refused("/nowhere/region", kRegionBytes, ErrorCode::not_found);
    refused(file(), std::uint64_t{1} << 50, ErrorCode::no_space);  // more than any file system has
    std::ofstream(file()) << "precious";
    refused(file(), kRegionBytes, ErrorCode::already_exists);
    EXPECT_EQ(fs::file_size(file()), 8u);
    fs::remove(file());
    fs::create_directory(file());
    refused(file(), kRegionBytes, ErrorCode::already_exists);
    fs::remove(file());
    // Its metadata would not fit into what this pool has left.
    EXPECT_EQ(
        store()
            .add_external_region(file(), {.size_bytes = std::uint64_t{64} << 30, .sparse = true})
            .error()
            .code,
        ErrorCode::no_space);
    EXPECT_FALSE(fs::exists(file()));
    // A copy of a region is no second region.
    value_of(store().add_external_region(file(), {.size_bytes = kRegionBytes}));
    fs::copy_file(file(), copy());
    const auto again = store().add_external_region(copy(), {.size_bytes = kRegionBytes});
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
    EXPECT_THAT(again.error().message, HasSubstr("a region of this store"));
    expect_clean(store());
}

TEST_F(Regions, FullDisk) {
    const fs::path folder = pool_.path() + ".small-disk";
    fs::create_directory(folder);
    if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=1m") != 0) {
        fs::remove(folder);
        GTEST_SKIP() << "no right to mount a small file system";
    }
    const std::string path = folder / "region";
    const auto added = store().add_external_region(path, {.size_bytes = kRegionBytes});
    EXPECT_FALSE(fs::exists(path));
    umount(folder.c_str());
    fs::remove(folder);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, ErrorCode::no_space) << added.error().message;
    EXPECT_THAT(added.error().message, HasSubstr(path));
    EXPECT_EQ(store().regions().size(), 1u);
}

// On a disk, without emulation: msync, which works by pages of the file.
TEST(ExternalRegionOnDisk, BesideAPoolInEmulatedMemory) {
    const TemporaryPool pool, disk("/tmp");
    const std::string file = disk.path();
    {
        Store store = pool.create();
        const unsigned region =
            value_of(store.add_external_region(file, {.size_bytes = kRegionBytes, .sparse = true}));
        Space space = value_of(store.create_space("space", {.region = region}));
        must(space.map({kInRegion, kPages * kPageSize}, protection::rw));
        must(space.write(kInRegion + 5, std::as_bytes(std::span("text", 5))));
        must(space.persist({kInRegion, kPageSize}));
    }
    const Store store = pool.open();
    EXPECT_EQ(bytes_at(value_of(store.open_space("space")), kInRegion.bits() + 5, 4), "text");
}

// --- volatile ---

TEST_F(Regions, VolatileIsLostWithItsProcess) {
    const unsigned region = value_of(store().add_volatile_region(kRegionBytes));
    fill(region);
    expect_all(space(), kInRegion, kPages + kMorePages);
    expect_clean(store());
    expect_lost(region, RegionState::attached, FaultKind::volatile_lost);
    // What is mapped there now is well, until the next time.
    Space opened = space();
    must(opened.map({VirtAddr(0x4000'0000), kPages * kPageSize}, protection::rw,
                    {.region = region}));
    write_all(opened, VirtAddr(0x4000'0000), kPages);
    expect_all(opened, VirtAddr(0x4000'0000), kPages);
    must(opened.unmap({VirtAddr(0x4000'0000), kPages * kPageSize}));
    expect_unmappable();
}

TEST_F(Regions, VolatileComesBackAsZeros) {
    const unsigned region = value_of(store().add_volatile_region(kRegionBytes, LossPolicy::zero));
    fill(region);
    reopen();
    Space opened = space();
    expect_all(opened, kInPool, kPages);
    for (std::uint64_t page = 0; page < kPages + kMorePages; ++page)
        ASSERT_EQ(bytes_at(opened, (kInRegion + page * kPageSize).bits(), 9), std::string(9, '\0'));
    write_all(opened, kInRegion, kPages + kMorePages);
    expect_all(opened, kInRegion, kPages + kMorePages);
    expect_clean(store());
}

TEST_F(Regions, NoFrameOfAVolatileRegionWithoutAWish) {
    const unsigned region = value_of(store().add_volatile_region(kRegionBytes));
    Space made = value_of(store().create_space("space"));
    // Until the pool is full.
    std::uint64_t address = 0x1000'0000;
    while (made.map({VirtAddr(address), 1_MiB}, protection::rw)) address += 1_MiB;
    const RegionInfo info = store().regions().at(region);
    for (std::uint64_t at = 0x1000'0000; at < address; at += kPageSize)
        ASSERT_GE(made.translate(VirtAddr(at))->physical.bits() - info.physical_base.bits(),
                  info.size_bytes);
}

// --- moved ---

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
