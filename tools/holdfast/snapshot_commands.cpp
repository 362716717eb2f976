// snapshot create, list, rollback, diff, remove; space fork.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

struct SnapshotArguments {
    std::string pool;
    std::string space;
    std::string name;
};

Outcome create_snapshot(const Context& context, const SnapshotArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (const auto made = store->create_snapshot(arguments.space, arguments.name); !made)
        return std::unexpected(made.error());
    return done(context);
}

Outcome fork_space(const Context& context, const SnapshotArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (const auto made = store->fork_space(arguments.space, arguments.name); !made)
        return std::unexpected(made.error());
    return done(context);
}

Outcome list_snapshots(const Context& context, const SnapshotArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto snapshots = store->snapshots(arguments.space);
    if (!snapshots) return std::unexpected(snapshots.error());
    if (context.json) {
        Json list = Json::array();
        for (const SnapshotInfo& each : *snapshots)
            list.push_back(
                {{"name", each.name}, {"of", each.of}, {"created_epoch", each.created_epoch}});
        print_json(list);
    } else {
        for (const SnapshotInfo& each : *snapshots)
            print("{}  of {}, made in boot epoch {}\n", each.name,
                  each.of.empty() ? "a space that was removed" : each.of, each.created_epoch);
    }
    return ExitStatus::well;
}

Outcome roll_back(const Context& context, const SnapshotArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    if (auto rolled = store->rollback(arguments.space, arguments.name); !rolled)
        return std::unexpected(rolled.error());
    return done(context);
}

Outcome diff(const Context& context, const SnapshotArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto first = store->open_space(arguments.space);
    if (!first) return std::unexpected(first.error());
    const auto second = store->open_space(arguments.name);
    if (!second) return std::unexpected(second.error());
    const auto found = differences(*first, *second);
    if (!found) return std::unexpected(found.error());
    if (context.json) {
        Json list = Json::array();
        for (const Difference& each : *found)
            list.push_back({{"start", each.range.start.bits()},
                            {"length", each.range.size_bytes},
                            {"kind", to_string(each.kind)}});
        print_json(list);
    } else {
        for (const Difference& each : *found)
            print("{:x}-{:x} {}\n", each.range.start.bits(), each.range.end().bits(),
                  to_string(each.kind));
    }
    return ExitStatus::well;
}

Outcome remove_snapshot(const Context& context, const SnapshotArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto snapshot = store->open_space(arguments.name);
    if (!snapshot) return std::unexpected(snapshot.error());
    if (!snapshot->is_snapshot())
        return fail(ErrorCode::invalid_argument,
                    "\"" + arguments.name + "\" is no snapshot; `space remove` removes spaces");
    if (auto removed = store->remove_space(arguments.name); !removed)
        return std::unexpected(removed.error());
    return done(context);
}

void add_name(CLI::App& command, const std::string& option, std::string& name,
              const std::string& what) {
    command.add_option(option, name, what)->required();
}

}  // namespace

void add_fork_command(CLI::App& space, Context& context) {
    add_command<SnapshotArguments>(
        space, context, "fork",
        "Make a space that has what another has, and shares it until one of them writes.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "FROM", arguments.space, "a space or a snapshot");
            add_name(command, "TO", arguments.name, "the name of the new space");
        },
        fork_space);
}

void add_snapshot_commands(CLI::App& app, Context& context) {
    CLI::App* const snapshot = app.add_subcommand(
        "snapshot", "Keep what a space has now; list, compare and go back to what was kept.");
    snapshot->fallthrough();
    snapshot->require_subcommand(1);
    add_command<SnapshotArguments>(
        *snapshot, context, "create", "Keep what a space has now, under a name.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "SPACE", arguments.space, "the name of the space");
            add_name(command, "NAME", arguments.name,
                     "of the snapshot, among those of spaces: SPACE@monday, say");
        },
        create_snapshot);
    add_command<SnapshotArguments>(
        *snapshot, context, "list", "Print all snapshots, or those of one space.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("SPACE", arguments.space, "the name of a space");
        },
        list_snapshots);
    add_command<SnapshotArguments>(
        *snapshot, context, "rollback", "Give a space back what it had when it was kept.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "SPACE", arguments.space, "the name of the space");
            add_name(command, "SNAPSHOT", arguments.name,
                     "one of it, or of what it was forked from");
        },
        roll_back);
    add_command<SnapshotArguments>(
        *snapshot, context, "diff", "Print where two spaces or snapshots differ.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "A", arguments.space, "a space or a snapshot");
            add_name(command, "B", arguments.name, "another");
        },
        diff);
    add_command<SnapshotArguments>(
        *snapshot, context, "remove", "Forget what was kept; its space keeps what it has.",
        [](CLI::App& command, SnapshotArguments& arguments) {
            add_pool(command, arguments.pool);
            add_name(command, "SNAPSHOT", arguments.name, "the name of a snapshot");
        },
        remove_snapshot);
}

}  // namespace holdfast::tool
