// The frame of zeros that demand-zero pages share as long as they are only read.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "holdfast/snapshot.hpp"
#include "holdfast/tlb.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"
#include "support/words.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

constexpr VirtAddr kStart{0x4000'0000};

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

class ZeroFrame : public testing::Test {
  protected:
    ZeroFrame() : store(pool.create(32_MiB)), space(value_of(store.create_space("space"))) {
        must(space.map({kStart, 1000 * kPageSize}, protection::rw, {.lazy = true}));
    }
    ~ZeroFrame() override { expect_clean(store); }
    ZeroFrame(const ZeroFrame&) = delete;
    ZeroFrame& operator=(const ZeroFrame&) = delete;

    void read_fault(std::uint64_t number) { must(space.fault(page(number), protection::r)); }
    FrameNumber frame_at(const Space& of, std::uint64_t number) const {
        const auto found = of.translate(page(number));
        EXPECT_TRUE(found);
        return found ? found->physical.frame() : FrameNumber();
    }
    std::uint64_t free_frames() {
        value_of(store.release_limbo());
        return value_of(store.info()).frames.free;
    }
    void reopen() {
        space = Space(nullptr);
        store = Store(nullptr);
        store = pool.open();
        space = value_of(store.open_space("space"));
    }

    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST_F(ZeroFrame, IsWhatReadsGet) {
    read_fault(0);
    const std::uint64_t free = free_frames();
    for (std::uint64_t at = 0; at < 500; ++at) {
        read_fault(at);
        EXPECT_EQ(frame_at(space, at), frame_at(space, 0));
        EXPECT_EQ(get(space, page(at)), 0u);
    }
    EXPECT_EQ(free_frames(), free);
    EXPECT_EQ(space.info().resident_bytes, 0u);
    EXPECT_EQ(value_of(space.maps()).size(), 1u);
    const auto found = space.translate(page(3), protection::w);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().kind, FaultKind::copy_on_write);
}

TEST_F(ZeroFrame, IsCopiedByTheFirstWrite) {
    read_fault(0);
    read_fault(1);
    const FrameNumber zero = frame_at(space, 0);
    put(space, page(0), 7);
    EXPECT_NE(frame_at(space, 0), zero);
    EXPECT_EQ(frame_at(space, 1), zero);
    EXPECT_EQ(get(space, page(0)), 7u);
    EXPECT_EQ(get(space, page(1)), 0u);
    const auto bytes = space.frame_bytes(page(1));
    ASSERT_TRUE(bytes);
    (*bytes)[0] = std::byte{9};
    EXPECT_NE(frame_at(space, 1), zero);
    read_fault(2);
    EXPECT_EQ(get(space, page(2)), 0u);
}

// Of a mapping that permits no writing the bytes may be written all the same, but not for all.
TEST_F(ZeroFrame, IsNotHandedOut) {
    must(space.protect({kStart, 10 * kPageSize}, protection::r));
    read_fault(0);
    read_fault(1);
    EXPECT_EQ(space.translate(page(0))->protection, protection::r);
    const auto bytes = space.frame_bytes(page(0));
    ASSERT_TRUE(bytes);
    (*bytes)[0] = std::byte{9};
    EXPECT_EQ(get(space, page(0)), 9u);
    EXPECT_EQ(get(space, page(1)), 0u);
    const Space snapshot = value_of(store.create_snapshot("space", "snapshot"));
    EXPECT_FALSE(Space(snapshot).frame_bytes(page(1)));
    // What is made writable is copied when it is written.
    must(space.protect({kStart, 10 * kPageSize}, protection::rw));
    put(space, page(1), 5);
    EXPECT_EQ(get(snapshot, page(1)), 0u);
    EXPECT_EQ(get(space, page(1)), 5u);
}

TEST_F(ZeroFrame, ForksSharedPagesUnmappingAndRestarts) {
    for (std::uint64_t at = 0; at < 100; ++at) read_fault(at);
    Space fork = value_of(store.fork_space("space", "fork"));
    Space other = value_of(store.create_space("other"));
    must(
        other.map_shared({kStart, 4 * kPageSize}, protection::rw, space, {page(8), 4 * kPageSize}));
    put(other, page(1), 11);
    EXPECT_EQ(get(space, page(9)), 11u);
    EXPECT_EQ(get(fork, page(9)), 0u);
    put(fork, page(20), 20);
    EXPECT_EQ(get(space, page(20)), 0u);
    expect_clean(store);
    must(fork.unmap({kStart, 1000 * kPageSize}));
    must(store.remove_space("fork"));
    expect_clean(store);
    fork = Space(nullptr);
    other = Space(nullptr);
    reopen();
    const FrameNumber zero = frame_at(space, 50);
    EXPECT_EQ(zero, store.state().memory.zero_frame());
    read_fault(200);
    EXPECT_EQ(frame_at(space, 200), zero) << "it is found again, not made again";
    must(space.unmap({kStart, 1000 * kPageSize}));
    value_of(store.release_limbo());
    EXPECT_TRUE(store.state().memory.zero_frame());
}

// Pages that wish to be parts of larger ones get these.
TEST_F(ZeroFrame, IsNotForHugeWishes) {
    const VirtAddr at(0x8000'0000);
    must(space.map({at, 2_MiB}, protection::rw, {.lazy = true, .page_size = PageSize::size_2MiB}));
    must(space.fault(at, protection::r));
    EXPECT_EQ(space.translate(at)->page_size, PageSize::size_2MiB);
}

TEST_F(ZeroFrame, AProcessorOrATlbMeetsACopy) {
    read_fault(0);
    Tlb tlb = value_of(Tlb::create(space, {}));
    EXPECT_TRUE(tlb.translate(page(0), protection::r));
    EXPECT_FALSE(tlb.translate(page(0), protection::w));
    put(space, page(0), 3);
    const auto found = tlb.translate(page(0), protection::w);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->physical.frame(), frame_at(space, 0));
}

TEST_F(ZeroFrame, ThereIsOneWhoeverAsksFirst) {
    std::vector<std::thread> threads;
    std::vector<Space> spaces;
    for (int number = 0; number < 4; ++number) {
        spaces.push_back(value_of(store.create_space("s" + std::to_string(number))));
        must(spaces.back().map({kStart, 50 * kPageSize}, protection::rw, {.lazy = true}));
    }
    for (Space& each : spaces)
        threads.emplace_back([&each] {
            for (std::uint64_t at = 0; at < 50; ++at) must(each.fault(page(at), protection::r));
        });
    for (std::thread& thread : threads) thread.join();
    for (const Space& each : spaces) EXPECT_EQ(frame_at(each, 0), frame_at(spaces[0], 49));
}

// A byte in it, or a bit of the word that names it: noticed, and set right.
TEST_F(ZeroFrame, DamageIsFoundAndRepaired) {
    read_fault(0);
    const memory::PhysicalMemory& memory = store.state().memory;
    *memory.host(*memory.zero_frame()) = std::byte{1};
    const VerifyReport report = store.verify();
    ASSERT_EQ(report.findings.size(), 1u);
    EXPECT_NE(report.findings[0].detail.find("zeros"), std::string::npos);
    std::uint64_t* const word = &memory.superblock().zero_frame;
    pool::store_word(word, *word ^ 16);
    space = Space(nullptr);
    store = Store(nullptr);
    const auto opened = Store::open(pool.path(), {.emulation = PmemEmulation::on});
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::damaged);
    value_of(repair_file(pool.path(), {.emulation = PmemEmulation::on}));
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(get(space, page(0)), 0u);
    read_fault(1);  // another one
    EXPECT_NE(frame_at(space, 1), frame_at(space, 0));
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
