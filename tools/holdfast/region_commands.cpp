// region add, list, detach, replace, move: the physical memory of a store.
#include <holdfast/store.hpp>

#include <optional>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "quantity.hpp"
#include "region_text.hpp"

namespace holdfast::tool {

Json json_of(const RegionInfo& region) {
    return {{"index", region.index},
            {"kind", to_string(region.kind)},
            {"state", to_string(region.state)},
            {"trouble", region.trouble},
            {"uuid", to_string(region.uuid)},
            {"physical_base", format_address(region.physical_base.bits())},
            {"length", region.size_bytes},
            {"file", region.file},
            {"file_offset", region.file_offset}};
}

std::string line_of(const RegionInfo& region) {
    std::string line =
        fmt::format("{}  {}  {}  {}  physical {:#x}  {}", region.index, to_string(region.kind),
                    to_string(region.state), to_string(region.uuid), region.physical_base.bits(),
                    format_size(region.size_bytes));
    if (region.kind == RegionKind::volatile_memory)
        line += region.loss == LossPolicy::zero ? "  zeros after a restart"
                                                : "  faults after a restart";
    else
        line += fmt::format("  {} at {:#x}", region.file, region.file_offset);
    if (!region.trouble.empty()) line += "\n            " + region.trouble;
    return line;
}

Outcome answer_region(const Context& context, const Result<unsigned>& index) {
    if (!index) return std::unexpected(index.error());
    if (context.json)
        print_json({{"index", *index}});
    else
        print("region {}\n", *index);
    return ExitStatus::well;
}

namespace {

struct RegionArguments {
    std::string pool;
    std::string file;
    unsigned index = 0;
    std::uint64_t size_bytes = 0;
    bool is_volatile = false, is_device = false;
    std::string on_restart = "fault";
    bool sparse = false;
    bool accept_outdated = false;
    std::uint64_t base = 0;
};

ExternalRegionOptions options_of(const RegionArguments& arguments) {
    return {.size_bytes = arguments.size_bytes, .sparse = arguments.sparse};
}

Outcome add(const Context& context, const RegionArguments& arguments) {
    if (arguments.is_volatile != arguments.file.empty())
        return fail(ErrorCode::invalid_argument,
                    "name either the file of the region or --volatile");
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (arguments.is_device)
        return answer_region(context,
                             store->add_device_region(arguments.file, options_of(arguments)));
    return answer_region(
        context, arguments.is_volatile
                     ? store->add_volatile_region(
                           arguments.size_bytes,
                           arguments.on_restart == "zero" ? LossPolicy::zero : LossPolicy::fault)
                     : store->add_external_region(arguments.file, options_of(arguments)));
}

// Findings if a region is not well.
Outcome list(const Context& context, const RegionArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    Json regions = Json::array();
    bool well = true;
    for (const RegionInfo& region : store->regions()) {
        regions.push_back(json_of(region));
        well &= region.state == RegionState::attached || region.state == RegionState::detached;
        if (!context.json) print("{}\n", line_of(region));
    }
    if (context.json) print_json(regions);
    return well ? ExitStatus::well : ExitStatus::findings;
}

template <typename Change>
Outcome change_store(const Context& context, const RegionArguments& arguments,
                     const Change& change) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (Result<void> changed = change(*store); !changed) return std::unexpected(changed.error());
    return done(context);
}

Outcome detach(const Context& context, const RegionArguments& arguments) {
    return change_store(context, arguments,
                        [&](Store& store) { return store.detach_region(arguments.index); });
}

Outcome replace(const Context& context, const RegionArguments& arguments) {
    return change_store(context, arguments, [&](Store& store) {
        return store.replace_region(arguments.index, arguments.file, options_of(arguments),
                                    arguments.accept_outdated);
    });
}

Outcome move(const Context& context, const RegionArguments& arguments) {
    return change_store(context, arguments, [&](Store& store) {
        return store.move_region(arguments.index, PhysAddr(arguments.base));
    });
}

Outcome finish_moves(const Context& context, const RegionArguments& arguments) {
    return change_store(context, arguments, [](Store& store) { return store.finish_moves(); });
}

void add_index(CLI::App& command, RegionArguments& arguments) {
    add_pool(command, arguments.pool);
    command.add_option("REGION", arguments.index, "its number in `region list`")->required();
}

}  // namespace

void add_region_commands(CLI::App& app, Context& context) {
    CLI::App* const region =
        app.add_subcommand("region", "Add, show, detach, replace and move physical memory.");
    region->fallthrough();
    region->require_subcommand(1);
    add_command<RegionArguments>(
        *region, context, "add", "Add memory in a file of its own, or volatile memory.",
        [](CLI::App& command, RegionArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("FILE", arguments.file, "a new file, or a device-DAX device");
            add_size(command, "--size", arguments.size_bytes, "such as 1GiB; a device has its own");
            command.add_flag("--sparse", arguments.sparse,
                             "let the file system provide blocks as they are written");
            CLI::Option* const is_volatile =
                command.add_flag("--volatile", arguments.is_volatile,
                                 "memory of each process that opens the store, gone with it");
            command
                .add_flag("--device", arguments.is_device,
                          "memory that is only mapped by its place (`map --device`), and never "
                          "cleared, copied or swapped")
                ->excludes(is_volatile);
            command
                .add_option("--on-restart", arguments.on_restart,
                            "what a page in volatile memory is later: a fault, or zeros")
                ->check(CLI::IsMember({"fault", "zero"}));
        },
        add);
    add_command<RegionArguments>(
        *region, context, "list",
        "Show all regions and what became of them; the exit status is 1 if one is not well.",
        [](CLI::App& command, RegionArguments& arguments) { add_pool(command, arguments.pool); },
        list);
    add_command<RegionArguments>(*region, context, "detach",
                                 "Take a region away; its pages are faults from then on.",
                                 add_index, detach);
    add_command<RegionArguments>(
        *region, context, "replace",
        "Attach a region again, from its own file, or with new memory in its place.",
        [](CLI::App& command, RegionArguments& arguments) {
            add_index(command, arguments);
            command.add_option("FILE", arguments.file,
                               "the region's file; if it does not exist, new memory");
            command.add_flag("--accept-outdated", arguments.accept_outdated,
                             "take a copy of the region from another time as it is");
            command.add_flag("--sparse", arguments.sparse,
                             "let the file system provide blocks as they are written");
        },
        replace);
    add_command<RegionArguments>(
        *region, context, "move",
        "Give a region, and all in the same file, another physical base; entries follow by and by.",
        [](CLI::App& command, RegionArguments& arguments) {
            add_index(command, arguments);
            add_physical_address(command, "--base", arguments.base,
                                 "beyond all that ever were (the next of these)");
        },
        move);
    add_command<RegionArguments>(
        *region, context, "finish-moves",
        "Repair at once all entries of before a move, so that the region can move again.",
        [](CLI::App& command, RegionArguments& arguments) { add_pool(command, arguments.pool); },
        finish_moves);
}

}  // namespace holdfast::tool
