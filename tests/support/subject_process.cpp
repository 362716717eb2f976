#include "support/subject_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "image/process_maps.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using image::ProcessMapping;

[[noreturn]] void give_up(const std::string& what) {
    fmt::print(stderr, "{}: {}\n", what, std::strerror(errno));
    _exit(3);
}

// --- the subject ---

std::byte* map_memory(std::uint64_t size_bytes, int protection, int flags, int file = -1) {
    void* const memory = mmap(nullptr, size_bytes, protection, flags, file, 0);
    if (memory == MAP_FAILED) give_up("mmap");
    return static_cast<std::byte*>(memory);
}

void scribble(std::byte* memory, std::uint64_t size_bytes) {
    static std::mt19937_64 random(4711);
    for (std::uint64_t i = 0; i + 8 <= size_bytes; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(memory + i, &word, sizeof word);
    }
}

// An unlinked file of `size_bytes`, in memory.
int unnamed_file(const char* name, std::uint64_t size_bytes) {
    const int file = memfd_create(name, MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, static_cast<off_t>(size_bytes)) != 0) give_up("memfd_create");
    return file;
}

// Whether this program, and so its parent, may see what lies behind anonymous shared memory.
bool can_reach_mapped_files(const std::byte* mapping, std::uint64_t size_bytes) {
    const auto start = reinterpret_cast<std::uint64_t>(mapping);
    return access(fmt::format("/proc/self/map_files/{:x}-{:x}", start, start + size_bytes).c_str(),
                  R_OK) == 0;
}

using Counter = std::atomic<std::uint64_t>;
Counter *ahead = nullptr, *behind = nullptr, *signal_count = nullptr;
void count_signal(int) { signal_count->fetch_add(1); }

SubjectFacts arrange_memory(SubjectProcess::Kind kind) {
    using Kind = SubjectProcess::Kind;
    constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS, kShared = MAP_SHARED | MAP_ANONYMOUS;
    SubjectFacts facts;
    const auto address = [](const void* memory) { return reinterpret_cast<std::uint64_t>(memory); };
    // Below everything that follows, and so copied last or nearly so.
    std::byte* const counters = map_memory(4_MiB, PROT_READ | PROT_WRITE, kPrivate);
    facts.ahead = address(ahead = reinterpret_cast<Counter*>(counters));
    facts.signals = address(signal_count = reinterpret_cast<Counter*>(counters + 2_MiB));
    facts.behind = address(behind = reinterpret_cast<Counter*>(counters + 3_MiB));

    // Small and large allocations, [heap] among them.
    for (int i = 0; i < 300; ++i) scribble(static_cast<std::byte*>(std::malloc(1000)), 1000);

    // Zero pages between others.
    std::byte* const mixed = map_memory(5_MiB, PROT_READ | PROT_WRITE, kPrivate);
    for (std::uint64_t page = 0; page < 1280; ++page)
        if (page * page % 7 < 3) scribble(mixed + page * kPageSize, kPageSize);
    std::memset(mixed + 3_MiB, 0, 1_MiB);  // touched, and zeros all the same
    mprotect(mixed + 64 * kPageSize, 7 * kPageSize, PROT_READ);
    mprotect(mixed + 99 * kPageSize, kPageSize, PROT_NONE);
    mprotect(mixed + 128 * kPageSize, 3 * kPageSize, PROT_READ | PROT_EXEC);
    facts.guard = address(mixed + 99 * kPageSize);
    mixed[200 * kPageSize + 4095] = std::byte{1};  // the last byte of a page counts

    std::byte* const shared = map_memory(2_MiB, PROT_READ | PROT_WRITE, kShared);
    scribble(shared + 512_KiB, 300_KiB);

    // A file with a hole, shared; the same private, with a written page in the hole.
    const int holed = unnamed_file("holed", 4_MiB);
    std::byte* const holed_shared = map_memory(4_MiB, PROT_READ | PROT_WRITE, MAP_SHARED, holed);
    scribble(holed_shared + 1_MiB, 1_MiB);
    std::byte* const holed_private = map_memory(4_MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE, holed);
    scribble(holed_private + 3_MiB, kPageSize);
    facts.private_hole = address(holed_private + 3_MiB);

    // A file that ends before its mapping does, in the middle of a page.
    const int brief = unnamed_file("brief", kPageSize + 100);
    scribble(map_memory(16 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, brief), kPageSize);

    facts.sparse_bytes = kind == Kind::sparse ? 1024_GiB : 64_MiB;
    std::byte* const sparse =
        map_memory(facts.sparse_bytes, PROT_READ | PROT_WRITE, kPrivate | MAP_NORESERVE);
    facts.sparse = address(sparse);
    for (const std::uint64_t at :
         {std::uint64_t{0}, facts.sparse_bytes / 2, facts.sparse_bytes - kPageSize})
        scribble(sparse + at, kPageSize);
    if (kind == Kind::sparse && can_reach_mapped_files(shared, 2_MiB))
        // Shared memory that is not touched has no pages, and reading must not give it any.
        scribble(map_memory(64_GiB, PROT_READ | PROT_WRITE, kShared | MAP_NORESERVE) + 9_GiB,
                 kPageSize);
    if (kind == Kind::large) scribble(map_memory(1_GiB, PROT_READ | PROT_WRITE, kPrivate), 1_GiB);
    if (kind == Kind::fragmented) {
        std::byte* const pages = map_memory(512_MiB, PROT_READ | PROT_WRITE, kPrivate);
        for (std::uint64_t at = 0; at < 512_MiB; at += 2 * kPageSize) scribble(pages + at, 64);
    }
    return facts;
}

int subject_main(int kind_number, int ready, int control) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Where Yama restricts tracing, the reader and gcore may look at it all the same.
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    const auto kind = static_cast<SubjectProcess::Kind>(kind_number);
    const SubjectFacts facts = arrange_memory(kind);
    struct sigaction action{};
    action.sa_handler = count_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGRTMIN, &action, nullptr);

    // Up is who works: on a busy machine a thread may be made long before it runs.
    const auto announce = [&] {
        while (behind->load() == 0) sched_yield();
        if (write(ready, &facts, sizeof facts) != sizeof facts) give_up("announce");
    };
    const auto count_for_ever = [] {
        for (std::uint64_t n = 1;; ++n) {
            ahead->store(n);
            behind->store(n);
            if (n % 256 == 0) sched_yield();
        }
    };
    if (kind == SubjectProcess::Kind::in_vfork) {
        std::thread(count_for_ever).detach();
        announce();
        // NOLINTNEXTLINE: the very call whose wait cannot be interrupted.
        const pid_t child = vfork();
        if (child == 0) {
            char byte = 0;
            while (read(control, &byte, 1) < 0) {
            }
            _exit(0);
        }
        for (;;) pause();
    }
    // One thread works, one sleeps in the kernel, one waits for another.
    auto* const worker = new std::thread(count_for_ever);
    std::thread([] {
        for (;;) pause();
    }).detach();
    announce();
    if (kind == SubjectProcess::Kind::leaderless) pthread_exit(nullptr);
    worker->join();
    return 0;
}

// --- the reader ---

std::string line_of(const Mapping& mapping) {
    return fmt::format("{:x}-{:x} {} {}+{:x}\n", mapping.range.start.bits(),
                       mapping.range.end().bits(), mapping.protection.to_string(), mapping.name,
                       mapping.name.empty() ? 0 : mapping.name_offset);
}

bool is_zero(const std::byte* page) {
    return std::all_of(page, page + kPageSize, [](std::byte byte) { return byte == std::byte{0}; });
}

class Comparison {
  public:
    Comparison(Space space, pid_t process, ComparedWith kind)
        : space_(std::move(space)),
          process_(process),
          kind_(kind),
          memory_(open(fmt::format("/proc/{}/mem", process).c_str(), O_RDONLY)) {}
    ~Comparison() { close(memory_); }
    Comparison(const Comparison&) = delete;
    Comparison& operator=(const Comparison&) = delete;

    std::string run() {
        const auto text = value_of(image::read_proc_file(fmt::format("/proc/{}/maps", process_)));
        for (const ProcessMapping& mapping : value_of(image::parse_maps(text))) {
            if (mapping.range.start.bits() >> 63) continue;
            // gcore gives up a mapping whose end cannot be read, and leaves zeros.
            if (kind_ == ComparedWith::core && mapping.name.starts_with("/memfd:brief")) continue;
            if (!mapping.protection.readable()) {
                expect_absent(mapping.range.start);
                continue;
            }
            // Of what is too large to look at all of, the subject's test looks at some itself.
            if (mapping.range.size_bytes > 8_GiB)
                expected({mapping.range, mapping.protection, 0, mapping.name, mapping.file_offset});
            else
                compare_pages(mapping);
        }
        if (kind_ == ComparedWith::process) compare_lines();
        if (kind_ == ComparedWith::core && compared_bytes_ < 16_MiB)
            say(fmt::format("only {} bytes were there to compare", compared_bytes_));
        return differences_;
    }

  private:
    void say(const std::string& what) {
        if (differences_.size() < 4000) differences_ += what + "\n";
    }

    void expected(const Mapping& mapping) {
        // The store tells neighbours apart by protection and name only.
        if (!lines_.empty()) {
            Mapping& last = lines_.back();
            const bool same_name =
                last.name == mapping.name &&
                (mapping.name.empty() ||
                 last.name_offset + last.range.size_bytes == mapping.name_offset);
            if (last.range.end() == mapping.range.start && last.protection == mapping.protection &&
                same_name) {
                last.range.size_bytes += mapping.range.size_bytes;
                return;
            }
        }
        lines_.push_back(mapping);
    }

    void expect_absent(VirtAddr page) {
        if (kind_ == ComparedWith::core) return;  // gcore calls every mapping readable
        const auto found = space_.translate(page);
        if (found || found.error().kind != FaultKind::not_mapped)
            say(fmt::format("{:#x} should not be mapped", page.bits()));
    }

    void compare_pages(const ProcessMapping& mapping) {
        std::vector<std::byte> theirs(1_MiB), ours(1_MiB);
        for (VirtAddr at = mapping.range.start; at < mapping.range.end();) {
            const std::uint64_t wanted =
                std::min<std::uint64_t>(theirs.size(), mapping.range.end() - at);
            const ssize_t size =
                pread(memory_, theirs.data(), wanted, static_cast<off_t>(at.bits()));
            if (size <= 0) {
                expect_absent(at);
                at = at + kPageSize;
                continue;
            }
            const auto size_bytes = static_cast<std::uint64_t>(size);
            expected({{at, size_bytes},
                      mapping.protection,
                      0,
                      mapping.name,
                      mapping.file_offset + (at - mapping.range.start)});
            compare_chunk(mapping, at, std::span(theirs).first(size_bytes), ours);
            at = at + size_bytes;
        }
    }

    void compare_chunk(const ProcessMapping& mapping, VirtAddr at,
                       std::span<const std::byte> theirs, std::vector<std::byte>& ours) {
        if (kind_ == ComparedWith::core) {
            // What the kernel maps for itself may be missing.
            const auto found = space_.translate(at);
            if (!found && found.error().kind == FaultKind::not_mapped &&
                mapping.name.starts_with("[v"))
                return;
        }
        auto read = space_.read(at, std::span(ours).first(theirs.size()));
        if (!read) return say(read.error().message);
        compared_bytes_ += theirs.size();
        for (std::uint64_t page = 0; page < theirs.size(); page += kPageSize) {
            const VirtAddr address = at + page;
            if (std::memcmp(ours.data() + page, theirs.data() + page, kPageSize) != 0)
                say(fmt::format("the page at {:#x} ({}) differs", address.bits(), mapping.name));
            const auto found = space_.translate(address);
            if (found && found->protection != mapping.protection)
                say(fmt::format("{:#x} is {} and should be {}", address.bits(),
                                found->protection.to_string(), mapping.protection.to_string()));
            if (found && is_zero(theirs.data() + page))
                say(fmt::format("the zero page at {:#x} is stored", address.bits()));
        }
    }

    void compare_lines() {
        std::string theirs, ours;
        for (const Mapping& mapping : lines_) theirs += line_of(mapping);
        for (const Mapping& mapping : value_of(space_.maps())) ours += line_of(mapping);
        if (theirs != ours) say(fmt::format("maps are\n{}and should be\n{}", ours, theirs));
    }

    Space space_;
    pid_t process_;
    ComparedWith kind_;
    int memory_;
    std::vector<Mapping> lines_;
    std::string differences_;
    std::uint64_t compared_bytes_ = 0;
};

int reader_main(const std::string& pool, const std::string& space, pid_t process,
                ComparedWith kind) {
    try {
        const Store store = value_of(Store::open(pool, {.emulation = PmemEmulation::on}));
        fmt::print("{}", Comparison(value_of(store.open_space(space)), process, kind).run());
        return 0;
    } catch (const std::exception& error) {
        fmt::print("{}\n", error.what());
        return 1;
    }
}

template <typename Condition>
bool wait_until(const Condition& condition,
                std::chrono::seconds patience = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

// Runs this program again with other arguments; `kept` stay open in it.
pid_t run_again(std::vector<std::string> arguments, const std::vector<int>& kept) {
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const pid_t child = fork();
    if (child != 0) return child;
    for (const int file : kept) fcntl(file, F_SETFD, 0);
    execv("/proc/self/exe", pointers.data());
    _exit(127);
}

}  // namespace

SubjectProcess::SubjectProcess(Kind kind) {
    int ready[2], control[2];
    if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(control, O_CLOEXEC) != 0) stop_test("pipe2");
    pid_ = run_again({"subject", "--subject", std::to_string(static_cast<int>(kind)),
                      std::to_string(ready[1]), std::to_string(control[0])},
                     {ready[1], control[0]});
    close(ready[1]);
    close(control[0]);
    control_ = control[1];
    char bytes[sizeof facts_];
    const ssize_t size = read(ready[0], bytes, sizeof bytes);
    close(ready[0]);
    if (size != sizeof bytes) stop_test("the subject did not come up");
    std::memcpy(&facts_, bytes, sizeof bytes);
    if (kind == Kind::leaderless) wait_until([&] { return state() == 'Z'; });
    if (kind == Kind::in_vfork) wait_until([&] { return state() == 'D'; });
}

SubjectProcess::~SubjectProcess() {
    if (pid_ > 0) end();
    close(control_);
}

void SubjectProcess::stop() const {
    kill(pid_, SIGSTOP);
    int status = 0;
    if (waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status))
        stop_test("the subject does not stop");
}
void SubjectProcess::go_on() const { kill(pid_, SIGCONT); }
void SubjectProcess::release() {
    close(control_);
    control_ = -1;
}

char SubjectProcess::state() const { return value_of(image::read_status(pid_)).state; }
bool SubjectProcess::comes_to(char wanted) const {
    return wait_until([&] { return state() == wanted; });
}
bool SubjectProcess::is_traced() const { return value_of(image::read_status(pid_)).tracer != 0; }

std::uint64_t SubjectProcess::word_at(std::uint64_t address) const {
    // The first thread may have ended; any other shows the same memory.
    std::uint64_t word = 0;
    const int memory = open(fmt::format("/proc/{}/mem", pid_).c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t size = pread(memory, &word, sizeof word, static_cast<off_t>(address));
    close(memory);
    if (size != sizeof word) stop_test("the subject's memory cannot be read");
    return word;
}

bool SubjectProcess::makes_progress() const {
    const std::uint64_t before = word_at(facts_.behind);
    return wait_until([&] { return word_at(facts_.behind) > before + 1000; });
}

int SubjectProcess::end() {
    kill(pid_, SIGKILL);
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
}

std::string compare_in_new_process(const std::string& pool, const std::string& space, pid_t process,
                                   ComparedWith kind) {
    int output[2];
    if (pipe2(output, O_CLOEXEC) != 0) stop_test("pipe2");
    const pid_t child =
        run_again({"reader", "--reader", pool, space, std::to_string(process),
                   std::to_string(static_cast<int>(kind)), std::to_string(output[1])},
                  {output[1]});
    close(output[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t size; (size = read(output[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(size));
    close(output[0]);
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0 && text.empty()) text = fmt::format("the reader ended with {:#x}", status);
    return text;
}

int image_test_main(int argc, char** argv) {
    if (argc == 5 && std::strcmp(argv[1], "--subject") == 0)
        return subject_main(std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]));
    if (argc == 7 && std::strcmp(argv[1], "--reader") == 0) {
        dup2(std::atoi(argv[6]), STDOUT_FILENO);
        const int outcome = reader_main(argv[2], argv[3], std::atoi(argv[4]),
                                        static_cast<ComparedWith>(std::atoi(argv[5])));
        std::fflush(stdout);
        return outcome;
    }
    testing::InitGoogleMock(&argc, argv);
    return RUN_ALL_TESTS();
}

}  // namespace holdfast::test
