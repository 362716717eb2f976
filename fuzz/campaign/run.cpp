// A campaign: trace, explore, report.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "campaign/explore.hpp"
#include "campaign/result_json.hpp"
#include "campaign/token.hpp"
#include "campaign/workers.hpp"
#include "holdfast/crash.hpp"
#include "judge/child_process.hpp"
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
        violation.kind = raw.kind;
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
            Violation::Line named{
                .offset = line.line * kLineBytes, .lost = line.lost, .store = {}, .stack = {}};
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

const char* to_string(Violation::Kind kind) {
    switch (kind) {
        case Violation::Kind::wrong:
            return "wrong";
        case Violation::Kind::died:
            return "died";
        case Violation::Kind::hung:
            return "hung";
    }
    return "?";
}

Result<void> Subject::recover(const std::string&) { return {}; }

Result<void> Subject::run_traced(const std::string&, const std::string&) {
    return fail(ErrorCode::unsupported, fmt::format("{} starts no other program", name()));
}

Result<Outcome> explore(Subject& subject, const TracedRun& run, const Options& given,
                        const RestrictWindow& restrict) {
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
    auto complete = explore_all(subject, run, options, restrict, windows, [&](WindowResult result) {
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

namespace {

// Judges the one state that the token names.
class Replayer {
  public:
    Replayer(Subject& subject, const TracedRun& run, const Token& token, const Options& options)
        : subject_(subject), run_(run), token_(token), options_(options) {}

    // What was found, or an error.
    Result<WindowResult> judge() {
        auto image = CrashImage::create(run_.initial_image);
        if (!image) return std::unexpected(image.error());
        auto judge = StateJudge::create(subject_, *image);
        if (!judge) return std::unexpected(judge.error());
        CrashWindows windows(run_.trace, run_.initial_image, token_.platform, kLineLimit);
        const WindowObserver observer{.before_state = [] { return std::nullopt; },
                                      .go_on = [] { return true; }};
        WindowExplorer explorer(*judge, subject_, options_, observer);
        while (windows.next()) {
            for (const auto& [line, bytes] : windows.newly_durable()) image->set_base(line, bytes);
            if (windows.window().end_event == token_.parts.front().end_event)
                return explorer.judge_only(windows.window(), token_.parts);
        }
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the run has no crash window that ends at event {}",
                                token_.parts.front().end_event));
    }

  private:
    Subject& subject_;
    const TracedRun& run_;
    const Token& token_;
    const Options& options_;
};

}  // namespace

Result<Outcome> replay_run(Subject& subject, const TracedRun& run, const Token& token,
                           const Options& given) {
    Options options = given;
    options.platform = token.platform;
    if (token.fingerprint != run.fingerprint)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("the token is of another build: its run of {} had fingerprint {:x}, "
                        "this one has {:x}; run the campaign again",
                        token.subject, token.fingerprint, run.fingerprint));
    Outcome outcome = describe(subject, run);
    const Reporter reporter(subject, run, options);
    // In a process of its own: the state may well end it.
    WindowResult result;
    const auto begin = Clock::now();
    const ChildReport report = watch_child(
        "the check", [&] { return seconds_since(begin) > options.seconds_per_check; },
        [&]() -> Result<std::string> {
            auto judged = Replayer(subject, run, token, options).judge();
            if (!judged) return std::unexpected(judged.error());
            return to_json(*judged).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        });
    if (report.end == ChildEnd::answered) {
        result = window_result_of(nlohmann::json::parse(report.text));
    } else if (report.end == ChildEnd::died || report.end == ChildEnd::hung) {
        const bool hung = report.end == ChildEnd::hung;
        result.states = 1;
        result.violations.push_back(
            {.parts = token.parts,
             .kind = hung ? Violation::Kind::hung : Violation::Kind::died,
             .text = hung ? fmt::format("the check did not end within {} s and was killed",
                                        options.seconds_per_check)
                          : report.text,
             .moment = {},
             .lines = {}});
    } else {
        return fail(report.code, report.text);
    }
    outcome.states = result.states;
    for (const RawViolation& violation : result.violations)
        outcome.violations.push_back(reporter.report(violation));
    return outcome;
}

Result<Outcome> replay(Subject& subject, const std::string& text, const Options& options) {
    auto token = Token::parse(text);
    if (!token) return std::unexpected(token.error());
    if (token->subject != subject.name())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the token is of {}, not of {}", token->subject, subject.name()));
    auto traced = trace_run(subject, options.seconds_per_run, options.fill);
    if (!traced) return std::unexpected(traced.error());
    return replay_run(subject, *traced, *token, options);
}

Result<Outcome> run(Subject& subject, const Options& options) {
    auto traced = trace_run(subject, options.seconds_per_run, options.fill);
    if (!traced) return std::unexpected(traced.error());
    return explore(subject, *traced, options);
}

}  // namespace holdfast::crash
