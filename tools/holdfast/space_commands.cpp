// space create, prefer, list, rename, remove: the directory of address spaces.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

struct SpaceArguments {
    std::string pool;
    std::string name;
    std::string new_name;
    Levels levels = Levels::four;
    std::optional<unsigned> region;
    std::string supervisor;
    bool is_supervisor = false;
};

void add_name(CLI::App& command, const std::string& option, std::string& name) {
    command.add_option(option, name, "the name of an address space")->required();
}

Outcome create_space(const Context& context, const SpaceArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto space =
        store->create_space(arguments.name, {.levels = arguments.levels,
                                             .region = arguments.region,
                                             .supervisor = arguments.supervisor,
                                             .is_supervisor = arguments.is_supervisor});
    if (!space) return std::unexpected(space.error());
    return done(context);
}

Outcome list_spaces(const Context& context, const SpaceArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto names = store->space_names();
    if (!names) return std::unexpected(names.error());
    if (context.json) {
        Json spaces = Json::array();
        for (const std::string& name : *names) spaces.push_back({{"name", name}});
        print_json(spaces);
    } else {
        for (const std::string& name : *names) print("{}\n", name);
    }
    return ExitStatus::well;
}

Outcome rename_space(const Context& context, const SpaceArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (auto renamed = store->rename_space(arguments.name, arguments.new_name); !renamed)
        return std::unexpected(renamed.error());
    return done(context);
}

Outcome prefer_region(const Context& context, const SpaceArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto space = store->open_space(arguments.name);
    if (!space) return std::unexpected(space.error());
    Transaction transaction = store->begin();
    if (auto preferred = transaction.prefer_region(*space, arguments.region); !preferred)
        return std::unexpected(preferred.error());
    if (auto committed = transaction.commit(); !committed)
        return std::unexpected(committed.error());
    return done(context);
}

Outcome remove_space(const Context& context, const SpaceArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (auto removed = store->remove_space(arguments.name); !removed)
        return std::unexpected(removed.error());
    return done(context);
}

}  // namespace

void add_space_commands(CLI::App& app, Context& context) {
    CLI::App* const space = app.add_subcommand("space", "Create, list, rename and remove spaces.");
    space->fallthrough();
    space->require_subcommand(1);
    add_command<SpaceArguments>(
        *space, context, "create", "Make an empty address space.",
        [](CLI::App& command, SpaceArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "NAME", arguments.name);
            add_levels(command, arguments.levels);
            command.add_option("--region", arguments.region,
                               "the region that its pages prefer; `region list` has the numbers");
            command.add_flag("--make-supervisor", arguments.is_supervisor,
                             "an object whose upper half other spaces share");
            command.add_option("--supervisor", arguments.supervisor,
                               "the object whose half the space's upper half is");
        },
        create_space);
    add_fork_command(*space, context);
    add_command<SpaceArguments>(
        *space, context, "prefer", "Let a space's pages from now on prefer another region.",
        [](CLI::App& command, SpaceArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "NAME", arguments.name);
            command.add_option("REGION", arguments.region,
                               "its number in `region list`; without one, the pool");
        },
        prefer_region);
    add_command<SpaceArguments>(
        *space, context, "list", "Print the names of all spaces.",
        [](CLI::App& command, SpaceArguments& arguments) { add_pool(command, arguments.pool); },
        list_spaces);
    add_command<SpaceArguments>(
        *space, context, "rename", "Give a space another name.",
        [](CLI::App& command, SpaceArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "FROM", arguments.name);
            add_name(command, "TO", arguments.new_name);
        },
        rename_space);
    add_command<SpaceArguments>(
        *space, context, "remove", "Remove a space and everything mapped in it.",
        [](CLI::App& command, SpaceArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "NAME", arguments.name);
        },
        remove_space);
}

}  // namespace holdfast::tool
