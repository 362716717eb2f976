// The families of commands; each adds its own to the command line.
#pragma once

#include <CLI/CLI.hpp>

#include "context.hpp"

namespace holdfast::tool {

void add_pool_commands(CLI::App& app, Context& context);   // create, info, overcommit, release
void add_space_commands(CLI::App& app, Context& context);  // space create, prefer, list, …
void add_fork_command(CLI::App& space, Context& context);
void add_snapshot_commands(CLI::App& app, Context& context);  // snapshot create, list, …
void add_mapping_commands(CLI::App& app, Context& context);  // map, unmap, protect, maps, translate
void add_region_commands(CLI::App& app, Context& context);   // region add, list, detach, …
void add_file_commands(CLI::App& app, Context& context);     // sync; file list, accept, forget
void add_reclaim_commands(CLI::App& app, Context& context);  // swap add, reclaim, quota, evict
void add_data_commands(CLI::App& app, Context& context);     // read, write
void add_handle_commands(CLI::App& app, Context& context);   // handle, resolve
void add_import_command(CLI::App& app, Context& context);
void add_export_command(CLI::App& app, Context& context);
void add_replay_command(CLI::App& app, Context& context);  // replay-trace
void add_verify_command(CLI::App& app, Context& context);
void add_repair_command(CLI::App& app, Context& context);
void add_crash_commands(CLI::App& app, Context& context);           // crash run, replay, trace, …
void add_crash_mutant_commands(CLI::App& crash, Context& context);  // plant, mutants
void add_crash_trace_command(CLI::App& crash, Context& context);
void add_demo_command(CLI::App& app, Context& context);

}  // namespace holdfast::tool
