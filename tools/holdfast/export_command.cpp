// export: a space as a core dump.
#include <holdfast/image.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "findings.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct ExportArguments {
    std::string pool;
    std::string space;
    std::string file;
    bool salvage = false;
};

Outcome export_space(const Context& context, const ExportArguments& arguments) {
    const auto store = context.open_copy(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const auto space = store->open_space(arguments.space);
    if (!space) return std::unexpected(space.error());
    const auto report = [&] {
        Progress progress("exporting");
        return export_core(*space, arguments.file,
                           {.salvage = arguments.salvage,
                            .progress = [&](std::uint64_t done, std::uint64_t total) {
                                progress.update(done, total);
                            }});
    }();
    if (!report) return std::unexpected(report.error());
    if (context.json) {
        Json lost = Json::array();
        for (const Range& range : report->lost) lost.push_back(json_of(range));
        print_json({{"mapped_bytes", report->mapped_bytes},
                    {"written_bytes", report->written_bytes},
                    {"lost", lost},
                    {"seconds", report->seconds}});
    } else {
        print("{} mapped, {} of it written (the rest is zeros), in {}\n",
              format_size(report->mapped_bytes), format_size(report->written_bytes),
              format_duration(report->seconds));
        for (const Range& range : report->lost)
            print("lost: {:#x}-{:#x}\n", range.start.bits(), range.end().bits());
    }
    return report->lost.empty() ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace

void add_export_command(CLI::App& app, Context& context) {
    add_command<ExportArguments>(
        app, context, "export",
        "Write a space as an ELF core dump, which gdb opens and `import --core` brings back.",
        [](CLI::App& command, ExportArguments& arguments) {
            add_pool(command, arguments.pool);
            add_space(command, arguments.space);
            command.add_option("FILE", arguments.file, "the core dump to be written")->required();
            command.add_flag("--salvage", arguments.salvage,
                             "leave out what is damaged instead of refusing, and list it; the exit "
                             "status is 1 if anything is lost");
        },
        export_space);
}

}  // namespace holdfast::tool
