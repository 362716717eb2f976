#include "crash_subject.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "mutants/planted_bug.hpp"
#include "subjects/command_subject.hpp"
#include "subjects/import_workload.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"

namespace holdfast::tool {
namespace {

constexpr const char* kPreload = "libholdfast-crash-preload.so";

// Beside the command in the build tree; where libraries go when both are installed.
std::string find_preload() {
    if (const char* const given = std::getenv("HOLDFAST_CRASH_PRELOAD"); given != nullptr)
        return given;
    namespace fs = std::filesystem;
    std::error_code failed;
    const fs::path folder = fs::read_symlink("/proc/self/exe", failed).parent_path();
    const fs::path installed = (folder / HOLDFAST_LIBRARIES_FROM_BINARIES / kPreload);
    if (fs::exists(folder / kPreload, failed)) return folder / kPreload;
    return installed.lexically_normal();
}

std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char letter : text)
        result += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
    return result + "'";
}

}  // namespace

void declare_subject(CLI::App& command, SubjectArguments& arguments) {
    command
        .add_option("--workload", arguments.workload,
                    "a name (`crash workloads` lists them), mix-SEED, or a file")
        ->capture_default_str();
}

void declare_programs(CLI::App& command, SubjectArguments& arguments, bool with_check) {
    command.add_option("--setup", arguments.set_up,
                       "another program than holdfast: the command that makes its pool; {pool} "
                       "stands for the pool's path");
    command.add_option("--run", arguments.run,
                       "the command that changes the pool, all of it one operation unless it marks "
                       "them (holdfast/crash_operations.h)");
    if (with_check)
        command.add_option("--check", arguments.check,
                           "the command that ends with 0 if the pool is right, as before or after "
                           "the operation in flight; HOLDFAST_CRASH_ACKNOWLEDGED and "
                           "HOLDFAST_CRASH_IN_FLIGHT say which one that is");
    if (CLI::Option* const workload = command.get_option_no_throw("--workload"))
        for (const char* const option : {"--setup", "--run", "--check"})
            if (CLI::Option* const other = command.get_option_no_throw(option))
                other->excludes(workload);
}

void declare_limits(CLI::App& command, crash::Options& options) {
    command
        .add_option("--seconds-per-run", options.seconds_per_run,
                    "a set-up or a run that takes longer has failed")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command
        .add_option("--seconds-per-check", options.seconds_per_check,
                    "a check that takes longer hangs, which is a finding")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
}

void declare_plant(CLI::App& command, std::string& plant) {
    command
        .add_option("--plant", plant,
                    "leave out every flush or fence of a workload, to see a finding: drop_flush, "
                    "drop_fence, or of one kind of call, drop_fence:unmap")
        ->envname("HOLDFAST_CRASH_PLANT");
}

Result<crash::TracedRun> trace_planted(crash::Subject& subject, const std::string& plant,
                                       const crash::Options& options) {
    const auto bug = crash::PlantedBug::parse(plant);
    if (!bug) return std::unexpected(bug.error());
    auto* const workload = dynamic_cast<crash::StoreWorkload*>(&subject);
    if (workload == nullptr)
        return fail(ErrorCode::invalid_argument,
                    "bugs are planted in workloads only, not in other programs (--plant)");
    return crash::trace_with_bug(*workload, options, *bug);
}

// A file with a script, or a name.
Result<crash::Script> load_workload(const std::string& name) {
    std::ifstream file(name);
    if (name == crash::ImportWorkload::kName)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("{} is no list of calls: `crash run`, `replay` and `trace` take it, "
                        "this does not",
                        name));
    if (name.find('/') == std::string::npos && !name.ends_with(".txt") && !file.good())
        return crash::find_workload(name);
    if (!file.good()) return fail(ErrorCode::not_found, fmt::format("{}: no such workload", name));
    std::ostringstream text;
    text << file.rdbuf();
    return crash::Script::parse(name.substr(name.rfind('/') + 1), text.str());
}

Result<std::unique_ptr<crash::Subject>> make_subject(const SubjectArguments& arguments) {
    if (arguments.is_program()) {
        auto subject = crash::CommandSubject::create({.set_up = arguments.set_up,
                                                      .run = arguments.run,
                                                      .check = arguments.check,
                                                      .preload = find_preload()});
        if (!subject) return std::unexpected(subject.error());
        return std::make_unique<crash::CommandSubject>(std::move(*subject));
    }
    if (arguments.workload == crash::ImportWorkload::kName)
        return std::make_unique<crash::ImportWorkload>();
    auto script = load_workload(arguments.workload);
    if (!script) return std::unexpected(script.error());
    return std::make_unique<crash::StoreWorkload>(std::move(*script));
}

std::string to_command_line(const SubjectArguments& arguments) {
    std::string line;
    const auto add = [&](const char* option, const std::string& command) {
        if (!command.empty()) line += fmt::format(" {} {}", option, quoted(command));
    };
    add("--setup", arguments.set_up);
    add("--run", arguments.run);
    add("--check", arguments.check);
    return line;
}

}  // namespace holdfast::tool
