// map, unmap, protect, maps, translate: what is where in a space.
#include <holdfast/space.hpp>

#include <optional>

#include "arguments.hpp"
#include "commands.hpp"
#include "maps_line.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct RangeArguments {
    std::string pool;
    std::string space;
    VirtAddr address;
    std::uint64_t size_bytes = 0;
    Protection protection = protection::rw;
    MapOptions options;
    // Of a file that is mapped; without a path, of none.
    FileMapping file;
    // The same of a device region.
    std::optional<unsigned> device;
    GrowsDown stack;
    bool grows_down = false;

    Range range() const { return {address, size_bytes}; }
};

void add_range(CLI::App& command, RangeArguments& arguments) {
    add_pool(command, arguments.pool);
    add_space(command, arguments.space);
    add_address(command, arguments.address);
    add_size(command, "LENGTH", arguments.size_bytes, "bytes, or KiB, MiB, GiB: 64KiB")->required();
}

// Opens the space, changes it, and answers.
template <typename Change>
Outcome change_space(const Context& context, const RangeArguments& arguments,
                     const Change& change) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    if (Result<void> changed = change(*space); !changed) return std::unexpected(changed.error());
    return done(context);
}

Outcome map(const Context& context, const RangeArguments& arguments) {
    MapOptions options = arguments.options;
    if (!arguments.file.path.empty()) options.file = arguments.file;
    if (arguments.device)
        options.device =
            DeviceMapping{.region = *arguments.device, .offset = arguments.file.offset};
    if (arguments.grows_down) options.grows_down = arguments.stack;
    return change_space(context, arguments, [&](Space& space) {
        return space.map(arguments.range(), arguments.protection, options);
    });
}

Outcome unmap(const Context& context, const RangeArguments& arguments) {
    return change_space(context, arguments,
                        [&](Space& space) { return space.unmap(arguments.range()); });
}

Outcome protect(const Context& context, const RangeArguments& arguments) {
    return change_space(context, arguments, [&](Space& space) {
        return space.protect(arguments.range(), arguments.protection);
    });
}

// How much of the range is on huge pages then.
Outcome promote(const Context& context, const RangeArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    const auto huge_bytes = space->promote(arguments.range());
    if (!huge_bytes) return std::unexpected(huge_bytes.error());
    if (context.json)
        print_json({{"huge_bytes", *huge_bytes}});
    else
        print("{} of {} are on pages of 2 MiB\n", format_size(*huge_bytes),
              format_size(arguments.size_bytes));
    return ExitStatus::well;
}

// --- maps ---

struct MapsArguments {
    std::string pool;
    std::string space;
};

Outcome maps(const Context& context, const MapsArguments& arguments) {
    const auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    const auto mappings = space->maps();
    if (!mappings) return std::unexpected(mappings.error());
    Json list = Json::array();
    std::string text;
    for (const Mapping& mapping : *mappings) {
        if (!context.json) {
            text += maps_line(mapping) + '\n';
            continue;
        }
        list.push_back({{"start", format_address(mapping.range.start.bits())},
                        {"end", format_address(mapping.range.end().bits())},
                        {"prot", mapping.protection.to_string()},
                        {"offset", mapping.name_offset},
                        {"resident_bytes", mapping.resident_bytes},
                        {"huge_bytes", mapping.huge_bytes},
                        {"name", mapping.name}});
        if (mapping.guard) list.back()["guard"] = true;
        if (mapping.stack_room) list.back()["stack_room"] = true;
        if (mapping.is_device) list.back()["device"] = true;
        if (mapping.is_file) list.back()["file"] = mapping.is_shared ? "shared" : "private";
    }
    if (context.json)
        print_json(list);
    else
        print("{}", text);
    return ExitStatus::well;
}

// --- translate ---

struct TranslateArguments {
    std::string pool;
    std::string space;
    std::vector<VirtAddr> addresses;
};

Outcome translate(const Context& context, const TranslateArguments& arguments) {
    const auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    Json list = Json::array();
    std::string text;
    for (const VirtAddr address : arguments.addresses) {
        const auto found = space->translate(address);
        const std::string virtual_text = format_address(address.bits());
        if (found) {
            list.push_back({{"virtual", virtual_text},
                            {"physical", format_address(found->physical.bits())},
                            {"page_size", bytes(found->page_size)},
                            {"prot", found->protection.to_string()}});
            text +=
                fmt::format("{} -> {:#x}  {}  {} KiB page\n", virtual_text, found->physical.bits(),
                            found->protection.to_string(), bytes(found->page_size) >> 10);
        } else {
            list.push_back({{"virtual", virtual_text},
                            {"fault", to_string(found.error().kind)},
                            {"detail", found.error().to_string()}});
            text += fmt::format("{} -> fault: {}\n", virtual_text, found.error().to_string());
        }
    }
    if (context.json)
        print_json(list);
    else
        print("{}", text);
    return ExitStatus::well;
}

}  // namespace

void add_mapping_commands(CLI::App& app, Context& context) {
    add_command<RangeArguments>(
        app, context, "map", "Map fresh, zeroed pages; or a file, a stack, a guard, a device.",
        [](CLI::App& command, RangeArguments& arguments) {
            add_range(command, arguments);
            add_protection(command, arguments.protection)->default_str("rw");
            add_page_size(command, arguments.options.page_size);
            command.add_flag("--lazy", arguments.options.lazy,
                             "reserve the range: a page gets a frame at its first write");
            command.add_flag("--guard", arguments.options.guard,
                             "reserve the range for nothing: every access is a fault");
            command.add_flag("--grows-down", arguments.grows_down,
                             "a stack: the top of the range, which grows down to what is accessed, "
                             "and a guard at its bottom");
            add_size(command, "--stack-guard", arguments.stack.guard_bytes,
                     "of a stack, what stays between it and other mappings (1MiB)");
            add_size(command, "--stack-size", arguments.stack.mapped_bytes,
                     "of a stack, what it has at first (4KiB)");
            command.add_option("--name", arguments.options.name, "what `maps` shows for the range");
            CLI::Option* const file =
                command.add_option("--file", arguments.file.path,
                                   "the range holds what this file does, from its first access on");
            CLI::Option* const device =
                command
                    .add_option("--device", arguments.device,
                                "the range is frames of this device region, by their place in it")
                    ->excludes(file);
            CLI::Option* const offset =
                add_size(command, "--offset", arguments.file.offset,
                         "where in the file, or the device region, the range begins (0)");
            command.parse_complete_callback([file, device, offset] {
                if (offset->count() != 0 && file->count() + device->count() == 0)
                    throw CLI::RequiresError("--offset", "--file or --device");
            });
            CLI::Option* const shared = command.add_flag(
                "--shared", arguments.file.shared,
                "all who map the file so see what is written; `sync` writes it back");
            shared->needs(file);
            command.add_flag("--private")
                ->description("what is written is the space's own (as without it)")
                ->needs(file)
                ->excludes(shared);
            command
                .add_option("--region", arguments.options.region,
                            "the region to take frames from first (as the space prefers)")
                ->excludes(device);
        },
        map);
    add_command<RangeArguments>(app, context, "unmap", "Remove whatever is mapped in the range.",
                                add_range, unmap);
    add_command<RangeArguments>(
        app, context, "protect", "Change the protection of the whole range.",
        [](CLI::App& command, RangeArguments& arguments) {
            add_range(command, arguments);
            add_protection(command, arguments.protection)->required();
        },
        protect);
    add_command<RangeArguments>(
        app, context, "promote",
        "Put each aligned 2 MiB of the range on a page of 2 MiB, where that is possible.",
        add_range, promote);
    add_command<MapsArguments>(
        app, context, "maps", "Print all mappings, in the form of /proc/PID/maps.",
        [](CLI::App& command, MapsArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
        },
        maps);
    add_command<TranslateArguments>(
        app, context, "translate", "Walk the tables for each address; a fault is an answer too.",
        [](CLI::App& command, TranslateArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            add_addresses(command, arguments.addresses);
        },
        translate);
}

}  // namespace holdfast::tool
