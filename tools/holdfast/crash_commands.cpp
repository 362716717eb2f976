// crash run, workloads: the crash harness on holdfast's own workloads.
#include <holdfast/crash.hpp>

#include <fmt/ranges.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "arguments.hpp"
#include "commands.hpp"
#include "crash_report.hpp"
#include "output.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool {
namespace {

struct RunArguments {
    std::string workload = "map_one";
    std::string out;
    std::string shard = "0/1";
    bool eadr = false;
    bool windows = false;
    crash::Options options;
};

// A file with a script, or a name.
Result<crash::Script> load_workload(const std::string& name) {
    std::ifstream file(name);
    if (name.find('/') == std::string::npos && !name.ends_with(".txt") && !file.good())
        return crash::find_workload(name);
    if (!file.good()) return fail(ErrorCode::not_found, fmt::format("{}: no such workload", name));
    std::ostringstream text;
    text << file.rdbuf();
    return crash::Script::parse(name.substr(name.rfind('/') + 1), text.str());
}

Outcome run(const Context& context, const RunArguments& arguments) {
    auto script = load_workload(arguments.workload);
    if (!script) return std::unexpected(script.error());
    crash::Options options = arguments.options;
    options.platform = arguments.eadr ? crash::Platform::eadr : crash::Platform::adr;
    CrashProgress progress(script->name);
    options.progress = [&](const crash::Progress& now) { progress.update(now); };
    crash::StoreWorkload workload(std::move(*script));
    auto outcome = crash::run(workload, options);
    progress.clear();
    if (!outcome) return std::unexpected(outcome.error());
    if (context.json)
        print_json(json_of(*outcome));
    else
        print_text(*outcome, arguments.windows);
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
    command.add_option("--workload", arguments.workload,
                       "a name (`crash workloads` lists them), mix-SEED, or a file")
        ->capture_default_str();
    command.add_option("--states", options.states, "judge at most so many states");
    command
        .add_option("--per-window", options.states_per_window,
                    "explore a window to the end if it has no more states")
        ->capture_default_str();
    command.add_option("--seconds", options.seconds, "stop after so long");
    command.add_option("--seed", options.seed, "of what is sampled")->capture_default_str();
    command.add_option("--jobs", options.jobs, "worker processes")
        ->capture_default_str()
        ->check(CLI::Range(1, 256));
    command.add_option("--depth", options.depth, "2: crash recovery too")
        ->capture_default_str()
        ->check(CLI::Range(1, 2));
    command.add_flag("--eadr", arguments.eadr, "a platform that saves its caches");
    command.add_flag("--windows", arguments.windows, "show the coverage of each crash window");
    command.add_option("--out", arguments.out, "write the result, as JSON, to a file too");
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
    add_command<RunArguments>(*crash, context, "run",
                              "Explore the crash states of a workload; the exit status is 1 if one "
                              "of them is wrong.",
                              declare_run, run);
    add_command<WorkloadsArguments>(
        *crash, context, "workloads", "List the workloads.",
        [](CLI::App&, WorkloadsArguments&) {}, list_workloads);
}

}  // namespace holdfast::tool
