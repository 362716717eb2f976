// A campaign: trace, explore, report.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "campaign/token.hpp"
#include "campaign/workers.hpp"
#include "holdfast/crash.hpp"
#include "trace/symbols.hpp"

namespace holdfast::crash {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Reporter {
  public:
    Reporter(const Subject& subject, const TracedRun& run, const Options& options)
        : subject_(subject), run_(run), options_(options), symbols_(run.trace.modules) {}

    Violation report(const RawViolation& raw) const {
        Violation violation;
        violation.text = raw.text;
        violation.moment = raw.moment;
        violation.depth = static_cast<unsigned>(std::max<std::size_t>(raw.parts.size(), 1));
        if (raw.parts.empty()) return violation;
        violation.token = Token{.subject = subject_.name(),
                                .fingerprint = run_.fingerprint,
                                .platform = options_.platform,
                                .parts = raw.parts}
                              .to_string();
        const EventIndex event = raw.parts.front().end_event;
        violation.crash_point =
            event < run_.trace.events.size()
                ? fmt::format("before event {}: {}", event, to_string(run_.trace.events[event]))
                : "after the last event";
        for (const auto& line : raw.lines) {
            Violation::Line named{.offset = line.line * kLineBytes,
                                  .lost = line.lost,
                                  .store = {},
                                  .stack = {}};
            // Stores of a recovery are not in this trace.
            if (violation.depth == 1 && line.store < run_.trace.events.size()) {
                const Event& store = run_.trace.events[line.store];
                named.store = fmt::format("event {}: {}", line.store, to_string(store));
                named.stack = symbols_.stack(store);
            }
            violation.lines.push_back(std::move(named));
        }
        return violation;
    }

  private:
    const Subject& subject_;
    const TracedRun& run_;
    const Options& options_;
    Symbols symbols_;
};

Outcome describe(const Subject& subject, const TracedRun& run) {
    Outcome outcome;
    outcome.subject = subject.name();
    outcome.events = run.trace.events.size();
    outcome.stores = run.trace.stores();
    outcome.flushes = run.trace.count(EventKind::flush);
    outcome.fences = run.trace.count(EventKind::fence);
    outcome.microseconds_per_store =
        static_cast<double>(run.trace.tracing_ns) / 1000 / static_cast<double>(outcome.stores);
    return outcome;
}

}  // namespace

const char* to_string(Exploration exploration) {
    switch (exploration) {
        case Exploration::program_order:
            return "program order";
        case Exploration::flushed_only:
            return "flushed stores";
        case Exploration::sampled:
            return "samples";
        case Exploration::full:
            return "everything";
    }
    return "?";
}

Result<void> Subject::recover(const std::string&) { return {}; }

Result<Outcome> explore(Subject& subject, const TracedRun& run, const Options& given) {
    const auto begin = Clock::now();
    Outcome outcome = describe(subject, run);
    Options options = given;
    const std::uint64_t windows =
        CrashWindows::count(run.trace, run.initial_image, options.platform);
    if (options.states != 0)
        options.states_per_window = std::min(options.states_per_window,
                                             std::max<std::uint64_t>(1, options.states / windows));
    const Reporter reporter(subject, run, options);
    std::vector<std::pair<std::uint64_t, WindowResult>> results;
    auto complete = explore_all(subject, run, options, windows, [&](WindowResult result) {
        results.emplace_back(result.number, std::move(result));
    });
    if (!complete) return std::unexpected(complete.error());
    outcome.complete = *complete;
    std::sort(results.begin(), results.end(),
              [](const auto& one, const auto& other) { return one.first < other.first; });
    for (const auto& [number, result] : results) {
        outcome.states += result.states;
        outcome.nested_states += result.nested_states;
        outcome.pruned_audited += result.audited;
        outcome.reachable += result.coverage.states;
        outcome.verdict_hash += result.verdict_hash;
        outcome.choose_seconds += result.choose_seconds;
        outcome.patch_seconds += result.patch_seconds;
        outcome.check_seconds += result.check_seconds;
        outcome.restore_seconds += result.restore_seconds;
        outcome.windows.push_back(result.coverage);
        for (const RawViolation& violation : result.violations)
            outcome.violations.push_back(reporter.report(violation));
    }
    outcome.seconds = seconds_since(begin);
    return outcome;
}

Result<Outcome> run(Subject& subject, const Options& options) {
    auto traced = trace_run(subject, options.seconds_per_run);
    if (!traced) return std::unexpected(traced.error());
    return explore(subject, *traced, options);
}

}  // namespace holdfast::crash
