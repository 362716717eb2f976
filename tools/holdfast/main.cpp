// The command `holdfast`: its line, and the status with which it ends.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstring>
#include <sstream>
#include <string>
#include <string_view>

#include "commands.hpp"
#include "crash_interrupt.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

void add_all_commands(CLI::App& app, Context& context) {
    app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
    app.add_flag("--json", context.json, "answer in JSON");
    app.add_flag("--emulate-pmem", context.emulate_pmem,
                 "treat the pool's file as persistent memory, whatever it is");
    app.require_subcommand(1);
    app.fallthrough();
    add_pool_commands(app, context);
    add_region_commands(app, context);
    add_file_commands(app, context);
    add_space_commands(app, context);
    add_snapshot_commands(app, context);
    add_mapping_commands(app, context);
    add_reclaim_commands(app, context);
    add_data_commands(app, context);
    add_handle_commands(app, context);
    add_import_command(app, context);
    add_export_command(app, context);
    add_verify_command(app, context);
    add_replay_command(app, context);
    add_repair_command(app, context);
    add_crash_commands(app, context);
    add_demo_command(app, context);
}

// A line that cannot be parsed may break off before its --json.
bool asks_for_json(int argc, char** argv) {
    for (int i = 1; i < argc; ++i)
        if (std::string_view(argv[i]) == "--json") return true;
    return false;
}

// What is wrong with the line, in a sentence.
std::string sentence_of(const CLI::App& app, const CLI::ParseError& error) {
    const CLI::App* command = &app;
    while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
    // CLI11 notices first that a command is missing, and only then that another word is in its
    // place.
    const auto unknown = app.remaining(true);
    if (command->get_require_subcommand_min() != 0 && !unknown.empty())
        return fmt::format("there is no command \"{}\"; --help shows all", unknown.front());
    return fmt::format("{}; --help shows the usage", error.what());
}

ExitStatus run(int argc, char** argv) {
    Context context;
    CLI::App app("Page tables of whole address spaces, kept in persistent memory.", "holdfast");
    add_all_commands(app, context);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& success) {  // --help, --version
        std::ostringstream text;
        app.exit(success, text, text);
        print("{}", text.str());
        return ExitStatus::well;
    } catch (const CLI::ParseError& error) {
        report(asks_for_json(argc, argv), to_string(ErrorCode::invalid_argument),
               sentence_of(app, error));
        return ExitStatus::wrong_usage;
    }
    const Outcome outcome = context.run();
    if (const int signal_number = interrupting_signal(); signal_number != 0) {
        report(context.json, "interrupted", "interrupted");
        return static_cast<ExitStatus>(128 + signal_number);  // as a shell has it
    }
    if (outcome) return *outcome;
    report(context.json, to_string(outcome.error().code), outcome.error().message);
    return exit_status_of(outcome.error().code);
}

ExitStatus run_with_output(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const OutputError& error) {
        // Whoever closed the pipe knows about it.
        if (error.error_number() != EPIPE)
            complain(fmt::format("standard output: {}", std::strerror(error.error_number())));
    } catch (const std::exception& error) {
        complain(error.what());
    }
    return ExitStatus::refused;
}

}  // namespace
}  // namespace holdfast::tool

int main(int argc, char** argv) {
    // A closed pipe is an error of write(), so that the pool is closed before the process ends.
    std::signal(SIGPIPE, SIG_IGN);
    return static_cast<int>(holdfast::tool::run_with_output(argc, argv));
}
