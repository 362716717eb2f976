#include "subjects/command_subject.hpp"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "judge/child_process.hpp"
#include "judge/shell_command.hpp"
#include "trace/event.hpp"
#include "trace/stable_hash.hpp"

namespace holdfast::crash {
namespace {

// Of the shell: it could not run a command, or found none (POSIX, 2.8.2).
constexpr int kCannotRun = 126, kNotFound = 127;
// Of the preload: it could not begin.
constexpr int kNotTraced = 125;

std::string last_words(const std::string& output) {
    const std::size_t end = output.find_last_not_of(" \n");
    if (end == std::string::npos) return {};
    constexpr std::size_t kMost = 1000;
    const std::size_t begin = end >= kMost ? end - kMost : 0;
    return output.substr(begin, end + 1 - begin);
}

bool is_well(const ShellResult& result) {
    return WIFEXITED(result.wait_status) && WEXITSTATUS(result.wait_status) == 0;
}

bool is_not_run(const ShellResult& result) {
    return WIFEXITED(result.wait_status) && (WEXITSTATUS(result.wait_status) == kCannotRun ||
                                             WEXITSTATUS(result.wait_status) == kNotFound);
}

std::string describe(const ShellResult& result) {
    const std::string words = last_words(result.output);
    // A shell tells of a signal by a status above 128.
    int signal_number = 0;
    if (WIFSIGNALED(result.wait_status))
        signal_number = WTERMSIG(result.wait_status);
    else if (WEXITSTATUS(result.wait_status) > 128)
        signal_number = WEXITSTATUS(result.wait_status) - 128;
    return fmt::format("{}{}{}",
                       describe_end(signal_number == 0 ? result.wait_status : signal_number),
                       words.empty() ? "" : ": ", words);
}

Result<void> expect_well(const char* which, const std::string& command,
                         const Result<ShellResult>& result) {
    if (!result) return std::unexpected(result.error());
    if (is_well(*result)) return {};
    return fail(ErrorCode::invalid_argument, fmt::format("the {} command \"{}\" ended with {}",
                                                         which, command, describe(*result)));
}

ShellCommand command_for(const std::string& text, const std::string& path) {
    return {.text = with_pool(text, path), .environment = {{"PMEM_IS_PMEM_FORCE", "1"}}};
}

ShellCommand check_for(const std::string& text, const std::string& path, const Moment& moment) {
    ShellCommand check = command_for(text, path);
    check.environment.emplace_back("HOLDFAST_CRASH_ACKNOWLEDGED",
                                   std::to_string(moment.acknowledged));
    check.environment.emplace_back("HOLDFAST_CRASH_IN_FLIGHT", moment.in_flight ? "1" : "0");
    return check;
}

Result<TraceHead> read_head(const std::string& trace) {
    TraceHead head;
    std::ifstream file(trace, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(&head), sizeof head))
        return fail(ErrorCode::io, fmt::format("cannot read the trace {}", trace));
    return head;
}

}  // namespace

Result<CommandSubject> CommandSubject::create(Commands commands) {
    if (commands.run.empty())
        return fail(ErrorCode::invalid_argument, "there is no command to run (--run)");
    for (const auto* const each : {&commands.set_up, &commands.run, &commands.check})
        if (!each->empty() && each->find("{pool}") == std::string::npos)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("the command \"{}\" does not say where its pool goes: write "
                                    "{{pool}} in that place",
                                    *each));
    if (access(commands.preload.c_str(), R_OK) != 0)
        return fail(ErrorCode::not_found,
                    fmt::format("{}: there is no such library to trace programs with; "
                                "HOLDFAST_CRASH_PRELOAD may name it",
                                commands.preload));
    if (commands.preload.find_first_of(" :") != std::string::npos)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: LD_PRELOAD takes no path with a space or a colon; let "
                                "HOLDFAST_CRASH_PRELOAD name a copy elsewhere",
                                commands.preload));
    return CommandSubject(std::move(commands));
}

std::string CommandSubject::name() const {
    StableHash hash;
    for (const auto* const each : {&commands_.set_up, &commands_.run, &commands_.check})
        hash.add(each->size()).add_all(*each);
    return fmt::format("{}{:08x}", kNamePrefix, hash.value() >> 32);
}

Result<void> CommandSubject::set_up(const std::string& path) {
    if (commands_.set_up.empty()) return {};
    auto done =
        expect_well("set-up", commands_.set_up, run_shell(command_for(commands_.set_up, path)));
    if (done && access(path.c_str(), F_OK) != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the set-up command \"{}\" made no pool", commands_.set_up));
    return done;
}

Result<void> CommandSubject::run(const std::string& path, Operations& operations) {
    operations.begin();
    auto done = expect_well("run", commands_.run, run_shell(command_for(commands_.run, path)));
    operations.acknowledge();
    return done;
}

Result<void> CommandSubject::run_traced(const std::string& path, const std::string& trace) {
    ShellCommand command = command_for(commands_.run, path);
    const char* const others = std::getenv("LD_PRELOAD");
    command.environment.insert(
        command.environment.end(),
        {{"HOLDFAST_CRASH_POOL", path},
         {"HOLDFAST_CRASH_TRACE", trace},
         {"LD_PRELOAD", others == nullptr || *others == '\0' ? commands_.preload
                                                             : commands_.preload + ":" + others}});
    command.fixed_addresses = true;
    const auto result = run_shell(command);
    if (result && WIFEXITED(result->wait_status) && WEXITSTATUS(result->wait_status) == kNotTraced)
        return fail(ErrorCode::io, fmt::format("the run command could not be traced: {}",
                                               last_words(result->output)));
    if (auto done = expect_well("run", commands_.run, result); !done) return done;
    if (commands_.check.empty()) return {};

    // Before thousands of checks find fault with the check.
    auto head = read_head(trace);
    if (!head) return std::unexpected(head.error());
    if (head->events_bytes == 0) return {};  // which its caller finds fault with
    const Moment end{std::max<std::uint64_t>(head->acknowledged, 1), false};
    const auto checked = run_shell(check_for(commands_.check, path, end));
    if (checked && is_not_run(*checked))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the check command \"{}\" cannot be run: {}", commands_.check,
                                describe(*checked)));
    if (checked && !is_well(*checked))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the check command \"{}\" finds fault with the pool as the run "
                                "leaves it, without a crash: {}",
                                commands_.check, describe(*checked)));
    if (!checked) return std::unexpected(checked.error());
    return {};
}

std::string CommandSubject::check(const std::string& path, const Moment& moment) {
    if (commands_.check.empty()) return {};
    const auto result = run_shell(check_for(commands_.check, path, moment));
    if (!result) return result.error().message;
    if (is_well(*result)) return {};
    const std::string words = last_words(result->output);
    const bool says_why =
        WIFEXITED(result->wait_status) && WEXITSTATUS(result->wait_status) <= 128 && !words.empty();
    return says_why ? words : "the check ended with " + describe(*result);
}

}  // namespace holdfast::crash
