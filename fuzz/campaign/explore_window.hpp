// All of one window: which states, judged how, and what came of it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "campaign/token.hpp"
#include "judge/state_judge.hpp"

namespace holdfast::crash {

// A violation as a worker finds it; the campaign adds the names of stores.
struct RawViolation {
    std::vector<TokenPart> parts;
    Violation::Kind kind = Violation::Kind::wrong;
    std::string text;
    Moment moment;
    struct Line {
        LineNumber line = 0;
        bool lost = false;
        EventIndex store = 0;  // of the trace, or of the recovery's
    };
    std::vector<Line> lines;
};

struct WindowResult {
    Coverage coverage;
    std::uint64_t number = 0;
    std::uint64_t states = 0, nested_states = 0, audited = 0;
    std::uint64_t verdict_hash = 0;
    std::vector<RawViolation> violations;
    double choose_seconds = 0, patch_seconds = 0, check_seconds = 0, restore_seconds = 0;
};

// What the campaign wants to know while a window is explored, and whether to go on.
struct WindowObserver {
    // Before each state; how it ends the process, if that is known: then it stays unjudged.
    struct KnownEnd {
        Violation::Kind kind{};
        std::string text;
    };
    std::function<std::optional<KnownEnd>()> before_state;
    std::function<bool()> go_on;
};

class WindowExplorer {
  public:
    WindowExplorer(StateJudge& judge, Subject& subject, const Options& options,
                   const WindowObserver& observer)
        : judge_(judge), subject_(subject), options_(options), observer_(observer) {}

    WindowResult explore(const CrashWindow& window);
    // One state of it, or, with two parts, of the recovery of one state.
    Result<WindowResult> judge_only(const CrashWindow& window, const std::vector<TokenPart>& parts);

  private:
    struct Verdict {
        std::string wrong;
        // What is not `wrong` ended an earlier worker, and was not judged again.
        Violation::Kind kind = Violation::Kind::wrong;
    };
    // A failing state with as few lines as possible away from its base.
    struct Reduced {
        Choice choice;
        std::string wrong;
        Violation::Kind kind = Violation::Kind::wrong;
        bool base_is_visible = true;
        std::size_t lines = 0;
    };
    Verdict judge_state(const CrashWindow& window, const Choice& choice);
    std::vector<std::byte> image_with(const Patches& patches) const;
    Patches patches_of(const CrashWindow& window, const Choice& choice) const;
    // What no check reads cannot matter: which lines (indices) some check may read.
    struct Relevance;
    Relevance find_relevant(const CrashWindow& window);
    bool read_more(const CrashWindow& window, const Choice& choice, Relevance& relevance);
    bool judge_once(const CrashWindow& window, const Choice& choice);
    void note(const CrashWindow& window, const Choice& choice, const Verdict& verdict);
    Reduced minimise(const CrashWindow& window, const Choice& choice, const std::string& wrong);
    RawViolation violation_of(const CrashWindow& window, const Reduced& reduced) const;
    void explore_recovery(const CrashWindow& window);
    void explore_recovery_of(const CrashWindow& window, const Choice& choice);

    StateJudge& judge_;
    Subject& subject_;
    const Options& options_;
    const WindowObserver& observer_;
    WindowResult result_;
    Patches below_;  // under the window's lines: the crashed state whose recovery is crashed
    std::vector<TokenPart> outer_;
    std::unordered_set<std::uint64_t> judged_;  // by hash
};

}  // namespace holdfast::crash
