// swap add, reclaim, quota, evict: who loses frames when there are too few (holdfast/reclaim.hpp).
#include <holdfast/reclaim.hpp>
#include <holdfast/space.hpp>
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "quantity.hpp"
#include "region_text.hpp"

namespace holdfast::tool {
namespace {

struct ReclaimArguments {
    std::string pool;
    std::string space;
    std::string file;
    std::uint64_t size_bytes = 0;
    std::string frames;
    std::string oom;
    std::string quota;
};

Outcome add_swap(const Context& context, const ReclaimArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    return answer_region(context, store->add_swap_region(arguments.file, arguments.size_bytes));
}

// Shows the policies, or sets those that are given.
Outcome reclaim(const Context& context, const ReclaimArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    ReclaimPolicy policy = store->reclaim_policy();
    if (!arguments.frames.empty())
        policy.frames = arguments.frames == "local" ? FramePolicy::local : FramePolicy::global;
    if (!arguments.oom.empty())
        policy.oom = arguments.oom == "release" ? OomPolicy::release_victim : OomPolicy::refuse;
    if (policy != store->reclaim_policy())
        if (auto set = store->set_reclaim_policy(policy); !set) return std::unexpected(set.error());
    if (context.json)
        print_json({{"policy", to_string(policy.frames)}, {"oom", to_string(policy.oom)}});
    else
        print("policy {}, when nothing can go: {}\n", to_string(policy.frames),
              to_string(policy.oom));
    return ExitStatus::well;
}

// Shows a space's quota and what it has, or sets the quota.
Outcome quota(const Context& context, const ReclaimArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    if (!arguments.quota.empty()) {
        std::uint64_t size_bytes = 0;
        if (arguments.quota != "none") {
            const auto parsed = parse_size(arguments.quota);
            if (!parsed || *parsed == 0)
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no quota: a size, as 64MiB, or none", arguments.quota));
            size_bytes = *parsed;
        }
        if (auto set = space->set_quota(size_bytes); !set) return std::unexpected(set.error());
    }
    const FrameUse use = space->frame_use();
    const std::uint64_t resident = space->info().resident_bytes;
    if (context.json) {
        print_json({{"quota_bytes", use.quota_bytes ? Json(*use.quota_bytes) : Json()},
                    {"resident_bytes", resident},
                    {"swapped_bytes", use.swapped_bytes}});
    } else {
        print("quota {}, {} in memory, {} swapped\n",
              use.quota_bytes ? format_size(*use.quota_bytes) : "none", format_size(resident),
              format_size(use.swapped_bytes));
    }
    return ExitStatus::well;
}

Outcome evict(const Context& context, const ReclaimArguments& arguments) {
    auto space = context.open_space(arguments.pool, arguments.space);
    if (!space) return std::unexpected(space.error());
    const auto evicted = space->evict(arguments.size_bytes);
    if (!evicted) return std::unexpected(evicted.error());
    if (context.json)
        print_json({{"evicted_bytes", *evicted}});
    else
        print("{} have no frames any more\n", format_size(*evicted));
    return ExitStatus::well;
}

}  // namespace

void add_reclaim_commands(CLI::App& app, Context& context) {
    CLI::App* const swap = app.add_subcommand("swap", "Files for pages that lose their frames.");
    swap->fallthrough();
    swap->require_subcommand(1);
    add_command<ReclaimArguments>(
        *swap, context, "add", "Make such a file, a region that nothing else is put in.",
        [](CLI::App& command, ReclaimArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("FILE", arguments.file, "the new file")->required();
            add_size(command, "--size", arguments.size_bytes, "of the file")->required();
        },
        add_swap);
    add_command<ReclaimArguments>(
        app, context, "reclaim", "Show or set who loses frames when there are too few.",
        [](CLI::App& command, ReclaimArguments& arguments) {
            add_pool(command, arguments.pool);
            command
                .add_option("--policy", arguments.frames,
                            "global: any space, when the pool is full; local: the space that wants "
                            "more, when it is full or the space has its quota")
                ->check(CLI::IsMember({"global", "local"}));
            command
                .add_option("--oom", arguments.oom,
                            "when nothing can go: refuse the call, or release (remove) the space "
                            "with most memory of its own")
                ->check(CLI::IsMember({"refuse", "release"}));
        },
        reclaim);
    add_command<ReclaimArguments>(
        app, context, "quota", "Show a space's quota of frames and what it has, or set it.",
        [](CLI::App& command, ReclaimArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            command.add_option("QUOTA", arguments.quota, "a size, as 64MiB, or none");
        },
        quota);
    add_command<ReclaimArguments>(
        app, context, "evict", "Take the frames of some of a space's pages now, by the clock.",
        [](CLI::App& command, ReclaimArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            add_size(command, "SIZE", arguments.size_bytes, "how much, as 64MiB")->required();
        },
        evict);
}

}  // namespace holdfast::tool
