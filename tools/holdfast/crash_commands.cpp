// crash run, replay, shrink, merge, workloads: the crash harness on holdfast's own workloads, and
// run and replay on other programs too.
#include <holdfast/crash.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <thread>

#include "arguments.hpp"
#include "campaign/explore.hpp"
#include "campaign/token.hpp"
#include "commands.hpp"
#include "crash_interrupt.hpp"
#include "crash_report.hpp"
#include "crash_subject.hpp"
#include "output.hpp"
#include "subjects/command_subject.hpp"
#include "subjects/import_workload.hpp"
#include "subjects/shrink.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool {
namespace {

// A campaign over the subject's run, or over that with a bug planted in it.
Result<crash::Outcome> run_planted(crash::Subject& subject, const std::string& plant,
                                   const crash::Options& options) {
    if (plant.empty()) return crash::run(subject, options);
    auto run = trace_planted(subject, plant, options);
    if (!run) return std::unexpected(run.error());
    return crash::explore(subject, *run, options);
}

struct RunArguments {
    SubjectArguments subject;
    std::string json_file;
    bool json = false;
    std::string shard = "0/1";
    bool eadr = false;
    bool windows = false;
    std::string plant;
    std::optional<std::uint64_t> per_window;
    crash::Options options;
};

Outcome run(const Context& context, const RunArguments& arguments) {
    auto subject = make_subject(arguments.subject);
    if (!subject) return std::unexpected(subject.error());
    if (arguments.subject.is_program() && arguments.subject.check.empty())
        return fail(ErrorCode::invalid_argument, "there is no command to check with (--check)");
    crash::Options options = arguments.options;
    if (std::sscanf(arguments.shard.c_str(), "%u/%u", &options.shard, &options.shards) != 2 ||
        options.shard >= options.shards)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no shard; 0/4 is the first of four", arguments.shard));
    // A check that is a program of its own takes twenty times as long.
    if (arguments.per_window)
        options.states_per_window = *arguments.per_window;
    else if (arguments.subject.is_program())
        options.states_per_window = 200;
    options.platform = arguments.eadr ? crash::Platform::eadr : crash::Platform::adr;
    CrashProgress progress((*subject)->name());
    options.progress = [&](const crash::Progress& now) { progress.update(now); };
    auto outcome = run_planted(**subject, arguments.plant, options);
    progress.clear();
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json || (arguments.json && arguments.json_file.empty()))
        print_json(json_of(*outcome));
    else
        print_text(*outcome, arguments.windows, to_command_line(arguments.subject));
    if (!arguments.json_file.empty()) {
        std::ofstream file(arguments.json_file);
        file << json_of(*outcome).dump(2) << '\n';
        file.close();
        if (!file)
            return fail(ErrorCode::io, fmt::format("{} cannot be written", arguments.json_file));
    }
    return outcome->violations.empty() ? ExitStatus::well : ExitStatus::findings;
}

void declare_run(CLI::App& command, RunArguments& arguments) {
    crash::Options& options = arguments.options;
    options.jobs = std::max(1U, std::thread::hardware_concurrency());
    declare_subject(command, arguments.subject);
    declare_programs(command, arguments.subject, true);
    declare_limits(command, options);
    declare_plant(command, arguments.plant);
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
    command
        .add_option("--shard", arguments.shard,
                    "k/n: only every n-th window, from k on; `crash merge` puts them together")
        ->capture_default_str();
    command
        .add_option_function<std::vector<std::string>>(
            "--json",
            [&](const std::vector<std::string>& file) {
                arguments.json = true;
                if (!file.empty()) arguments.json_file = file.front();
            },
            "answer in JSON; with a FILE, write that there")
        ->expected(0, 1)
        ->type_name("[FILE]");
}

struct ReplayArguments {
    SubjectArguments subject;
    std::string token, plant;
    crash::Options options;
};

Result<crash::Outcome> replay_planted(crash::Subject& subject, const ReplayArguments& arguments) {
    if (arguments.plant.empty()) return crash::replay(subject, arguments.token, arguments.options);
    const auto token = crash::Token::parse(arguments.token);
    if (!token) return std::unexpected(token.error());
    auto run = trace_planted(subject, arguments.plant, arguments.options);
    if (!run) return std::unexpected(run.error());
    return crash::replay_run(subject, *run, *token, arguments.options);
}

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
    auto outcome = replay_planted(**subject, arguments);
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json)
        print_json(json_of(*outcome));
    else
        print_text(*outcome, false, to_command_line(arguments.subject));
    return outcome->violations.empty() ? ExitStatus::well : ExitStatus::findings;
}

struct ShrinkArguments {
    std::string token, plant, out;
    crash::Options options;
};

Outcome shrink(const Context& context, const ShrinkArguments& arguments) {
    const auto token = crash::Token::parse(arguments.token);
    if (!token) return std::unexpected(token.error());
    auto script = load_workload(token->subject);
    if (!script) return std::unexpected(script.error());
    crash::Options options = arguments.options;
    options.platform = token->platform;
    options.depth = token->parts.size() > 1 ? 2 : 1;
    options.stop_after_violations = 1;
    crash::Outcome last;
    const auto fails = [&](const crash::Script& candidate) -> Result<bool> {
        crash::StoreWorkload workload(candidate);
        auto outcome = run_planted(workload, arguments.plant, options);
        if (!outcome) return std::unexpected(outcome.error());
        if (outcome->violations.empty()) return false;
        last = std::move(*outcome);
        return true;
    };
    const auto still = fails(*script);
    if (!still) return std::unexpected(still.error());
    if (!*still)
        return fail(
            ErrorCode::not_found,
            fmt::format("{} does not fail any more: there is nothing to shrink", token->subject));
    auto shortest = crash::shrink(*script, fails);
    if (!shortest) return std::unexpected(shortest.error());
    // Tokens name a workload; this one has a name once it is a file.
    shortest->name = arguments.out.empty() ? token->subject + "-shortened"
                                           : arguments.out.substr(arguments.out.rfind('/') + 1);
    const auto again = fails(*shortest);
    if (!again) return std::unexpected(again.error());
    const std::string text =
        fmt::format("# {}\n{}", last.violations.front().text, shortest->to_text());
    if (!arguments.out.empty()) {
        std::ofstream file(arguments.out);
        file << text;
        file.close();
        if (!file) return fail(ErrorCode::io, fmt::format("{} cannot be written", arguments.out));
    }
    if (context.json)
        print_json({{"workload", shortest->to_text()}, {"result", json_of(last)}});
    else if (arguments.out.empty())
        print("{}", text);
    else
        print_text(last, false, "");
    return ExitStatus::findings;
}

struct MergeArguments {
    std::vector<std::string> files;
};

Outcome merge(const Context& context, const MergeArguments& arguments) {
    std::vector<Json> results;
    for (const std::string& name : arguments.files) {
        std::ifstream file(name);
        Json json = file ? Json::parse(file, nullptr, false) : Json();
        if (!json.is_object() || !json.contains("verdict_hash") || !json.contains("workload"))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{} is no result of `crash run --json FILE`", name));
        if (!results.empty() && json["workload"] != results.front()["workload"])
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{} is of workload {}, {} is of {}", name,
                                    json["workload"].get<std::string>(), arguments.files.front(),
                                    results.front()["workload"].get<std::string>()));
        results.push_back(std::move(json));
    }
    const Json merged = merged_results(results);
    if (context.json)
        print_json(merged);
    else
        print_merged(merged);
    return merged["violations"].empty() ? ExitStatus::well : ExitStatus::findings;
}

struct WorkloadsArguments {};

Outcome list_workloads(const Context& context, const WorkloadsArguments&) {
    Json list = Json::array();
    const auto add = [&](const char* name, const char* about) {
        if (context.json)
            list.push_back({{"name", name}, {"about", about}});
        else
            print("{:<20} {}\n", name, about);
    };
    for (const crash::NamedWorkload& workload : crash::workloads())
        add(workload.name, workload.about);
    add(crash::ImportWorkload::kName, crash::ImportWorkload::kAbout);
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
            declare_plant(command, arguments.plant);
        },
        replay);
    add_command<ShrinkArguments>(
        *crash, context, "shrink",
        "Find the shortest workload that fails as the token's does, and print it as a file for "
        "--workload.",
        [](CLI::App& command, ShrinkArguments& arguments) {
            arguments.options.jobs = std::max(1U, std::thread::hardware_concurrency());
            arguments.options.states_per_window = 400;
            command.add_option("TOKEN", arguments.token, "as `crash run` prints it")->required();
            command.add_option("--out", arguments.out,
                               "write the workload there, and print its own token, which `crash "
                               "replay` takes in that file's folder");
            declare_plant(command, arguments.plant);
        },
        shrink);
    add_command<MergeArguments>(
        *crash, context, "merge",
        "Put the results of shards together, as `crash run --json FILE` wrote them.",
        [](CLI::App& command, MergeArguments& arguments) {
            command.add_option("FILE", arguments.files, "results of one workload")->required();
        },
        merge);
    add_crash_mutant_commands(*crash, context);
    add_crash_trace_command(*crash, context);
    add_command<WorkloadsArguments>(
        *crash, context, "workloads", "List the workloads.", [](CLI::App&, WorkloadsArguments&) {},
        list_workloads);
}

}  // namespace holdfast::tool
