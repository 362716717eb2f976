// What a crash command works on: a workload of holdfast's own, or somebody else's program.
#pragma once

#include <holdfast/crash.hpp>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "judge/traced_run.hpp"
#include "subjects/script.hpp"

namespace holdfast::tool {

struct SubjectArguments {
    std::string workload = "map_one";
    std::string set_up, run, check;  // commands of the shell

    bool is_program() const { return !set_up.empty() || !run.empty() || !check.empty(); }
};

// --workload, --setup and --run; and --check.
void declare_subject(CLI::App& command, SubjectArguments& arguments);
void declare_programs(CLI::App& command, SubjectArguments& arguments, bool with_check);
void declare_limits(CLI::App& command, crash::Options& options);

// --plant: a bug in the run of a workload, for trying what becomes of a finding.
void declare_plant(CLI::App& command, std::string& plant);
// The workload's run with that bug. Errors: invalid_argument, for other programs too.
Result<crash::TracedRun> trace_planted(crash::Subject& subject, const std::string& plant,
                                       const crash::Options& options);

// Errors: not_found for a workload that is none; invalid_argument for commands that cannot be.
Result<crash::Script> load_workload(const std::string& name);
Result<std::unique_ptr<crash::Subject>> make_subject(const SubjectArguments& arguments);

// The arguments that name the same subject in another command; nothing for a workload, which a
// token names by itself.
std::string to_command_line(const SubjectArguments& arguments);

}  // namespace holdfast::tool
