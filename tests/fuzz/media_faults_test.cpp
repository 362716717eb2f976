// Damage in a store's structures is noticed or harmless, never a silently wrong translation. Here a
// sample; `holdfast crash faults --bits 0` flips every bit. ctest-labels: noasan
#include "faults/media_faults.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "subjects/workloads.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {
namespace {

using test::value_of;

TEST(MediaFaults, AreNoticedOrHarmless) {
    const std::uint64_t seed = test::test_seed();
    for (const char* name : {"transaction", "unmap_shared", "map_lazy", "remove_space"}) {
        const FaultOutcome outcome = value_of(run_media_faults(
            value_of(find_workload(name)), {.bits_per_structure = 60, .seed = seed}));
        for (const auto& violation : outcome.violations)
            ADD_FAILURE() << name << ": " << violation.fault.to_string() << ": " << violation.text;
        ASSERT_GT(outcome.by_structure.size(), 8U);
        for (const auto& [structure, counts] : outcome.by_structure) {
            EXPECT_GT(counts.tried, 0U) << structure;
            EXPECT_EQ(counts.tried, counts.noticed + counts.harmless) << structure;
            // No bit of a frame's metadata is without a check.
            if (structure.starts_with("metadata")) {
                EXPECT_EQ(counts.harmless, 0U) << structure;
            }
        }
    }
}

}  // namespace
}  // namespace holdfast::crash
