// Frames of device regions (device.hpp): mapped by their place, never the store's to give, clear,
// copy or free.
#include "holdfast/device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "holdfast/snapshot.hpp"
#include "holdfast/tlb.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"
#include "support/words.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;
using testing::IsEmpty;
namespace fs = std::filesystem;

constexpr VirtAddr kStart{0x4000'0000};
constexpr std::uint64_t kHuge = bytes(PageSize::size_2MiB);
constexpr std::uint64_t kRegionBytes = 4 * kHuge;

Range pages(std::uint64_t first, std::uint64_t count) {
    return {kStart + first * kPageSize, count * kPageSize};
}

class Device : public testing::Test {
  protected:
    Device()
        : file(pool.path() + ".device"),
          store(pool.create(48_MiB)),
          region(value_of(store.add_device_region(file, {.size_bytes = kRegionBytes}))),
          space(value_of(store.create_space("space"))) {}
    ~Device() override {
        expect_clean(store);
        fs::remove(file);
    }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    MapOptions device(std::uint64_t offset = 0, std::uint64_t size_bytes = 0,
                      PageSize page_size = PageSize::size_4KiB) const {
        return {
            .page_size = page_size,
            .device = DeviceMapping{.region = region, .offset = offset, .size_bytes = size_bytes}};
    }
    // What others see, and put there, of the device itself.
    std::uint64_t in_file(std::uint64_t offset) const {
        std::ifstream stream(file, std::ios::binary);
        stream.seekg(static_cast<std::streamoff>(kHuge + offset));
        std::uint64_t word = 0;
        stream.read(reinterpret_cast<char*>(&word), sizeof word);
        return word;
    }
    void reopen() {
        space = Space(nullptr);
        store = Store(nullptr);
        store = pool.open();
        space = value_of(store.open_space("space"));
    }
    std::uint64_t free_frames() {
        value_of(store.release_limbo());
        return value_of(store.info()).frames.free;
    }

    const TemporaryPool pool;
    const std::string file;
    Store store;
    unsigned region;
    Space space;
};

TEST_F(Device, FramesAreMappedByTheirPlaceAndKeepWhatTheyHold) {
    {
        std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
        stream.seekp(static_cast<std::streamoff>(kHuge + 7 * kPageSize));
        const std::uint64_t word = 0xd0d0;
        stream.write(reinterpret_cast<const char*>(&word), sizeof word);
    }
    must(space.map(pages(0, 10), protection::rw, device(5 * kPageSize)));
    EXPECT_EQ(get(space, pages(2, 1).start), 0xd0d0u) << "mapping clears nothing";
    put(space, pages(3, 1).start, 0xabcd);
    EXPECT_EQ(in_file(8 * kPageSize), 0xabcdu);
    const RegionInfo info = store.regions().at(region);
    EXPECT_EQ(info.kind, RegionKind::device);
    const Mapping shown = value_of(space.maps()).at(0);
    EXPECT_TRUE(shown.is_device && shown.is_shared);
    EXPECT_EQ(shown.name, "[region " + std::to_string(region) + "]");
    EXPECT_EQ(shown.name_offset, 5 * kPageSize);
    // Neighbours in the space are one mapping only if they are in the device.
    must(space.map(pages(10, 1), protection::rw, device(15 * kPageSize)));
    must(space.map(pages(11, 1), protection::rw, device(0)));
    EXPECT_EQ(value_of(space.maps()).size(), 2u);
    must(space.unmap(pages(10, 2)));
    EXPECT_EQ(space.translate(pages(0, 1).start)->physical, info.physical_base + 5 * kPageSize);
    must(space.unmap(pages(0, 10)));
    EXPECT_EQ(in_file(8 * kPageSize), 0xabcdu) << "unmapping leaves the frames as they are";
    must(space.map(pages(100, 1), protection::r, device(8 * kPageSize)));
    EXPECT_EQ(get(space, pages(100, 1).start), 0xabcdu);
}

TEST_F(Device, AllWhoMapAFrameSeeItAlsoForksAndSnapshots) {
    Space other = value_of(store.create_space("other"));
    must(space.map(pages(0, 4), protection::rw, device()));
    must(other.map(pages(9, 8), protection::rw, device(0, 4 * kPageSize)));  // twice the same
    Space fork = value_of(store.fork_space("space", "fork"));
    const Space snapshot = value_of(store.create_snapshot("space", "snapshot"));
    put(fork, pages(1, 1).start, 0x77);
    for (const VirtAddr at : {pages(1, 1).start}) {
        EXPECT_EQ(get(space, at), 0x77u);
        EXPECT_EQ(get(snapshot, at), 0x77u);
    }
    EXPECT_EQ(get(other, pages(10, 1).start), 0x77u);
    EXPECT_EQ(get(other, pages(14, 1).start), 0x77u);
    must(fork.unmap(pages(0, 4)));
    must(store.remove_space("fork"));
    must(store.remove_space("snapshot"));
    value_of(store.release_limbo());
    put(space, pages(1, 1).start, 0x78);
    EXPECT_EQ(get(other, pages(10, 1).start), 0x78u);
}

// A range of any length is one small commit, and takes no frame but for tables.
TEST_F(Device, ARangeTakesTablesOnly) {
    const std::uint64_t before = free_frames();
    must(space.map(pages(0, 1 << 18), protection::rw, device(0, kPageSize)));
    EXPECT_LT(before - free_frames(), 512u + 3);
    EXPECT_EQ(space.info().mapped_bytes, 1_GiB);
    EXPECT_EQ(space.info().resident_bytes, 0u);
    put(space, pages(12345, 1).start, 0x99);
    EXPECT_EQ(get(space, pages(200'000, 1).start), 0x99u);
    must(space.unmap(pages(0, 1 << 18)));
    EXPECT_EQ(free_frames(), before);
}

TEST_F(Device, HugePagesLineUpAndAreSplit) {
    must(space.map(pages(0, 1024), protection::rw, device(kHuge, 0, PageSize::size_2MiB)));
    EXPECT_EQ(space.translate(kStart)->page_size, PageSize::size_2MiB);
    EXPECT_EQ(value_of(space.maps()).at(0).huge_bytes, 0u);
    put(space, pages(3, 1).start, 3);
    put(space, pages(600, 1).start, 600);
    Space fork = value_of(store.fork_space("space", "fork"));
    must(space.unmap(pages(2, 1)));
    EXPECT_EQ(space.translate(pages(3, 1).start)->page_size, PageSize::size_4KiB);
    must(space.protect(pages(600, 1), protection::r));
    put(fork, pages(3, 1).start, 33);
    EXPECT_EQ(get(space, pages(3, 1).start), 33u);
    EXPECT_EQ(get(space, pages(600, 1).start), 600u);
    EXPECT_EQ(fork.translate(pages(3, 1).start)->page_size, PageSize::size_2MiB);
    EXPECT_EQ(in_file(kHuge + 3 * kPageSize), 33u);
    EXPECT_FALSE(space.write(pages(600, 1).start, std::as_bytes(std::span("x", 1))));
}

TEST_F(Device, IsKnownAgainAfterARestart) {
    must(space.map(pages(0, 4), protection::rw, device(kPageSize)));
    put(space, pages(0, 1).start, 0x1234);
    must(space.persist(pages(0, 1)));
    reopen();
    EXPECT_EQ(get(space, pages(0, 1).start), 0x1234u);
    // Away: a fault that says so, and nothing else is read instead.
    space = Space(nullptr);
    store = Store(nullptr);
    fs::rename(file, file + ".away");
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(space.translate(pages(0, 1).start).error().kind, FaultKind::region_missing);
    const auto refused = space.map(pages(50, 1), protection::rw, device());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::lost);
    fs::rename(file + ".away", file);
    reopen();
    EXPECT_EQ(get(space, pages(0, 1).start), 0x1234u);
}

// Neither the table that a huge page is split into, nor one that gets an entry of its own, may be
// trusted with what cannot be reached.
TEST_F(Device, WhatIsAwayStaysAFaultWhenItIsSplitOrShared) {
    must(space.map(pages(0, 512), protection::rw, device(0, 0, PageSize::size_2MiB)));
    space = Space(nullptr);
    store = Store(nullptr);
    fs::rename(file, file + ".away");
    store = pool.open();
    space = value_of(store.open_space("space"));
    must(space.unmap(pages(3, 1)));
    must(space.protect(pages(5, 1), protection::r));
    for (const std::uint64_t at : {0, 4, 5, 511}) {
        const auto found = space.translate(pages(at, 1).start);
        ASSERT_FALSE(found) << at;
        EXPECT_EQ(found.error().kind, FaultKind::region_missing) << at;
    }
    Space other = value_of(store.create_space("other"));
    must(other.map(pages(100, 1), protection::rw));
    const auto refused = other.map_shared(pages(0, 1), protection::rw, space, pages(4, 1));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::lost);
    EXPECT_THAT(refused.error().message, HasSubstr("region"));
    EXPECT_EQ(other.translate(pages(0, 1).start).error().kind, FaultKind::not_mapped);
    other = Space(nullptr);
    fs::rename(file + ".away", file);
    reopen();
    put(space, pages(4, 1).start, 7);
    EXPECT_EQ(in_file(4 * kPageSize), 7u);
}

// What was detached can be reached until the store is closed, and is nobody's afterwards.
TEST_F(Device, DetachedAndReplacedInOneOpeningIsNotMapped) {
    must(space.map(pages(0, 512), protection::rw, device(0, kHuge)));
    must(space.unmap(pages(0, 512)));  // its frames have records
    must(store.detach_region(region));
    EXPECT_EQ(space.map(pages(10, 1), protection::rw, device()).error().code, ErrorCode::lost);
    fs::remove(file);
    must(store.replace_region(region, file));
    const auto refused = space.map(pages(10, 4), protection::rw, device());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::lost);
    reopen();
    must(space.map(pages(10, 4), protection::rw, device()));
    put(space, pages(10, 1).start, 5);
    EXPECT_EQ(in_file(0), 5u);
    value_of(store.release_limbo());
}

// Another file in its place has other frames, with numbers that no entry has.
TEST_F(Device, ReplacedIsLost) {
    must(space.map(pages(0, 4), protection::rw, device()));
    must(store.detach_region(region));
    reopen();
    fs::remove(file);
    must(store.replace_region(region, file));
    reopen();
    EXPECT_EQ(space.translate(pages(0, 1).start).error().kind, FaultKind::region_replaced);
    must(space.map(pages(10, 4), protection::rw, device()));
    put(space, pages(10, 1).start, 5);
    EXPECT_EQ(in_file(0), 5u);
    must(space.unmap(pages(0, 4)));
    value_of(store.release_limbo());
}

TEST_F(Device, IsNotTakenForAnythingElse) {
    const std::uint64_t free = free_frames();
    EXPECT_EQ(store.create_space("there", {.region = region}).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(space.map(pages(0, 1), protection::rw, {.region = region}).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(free_frames(), free);
    // Quota, charge and eviction pass it over.
    must(set_overcommit(store, {OvercommitPolicy::never, 50}));
    const std::uint64_t committed = commit_account(store).committed_bytes;
    must(space.map(pages(0, 512), protection::rw, device()));
    EXPECT_EQ(commit_account(store).committed_bytes, committed);
    put(space, pages(0, 1).start, 1);
    EXPECT_EQ(value_of(space.evict(100 * kPageSize)), 0u);
    EXPECT_EQ(value_of(space.promote(pages(0, 512))), 0u);
}

TEST_F(Device, WhatCannotBeMappedIsRefused) {
    const auto refused = [&](const Range& range, const MapOptions& options, ErrorCode code,
                             const char* says) {
        const auto mapped = space.map(range, protection::rw, options);
        ASSERT_FALSE(mapped);
        EXPECT_EQ(mapped.error().code, code) << mapped.error().message;
        EXPECT_THAT(mapped.error().message, HasSubstr(says));
    };
    refused(pages(0, 1), {.device = DeviceMapping{.region = 17}}, ErrorCode::not_found,
            "region 17");
    refused(pages(0, 1), {.device = DeviceMapping{.region = 0}}, ErrorCode::invalid_argument,
            "pool");
    refused(pages(0, 2), device(kRegionBytes - kPageSize), ErrorCode::invalid_argument, "has");
    refused(pages(0, 2), device(~std::uint64_t{0} - 0xfff), ErrorCode::invalid_argument, "has");
    refused(pages(0, 1), device(7), ErrorCode::invalid_argument, "line up");
    refused(pages(0, 512), device(kPageSize, 0, PageSize::size_2MiB), ErrorCode::invalid_argument,
            "line up");
    refused(pages(1, 512), device(0, 0, PageSize::size_2MiB), ErrorCode::invalid_argument,
            "multiples");
    MapOptions stack = device();
    stack.grows_down = GrowsDown{};
    refused(pages(0, 600), stack, ErrorCode::invalid_argument, "stack");
    must(space.map(pages(4, 1), protection::rw));
    refused(pages(0, 8), device(), ErrorCode::overlap, "");
    EXPECT_THAT(value_of(space.maps()), testing::SizeIs(1));
}

// The record of a device's frame says always the same, and can be made again.
TEST_F(Device, ADamagedRecordIsNoticedAndMadeAgain) {
    must(space.map(pages(0, 4), protection::rw, device()));
    put(space, pages(2, 1).start, 0x22);
    must(space.persist(pages(2, 1)));
    const auto& memory = store.state().memory;
    const FrameNumber frame = memory.regions()[region].base() + 2;
    std::uint64_t* const word = memory.metadata(frame).word0;
    pool::store_word(word, *word ^ (std::uint64_t{1} << 40));
    store.state().pool->flush(word, sizeof *word);
    store.state().pool->drain();
    reopen();
    EXPECT_EQ(space.translate(pages(2, 1).start).error().kind, FaultKind::damaged_metadata);
    EXPECT_FALSE(store.verify().clean());
    space = Space(nullptr);
    store = Store(nullptr);
    value_of(repair_file(pool.path(), {.emulation = PmemEmulation::on}));
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(get(space, pages(2, 1).start), 0x22u);
}

// Random calls on two spaces and forks of them: a page of a device shows what was last written to
// its frame, by whoever, and nothing is counted or lost by it.
RC_GTEST_PROP(DeviceProperty, APageIsItsFrame, (std::uint64_t seed)) {
    const TemporaryPool pool;
    const std::string file = pool.path() + ".device";
    {
        Store store = pool.create(48_MiB);
        const unsigned region =
            value_of(store.add_device_region(file, {.size_bytes = kRegionBytes}));
        struct Page {
            std::uint64_t frame = 0;
            bool writable = false;
        };
        std::map<std::string, std::map<std::uint64_t, Page>> model;
        std::map<std::uint64_t, std::uint64_t> contents;
        std::uint64_t state = seed;
        const auto below = [&](std::uint64_t end) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            return (state >> 33) % end;
        };
        for (const char* name : {"a", "b"}) {
            value_of(store.create_space(name));
            model[name];
        }
        for (int step = 0; step < 60; ++step) {
            if (step % 12 == 11) {
                store = Store(nullptr);
                store = pool.open();
            }
            const auto chosen = std::next(model.begin(), static_cast<long>(below(model.size())));
            const std::string name = chosen->first;
            auto& mapped = chosen->second;
            Space space = value_of(store.open_space(name));
            const bool huge = below(3) == 0;
            const std::uint64_t unit = huge ? 512 : 1;
            const std::uint64_t first = below(1536) / unit * unit;
            const std::uint64_t count = huge ? 512 : 1 + below(700);
            const auto from = mapped.lower_bound(first), to = mapped.lower_bound(first + count);
            switch (below(6)) {
                case 0:
                case 1: {
                    const std::uint64_t size = huge ? 512 : 1 + below(count);
                    const std::uint64_t offset =
                        below((kRegionBytes / kPageSize - size) / unit + 1) * unit;
                    const Protection protection = below(4) == 0 ? protection::r : protection::rw;
                    const auto done = space.map(
                        pages(first, count), protection,
                        {.page_size = huge ? PageSize::size_2MiB : PageSize::size_4KiB,
                         .device = DeviceMapping{region, offset * kPageSize, size * kPageSize}});
                    RC_ASSERT(done.has_value() == (from == to));
                    for (std::uint64_t i = 0; done && i < count; ++i)
                        mapped[first + i] = {offset + i % size, protection.writable()};
                    break;
                }
                case 2:
                    must(space.unmap(pages(first, count)));
                    mapped.erase(from, to);
                    break;
                case 3: {
                    const Protection protection = below(2) == 0 ? protection::r : protection::rw;
                    const auto done = space.protect(pages(first, count), protection);
                    RC_ASSERT(done.has_value() ==
                              (static_cast<std::uint64_t>(std::distance(from, to)) == count));
                    for (auto each = from; done && each != to; ++each)
                        each->second.writable = protection.writable();
                    break;
                }
                case 4:
                    if (name.size() > 3) {
                        must(store.remove_space(name));
                        model.erase(name);
                    } else if (!model.contains(name + "f")) {
                        value_of(store.fork_space(name, name + "f"));
                        model[name + "f"] = mapped;
                    }
                    break;
                default:
                    if (from != mapped.end()) {
                        const std::uint64_t word = below(1 << 20);
                        const auto done = space.write(pages(from->first, 1).start,
                                                      std::as_bytes(std::span(&word, 1)));
                        RC_ASSERT(done.has_value() == from->second.writable);
                        if (done) contents[from->second.frame] = word;
                    }
            }
            for (const auto& [each, all] : model) {
                const Space shown = value_of(store.open_space(each));
                std::uint64_t resident = 0, total = 0;
                for (const Mapping& mapping : value_of(shown.maps())) {
                    RC_ASSERT(mapping.is_device);
                    resident += mapping.resident_bytes;
                    total += mapping.range.size_bytes / kPageSize;
                }
                RC_ASSERT(resident == 0u);
                RC_ASSERT(total == all.size());
                for (const auto& [number, page] : all)
                    if (number % 37 == 0 || contents.contains(page.frame))
                        RC_ASSERT(get(shown, pages(number, 1).start) ==
                                  (contents.contains(page.frame) ? contents[page.frame] : 0));
            }
        }
        RC_ASSERT(store.verify().clean());
    }
    fs::remove(file);
}

}  // namespace
}  // namespace holdfast::test
