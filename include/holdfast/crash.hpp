// The crash-injection harness: which crashes could break this program?
//
// Hand it a subject: how to make a pool, what to do with it, and how to tell whether a pool that a
// crash left behind is right. The harness runs the subject once and records every store, flush and
// fence; works out, by the x86 persistency model, every content that a crash may leave on the
// medium; makes these contents real, one after the other, and has the subject judge each.
//
//     class Counter : public crash::Subject { … };          // examples/crash_counter.cpp
//     auto result = crash::run(Counter{}, {.jobs = 2});
//     for (const auto& violation : result->violations) std::puts(violation.text.c_str());
//
// It works on any code that reaches persistent memory through libpmem or libpmemobj, in a program
// that links holdfast::crash (which takes the place of libpmem's functions, and of mmap). Programs
// that do not are crashed by the command `holdfast crash run --setup … --run … --check …`.
//
// Thread safety: one campaign at a time in a process, begun while the process has one thread. The
// subject's functions run in processes of their own, forked for it; they share nothing afterwards.
// Nothing is left behind in /dev/shm: images have no name there, and what has one goes at the end
// (also after `interrupt`), at the next campaign if the process was killed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::crash {

// Where a crash struck, in operations.
struct Moment {
    std::uint64_t acknowledged = 0;  // operations 0 … acknowledged-1 had returned
    bool in_flight = false;          // operation `acknowledged` had begun
};

// Marks the operations of a subject's run. What lies outside operations must change nothing that
// `check` looks at.
class Operations {
  public:
    virtual ~Operations() = default;
    virtual void begin() = 0;
    virtual void acknowledge() = 0;  // the operation is durable now, if it is to be at all
};

class Subject {
  public:
    virtual ~Subject() = default;
    // Identifies subject and parameters in tokens: no spaces, no '/'.
    virtual std::string name() const = 0;

    // Makes the pool at `path`, as it is before the first operation: not traced, taken as durable.
    // If it makes no file, the run begins with an empty folder (the creation of pools is traced
    // so).
    virtual Result<void> set_up(const std::string& path) = 0;
    // Opens the pool and does the operations. Must do the same each time.
    virtual Result<void> run(const std::string& path, Operations& operations) = 0;
    // Opens a pool that a crash has left, and returns what is wrong with it: nothing, if all is as
    // before or after the operation in flight, and goes on working. May change the pool.
    virtual std::string check(const std::string& path, const Moment& moment) = 0;
    // Opens such a pool and does what recovery may put off until the first change; it is traced in
    // its turn to crash recovery too. By default there is nothing, and recovery is not crashed.
    virtual bool has_recovery() const { return false; }
    virtual Result<void> recover(const std::string& path);

    // A subject whose run and check are programs that it starts says so. Then `run_traced` is
    // called in the place of `run`, and starts the program with libholdfast-crash-preload.so in it,
    // which writes to the file `trace`. Since the harness cannot see what a check in another
    // process reads, it leaves out no states; recovery is not crashed.
    virtual bool is_other_program() const { return false; }
    virtual Result<void> run_traced(const std::string& path, const std::string& trace);
};

enum class Platform : std::uint8_t {
    adr,   // caches are lost when power fails
    eadr,  // caches are saved
};

// How much of what a crash may leave is looked at: the stronger, the more bugs are found.
enum class Exploration : std::uint8_t {
    program_order,  // crash between stores, all earlier ones durable
    flushed_only,   // and lines that no fence made durable lost, all of them
    sampled,        // and a random choice of lines, extremes first
    full,           // and all combinations, where these are not too many
};
const char* to_string(Exploration exploration);

struct Progress {
    std::uint64_t states = 0, windows_done = 0, windows = 0, violations = 0;
};

struct Options {
    Platform platform = Platform::adr;
    Exploration exploration = Exploration::full;
    // Of one crash window (the stores between two moments at which something becomes durable) at
    // most so many states; all of them if there are no more, otherwise extremes and a sample.
    std::uint64_t states_per_window = 2000;
    std::uint64_t states = 0;  // at most so many altogether; 0 is no limit
    double seconds = 0;        // at most so long; 0 is no limit
    std::uint64_t seed = 1;    // of samples
    // Pages that the set-up never wrote hold this byte instead of zeros.
    std::optional<std::uint8_t> fill = {};
    unsigned jobs = 1;               // worker processes
    unsigned shard = 0, shards = 1;  // this one of how many that share the work
    unsigned depth = 2;              // 2: recovery is crashed too
    double seconds_per_check = 10;   // a check that takes longer hangs
    double seconds_per_run = 60;
    std::uint64_t stop_after_violations = 16;
    std::function<void(const Progress&)> progress = {};  // now and then
};

// A state of the medium, reachable by a crash, that the subject judged wrong.
struct Violation {
    enum class Kind : std::uint8_t {
        wrong,  // the check says so
        died,   // the check ended its process, by whatever signal or exit
        hung,   // it took longer than Options::seconds_per_check, and its process was ended
    };
    Kind kind = Kind::wrong;
    std::string token;        // replays it: crash::replay
    std::string text;         // what the subject said, or that it crashed or hung
    std::string crash_point;  // the event before which power failed
    Moment moment;
    // The fewest lines that must be lost, or early, for it to fail: each with the store concerned.
    struct Line {
        std::uint64_t offset = 0;  // of the line in the pool
        bool lost = false;         // otherwise: it reached the medium before its flush
        std::string store;         // what it was
        std::vector<std::string> stack;
    };
    std::vector<Line> lines;
    unsigned depth = 1;  // 2: in recovery
};
const char* to_string(Violation::Kind kind);

// One crash window of the trace.
struct Coverage {
    std::uint64_t first_event = 0, end_event = 0;
    Moment moment;
    std::uint64_t lines = 0;  // undetermined ones
    double states = 0;        // reachable in it and not before
    double relevant = 0;      // of these, different in a line that the check reads
    std::uint64_t judged = 0;
    bool exhaustive = false;  // every relevant one was judged
    std::string why_not;
};

struct Outcome {
    std::string subject;
    std::uint64_t events = 0, stores = 0, flushes = 0, fences = 0;
    double microseconds_per_store = 0;  // that tracing took
    std::uint64_t states = 0;           // judged
    std::uint64_t nested_states = 0;    // of these, crashes of recovery
    std::uint64_t pruned_audited = 0;   // states judged although pruning says they cannot matter
    double seconds = 0;
    double reachable = 0;  // states altogether
    std::vector<Coverage> windows;
    std::vector<Violation> violations;
    std::uint64_t verdict_hash = 0;  // the same for the same subject, seed and options
    // Where the workers' time went, in seconds: choosing states, patching images, the subject's
    // check, putting back what it had changed.
    double choose_seconds = 0, patch_seconds = 0, check_seconds = 0, restore_seconds = 0;
    bool complete = true;  // neither time nor a limit cut it short
};

// Errors: invalid_argument, io; and what the subject's own set_up and run say.
Result<Outcome> run(Subject& subject, const Options& options);

// For a handler of SIGINT or SIGTERM: the campaign under way stops, ends its processes, removes
// what it has made, and returns an error. So does every later one. Async-signal-safe.
void interrupt();

// Judges one state again. The error says so if the token is of another subject or another build.
Result<Outcome> replay(Subject& subject, const std::string& token, const Options& options);

}  // namespace holdfast::crash
