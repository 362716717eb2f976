// ctest-labels: noasan
// ctest-timeout: 600
//
// Every call of the API is crashed in every window and judged (fuzz/subjects/workloads.cpp): a
// bounded campaign. `holdfast crash run` goes further.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>

#include "holdfast/crash.hpp"
#include "judge/child_process.hpp"
#include "subjects/import_workload.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"
#include "tracer/snapshots.hpp"

namespace holdfast::crash {

static void PrintTo(const NamedWorkload& workload, std::ostream* out) { *out << workload.name; }

namespace {

using test::value_of;

Outcome run_workload(const std::string& name, const Options& options) {
    StoreWorkload workload(value_of(find_workload(name)));
    return value_of(run(workload, options));
}

void expect_right(const Outcome& outcome) {
    for (const Violation& violation : outcome.violations)
        ADD_FAILURE() << violation.text << "\n  " << violation.crash_point << "\n  "
                      << violation.token;
}

class Workload : public testing::TestWithParam<NamedWorkload> {};

TEST_P(Workload, LeavesTheStateBeforeOrAfter) {
    const Options options{.states_per_window = 150,
                          .jobs = std::thread::hardware_concurrency(),
                          .shards = GetParam().every_window,
                          .depth = 1};
    const Outcome outcome = run_workload(GetParam().name, options);
    expect_right(outcome);
    EXPECT_TRUE(outcome.complete);
    EXPECT_GT(outcome.states, 50U) << "hardly anything was judged";
    for (const Coverage& window : outcome.windows) {
        // What is called exhaustive has judged all that matters, and only what is too much is not.
        if (window.exhaustive)
            EXPECT_GE(static_cast<double>(window.judged), window.relevant) << window.end_event;
        else
            EXPECT_GE(window.judged, options.states_per_window) << window.why_not;
        EXPECT_EQ(window.exhaustive, window.why_not.empty()) << window.why_not;
    }
}

INSTANTIATE_TEST_SUITE_P(Of, Workload, testing::ValuesIn(workloads()),
                         [](const testing::TestParamInfo<NamedWorkload>& test_case) {
                             return std::string(test_case.param.name);
                         });

// Calls the real functions, to be counted.
class Unmarked final : public Operations {
  public:
    void begin() override {}
    void acknowledge() override {}
};

TEST(ChainedTransaction, TakesMoreSnapshotsThanAnExtensionOfTheLogHolds) {
    const test::TemporaryPool pool;
    StoreWorkload workload(value_of(find_workload("chained_transaction")));
    const std::string taken =
        value_of(run_in_child_with_answer("the transaction", 60, [&]() -> Result<std::string> {
            if (auto made = workload.set_up(pool.path()); !made)
                return std::unexpected(made.error());
            const std::uint32_t before = snapshots_taken();
            Unmarked unmarked;
            if (auto ran = workload.run(pool.path(), unmarked); !ran)
                return std::unexpected(ran.error());
            return std::to_string(snapshots_taken() - before);
        }));
    EXPECT_GT(std::stoul(taken), 2052U);
}

TEST(ImportProcess, LeavesAllOfTheProcessOrNothing) {
    ImportWorkload workload;
    const Outcome outcome = value_of(
        run(workload,
            {.states_per_window = 60, .jobs = std::thread::hardware_concurrency(), .depth = 1}));
    expect_right(outcome);
    EXPECT_TRUE(outcome.complete);
    EXPECT_GT(outcome.states, 300U);
}

TEST(Recovery, IsCrashedTooAndRecovers) {
    for (const char* name : {"map_one", "unmap_shared", "create_space_again"}) {
        const Outcome outcome = run_workload(
            name,
            {.states_per_window = 20, .jobs = std::thread::hardware_concurrency(), .depth = 2});
        expect_right(outcome);
        EXPECT_GT(outcome.nested_states, 200U) << name;
    }
}

// A repair that sets accounts right, and one that cuts structure off first.
TEST(Recovery, ARepairThatIsRepeatedIsCrashedToo) {
    for (const char* name : {"repair_leak", "repair_limbo"}) {
        const Outcome outcome = run_workload(
            name, {.states_per_window = 3,
                   .jobs = std::thread::hardware_concurrency(),
                   .shards = name == std::string("repair_leak") ? 1U : 3U,  // every third window
                   .depth = 2});
        expect_right(outcome);
        EXPECT_GT(outcome.nested_states, 20U) << name;
    }
}

// After a crash of it, entries still have numbers of before; finishing again is what follows.
TEST(Recovery, FinishingMovesAgainIsCrashedToo) {
    const Outcome outcome =
        run_workload("finish_moves", {.states_per_window = 6,
                                      .jobs = std::thread::hardware_concurrency(),
                                      .shards = 4,  // every fourth window
                                      .depth = 2});
    expect_right(outcome);
    EXPECT_GT(outcome.nested_states, 50U);
}

TEST(Fill, WhatWasNeverWrittenMayHoldAnything) {
    for (const char* name : {"map_first", "map_table", "transaction", "create_space_again"})
        for (const std::uint8_t fill : {std::uint8_t{0xa5}, std::uint8_t{0x5a}}) {
            const Outcome outcome = run_workload(name, {.states_per_window = 60,
                                                        .fill = fill,
                                                        .jobs = std::thread::hardware_concurrency(),
                                                        .depth = 1});
            expect_right(outcome);
        }
}

TEST(Eadr, NeedsNoFlushes) {
    const Outcome outcome =
        run_workload("map_range", {.platform = Platform::eadr, .jobs = 2, .depth = 1});
    expect_right(outcome);
    EXPECT_GT(outcome.windows.size(), 100U) << "each store is a window of its own there";
}

TEST(RandomMix, LeavesTheStateBeforeOrAfter) {
    for (const std::uint64_t seed : {1, 2, 3}) {
        const Outcome outcome = run_workload(fmt::format("mix-{}", seed),
                                             {.states_per_window = 40, .jobs = 2, .depth = 1});
        expect_right(outcome);
    }
}

TEST(VerdictHash, IsTheSameHoweverManyWork) {
    const Options one{.states_per_window = 50, .jobs = 1, .depth = 1};
    Options two = one;
    two.jobs = 2;
    const Outcome first = run_workload("map_one", one), second = run_workload("map_one", two);
    EXPECT_EQ(first.verdict_hash, second.verdict_hash);
    EXPECT_EQ(first.states, second.states);
    EXPECT_NE(first.verdict_hash, 0U);
}

TEST(Shards, AreTheWhole) {
    const Options whole{.states_per_window = 50, .jobs = 2, .depth = 1};
    Options part = whole;
    part.shards = 2;
    const Outcome all = run_workload("unmap_one", whole);
    std::uint64_t hash = 0, states = 0;
    for (part.shard = 0; part.shard < 2; ++part.shard) {
        const Outcome outcome = run_workload("unmap_one", part);
        hash += outcome.verdict_hash;
        states += outcome.states;
    }
    EXPECT_EQ(hash, all.verdict_hash);
    EXPECT_EQ(states, all.states);
}

}  // namespace
}  // namespace holdfast::crash
