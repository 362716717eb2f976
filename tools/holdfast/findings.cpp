#include "findings.hpp"

#include "quantity.hpp"

namespace holdfast::tool {

Json json_of(const Range& range) {
    if (range.size_bytes == 0) return nullptr;
    return {{"start", format_address(range.start.bits())},
            {"end", format_address(range.end().bits())}};
}

Json json_of(const Finding& finding) {
    return {{"what", finding.what},
            {"space", finding.space},
            {"range", json_of(finding.range)},
            {"detail", finding.detail}};
}

std::string text_of(const Finding& finding) {
    std::string line = finding.what;
    if (!finding.space.empty()) line += fmt::format(": space \"{}\"", finding.space);
    if (finding.range.size_bytes != 0)
        line += fmt::format(" {:#x}-{:#x}", finding.range.start.bits(), finding.range.end().bits());
    return fmt::format("{}: {}", line, finding.detail);
}

void CheckProgress::operator()(const VerifyProgress& progress) {
    if (!line_.is_due()) return;
    line_.show(progress.frames == 0
                   ? fmt::format("checking: {} tables", progress.tables)
                   : fmt::format("checking: {} tables, {:.0f} % of the frames", progress.tables,
                                 100 * static_cast<double>(progress.frames) /
                                     static_cast<double>(progress.frames_total)));
}

}  // namespace holdfast::tool
