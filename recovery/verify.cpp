#include "recovery/verify.hpp"

#include <algorithm>
#include <tuple>

namespace holdfast::recovery {

void sort(std::vector<Finding>& findings) {
    const auto key = [](const Finding& finding) {
        return std::tie(finding.what, finding.space, finding.range.start, finding.range.size_bytes,
                        finding.detail);
    };
    std::sort(findings.begin(), findings.end(),
              [&](const Finding& a, const Finding& b) { return key(a) < key(b); });
}

VerifyReport verify(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
                    const table::LimboStack& limbo, const VerifyOptions& options) {
    VerifyReport report = survey(memory, directory, limbo, options).report;
    sort(report.findings);
    return report;
}

}  // namespace holdfast::recovery
