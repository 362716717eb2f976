#include "faults/media_faults.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>

#include "explore/choose_states.hpp"
#include "faults/answers.hpp"
#include "faults/fault_runner.hpp"
#include "faults/libpmemobj_structures.hpp"
#include "faults/structures.hpp"
#include "judge/child_process.hpp"
#include "judge/crash_image.hpp"
#include "judge/scratch_folder.hpp"
#include "judge/traced_run.hpp"
#include "subjects/store_workload.hpp"

namespace holdfast::crash {
namespace {

constexpr OpenOptions kOpen{.emulation = PmemEmulation::on};

using Bytes = std::vector<std::byte>;

// A pool to be damaged.
struct Pool {
    Bytes content;
    std::string where;
    // What the store is once it is opened.
    Answers answers;
    std::vector<FaultPlace> structures;
};

// A state that a crash may leave.
struct CrashState {
    Bytes content;
    Moment moment;
    std::string where;
};

// Calls `take` with the chosen states of the windows in which a call is in flight.
class CrashStates {
  public:
    CrashStates(const TracedRun& run, const FaultOptions& options) : run_(run), options_(options) {}

    Result<void> visit(const std::function<Result<void>(CrashState)>& take) {
        std::uint64_t windows = 0;
        for (CrashWindows each = begin(); each.next();) windows += is_wanted(each.window());
        const std::uint64_t states = windows * kStatesOfWindow;
        if (states == 0 || options_.crash_states == 0) return {};
        const std::uint64_t stride = std::max<std::uint64_t>(1, states / options_.crash_states);
        Bytes base = run_.initial_image;
        std::uint64_t number = 0, taken = 0;
        for (CrashWindows each = begin(); each.next();) {
            const CrashWindow& window = each.window();
            for (const auto& [line, bytes] : each.newly_durable()) put(base, line, bytes);
            if (!is_wanted(window)) continue;
            for (std::uint64_t i = 0; i < kStatesOfWindow; ++i, ++number) {
                if (number % stride != options_.seed % stride || taken == options_.crash_states)
                    continue;
                ++taken;
                CrashState state{base, window.moment, {}};
                const Choice choice = choose(window, i, state.where);
                for (std::size_t k = 0; k < choice.size(); ++k)
                    put(state.content, window.lines[k].line,
                        window.lines[k].candidates[choice[k]].bytes);
                if (auto done = take(std::move(state)); !done) return done;
            }
        }
        return {};
    }

  private:
    static constexpr std::uint64_t kStatesOfWindow = 3;

    CrashWindows begin() const {
        return {run_.trace, run_.initial_image, Platform::adr, kLineLimit};
    }
    // Not while the store is made: it may be refused then.
    bool is_wanted(const CrashWindow& window) const {
        return window.moment.in_flight && !window.lines.empty();
    }

    static void put(Bytes& content, LineNumber line, const LineBytes& bytes) {
        std::copy(bytes.begin(), bytes.end(),
                  content.begin() + static_cast<std::ptrdiff_t>(line * kLineBytes));
    }

    Choice choose(const CrashWindow& window, std::uint64_t which, std::string& where) const {
        static constexpr const char* kNames[] = {"all lost", "nothing lost", "some lost"};
        where = fmt::format("window {} (events {} to {}), {}", window.number, window.first_event,
                            window.end_event, kNames[which]);
        std::mt19937_64 random(options_.seed * 0x9e37'79b9 + window.number);
        Choice choice;
        for (const PendingLine& line : window.lines) {
            const std::size_t count = line.candidates.size();
            choice.push_back(static_cast<std::uint16_t>(which == 0   ? 0
                                                        : which == 1 ? count - 1
                                                                     : random() % count));
        }
        return choice;
    }

    const TracedRun& run_;
    const FaultOptions& options_;
};

class Campaign {
  public:
    explicit Campaign(const FaultOptions& options) : options_(options) {}

    Result<FaultOutcome> run(const Script& script) {
        const auto begin = std::chrono::steady_clock::now();
        if (options_.at_rest)
            if (auto done = damage_at_rest(script); !done) return std::unexpected(done.error());
        // What a crash leaves of a store that is being made may be refused.
        if (!script.crashes_creation && options_.crash_states != 0)
            if (auto done = damage_crashed(script); !done) return std::unexpected(done.error());
        outcome_.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return std::move(outcome_);
    }

  private:
    Result<void> damage_at_rest(const Script& script) {
        const ScratchFolder folder;
        const std::string path = folder.path() + "/pool";
        // All of the workload is set-up here.
        Script whole = script;
        whole.set_up.insert(whole.set_up.end(), script.operations.begin(), script.operations.end());
        whole.operations.clear();
        whole.crashes_creation = false;
        StoreWorkload workload(whole);
        if (auto made = run_in_child("the set-up", 60, [&] { return workload.set_up(path); });
            !made)
            return made;
        auto content = read_file(path);
        if (!content) return std::unexpected(content.error());
        Pool pool{std::move(*content), "at rest", {}, {}};
        if (auto asked = ask(pool, {}); !asked) return asked;
        const FaultChoice all{.bits_per_structure = options_.bits_per_structure,
                              .seed = options_.seed};
        return damage(pool, all, outcome_.at_rest);
    }

    Result<void> damage_crashed(const Script& script) {
        StoreWorkload workload(script);
        auto run = trace_run(workload, 60, {});
        if (!run) return std::unexpected(run.error());
        return CrashStates(*run, options_).visit([&](CrashState state) {
            return damage_state(workload, std::move(state));
        });
    }

    Result<void> damage_state(StoreWorkload& workload, CrashState state) {
        Pool pool{std::move(state.content), state.where, {}, {}};
        // Undamaged, it must be right: what is wrong with it is not the damage's doing.
        const auto wrong =
            run_in_child_with_answer("the check of " + state.where, options_.seconds_per_check,
                                     [&]() -> Result<std::string> {
                                         auto image = CrashImage::create(pool.content);
                                         if (!image) return std::unexpected(image.error());
                                         return workload.check(image->path(), state.moment);
                                     });
        if (!wrong) return std::unexpected(wrong.error());
        if (!wrong->empty())
            return fail(ErrorCode::damaged,
                        fmt::format("{} is wrong without any damage: {}; `crash run --workload {}` "
                                    "says more",
                                    state.where, *wrong, workload.name()));
        std::optional<bool> is_after;
        const auto note = [&](const Store& store) {
            is_after = workload.is_after(store, state.moment);
        };
        if (auto asked = ask(pool, note); !asked) return asked;
        if (!is_after)
            return fail(ErrorCode::damaged,
                        state.where + " is neither before nor after the call in flight");
        ++outcome_.crash_states;
        if (!*is_after) ++outcome_.crash_states_before;
        // Each state with faults of its own.
        const FaultChoice some{.bits_per_structure = options_.bits_per_structure,
                               .at_most = options_.faults_per_crash_state,
                               .seed = options_.seed * 1000 + outcome_.crash_states};
        return damage(pool, some, outcome_.crashed);
    }

    // Opens a copy of the pool, in this process: a process opens a pool once at a time, and the
    // judges open copies of the same one.
    static Result<void> ask(Pool& pool, const std::function<void(const Store&)>& also) {
        auto image = CrashImage::create(pool.content);
        if (!image) return std::unexpected(image.error());
        auto store = Store::open(image->path(), kOpen);
        if (!store) return std::unexpected(store.error());
        auto answers = answers_of(*store);
        if (!answers) return std::unexpected(answers.error());
        pool.answers = std::move(*answers);
        auto structures = structures_of(*store);
        if (!structures) return std::unexpected(structures.error());
        for (const Structure& each : *structures) {
            std::string what_of;
            if (each.kind == StructureKind::table)
                what_of = fmt::format("{} of {}, {}", each.name, each.position.owner,
                                      each.position.index);
            pool.structures.push_back(
                {each.name, each.offset, each.size_bytes(), each.is_frame(), what_of});
        }
        if (also) also(*store);
        return {};
    }

    Result<void> damage(const Pool& pool, const FaultChoice& choice, CountsByStructure& counts) {
        const auto ours = choose_faults(pool.structures, choice);
        auto judged = judge_faults(pool.content, pool.answers, ours, options_.seconds_per_check);
        if (!judged) return std::unexpected(judged.error());
        count(ours, *judged, counts);
        for (std::size_t i = 0; i < ours.size(); ++i)
            if ((*judged)[i].fate > FaultFate::harmless)
                outcome_.violations.push_back({ours[i], pool.where, (*judged)[i].text});

        if (options_.libpmemobj_faults == 0) return {};
        const auto places = libpmemobj_structures(pool.content);
        if (!places) return std::unexpected(places.error());
        const auto theirs = choose_faults(*places, {.bits_per_structure = 200,
                                                    .at_most = options_.libpmemobj_faults,
                                                    .seed = choice.seed});
        judged = judge_faults(pool.content, pool.answers, theirs,
                              std::min(options_.seconds_per_check, kSecondsOfLibpmemobj));
        if (!judged) return std::unexpected(judged.error());
        count(theirs, *judged, outcome_.libpmemobj);
        return {};
    }

    void count(const std::vector<MediaFault>& faults, const std::vector<JudgedFault>& judged,
               CountsByStructure& counts) {
        for (std::size_t i = 0; i < faults.size(); ++i) {
            FaultCounts& of = counts[faults[i].structure];
            const FaultFate fate = judged[i].fate;
            ++of.tried;
            of.noticed += fate == FaultFate::noticed;
            of.harmless += fate == FaultFate::harmless;
            of.wrong += fate == FaultFate::wrong;
            of.killed += fate == FaultFate::killed;
            of.hung += fate == FaultFate::hung;
        }
        outcome_.faults += faults.size();
    }

    // Its hangs are expected.
    static constexpr double kSecondsOfLibpmemobj = 2;

    const FaultOptions& options_;
    FaultOutcome outcome_;
};

}  // namespace

Result<FaultOutcome> run_media_faults(const Script& script, const FaultOptions& options) {
    return Campaign(options).run(script);
}

}  // namespace holdfast::crash
