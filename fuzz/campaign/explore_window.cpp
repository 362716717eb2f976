#include "campaign/explore_window.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <numeric>
#include <random>

#include "trace/stable_hash.hpp"

namespace holdfast::crash {
namespace {

// States of one window whose recovery is crashed in its turn, and how many of each recovery's
// window.
constexpr std::size_t kRecoveriesPerWindow = 3;
constexpr std::uint64_t kStatesPerRecoveryWindow = 24;
// Of violations in one window only the first are reported: they are mostly the same bug.
constexpr std::size_t kViolationsPerWindow = 3;
constexpr std::chrono::seconds kReducedFor{10};  // at most, each
constexpr std::size_t kAuditedPerWindow = 8;
// States at which, after the extremes, reading is looked at line by line again.
constexpr std::size_t kLookedAtAgain = 2;

// A bit for each byte that is not the same in all candidates.
std::uint64_t differing_bytes(const std::vector<Candidate>& candidates) {
    std::uint64_t mask = 0;
    for (std::size_t byte = 0; byte < kLineBytes; ++byte)
        for (const Candidate& candidate : candidates)
            if (candidate.bytes[byte] != candidates.front().bytes[byte])
                mask |= std::uint64_t{1} << byte;
    return mask;
}

Choice visible_choice(const CrashWindow& window) {
    Choice choice;
    for (const PendingLine& line : window.lines)
        choice.push_back(static_cast<std::uint16_t>(line.candidates.size() - 1));
    return choice;
}

Choice random_choice(const CrashWindow& window, std::mt19937_64& random) {
    Choice choice;
    for (const PendingLine& line : window.lines)
        choice.push_back(static_cast<std::uint16_t>(random() % line.candidates.size()));
    return choice;
}

}  // namespace

Patches WindowExplorer::patches_of(const CrashWindow& window, const Choice& choice) const {
    Patches patches = below_;
    for (std::size_t i = 0; i < choice.size(); ++i)
        patches[window.lines[i].line] = window.lines[i].candidates[choice[i]].bytes;
    return patches;
}

WindowExplorer::Verdict WindowExplorer::judge_state(const CrashWindow& window,
                                                    const Choice& choice) {
    if (const auto known = observer_.before_state()) return {known->text, known->kind};
    return {.wrong = judge_.judge(patches_of(window, choice), window.moment)};
}

bool WindowExplorer::judge_once(const CrashWindow& window, const Choice& choice) {
    if (!judged_.contains(hash_of(choice))) note(window, choice, judge_state(window, choice));
    return observer_.go_on() && result_.violations.size() < options_.stop_after_violations;
}

// Lines that some check has read before overwriting them. What a check reads may depend on
// the state, so the explorer looks again at states in between, and begins anew with what it finds.
struct WindowExplorer::Relevance {
    ReadSet::Lines unread;           // lines that no check has read so far, their bytes that differ
    std::vector<std::size_t> lines;  // the others, indices into the window's

    void update(const CrashWindow& window) {
        lines.clear();
        for (std::size_t i = 0; i < window.lines.size(); ++i)
            if (!unread.contains(window.lines[i].line)) lines.push_back(i);
    }
};

bool WindowExplorer::read_more(const CrashWindow& window, const Choice& choice,
                               Relevance& relevance) {
    Verdict verdict;
    std::vector<LineNumber> read;
    if (const auto known = observer_.before_state())
        verdict = {known->text, known->kind};
    else
        verdict.wrong = judge_.judge_reading(patches_of(window, choice), window.moment,
                                             relevance.unread, &read);
    if (!judged_.contains(hash_of(choice))) note(window, choice, verdict);
    for (const LineNumber line : read) relevance.unread.erase(line);
    relevance.update(window);
    return !read.empty();
}

WindowExplorer::Relevance WindowExplorer::find_relevant(const CrashWindow& window) {
    Relevance relevance;
    for (const PendingLine& line : window.lines)
        relevance.unread[line.line] = differing_bytes(line.candidates);
    // The two extremes differ the most in what they lead to.
    read_more(window, Choice(window.lines.size()), relevance);
    read_more(window, visible_choice(window), relevance);
    relevance.update(window);
    return relevance;
}

void WindowExplorer::note(const CrashWindow& window, const Choice& choice, const Verdict& verdict) {
    const bool right = verdict.wrong.empty();
    judged_.insert(hash_of(choice));
    ++result_.states;
    if (!outer_.empty()) ++result_.nested_states;
    // Summed, since windows are judged in no order.
    StableHash verdict_hash;
    for (const TokenPart& outer : outer_) verdict_hash.add(outer.end_event);
    verdict_hash.add(window.number).add(hash_of(choice)).add(right ? 0 : 1);
    result_.verdict_hash += verdict_hash.value();
    if (right || result_.violations.size() >= kViolationsPerWindow) return;
    // What ends the process would end one more for each line that is tried.
    const Reduced reduced =
        verdict.kind != Violation::Kind::wrong
            ? Reduced{.choice = choice, .wrong = verdict.wrong, .kind = verdict.kind}
            : minimise(window, choice, verdict.wrong);
    result_.violations.push_back(violation_of(window, reduced));
}

// From the failing state towards nothing lost, and towards all lost: half of the lines are put
// where they would be there, then a quarter, at last one at a time, and stay if the state still
// fails. So of thousands of lines the few that matter are soon left. The base that passes and
// leaves the fewest lines tells the most.
WindowExplorer::Reduced WindowExplorer::minimise(const CrashWindow& window, const Choice& choice,
                                                 const std::string& wrong) {
    bool base_fails[2] = {};
    // What is not done by then would keep the campaign from ending when it is told to.
    const auto enough = std::chrono::steady_clock::now() + kReducedFor;
    const auto reduce = [&](bool to_visible) {
        const Choice base = to_visible ? visible_choice(window) : Choice(window.lines.size());
        Reduced reduced{.choice = choice, .wrong = wrong, .base_is_visible = to_visible};
        const auto take_if_wrong = [&](const Choice& candidate) {
            const Verdict verdict = judge_state(window, candidate);
            if (verdict.wrong.empty()) return false;
            reduced.choice = candidate;
            reduced.wrong = verdict.wrong;
            return true;
        };
        base_fails[to_visible ? 1 : 0] = take_if_wrong(base);
        for (std::size_t piece = std::bit_ceil(choice.size()); piece != 0; piece /= 2)
            for (std::size_t begin = 0; begin < choice.size(); begin += piece) {
                Choice fewer = reduced.choice;
                const std::size_t count = std::min(piece, choice.size() - begin);
                const auto from = static_cast<std::ptrdiff_t>(begin);
                std::copy_n(base.begin() + from, count, fewer.begin() + from);
                if (fewer == reduced.choice) continue;
                if (std::chrono::steady_clock::now() > enough) break;
                take_if_wrong(fewer);
            }
        for (std::size_t i = 0; i < choice.size(); ++i)
            if (reduced.choice[i] != base[i]) ++reduced.lines;
        return reduced;
    };
    const Reduced lost = reduce(true), early = reduce(false);
    const bool take_lost =
        base_fails[1] == base_fails[0] ? lost.lines <= early.lines : !base_fails[1];
    return take_lost ? lost : early;
}

RawViolation WindowExplorer::violation_of(const CrashWindow& window, const Reduced& reduced) const {
    RawViolation violation;
    violation.parts = outer_;
    violation.parts.push_back(TokenPart::of(window, reduced.choice, reduced.base_is_visible));
    violation.text = reduced.wrong;
    violation.kind = reduced.kind;
    violation.moment = window.moment;
    for (std::size_t i = 0; i < reduced.choice.size(); ++i) {
        const PendingLine& line = window.lines[i];
        const std::size_t base = reduced.base_is_visible ? line.candidates.size() - 1 : 0;
        if (reduced.choice[i] == base) continue;
        const Candidate& candidate = line.candidates[reduced.choice[i]];
        const auto& stores = reduced.base_is_visible ? candidate.missing : candidate.early;
        violation.lines.push_back({line.line, reduced.base_is_visible,
                                   stores.empty() ? window.end_event : stores.front()});
    }
    return violation;
}

WindowResult WindowExplorer::explore(const CrashWindow& window) {
    const auto begin = std::chrono::steady_clock::now();
    const JudgeTimes before = judge_.times();
    result_ = {};
    result_.number = window.number;
    judged_.clear();

    Coverage& coverage = result_.coverage;
    coverage.first_event = window.first_event;
    coverage.end_event = window.end_event;
    coverage.moment = window.moment;
    coverage.lines = window.lines.size();
    coverage.states = window.new_states();

    std::vector<std::size_t> relevant(window.lines.size());
    std::iota(relevant.begin(), relevant.end(), std::size_t{0});
    const ChooseOptions choose{.exploration = options_.exploration,
                               .at_most = options_.states_per_window,
                               .seed = options_.seed};
    const auto judge = [&](const Choice& choice) { return judge_once(window, choice); };

    const bool may_prune =
        options_.exploration >= Exploration::sampled && !subject_.is_other_program();
    if (may_prune && coverage.states > static_cast<double>(options_.states_per_window)) {
        Relevance relevance = find_relevant(window);
        std::mt19937_64 random(options_.seed * 31 + window.number);
        for (bool more = true; more && observer_.go_on();) {
            more = false;
            relevant = relevance.lines;
            coverage.exhaustive = choose_states(window, relevant, choose, judge);
            for (std::size_t i = 0; i < kLookedAtAgain && observer_.go_on() && !more; ++i)
                more = read_more(window, random_choice(window, random), relevance);
        }
        coverage.relevant = window.new_states(relevant);
        // The audit: states that differ from judged ones in lines only that do not matter.
        for (std::size_t i = 0; i < kAuditedPerWindow && observer_.go_on(); ++i) {
            Choice choice = random_choice(window, random);
            for (const std::size_t index : relevant)
                choice[index] = static_cast<std::uint16_t>(
                    i % 2 == 0 ? 0 : window.lines[index].candidates.size() - 1);
            const std::uint64_t states = result_.states;
            judge(choice);
            result_.audited += result_.states - states;
        }
    } else {
        coverage.relevant = coverage.states;
        coverage.exhaustive = choose_states(window, relevant, choose, judge);
    }
    if (!observer_.go_on()) coverage.exhaustive = false;
    if (!coverage.exhaustive) {
        if (options_.exploration != Exploration::full)
            coverage.why_not = fmt::format("explores {} only", to_string(options_.exploration));
        else if (!observer_.go_on())
            coverage.why_not = fmt::format("stopped, of {:.3g} states", coverage.relevant);
        else if (coverage.relevant > static_cast<double>(options_.states_per_window))
            coverage.why_not = fmt::format("{:.3g} states, {} allowed in a window",
                                           coverage.relevant, options_.states_per_window) +
                               (subject_.is_other_program()
                                    ? "; what a check in another process reads is not known"
                                    : "");
        else
            coverage.why_not = "a line with too many stores has more contents than were listed";
    }
    coverage.judged = result_.states;
    if (options_.depth >= 2 && subject_.has_recovery() && !subject_.is_other_program() &&
        options_.exploration >= Exploration::sampled)
        explore_recovery(window);

    const JudgeTimes& after = judge_.times();
    result_.patch_seconds = after.patch_seconds - before.patch_seconds;
    result_.check_seconds = after.check_seconds - before.check_seconds;
    result_.restore_seconds = after.restore_seconds - before.restore_seconds;
    result_.choose_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() -
        result_.patch_seconds - result_.check_seconds - result_.restore_seconds;
    return std::move(result_);
}

std::vector<std::byte> WindowExplorer::image_with(const Patches& patches) const {
    std::vector<std::byte> image(judge_.image().base().begin(), judge_.image().base().end());
    for (const auto& [line, bytes] : patches)
        std::copy(bytes.begin(), bytes.end(),
                  image.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes));
    return image;
}

Result<WindowResult> WindowExplorer::judge_only(const CrashWindow& window,
                                                const std::vector<TokenPart>& parts) {
    result_ = {};
    judged_.clear();
    auto choice = parts.front().choice(window);
    if (!choice) return std::unexpected(choice.error());
    if (parts.size() == 1) {
        judge_once(window, *choice);
        return std::move(result_);
    }
    below_ = patches_of(window, *choice);
    outer_ = {parts.front()};
    auto trace = judge_.trace_recovery(below_, options_.seconds_per_run);
    if (!trace) return std::unexpected(trace.error());
    const std::vector<std::byte> image = image_with(below_);
    CrashWindows windows(*trace, image, options_.platform, kLineLimit);
    while (windows.next()) {
        for (const auto& [line, bytes] : windows.newly_durable()) below_[line] = bytes;
        if (windows.window().end_event != parts[1].end_event) continue;
        CrashWindow inner = windows.window();
        inner.moment = window.moment;
        auto nested = parts[1].choice(inner);
        if (!nested) return std::unexpected(nested.error());
        judge_once(inner, *nested);
        return std::move(result_);
    }
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("the recovery has no crash window that ends at event {}", parts[1].end_event));
}

void WindowExplorer::explore_recovery(const CrashWindow& window) {
    // The two extremes, and what the program's order leaves in the middle of the window.
    std::vector<Choice> chosen;
    const auto add = [&](Choice choice) {
        if (chosen.size() < kRecoveriesPerWindow &&
            std::find(chosen.begin(), chosen.end(), choice) == chosen.end())
            chosen.push_back(std::move(choice));
    };
    add(Choice(window.lines.size()));
    add(visible_choice(window));
    add(window.in_program_order((window.first_event + window.end_event + 1) / 2));
    for (const Choice& choice : chosen) {
        if (!observer_.go_on()) return;
        explore_recovery_of(window, choice);
    }
}

void WindowExplorer::explore_recovery_of(const CrashWindow& window, const Choice& choice) {
    const Patches crashed = patches_of(window, choice);
    const auto wrong = [&](const std::string& text, Violation::Kind kind) {
        result_.violations.push_back(violation_of(
            window, {.choice = choice, .wrong = "its recovery: " + text, .kind = kind}));
    };
    if (const auto known = observer_.before_state()) return wrong(known->text, known->kind);
    auto trace = judge_.trace_recovery(crashed, options_.seconds_per_run);
    if (!trace) return wrong(trace.error().message, Violation::Kind::wrong);
    const std::vector<std::byte> image = image_with(crashed);
    CrashWindows windows(*trace, image, options_.platform, kLineLimit);
    outer_ = {TokenPart::of(window, choice)};
    below_ = crashed;
    judged_.clear();
    while (windows.next() && observer_.go_on()) {
        CrashWindow inner = windows.window();
        inner.moment = window.moment;
        for (const auto& [line, bytes] : windows.newly_durable()) below_[line] = bytes;
        std::vector<std::size_t> all(inner.lines.size());
        std::iota(all.begin(), all.end(), std::size_t{0});
        const ChooseOptions choose{.exploration = Exploration::full,
                                   .at_most = kStatesPerRecoveryWindow,
                                   .seed = options_.seed + window.number};
        choose_states(inner, all, choose, [&](const Choice& nested) {
            note(inner, nested, judge_state(inner, nested));
            return observer_.go_on();
        });
    }
    outer_.clear();
    below_.clear();
}

}  // namespace holdfast::crash
