// Looking at ranges (ranges.hpp), guard pages, and looking into another space (inspect.hpp).
#include "holdfast/ranges.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <map>

#include "holdfast/inspect.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

constexpr VirtAddr kStart{0x4000'0000};
constexpr Protection kUserPages = protection::rw | protection::u;

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

class Ranges : public testing::Test {
  protected:
    Ranges() : store(pool.create()), space(value_of(store.create_space("space"))) {}
    const TemporaryPool pool;
    Store store;
    Space space;
};

// --- guard pages ---

TEST_F(Ranges, AGuardIsAFaultUntilItIsUnmapped) {
    must(space.map({kStart, 600 * kPageSize}, {}, {.guard = true, .name = "guard"}));
    for (const std::uint64_t at : {0, 1, 511, 512, 599}) {
        const auto found = space.translate(page(at));
        ASSERT_FALSE(found);
        EXPECT_EQ(found.error().kind, FaultKind::guard);
    }
    std::array<std::byte, 8> bytes{};
    EXPECT_EQ(space.read(kStart, bytes).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.write(kStart, bytes).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.fault(kStart, protection::r).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(space.map({page(3), kPageSize}, protection::rw).error().code, ErrorCode::overlap);
    must(space.protect({page(100), 10 * kPageSize}, protection::rw));
    EXPECT_EQ(space.translate(page(105)).error().kind, FaultKind::guard);
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 1u);
    EXPECT_TRUE(maps[0].guard);
    EXPECT_EQ(maps[0].protection, Protection());
    EXPECT_EQ(maps[0].resident_bytes, 0u);
    must(space.unmap({page(511), 2 * kPageSize}));
    must(space.map({page(511), 2 * kPageSize}, protection::rw));
    EXPECT_TRUE(space.translate(page(512)));
    EXPECT_EQ(space.translate(page(513)).error().kind, FaultKind::guard);
    // A fork has it, too, and a dump of the space leaves it out.
    EXPECT_EQ(value_of(store.fork_space("space", "fork")).translate(kStart).error().kind,
              FaultKind::guard);
    const TemporaryPool dump;
    value_of(export_core(space, dump.path()));
    expect_clean(store);
}

// --- find ---

TEST_F(Ranges, FindsTheMappingThatMapsHas) {
    must(space.map({kStart, 3 * kPageSize}, protection::rw));
    must(space.map({page(3), 1500 * kPageSize}, protection::r));
    must(space.map({page(1503), 2 * kPageSize}, protection::r, {.name = "named"}));
    must(space.map({VirtAddr(0x7f00'0000'0000), 1_GiB}, protection::rw, {.lazy = true}));
    must(space.map({VirtAddr(0xffff'8000'0000'0000), kPageSize}, protection::r));
    must(space.map({VirtAddr(0x7fff'ffff'f000), kPageSize}, protection::r));
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 6u);
    for (const Mapping& mapping : maps)
        for (const VirtAddr at :
             {mapping.range.start, mapping.range.start + mapping.range.size_bytes / 2,
              mapping.range.end() + ~std::uint64_t{0}})
            EXPECT_EQ(value_of(find_mapping(space, at)), mapping) << at.bits();
    EXPECT_EQ(value_of(find_mapping(space, page(1505))), std::nullopt);
    EXPECT_EQ(value_of(find_mapping(space, VirtAddr(0x8000'0000'0000))), std::nullopt);
}

// --- find_hole ---

TEST_F(Ranges, AHoleIsTheLowestThatFits) {
    const auto hole = [&](std::uint64_t size, const HoleOptions& options = {}) {
        return value_of(find_hole(space, size, options));
    };
    EXPECT_EQ(hole(kPageSize), VirtAddr(kPageSize));
    EXPECT_EQ(hole(2_MiB, {.alignment_bytes = 2_MiB}), VirtAddr(2_MiB));
    EXPECT_EQ(hole(std::uint64_t{1} << 47), std::nullopt);
    must(space.map({VirtAddr(kPageSize), 5 * kPageSize}, protection::rw));
    must(space.map({VirtAddr(8 * kPageSize), 2 * kPageSize}, {}, {.guard = true}));
    EXPECT_EQ(hole(kPageSize), VirtAddr(6 * kPageSize));
    EXPECT_EQ(hole(3 * kPageSize), VirtAddr(10 * kPageSize));
    EXPECT_EQ(hole(kPageSize, {.within = Range{VirtAddr(8 * kPageSize), 2 * kPageSize}}),
              std::nullopt);
    const Range upper{VirtAddr(0xffff'8000'0000'0000), std::uint64_t{1} << 47};
    EXPECT_EQ(hole(1_GiB, {.alignment_bytes = 1_GiB, .within = upper}), upper.start);
    for (const HoleOptions& wrong :
         {HoleOptions{.alignment_bytes = 3000}, HoleOptions{.alignment_bytes = 512},
          HoleOptions{.within = Range{VirtAddr(0), std::uint64_t{1} << 48}},
          HoleOptions{.within = Range{VirtAddr(8), kPageSize}}})
        EXPECT_EQ(find_hole(space, kPageSize, wrong).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(find_hole(space, 0).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(find_hole(space, 100).error().code, ErrorCode::invalid_argument);
}

// Against looking at each place in turn.
RC_GTEST_PROP(RangesProperty, AHoleIsWhatASearchPageByPageFinds, ()) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    Space space = value_of(store.create_space("space", {.levels = Levels::three}));
    constexpr std::uint64_t kPages = 1200;
    std::array<bool, kPages> mapped{};
    const Range within{kStart, kPages * kPageSize};
    for (int i = *rc::gen::inRange(0, 14); i > 0; --i) {
        const auto first = *rc::gen::inRange<std::uint64_t>(0, kPages);
        const auto count =
            *rc::gen::inRange<std::uint64_t>(1, std::min<std::uint64_t>(kPages - first + 1, 300));
        if (space.map({page(first), count * kPageSize}, protection::rw,
                      {.lazy = *rc::gen::arbitrary<bool>()}))
            std::fill_n(mapped.begin() + static_cast<std::ptrdiff_t>(first), count, true);
    }
    const auto size = *rc::gen::inRange<std::uint64_t>(1, 400);
    const auto alignment = std::uint64_t{1} << *rc::gen::inRange(0, 10);
    std::optional<VirtAddr> expected;
    for (std::uint64_t at = 0; at + size <= kPages && !expected; at += alignment)
        if (std::none_of(mapped.begin() + static_cast<std::ptrdiff_t>(at),
                         mapped.begin() + static_cast<std::ptrdiff_t>(at + size),
                         [](bool each) { return each; }))
            expected = page(at);
    RC_ASSERT(value_of(find_hole(space, size * kPageSize,
                                 {.alignment_bytes = alignment * kPageSize, .within = within})) ==
              expected);
}

// --- check_user_range ---

TEST_F(Ranges, AUserMayTouchWhatIsMappedForHim) {
    must(space.map({kStart, 4 * kPageSize}, kUserPages));
    must(space.map({page(4), 2 * kPageSize}, protection::r | protection::u));
    must(space.map({page(6), kPageSize}, protection::rw));
    must(space.map({page(7), kPageSize}, {}, {.guard = true}));
    must(space.map({VirtAddr(0x10'0000'0000), 1_GiB}, kUserPages, {.lazy = true}));
    must(space.map({VirtAddr(0xffff'8000'0000'0000), kPageSize}, kUserPages));
    value_of(store.fork_space("space", "fork"));  // what is copied on write may be written
    const auto fault = [&](VirtAddr at, std::uint64_t size, Protection access) {
        const auto fine = check_user_range(space, at, size, access);
        return fine ? std::optional<Fault>() : std::optional(fine.error());
    };
    EXPECT_FALSE(fault(kStart, 4 * kPageSize, protection::w));
    EXPECT_FALSE(fault(kStart + 5, 6 * kPageSize - 5, protection::r));
    EXPECT_FALSE(fault(VirtAddr(0x10'0000'0000), 1_GiB, protection::w));
    EXPECT_FALSE(fault(VirtAddr(0), 0, protection::w));
    const auto expect = [&](VirtAddr at, std::uint64_t size, Protection access, FaultKind kind,
                            VirtAddr where) {
        const auto found = fault(at, size, access);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->kind, kind);
        EXPECT_EQ(found->address, where);
    };
    expect(page(3), 2 * kPageSize, protection::w, FaultKind::protection, page(4));
    expect(page(3), 4 * kPageSize, protection::r, FaultKind::protection, page(6));
    expect(page(7), 1, protection::r, FaultKind::guard, page(7));
    expect(page(8), 1, protection::r, FaultKind::not_mapped, page(8));
    expect(kStart, 1, protection::x, FaultKind::protection, kStart);
    // Outside of the user half, and ranges that overflow into it or around.
    const VirtAddr half(0x8000'0000'0000);
    expect(VirtAddr(0xffff'8000'0000'0000), 1, protection::r, FaultKind::non_canonical,
           VirtAddr(0xffff'8000'0000'0000));
    expect(kStart, ~std::uint64_t{0}, protection::r, FaultKind::non_canonical, half);
    expect(half, 1, protection::r, FaultKind::non_canonical, half);
}

// --- peek and poke ---

TEST_F(Ranges, PeekAndPokeInBulk) {
    must(space.map({kStart, 2 * kPageSize}, protection::rw));
    must(space.map({page(2), kPageSize}, protection::rx));
    must(space.map({page(3), kPageSize}, protection::rw, {.lazy = true}));
    const std::string first = "over an edge", second = "here";
    const std::array pieces = {
        PokePiece{page(1) + (kPageSize * -1ull) + (kPageSize - 6), std::as_bytes(std::span(first))},
        PokePiece{page(3) + 9, std::as_bytes(std::span(second))}};
    const Transferred written = value_of(poke(space, pieces));
    EXPECT_EQ(written.size_bytes, first.size() + second.size());
    EXPECT_FALSE(written.fault);
    std::string a(first.size(), '?'), b(second.size(), '?');
    const std::array looks = {PeekPiece{page(1) + (kPageSize * -1ull) + (kPageSize - 6),
                                        std::as_writable_bytes(std::span(a))},
                              PeekPiece{page(3) + 9, std::as_writable_bytes(std::span(b))}};
    EXPECT_EQ(peek(space, looks).size_bytes, first.size() + second.size());
    EXPECT_EQ(a, first);
    EXPECT_EQ(b, second);
    // The first that cannot be read ends it.
    const std::array beyond = {
        PeekPiece{page(3) + (kPageSize - 2), std::as_writable_bytes(std::span(b))}};
    const Transferred cut = peek(space, beyond);
    EXPECT_EQ(cut.size_bytes, 2u);
    ASSERT_TRUE(cut.fault);
    EXPECT_EQ(cut.fault->kind, FaultKind::not_mapped);
}

TEST_F(Ranges, APokeByForceReachesNobodyElse) {
    must(space.map({kStart, kPageSize}, protection::rx));
    must(space.map({page(1), kPageSize}, protection::rw));
    Space other = value_of(store.create_space("other"));
    must(other.map_shared({kStart, kPageSize}, protection::r, space, {page(1), kPageSize}));
    Space fork = value_of(store.fork_space("space", "fork"));
    Space kept = value_of(store.create_snapshot("space", "kept"));
    const std::array<std::byte, 1> breakpoint{std::byte{0xcc}};
    const std::array at_code = {PokePiece{kStart, breakpoint}};
    const Transferred refused = value_of(poke(fork, at_code));
    ASSERT_TRUE(refused.fault);
    EXPECT_EQ(refused.fault->kind, FaultKind::protection);
    EXPECT_FALSE(value_of(poke(fork, at_code, PokePolicy::force)).fault);
    EXPECT_EQ(bytes_at(fork, kStart.bits(), 1), "\xcc");
    EXPECT_EQ(bytes_at(space, kStart.bits(), 1), std::string(1, '\0'));
    EXPECT_FALSE(fork.translate(kStart)->protection.writable());
    // What is mapped shared and read-only here may be another's to write.
    const Transferred shared = value_of(poke(other, at_code, PokePolicy::force));
    ASSERT_TRUE(shared.fault);
    EXPECT_EQ(shared.size_bytes, 0u);
    EXPECT_EQ(poke(kept, at_code, PokePolicy::force).error().code, ErrorCode::permission_denied);
    EXPECT_EQ(bytes_at(kept, kStart.bits(), 1), std::string(1, '\0'));
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
