// sync; file list, accept, forget: mapped files. `map --file` maps them.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

struct SyncArguments {
    std::string pool;
    std::string space;
    VirtAddr address;
    std::uint64_t size_bytes = 0;
};

Outcome sync(const Context& context, const SyncArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    std::vector<Range> ranges = {{arguments.address, arguments.size_bytes}};
    if (arguments.size_bytes == 0) {
        const auto mappings = space->maps();
        if (!mappings) return std::unexpected(mappings.error());
        ranges.clear();
        for (const Mapping& each : *mappings) ranges.push_back(each.range);
    }
    for (const Range& range : ranges)
        if (auto synced = space->sync(range); !synced) return std::unexpected(synced.error());
    return done(context);
}

struct FileArguments {
    std::string pool;
    std::string path;
    bool keeps_pool = false;
};

Outcome list_files(const Context& context, const FileArguments& arguments) {
    const auto store = context.open_copy(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto files = store->files();
    if (!files) return std::unexpected(files.error());
    Json list = Json::array();
    std::string text;
    for (const FileInfo& each : *files) {
        list.push_back({{"path", each.path},
                        {"size_bytes", each.size_bytes},
                        {"resident_bytes", each.resident_bytes},
                        {"mapped", each.is_mapped},
                        {"syncing", each.is_syncing}});
        text +=
            fmt::format("{}  {} bytes, {} of them in the pool{}{}\n", each.path, each.size_bytes,
                        each.resident_bytes, each.is_mapped ? "" : ", not mapped any more",
                        each.is_syncing ? ", a sync was interrupted" : "");
        if (each.trouble) {
            list.back()["fault"] = to_string(*each.trouble);
            list.back()["why"] = each.why;
            text += fmt::format("    {}: {}\n", to_string(*each.trouble), each.why);
        }
    }
    if (context.json)
        print_json(list);
    else
        print("{}", text);
    return ExitStatus::well;
}

Outcome accept_file(const Context& context, const FileArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (auto accepted = store->accept_file(
            arguments.path, arguments.keeps_pool ? FileContent::of_pool : FileContent::of_file);
        !accepted)
        return std::unexpected(accepted.error());
    return done(context);
}

Outcome forget_file(const Context& context, const FileArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (auto forgotten = store->forget_file(arguments.path); !forgotten)
        return std::unexpected(forgotten.error());
    return done(context);
}

void add_path(CLI::App& command, FileArguments& arguments) {
    add_pool(command, arguments.pool);
    command.add_option("FILE", arguments.path, "its path, as `file list` has it")->required();
}

}  // namespace

void add_file_commands(CLI::App& app, Context& context) {
    add_command<SyncArguments>(
        app, context, "sync", "Write what was written to shared file mappings to their files.",
        [](CLI::App& command, SyncArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            CLI::Option* const address = add_address(command, arguments.address)->required(false);
            add_size(command, "LENGTH", arguments.size_bytes,
                     "bytes, or KiB, MiB, GiB; without a range, all of the space")
                ->needs(address);
        },
        sync);
    CLI::App* const file = app.add_subcommand(
        "file", "Files that ranges are mapped from (`map --file`): list, accept, forget.");
    file->fallthrough();
    file->require_subcommand(1);
    add_command<FileArguments>(
        *file, context, "list", "Print all mapped files, and whether they are what they were.",
        [](CLI::App& command, FileArguments& arguments) { add_pool(command, arguments.pool); },
        list_files);
    add_command<FileArguments>(
        *file, context, "accept",
        "Go on with a file that was changed, truncated or replaced, as it is now.",
        [](CLI::App& command, FileArguments& arguments) {
            add_path(command, arguments);
            command.add_flag(
                "--keep-pool", arguments.keeps_pool,
                "keep the pages that the pool has, for `sync` to write; otherwise they "
                "are read from the file again");
        },
        accept_file);
    add_command<FileArguments>(
        *file, context, "forget",
        "Forget a file that nobody maps any more; what was not synced is lost.", add_path,
        forget_file);
}

}  // namespace holdfast::tool
