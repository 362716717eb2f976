// Worker processes that share the windows of a trace among them. A worker that a check kills, or in
// which a check hangs, is replaced; the state is reported and the rest goes on.
#pragma once

#include <functional>
#include <vector>

#include "campaign/explore.hpp"
#include "campaign/explore_window.hpp"
#include "holdfast/crash.hpp"
#include "judge/traced_run.hpp"

namespace holdfast::crash {

// Explores this shard's windows; calls `done` in the calling process with each result, in no order.
// Returns false if time or a limit ended it early.
Result<bool> explore_all(Subject& subject, const TracedRun& run, const Options& options,
                         const RestrictWindow& restrict, std::uint64_t windows,
                         const std::function<void(WindowResult)>& done);

}  // namespace holdfast::crash
