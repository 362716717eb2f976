// Pages of 2 MiB and 1 GiB: mapped, split, shared, copied, promoted; and that they are nothing else
// than their small ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "holdfast/ranges.hpp"
#include "holdfast/snapshot.hpp"
#include "holdfast/tlb.hpp"
#include "holdfast/verify.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"
#include "support/words.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr VirtAddr kStart{0x4000'0000};
constexpr std::uint64_t kHuge = bytes(PageSize::size_2MiB);
const MapOptions kHugeOptions{.page_size = PageSize::size_2MiB};
const MapOptions kLazyHuge{.lazy = true, .page_size = PageSize::size_2MiB};

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

class HugePages : public testing::Test {
  protected:
    HugePages() : store(pool.create(64_MiB)), space(value_of(store.create_space("space"))) {}
    ~HugePages() override { expect_clean(store); }
    HugePages(const HugePages&) = delete;
    HugePages& operator=(const HugePages&) = delete;

    PageSize size_at(VirtAddr at) { return value_of_translation(space, at).page_size; }
    static Translation value_of_translation(const Space& of, VirtAddr at) {
        const auto found = of.translate(at);
        EXPECT_TRUE(found) << (found ? "" : found.error().to_string());
        return found.value_or(Translation{});
    }
    std::uint64_t free_frames() {
        value_of(store.release_limbo(~std::uint64_t{0}));
        return value_of(store.info()).frames.free;
    }

    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST_F(HugePages, OneTranslationStandsForAllOfAPage) {
    const std::uint64_t before = free_frames();
    must(space.map({kStart, 3 * kHuge}, protection::rw, kHugeOptions));
    const Translation first = value_of_translation(space, kStart);
    EXPECT_EQ(first.page_size, PageSize::size_2MiB);
    EXPECT_EQ(first.physical.bits() % kHuge, 0u);
    for (const std::uint64_t at : {0, 1, 511})
        EXPECT_EQ(value_of_translation(space, page(at) + 8).physical,
                  first.physical + at * kPageSize + 8);
    for (const std::uint64_t at : {0, 511, 512, 1535}) {
        EXPECT_EQ(get(space, page(at)), 0u);
        put(space, page(at), at + 1);
    }
    std::vector<std::byte> all(3 * kHuge);
    must(space.read(kStart, all));
    for (const std::uint64_t at : {0, 511, 512, 1535})
        EXPECT_EQ(std::to_integer<unsigned>(all[at * kPageSize]), (at + 1) % 256);
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 1u);
    EXPECT_EQ(maps[0].huge_bytes, 3 * kHuge);
    EXPECT_EQ(space.info().huge_bytes, 3 * kHuge);
    // Three tables, and no record but three.
    EXPECT_EQ(before - value_of(store.info()).frames.free, 3 * 512 + 2);
    EXPECT_EQ(store.verify().frames_by_kind.at("huge_2MiB"), 3u);
    must(space.unmap({kStart, 3 * kHuge}));
    EXPECT_EQ(free_frames(), before);
}

TEST_F(HugePages, WhatIsNoMultipleOfThePageIsRefused) {
    for (const auto& [start, size] :
         {std::pair{page(1), kHuge}, {kStart, kHuge + kPageSize}, {page(511), 2 * kHuge}}) {
        const auto refused = space.map({start, size}, protection::rw, kHugeOptions);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
        EXPECT_THAT(refused.error().message, HasSubstr("multiples of 0x200000"));
    }
    EXPECT_EQ(
        space.map({kStart, kHuge}, protection::rw, {.page_size = PageSize::size_1GiB}).error().code,
        ErrorCode::invalid_argument);
    EXPECT_THAT(value_of(space.maps()), IsEmpty());
}

TEST_F(HugePages, WithoutRoomInOnePieceNothingIsMapped) {
    // A page here and there keeps every 2 MiB from being whole.
    std::uint64_t next = 0;
    while (space.map({VirtAddr(0x10'0000'0000 + next * kHuge), kHuge}, protection::rw)) ++next;
    for (std::uint64_t i = 0; i < next; ++i)
        must(space.unmap({VirtAddr(0x10'0000'0000 + i * kHuge), 500 * kPageSize}));
    const std::uint64_t before = free_frames();
    const StoreInfo info = value_of(store.info());
    EXPECT_GT(info.frames.free, 512u);
    const auto refused = space.map({kStart, 8 * kHuge}, protection::rw, kHugeOptions);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::no_space);
    EXPECT_THAT(refused.error().message, HasSubstr("in one piece"));
    EXPECT_FALSE(space.translate(kStart));
    EXPECT_EQ(free_frames(), before);
    // What is only to be as large is made of small ones.
    must(space.map({kStart, 8 * kHuge}, protection::rw, kLazyHuge));
    for (std::uint64_t i = 0; i < 8; ++i) put(space, kStart + i * kHuge, i);
    EXPECT_EQ(size_at(kStart + 7 * kHuge), PageSize::size_4KiB);
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(get(space, kStart + i * kHuge), i);
}

TEST_F(HugePages, InfoTellsHowFragmentedTheFreeFramesAre) {
    const FrameCounts fresh = value_of(store.info()).frames;
    EXPECT_GE(fresh.free_2MiB, 24u);
    EXPECT_LT(fresh.fragmentation(), 0.1);
    EXPECT_EQ(fresh.free_1GiB, 0u);
    must(space.map({kStart, 4 * kHuge}, protection::rw, kHugeOptions));
    EXPECT_EQ(value_of(store.info()).frames.free_2MiB, fresh.free_2MiB - 4);
    // Small pages come from what is broken already.
    must(space.map({kStart + 1_GiB, 64 * kPageSize}, protection::rw));
    EXPECT_GE(value_of(store.info()).frames.free_2MiB, fresh.free_2MiB - 5);
}

TEST_F(HugePages, ADemandZeroPageGetsAllOfItsFrameAtOnce) {
    must(space.map({kStart, 4 * kHuge}, protection::rw, kLazyHuge));
    put(space, page(700), 7);
    EXPECT_EQ(size_at(page(512)), PageSize::size_2MiB);
    EXPECT_EQ(get(space, page(700)), 7u);
    EXPECT_EQ(get(space, page(701)), 0u);
    EXPECT_EQ(space.translate(kStart).error().kind, FaultKind::demand_zero);
    // What of it was unmapped or protected before is not a whole page any more.
    must(space.unmap({page(1024), kPageSize}));
    put(space, page(1030), 9);
    EXPECT_EQ(size_at(page(1030)), PageSize::size_4KiB);
    EXPECT_FALSE(space.translate(page(1031)));
    EXPECT_EQ(value_of(space.maps())[0].huge_bytes, kHuge);
}

TEST_F(HugePages, APartIsUnmappedOrProtectedByItself) {
    must(space.map({kStart, 2 * kHuge}, protection::rw, kHugeOptions));
    for (std::uint64_t at = 0; at < 1024; ++at) put(space, page(at), at);
    const PhysAddr first = value_of_translation(space, kStart).physical;
    const std::uint64_t before = free_frames();
    must(space.unmap({page(3), 2 * kPageSize}));
    must(space.protect({page(600), 10 * kPageSize}, protection::r));
    EXPECT_EQ(free_frames(), before);  // two pages more, two tables less
    for (std::uint64_t at = 0; at < 1024; ++at) {
        if (at == 3 || at == 4) {
            EXPECT_FALSE(space.translate(page(at)));
            continue;
        }
        const Translation found = value_of_translation(space, page(at));
        EXPECT_EQ(found.page_size, PageSize::size_4KiB);
        EXPECT_EQ(found.protection, at >= 600 && at < 610 ? protection::r : protection::rw);
        EXPECT_EQ(get(space, page(at)), at);
        // In place: nothing was copied.
        if (at < 512) {
            EXPECT_EQ(found.physical, first + at * kPageSize);
        }
    }
}

TEST_F(HugePages, AForkSharesThemUntilOneWrites) {
    must(space.map({kStart, 2 * kHuge}, protection::rw, kHugeOptions));
    put(space, page(5), 5);
    put(space, page(600), 6);
    const std::uint64_t before = free_frames();
    Space fork = value_of(store.fork_space("space", "fork"));
    EXPECT_EQ(before - free_frames(), 2u);  // its record and its root
    EXPECT_EQ(value_of_translation(fork, kStart).physical,
              value_of_translation(space, kStart).physical);
    put(fork, page(7), 7);
    // The page is copied whole, so that it stays one.
    EXPECT_EQ(value_of_translation(fork, page(5)).page_size, PageSize::size_2MiB);
    EXPECT_EQ(get(fork, page(5)), 5u);
    EXPECT_EQ(get(space, page(7)), 0u);
    EXPECT_EQ(value_of_translation(fork, page(600)).physical,
              value_of_translation(space, page(600)).physical);
    // A part of a shared page: the others keep all of it.
    must(fork.unmap({page(600), kPageSize}));
    EXPECT_EQ(get(space, page(600)), 6u);
    EXPECT_EQ(size_at(page(600)), PageSize::size_2MiB);
    EXPECT_FALSE(fork.translate(page(600)));
    put(fork, page(601), 8);
    EXPECT_EQ(get(space, page(601)), 0u);
    must(store.remove_space("fork"));
    EXPECT_EQ(free_frames(), before);
}

TEST_F(HugePages, ASharedPartHasAFrameOfItsOwn) {
    must(space.map({kStart, kHuge}, protection::rw, kHugeOptions));
    put(space, page(5), 5);
    Space other = value_of(store.create_space("other"));
    must(other.map_shared({kStart, kPageSize}, protection::rw, space, {page(5), kPageSize}));
    put(other, kStart, 6);
    EXPECT_EQ(get(space, page(5)), 6u);
    must(space.unmap({kStart, kHuge}));
    EXPECT_EQ(get(other, kStart), 6u);
}

TEST_F(HugePages, PromotionKeepsEveryByte) {
    must(space.map({kStart, 500 * kPageSize}, protection::rw));
    must(space.map({page(500), 600 * kPageSize}, protection::rw, {.lazy = true}));
    for (std::uint64_t at = 0; at < 500; ++at) put(space, page(at), at + 1);
    const std::uint64_t before = free_frames();
    Tlb tlb(space);
    ASSERT_TRUE(tlb.translate(page(9)));
    EXPECT_EQ(value_of(space.promote({kStart, 1100 * kPageSize})), 2 * kHuge);
    for (std::uint64_t at = 0; at < 1024; ++at) {
        EXPECT_EQ(size_at(page(at)), PageSize::size_2MiB);
        EXPECT_EQ(get(space, page(at)), at < 500 ? at + 1 : 0);
    }
    EXPECT_EQ(tlb.translate(page(9))->physical, value_of_translation(space, page(9)).physical);
    EXPECT_EQ(space.translate(page(1024)).error().kind, FaultKind::demand_zero);
    // Two huge frames for 500 small ones and a table.
    EXPECT_EQ(before + 501 - 1024, free_frames());
    EXPECT_EQ(value_of(space.promote({kStart, 2 * kHuge})), 2 * kHuge);  // nothing left to do
}

TEST_F(HugePages, APromotedPageCountsForTheQuota) {
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    must(space.set_quota(6_MiB));
    must(space.map({kStart, 512 * kPageSize}, protection::rw));
    EXPECT_EQ(value_of(space.promote({kStart, kHuge})), kHuge);
    value_of(store.release_limbo(~std::uint64_t{0}));
    store.state().allocator.collect_retired();
    EXPECT_EQ(space.frame_use().charged_bytes, kHuge);
}

TEST_F(HugePages, WhatIsNotOneMappingIsNotPromoted) {
    must(space.map({kStart, 4 * kHuge}, protection::rw));
    must(space.protect({page(5), kPageSize}, protection::r));
    Space other = value_of(store.create_space("other"));
    must(other.map_shared({kStart, kPageSize}, protection::rw, space, {page(600), kPageSize}));
    must(space.unmap({page(1030), kPageSize}));
    must(space.map({page(1030), kPageSize}, protection::rw, {.guard = true}));
    EXPECT_EQ(value_of(space.promote({kStart, 4 * kHuge})), kHuge);
    EXPECT_EQ(size_at(page(1536)), PageSize::size_2MiB);
    EXPECT_EQ(size_at(kStart), PageSize::size_4KiB);
    put(space, page(600), 3);
    EXPECT_EQ(get(other, kStart), 3u);
    EXPECT_EQ(space.promote({kStart, 5 * kHuge}).error().code, ErrorCode::not_mapped);
}

TEST_F(HugePages, NoWriteIsLostWhilePagesArePromoted) {
    must(space.map({kStart, 2 * kHuge}, protection::rw));
    std::atomic<bool> stop = false;
    std::vector<std::uint64_t> last(1024);
    std::thread writer([&] {
        Space mine = space;
        for (std::uint64_t word = 1; !stop.load(); ++word) {
            const std::uint64_t at = word * 7919 % 1024;
            put(mine, page(at), word);
            last[at] = word;
        }
    });
    for (int round = 0; round < 40; ++round) {
        EXPECT_EQ(value_of(space.promote({kStart, 2 * kHuge})), 2 * kHuge);
        // Parts again.
        must(space.unmap({page(1024), kPageSize}));
        must(space.protect({page(3), kPageSize}, protection::rw));
        must(space.protect({page(515), kPageSize}, protection::rw));
    }
    stop = true;
    writer.join();
    for (std::uint64_t at = 0; at < 1024; ++at) EXPECT_EQ(get(space, page(at)), last[at]);
}

TEST(HugePagesReopened, AreWhatTheyWere) {
    const TemporaryPool pool;
    {
        Store store = pool.create(64_MiB);
        Space space = value_of(store.create_space("space"));
        must(space.map({kStart, 2 * kHuge}, protection::rw, kHugeOptions));
        put(space, page(7), 7);
        must(space.persist({kStart, 2 * kHuge}));
        must(space.unmap({page(512), kPageSize}));
    }
    Store store = pool.open();
    Space space = value_of(store.open_space("space"));
    EXPECT_EQ(get(space, page(7)), 7u);
    EXPECT_EQ(space.info().huge_bytes, kHuge);
    // Parts of huge frames say "free", and are not.
    must(space.map({kStart + 1_GiB, 4000 * kPageSize}, protection::rw));
    for (std::uint64_t at = 0; at < 4000; ++at) put(space, page(262'144 + at), ~std::uint64_t{0});
    EXPECT_EQ(get(space, page(7)), 7u);
    EXPECT_EQ(get(space, page(8)), 0u);
    expect_clean(store);
}

TEST(HugePagesOf1GiB, AreSplitStepByStep) {
    const TemporaryPool pool;
    Store store = value_of(Store::create(
        pool.path(),
        {.size_bytes = 64_MiB, .emulation = PmemEmulation::on, .frames_bytes = 16_MiB}));
    const unsigned region = value_of(store.add_volatile_region(3_GiB, LossPolicy::zero));
    Space space = value_of(store.create_space("space", {.region = region}));
    EXPECT_EQ(value_of(store.info()).frames.free_1GiB, 3u);
    must(space.map({kStart, 1_GiB}, protection::rw, {.page_size = PageSize::size_1GiB}));
    EXPECT_EQ(space.translate(kStart + 12345)->page_size, PageSize::size_1GiB);
    EXPECT_EQ(value_of(store.info()).frames.free_1GiB, 2u);
    put(space, kStart + 700_MiB, 7);
    put(space, kStart + 7 * kPageSize, 8);
    must(space.unmap({kStart + 3 * kPageSize, kPageSize}));
    EXPECT_EQ(space.translate(kStart)->page_size, PageSize::size_4KiB);
    EXPECT_EQ(space.translate(kStart + 700_MiB)->page_size, PageSize::size_2MiB);
    EXPECT_EQ(get(space, kStart + 700_MiB), 7u);
    EXPECT_EQ(get(space, kStart + 7 * kPageSize), 8u);
    expect_clean(store);
    must(space.unmap({kStart, 1_GiB}));
    value_of(store.release_limbo(~std::uint64_t{0}));
    EXPECT_EQ(value_of(store.info()).frames.free_1GiB, 3u);
    expect_clean(store);
}

// Only a huge frame's first has the mark of what this process has filled: parts have it from there.
TEST(HugePagesOfVolatileMemory, AreLostInPartsToo) {
    const TemporaryPool pool;
    Store store = pool.create(48_MiB);
    const unsigned region = value_of(store.add_volatile_region(12_MiB, LossPolicy::fault));
    Space space = value_of(store.create_space("space", {.region = region}));
    must(space.map({kStart, 4_MiB}, protection::rw, {.page_size = PageSize::size_2MiB}));
    put(space, page(3), 7);
    Space fork = value_of(store.fork_space("space", "fork"));
    put(space, page(4), 8);
    // The whole page was copied, and one small one differs.
    const auto differing = value_of(differences(fork, space));
    ASSERT_EQ(differing.size(), 1u);
    EXPECT_EQ(differing[0].range, (Range{page(4), kPageSize}));

    store = Store(nullptr);
    space = Space(nullptr);
    fork = Space(nullptr);
    store = pool.open();
    space = value_of(store.open_space("space"));
    must(space.unmap({page(5), kPageSize}));
    for (const std::uint64_t at : {0, 3, 4, 6, 511}) {
        const auto found = space.translate(page(at));
        ASSERT_FALSE(found) << at;
        EXPECT_EQ(found.error().kind, FaultKind::volatile_lost) << at;
    }
    must(space.unmap({kStart, 4_MiB}));
    must(store.remove_space("fork"));
    value_of(store.release_limbo(~std::uint64_t{0}));
    expect_clean(store);
}

// Two spaces under the same calls, one with huge pages and one without, are the same to see.
RC_GTEST_PROP(HugePagesProperty, AHugePageIsItsSmallOnes, ()) {
    const TemporaryPool pool;
    Store store = pool.create(96_MiB);
    Space huge = value_of(store.create_space("huge")),
          small = value_of(store.create_space("small"));
    const bool lazy = *rc::gen::arbitrary<bool>();
    must(huge.map({kStart, 3 * kHuge}, protection::rw,
                  {.lazy = lazy, .page_size = PageSize::size_2MiB}));
    must(small.map({kStart, 3 * kHuge}, protection::rw, {.lazy = lazy}));
    const int steps = *rc::gen::inRange(1, 12);
    for (int step = 0; step < steps; ++step) {
        const std::uint64_t first = *rc::gen::inRange<std::uint64_t>(0, 1536);
        const std::uint64_t count =
            std::min(*rc::gen::element<std::uint64_t>(1, 2, 17, 200, 512, 700), 1536 - first);
        const Range range{page(first), count * kPageSize};
        const int what = *rc::gen::inRange(0, 6);
        const std::string fork = "fork" + std::to_string(step);
        for (Space* const space : {&huge, &small}) {
            const bool both = space == &huge;
            switch (what) {
                case 0:
                    must(space->unmap(range));
                    break;
                case 1:
                    if (const auto done = space->protect(range, protection::rw | protection::u);
                        !done)
                        RC_ASSERT(done.error().code == ErrorCode::not_mapped);
                    break;
                case 2:
                    value_of(store.fork_space(space->name(), fork + (both ? "h" : "s")));
                    break;
                case 3:
                    if (both && !huge.promote(range)) continue;
                    break;
                default: {
                    const std::uint64_t word = 1000 + static_cast<std::uint64_t>(step);
                    std::ignore = space->write(page(first), std::as_bytes(std::span(&word, 1)));
                }
            }
        }
    }
    std::vector<std::pair<Space, Space>> pairs = {{huge, small}};
    for (int step = 0; step < steps; ++step) {
        const std::string fork = "fork" + std::to_string(step);
        if (auto first = store.open_space(fork + "h"))
            pairs.emplace_back(*first, value_of(store.open_space(fork + "s")));
    }
    for (const auto& [one, other] : pairs) {
        for (std::uint64_t at = 0; at < 1536; ++at) {
            const auto found = one.translate(page(at)), wanted = other.translate(page(at));
            if (found && !wanted) {
                // All of a demand-zero page gets its frame at once.
                RC_ASSERT(wanted.error().kind == FaultKind::demand_zero);
            } else {
                RC_ASSERT(found.has_value() == wanted.has_value());
            }
            if (!found) {
                RC_ASSERT(found.error().kind == wanted.error().kind);
                if (found.error().kind != FaultKind::demand_zero) continue;
            }
            RC_ASSERT(get(one, page(at)) == get(other, page(at)));
        }
        const auto mapped = [](const Space& space) {
            std::vector<std::pair<Range, Protection>> all;
            for (const Mapping& each : value_of(space.maps()))
                all.emplace_back(each.range, each.protection);
            return all;
        };
        RC_ASSERT(mapped(one) == mapped(other));
    }
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
