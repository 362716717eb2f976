// 4: the crash harness, on calls of the API and on a planted bug.
#include <holdfast/crash.hpp>

#include <algorithm>
#include <thread>

#include "crash_report.hpp"
#include "demo.hpp"
#include "judge/traced_run.hpp"
#include "mutants/systematic.hpp"
#include "output.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool::demo {
namespace {

crash::Options options() {
    return {.states_per_window = 1100,
            .jobs = std::max(1U, std::thread::hardware_concurrency()),
            .depth = 1};
}

Result<crash::StoreWorkload> workload(const char* name) {
    auto script = crash::find_workload(name);
    if (!script) return std::unexpected(script.error());
    return crash::StoreWorkload(std::move(*script));
}

}  // namespace

Outcome judge_crash_states() {
    print("\n4. Every crash, not a lucky few\n");
    print(
        "   Each call is traced once; whatever a power failure may leave of its cache lines is "
        "made,\n"
        "   reopened and judged.\n\n");
    std::uint64_t states = 0, violations = 0;
    double seconds = 0;
    for (const char* name : {"map_one", "unmap_shared", "protect_one", "transaction"}) {
        auto subject = workload(name);
        if (!subject) return std::unexpected(subject.error());
        auto outcome = crash::run(*subject, options());
        if (!outcome) return std::unexpected(outcome.error());
        const auto windows = outcome->windows.size();
        const auto whole = static_cast<std::size_t>(
            std::count_if(outcome->windows.begin(), outcome->windows.end(),
                          [](const crash::Coverage& window) { return window.exhaustive; }));
        print("   {:<14} {:>4} stores, {:>2} of {:>2} windows to the end, {:>5} states, {} wrong\n",
              name, outcome->stores, whole, windows, outcome->states, outcome->violations.size());
        states += outcome->states;
        seconds += outcome->seconds;
        violations += outcome->violations.size();
    }
    print("   {} states judged, {:.0f} a second; {} wrong\n\n", states,
          static_cast<double>(states) / seconds, violations);

    // The same without one flush.
    auto subject = workload("map_one");
    if (!subject) return std::unexpected(subject.error());
    auto run = crash::trace_run(*subject, options().seconds_per_run, {});
    if (!run) return std::unexpected(run.error());
    const auto flushes = crash::places_for(run->trace, crash::TraceMutation::Kind::drop_flush);
    if (!flushes.empty()) {
        auto planted = crash::plant_everywhere(*subject, *run, {flushes.back()}, options(), {});
        if (!planted) return std::unexpected(planted.error());
        const crash::SystematicResult& result = planted->front();
        print("   A bug: map_one without its last flush. {} after {} states: {}\n",
              result.fate == crash::Fate::caught ? "Caught" : "NOT CAUGHT", result.states,
              result.text.substr(0, 110));
        if (result.fate != crash::Fate::caught) ++violations;
    }
    return violations == 0 ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace holdfast::tool::demo
