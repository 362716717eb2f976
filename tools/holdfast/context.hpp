// What every command is given, and how it answers.
#pragma once

#include <functional>
#include <string>

#include "holdfast/error.hpp"
#include "holdfast/space.hpp"
#include "holdfast/store.hpp"

namespace holdfast::tool {

enum class ExitStatus : int {
    well = 0,
    findings = 1,     // damage was found
    wrong_usage = 2,  // another command line would do
    refused = 3,      // the pool or the machine would not let us
};

// The status with which a command that failed with this error ends.
ExitStatus exit_status_of(ErrorCode code);

// How a command ends: a status of its own, or an error that main() reports.
using Outcome = Result<ExitStatus>;

struct Context {
    bool json = false;
    bool emulate_pmem = false;
    // What the command line asks for; called once all of it has been parsed.
    std::function<Outcome()> run;

    PmemEmulation emulation() const {
        return emulate_pmem ? PmemEmulation::on : PmemEmulation::from_environment;
    }
    Result<Store> open_store(const std::string& pool) const;
    // For commands that only read: the file may be read-only, and keeps every byte.
    Result<Store> open_copy(const std::string& pool) const;
    // The space keeps its store open.
    Result<Space> open_space(const std::string& pool, const std::string& name) const;
};

}  // namespace holdfast::tool
