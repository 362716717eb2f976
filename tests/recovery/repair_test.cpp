// ctest-labels: noasan
//
// Repair: what it does for each kind of damage is in fuzz/subjects/workloads.cpp, and crashed
// there; here, random damage of everything, and what the outside sees.
#include "holdfast/repair.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "format/limbo.hpp"
#include "memory/build_log.hpp"
#include "recovery/survey.hpp"
#include "store/repair.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using namespace format;
using testing::HasSubstr;

const OpenOptions kOpen{.emulation = PmemEmulation::on};
const RepairOptions kRepair{.emulation = PmemEmulation::on, .threads = 1};
constexpr std::uint64_t kPoolBytes = 10_MiB;

std::string content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
void set_content(const std::string& path, const std::string& bytes) {
    // In place: the file is the same one afterwards.
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Some of everything, limbo and an interrupted build included.
void fill(Store& store) {
    Space a = value_of(store.create_space("a"));
    must(a.map({VirtAddr(0x1f'd000), 9 * kPageSize}, protection::rw, {.name = "over an edge"}));
    must(a.map({VirtAddr(0x4000'0000), 3 * kPageSize}, protection::rw | protection::u));
    must(a.map({VirtAddr(0x8000'0000), 1300 * kPageSize}, protection::rw, {.lazy = true}));
    must(a.map({VirtAddr(0xffff'8000'0000'0000), 2 * kPageSize}, protection::r, {.name = "high"}));
    Space b = value_of(store.create_space("b", {.levels = Levels::three}));
    must(b.map_shared({VirtAddr(0x7000'0000), 5 * kPageSize}, protection::rw, a,
                      {VirtAddr(0x4000'0000), 3 * kPageSize}, {.name = "shared"}));
    Space c = value_of(store.create_space("c", {.levels = Levels::five}));
    must(c.map({VirtAddr(0x00ab'cdef'0123'4000), 2 * kPageSize}, protection::rw));
    must(a.map({VirtAddr(0x1'0000'0000), 520 * kPageSize}, protection::rw));
    must(a.map({VirtAddr(0x2'0000'0000), 200 * kPageSize}, protection::rw, {.name = "going"}));
    Space gone = value_of(store.create_space("gone"));
    for (std::uint64_t i = 1; i < 4; ++i)
        must(gone.map({VirtAddr(i << 39), kPageSize}, protection::rw, {.name = "gone"}));
    std::uint64_t word = 0x1000;
    const auto write = [&](std::uint64_t at, std::uint64_t pages) {
        for (std::uint64_t page = 0; page < pages; ++page, ++word)
            must(a.write(VirtAddr(at + page * kPageSize), std::as_bytes(std::span(&word, 1))));
    };
    write(0x4000'0000, 3);
    write(0x1f'd000, 9);
    write(0x8000'0000, 2);
    must(a.protect({VirtAddr(0x1'0000'0000), 520 * kPageSize}, protection::r));
    must(a.unmap({VirtAddr(0x2'0000'0000), 200 * kPageSize}));
    must(store.remove_space("gone"));
    auto& builds = store.state().build_log;
    memory::Build build = value_of(builds.acquire());
    must(builds.reserve(build, 20));
    // Its owner dies here.
}

// What pages translate to, and hold.
struct Page {
    std::uint64_t physical = 0, word = 0;
    std::string protection;
    friend bool operator==(const Page&, const Page&) = default;
};
using Pages = std::map<std::pair<std::string, std::uint64_t>, Page>;

// Of these addresses (or of all that are mapped, if none are given), those that can be had.
Pages pages_of(const Store& store, const Pages* of) {
    Pages pages;
    const auto ask = [&](const Space& space, const std::string& name, std::uint64_t address) {
        const auto found = space.translate(VirtAddr(address));
        if (!found) return;
        Page page{found->physical.bits(), 0, found->protection.to_string()};
        must(space.read(VirtAddr(address), std::as_writable_bytes(std::span(&page.word, 1))));
        pages[{name, address}] = page;
    };
    if (of == nullptr) {
        for (const std::string& name : value_of(store.space_names())) {
            const Space space = value_of(store.open_space(name));
            for (const Mapping& mapping : value_of(space.maps()))
                for (std::uint64_t i = 0; i < mapping.range.pages(); ++i)
                    ask(space, name, mapping.range.start.bits() + i * kPageSize);
        }
        return pages;
    }
    std::optional<Space> space;
    std::string name;
    for (const auto& [place, page] : *of) {
        if (place.first != name) {
            name = place.first;
            space.reset();
            if (auto opened = store.open_space(name)) space = *opened;
        }
        if (space) ask(*space, name, place.second);
    }
    return pages;
}

struct Structure {
    std::string name;
    std::uint64_t offset = 0, size = 0;
    // Of a table, what it stands for: level, owner, index.
    using Place = std::tuple<FrameKind, std::uint32_t, std::uint64_t>;
    std::optional<Place> place = {};
};

std::vector<Structure> structures_of(const Store& store) {
    const detail::StoreState& state = store.state();
    const pool::Pool& pool = *state.pool;
    const Superblock& superblock = state.memory.superblock();
    const std::uint64_t root = pool.offset_of(&superblock);
    std::vector<Structure> all = {
        {"fixed part", root, offsetof(Superblock, boot_epoch)},
        {"words", root + offsetof(Superblock, boot_epoch), 48},
        {"build slots", root + offsetof(Superblock, build_slots), 8},
        {"region", root + offsetof(Superblock, regions), sizeof(RegionRecord)}};
    for (const memory::Region& region : state.memory.regions())
        for (std::uint64_t i = 0; i < region.frame_count(); ++i) {
            const FrameNumber frame = region.base() + i;
            const auto metadata = state.memory.valid_metadata(frame);
            if (!metadata || (metadata->kind == FrameKind::free && i % 500 != 0)) continue;
            all.push_back(
                {"metadata", pool.offset_of(region.metadata(frame).word0), kFrameMetadataBytes});
            const bool table = is_table(metadata->kind);
            if (!table && metadata->kind != FrameKind::space_record &&
                metadata->kind != FrameKind::limbo_page)
                continue;
            all.push_back(
                {recovery::name_of(metadata->kind), pool.offset_of(region.host(frame)), kPageSize});
            if (table) all.back().place.emplace(metadata->kind, metadata->owner, metadata->index);
        }
    for (unsigned slot = 0; slot < kBuildSlots; ++slot) {
        std::vector<FrameNumber> records;
        std::ignore = memory::BuildLog::read_slot(state.memory, slot, &records);
        for (const FrameNumber record : records)
            all.push_back({"build record", pool.offset_of(state.memory.host(record)), 64});
    }
    return all;
}

// One store, damaged again and again.
class RepairAnything : public testing::Test {
  protected:
    RepairAnything() {
        {
            Store store = pool.create(kPoolBytes);
            fill(store);
        }
        clean = content_of(pool.path());
        const Store store = pool.open();
        EXPECT_TRUE(store.verify().clean());
        before = pages_of(store, nullptr);
        structures = structures_of(store);
    }

    // Returns what was damaged.
    std::string damage(std::mt19937_64& random, std::string& bytes) const {
        const Structure& at = any(random);
        switch (random() % 8) {
            case 0:
            case 1: {
                const std::uint64_t line = (at.offset + random() % at.size) / 64 * 64;
                const char with = random() % 2 == 0 ? char(0) : char(0xff);
                std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(line), 64, with);
                return fmt::format("{}: line {:#x} all {:#x}", at.name, line,
                                   static_cast<std::uint8_t>(with));
            }
            case 2: {
                const Structure& one = frame(random);
                const Structure* chosen = &frame(random);
                // Two tables that stand for the same place, one of them in limbo, are a limit that
                // docs/DAMAGE.md names under "whole tables".
                while (one.place && one.place == chosen->place) chosen = &frame(random);
                const Structure& other = *chosen;
                const std::string content = bytes.substr(one.offset, kPageSize);
                if (random() % 2 == 0)
                    bytes.replace(one.offset, kPageSize, bytes, other.offset, kPageSize);
                bytes.replace(other.offset, kPageSize, content);
                return fmt::format("{} {:#x} and {} {:#x} copied or swapped", one.name, one.offset,
                                   other.name, other.offset);
            }
            default: {
                const std::uint64_t bit = random() % (at.size * 8);
                bytes[at.offset + bit / 8] ^= static_cast<char>(1 << bit % 8);
                return fmt::format("{}: bit {} of byte {:#x}", at.name, bit % 8,
                                   at.offset + bit / 8);
            }
        }
    }
    // Each kind of structure as often as any other.
    const Structure& any(std::mt19937_64& random) const {
        std::map<std::string, std::vector<const Structure*>> kinds;
        for (const Structure& each : structures) kinds[each.name].push_back(&each);
        const auto& kind =
            std::next(kinds.begin(), static_cast<std::ptrdiff_t>(random() % kinds.size()))->second;
        return *kind[random() % kind.size()];
    }
    const Structure& frame(std::mt19937_64& random) const {
        for (;;)
            if (const Structure& each = any(random); each.size == kPageSize) return each;
    }

    // A damaged store is repaired, and is as it should be then; true, or it was refused. Each page
    // that is gone is told with its range: unless entries became empty, so that only frames tell
    // which they were, and those are shared, or were not the only damage.
    bool repairs(const std::string& damaged, bool one_fault);
    bool is_shared(const Page& page) const {
        return std::count_if(before.begin(), before.end(), [&](const auto& item) {
                   return item.second.physical == page.physical;
               }) > 1;
    }

    const TemporaryPool pool;
    std::string clean;
    Pages before;
    std::vector<Structure> structures;
};

bool RepairAnything::repairs(const std::string& damaged, bool one_fault) {
    set_content(pool.path(), damaged);
    Pages readable;
    if (const auto store = Store::open(pool.path(), kOpen)) readable = pages_of(*store, &before);

    set_content(pool.path(), damaged);
    RepairOptions dry = kRepair;
    dry.dry_run = true;
    const auto planned = repair_file(pool.path(), dry);
    EXPECT_TRUE(content_of(pool.path()) == damaged) << "a dry run has changed the file";
    const auto report = repair_file(pool.path(), kRepair);
    EXPECT_EQ(planned.has_value(), report.has_value());
    if (!report) {
        // The magic may be what is damaged.
        EXPECT_THAT(report.error().code, testing::AnyOf(ErrorCode::damaged, ErrorCode::not_a_pool,
                                                        ErrorCode::unsupported))
            << report.error().message;
        EXPECT_TRUE(content_of(pool.path()) == damaged) << "refused, and yet changed";
        return false;
    }
    EXPECT_EQ(planned->repaired, report->repaired) << "the dry run said something else";
    if (report->repaired.empty()) {
        EXPECT_TRUE(content_of(pool.path()) == damaged);
    }
    EXPECT_TRUE(report->after.clean());
    std::string all;
    for (const Finding& each : report->repaired)
        all += fmt::format("  {}: {} {:#x}+{:#x}: {}\n", each.what, each.space,
                           each.range.start.bits(), each.range.size_bytes, each.detail);
    SCOPED_TRACE("repaired:\n" + all);
    {
        Store store = pool.open();
        expect_clean(store);
        const Pages after = pages_of(store, &before);
        for (const auto& [place, page] : before) {
            const auto found = after.find(place);
            const bool is_there = found != after.end();
            if (is_there) {
                EXPECT_EQ(found->second, page)
                    << place.first << fmt::format(" {:#x}", place.second);
            }
            if (readable.contains(place)) {
                EXPECT_TRUE(is_there)
                    << place.first << fmt::format(" {:#x} was well", place.second);
            }
            if (is_there) continue;
            EXPECT_FALSE(report->repaired.empty());
            if (!one_fault || is_shared(page)) continue;
            bool told = false;
            for (const Finding& each : report->repaired)
                told = told ||
                       (each.space == place.first && (each.range.contains(VirtAddr(place.second)) ||
                                                      !store.open_space(each.space)));
            EXPECT_TRUE(told) << place.first
                              << fmt::format(" {:#x} is gone, and nobody said so", place.second);
        }
        // Everything works: names are in order, limbo can be released, builds are gone.
        for (const std::string& name : value_of(store.space_names())) {
            Space space = value_of(store.open_space(name));
            EXPECT_TRUE(space.maps());
            must(space.map({VirtAddr(0x3333'0000), 3 * kPageSize}, protection::rw));
            must(space.unmap({VirtAddr(0x3333'0000), 3 * kPageSize}));
        }
        EXPECT_FALSE(store.open_space("gone")) << "a removed space is back";
        value_of(store.release_limbo());
        expect_clean(store);
        EXPECT_EQ(store.verify().frames_limbo + store.verify().frames_building, 0u);
    }
    const auto again = value_of(repair_file(pool.path(), kRepair));
    EXPECT_TRUE(again.repaired.empty()) << again.repaired.front().detail;
    return true;
}

TEST_F(RepairAnything, OneFaultOfAnyKind) {
    std::mt19937_64 random(test_seed());
    int repaired = 0, refused = 0;
    for (int round = 0; round < 120 && !HasFailure(); ++round) {
        std::string damaged = clean;
        const std::string what = damage(random, damaged);
        SCOPED_TRACE(what);
        const bool done = repairs(damaged, true);
        ++(done ? repaired : refused);
        // Only what has no second copy anywhere may be refused.
        if (!done) {
            EXPECT_TRUE(what.starts_with("fixed part") || what.starts_with("region") ||
                        what.starts_with("words"))  // a line holds neighbours as well
                << what;
        }
    }
    fmt::print("{} repaired, {} refused\n", repaired, refused);
    EXPECT_GT(repaired, 60);
}

TEST_F(RepairAnything, SeveralFaultsAtOnce) {
    std::mt19937_64 random(test_seed());
    for (int round = 0; round < 40 && !HasFailure(); ++round) {
        std::string damaged = clean, all;
        for (int i = 0; i < 4; ++i) all += damage(random, damaged) + "; ";
        SCOPED_TRACE(all);
        repairs(damaged, false);
    }
}

TEST_F(RepairAnything, KilledAtAnyMoment) {
    std::mt19937_64 random(test_seed());
    int killed = 0;
    for (int round = 0; round < 40 && !HasFailure(); ++round) {
        std::string damaged = clean, all;
        for (int i = 0; i < 3; ++i) all += damage(random, damaged) + "; ";
        SCOPED_TRACE(all);
        set_content(pool.path(), damaged);
        RepairOptions dry = kRepair;
        dry.dry_run = true;
        if (!repair_file(pool.path(), dry)) continue;
        Pages readable;
        if (const auto store = Store::open(pool.path(), kOpen))
            readable = pages_of(*store, &before);
        set_content(pool.path(), damaged);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            const auto done = detail::repair_at_once(pool.path(), kRepair, false);
            _exit(done ? 0 : 1);
        }
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 12000));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        killed += WIFSIGNALED(status);
        value_of(repair_file(pool.path(), kRepair));
        const Store store = pool.open();
        expect_clean(store);
        const Pages after = pages_of(store, &before);
        for (const auto& [place, page] : readable) {
            const auto found = after.find(place);
            ASSERT_TRUE(found != after.end()) << place.first << " " << place.second;
            EXPECT_EQ(found->second, page);
        }
    }
    fmt::print("{} of 40 killed\n", killed);
    EXPECT_GT(killed, 5);
}

TEST_F(RepairAnything, ACleanStoreKeepsEveryByte) {
    set_content(pool.path(), clean);
    const auto written = std::filesystem::last_write_time(pool.path());
    const auto report = value_of(repair_file(pool.path(), kRepair));
    EXPECT_TRUE(report.repaired.empty());
    EXPECT_EQ(report.freed_frames, 0u);
    EXPECT_TRUE(content_of(pool.path()) == clean);
    EXPECT_EQ(std::filesystem::last_write_time(pool.path()), written);
}

class Repair : public testing::Test {
  protected:
    std::uint64_t* entry_of(Space& space, VirtAddr address) {
        const memory::PhysicalMemory& memory = space.state().store->memory;
        Entry entry = space.state().root().entry;
        std::uint64_t* word = nullptr;
        for (unsigned level = 4; level > 0; --level) {
            word = memory.table(entry.frame()) + slot_of(address, level);
            entry = Entry(*word);
        }
        return word;
    }
    const TemporaryPool pool;
};

TEST_F(Repair, NamesAreTrimmedToWhatIsMapped) {
    {
        Store store = pool.create(16_MiB);
        Space space = value_of(store.create_space("a"));
        must(space.map({VirtAddr(0x10000), 10 * kPageSize}, protection::rw,
                       {.name = "/file", .name_offset = 0x5000}));
        for (const std::uint64_t page : {0, 3, 4, 9})
            *entry_of(space, VirtAddr(0x10000 + page * kPageSize)) ^= Entry::kWritable;
    }
    const auto report = value_of(repair_file(pool.path(), kRepair));
    EXPECT_EQ(report.freed_frames, 4u);
    const Store store = pool.open();
    std::vector<std::string> lines;
    for (const Mapping& mapping : value_of(value_of(store.open_space("a")).maps()))
        lines.push_back(fmt::format("{:x}-{:x} {}+{:x}", mapping.range.start.bits(),
                                    mapping.range.end().bits(), mapping.name, mapping.name_offset));
    EXPECT_THAT(lines, testing::ElementsAre("11000-13000 /file+6000", "15000-19000 /file+a000"));
    expect_clean(store);
}

TEST_F(Repair, AStoreThatIsFull) {
    // Neither a frame nor room for one more name is left: repair takes neither.
    {
        Store store = pool.create(10_MiB);
        Space space = value_of(store.create_space("a"));
        std::uint64_t named = 0;
        for (std::uint64_t at = 0x10'0000; named < 200'000; at += 4 * kPageSize, ++named)
            if (!space.map({VirtAddr(at), 3 * kPageSize}, protection::rw,
                           {.lazy = true, .name = fmt::format("name {}", at)}))
                break;
        ASSERT_GT(named, 100u);
        ASSERT_LT(named, 200'000u) << "the store is not full";
        const VirtAddr rest(0x7000'0000'0000);
        for (std::uint64_t pages = 1024, i = 0; pages != 0; pages /= 2)
            while (space.map({rest + i * kPageSize, pages * kPageSize}, protection::rw)) i += pages;
        EXPECT_EQ(
            space.map({VirtAddr(0x6000'0000'0000), 64 * kPageSize}, protection::rw).error().code,
            ErrorCode::no_space);
        // In the middle of names: they would be two afterwards.
        for (std::uint64_t i = 0; i < 50; ++i) {
            const VirtAddr at(0x10'0000 + (4 * i + 1) * kPageSize);
            if (Entry(*entry_of(space, at)).is_empty()) continue;
            *entry_of(space, at) ^= std::uint64_t{1} << 4;
        }
    }
    const auto report = value_of(repair_file(pool.path(), kRepair));
    EXPECT_GE(report.repaired.size(), 50u);
    const Store store = pool.open();
    expect_clean(store);
}

TEST_F(Repair, WhatCannotBeRepairedIsRefusedAndNotChanged) {
    std::uint64_t at = 0;
    {
        const Store store = pool.create(16_MiB);
        at = store.state().pool->offset_of(&store.state().memory.superblock().uuid);
    }
    std::string bytes = content_of(pool.path());
    bytes[at] ^= 1;
    set_content(pool.path(), bytes);
    const auto refused = repair_file(pool.path(), kRepair);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::damaged);
    EXPECT_THAT(refused.error().message, HasSubstr("restore"));
    EXPECT_TRUE(content_of(pool.path()) == bytes);
    EXPECT_EQ(repair_file("/nonexistent/pool", kRepair).error().code, ErrorCode::not_found);
}

TEST_F(Repair, OnAFullDiskAllIsRepairedOrNothingIsChanged) {
    {
        Store store = pool.create(kPoolBytes);
        fill(store);
        store.state().memory.superblock().next_owner ^= 1;
        const FrameNumber frame =
            value_of(store.open_space("a")).translate(VirtAddr(0x4000'0000))->physical.frame();
        *store.state().memory.metadata(frame).word0 ^= 1U << 20;
    }
    const std::string bytes = content_of(pool.path());
    const std::filesystem::path folder = pool.path() + ".small-disk";
    std::filesystem::create_directory(folder);
    if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=12m") != 0) {
        std::filesystem::remove(folder);
        GTEST_SKIP() << "no right to mount a small file system";
    }
    const std::string path = folder / "pool", filler = folder / "filler";
    // A copy as `cp --sparse` makes it.
    {
        std::ofstream(path).close();
        std::filesystem::resize_file(path, bytes.size());
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        for (std::size_t at = 0; at < bytes.size(); at += kPageSize)
            if (bytes.find_first_not_of('\0', at) < at + kPageSize) {
                file.seekp(static_cast<std::streamoff>(at));
                file.write(bytes.data() + at, kPageSize);
            }
    }
    std::ofstream(filler) << std::string(12_MiB, 'x');
    const auto sparse = repair_file(path, kRepair);
    const bool is_unchanged = content_of(path) == bytes;
    // One that has its blocks needs no more of them.
    std::filesystem::remove(filler);
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
    std::ofstream(filler) << std::string(12_MiB, 'x');
    const auto whole = repair_file(path, kRepair);
    const auto after = Store::verify_file(path, {}, PmemEmulation::on);
    umount2(folder.c_str(), MNT_DETACH);
    std::filesystem::remove(folder);

    ASSERT_FALSE(sparse);
    EXPECT_EQ(sparse.error().code, ErrorCode::no_space) << sparse.error().message;
    EXPECT_THAT(sparse.error().message, HasSubstr("make room on the file system"));
    EXPECT_TRUE(is_unchanged);
    ASSERT_TRUE(whole) << whole.error().message;
    EXPECT_GE(whole->repaired.size(), 2U);
    EXPECT_TRUE(value_of(after).clean());
}

TEST_F(Repair, AnOpenStoreIsBusyAndAReadOnlyFileIsOnlyLookedAt) {
    {
        const Store store = pool.create(16_MiB);
        EXPECT_EQ(repair_file(pool.path(), kRepair).error().code, ErrorCode::busy);
        store.state().memory.superblock().next_owner ^= 1;
    }
    ASSERT_EQ(chmod(pool.path().c_str(), 0400), 0);
    RepairOptions dry = kRepair;
    dry.dry_run = true;
    EXPECT_EQ(value_of(repair_file(pool.path(), dry)).repaired.size(), 1u);
    EXPECT_EQ(repair_file(pool.path(), kRepair).error().code, ErrorCode::permission_denied);
    ASSERT_EQ(chmod(pool.path().c_str(), 0600), 0);
    EXPECT_EQ(value_of(repair_file(pool.path(), kRepair)).repaired.size(), 1u);
    Store store = pool.open();
    value_of(store.create_space("next"));
}

}  // namespace
}  // namespace holdfast::test
