// import: a process, a core dump or a program as a new space.
#include <holdfast/image.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct ImportArguments {
    std::string pool;
    std::string space;
    pid_t pid = 0;
    std::string core;
    std::string elf;
    Levels levels = Levels::four;
};

Result<ImportReport> import_from(Store& store, const ImportArguments& arguments,
                                 const ImportOptions& options) {
    if (!arguments.core.empty())
        return import_core(store, arguments.space, arguments.core, options);
    if (!arguments.elf.empty()) return import_elf(store, arguments.space, arguments.elf, options);
    return import_process(store, arguments.space, arguments.pid, options);
}

Outcome import(const Context& context, const ImportArguments& arguments) {
    auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto report = [&] {
        Progress progress("importing");
        return import_from(
            *store, arguments,
            {.levels = arguments.levels, .progress = [&](std::uint64_t done, std::uint64_t total) {
                 progress.update(done, total);
             }});
    }();
    if (!report) return std::unexpected(report.error());
    if (context.json) {
        Json json = {{"mapped_bytes", report->mapped_bytes},
                     {"stored_bytes", report->stored_bytes},
                     {"skipped_bytes", report->skipped_bytes},
                     {"seconds", report->seconds}};
        if (!arguments.elf.empty()) json["entry_point"] = format_address(report->entry_point);
        print_json(json);
        return ExitStatus::well;
    }
    print("{} mapped, {} of it stored (the rest is zeros), in {}\n",
          format_size(report->mapped_bytes), format_size(report->stored_bytes),
          format_duration(report->seconds));
    if (report->skipped_bytes != 0)
        print("{} could not be read and were left out\n", format_size(report->skipped_bytes));
    if (!arguments.elf.empty()) print("entry point {:#x}\n", report->entry_point);
    return ExitStatus::well;
}

}  // namespace

void add_import_command(CLI::App& app, Context& context) {
    add_command<ImportArguments>(
        app, context, "import",
        "Bring in a process (stopped while it is copied), a core dump or a program as a new space.",
        [](CLI::App& command, ImportArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            CLI::Option_group* const source = command.add_option_group("source");
            source->add_option("--pid", arguments.pid, "a running process")
                ->check(CLI::PositiveNumber);
            source->add_option("--core", arguments.core, "an ELF core dump");
            source->add_option("--elf", arguments.elf, "a program: its loadable segments");
            source->require_option(1);
            add_levels(command, arguments.levels);
        },
        import);
}

}  // namespace holdfast::tool
