// A command of the shell, as somebody else's set-up, run or check.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::crash {

struct ShellCommand {
    std::string text;
    std::vector<std::pair<std::string, std::string>> environment;  // besides this process's own
    bool fixed_addresses = false;  // as far as the system lets us: no random layout
};

struct ShellResult {
    int wait_status = 0;
    std::string output;  // what it said, errors included: the beginning, if that was much
};

// Runs it in this process's group, with nothing to read, and waits however long it takes; it dies
// with this process.
Result<ShellResult> run_shell(const ShellCommand& command);

// Every "{pool}" replaced by the path.
std::string with_pool(const std::string& command, const std::string& path);

}  // namespace holdfast::crash
