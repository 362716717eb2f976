#include "mutants/systematic.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "explore/crash_windows.hpp"
#include "trace/symbols.hpp"

namespace holdfast::crash {
namespace {

using Contents = std::map<LineNumber, std::set<LineBytes>>;

// What each line may hold in some window of each moment; lines are independent, so a window's set
// is a product, and it is enough to compare windows one by one.
struct Reach {
    Moment moment;
    Contents lines;
    std::map<LineNumber, LineBytes> durable;  // all that is determined and was ever stored to
};

std::vector<Reach> reaches(const Trace& trace, std::span<const std::byte> image,
                           Platform platform) {
    std::vector<Reach> all;
    std::map<LineNumber, LineBytes> durable;
    CrashWindows windows(trace, image, platform, kLineLimit);
    while (windows.next()) {
        for (const auto& [line, bytes] : windows.newly_durable()) durable[line] = bytes;
        Reach reach{.moment = windows.window().moment, .lines = {}, .durable = durable};
        for (const PendingLine& line : windows.window().lines)
            for (const Candidate& candidate : line.candidates)
                reach.lines[line.line].insert(candidate.bytes);
        all.push_back(std::move(reach));
    }
    return all;
}

bool contains(const Reach& outer, const Reach& inner, std::span<const std::byte> image) {
    const auto outer_has = [&](LineNumber line, const LineBytes& bytes) {
        const auto pending = outer.lines.find(line);
        if (pending != outer.lines.end()) return pending->second.contains(bytes);
        const auto durable = outer.durable.find(line);
        if (durable != outer.durable.end()) return durable->second == bytes;
        return std::equal(bytes.begin(), bytes.end(),
                          image.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes));
    };
    std::set<LineNumber> seen;
    for (const auto& [line, contents] : inner.lines) {
        seen.insert(line);
        for (const LineBytes& bytes : contents)
            if (!outer_has(line, bytes)) return false;
    }
    for (const auto& [line, bytes] : inner.durable)
        if (!seen.contains(line) && !outer_has(line, bytes)) return false;
    // What the inner one never stored to, it holds as it was.
    for (const auto& [line, bytes] : outer.durable) {
        if (seen.contains(line) || inner.durable.contains(line)) continue;
        LineBytes initial;
        std::copy_n(image.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes), kLineBytes,
                    initial.begin());
        if (!outer_has(line, initial)) return false;
    }
    return true;
}

}  // namespace

const char* to_string(Fate fate) {
    switch (fate) {
        case Fate::caught:
            return "caught";
        case Fate::redundant:
            return "redundant";
        case Fate::harmless:
            return "harmless";
        case Fate::unknown:
            return "unknown";
    }
    return "?";
}

bool reaches_nothing_new(const TracedRun& run, const Trace& trace, Platform platform) {
    const auto originals = reaches(run.trace, run.initial_image, platform);
    for (const Reach& reach : reaches(trace, run.initial_image, platform)) {
        const bool known = std::any_of(originals.begin(), originals.end(), [&](const Reach& one) {
            return one.moment.acknowledged == reach.moment.acknowledged &&
                   one.moment.in_flight == reach.moment.in_flight &&
                   contains(one, reach, run.initial_image);
        });
        if (!known) return false;
    }
    return true;
}

Result<std::vector<SystematicResult>> plant_everywhere(
    Subject& subject, const TracedRun& run, const std::vector<TraceMutation>& mutations,
    const Options& options, const std::function<void(const SystematicResult&)>& done) {
    const Symbols symbols(run.trace.modules);
    std::vector<SystematicResult> results;
    for (const TraceMutation& mutation : mutations) {
        SystematicResult result{.mutation = mutation, .place = {}, .text = {}};
        const Event& event = run.trace.events[mutation.event];
        result.place = to_string(event);
        TracedRun planted{.initial_image = run.initial_image,
                          .trace = mutated(run.trace, mutation),
                          .fingerprint = 0};
        if (reaches_nothing_new(run, planted.trace, options.platform)) {
            result.fate = Fate::redundant;
        } else {
            Options until_caught = options;
            until_caught.stop_after_violations = 1;
            auto outcome = explore(subject, planted, until_caught);
            if (!outcome) return std::unexpected(outcome.error());
            result.states = outcome->states;
            result.seconds = outcome->seconds;
            const bool all = std::all_of(outcome->windows.begin(), outcome->windows.end(),
                                         [](const Coverage& window) { return window.exhaustive; });
            if (!outcome->violations.empty()) {
                result.fate = Fate::caught;
                result.text = outcome->violations.front().text;
            } else {
                result.fate = all && outcome->complete ? Fate::harmless : Fate::unknown;
            }
        }
        if (result.fate != Fate::caught) {
            // Who did it, past the pool room and libpmemobj.
            for (const std::string& frame : symbols.stack(event))
                if (frame.find("holdfast") != std::string::npos) {
                    result.place += " in " + frame;
                    break;
                }
        }
        if (done) done(result);
        results.push_back(std::move(result));
    }
    return results;
}

}  // namespace holdfast::crash
