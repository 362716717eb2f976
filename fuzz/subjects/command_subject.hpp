// Somebody else's program as a subject: three commands of the shell, in which {pool} stands for the
// pool's path.
//
//   set-up  makes the pool; without one the run begins with an empty folder
//   run     changes it, traced by libholdfast-crash-preload.so; it may mark its operations
//           (holdfast/crash_operations.h), and otherwise all of it is one
//   check   looks at what a crash has left; status 0 is right, any other wrong, and what it said is
//           the finding; so is a signal that ends it. It finds in its environment
//             HOLDFAST_CRASH_ACKNOWLEDGED  how many operations had been acknowledged
//             HOLDFAST_CRASH_IN_FLIGHT     1 if the next had begun, otherwise 0
//           and goes through the same recovery as the program itself, for it opens the pool.
//
// All of them find PMEM_IS_PMEM_FORCE=1, since the pool lies in /dev/shm, or has no name at all
// while it is checked.
#pragma once

#include <string>

#include "holdfast/crash.hpp"

namespace holdfast::crash {

struct Commands {
    std::string set_up, run, check;
    std::string preload;  // the path of libholdfast-crash-preload.so
};

class CommandSubject final : public Subject {
  public:
    // Errors: invalid_argument for commands that cannot be; not_found for a missing preload.
    static Result<CommandSubject> create(Commands commands);

    std::string name() const override;
    bool is_other_program() const override { return true; }
    Result<void> set_up(const std::string& path) override;
    Result<void> run(const std::string& path, Operations& operations) override;
    // Afterwards the pool that the run has left must please the check.
    Result<void> run_traced(const std::string& path, const std::string& trace) override;
    std::string check(const std::string& path, const Moment& moment) override;

    // The beginning of a name of such a subject.
    static constexpr const char* kNamePrefix = "commands-";

  private:
    explicit CommandSubject(Commands commands) : commands_(std::move(commands)) {}
    Commands commands_;
};

}  // namespace holdfast::crash
