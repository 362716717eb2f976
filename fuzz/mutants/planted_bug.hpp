// A bug in all of a workload's run, or in all calls of one kind: to see what becomes of a finding,
// from the campaign to the token and the shortened workload.
#pragma once

#include <string>

#include "judge/traced_run.hpp"
#include "mutants/trace_mutation.hpp"
#include "subjects/store_workload.hpp"

namespace holdfast::crash {

struct PlantedBug {
    TraceMutation::Kind kind{};  // drop_flush or drop_fence
    std::string verb;            // of the calls that have it, as in a workload's file; empty: all

    // "drop_fence", "drop_flush:protect". Errors: invalid_argument.
    static Result<PlantedBug> parse(const std::string& text);
};

// The workload's run, with the bug; the fingerprint is that of the run without it.
Result<TracedRun> trace_with_bug(StoreWorkload& workload, const Options& options,
                                 const PlantedBug& bug);

}  // namespace holdfast::crash
