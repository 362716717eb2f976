// crash run, replay, plant, mutants, workloads: the crash harness on holdfast's own workloads, and
// run and replay on other programs too.
#include <fmt/ranges.h>
#include <holdfast/crash.hpp>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <thread>

#include "arguments.hpp"
#include "commands.hpp"
#include "crash_interrupt.hpp"
#include "crash_report.hpp"
#include "crash_subject.hpp"
#include "judge/traced_run.hpp"
#include "mutants/mutant_classes.hpp"
#include "mutants/systematic.hpp"
#include "output.hpp"
#include "subjects/command_subject.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool {
namespace {

struct RunArguments {
    SubjectArguments subject;
    std::string out;
    std::string shard = "0/1";
    bool eadr = false;
    bool windows = false;
    std::optional<std::uint64_t> per_window;
    crash::Options options;
};

Outcome run(const Context& context, const RunArguments& arguments) {
    auto subject = make_subject(arguments.subject);
    if (!subject) return std::unexpected(subject.error());
    if (arguments.subject.is_program() && arguments.subject.check.empty())
        return fail(ErrorCode::invalid_argument, "there is no command to check with (--check)");
    crash::Options options = arguments.options;
    // A check that is a program of its own takes twenty times as long.
    if (arguments.per_window)
        options.states_per_window = *arguments.per_window;
    else if (arguments.subject.is_program())
        options.states_per_window = 200;
    options.platform = arguments.eadr ? crash::Platform::eadr : crash::Platform::adr;
    CrashProgress progress((*subject)->name());
    options.progress = [&](const crash::Progress& now) { progress.update(now); };
    auto outcome = crash::run(**subject, options);
    progress.clear();
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json)
        print_json(json_of(*outcome));
    else
        print_text(*outcome, arguments.windows, to_command_line(arguments.subject));
    if (!arguments.out.empty()) {
        std::ofstream file(arguments.out);
        file << json_of(*outcome).dump(2) << '\n';
        if (!file) return fail(ErrorCode::io, fmt::format("{} cannot be written", arguments.out));
    }
    return outcome->violations.empty() ? ExitStatus::well : ExitStatus::findings;
}

void declare_run(CLI::App& command, RunArguments& arguments) {
    crash::Options& options = arguments.options;
    options.jobs = std::max(1U, std::thread::hardware_concurrency());
    declare_subject(command, arguments.subject);
    declare_programs(command, arguments.subject, true);
    declare_limits(command, options);
    command.add_option("--states", options.states, "judge at most so many states");
    command
        .add_option("--per-window", arguments.per_window,
                    "explore a window to the end if it has no more states, otherwise extremes and "
                    "a sample; 2000 if not given, 200 of another program")
        ->check(CLI::PositiveNumber);
    command.add_option("--seconds", options.seconds, "stop after so long");
    command.add_option("--seed", options.seed, "of what is sampled")->capture_default_str();
    command.add_option("--jobs", options.jobs, "worker processes")
        ->capture_default_str()
        ->check(CLI::Range(1, 256));
    command.add_option("--depth", options.depth, "2: crash recovery too")
        ->capture_default_str()
        ->check(CLI::Range(1, 2));
    command
        .add_option_function<unsigned>(
            "--fill", [&](unsigned byte) { options.fill = static_cast<std::uint8_t>(byte); },
            "what pages hold that were never written, instead of 0")
        ->check(CLI::Range(0, 255));
    command.add_flag("--eadr", arguments.eadr, "a platform that saves its caches");
    command.add_flag("--windows", arguments.windows, "show the coverage of each crash window");
    command.add_option("--out", arguments.out, "write the result, as JSON, to a file too");
}

struct ReplayArguments {
    SubjectArguments subject;
    std::string token;
    crash::Options options;
};

Outcome replay(const Context& context, const ReplayArguments& arguments) {
    // The workload's name is the token's second field; if it was a file, the file is needed.
    const auto begin = arguments.token.find(':');
    const auto end = arguments.token.find(':', begin + 1);
    if (begin == std::string::npos || end == std::string::npos)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no token; `crash run` prints one with each violation",
                                arguments.token));
    SubjectArguments named = arguments.subject;
    named.workload = arguments.token.substr(begin + 1, end - begin - 1);
    if (named.workload.starts_with(crash::CommandSubject::kNamePrefix) && !named.is_program())
        return fail(ErrorCode::invalid_argument,
                    "the token is of another program: give its --setup, --run and --check too");
    auto subject = make_subject(named);
    if (!subject) return std::unexpected(subject.error());
    auto outcome = crash::replay(**subject, arguments.token, arguments.options);
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json)
        print_json(json_of(*outcome));
    else
        print_text(*outcome, false, to_command_line(arguments.subject));
    return outcome->violations.empty() ? ExitStatus::well : ExitStatus::findings;
}

struct PlantArguments {
    std::string workload = "map_one";
    std::vector<std::string> kinds;
    bool survivors = false;
    crash::Options options;
};

Outcome plant(const Context& context, const PlantArguments& arguments) {
    auto script = load_workload(arguments.workload);
    if (!script) return std::unexpected(script.error());
    crash::StoreWorkload workload(std::move(*script));
    auto run = crash::trace_run(workload, arguments.options.seconds_per_run, {});
    if (!run) return std::unexpected(run.error());
    std::vector<crash::TraceMutation> mutations;
    for (std::uint8_t i = 0; i < crash::kTraceMutationKinds; ++i) {
        const auto kind = static_cast<crash::TraceMutation::Kind>(i);
        const auto& kinds = arguments.kinds;
        if (std::find(kinds.begin(), kinds.end(), to_string(kind)) == kinds.end()) continue;
        const auto places = crash::places_for(run->trace, kind);
        mutations.insert(mutations.end(), places.begin(), places.end());
    }
    Json list = Json::array();
    std::map<crash::Fate, unsigned> counts;
    auto planted = crash::plant_everywhere(
        workload, *run, mutations, arguments.options, [&](const crash::SystematicResult& result) {
            ++counts[result.fate];
            const std::string& why =
                result.fate == crash::Fate::caught ? result.text : result.place;
            if (context.json)
                list.push_back({{"mutation", result.mutation.to_string()},
                                {"fate", to_string(result.fate)},
                                {"states", result.states},
                                {"seconds", result.seconds},
                                {"detail", why}});
            else if (!arguments.survivors || result.fate != crash::Fate::caught)
                print("{:<24} {:<10} {:>6} states  {}\n", result.mutation.to_string(),
                      to_string(result.fate), result.states, why.substr(0, 140));
        });
    if (!planted) return std::unexpected(planted.error());
    if (context.json)
        print_json(list);
    else
        print("{}: {} planted, {} caught, {} redundant, {} harmless, {} unknown\n",
              arguments.workload, planted->size(), counts[crash::Fate::caught],
              counts[crash::Fate::redundant], counts[crash::Fate::harmless],
              counts[crash::Fate::unknown]);
    return ExitStatus::well;
}

struct MutantsArguments {
    std::vector<unsigned> classes;
    crash::Options options;
};

Outcome mutants(const Context& context, const MutantsArguments& arguments) {
    Json list = Json::array();
    bool all_caught = true;
    if (!context.json)
        print("{:>2} {:<48} {:<32} {:>7} {:>6} {:>7} {:>8}  {}\n", "", "class", "planted", "places",
              "caught", "states", "seconds", "seen by exploring");
    auto results = crash::run_mutants(
        arguments.classes, arguments.options, [&](const crash::MutantResult& result) {
            all_caught = all_caught && result.caught != 0;
            std::vector<std::string> modes;
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
                print(
                    "{:>2} {:<48} {:<32} {:>7} {:>6} {:>7} {:>8.2f}  {}\n", result.class_number,
                    result.class_name, result.instance, result.planted, result.caught,
                    result.states, result.seconds,
                    result.caught == 0 ? "NOT CAUGHT" : fmt::format("{}", fmt::join(modes, ", ")));
        });
    if (!results) return std::unexpected(results.error());
    if (context.json) print_json({{"classes", list}});
    return all_caught ? ExitStatus::well : ExitStatus::findings;
}

struct WorkloadsArguments {};

Outcome list_workloads(const Context& context, const WorkloadsArguments&) {
    Json list = Json::array();
    for (const crash::NamedWorkload& workload : crash::workloads()) {
        if (context.json)
            list.push_back({{"name", workload.name}, {"about", workload.about}});
        else
            print("{:<20} {}\n", workload.name, workload.about);
    }
    if (context.json)
        print_json(list);
    else
        print("{:<20} {}\n", "mix-SEED[-CALLS]", "random calls over several spaces");
    return ExitStatus::well;
}

}  // namespace

void add_crash_commands(CLI::App& app, Context& context) {
    CLI::App* const crash = app.add_subcommand(
        "crash", "Crash a workload everywhere, reopen what is left, and judge it.");
    crash->require_subcommand(1);
    crash->fallthrough();
    crash->preparse_callback([](std::size_t) { end_campaigns_on_signals(); });
    add_command<RunArguments>(*crash, context, "run",
                              "Explore the crash states of a workload, or of another program "
                              "(--setup, --run, --check); the exit status is 1 if one "
                              "of them is wrong.",
                              declare_run, run);
    add_command<ReplayArguments>(
        *crash, context, "replay", "Judge one state again, which a token names.",
        [](CLI::App& command, ReplayArguments& arguments) {
            command.add_option("TOKEN", arguments.token, "as `crash run` prints it")->required();
            declare_programs(command, arguments.subject, true);
            declare_limits(command, arguments.options);
        },
        replay);
    add_command<PlantArguments>(
        *crash, context, "plant",
        "Leave out or misplace every flush, fence and store of a workload, one at a time, and see "
        "which of these bugs are noticed.",
        [](CLI::App& command, PlantArguments& arguments) {
            arguments.kinds = {"drop_flush", "drop_fence"};
            arguments.options.jobs = std::max(1U, std::thread::hardware_concurrency());
            arguments.options.depth = 1;
            command.add_option("--workload", arguments.workload, "as for `crash run`")
                ->capture_default_str();
            command.add_option("--kinds", arguments.kinds, "of bugs")
                ->delimiter(',')
                ->capture_default_str();
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
        *crash, context, "mutants",
        "Plant the bugs that persistent-memory programs have, class by class, and see whether the "
        "harness catches them; the exit status is 1 if one is not caught.",
        [](CLI::App& command, MutantsArguments& arguments) {
            arguments.options.jobs = std::max(1U, std::thread::hardware_concurrency());
            arguments.options.states_per_window = 300;
            command.add_option("--classes", arguments.classes, "by number; all without this")
                ->delimiter(',')
                ->check(CLI::Range(1, 26));
            command.add_option("--jobs", arguments.options.jobs, "worker processes")
                ->capture_default_str();
            command
                .add_option("--per-window", arguments.options.states_per_window,
                            "explore a window to the end if it has no more states")
                ->capture_default_str();
        },
        mutants);
    add_crash_trace_command(*crash, context);
    add_command<WorkloadsArguments>(
        *crash, context, "workloads", "List the workloads.", [](CLI::App&, WorkloadsArguments&) {},
        list_workloads);
}

}  // namespace holdfast::tool
