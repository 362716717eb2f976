// verify: the full check of a store; findings are the answer and the exit status.
#include <holdfast/store.hpp>

#include "arguments.hpp"
#include "commands.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool {
namespace {

struct VerifyArguments {
    std::string pool;
};

Json json_of(const Finding& finding) {
    Json range;  // null: nothing in particular is lost
    if (finding.range.size_bytes != 0)
        range = {{"start", format_address(finding.range.start.bits())},
                 {"end", format_address(finding.range.end().bits())}};
    return {{"what", finding.what},
            {"space", finding.space},
            {"range", range},
            {"detail", finding.detail}};
}

Json json_of(const VerifyReport& report) {
    Json findings = Json::array();
    for (const Finding& finding : report.findings) findings.push_back(json_of(finding));
    return {{"clean", report.clean()},
            {"findings", findings},
            {"tables", report.tables},
            {"mapped_pages", report.mapped_pages},
            {"frames",
             {{"total", report.frames_total},
              {"reachable", report.frames_reachable},
              {"limbo", report.frames_limbo},
              {"building", report.frames_building},
              {"free", report.frames_free}}}};
}

void print_text(const VerifyReport& report) {
    for (const Finding& finding : report.findings) {
        std::string line = finding.what;
        if (!finding.space.empty()) line += fmt::format(": space \"{}\"", finding.space);
        if (finding.range.size_bytes != 0)
            line +=
                fmt::format(" {:#x}-{:#x}", finding.range.start.bits(), finding.range.end().bits());
        print("{}: {}\n", line, finding.detail);
    }
    print(
        "{}: {} tables, {} mapped pages; frames: {} reachable + {} limbo + {} building + {} free "
        "of {}\n",
        report.clean() ? "clean" : fmt::format("{} findings", report.findings.size()),
        report.tables, report.mapped_pages, report.frames_reachable, report.frames_limbo,
        report.frames_building, report.frames_free, report.frames_total);
}

Outcome verify(const Context& context, const VerifyArguments& arguments) {
    const auto store = context.open_store(arguments.pool);
    if (!store) return std::unexpected(store.error());
    const VerifyReport report = store->verify();
    if (context.json)
        print_json(json_of(report));
    else
        print_text(report);
    return report.clean() ? ExitStatus::well : ExitStatus::findings;
}

}  // namespace

void add_verify_command(CLI::App& app, Context& context) {
    add_command<VerifyArguments>(
        app, context, "verify",
        "Check every table, entry and frame; the exit status is 1 if anything is wrong.",
        [](CLI::App& command, VerifyArguments& arguments) { add_pool(command, arguments.pool); },
        verify);
}

}  // namespace holdfast::tool
