// The chapters of the demo, and the hidden commands that they run as processes of their own.
#pragma once

#include <holdfast/error.hpp>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "context.hpp"

namespace holdfast::tool::demo {

// 1: starts a program, imports it into the pool's space "program", and lets it go on. Prints.
// Returns the fingerprint of what was imported.
Result<std::uint64_t> import_running_program(const std::string& pool);

// 2: a writer changes the imported space; it is killed and the pool reopened, `rounds` times.
// Prints. `findings` if what was found was ever anything but one whole state.
Outcome kill_writers(const std::string& pool, std::uint64_t fingerprint, std::uint64_t seed,
                     unsigned rounds);

// 3: opens stores of growing size, and rebuilds the same tables. Prints.
Result<void> measure_restarts(const std::string& folder);

// 4: explores the crash states of some calls, and of one with a bug. Prints. `findings` if a state
// was wrong, or the bug was not found.
Outcome judge_crash_states();

void add_crash_commands(CLI::App& app, Context& context);
void add_restart_commands(CLI::App& app, Context& context);

}  // namespace holdfast::tool::demo
