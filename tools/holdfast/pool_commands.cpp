// create, info, overcommit, release: the pool as a whole.
#include <holdfast/overcommit.hpp>
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "quantity.hpp"
#include "region_text.hpp"

namespace holdfast::tool {
namespace {

struct PoolArguments {
    std::string pool;
};

// --- create ---

struct CreateArguments {
    std::string pool;
    std::uint64_t size_bytes = 0;
    std::uint64_t frames_bytes = 0;
};

Outcome create(const Context& context, const CreateArguments& arguments) {
    const auto store = Store::create(arguments.pool, {.size_bytes = arguments.size_bytes,
                                                      .emulation = context.emulation(),
                                                      .frames_bytes = arguments.frames_bytes});
    if (!store) return std::unexpected(store.error());
    return done(context);
}

// --- info ---

Json json_of(const SpaceInfo& space) {
    return {{"name", space.name},
            {"levels", static_cast<unsigned>(space.levels)},
            {"root", format_address(space.root.bits())},
            {"mapped_bytes", space.mapped_bytes},
            {"resident_bytes", space.resident_bytes},
            {"tables", space.tables},
            {"region", space.region ? Json(*space.region) : Json()},
            {"supervisor", space.supervisor.empty() ? Json() : Json(space.supervisor)}};
}

Json json_of(const CommitAccount& account) {
    return {{"policy", to_string(account.overcommit.policy)},
            {"ratio_percent", account.overcommit.ratio_percent},
            {"committed_bytes", account.committed_bytes},
            {"limit_bytes", account.limit_bytes}};
}

std::string line_of(const CommitAccount& account) {
    const bool is_limited = account.overcommit.policy == OvercommitPolicy::never;
    return fmt::format(
        "{}, {} committed{}", to_string(account.overcommit.policy),
        format_size(account.committed_bytes),
        is_limited ? fmt::format(" of {} ({} % of all frames)", format_size(account.limit_bytes),
                                 account.overcommit.ratio_percent)
                   : "");
}

Json json_of(const StoreInfo& info, const CommitAccount& account) {
    Json regions = Json::array(), spaces = Json::array();
    for (const RegionInfo& region : info.regions) regions.push_back(tool::json_of(region));
    for (const SpaceInfo& space : info.spaces) spaces.push_back(json_of(space));
    return {{"uuid", to_string(info.uuid)},
            {"format_version", info.format_version},
            {"boot_epoch", info.boot_epoch},
            {"frames",
             {{"total", info.frames.total},
              {"free", info.frames.free},
              {"limbo", info.frames.limbo},
              {"free_2MiB", info.frames.free_2MiB},
              {"free_1GiB", info.frames.free_1GiB},
              {"fragmentation", info.frames.fragmentation()}}},
            {"tables", info.tables},
            {"overcommit", json_of(account)},
            {"regions", regions},
            {"spaces", spaces}};
}

void print_text(const Store& store, const StoreInfo& info, const CommitAccount& account) {
    print("pool        {}{}\n", store.path(),
          store.is_pmem() ? "" : "  (not persistent memory: msync makes it durable)");
    print("uuid        {}\n", to_string(info.uuid));
    print("format      {}\n", info.format_version);
    print("boot epoch  {}\n", info.boot_epoch);
    print("frames      {} of 4 KiB, {} free, {} in limbo\n", format_count(info.frames.total),
          format_count(info.frames.free), format_count(info.frames.limbo));
    print("huge frames {} of 2 MiB, {} of 1 GiB could be had; fragmentation {:.2f}\n",
          format_count(info.frames.free_2MiB), format_count(info.frames.free_1GiB),
          info.frames.fragmentation());
    print("tables      {}\n", format_count(info.tables));
    print("overcommit  {}\n", line_of(account));
    for (const RegionInfo& region : info.regions) print("region      {}\n", tool::line_of(region));
    for (const SpaceInfo& space : info.spaces)
        print("space       {}  {} levels  root {:#x}  {} mapped, {} with frames, {} tables\n",
              space.name, static_cast<unsigned>(space.levels), space.root.bits(),
              format_size(space.mapped_bytes), format_size(space.resident_bytes),
              format_count(space.tables));
}

Outcome info(const Context& context, const PoolArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto counted = store->info();
    if (!counted) return std::unexpected(counted.error());
    const CommitAccount account = commit_account(*store);
    if (context.json)
        print_json(json_of(*counted, account));
    else
        print_text(*store, *counted, account);
    return ExitStatus::well;
}

// --- overcommit ---

struct OvercommitArguments {
    std::string pool;
    std::string policy;
    std::optional<std::uint32_t> ratio_percent;
};

Outcome overcommit(const Context& context, const OvercommitArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    Overcommit wanted = commit_account(*store).overcommit;
    for (const auto policy :
         {OvercommitPolicy::heuristic, OvercommitPolicy::always, OvercommitPolicy::never})
        if (arguments.policy == to_string(policy)) wanted.policy = policy;
    wanted.ratio_percent = arguments.ratio_percent.value_or(wanted.ratio_percent);
    if (!arguments.policy.empty() || arguments.ratio_percent)
        if (auto set = set_overcommit(*store, wanted); !set) return std::unexpected(set.error());
    const CommitAccount account = commit_account(*store);
    if (context.json)
        print_json(json_of(account));
    else
        print("{}\n", line_of(account));
    return ExitStatus::well;
}

// --- release ---

Outcome release(const Context& context, const PoolArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto tables = store->release_limbo();
    if (!tables) return std::unexpected(tables.error());
    if (context.json)
        print_json({{"released_tables", *tables}});
    else
        print("released {} tables from limbo\n", format_count(*tables));
    return ExitStatus::well;
}

}  // namespace

void add_pool_commands(CLI::App& app, Context& context) {
    add_command<CreateArguments>(
        app, context, "create", "Make a pool with an empty store in it.",
        [](CLI::App& command, CreateArguments& arguments) {
            add_pool(command, arguments.pool);
            add_size(command, "--size", arguments.size_bytes,
                     "size of the new file, such as 256MiB; a poolset or device has its own");
            add_size(command, "--frames", arguments.frames_bytes,
                     "how much of it becomes frames at once (all there is room for); metadata of "
                     "external regions takes 1/256 of their size from the rest");
        },
        create);
    add_command<PoolArguments>(
        app, context, "info", "Show the store's frames, tables, regions and spaces.",
        [](CLI::App& command, PoolArguments& arguments) { add_pool(command, arguments.pool); },
        info);
    add_command<OvercommitArguments>(
        app, context, "overcommit",
        "Show or set how much may be promised: nothing is refused before frames run out (always), "
        "only what all frames could not hold (heuristic), or whatever is beyond a part of them "
        "(never).",
        [](CLI::App& command, OvercommitArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("--policy", arguments.policy, "as Linux's three")
                ->check(CLI::IsMember({"heuristic", "always", "never"}));
            command.add_option("--ratio", arguments.ratio_percent,
                               "of `never`: the part of all frames, in percent (50)");
        },
        overcommit);
    add_command<PoolArguments>(
        app, context, "release",
        "Release now what unmapped ranges and removed spaces left in limbo; it happens by itself, "
        "bit by bit.",
        [](CLI::App& command, PoolArguments& arguments) { add_pool(command, arguments.pool); },
        release);
}

}  // namespace holdfast::tool
