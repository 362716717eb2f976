// A child process whose memory the tests know, and the comparison of it with an imported space.
//
// A test that uses this gives its program a second life: `main` must be
//     int main(int argc, char** argv) { return holdfast::test::image_test_main(argc, argv); }
// since the subject, and the reader that opens the pool in another process, are the same program.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/holdfast.hpp"

namespace holdfast::test {

// Where the subject has what; it says so when it is ready.
struct SubjectFacts {
    std::uint64_t ahead = 0;    // a counter, raised before the one in `behind`, for ever
    std::uint64_t behind = 0;   // on another page, far away
    std::uint64_t signals = 0;  // how many SIGRTMIN it has handled
    std::uint64_t sparse = 0, sparse_bytes = 0;  // touched at both ends and in the middle
    std::uint64_t guard = 0;                     // a page without access
    std::uint64_t private_hole = 0;  // a written page in a private mapping of a file's hole
};

class SubjectProcess {
  public:
    enum class Kind : std::uint8_t {
        basic,       // threads, heap, shared and private mappings, files, guards
        sparse,      // the same and a terabyte that is hardly touched
        leaderless,  // the first thread has ended, the others work on
        in_vfork,    // waits in the kernel for a child until `release`
        large,       // the same as basic and 1 GiB without a zero page
        fragmented,  // the same as basic and 512 MiB in which every second page is zeros
    };
    explicit SubjectProcess(Kind kind = Kind::basic);
    ~SubjectProcess();
    SubjectProcess(const SubjectProcess&) = delete;
    SubjectProcess& operator=(const SubjectProcess&) = delete;

    pid_t pid() const { return pid_; }
    const SubjectFacts& facts() const { return facts_; }

    void stop() const;   // by SIGSTOP; returns when it is
    void go_on() const;  // by SIGCONT
    void release();      // see in_vfork
    char state() const;
    // Whether it is in that state before long: the kernel wakes a process that it lets go of, also
    // one that it stops again at once, and others may keep the processors meanwhile.
    bool comes_to(char wanted) const;  // R, S, T, …
    bool is_traced() const;
    std::uint64_t word_at(std::uint64_t address) const;
    // Whether its counters rise within a few seconds.
    bool makes_progress() const;
    // Kills it; the status that waitpid(2) has for its parent.
    int end();

  private:
    pid_t pid_ = -1;
    int control_ = -1;
    SubjectFacts facts_;
};

enum class ComparedWith : std::uint8_t { process, core };

// Opens the pool in a new process and compares the space with the stopped process, byte by byte and
// line by line of `maps`. Returns what differs, or nothing.
std::string compare_in_new_process(const std::string& pool, const std::string& space, pid_t process,
                                   ComparedWith kind = ComparedWith::process);

int image_test_main(int argc, char** argv);

}  // namespace holdfast::test
