// ctest-labels: tsan
//
// The TLB over spaces: what each counter counts, that exactly what changed is forgotten, and that
// it answers as the tables do, whatever happens in between and whatever its geometry.
#include "holdfast/tlb.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <thread>
#include <unordered_map>

#include "holdfast/holdfast.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

Tlb tlb_of(const Space& space, const TlbOptions& options) {
    return value_of(Tlb::create(space, options));
}

class TlbTest : public testing::Test {
  protected:
    static constexpr std::uint64_t kPages = 64;
    static constexpr Range kRange{VirtAddr(0x4000'0000 - 8 * kPageSize), kPages* kPageSize};

    TlbTest() : store(pool.create(32_MiB)), space(make("space")), other(make("other")) {}

    Space make(const std::string& name) {
        Space made = value_of(store.create_space(name));
        must(made.map(kRange, protection::rw));
        return made;
    }
    static VirtAddr page(std::uint64_t number) { return kRange.start + number * kPageSize; }
    static Range pages(std::uint64_t first, std::uint64_t count) {
        return {page(first), count * kPageSize};
    }
    static void fill(Tlb& tlb, std::uint64_t count = kPages) {
        for (std::uint64_t i = 0; i < count; ++i) EXPECT_TRUE(tlb.translate(page(i)));
    }
    const TemporaryPool pool;
    Store store;
    Space space, other;
};

TEST_F(TlbTest, OptionsThatCannotBe) {
    for (const std::uint32_t spaces : {0u, TlbTag::kMax + 1}) {
        const auto refused = Tlb::create(space, {.spaces = spaces});
        ASSERT_FALSE(refused);
        EXPECT_NE(refused.error().message.find("1 to 4095"), std::string::npos);
    }
    const auto refused = Tlb::create(space, {.geometries = {.pages_4KiB = {3, 2}}});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
}

TEST_F(TlbTest, CountsHitsMissesFaultsAndReach) {
    Tlb tlb(space);
    EXPECT_EQ(tlb.reach_bytes(), 0u);
    fill(tlb);
    EXPECT_EQ(tlb.counters().misses, kPages);
    EXPECT_EQ(tlb.counters().hits(), 0u);
    EXPECT_EQ(tlb.reach_bytes(), kPages * kPageSize);
    fill(tlb);
    fill(tlb);
    EXPECT_EQ(tlb.counters().hits_4KiB, 2 * kPages);
    EXPECT_EQ(tlb.counters().misses, kPages);
    // A fault is a miss each time, and gives no entry.
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(tlb.translate(kRange.end()));
    EXPECT_EQ(tlb.counters().faults, 3u);
    EXPECT_EQ(tlb.counters().misses, kPages + 3);
    EXPECT_EQ(tlb.counters().lookups(), 3 * kPages + 3);
    EXPECT_EQ(tlb.valid_entries(PageSize::size_4KiB), kPages);
    EXPECT_EQ(tlb.counters().evictions, 0u);
}

TEST_F(TlbTest, CountsEvictions) {
    // A sweep through more pages than entries, of a fully associative TLB with LRU: never a hit.
    Tlb tlb = tlb_of(space, {.geometries = {.pages_4KiB = {16, 16}}});
    for (int round = 0; round < 2; ++round) fill(tlb);
    EXPECT_EQ(tlb.counters().hits(), 0u);
    EXPECT_EQ(tlb.counters().evictions, 2 * kPages - 16);
    EXPECT_EQ(tlb.reach_bytes(), 16 * kPageSize);
}

TEST_F(TlbTest, AWriteToAReadOnlyEntryWalks) {
    must(space.protect(pages(3, 1), protection::r));
    Tlb tlb(space);
    EXPECT_TRUE(tlb.translate(page(3), protection::r));
    const auto refused = tlb.translate(page(3), protection::w);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, FaultKind::protection);
    EXPECT_EQ(refused.error().protection, protection::r);
    EXPECT_EQ(tlb.counters().permission_misses, 1u);
    EXPECT_EQ(tlb.counters().faults, 1u);
    EXPECT_TRUE(tlb.translate(page(3), protection::r));
    EXPECT_EQ(tlb.counters().hits(), 1u);
    must(space.protect(pages(3, 1), protection::rw));
    EXPECT_TRUE(tlb.translate(page(3), protection::w));
    EXPECT_TRUE(tlb.translate(page(3), protection::w));
    EXPECT_FALSE(tlb.translate(page(3), protection::x));
    EXPECT_EQ(tlb.counters().hits(), 2u);
    EXPECT_EQ(tlb.counters().permission_misses, 2u);
}

TEST_F(TlbTest, ExactlyWhatChangedIsForgotten) {
    Tlb tlb(space);
    fill(tlb);
    auto misses_after = [&, before = kPages](const char* what) mutable {
        for (std::uint64_t i = 0; i < kPages; ++i) {
            const auto found = tlb.translate(page(i)), walked = space.translate(page(i));
            EXPECT_EQ(found.has_value(), walked.has_value()) << what << i;
            if (found && walked) {
                EXPECT_EQ(*found, *walked) << what << i;
            }
        }
        return tlb.counters().misses - std::exchange(before, tlb.counters().misses);
    };
    must(space.unmap(pages(5, 2)));
    EXPECT_EQ(tlb.reach_bytes(), (kPages - 2) * kPageSize);
    EXPECT_EQ(tlb.counters().invalidations, 2u);
    EXPECT_EQ(misses_after("unmap"), 2u);
    // A page that appears is no change to what is known.
    must(space.map(pages(5, 2), protection::r));
    EXPECT_EQ(misses_after("map"), 2u);
    EXPECT_EQ(misses_after("nothing"), 0u);
    must(space.protect(pages(10, 3), protection::r));
    EXPECT_EQ(misses_after("protect"), 3u);
    // One commit with several ranges, and one that was never made.
    Transaction transaction = store.begin();
    for (const std::uint64_t first : {1, 20, 40, 60})
        must(transaction.unmap(space, pages(first, 1)));
    must(transaction.map(space, pages(20, 1), protection::r));
    must(transaction.commit());
    EXPECT_EQ(misses_after("commit"), 4u);
    EXPECT_EQ(misses_after("faults"), 3u) << "unmapped pages are not remembered";
    Transaction aborted = store.begin();
    must(aborted.unmap(space, kRange));
    aborted.abort();
    EXPECT_EQ(misses_after("abort"), 3u);
    // More ranges in a commit than can be told apart become one, the first nine here.
    Transaction more = store.begin();
    for (std::uint64_t i = 0; i < 12; ++i)
        must(more.protect(space, pages(2 + 3 * i, 1), protection::r));
    must(more.commit());
    EXPECT_EQ(misses_after("many"), 3u + (2 + 3 * 8 + 1 - 2) + 3);
    // The other space's changes are none of this one's.
    must(other.unmap(kRange));
    EXPECT_EQ(misses_after("other"), 3u);
    EXPECT_EQ(tlb.counters().flushed, 0u);
}

TEST_F(TlbTest, WhatWasMissedForTooLongIsForgottenAsAWhole) {
    Tlb tlb(space);
    fill(tlb);
    for (int i = 0; i < 300; ++i)
        must(space.protect(pages(9, 1), i % 2 == 0 ? protection::r : protection::rw));
    EXPECT_EQ(tlb.reach_bytes(), 0u);
    EXPECT_EQ(tlb.counters().invalidations, kPages);
    fill(tlb);
    for (int i = 0; i < 20; ++i)
        must(space.protect(pages(9, 1), i % 2 == 0 ? protection::r : protection::rw));
    EXPECT_EQ(tlb.reach_bytes(), (kPages - 1) * kPageSize);
}

TEST_F(TlbTest, EntriesOfSeveralSpacesSurviveSwitching) {
    Tlb tlb(space);
    fill(tlb);
    tlb.switch_to(other);
    fill(tlb);
    EXPECT_EQ(tlb.counters().misses, 2 * kPages);
    EXPECT_EQ(tlb.reach_bytes(), 2 * kPages * kPageSize);
    for (int round = 0; round < 3; ++round)
        for (const Space& each : {space, other}) {
            tlb.switch_to(each);
            for (std::uint64_t i = 0; i < kPages; ++i)
                EXPECT_EQ(tlb.translate(page(i))->physical, each.translate(page(i))->physical);
        }
    EXPECT_EQ(tlb.counters().misses, 2 * kPages);
    // Of a space that is not the current one, too, what changes is forgotten, and only that.
    must(space.unmap(pages(0, 4)));
    must(other.protect(pages(8, 1), protection::r));
    for (const Space& each : {space, other}) {
        tlb.switch_to(each);
        for (std::uint64_t i = 0; i < kPages; ++i)
            EXPECT_EQ(tlb.translate(page(i)).has_value(), each.translate(page(i)).has_value());
    }
    EXPECT_EQ(tlb.counters().misses, 2 * kPages + 5);
    EXPECT_EQ(tlb.counters().invalidations, 5u);
    tlb.flush(space);
    EXPECT_EQ(tlb.reach_bytes(), kPages * kPageSize);
    EXPECT_EQ(tlb.counters().flushed, kPages - 4);
    tlb.flush();
    EXPECT_EQ(tlb.reach_bytes(), 0u);
}

TEST_F(TlbTest, WithFewerTagsThanSpacesTheOneOfLongestAgoLosesItsEntries) {
    const Space third = make("third");
    Tlb tlb = tlb_of(space, {.spaces = 2});
    fill(tlb, 10);
    tlb.switch_to(other);
    fill(tlb, 20);
    tlb.switch_to(space);
    tlb.switch_to(third);
    EXPECT_EQ(tlb.counters().flushed, 20u);
    fill(tlb, 5);
    for (std::uint64_t i = 0; i < 5; ++i)
        EXPECT_EQ(tlb.translate(page(i))->physical, third.translate(page(i))->physical);
    tlb.switch_to(space);
    fill(tlb, 10);
    EXPECT_EQ(tlb.counters().misses, 35u);
    EXPECT_EQ(tlb.reach_bytes(), 15 * kPageSize);
}

TEST_F(TlbTest, ARemovedSpaceAndItsSuccessorByName) {
    Tlb tlb(space);
    fill(tlb);
    must(store.remove_space("space"));
    EXPECT_EQ(tlb.translate(page(0)).error().kind, FaultKind::not_mapped);
    EXPECT_EQ(tlb.reach_bytes(), 0u);
    // Its record's frame may be the same; what is known of it is not.
    value_of(store.release_limbo());
    const Space successor = value_of(store.create_space("space"));
    tlb.switch_to(successor);
    EXPECT_EQ(tlb.translate(page(0)).error().kind, FaultKind::not_mapped);
    tlb.switch_to(space);
    EXPECT_EQ(tlb.translate(page(0)).error().kind, FaultKind::not_mapped);
}

TEST_F(TlbTest, AddressesAndHalvesAreNotMistakenForOneAnother) {
    // All levels: the ranges of a commit are page indexes, without the sign.
    for (const Levels levels : {Levels::three, Levels::four, Levels::five}) {
        Space wide = value_of(store.create_space("wide", {.levels = levels}));
        const VirtAddr low{0x10'0000},
            high = VirtAddr::truncated(
                std::uint64_t{1} << (virtual_address_bits(levels) - 1) | 0x10'0000, levels);
        for (const VirtAddr address : {low, high}) must(wide.map({address, 4_KiB}, protection::rw));
        Tlb tlb(wide);
        EXPECT_NE(tlb.translate(low)->physical, tlb.translate(high)->physical);
        EXPECT_TRUE(tlb.translate(high));
        // Its translated bits without the sign.
        const VirtAddr unsigned_high{high.bits() & ((std::uint64_t{1} << 63) - 1)};
        EXPECT_EQ(tlb.translate(unsigned_high).error().kind, FaultKind::non_canonical);
        must(wide.unmap({high, 4_KiB}));
        EXPECT_FALSE(tlb.translate(high));
        EXPECT_TRUE(tlb.translate(low));
        EXPECT_EQ(tlb.counters().hits(), 2u);
        must(store.remove_space("wide"));
        EXPECT_FALSE(tlb.translate(low));
    }
}

TEST_F(TlbTest, ADetachedRegionAnswersAsTheTablesDoUntilTheStoreIsClosed) {
    const TemporaryPool file;
    const unsigned region = value_of(store.add_external_region(file.path(), {.size_bytes = 4_MiB}));
    const Range range{VirtAddr(0x7000'0000), 4 * kPageSize};
    must(space.map(range, protection::rw, {.region = region}));
    Tlb tlb(space);
    const auto before = tlb.translate(range.start);
    must(store.detach_region(region));
    EXPECT_EQ(*tlb.translate(range.start), *before);
    EXPECT_EQ(*space.translate(range.start), *before);
    // It keeps its store open: `repair` and another opening, after which answers would differ, are
    // refused.
    {
        const Space gone = std::move(space), also_gone = std::move(other);
        const Store closed = std::move(store);
    }
    EXPECT_EQ(repair_file(pool.path(), {}).error().code, ErrorCode::busy);
    EXPECT_EQ(Store::open(pool.path(), {.emulation = PmemEmulation::on}).error().code,
              ErrorCode::busy);
    EXPECT_EQ(*tlb.translate(range.start), *before);
    {
        const Tlb ended = std::move(tlb);
    }
    store = pool.open();
    space = value_of(store.open_space("space"));
    other = value_of(store.open_space("other"));
    Tlb again(space);
    EXPECT_EQ(again.translate(range.start).error().kind, FaultKind::region_detached);
}

// --- against no TLB ---

// Spaces whose pages come, go and change, alone and in transactions, while TLBs of any geometry are
// asked: each answer is what the tables say at that moment.
RC_GTEST_PROP(TlbProperty, AnswersAsTheTablesDo, ()) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    constexpr std::size_t kSpaces = 4;
    constexpr std::uint64_t kPlaces = 40;
    constexpr std::array<std::byte, 8> kWord{};
    std::vector<Space> spaces;
    std::vector<VirtAddr> starts;
    int made = 0;
    const auto make = [&] {
        const Levels levels = *rc::gen::element(Levels::three, Levels::four, Levels::five);
        // In both halves, over the edge between two tables.
        const std::uint64_t half = *rc::gen::arbitrary<bool>()
                                       ? std::uint64_t{1} << (virtual_address_bits(levels) - 1)
                                       : 0;
        starts.push_back(VirtAddr::truncated(half | (0x4000'0000 - 20 * kPageSize), levels));
        spaces.push_back(
            value_of(store.create_space("space" + std::to_string(made++), {.levels = levels})));
        must(spaces.back().map({starts.back(), kPlaces * kPageSize}, protection::rw));
    };
    for (std::size_t i = 0; i < kSpaces; ++i) make();
    const auto geometry = [] {
        const auto ways = *rc::gen::inRange<std::uint32_t>(1, 7);
        return TlbGeometry{ways << *rc::gen::inRange<std::uint32_t>(0, 5), ways};
    };
    const TlbOptions options{
        .geometries = {.pages_4KiB = geometry(),
                       .replacement = *rc::gen::element(TlbReplacement::lru, TlbReplacement::fifo,
                                                        TlbReplacement::random)},
        .spaces = *rc::gen::inRange<std::uint32_t>(1, 6)};
    Tlb tlb = tlb_of(spaces[0], options);
    std::size_t current = 0;
    std::optional<Transaction> transaction;

    const auto any_range = [&](std::size_t i) {
        const auto first = *rc::gen::inRange<std::uint64_t>(0, kPlaces);
        const auto count = *rc::gen::inRange<std::uint64_t>(1, kPlaces - first + 1);
        return Range{starts[i] + first * kPageSize, count * kPageSize};
    };
    const auto steps = *rc::gen::inRange(1, 120);
    for (int step = 0; step < steps; ++step) {
        const auto i = *rc::gen::inRange<std::size_t>(0, spaces.size());
        const Range range = any_range(i);
        const Protection protection =
            Protection(*rc::gen::inRange<std::uint8_t>(0, 16)) | protection::r;
        // Whether a call succeeds does not matter here.
        const auto change = [&](const auto& alone, const auto& within) {
            std::ignore = transaction ? within(*transaction) : alone();
        };
        switch (*rc::gen::weightedElement<int>({{6, 0},
                                                {2, 1},
                                                {5, 2},
                                                {4, 3},
                                                {2, 4},
                                                {4, 5},
                                                {2, 6},
                                                {1, 7},
                                                {1, 8},
                                                {3, 9},
                                                {3, 10},
                                                {1, 11}})) {
            case 0:
                change([&] { return spaces[i].map(range, protection); },
                       [&](Transaction& t) { return t.map(spaces[i], range, protection); });
                break;
            case 1:
                change([&] { return spaces[i].map(range, protection, {.lazy = true}); },
                       [&](Transaction& t) {
                           return t.map(spaces[i], range, protection, {.lazy = true});
                       });
                break;
            case 2:
                change([&] { return spaces[i].unmap(range); },
                       [&](Transaction& t) { return t.unmap(spaces[i], range); });
                break;
            case 3:
                change([&] { return spaces[i].protect(range, protection); },
                       [&](Transaction& t) { return t.protect(spaces[i], range, protection); });
                break;
            case 4: {  // the same pages moved to other frames in one commit
                if (transaction) break;
                Transaction moving = store.begin();
                if (moving.unmap(spaces[i], range) && moving.map(spaces[i], range, protection))
                    std::ignore = moving.commit();
                break;
            }
            case 5:
                if (!transaction) std::ignore = spaces[i].write(range.start, kWord);
                break;
            case 10: {  // a fork in another's place
                const auto k = *rc::gen::inRange<std::size_t>(0, spaces.size());
                if (transaction || k == i) break;
                must(store.remove_space(spaces[k].name()));
                spaces[k] =
                    value_of(store.fork_space(spaces[i].name(), "space" + std::to_string(made++)));
                starts[k] = starts[i];
                if (k == current) tlb.switch_to(spaces[k]);
                break;
            }
            case 11: {  // there and back
                if (transaction) break;
                value_of(store.create_snapshot(spaces[i].name(), "kept"));
                std::ignore = spaces[i].unmap(range);
                std::ignore = tlb.translate(range.start);
                must(store.rollback(spaces[i].name(), "kept"));
                must(store.remove_space("kept"));
                break;
            }
            case 6:
                if (!transaction) {
                    transaction.emplace(store.begin());
                } else {
                    if (*rc::gen::arbitrary<bool>()) std::ignore = transaction->commit();
                    transaction.reset();
                }
                break;
            case 7:
                if (!transaction) value_of(store.release_limbo());
                break;
            case 8: {  // another in its place
                if (transaction) break;
                must(store.remove_space(spaces[i].name()));
                make();
                spaces[i] = spaces.back();
                starts[i] = starts.back();
                spaces.pop_back();
                starts.pop_back();
                if (i == current) tlb.switch_to(spaces[i]);
                break;
            }
            default:
                current = i;
                tlb.switch_to(spaces[i]);
                break;
        }
        for (std::uint64_t look = 0; look < 20; ++look) {
            const VirtAddr address = starts[current] +
                                     *rc::gen::inRange<std::uint64_t>(0, kPlaces) * kPageSize +
                                     *rc::gen::inRange<std::uint64_t>(0, kPageSize);
            const Protection access = *rc::gen::element(Protection(), protection::r, protection::w,
                                                        protection::x | protection::u);
            const auto found = tlb.translate(address, access);
            const auto walked = spaces[current].translate(address, access);
            RC_ASSERT(found.has_value() == walked.has_value());
            if (found && found->copy_on_write && !walked->copy_on_write) {
                RC_ASSERT(walked->protection == (found->protection | protection::w));
                RC_ASSERT(found->physical == walked->physical);
            } else if (found) {
                RC_ASSERT(*found == *walked);
            }
            if (!found) RC_ASSERT(found.error().kind == walked.error().kind);
        }
    }
    const TlbCounters counters = tlb.counters();
    RC_TAG(counters.hits() * 4 > counters.lookups() ? "many hits" : "few hits");
    RC_ASSERT(tlb.reach_bytes() <= options.geometries.pages_4KiB.entries * kPageSize);
}

// --- threads ---

// Each commit gives the page another frame, in order. So whoever has seen one of them must not be
// told an earlier one by a TLB, also while the commit that follows is under way.
TEST_F(TlbTest, NeverAnswersFromBeforeWhatAnybodyHasSeen) {
    Space source = value_of(store.create_space("source"));
    constexpr std::uint64_t kFrames = 3000;
    const auto source_page = [](std::uint64_t number) {
        return Range{VirtAddr(0x10'0000 + number * kPageSize), kPageSize};
    };
    must(source.map({source_page(0).start, kFrames * kPageSize}, protection::rw));
    std::unordered_map<std::uint64_t, std::uint64_t> number_of;
    for (std::uint64_t i = 0; i < kFrames; ++i)
        number_of[source.translate(source_page(i).start)->physical.bits()] = i;

    const Range range = pages(3, 1);
    const auto show = [&](std::uint64_t number) {
        Transaction transaction = store.begin();
        must(transaction.unmap(space, range));
        must(transaction.map_shared(space, range, protection::rw, source, source_page(number)));
        must(transaction.commit());
    };
    show(0);
    constexpr int kReaders = 2;
    std::atomic<int> started = 0;
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0, hits = 0;
    std::vector<std::thread> readers;
    readers.reserve(kReaders);
    for (int reader = 0; reader < kReaders; ++reader)
        readers.emplace_back([&] {
            // One entry, which another page takes now and then: half of the look-ups walk, so that
            // commits come in the middle of many walks.
            Tlb tlb = tlb_of(space, {.geometries = {.pages_4KiB = {1, 1}}});
            std::uint64_t last = 0;
            const auto look = [&](const std::expected<Translation, Fault>& found) {
                const std::uint64_t number = number_of.at(found->physical.bits());
                if (number < last) ++wrong;
                last = number;
            };
            ++started;
            while (!done) {
                look(tlb.translate(range.start));
                look(tlb.translate(range.start));
                look(space.translate(range.start));
                look(tlb.translate(range.start));
                std::ignore = tlb.translate(range.end());
            }
            hits += tlb.counters().hits();
        });
    while (started != kReaders) std::this_thread::yield();
    for (std::uint64_t number = 1; number < kFrames; ++number) {
        show(number);
        if (number % 8 == 0) std::this_thread::yield();
    }
    done = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(hits, 0u);
}

}  // namespace
}  // namespace holdfast::test
