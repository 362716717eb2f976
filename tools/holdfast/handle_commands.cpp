// handle, resolve: what a program may keep across a restart in place of a pointer.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct HandleArguments {
    std::string pool;
    std::string space;
    VirtAddr address;
    std::uint64_t size_bytes = 0;
    std::string handle;
};

Outcome make_handle(const Context& context, const HandleArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    const auto handle = arguments.size_bytes == 0
                            ? space->handle()
                            : space->handle(Range{arguments.address, arguments.size_bytes});
    if (!handle) return std::unexpected(handle.error());
    if (context.json)
        print_json({{"handle", handle->to_string()}});
    else
        print("{}\n", handle->to_string());
    return ExitStatus::well;
}

Outcome resolve(const Context& context, const HandleArguments& arguments) {
    const auto handle = Handle::parse(arguments.handle);
    if (!handle) return std::unexpected(handle.error());
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto found = store->resolve(*handle);
    if (!found) return std::unexpected(found.error());
    const Range range = found->range;
    if (context.json)
        print_json({{"space", found->space.name()},
                    {"start", format_address(range.start.bits())},
                    {"length", range.size_bytes}});
    else if (range.size_bytes == 0)
        print("space \"{}\"\n", found->space.name());
    else
        print("space \"{}\" {:#x}-{:#x}\n", found->space.name(), range.start.bits(),
              range.end().bits());
    return ExitStatus::well;
}

}  // namespace

void add_handle_commands(CLI::App& app, Context& context) {
    add_command<HandleArguments>(
        app, context, "handle", "Print a handle of a space, or of a range, to be kept.",
        [](CLI::App& command, HandleArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            CLI::Option* const address = add_address(command, arguments.address)->required(false);
            add_size(command, "LENGTH", arguments.size_bytes, "bytes, or KiB, MiB, GiB: 64KiB")
                ->needs(address);
        },
        make_handle);
    add_command<HandleArguments>(
        app, context, "resolve", "Say what a handle leads to now, or why it is stale.",
        [](CLI::App& command, HandleArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("HANDLE", arguments.handle, "as `handle` printed it")->required();
        },
        resolve);
}

}  // namespace holdfast::tool
