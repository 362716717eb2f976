// The arguments that several commands share. A value that is none is wrong usage, found while the
// command line is parsed and before any pool is touched.
#pragma once

#include <holdfast/types.hpp>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "context.hpp"

namespace holdfast::tool {

// A command POOL SPACE ..., with the arguments that `declare` adds and `run` is given.
template <typename Arguments>
CLI::App* add_command(CLI::App& parent, Context& context, const std::string& name,
                      const std::string& description,
                      const std::function<void(CLI::App&, Arguments&)>& declare,
                      Outcome (*run)(const Context&, const Arguments&)) {
    CLI::App* const command = parent.add_subcommand(name, description);
    command->fallthrough();  // `--json` and `--emulate-pmem` may stand behind it
    const auto arguments = std::make_shared<Arguments>();
    declare(*command, *arguments);
    command->callback([&context, arguments, run] {
        context.run = [&context, arguments, run] { return run(context, *arguments); };
    });
    return command;
}

CLI::Option* add_pool(CLI::App& command, std::string& pool);
CLI::Option* add_space(CLI::App& command, std::string& space);
CLI::Option* add_address(CLI::App& command, VirtAddr& address);
CLI::Option* add_addresses(CLI::App& command, std::vector<VirtAddr>& addresses);
CLI::Option* add_physical_address(CLI::App& command, const std::string& name,
                                  std::uint64_t& address, const std::string& description);
// `name` as CLI11 takes it: "LENGTH", "--size".
CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& size_bytes,
                      const std::string& description);
CLI::Option* add_protection(CLI::App& command, Protection& protection);
CLI::Option* add_levels(CLI::App& command, Levels& levels);
// `--page-size`, of which only 4 KiB exists so far.
CLI::Option* add_page_size(CLI::App& command, PageSize& size);

}  // namespace holdfast::tool
