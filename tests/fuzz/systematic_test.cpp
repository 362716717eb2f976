// Bugs planted at every place of a workload: each is caught, or it is known why it cannot be.
// ctest-labels: noasan
#include "mutants/systematic.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "mutants/ledger.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;
using Kind = TraceMutation::Kind;

struct Fates {
    std::map<Fate, unsigned> counts;
    std::vector<SystematicResult> results;
};

Fates plant(Subject& subject, const TracedRun& run, const std::vector<TraceMutation>& mutations) {
    Fates fates;
    const Options options{.jobs = std::thread::hardware_concurrency(), .depth = 1};
    fates.results = value_of(plant_everywhere(subject, run, mutations, options, {}));
    for (const SystematicResult& result : fates.results) ++fates.counts[result.fate];
    return fates;
}

TEST(Systematic, EveryLeftOutFlushAndFenceIsExplained) {
    StoreWorkload workload(value_of(find_workload("map_one")));
    const TracedRun run = value_of(trace_run(workload, 60, {}));
    std::vector<TraceMutation> mutations = places_for(run.trace, Kind::drop_flush);
    const auto fences = places_for(run.trace, Kind::drop_fence);
    mutations.insert(mutations.end(), fences.begin(), fences.end());
    Fates fates = plant(workload, run, mutations);
    for (const SystematicResult& result : fates.results) {
        EXPECT_NE(result.fate, Fate::unknown) << result.mutation.to_string() << ": " << result.text;
        EXPECT_FALSE(result.text.empty()) << result.mutation.to_string();
    }
    EXPECT_GT(fates.counts[Fate::caught], 3U);
    // Nothing but the boot epoch tells that its flush is missing.
    EXPECT_TRUE(
        std::any_of(fates.results.begin(), fates.results.end(), [](const SystematicResult& result) {
            return result.text.find("the boot epoch is") != std::string::npos;
        }));
}

// Two flushes of the same lines, and two fences: the second of each can be left out, and it is said
// why; the first too, since the second is there.
TEST(Systematic, SaysWhyAFlushOrAFenceIsRedundant) {
    Ledger ledger;
    const TracedRun run = value_of(trace_run(ledger, 60, {}));
    const auto flushes = places_for(run.trace, Kind::drop_flush);
    ASSERT_FALSE(flushes.empty());
    TracedRun doubled = run;
    doubled.trace = mutated(run.trace, {Kind::duplicate_flush, flushes.front().event});
    const EventIndex first = flushes.front().event;
    EXPECT_EQ(redundant_on_sight(doubled.trace, {Kind::drop_flush, first}),
              "its lines are flushed again before the next fence");
    EXPECT_EQ(redundant_on_sight(doubled.trace, {Kind::drop_flush, first + 1}),
              "nothing was stored to its lines since they were flushed");
    const Fates fates =
        plant(ledger, doubled, {{Kind::drop_flush, first}, {Kind::drop_flush, first + 1}});
    for (const SystematicResult& result : fates.results)
        EXPECT_EQ(result.fate, Fate::redundant) << result.text;

    const EventIndex fence = places_for(run.trace, Kind::drop_fence).front().event;
    TracedRun fenced = run;
    fenced.trace.events.insert(fenced.trace.events.begin() + static_cast<std::ptrdiff_t>(fence),
                               run.trace.events[fence]);
    EXPECT_EQ(redundant_on_sight(fenced.trace, {Kind::drop_fence, fence}),
              "the next fence comes before the next store");
    EXPECT_EQ(redundant_on_sight(fenced.trace, {Kind::drop_fence, fence + 1}),
              "nothing was flushed since the fence before it");
}

}  // namespace
}  // namespace holdfast::crash
