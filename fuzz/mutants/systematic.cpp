#include "mutants/systematic.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "campaign/explore.hpp"
#include "explore/crash_windows.hpp"
#include "trace/symbols.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kExtremes = 60;  // states of a window, at first

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

// Of each pending line's candidates, which the outer one does not have; nothing if what the inner
// one has determined is not possible there at all, so that each of its states is new.
using Novelty = std::vector<std::vector<bool>>;

class Outer {
  public:
    Outer(const Reach& reach, std::span<const std::byte> image) : reach_(reach), image_(image) {}

    std::optional<Novelty> novelty(const CrashWindow& window,
                                   const std::map<LineNumber, LineBytes>& durable) const {
        std::set<LineNumber> pending;
        Novelty novelty;
        for (const PendingLine& line : window.lines) {
            pending.insert(line.line);
            std::vector<bool> is_new;
            is_new.reserve(line.candidates.size());
            for (const Candidate& candidate : line.candidates)
                is_new.push_back(!has(line.line, candidate.bytes));
            novelty.push_back(std::move(is_new));
        }
        for (const auto& [line, bytes] : durable)
            if (!pending.contains(line) && !has(line, bytes)) return std::nullopt;
        // What the inner one never stored to, it holds as it was.
        for (const auto& [line, bytes] : reach_.durable) {
            if (pending.contains(line) || durable.contains(line)) continue;
            LineBytes initial;
            std::copy_n(image_.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes), kLineBytes,
                        initial.begin());
            if (!has(line, initial)) return std::nullopt;
        }
        return novelty;
    }

  private:
    bool has(LineNumber line, const LineBytes& bytes) const {
        const auto pending = reach_.lines.find(line);
        if (pending != reach_.lines.end()) return pending->second.contains(bytes);
        const auto durable = reach_.durable.find(line);
        if (durable != reach_.durable.end()) return durable->second == bytes;
        return std::equal(bytes.begin(), bytes.end(),
                          image_.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes));
    }

    const Reach& reach_;
    std::span<const std::byte> image_;
};

// What the windows of a mutated program can leave that none of the original's can.
class NewStates {
  public:
    NewStates(const TracedRun& run, Platform platform)
        : run_(run),
          platform_(platform),
          originals_(reaches(run.trace, run.initial_image, platform)) {}

    // For each window by number: nothing if it has no new states.
    struct Window {
        bool all_new = false;
        Novelty novelty;
    };
    std::vector<std::optional<Window>> of(const Trace& trace) const {
        std::vector<std::optional<Window>> windows;
        std::map<LineNumber, LineBytes> durable;
        CrashWindows each(trace, run_.initial_image, platform_, kLineLimit);
        while (each.next()) {
            for (const auto& [line, bytes] : each.newly_durable()) durable[line] = bytes;
            windows.resize(each.window().number + 1);
            windows.back() = least_new(each.window(), durable);
        }
        return windows;
    }

  private:
    std::optional<Window> least_new(const CrashWindow& window,
                                    const std::map<LineNumber, LineBytes>& durable) const {
        std::optional<Window> least = Window{.all_new = true, .novelty = {}};
        std::size_t fewest = ~std::size_t{0};
        for (const Reach& original : originals_) {
            if (original.moment.acknowledged != window.moment.acknowledged ||
                original.moment.in_flight != window.moment.in_flight)
                continue;
            auto novelty = Outer(original, run_.initial_image).novelty(window, durable);
            if (!novelty) continue;
            std::size_t count = 0;
            for (const auto& line : *novelty)
                count += static_cast<std::size_t>(std::count(line.begin(), line.end(), true));
            if (count == 0) return std::nullopt;
            if (count >= fewest) continue;
            fewest = count;
            least = Window{.all_new = false, .novelty = std::move(*novelty)};
        }
        return least;
    }

    const TracedRun& run_;
    Platform platform_;
    std::vector<Reach> originals_;
};

bool covers(const Event& flush, LineNumber line) {
    return flush.kind == EventKind::flush && line >= flush.offset / kLineBytes &&
           line <= (flush.offset + std::max<std::uint32_t>(flush.size, 1) - 1) / kLineBytes;
}

// Whether the line was stored to since it was last flushed before the event.
bool is_dirty(const Trace& trace, std::size_t event, LineNumber line) {
    for (std::size_t at = event; at-- > 0;) {
        const Event& each = trace.events[at];
        if (covers(each, line)) return false;
        if (is_store(each.kind) && each.offset / kLineBytes <= line &&
            line <= (each.offset + std::max<std::uint32_t>(each.size, 1) - 1) / kLineBytes)
            return true;
    }
    return false;
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

std::optional<std::string> redundant_on_sight(const Trace& trace, const TraceMutation& mutation) {
    const Event& event = trace.events[mutation.event];
    const auto next = [&](auto&& wanted) {
        std::size_t at = mutation.event + 1;
        while (at < trace.events.size() && !wanted(trace.events[at])) ++at;
        return at;
    };
    const auto is_fence = [](const Event& each) { return each.kind == EventKind::fence; };
    if (mutation.kind == TraceMutation::Kind::drop_flush) {
        std::vector<LineNumber> dirty;
        for (LineNumber line = event.offset / kLineBytes; covers(event, line); ++line)
            if (is_dirty(trace, mutation.event, line)) dirty.push_back(line);
        if (dirty.empty()) return "nothing was stored to its lines since they were flushed";
        const std::size_t fence = next(is_fence);
        const bool again = std::all_of(dirty.begin(), dirty.end(), [&](LineNumber line) {
            return next([&](const Event& each) { return covers(each, line); }) < fence;
        });
        if (again) return "its lines are flushed again before the next fence";
    }
    if (mutation.kind == TraceMutation::Kind::drop_fence) {
        std::size_t at = mutation.event;
        while (at > 0 && !is_fence(trace.events[at - 1]) &&
               trace.events[at - 1].kind != EventKind::flush &&
               trace.events[at - 1].kind != EventKind::store_non_temporal)
            --at;
        if (at == 0 || is_fence(trace.events[at - 1]))
            return "nothing was flushed since the fence before it";
        const std::size_t fence = next(is_fence);
        if (fence < next([](const Event& each) {
                return is_store(each.kind) || each.kind == EventKind::acknowledge;
            }))
            return "the next fence comes before the next store";
    }
    return std::nullopt;
}

Result<std::vector<SystematicResult>> plant_everywhere(
    Subject& subject, const TracedRun& run, const std::vector<TraceMutation>& mutations,
    const Options& options, const std::function<void(const SystematicResult&)>& done) {
    const Symbols symbols(run.trace.modules);
    std::vector<SystematicResult> results;
    const NewStates new_states(run, options.platform);
    for (const TraceMutation& mutation : mutations) {
        SystematicResult result{.mutation = mutation, .place = {}, .text = {}};
        const Event& event = run.trace.events[mutation.event];
        result.place = to_string(event);
        TracedRun planted{.initial_image = run.initial_image,
                          .trace = mutated(run.trace, mutation),
                          .fingerprint = 0};
        const auto windows = new_states.of(planted.trace);
        const auto count = std::count_if(windows.begin(), windows.end(),
                                         [](const auto& each) { return each.has_value(); });
        if (count == 0) {
            result.fate = Fate::redundant;
            result.text =
                redundant_on_sight(run.trace, mutation)
                    .value_or("each state that it makes possible is possible with it too");
        } else {
            Options until_caught = options;
            until_caught.stop_after_violations = 1;
            const auto restrict = [&](CrashWindow& window) {
                const auto& found = windows.at(window.number);
                if (!found) return false;
                window.all_new = found->all_new;
                if (!found->all_new)
                    for (std::size_t i = 0; i < window.lines.size(); ++i)
                        window.lines[i].is_new = found->novelty[i];
                return true;
            };
            // First a little of every window: what is not durable is mostly missed only by the call
            // after the next, and the time may be over before the windows until then are explored
            // to the end.
            Options extremes = until_caught;
            extremes.states_per_window = std::min(kExtremes, options.states_per_window);
            auto outcome = explore(subject, planted, extremes, restrict);
            if (outcome && outcome->violations.empty()) {
                result.states = outcome->states;
                result.seconds = outcome->seconds;
                outcome = explore(subject, planted, until_caught, restrict);
            }
            if (!outcome) return std::unexpected(outcome.error());
            result.states += outcome->states;
            result.seconds += outcome->seconds;
            const auto exhaustive =
                std::count_if(outcome->windows.begin(), outcome->windows.end(),
                              [](const Coverage& window) { return window.exhaustive; });
            double states = 0, relevant = 0;
            std::string why_not;
            for (const Coverage& window : outcome->windows) {
                states += window.states;
                relevant += window.relevant;
                if (!window.why_not.empty()) why_not = window.why_not;
            }
            if (!outcome->violations.empty()) {
                result.fate = Fate::caught;
                result.text = outcome->violations.front().text;
            } else if (exhaustive == count && outcome->complete) {
                result.fate = Fate::harmless;
                result.text = fmt::format(
                    "{:.3g} new states in {} windows; of these {:.3g} differ in what is read, and "
                    "all are right",
                    states, count, relevant);
            } else {
                result.fate = Fate::unknown;
                result.text = fmt::format(
                    "{} of {} windows with new states explored to the end; one is not: {}",
                    exhaustive, count, why_not.empty() ? "stopped" : why_not);
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
