// A campaign over a trace that is there already.
#pragma once

#include <functional>

#include "campaign/token.hpp"
#include "explore/crash_windows.hpp"
#include "holdfast/crash.hpp"
#include "judge/traced_run.hpp"

namespace holdfast::crash {

// Leaves out windows for which `restrict` returns false; it may also change which of a window's
// states count as new (`is_new`, `all_new`), which are those that are judged. Empty: all, as they
// are.
using RestrictWindow = std::function<bool(CrashWindow&)>;

Result<Outcome> explore(Subject& subject, const TracedRun& run, const Options& options,
                        const RestrictWindow& restrict = {});

// One state of it.
Result<Outcome> replay_run(Subject& subject, const TracedRun& run, const Token& token,
                           const Options& options);

}  // namespace holdfast::crash
