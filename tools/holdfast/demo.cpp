// demo: shows on this machine, in under a minute, what holdfast is for. Prints for a person.
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "arguments.hpp"
#include "commands.hpp"
#include "demo.hpp"
#include "demo_cleanup.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

constexpr std::uint64_t kPoolBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kRoomBytes = kPoolBytes + (std::uint64_t{32} << 20);

struct DemoArguments {
    std::uint64_t seed = 0;
    bool has_seed = false;
    unsigned rounds = 20;
};

bool has_room(const std::string& folder) {
    struct statvfs file_system{};
    return access(folder.c_str(), W_OK | X_OK) == 0 && statvfs(folder.c_str(), &file_system) == 0 &&
           std::uint64_t{file_system.f_bavail} * file_system.f_frsize > kRoomBytes;
}

// Memory if it can be had, since that is what emulates PMem best.
Result<std::string> folder_with_room() {
    const char* const temporary = std::getenv("TMPDIR");
    const std::string fallback = temporary != nullptr ? temporary : "/tmp";
    for (const std::string& folder : {std::string("/dev/shm"), fallback})
        if (has_room(folder)) return folder;
    return fail(
        ErrorCode::no_space,
        fmt::format("the demo needs {} in /dev/shm or in {}, where TMPDIR points; make room, or "
                    "set TMPDIR to another folder",
                    format_size(kRoomBytes), fallback));
}

// Chapters 1 and 2, in one pool.
Outcome show_crashes(const std::string& folder, const DemoArguments& arguments) {
    const demo::DoomedFile pool(demo::pool_path(folder, "program"));
    if (auto store =
            Store::create(pool.path(), {.size_bytes = kPoolBytes, .emulation = PmemEmulation::on});
        !store)
        return std::unexpected(store.error());
    const auto fingerprint = demo::import_running_program(pool.path());
    if (!fingerprint) return std::unexpected(fingerprint.error());
    return demo::kill_writers(pool.path(), *fingerprint, arguments.seed, arguments.rounds);
}

Outcome run_demo(const Context&, const DemoArguments& given) {
    DemoArguments arguments = given;
    if (!arguments.has_seed) arguments.seed = std::random_device()();
    demo::clean_up_on_signals();
    const auto folder = folder_with_room();
    if (!folder) return std::unexpected(folder.error());
    demo::sweep(*folder);
    print("holdfast demo: pools in {}, taken for persistent memory; removed at the end\n", *folder);
    const Outcome crashes = show_crashes(*folder, arguments);
    if (!crashes) return crashes;
    if (auto measured = demo::measure_restarts(*folder); !measured)
        return std::unexpected(measured.error());
    const Outcome judged = demo::judge_crash_states();
    if (!judged || *judged != ExitStatus::well) return judged;
    return crashes;
}

}  // namespace

void add_demo_command(CLI::App& app, Context& context) {
    add_command<DemoArguments>(
        app, context, "demo",
        "Show it: a running program moves in, its writer is killed, open beats rebuilding, and "
        "every crash is judged.",
        [](CLI::App& command, DemoArguments& arguments) {
            command.add_option_function<std::uint64_t>(
                "--seed",
                [&arguments](std::uint64_t seed) {
                    arguments.seed = seed;
                    arguments.has_seed = true;
                },
                "repeat the run that printed this seed");
            command.add_option("--rounds", arguments.rounds, "how often the writer is killed")
                ->capture_default_str();
        },
        run_demo);
    demo::add_crash_commands(app, context);
    demo::add_restart_commands(app, context);
}

}  // namespace holdfast::tool
