#include "mutants/planted_bug.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::crash {
namespace {

using Kind = TraceMutation::Kind;

// Whether the run's operation of that number has a call of the kind; making the store is none.
bool has_call(const Script& script, std::uint64_t operation, const std::string& verb) {
    if (verb.empty()) return true;
    if (script.crashes_creation && operation-- == 0) return false;
    if (operation >= script.operations.size()) return false;
    const oracle::Calls& calls = script.operations[operation].calls;
    return std::any_of(calls.begin(), calls.end(), [&](const oracle::Call& call) {
        const std::string text = call.to_string();
        return text.substr(0, text.find('(')) == verb;
    });
}

Trace with_bug(const Trace& trace, const Script& script, const PlantedBug& bug) {
    Trace result = trace;
    const EventKind left_out = bug.kind == Kind::drop_flush ? EventKind::flush : EventKind::fence;
    bool in_bad_call = false;
    std::erase_if(result.events, [&](const Event& event) {
        if (event.kind == EventKind::begin) in_bad_call = has_call(script, event.offset, bug.verb);
        if (event.kind == EventKind::acknowledge) in_bad_call = false;
        return in_bad_call && event.kind == left_out;
    });
    return result;
}

}  // namespace

Result<PlantedBug> PlantedBug::parse(const std::string& text) {
    const std::size_t colon = text.find(':');
    const std::string kind = text.substr(0, colon);
    PlantedBug bug{.kind = Kind::drop_flush,
                   .verb = colon == std::string::npos ? "" : text.substr(colon + 1)};
    if (kind == to_string(Kind::drop_flush)) return bug;
    bug.kind = Kind::drop_fence;
    if (kind == to_string(Kind::drop_fence)) return bug;
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" is no bug that can be planted in a run; drop_flush and "
                            "drop_fence:unmap are some",
                            text));
}

Result<TracedRun> trace_with_bug(StoreWorkload& workload, const Options& options,
                                 const PlantedBug& bug) {
    auto run = trace_run(workload, options.seconds_per_run, options.fill);
    if (!run) return run;
    run->trace = with_bug(run->trace, workload.script(), bug);
    return run;
}

}  // namespace holdfast::crash
