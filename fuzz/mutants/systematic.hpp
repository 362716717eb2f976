// Every flush, fence and store of a workload left out or misplaced, one at a time: does the harness
// notice each?
//
// A bug that is not noticed is explained, or it is a hole in the oracle:
//   redundant  the program without it can leave nothing on the medium that it could not leave with
//              it, compared window by window
//   harmless   it can leave more, and all of that, explored to the end, is right: what was not made
//              durable is not needed
//   unknown    it can leave more, and not all of it was explored
//
// Only what the mutated program can leave and the original cannot is judged: the original is
// another campaign's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "campaign/explore.hpp"
#include "mutants/trace_mutation.hpp"

namespace holdfast::crash {

enum class Fate : std::uint8_t { caught, redundant, harmless, unknown };
const char* to_string(Fate fate);

struct SystematicResult {
    TraceMutation mutation;
    std::string place;  // the event, and the function that made it
    Fate fate{};
    std::uint64_t states = 0;
    double seconds = 0;
    std::string text;  // what was wrong, if it was caught; otherwise why nothing is, by counting
};

// Calls `done` after each.
Result<std::vector<SystematicResult>> plant_everywhere(
    Subject& subject, const TracedRun& run, const std::vector<TraceMutation>& mutations,
    const Options& options, const std::function<void(const SystematicResult&)>& done);

// Why leaving out a flush or a fence changes nothing, if its neighbours in the trace tell.
std::optional<std::string> redundant_on_sight(const Trace& trace, const TraceMutation& mutation);

}  // namespace holdfast::crash
