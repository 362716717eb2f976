// Pages that lose their frames and get them back; who loses them, under which policy.
//
// ctest-labels: tsan
#include "holdfast/reclaim.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "holdfast/inspect.hpp"
#include "holdfast/region.hpp"
#include "holdfast/snapshot.hpp"
#include "holdfast/tlb.hpp"
#include "memory/reader_section.hpp"
#include "store/store_state.hpp"
#include "support/reclaim_fixture.hpp"
#include "support/sanitizer.hpp"
#include "support/temporary_pool.hpp"
#include "support/words.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

TEST_F(Reclaim, APageGoesToTheSwapRegionAndComesBack) {
    add_swap();
    must(space.map({kStart, 64 * kPageSize}, protection::rw));
    fill(space, 64);
    const std::uint64_t free_before = value_of(store.info()).frames.free;
    EXPECT_EQ(value_of(space.evict(64 * kPageSize)), 64 * kPageSize);
    EXPECT_EQ(fault_at(space, page(5)), FaultKind::swapped);
    EXPECT_EQ(space.frame_use().swapped_bytes, 64 * kPageSize);
    EXPECT_EQ(space.info().resident_bytes, 0u);
    EXPECT_EQ(value_of(store.info()).frames.free, free_before);  // 64 here for 64 there
    expect_clean(store);
    // Read where it is, and brought back by what faults.
    EXPECT_EQ(get(space, page(5)), 6u);
    EXPECT_EQ(fault_at(space, page(5)), FaultKind::swapped);
    must(space.fault(page(5), protection::r));
    EXPECT_TRUE(space.translate(page(5)));
    put(space, page(6), 100);
    EXPECT_EQ(get(space, page(6)), 100u);
    EXPECT_EQ(get(space, page(5)), 6u);
    EXPECT_EQ(space.frame_use().swapped_in, 2u);
    EXPECT_EQ(space.frame_use().swapped_bytes, 62 * kPageSize);
    must(space.unmap({kStart, 64 * kPageSize}));
    value_of(store.release_limbo(~std::uint64_t{0}));
    EXPECT_EQ(space.frame_use().swapped_bytes, 0u);
}

TEST_F(Reclaim, SwappedPagesAreThereAfterAReopen) {
    add_swap();
    must(space.map({kStart, 40 * kPageSize}, protection::rw));
    fill(space, 40);
    must(space.set_quota(20 * kPageSize));
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    value_of(space.evict(30 * kPageSize));
    must(space.protect({page(0), 10 * kPageSize}, protection::r));
    {
        const Store old = std::move(store);
        const Space gone = std::move(space);
    }
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(store.reclaim_policy(), (ReclaimPolicy{FramePolicy::local, OomPolicy::refuse}));
    EXPECT_EQ(space.frame_use().quota_bytes, 20 * kPageSize);
    EXPECT_EQ(space.frame_use().swapped_bytes, 30 * kPageSize);
    expect_filled(space, 40);
    // What it had before is charged to it: with 10 in memory, 10 more come without another going.
    for (std::uint64_t at = 0; at < 40; ++at) must(space.fault(page(at), protection::r));
    EXPECT_LE(space.frame_use().charged_bytes, 20 * kPageSize);
    EXPECT_GE(space.frame_use().evicted, 20u);
    expect_filled(space, 40);
}

TEST_F(Reclaim, PagesOfZerosNeedNoSwap) {
    must(space.map({kStart, 64 * kPageSize}, protection::rw));
    put(space, page(7), 7);
    EXPECT_EQ(value_of(space.evict(64 * kPageSize)), 63 * kPageSize);
    EXPECT_EQ(fault_at(space, page(5)), FaultKind::demand_zero);
    EXPECT_EQ(get(space, page(7)), 7u);
}

TEST_F(Reclaim, WhatWasAccessedIsPassedOnce) {
    add_swap();
    must(space.map({kStart, 64 * kPageSize}, protection::rw));
    fill(space, 64);
    EXPECT_EQ(value_of(space.evict(kPageSize)),
              kPageSize);  // all had been accessed: the first goes
    for (std::uint64_t at = 1; at < 32; ++at) get(space, page(at));
    EXPECT_EQ(value_of(space.evict(16 * kPageSize)), 16 * kPageSize);
    for (std::uint64_t at = 1; at < 32; ++at) EXPECT_TRUE(space.translate(page(at))) << at;
}

// Whether it has its frame, is swapped, or was of zeros and lost its frame for nothing.
TEST_F(Reclaim, WhoMayNotWriteIsToldSoWhereverThePageIs) {
    add_swap();
    must(space.map({kStart, 4 * kPageSize}, protection::rw));
    put(space, page(1), 7);
    must(space.protect({kStart, 4 * kPageSize}, protection::r));
    const auto refused = [&](std::uint64_t at) {
        const std::uint64_t word = 8;
        const auto written = space.write(page(at), std::as_bytes(std::span(&word, 1)));
        const auto faulted = space.fault(page(at), protection::w);
        ASSERT_TRUE(!written && !faulted);
        EXPECT_EQ(faulted.error().code, ErrorCode::permission_denied);
        EXPECT_EQ(written.error().code, ErrorCode::permission_denied) << written.error().message;
    };
    for (const std::uint64_t at : {1, 2}) refused(at);
    EXPECT_EQ(value_of(space.evict(4 * kPageSize)), 4 * kPageSize);
    EXPECT_EQ(fault_at(space, page(1)), FaultKind::swapped);
    EXPECT_EQ(fault_at(space, page(2)), FaultKind::demand_zero);
    for (const std::uint64_t at : {1, 2}) refused(at);
}

TEST_F(Reclaim, PagesThatOthersReachStay) {
    add_swap();
    must(space.map({kStart, 16 * kPageSize}, protection::rw));
    fill(space, 16);
    Space fork = value_of(store.fork_space("space", "fork"));
    EXPECT_EQ(value_of(space.evict(16 * kPageSize)), 0u);
    put(fork, page(3), 50);  // the table is copied, and this page
    EXPECT_EQ(value_of(fork.evict(16 * kPageSize)), kPageSize);
    expect_filled(space, 16);
    EXPECT_EQ(get(fork, page(3)), 50u);
    Space other = value_of(store.create_space("other"));
    must(other.map({kStart, kPageSize}, protection::rw));
    put(other, kStart, 9);
    must(space.map_shared({page(100), kPageSize}, protection::rw, other, {kStart, kPageSize}));
    EXPECT_EQ(value_of(other.evict(kPageSize)), 0u);
}

TEST_F(Reclaim, AForkOfSwappedPagesBringsItsOwnBack) {
    add_swap();
    must(space.map({kStart, 16 * kPageSize}, protection::rw));
    fill(space, 16);
    EXPECT_EQ(value_of(space.evict(16 * kPageSize)), 16 * kPageSize);
    Space fork = value_of(store.fork_space("space", "fork"));
    expect_clean(store);
    put(fork, page(3), 50);
    expect_clean(store);
    expect_filled(space, 16);
    put(space, page(4), 5);
    EXPECT_EQ(get(fork, page(4)), 5u);
    EXPECT_TRUE(value_of(differences(space, fork)).size() == 1);
    Space other = value_of(store.create_space("other"));
    must(other.map_shared({kStart, kPageSize}, protection::rw, fork, {page(5), kPageSize}));
    put(other, kStart, 77);
    EXPECT_EQ(get(fork, page(5)), 77u);
    EXPECT_EQ(get(space, page(5)), 6u);
    must(store.remove_space("space"));
    value_of(store.release_limbo(~std::uint64_t{0}));
}

TEST_F(Reclaim, UnderTheLocalPolicyPressureIsNotFeltByOthers) {
    add_swap();
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    Space other = value_of(store.create_space("other"));
    for (Space* const each : {&space, &other})
        must(each->map({kStart, 200 * kPageSize}, protection::rw, {.lazy = true}));
    fill(other, 50);
    must(space.set_quota(32 * kPageSize));
    fill(space, 200);
    expect_filled(space, 200);
    EXPECT_LE(space.frame_use().charged_bytes, 32 * kPageSize);
    EXPECT_GE(space.frame_use().evicted, 168u);
    EXPECT_EQ(space.frame_use().evicted_for_others, 0u);
    EXPECT_EQ(other.frame_use().evicted, 0u);
    EXPECT_EQ(other.info().resident_bytes, 50 * kPageSize);
}

TEST_F(Reclaim, UnderTheGlobalPolicyPressureIsEverybodys) {
    add_swap(32_MiB);
    Space other = value_of(store.create_space("other"));
    for (Space* const each : {&space, &other})
        must(each->map({kStart, 4000 * kPageSize}, protection::rw, {.lazy = true}));
    fill(other, 200);
    fill(space, 3000);  // more than the pool has
    EXPECT_GT(other.frame_use().evicted_for_others, 0u);
    expect_filled(space, 3000);
    expect_filled(other, 200);
}

TEST_F(Reclaim, WithoutSwapAQuotaIsAnError) {
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    must(space.set_quota(8 * kPageSize));
    must(space.map({kStart, 64 * kPageSize}, protection::rw, {.lazy = true}));
    fill(space, 8);
    const std::uint64_t word = 1;
    const auto refused = space.write(page(20), std::as_bytes(std::span(&word, 1)));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::over_quota);
    EXPECT_THAT(refused.error().message, HasSubstr("may have 8 pages"));
    EXPECT_EQ(space.map({page(100), 9 * kPageSize}, protection::rw).error().code,
              ErrorCode::over_quota);
    expect_filled(space, 8);
    // What it has it may write, whatever was tried to make room.
    for (std::uint64_t at = 0; at < 8; ++at) put(space, page(at), at + 100);
    must(space.set_quota(0));
    put(space, page(20), 1);
}

TEST_F(Reclaim, AFullSwapRegionRefusesAndLosesNothing) {
    add_swap(16 * kPageSize);
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    must(space.map({kStart, 100 * kPageSize}, protection::rw, {.lazy = true}));
    fill(space, 20);
    must(space.set_quota(20 * kPageSize));
    std::uint64_t filled = 20;
    const std::uint64_t word = 5;
    while (space.write(page(filled), std::as_bytes(std::span(&word, 1)))) {
        put(space, page(filled), filled + 1);
        ++filled;
        ASSERT_LT(filled, 100u);
    }
    EXPECT_GE(filled, 30u);
    expect_filled(space, filled);
}

TEST_F(Reclaim, ASwapFileThatIsGoneIsALoss) {
    add_swap();
    must(space.map({kStart, 16 * kPageSize}, protection::rw));
    fill(space, 16);
    EXPECT_EQ(value_of(space.evict(8 * kPageSize)), 8 * kPageSize);
    {
        const Store old = std::move(store);
        const Space gone = std::move(space);
    }
    std::filesystem::rename(swap_path(), swap_path() + ".aside");
    {
        const Store without = pool.open();
        Space maimed = value_of(without.open_space("space"));
        EXPECT_EQ(fault_at(maimed, page(2)), FaultKind::region_missing);
        EXPECT_EQ(get(maimed, page(12)), 13u);
        std::byte byte{};
        const auto refused = maimed.read(page(2), std::span(&byte, 1));
        EXPECT_EQ(refused.error().code, ErrorCode::lost);
        EXPECT_THAT(refused.error().message, HasSubstr(".swap"));
    }
    std::filesystem::rename(swap_path() + ".aside", swap_path());
    store = pool.open();
    space = value_of(store.open_space("space"));
    expect_filled(space, 16);
}

TEST_F(Reclaim, AVictimIsReleasedIfThePolicySaysSo) {
    Space small = filled_space("small", 100), large = filled_space("large", 800);
    // Which would free nothing: its pages are a snapshot's, too.
    value_of(store.create_snapshot("large", "kept"));
    const std::uint64_t filled = fill_the_store();
    EXPECT_TRUE(store.oom_events().empty());
    EXPECT_TRUE(store.open_space("large"));
    must(store.set_reclaim_policy({FramePolicy::global, OomPolicy::release_victim}));
    // Nobody is removed for what is not possible all the same.
    EXPECT_EQ(space.map({VirtAddr(1_GiB * 8), 1_GiB}, protection::rw).error().code,
              ErrorCode::no_space);
    EXPECT_EQ(
        space.map({VirtAddr(1_GiB * 8), 1_GiB}, protection::rw, {.page_size = PageSize::size_1GiB})
            .error()
            .code,
        ErrorCode::no_space);
    EXPECT_TRUE(store.oom_events().empty());
    put(space, page(filled), 6);
    ASSERT_EQ(store.oom_events().size(), 1u);
    EXPECT_EQ(store.oom_events()[0].victim, "small");
    must(store.remove_space("kept"));
    value_of(store.release_limbo(~std::uint64_t{0}));
    EXPECT_TRUE(store.open_space("large"));
}

// Frames of a swap region are no reason to keep a victim, nor to remove one.
TEST_F(Reclaim, FramesForAnybodyAreThePoolsAlone) {
    memory::FrameAllocator& allocator = store.state().allocator;
    const std::uint64_t before = allocator.count_free(true).frames;
    const std::uint64_t all = allocator.count_free().frames;
    EXPECT_EQ(before, all);
    add_swap(4_MiB);
    EXPECT_EQ(allocator.count_free(true).frames, before);
    EXPECT_GT(allocator.count_free().frames, all + 900);
}

TEST_F(Reclaim, NobodyIsSwappedOutForWhatCannotBe) {
    add_swap();
    must(store.set_reclaim_policy({FramePolicy::global, OomPolicy::refuse}));
    const Space other = filled_space("other", 100);
    EXPECT_EQ(space.map({kStart, 1_GiB}, protection::rw).error().code, ErrorCode::no_space);
    EXPECT_EQ(other.frame_use().evicted, 0u);
    expect_filled(other, 100);
}

TEST_F(Reclaim, TheVictimIsTheOneWithMostOfItsOwn) {
    Space small = filled_space("small", 100), large = filled_space("large", 800);
    const std::uint64_t filled = fill_the_store();
    must(store.set_reclaim_policy({FramePolicy::global, OomPolicy::release_victim}));
    put(space, page(filled), 6);
    ASSERT_EQ(store.oom_events().size(), 1u);
    const OomEvent event = store.oom_events()[0];
    EXPECT_EQ(event.victim, "large");
    EXPECT_EQ(event.freed_bytes, 800 * kPageSize);
    EXPECT_THAT(event.explanation, HasSubstr("\"small\" with 400 KiB"));
    EXPECT_EQ(store.open_space("large").error().code, ErrorCode::not_found);
    expect_filled(small, 100);
}

TEST_F(Reclaim, AVictimThatSomebodyHoldsIsNotWaitedFor) {
    Space small = filled_space("small", 100), large = filled_space("large", 800);
    const std::uint64_t filled = fill_the_store();
    must(store.set_reclaim_policy({FramePolicy::global, OomPolicy::release_victim}));
    Transaction holder = store.begin();
    must(holder.protect(large, {kStart, kPageSize}, protection::r));
    put(space, page(filled), 6);
    ASSERT_EQ(store.oom_events().size(), 1u);
    EXPECT_EQ(store.oom_events()[0].victim, "small");
    must(holder.commit());
    expect_filled(large, 800);
}

TEST_F(Reclaim, ADamagedEntryIsNotMadeWellByTheClock) {
    add_swap();
    must(space.map({kStart, 8 * kPageSize}, protection::rw));
    fill(space, 8);
    {
        const Store old = std::move(store);
        const Space gone = std::move(space);
    }
    store = pool.open();
    space = value_of(store.open_space("space"));
    memory::PhysicalMemory& memory = store.state().memory;
    FrameNumber table = space.state().root().entry.frame();
    for (unsigned level = 4; level > 1; --level)
        table = format::Entry(memory.table(table)[format::slot_of(kStart, level)]).frame();
    std::uint64_t& word = memory.table(table)[format::slot_of(page(3), 1)];
    word ^= format::Entry::kNoExecute;
    EXPECT_LE(value_of(space.evict(8 * kPageSize)), 7 * kPageSize);
    EXPECT_EQ(space.translate(page(3)).error().kind, FaultKind::damaged_entry);
    word ^= format::Entry::kNoExecute;
    expect_filled(space, 8);
}

TEST_F(Reclaim, ATlbNeverAnswersForAPageThatIsGone) {
    add_swap();
    must(space.map({kStart, 64 * kPageSize}, protection::rw));
    fill(space, 64);
    Tlb tlb(space);
    for (std::uint64_t at = 0; at < 64; ++at) ASSERT_TRUE(tlb.translate(page(at)));
    value_of(space.evict(64 * kPageSize));
    for (std::uint64_t at = 0; at < 64; ++at) EXPECT_FALSE(tlb.translate(page(at)));
}

TEST_F(Reclaim, NoWriteIsLostWhilePagesComeAndGo) {
    add_swap();
    must(space.map({kStart, 64 * kPageSize}, protection::rw));
    std::atomic<bool> stop = false;
    std::vector<std::uint64_t> last(64);
    // Reader and writer meet in the same bytes, which is theirs to answer for: where
    // ThreadSanitizer watches, they take turns, and it is the pages' coming and going that it sees.
    std::mutex turn;
    const auto in_turn = [&] {
        return kIsTsan ? std::unique_lock(turn) : std::unique_lock<std::mutex>();
    };
    std::thread writer([&] {
        for (std::uint64_t word = 1; !stop.load(); ++word) {
            const std::uint64_t at = word * 29 % 64;
            const auto mine = in_turn();
            put(space, page(at), word);
            last[at] = word;
        }
    });
    std::thread reader([&] {
        std::uint64_t seen = 0;
        while (!stop.load()) {
            const auto mine = in_turn();
            const std::uint64_t now = get(space, page(29));
            EXPECT_GE(now, seen);
            seen = now;
        }
    });
    // Brings pages back that are not written then, or are a moment later.
    std::thread toucher([&] {
        for (std::uint64_t at = 0; !stop.load(); ++at)
            must(space.fault(page(at % 64), protection::r));
    });
    for (int round = 0; round < 60; ++round) value_of(space.evict(64 * kPageSize));
    stop = true;
    writer.join();
    reader.join();
    toucher.join();
    for (std::uint64_t at = 0; at < 64; ++at) EXPECT_EQ(get(space, page(at)), last[at]);
}

// A stack's pages count as others do, and what it may become does not.
TEST_F(Reclaim, AStackGrowsWithinTheQuota) {
    add_swap();
    must(store.set_reclaim_policy({FramePolicy::local, OomPolicy::refuse}));
    must(space.set_quota(16 * kPageSize));
    must(space.map({kStart, 1024 * kPageSize}, protection::rw, {.grows_down = GrowsDown{}}));
    EXPECT_EQ(space.frame_use().evicted, 0u);
    for (std::uint64_t at = 1023; at > 1023 - 60; --at) put(space, page(at), at);
    EXPECT_LE(space.frame_use().charged_bytes, 16 * kPageSize);
    EXPECT_GE(space.frame_use().evicted, 44u);
    for (std::uint64_t at = 1023; at > 1023 - 60; --at) EXPECT_EQ(get(space, page(at)), at);
}

// A process that writes pages, persists them, and has others go out meanwhile, killed somewhere in
// between: each page holds the last word that was acknowledged, or the one that was under way.
TEST(ReclaimKilled, EveryAcknowledgedWordIsThere) {
    constexpr std::uint64_t kPages = 48;
    std::mt19937_64 random(test_seed());
    for (int round = 0; round < 25; ++round) {
        const TemporaryPool pool;
        const std::string swap = pool.path() + ".swap";
        {
            Store store = value_of(Store::create(
                pool.path(),
                {.size_bytes = 16_MiB, .emulation = PmemEmulation::on, .frames_bytes = 8_MiB}));
            value_of(store.add_swap_region(swap, 1_MiB));
            Space space = value_of(store.create_space("space"));
            must(space.map({kStart, kPages * kPageSize}, protection::rw, {.lazy = true}));
        }
        int pipe_ends[2];
        ASSERT_EQ(pipe(pipe_ends), 0);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            Store store = pool.open();
            Space space = value_of(store.open_space("space"));
            for (std::uint64_t word = 1;; ++word) {
                const VirtAddr at = page(word * 29 % kPages);
                put(space, at, word);
                must(space.persist({at, sizeof word}));
                if (write(pipe_ends[1], &word, sizeof word) != sizeof word) _exit(1);
                if (word % 5 == 0) value_of(space.evict(16 * kPageSize));
            }
        }
        close(pipe_ends[1]);
        const std::uint64_t enough = 40 + random() % 400;
        std::uint64_t acknowledged = 0;
        while (acknowledged < enough &&
               read(pipe_ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
        }
        kill(child, SIGKILL);
        // What it has said since.
        while (read(pipe_ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
        }
        close(pipe_ends[0]);
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status));
        Store store = pool.open();
        const Space space = value_of(store.open_space("space"));
        std::map<std::uint64_t, std::uint64_t> last;
        for (std::uint64_t word = 1; word <= acknowledged; ++word) last[word * 29 % kPages] = word;
        for (std::uint64_t at = 0; at < kPages; ++at) {
            const std::uint64_t found = get(space, page(at));
            if (found == acknowledged + 1 && found * 29 % kPages == at) continue;
            EXPECT_EQ(found, last.contains(at) ? last[at] : 0) << "page " << at;
        }
        expect_clean(store);
        std::filesystem::remove(swap);
    }
}

// Whatever is evicted when, a space reads as if nothing ever was.
RC_GTEST_PROP(ReclaimProperty, NothingIsToBeSeenOfIt, ()) {
    const TemporaryPool pool;
    Store store = value_of(Store::create(
        pool.path(),
        {.size_bytes = 16_MiB, .emulation = PmemEmulation::on, .frames_bytes = 8_MiB}));
    const std::string swap = pool.path() + ".swap";
    value_of(store.add_swap_region(swap, 4_MiB));
    std::map<std::string, std::map<std::uint64_t, std::uint64_t>> model;
    std::vector<Space> spaces = {value_of(store.create_space("s"))};
    model["s"] = {};
    must(spaces[0].map({kStart, 700 * kPageSize}, protection::rw, {.lazy = true}));
    must(store.set_reclaim_policy(
        {*rc::gen::element(FramePolicy::local, FramePolicy::global), OomPolicy::refuse}));
    must(spaces[0].set_quota(40 * kPageSize));
    const int steps = *rc::gen::inRange(1, 40);
    for (int step = 0; step < steps; ++step) {
        Space space = *rc::gen::elementOf(spaces);
        const std::string name = space.name();
        const std::uint64_t first = *rc::gen::inRange<std::uint64_t>(0, 60) * 11 % 700;
        switch (*rc::gen::inRange(0, 7)) {
            case 0:
                value_of(space.evict(*rc::gen::inRange<std::uint64_t>(1, 50) * kPageSize));
                break;
            case 1:
                if (spaces.size() < 4) {
                    const std::string fork = name + "." + std::to_string(step);
                    spaces.push_back(value_of(store.fork_space(name, fork)));
                    model[fork] = model[name];
                }
                break;
            case 2: {
                const std::uint64_t count = std::min<std::uint64_t>(20, 700 - first);
                must(space.unmap({page(first), count * kPageSize}));
                must(space.map({page(first), count * kPageSize}, protection::rw, {.lazy = true}));
                model[name].erase(model[name].lower_bound(first),
                                  model[name].lower_bound(first + count));
                break;
            }
            case 3:
                must(space.protect({page(first), kPageSize}, protection::rw | protection::u));
                break;
            case 4:
                // Back, and clean; without room for it nothing happens.
                for (std::uint64_t at = first; at < std::min<std::uint64_t>(first + 9, 700); ++at)
                    std::ignore = space.fault(page(at), protection::r);
                break;
            default:
                for (std::uint64_t at = first; at < std::min<std::uint64_t>(first + 9, 700); ++at) {
                    const std::uint64_t word = static_cast<std::uint64_t>(step) * 1000 + at + 1;
                    const auto done = space.write(page(at), std::as_bytes(std::span(&word, 1)));
                    if (done) {
                        model[name][at] = word;
                    } else {
                        // What a fork has, too, counts and cannot go.
                        RC_ASSERT(done.error().code == ErrorCode::over_quota);
                        RC_ASSERT(spaces.size() > 1);
                    }
                }
        }
    }
    for (const Space& space : spaces)
        for (std::uint64_t at = 0; at < 700; ++at) {
            const auto wanted = model[space.name()].find(at);
            RC_ASSERT(get(space, page(at)) ==
                      (wanted == model[space.name()].end() ? 0 : wanted->second));
        }
    expect_clean(store);
    std::filesystem::remove(swap);
}

}  // namespace
}  // namespace holdfast::test
