// crash plant, mutants: planted bugs, by which the crash harness is judged; crash faults: damage.
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <thread>

#include "arguments.hpp"
#include "commands.hpp"
#include "crash_subject.hpp"
#include "faults/media_faults.hpp"
#include "judge/traced_run.hpp"
#include "mutants/mutant_classes.hpp"
#include "mutants/systematic.hpp"
#include "output.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool {
namespace {

struct PlantArguments {
    std::string workload = "map_one";
    std::vector<std::string> kinds;
    std::size_t places = 0;
    std::vector<std::string> only;  // of these
    bool survivors = false;
    crash::Options options;
};

// Those that are named; otherwise of each kind all places, or so many, spread over the run.
std::vector<crash::TraceMutation> mutations_of(const crash::Trace& trace,
                                               const PlantArguments& arguments) {
    std::vector<crash::TraceMutation> mutations;
    if (!arguments.only.empty()) {
        for (std::uint8_t i = 0; i < crash::kTraceMutationKinds; ++i)
            for (const auto& place :
                 crash::places_for(trace, static_cast<crash::TraceMutation::Kind>(i)))
                if (std::find(arguments.only.begin(), arguments.only.end(), place.to_string()) !=
                    arguments.only.end())
                    mutations.push_back(place);
        return mutations;
    }
    for (std::uint8_t i = 0; i < crash::kTraceMutationKinds; ++i) {
        const auto kind = static_cast<crash::TraceMutation::Kind>(i);
        const auto& kinds = arguments.kinds;
        if (std::find(kinds.begin(), kinds.end(), to_string(kind)) == kinds.end()) continue;
        const auto places = crash::places_for(trace, kind);
        const std::size_t step =
            arguments.places == 0 ? 1 : (places.size() + arguments.places - 1) / arguments.places;
        for (std::size_t at = 0; at < places.size(); at += std::max<std::size_t>(1, step))
            mutations.push_back(places[at]);
    }
    return mutations;
}

// Prints or lists each bug.
Result<void> plant_in(const Context& context, const PlantArguments& arguments,
                      const std::string& name, Json& list) {
    auto script = load_workload(name);
    if (!script) return std::unexpected(script.error());
    crash::StoreWorkload workload(std::move(*script));
    auto run = crash::trace_run(workload, arguments.options.seconds_per_run, {});
    if (!run) return std::unexpected(run.error());
    const std::vector<crash::TraceMutation> mutations = mutations_of(run->trace, arguments);
    if (!arguments.only.empty() && mutations.size() != arguments.only.size())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has not all of these places; `crash plant` without --only "
                                "prints those it has",
                                name));
    std::map<crash::Fate, unsigned> counts;
    std::map<std::string, unsigned> why_redundant;
    auto planted = crash::plant_everywhere(
        workload, *run, mutations, arguments.options, [&](const crash::SystematicResult& result) {
            ++counts[result.fate];
            if (result.fate == crash::Fate::redundant) ++why_redundant[result.text];
            if (context.json)
                list.push_back({{"workload", name},
                                {"mutation", result.mutation.to_string()},
                                {"fate", to_string(result.fate)},
                                {"states", result.states},
                                {"seconds", result.seconds},
                                {"place", result.place},
                                {"detail", result.text}});
            else if (!arguments.survivors || result.fate != crash::Fate::caught)
                print("{:<24} {:<10} {:>6} states  {}\n", result.mutation.to_string(),
                      to_string(result.fate), result.states,
                      result.fate == crash::Fate::caught
                          ? result.text.substr(0, 140)
                          : fmt::format("{}: {}", result.text, result.place.substr(0, 140)));
        });
    if (!planted) return std::unexpected(planted.error());
    if (!context.json) {
        print("{}: {} planted, {} caught, {} redundant, {} harmless, {} unknown\n", name,
              planted->size(), counts[crash::Fate::caught], counts[crash::Fate::redundant],
              counts[crash::Fate::harmless], counts[crash::Fate::unknown]);
        for (const auto& [why, count] : why_redundant) print("  {:>4} redundant: {}\n", count, why);
    }
    return {};
}

Outcome plant(const Context& context, const PlantArguments& arguments) {
    std::vector<std::string> names = {arguments.workload};
    if (arguments.workload == "all") {
        names.clear();
        for (const crash::NamedWorkload& each : crash::workloads()) names.emplace_back(each.name);
    }
    Json list = Json::array();
    for (const std::string& name : names)
        if (auto done = plant_in(context, arguments, name, list); !done)
            return std::unexpected(done.error());
    if (context.json) print_json(list);
    return ExitStatus::well;
}

struct MutantsArguments {
    std::vector<unsigned> classes;
    bool first_only = false;
    crash::Options options;
};

Outcome mutants(const Context& context, const MutantsArguments& arguments) {
    Json list = Json::array();
    bool all_caught = true;
    if (!context.json)
        print("{:>2} {:<48} {:<32} {:>7} {:>6} {:>7} {:>8}  {}\n", "", "class", "planted", "places",
              "caught", "states", "seconds", "seen by exploring");
    const auto done = [&](const crash::MutantResult& result) {
        all_caught = all_caught && result.caught != 0;
        std::vector<std::string> modes;
        modes.reserve(result.modes.size());
        for (const crash::Exploration mode : result.modes) modes.push_back(to_string(mode));
        if (context.json)
            list.push_back({{"class", result.class_number},
                            {"name", result.class_name},
                            {"instance", result.instance},
                            {"planted", result.planted},
                            {"caught", result.caught},
                            {"states", result.states},
                            {"seconds", result.seconds},
                            {"modes", modes},
                            {"text", result.text}});
        else
            print("{:>2} {:<48} {:<32} {:>7} {:>6} {:>7} {:>8.2f}  {}\n", result.class_number,
                  result.class_name, result.instance, result.planted, result.caught, result.states,
                  result.seconds,
                  result.caught == 0 ? "NOT CAUGHT" : fmt::format("{}", fmt::join(modes, ", ")));
    };
    auto results = crash::run_mutants({.classes = arguments.classes,
                                       .explore = arguments.options,
                                       .first_only = arguments.first_only,
                                       .done = done});
    if (!results) return std::unexpected(results.error());
    if (context.json) print_json({{"classes", list}});
    return all_caught ? ExitStatus::well : ExitStatus::findings;
}

struct FaultsArguments {
    std::string workload = "transaction";
    crash::FaultOptions options;
};

Json json_of(const crash::CountsByStructure& counts) {
    Json list = Json::array();
    for (const auto& [name, of] : counts)
        list.push_back({{"structure", name},
                        {"tried", of.tried},
                        {"noticed", of.noticed},
                        {"harmless", of.harmless},
                        {"wrong", of.wrong},
                        {"killed", of.killed},
                        {"hung", of.hung}});
    return list;
}

Json json_of(const std::string& workload, const crash::FaultOutcome& outcome) {
    Json violations = Json::array();
    for (const auto& violation : outcome.violations)
        violations.push_back({{"fault", violation.fault.to_string()},
                              {"where", violation.where},
                              {"text", violation.text}});
    return {{"workload", workload},
            {"faults", outcome.faults},
            {"seconds", outcome.seconds},
            {"structures", json_of(outcome.at_rest)},
            {"crash_states",
             {{"states", outcome.crash_states},
              {"before", outcome.crash_states_before},
              {"after", outcome.crash_states - outcome.crash_states_before},
              {"structures", json_of(outcome.crashed)}}},
            {"libpmemobj", json_of(outcome.libpmemobj)},
            {"violations", violations}};
}

void print_counts(const std::string& title, const crash::CountsByStructure& counts) {
    if (counts.empty()) return;
    print("{}\n  {:<26} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", title, "structure", "tried",
          "noticed", "harmless", "wrong", "killed", "hung");
    for (const auto& [name, of] : counts)
        print("  {:<26} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n", name, of.tried, of.noticed,
              of.harmless, of.wrong, of.killed, of.hung);
}

void print_text(const crash::FaultOutcome& outcome) {
    print_counts("the store at rest", outcome.at_rest);
    print_counts(fmt::format("{} crash states, damaged before they are opened ({} before, {} after "
                             "the call in flight)",
                             outcome.crash_states, outcome.crash_states_before,
                             outcome.crash_states - outcome.crash_states_before),
                 outcome.crashed);
    print_counts("libpmemobj's own structures, of both: its to notice, no violation if it does not",
                 outcome.libpmemobj);
    for (const auto& violation : outcome.violations)
        print("VIOLATION {}, {}: {}\n", violation.fault.to_string(), violation.where,
              violation.text);
    print("{} faults in {:.1f} s; {} violations\n", outcome.faults, outcome.seconds,
          outcome.violations.size());
}

Outcome faults(const Context& context, const FaultsArguments& arguments) {
    auto script = load_workload(arguments.workload);
    if (!script) return std::unexpected(script.error());
    auto outcome = crash::run_media_faults(*script, arguments.options);
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json)
        print_json(json_of(arguments.workload, *outcome));
    else
        print_text(*outcome);
    return outcome->violations.empty() ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace

void add_crash_mutant_commands(CLI::App& crash, Context& context) {
    add_command<PlantArguments>(
        crash, context, "plant",
        "Leave out or misplace every flush, fence and store of a workload, one at a time, and see "
        "which of these bugs are noticed.",
        [](CLI::App& command, PlantArguments& arguments) {
            arguments.kinds = {"drop_flush", "drop_fence"};
            arguments.options.jobs = std::max(1U, std::thread::hardware_concurrency());
            arguments.options.depth = 1;
            command
                .add_option("--workload", arguments.workload,
                            "as for `crash run`; or all, one after the other")
                ->capture_default_str();
            command.add_option("--kinds", arguments.kinds, "of bugs")
                ->delimiter(',')
                ->capture_default_str();
            command.add_option("--places", arguments.places,
                               "of each kind so many, spread over the run; without this, all");
            command
                .add_option("--only", arguments.only,
                            "these places, as they are printed: drop_flush@263,drop_fence@269")
                ->delimiter(',');
            command.add_option("--seconds", arguments.options.seconds,
                               "for each; what is not explored by then is unknown");
            command.add_option("--jobs", arguments.options.jobs, "worker processes")
                ->capture_default_str();
            command
                .add_option("--per-window", arguments.options.states_per_window,
                            "explore a window to the end if it has no more states")
                ->capture_default_str();
            command.add_flag("--survivors", arguments.survivors, "show what is not caught only");
        },
        plant);
    add_command<MutantsArguments>(
        crash, context, "mutants",
        "Plant the bugs that persistent-memory programs have, class by class, and see whether the "
        "harness catches them; the exit status is 1 if one is not caught.",
        [](CLI::App& command, MutantsArguments& arguments) {
            arguments.options.jobs = std::max(1U, std::thread::hardware_concurrency());
            arguments.options.states_per_window = 300;
            command.add_option("--classes", arguments.classes, "by number; all without this")
                ->delimiter(',')
                ->check(CLI::Range(1, 26));
            command.add_flag("--first-only", arguments.first_only,
                             "of each, stop at the first place that is caught");
            command.add_option("--jobs", arguments.options.jobs, "worker processes")
                ->capture_default_str();
            command
                .add_option("--per-window", arguments.options.states_per_window,
                            "explore a window to the end if it has no more states")
                ->capture_default_str();
        },
        mutants);
    add_command<FaultsArguments>(
        crash, context, "faults",
        "Damage a store's structures bit by bit and line by line, at rest and in what a crash has "
        "left: each damage must be noticed or harmless. What libpmemobj makes of damage to its own "
        "is counted.",
        [](CLI::App& command, FaultsArguments& arguments) {
            command.add_option("--workload", arguments.workload, "that makes the store")
                ->capture_default_str();
            command
                .add_option("--bits", arguments.options.bits_per_structure,
                            "flip so many of each structure; 0 is all")
                ->capture_default_str();
            command
                .add_option("--crash-states", arguments.options.crash_states,
                            "damage so many of the states in which a crash may leave the "
                            "workload's calls")
                ->capture_default_str();
            command
                .add_option("--per-state", arguments.options.faults_per_crash_state,
                            "faults in each of these")
                ->capture_default_str()
                ->check(CLI::PositiveNumber);
            command
                .add_option("--libpmemobj", arguments.options.libpmemobj_faults,
                            "faults in libpmemobj's own structures, at rest and in each crash "
                            "state; 0 is none")
                ->capture_default_str();
            command.add_option("--seed", arguments.options.seed, "of the choice")
                ->capture_default_str();
        },
        faults);
}

}  // namespace holdfast::tool
