// ctest-labels: tsan
//
// Overcommit policies and the commit charge (overcommit.hpp).
#include "holdfast/overcommit.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <atomic>
#include <thread>

#include "oracle/calls.hpp"
#include "oracle/model.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

constexpr VirtAddr kStart{0x4000'0000};

Range pages(std::uint64_t first, std::uint64_t count) {
    return {kStart + first * kPageSize, count * kPageSize};
}

std::uint64_t counted(const Store& store) {
    const table::ChangeGate::Closed at_rest(store.state().gate);
    return store.state().commit_charge.count().committed;
}

class CommitCharge : public testing::Test {
  protected:
    CommitCharge() : store(pool.create(40_MiB)), space(value_of(store.create_space("space"))) {}
    // A limit of about so many pages, whatever is committed.
    void limit_to(std::uint64_t page_count) {
        const std::uint64_t all = store.state().commit_charge.total_pages();
        const auto percent = static_cast<std::uint32_t>((page_count * 100 + all - 1) / all);
        must(set_overcommit(store, {OvercommitPolicy::never, percent}));
        limit = all * percent / 100;
    }
    std::uint64_t committed() const {
        const std::uint64_t count = commit_account(store).committed_bytes / kPageSize;
        EXPECT_EQ(count, counted(store)) << "the counter is not what the tables say";
        return count;
    }
    Result<void> map_lazy(std::uint64_t first, std::uint64_t count,
                          Protection protection = protection::rw) {
        return space.map(pages(first, count), protection, {.lazy = true});
    }
    template <typename T>
    void expect_refused(const Result<T>& outcome) {
        ASSERT_FALSE(outcome);
        EXPECT_EQ(outcome.error().code, ErrorCode::no_space);
        EXPECT_THAT(outcome.error().message, HasSubstr("limit"));
    }

    const TemporaryPool pool;
    Store store;
    Space space;
    std::uint64_t limit = 0;
};

TEST_F(CommitCharge, AlwaysRefusesNothingThatIsNotToBeHadNow) {
    EXPECT_EQ(commit_account(store).overcommit, Overcommit{});
    must(space.map({kStart, 1_GiB}, protection::rw, {.lazy = true}));
    EXPECT_EQ(commit_account(store).committed_bytes, 1_GiB);
    value_of(store.fork_space("space", "fork"));
    EXPECT_EQ(commit_account(store).committed_bytes, 2_GiB);
}

TEST_F(CommitCharge, TheHeuristicRefusesWhatAllFramesCouldNotHold) {
    must(set_overcommit(store, {.policy = OvercommitPolicy::heuristic}));
    const std::uint64_t all = store.state().commit_charge.total_pages();
    const auto refused = map_lazy(0, all + 1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::no_space);
    EXPECT_THAT(refused.error().message, HasSubstr("heuristic"));
    must(map_lazy(0, all));
    must(map_lazy(all, all));
    // What cannot be written promises nothing, until it can.
    must(map_lazy(2 * all, 2 * all, protection::r));
    EXPECT_EQ(space.protect(pages(2 * all, 2 * all), protection::rw).error().code,
              ErrorCode::no_space);
    must(space.protect(pages(2 * all, all), protection::rw));
    must(space.protect(pages(0, 3 * all), protection::rw));
    must(space.map({VirtAddr(1_GiB * 100), 1_GiB}, {}, {.guard = true}));
    expect_clean(store);
}

TEST_F(CommitCharge, NeverKeepsWithinItsLimit) {
    limit_to(200);
    must(map_lazy(0, 100));
    must(space.map(pages(1000, 50), protection::rw));
    must(map_lazy(2000, 1000, protection::r));
    must(space.map({VirtAddr(1_GiB * 100), 1_GiB}, {}, {.guard = true}));
    EXPECT_EQ(committed(), 150u);
    expect_refused(map_lazy(5000, limit - 149));
    EXPECT_EQ(committed(), 150u);
    must(map_lazy(5000, limit - 150));
    expect_refused(map_lazy(6000, 1));
    expect_refused(space.map(pages(6000, 1), protection::rw));
    expect_refused(space.protect(pages(2000, 1), protection::rw));
    EXPECT_EQ(committed(), limit);
    // Whatever was promised is kept.
    const std::uint64_t word = 7;
    must(space.write(kStart, std::as_bytes(std::span(&word, 1))));
    EXPECT_EQ(committed(), limit);
    must(space.protect(pages(0, 10), protection::r));
    EXPECT_EQ(committed(), limit - 10);
    must(space.protect(pages(2000, 10), protection::rw));
    must(space.unmap(pages(5, 10)));
    EXPECT_EQ(committed(), limit - 5);
    must(map_lazy(5, 5));
    expect_refused(map_lazy(6000, 1));
    must(store.remove_space("space"));
    EXPECT_EQ(committed(), 0u);
    expect_clean(store);
}

TEST_F(CommitCharge, AForkIsChargedForWhatItCouldCopy) {
    must(space.map(pages(0, 60), protection::rw));
    must(space.map(pages(100, 60), protection::r));
    limit_to(150);
    Space fork = value_of(store.fork_space("space", "fork"));
    EXPECT_EQ(committed(), 120u);
    expect_refused(store.fork_space("space", "another"));
    EXPECT_FALSE(store.open_space("another"));
    EXPECT_EQ(committed(), 120u);
    // Copying is what it was charged for.
    const std::uint64_t word = 7;
    for (std::uint64_t page = 0; page < 60; ++page)
        must(fork.write(pages(page, 1).start, std::as_bytes(std::span(&word, 1))));
    EXPECT_EQ(committed(), 120u);
    // A snapshot is for nobody to write, but going back to it is charged.
    value_of(store.create_snapshot("fork", "kept"));
    EXPECT_EQ(committed(), 120u);
    must(fork.unmap(pages(0, 50)));
    EXPECT_EQ(committed(), 70u);
    const std::uint64_t room = limit - 70;
    must(map_lazy(1000, room - 49));
    expect_refused(store.rollback("fork", "kept"));
    must(space.unmap(pages(1000, 1)));
    must(store.rollback("fork", "kept"));
    EXPECT_EQ(committed(), limit);
    must(store.remove_space("kept"));
    EXPECT_EQ(committed(), limit);
    expect_clean(store);
}

TEST_F(CommitCharge, OfATransactionIsItsSumAndGoesWithIt) {
    limit_to(100);
    must(map_lazy(0, limit - 10));
    Space other = value_of(store.create_space("other"));
    {
        Transaction transaction = store.begin();
        // What it gives up, it may use; others not before it is committed.
        must(transaction.unmap(space, pages(0, 20)));
        must(transaction.map(space, pages(1000, 30), protection::rw, {.lazy = true}));
        Space made = value_of(transaction.create_space("made"));
        EXPECT_EQ(transaction.map(made, pages(0, 1), protection::rw).error().code,
                  ErrorCode::no_space);
        expect_refused(other.map(pages(0, 1), protection::rw, {.lazy = true}));
        EXPECT_EQ(counted(store), limit - 10);
    }
    EXPECT_EQ(committed(), limit - 10) << "aborted";
    Transaction transaction = store.begin();
    Space made = value_of(transaction.create_space("made"));
    must(transaction.map(made, pages(0, 5), protection::rw, {.lazy = true}));
    Space fork = value_of(transaction.fork_space(made, "made too"));
    must(transaction.unmap(fork, pages(0, 2)));
    must(transaction.commit());
    EXPECT_EQ(committed(), limit - 2);
    must(made.unmap(pages(0, 1)));
    must(map_lazy(limit, 3));
    expect_refused(map_lazy(2000, 1));
}

TEST_F(CommitCharge, AStackIsChargedAsItGrows) {
    limit_to(50);
    must(space.map(pages(0, 10'000), protection::rw,
                   {.grows_down = GrowsDown{.mapped_bytes = 3 * kPageSize}}));
    EXPECT_EQ(committed(), 3u);
    const auto touch = [&](std::uint64_t below_top) {
        return space.fault(pages(10'000 - below_top, 1).start, protection::w);
    };
    must(touch(limit));
    EXPECT_EQ(committed(), limit);
    expect_refused(touch(limit + 1));
    EXPECT_EQ(space.translate(pages(10'000 - limit - 1, 1).start).error().kind,
              FaultKind::stack_room);
    EXPECT_EQ(committed(), limit);
}

TEST_F(CommitCharge, WhatIsMappedSharedIsNobodys) {
    must(space.map(pages(0, 10), protection::rw));
    limit_to(40);
    Space other = value_of(store.create_space("other"));
    must(other.map_shared(pages(0, 1000), protection::rw, space, pages(2, 3)));
    EXPECT_EQ(committed(), 7u);
    must(other.unmap(pages(0, 1000)));
    must(space.unmap(pages(0, 4)));
    EXPECT_EQ(committed(), 5u);
}

// What was refused has left nothing in the transaction, which goes on.
TEST_F(CommitCharge, ARefusalIsNoPartOfTheTransaction) {
    limit_to(60);
    must(space.map(pages(0, 10), protection::rw, {.name = "first"}));
    must(map_lazy(100, limit - 15));
    value_of(store.create_snapshot("space", "snapshot"));
    must(space.unmap(pages(100, limit - 15)));
    must(space.map(pages(0x1000, limit - 10), protection::rw, {.lazy = true, .name = "second"}));
    Transaction transaction = store.begin();
    expect_refused(transaction.map(space, pages(0x2000, 20), protection::rw,
                                   {.lazy = true, .name = "refused"}));
    const Space snapshot = value_of(store.open_space("snapshot"));
    must(transaction.unmap(space, pages(0x1000, 1)));
    must(transaction.commit());
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 2u);
    EXPECT_EQ(maps[1].name, "second");
    expect_clean(store);
}

TEST_F(CommitCharge, ARefusedRollbackIsNoPartOfTheTransaction) {
    limit_to(60);
    must(space.map(pages(0, limit - 5), protection::rw, {.lazy = true, .name = "first"}));
    value_of(store.create_snapshot("space", "snapshot"));
    must(space.unmap(pages(0, limit - 5)));
    must(space.map(pages(0x1000, 3), protection::rw, {.name = "second"}));
    Space other = value_of(store.create_space("other"));
    must(other.map(pages(0, 50), protection::rw, {.lazy = true}));
    Transaction transaction = store.begin();
    expect_refused(transaction.rollback(space, value_of(store.open_space("snapshot"))));
    must(transaction.map(space, pages(0x2000, 1), protection::rw));
    must(transaction.commit());
    const auto maps = value_of(space.maps());
    ASSERT_EQ(maps.size(), 2u);
    EXPECT_EQ(maps[0].name, "second");
    expect_clean(store);
}

TEST_F(CommitCharge, OfALongerSourceOnlyWhatFitsIsNobodys) {
    must(space.map(pages(0, 10), protection::rw));
    limit_to(40);
    Space other = value_of(store.create_space("other"));
    must(other.map_shared(pages(0, 2), protection::rw, space, pages(2, 3)));
    EXPECT_EQ(committed(), 8u);
    // So the third is the source's own, of which a fork has a copy.
    const Space fork = value_of(store.fork_space("space", "fork"));
    const std::uint64_t word = 7;
    for (const std::uint64_t page : {3, 4}) {
        must(space.write(pages(page, 1).start, std::as_bytes(std::span(&word, 1))));
        std::uint64_t seen = 0;
        must(fork.read(pages(page, 1).start, std::as_writable_bytes(std::span(&seen, 1))));
        EXPECT_EQ(seen, page == 3 ? word : 0);
    }
}

TEST_F(CommitCharge, IsCountedAnewAfterARestartAndPolicyHolds) {
    limit_to(100);
    const Overcommit set = commit_account(store).overcommit;
    must(map_lazy(0, 60));
    space = Space(nullptr);
    store = Store(nullptr);
    store = pool.open();
    space = value_of(store.open_space("space"));
    EXPECT_EQ(commit_account(store).overcommit, set);
    expect_refused(map_lazy(1000, limit - 59));
    must(map_lazy(1000, limit - 60));
    EXPECT_EQ(committed(), limit);
    EXPECT_EQ(set_overcommit(store, {OvercommitPolicy::never, 0}).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(set_overcommit(store, {OvercommitPolicy::never, 10'001}).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(commit_account(store).overcommit, set);
}

TEST_F(CommitCharge, APolicyMayChangeInTheMiddleOfATransaction) {
    Transaction uncounted = store.begin();
    must(uncounted.map(space, pages(0, 30), protection::rw, {.lazy = true}));
    limit_to(100);
    Space other = value_of(store.create_space("other"));
    must(other.map(pages(0, 20), protection::rw, {.lazy = true}));
    EXPECT_EQ(committed(), 20u);
    must(uncounted.commit());
    EXPECT_EQ(committed(), 50u);
    Transaction counted_one = store.begin();
    must(counted_one.map(space, pages(100, 10), protection::rw, {.lazy = true}));
    must(set_overcommit(store, {}));
    must(other.unmap(pages(0, 5)));  // unseen by the counters
    limit_to(100);
    EXPECT_EQ(commit_account(store).committed_bytes, 55 * kPageSize) << "10 are reserved";
    must(counted_one.commit());
    EXPECT_EQ(committed(), 55u);
}

TEST_F(CommitCharge, ADamagedPolicyIsRefusedAndRepaired) {
    limit_to(100);
    must(map_lazy(0, 60));
    std::uint64_t* const word = &store.state().memory.superblock().overcommit;
    pool::store_word(word, *word ^ (std::uint64_t{1} << 9));
    store.state().pool->flush(word, sizeof *word);
    store.state().pool->drain();
    space = Space(nullptr);
    store = Store(nullptr);
    const auto opened = Store::open(pool.path(), {.emulation = PmemEmulation::on});
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::damaged);
    EXPECT_THAT(opened.error().message, HasSubstr("overcommit"));
    EXPECT_EQ(value_of(repair_file(pool.path(), {.emulation = PmemEmulation::on})).repaired.size(),
              1u);
    store = pool.open();
    EXPECT_EQ(commit_account(store).overcommit, Overcommit{});
    EXPECT_EQ(commit_account(store).committed_bytes, 60 * kPageSize);
}

// Threads that map and unmap in spaces of their own never have more than the limit together.
TEST_F(CommitCharge, IsExactWithManyAtATime) {
    limit_to(100);
    constexpr int kThreads = 4, kRounds = 150;
    // No two of them have room at the same time.
    const std::uint64_t count = limit / 2 + 1;
    std::atomic<std::uint64_t> beyond = 0, refused = 0;
    std::vector<std::thread> threads;
    for (int number = 0; number < kThreads; ++number)
        threads.emplace_back([&, number] {
            Space own = value_of(store.create_space("space " + std::to_string(number)));
            for (int round = 0; round < kRounds; ++round) {
                Transaction transaction = store.begin();
                const auto mapped =
                    transaction.map(own, pages(0, count), protection::rw, {.lazy = true});
                refused += mapped ? 0 : 1;
                std::this_thread::yield();
                if (!mapped || round % 3 == 0) continue;
                must(transaction.commit());
                if (commit_account(store).committed_bytes > limit * kPageSize) ++beyond;
                must(own.unmap(pages(0, count)));
            }
            must(own.map(pages(0, 3), protection::rw));
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(committed(), kThreads * 3u);
    EXPECT_EQ(beyond, 0u);
    EXPECT_GT(refused, 0u);
}

// The counter, the tables and the model say the same after whatever calls, aborted ones included.
RC_GTEST_PROP(CommitChargeProperty, TheCounterIsWhatTheTablesSay, (std::uint64_t seed)) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    oracle::Random random(seed);
    oracle::Model model;
    model.overcommit = {OvercommitPolicy::never, 60};
    must(set_overcommit(store, model.overcommit));
    for (int step = 0; step < 60; ++step) {
        const oracle::Calls calls = oracle::random_calls(random, static_cast<std::uint64_t>(step));
        oracle::Model next = model;
        const auto expected = oracle::run(next, calls);
        const auto done = oracle::run(store, calls);
        const bool full = !done && done.error().code == ErrorCode::no_space;
        RC_ASSERT(full || done.has_value() == !expected.has_value());
        if (done) model = std::move(next);
        RC_ASSERT(store.state().commit_charge.committed_pages() == counted(store));
        RC_ASSERT(counted(store) == model.committed_pages());
        // In a process of its own, so to speak: the counters are made anew.
        if (step % 10 == 9) store.state().commit_charge.forget();
    }
}

}  // namespace
}  // namespace holdfast::test
