// The import of a live process, crashed: a space with all of the process is there, or none.
//
// The process is a program of two segments made for this, so that its whole address space, stack
// and vdso included, is a dozen pages, laid out without randomisation: the same each time.
#pragma once

#include <string>

#include "holdfast/crash.hpp"

namespace holdfast::crash {

class ImportWorkload final : public Subject {
  public:
    static constexpr const char* kName = "import_process";
    static constexpr const char* kAbout = "the real import of a live process beside another space";

    ImportWorkload();
    ~ImportWorkload() override;
    ImportWorkload(const ImportWorkload&) = delete;
    ImportWorkload& operator=(const ImportWorkload&) = delete;

    std::string name() const override { return kName; }
    Result<void> set_up(const std::string& path) override;
    Result<void> run(const std::string& path, Operations& operations) override;
    std::string check(const std::string& path, const Moment& moment) override;
    bool has_recovery() const override { return true; }
    Result<void> recover(const std::string& path) override;

  private:
    // What the run has imported, in memory shared with it.
    struct Imported;
    Imported* imported_;
};

}  // namespace holdfast::crash
