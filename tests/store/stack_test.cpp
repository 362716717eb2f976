// Stacks that grow down to their guard (MapOptions::grows_down).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "holdfast/inspect.hpp"
#include "holdfast/ranges.hpp"
#include "holdfast/tlb.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

constexpr VirtAddr kStart{0x4000'0000};
constexpr std::uint64_t kPages = 2000, kGuard = 4;
constexpr Protection kUserPages = protection::rw | protection::u;

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

class Stack : public testing::Test {
  protected:
    Stack() : store(pool.create()), space(value_of(store.create_space("space"))) {
        must(space.map({kStart, kPages * kPageSize}, kUserPages,
                       {.grows_down = GrowsDown{.guard_bytes = kGuard * kPageSize}}));
    }
    // The lowest page that is the stack's.
    std::uint64_t bottom(const Space& of) const {
        for (const Mapping& mapping : value_of(of.maps()))
            if (mapping.range.end() == page(kPages)) return (mapping.range.start - kStart) / 4096;
        return 0;
    }
    std::uint64_t bottom() const { return bottom(space); }
    FaultKind fault_at(std::uint64_t number) const {
        const auto found = space.translate(page(number));
        EXPECT_FALSE(found);
        return found ? FaultKind::non_canonical : found.error().kind;
    }
    Result<void> write(std::uint64_t number) {
        return space.write(page(number) + 8, std::as_bytes(std::span(&kWord, 1)));
    }
    static constexpr std::uint64_t kWord = 0x0123'4567'89ab'cdef;

    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST_F(Stack, IsGuardRoomAndItsTop) {
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 3u);
    EXPECT_EQ(
        maps[0],
        (Mapping{
            .range = {kStart, kGuard * kPageSize}, .protection = {}, .name = {}, .guard = true}));
    EXPECT_EQ(maps[1], (Mapping{.range = {page(kGuard), (kPages - kGuard - 1) * kPageSize},
                                .protection = kUserPages,
                                .name = {},
                                .stack_room = true}));
    EXPECT_EQ(
        maps[2],
        (Mapping{.range = {page(kPages - 1), kPageSize}, .protection = kUserPages, .name = {}}));
    EXPECT_EQ(fault_at(kGuard - 1), FaultKind::guard);
    EXPECT_EQ(fault_at(kGuard), FaultKind::stack_room);
    EXPECT_EQ(fault_at(kPages - 1), FaultKind::demand_zero);
    EXPECT_EQ(space.map({page(1000), kPageSize}, protection::rw).error().code, ErrorCode::overlap);
}

// Its room says how far others stay away, in 40 bits of pages.
TEST_F(Stack, AGuardThatItsRoomCannotSayIsRefused) {
    constexpr std::uint64_t kPiB = 1024_GiB * 1024;
    Space large = value_of(store.create_space("large", {.levels = Levels::five}));
    const auto map = [&](std::uint64_t guard_bytes) {
        return large.map({kStart, 8 * kPiB}, kUserPages,
                         {.grows_down = GrowsDown{.guard_bytes = guard_bytes}});
    };
    const auto refused = map(4 * kPiB);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    must(map(4 * kPiB - kPageSize));
}

TEST_F(Stack, GrowsDownToTheAccessAndNoFurther) {
    must(write(kPages - 3));
    EXPECT_EQ(bottom(), kPages - 3);
    EXPECT_EQ(fault_at(kPages - 2), FaultKind::demand_zero);
    EXPECT_EQ(fault_at(kPages - 4), FaultKind::stack_room);
    // Over several tables at once, and a read does it, too, but gets no frame of its own.
    std::uint64_t word = 1;
    must(space.read(page(700) + 16, std::as_writable_bytes(std::span(&word, 1))));
    EXPECT_EQ(word, 0u);
    EXPECT_EQ(bottom(), 700u);
    EXPECT_TRUE(space.translate(page(700)));
    EXPECT_EQ(fault_at(701), FaultKind::demand_zero);
    must(space.fault(page(699), protection::r));
    EXPECT_TRUE(space.translate(page(699)));
    // To the guard, and not into it.
    must(write(kGuard));
    EXPECT_EQ(bottom(), kGuard);
    EXPECT_EQ(value_of(space.maps())[1].resident_bytes, 2 * kPageSize);  // what was read has zeros
    EXPECT_EQ(write(kGuard - 1).error().code, ErrorCode::permission_denied);
    EXPECT_THAT(write(kGuard - 1).error().message, HasSubstr("guard"));
    EXPECT_EQ(bytes_at(space, (page(kPages - 3) + 8).bits(), 8),
              "\xef\xcd\xab\x89\x67\x45\x23\x01");
    expect_clean(store);
}

TEST_F(Stack, IsSoAfterARestart) {
    must(write(1500));
    {
        const Space gone = std::exchange(space, Space(nullptr));
    }
    {
        const Store gone = std::exchange(store, Store(nullptr));
    }
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(bottom(), 1500u);
    EXPECT_EQ(fault_at(1499), FaultKind::stack_room);
    must(write(1400));
    EXPECT_EQ(bottom(), 1400u);
}

TEST_F(Stack, KeepsAwayFromWhatIsMappedBelow) {
    // The guard and some of the room are given up, and something is mapped there.
    must(space.unmap({kStart, 20 * kPageSize}));
    must(space.map({page(8), 4 * kPageSize}, protection::r));
    must(space.map({page(13), kPageSize}, {}, {.guard = true}));
    must(write(12 + kGuard + 10));
    EXPECT_EQ(bottom(), 12 + kGuard + 10);
    must(space.map({page(18), 2 * kPageSize}, protection::r));
    // Room begins at 20; 19 is mapped: 24 is the first that keeps four pages away.
    EXPECT_EQ(write(23).error().code, ErrorCode::permission_denied);
    EXPECT_THAT(space.fault(page(23), protection::r).error().message, HasSubstr("guard"));
    EXPECT_EQ(bottom(), 26u) << "a refused growth changes nothing";
    must(write(24));
    EXPECT_EQ(bottom(), 24u);
}

TEST_F(Stack, AtTheEdgesOfTheHalves) {
    for (const std::uint64_t start : {0x0ull, 0xffff'8000'0000'0000ull}) {
        const Range range{VirtAddr(start), 10 * kPageSize};
        must(space.map(range, protection::rw, {.grows_down = GrowsDown{.guard_bytes = kPageSize}}));
        must(space.unmap({range.start, kPageSize}));
        must(space.fault(range.start + kPageSize, protection::w));
    }
    // The pages at the top of the lower half are no neighbours of those at the bottom of the upper.
    must(space.map({VirtAddr(0x7fff'ffff'f000), kPageSize}, protection::rw));
    const Range range{VirtAddr(0x7fff'ffe0'0000), 511 * kPageSize};
    must(space.map(range, protection::rw, {.grows_down = GrowsDown{.guard_bytes = kPageSize}}));
    must(space.fault(range.start + kPageSize, protection::w));
    expect_clean(store);
}

TEST_F(Stack, OfAForkIsItsOwn) {
    must(write(1900));
    Space fork = value_of(store.fork_space("space", "fork"));
    Space kept = value_of(store.create_snapshot("space", "kept"));
    must(write(1000));
    EXPECT_EQ(bottom(fork), 1900u);
    must(fork.fault(page(1800), protection::w));
    EXPECT_EQ(bottom(fork), 1800u);
    EXPECT_EQ(bottom(), 1000u);
    // Nobody's access makes a snapshot's stack grow.
    std::array<std::byte, 1> byte{};
    EXPECT_EQ(kept.read(page(1800), byte).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(bottom(kept), 1900u);
    expect_clean(store);
}

TEST_F(Stack, ProtectAndUnmapHoldForItsRoom) {
    must(space.protect({page(1000), 200 * kPageSize}, protection::r));
    EXPECT_EQ(write(1100).error().code, ErrorCode::permission_denied);
    std::array<std::byte, 1> byte{};
    must(space.read(page(1100), byte));
    EXPECT_EQ(bottom(), 1200u) << "what grew has two protections";
    EXPECT_EQ(space.translate(page(1150)).error().protection, protection::r);
    EXPECT_EQ(space.translate(page(1250)).error().protection, kUserPages);
    must(space.unmap({kStart, kPages * kPageSize}));
    EXPECT_TRUE(value_of(space.maps()).empty());
    value_of(store.release_limbo());
    expect_clean(store);
}

TEST_F(Stack, WhoOnlyLooksDoesNotMakeItGrow) {
    std::array<std::byte, 1> byte{};
    const std::array look = {PeekPiece{page(1500), byte}};
    EXPECT_EQ(peek(space, look).fault->kind, FaultKind::stack_room);
    EXPECT_EQ(space.frame_view(page(1500)).error().kind, FaultKind::stack_room);
    const TemporaryPool core;
    value_of(export_core(space, core.path()));
    EXPECT_EQ(bottom(), kPages - 1);
    // A pointer into the room may be followed, and one that is written through makes it grow.
    EXPECT_TRUE(check_user_range(space, page(1500), 10, protection::w));
    EXPECT_EQ(check_user_range(space, page(kGuard - 1), 1, protection::w).error().kind,
              FaultKind::guard);
    EXPECT_EQ(bottom(), kPages - 1);
    const std::array poked = {PokePiece{page(1500), byte}};
    EXPECT_FALSE(value_of(poke(space, poked)).fault);
    EXPECT_EQ(bottom(), 1500u);
}

TEST_F(Stack, ATlbSeesItGrow) {
    Tlb tlb(space);
    EXPECT_EQ(tlb.translate(page(1500)).error().kind, FaultKind::stack_room);
    must(write(1500));
    EXPECT_TRUE(tlb.translate(page(1500)));
}

TEST_F(Stack, WrongOptions) {
    const auto refused = [&](const MapOptions& options) {
        const auto done =
            space.map({VirtAddr(0x1000'0000), 20 * kPageSize}, protection::rw, options);
        return done ? ErrorCode::io : done.error().code;
    };
    for (const GrowsDown& wrong :
         {GrowsDown{}, GrowsDown{.guard_bytes = 0}, GrowsDown{.guard_bytes = 100},
          GrowsDown{.mapped_bytes = 0, .guard_bytes = kPageSize},
          GrowsDown{.mapped_bytes = 5000, .guard_bytes = kPageSize},
          GrowsDown{.mapped_bytes = 20 * kPageSize, .guard_bytes = kPageSize}})
        EXPECT_EQ(refused({.grows_down = wrong}), ErrorCode::invalid_argument);
    const GrowsDown fine{.mapped_bytes = 19 * kPageSize, .guard_bytes = kPageSize};
    EXPECT_EQ(refused({.guard = true, .grows_down = fine}), ErrorCode::invalid_argument);
    must(space.map({VirtAddr(0x1000'0000), 20 * kPageSize}, protection::rw, {.grows_down = fine}));
    must(space.fault(VirtAddr(0x1000'1000), protection::w));
}

// A call that finds no frame for the page has not made the stack grow either.
TEST_F(Stack, DoesNotGrowWithoutAFrame) {
    must(write(1990));
    for (VirtAddr at(0x10'0000'0000); space.map({at, kPageSize}, protection::rw);
         at = at + kPageSize) {
    }
    EXPECT_EQ(write(1980).error().code, ErrorCode::no_space);
    EXPECT_EQ(bottom(), 1990u);
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
