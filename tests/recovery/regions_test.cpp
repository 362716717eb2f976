// Physical memory that changes while the store is closed: whatever becomes of a region, opening
// succeeds, the rest works, and no page of it ever reads as something else than it was.
#include "holdfast/region.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "memory/region_file.hpp"
#include "store/store_state.hpp"
#include "support/region_fixture.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;
namespace fs = std::filesystem;

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
    std::ofstream(folder / "filler") << std::string(1_MiB, 'x');
    const std::string path = folder / "region";
    const auto added = store().add_external_region(path, {.size_bytes = kRegionBytes});
    // A sparse file would fit, but for its header.
    const auto sparse =
        store().add_external_region(path, {.size_bytes = kRegionBytes, .sparse = true});
    const bool is_left = fs::exists(path);
    umount(folder.c_str());
    fs::remove(folder);
    EXPECT_FALSE(is_left);
    for (const auto& each : {added, sparse}) {
        ASSERT_FALSE(each);
        EXPECT_EQ(each.error().code, ErrorCode::no_space) << each.error().message;
        EXPECT_THAT(each.error().message, HasSubstr(path));
    }
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

}  // namespace
}  // namespace holdfast::test
