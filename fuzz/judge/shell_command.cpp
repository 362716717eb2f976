#include "judge/shell_command.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace holdfast::crash {
namespace {

constexpr std::size_t kMostOutput = 64 << 10;

std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& added) {
    std::vector<std::string> all;
    for (char** each = environ; *each != nullptr; ++each) {
        const std::string_view text = *each;
        const bool replaced = std::any_of(added.begin(), added.end(), [&](const auto& variable) {
            return text.starts_with(variable.first + "=");
        });
        if (!replaced) all.emplace_back(text);
    }
    for (const auto& [name, value] : added) all.push_back(fmt::format("{}={}", name, value));
    return all;
}

std::string read_all(int file) {
    std::string text;
    char part[4096];
    for (;;) {
        const ssize_t size = read(file, part, sizeof part);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return text;
        const std::size_t room = kMostOutput - std::min(kMostOutput, text.size());
        text.append(part, std::min(room, static_cast<std::size_t>(size)));
    }
}

}  // namespace

Result<ShellResult> run_shell(const ShellCommand& command) {
    std::vector<std::string> environment = environment_with(command.environment);
    std::vector<char*> variables;
    variables.reserve(environment.size() + 1);
    for (std::string& each : environment) variables.push_back(each.data());
    variables.push_back(nullptr);
    std::string text = command.text;
    char shell[] = "sh", option[] = "-c";
    char* const arguments[] = {shell, option, text.data(), nullptr};
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int ends[2];
    if (nothing < 0 || pipe2(ends, O_CLOEXEC) != 0) {
        if (nothing >= 0) close(nothing);
        return fail(ErrorCode::io, fmt::format("no pipe to a command: {}", std::strerror(errno)));
    }
    // A fork would copy the page tables of an image and a trace for each check; posix_spawn cannot
    // ask for the parent's death signal.
    const pid_t child = vfork();  // NOLINT(bugprone-unsafe-functions)
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (command.fixed_addresses) personality(ADDR_NO_RANDOMIZE);
        signal(SIGINT, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        dup2(nothing, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execve("/bin/sh", arguments, variables.data());
        _exit(127);
    }
    close(nothing);
    close(ends[1]);
    ShellResult result;
    if (child > 0) {
        result.output = read_all(ends[0]);
        while (waitpid(child, &result.wait_status, 0) < 0 && errno == EINTR) {
        }
    }
    close(ends[0]);
    if (child < 0)
        return fail(ErrorCode::io, fmt::format("cannot start a command: {}", std::strerror(errno)));
    return result;
}

std::string with_pool(const std::string& command, const std::string& path) {
    constexpr std::string_view kPlace = "{pool}";
    std::string text = command;
    for (std::size_t at = 0; (at = text.find(kPlace, at)) != std::string::npos; at += path.size())
        text.replace(at, kPlace.size(), path);
    return text;
}

}  // namespace holdfast::crash
