// A campaign over a trace that is there already.
#pragma once

#include "campaign/token.hpp"
#include "holdfast/crash.hpp"
#include "judge/traced_run.hpp"

namespace holdfast::crash {

Result<Outcome> explore(Subject& subject, const TracedRun& run, const Options& options);

// One state of it.
Result<Outcome> replay_run(Subject& subject, const TracedRun& run, const Token& token,
                           const Options& options);

}  // namespace holdfast::crash
