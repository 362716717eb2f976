// repair: what is lost is removed from a store, and said.
#include <holdfast/repair.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "findings.hpp"
#include "output.hpp"

namespace holdfast::tool {
namespace {

struct RepairArguments {
    std::string pool;
    bool dry_run = false;
    bool lost = false;
};

void print_text(const RepairReport& report, bool dry_run) {
    for (const Finding& each : report.repaired) print("{}\n", text_of(each));
    if (!report.repaired.empty())
        print("{} {}, {} frames freed{}\n", report.repaired.size(),
              dry_run ? "things would be repaired" : "things repaired", report.freed_frames,
              dry_run ? "; the file is as it was" : "");
    for (const Finding& each : report.after.findings) print("{}\n", text_of(each));
    if (!report.after.clean())
        print(
            "out of reach, and left as it is: bring the region back (`region list`), or remove its "
            "pages with --lost\n");
    else if (report.repaired.empty())
        print("clean: nothing to repair\n");
    else if (!dry_run)
        print("the store is clean\n");
}

Outcome repair(const Context& context, const RepairArguments& arguments) {
    const auto report = [&] {
        CheckProgress progress;
        return repair_file(arguments.pool,
                           {.dry_run = arguments.dry_run,
                            .remove_lost_pages = arguments.lost,
                            .emulation = context.emulation(),
                            .on_progress = [&](const VerifyProgress& now) { progress(now); }});
    }();
    if (!report) return std::unexpected(report.error());
    const bool is_clean = (report->repaired.empty() || !arguments.dry_run) && report->after.clean();
    if (context.json) {
        Json findings = Json::array();
        for (const Finding& each : report->repaired) findings.push_back(json_of(each));
        print_json({{"clean", is_clean},
                    {"dry_run", arguments.dry_run},
                    {"findings", findings},
                    {"freed_frames", report->freed_frames},
                    {"mapped_pages", report->after.mapped_pages}});
    } else {
        print_text(*report, arguments.dry_run);
    }
    return is_clean ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace

void add_repair_command(CLI::App& app, Context& context) {
    add_command<RepairArguments>(
        app, context, "repair",
        "Remove what is lost from a damaged store, so that it verifies clean, and list it with its "
        "address ranges. A store that is clean is not changed by one byte.",
        [](CLI::App& command, RepairArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_flag("--dry-run", arguments.dry_run,
                             "say what would be done, and change nothing; the exit status is 1 if "
                             "there is anything to do");
            command.add_flag("--lost", arguments.lost,
                             "remove pages, too, whose region is out of reach and might come back");
        },
        repair);
}

}  // namespace holdfast::tool
