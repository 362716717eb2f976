#include "crash_report.hpp"

#include <algorithm>

#include "quantity.hpp"

namespace holdfast::tool {
namespace {

Json json_of(const crash::Violation& violation) {
    Json lines = Json::array();
    for (const auto& line : violation.lines)
        lines.push_back({{"offset", format_address(line.offset)},
                         {"lost", line.lost},
                         {"store", line.store},
                         {"stack", line.stack}});
    return {{"token", violation.token},
            {"kind", to_string(violation.kind)},
            {"text", violation.text},
            {"crash_point", violation.crash_point},
            {"acknowledged", violation.moment.acknowledged},
            {"in_flight", violation.moment.in_flight},
            {"depth", violation.depth},
            {"lines", lines}};
}

Json json_of(const crash::Coverage& window) {
    return {{"events", {window.first_event, window.end_event}},
            {"acknowledged", window.moment.acknowledged},
            {"in_flight", window.moment.in_flight},
            {"lines", window.lines},
            {"reachable", window.states},
            {"relevant", window.relevant},
            {"judged", window.judged},
            {"exhaustive", window.exhaustive},
            {"why_not", window.why_not}};
}

std::uint64_t exhaustive_windows(const crash::Outcome& outcome) {
    return static_cast<std::uint64_t>(
        std::count_if(outcome.windows.begin(), outcome.windows.end(),
                      [](const crash::Coverage& window) { return window.exhaustive; }));
}

double states_per_second(const crash::Outcome& outcome) {
    return outcome.seconds > 0 ? static_cast<double>(outcome.states) / outcome.seconds : 0;
}

void print_violation(const crash::Violation& violation, const std::string& subject_arguments) {
    print("\nVIOLATION {}\n", violation.text);
    print("  power failed {}, {} operations acknowledged{}{}\n", violation.crash_point,
          violation.moment.acknowledged,
          violation.moment.in_flight ? ", the next one in flight" : "",
          violation.depth > 1 ? "; and again while that was recovered" : "");
    for (const auto& line : violation.lines) {
        print("  line {:#x} {}: {}\n", line.offset,
              line.lost ? "was lost" : "was written back early", line.store);
        for (const std::string& frame : line.stack) print("      {}\n", frame);
    }
    if (violation.lines.empty() && !violation.token.empty()) print("  whichever lines are lost\n");
    if (!violation.token.empty())
        print("  holdfast crash replay {}{}\n", violation.token, subject_arguments);
}

}  // namespace

Json json_of(const crash::Outcome& outcome) {
    Json windows = Json::array(), violations = Json::array();
    for (const crash::Coverage& window : outcome.windows) windows.push_back(json_of(window));
    for (const crash::Violation& violation : outcome.violations)
        violations.push_back(json_of(violation));
    return {{"workload", outcome.subject},
            {"states", outcome.states},
            {"states_per_second", states_per_second(outcome)},
            {"nested_states", outcome.nested_states},
            {"seconds", outcome.seconds},
            {"complete", outcome.complete},
            {"trace",
             {{"events", outcome.events},
              {"stores", outcome.stores},
              {"flushes", outcome.flushes},
              {"fences", outcome.fences},
              {"microseconds_per_store", outcome.microseconds_per_store}}},
            {"coverage",
             {{"windows", outcome.windows.size()},
              {"exhaustive", exhaustive_windows(outcome)},
              {"reachable", outcome.reachable},
              {"pruned_audited", outcome.pruned_audited}}},
            {"time",
             {{"choose", outcome.choose_seconds},
              {"patch", outcome.patch_seconds},
              {"check", outcome.check_seconds},
              {"restore", outcome.restore_seconds}}},
            {"violations", violations},
            {"verdict_hash", fmt::format("{:016x}", outcome.verdict_hash)},
            {"windows", windows}};
}

void print_text(const crash::Outcome& outcome, bool every_window,
                const std::string& subject_arguments) {
    if (every_window)
        for (const crash::Coverage& window : outcome.windows)
            print(
                "events {:>5} to {:>5}  {} acknowledged{}  {:>3} lines  {:>7.6g} states, {:.6g} "
                "relevant, {} judged{}{}\n",
                window.first_event, window.end_event, window.moment.acknowledged,
                window.moment.in_flight ? "+1" : "  ", window.lines, window.states, window.relevant,
                window.judged, window.exhaustive ? "" : ": ", window.why_not);
    for (const crash::Violation& violation : outcome.violations)
        print_violation(violation, subject_arguments);
    if (!outcome.violations.empty()) print("\n");
    print("{}: {} stores, {} flushes, {} fences; {} crash windows, {} explored to the end\n",
          outcome.subject, outcome.stores, outcome.flushes, outcome.fences, outcome.windows.size(),
          exhaustive_windows(outcome));
    print(
        "{} states judged ({} of them crashes of recovery), {:.0f} a second; {} violations; "
        "verdict {:016x}{}\n",
        outcome.states, outcome.nested_states, states_per_second(outcome),
        outcome.violations.size(), outcome.verdict_hash, outcome.complete ? "" : "; cut short");
}

Json merged_results(const std::vector<Json>& results) {
    Json merged = results.front();
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < results.size(); ++i) {
        const Json& one = results[i];
        hash += std::stoull(one["verdict_hash"].get<std::string>(), nullptr, 16);
        if (i == 0) continue;
        for (const char* sum : {"states", "nested_states", "seconds"})
            merged[sum] =
                merged[sum].is_number_float()
                    ? Json(merged[sum].get<double>() + one[sum].get<double>())
                    : Json(merged[sum].get<std::uint64_t>() + one[sum].get<std::uint64_t>());
        for (const char* sum : {"windows", "exhaustive", "pruned_audited"})
            merged["coverage"][sum] = merged["coverage"][sum].get<std::uint64_t>() +
                                      one["coverage"][sum].get<std::uint64_t>();
        for (const char* list : {"violations", "windows"})
            for (const Json& item : one[list]) merged[list].push_back(item);
        merged["complete"] = merged["complete"].get<bool>() && one["complete"].get<bool>();
    }
    merged["verdict_hash"] = fmt::format("{:016x}", hash);
    const double seconds = merged["seconds"].get<double>();
    merged["states_per_second"] =
        seconds > 0 ? merged["states"].get<double>() / seconds : 0.0;  // of one shard's machine
    return merged;
}

void print_merged(const Json& merged) {
    for (const Json& violation : merged["violations"])
        print("VIOLATION {}\n  holdfast crash replay {}\n", violation["text"].get<std::string>(),
              violation["token"].get<std::string>());
    print(
        "{}: {} crash windows, {} explored to the end; {} states judged; {} violations; verdict "
        "{}{}\n",
        merged["workload"].get<std::string>(), merged["coverage"]["windows"].dump(),
        merged["coverage"]["exhaustive"].dump(), merged["states"].dump(),
        merged["violations"].size(), merged["verdict_hash"].get<std::string>(),
        merged["complete"].get<bool>() ? "" : "; cut short");
}

void CrashProgress::update(const crash::Progress& now) {
    if (!line_.is_due()) return;
    const std::uint64_t of = std::max<std::uint64_t>(now.windows, 1);
    line_.show(fmt::format("{}: {} of {} windows ({}%), {} states, {:.0f} a second, {} findings",
                           what_, now.windows_done, now.windows, now.windows_done * 100 / of,
                           now.states, static_cast<double>(now.states) / line_.seconds(),
                           now.violations));
}

}  // namespace holdfast::tool
