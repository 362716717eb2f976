#include "subjects/import_workload.hpp"

#include <elf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "holdfast/holdfast.hpp"
#include "judge/child_process.hpp"
#include "oracle/compare.hpp"
#include "subjects/lean_pool.hpp"
#include "subjects/script.hpp"
#include "trace/stable_hash.hpp"

namespace holdfast::crash {
namespace {

constexpr OpenOptions kOpen{.emulation = PmemEmulation::on};
constexpr std::uint64_t kPoolBytes = std::uint64_t{16} << 20;
constexpr std::uint64_t kCodeAddress = 0x40'0000, kDataAddress = 0x50'0000, kDataPages = 5;
constexpr std::uint64_t kLastWrittenPage = kDataAddress + 2 * kPageSize;
constexpr std::uint64_t kPattern = 0x0123'4567'89ab'cdef;
constexpr VirtAddr kOtherAddress(0x7000'0000);
constexpr const char* kOther = "other";
constexpr const char* kSpace = "imported";

// A program that stores the pattern into the first and the third page of its data, and waits.
std::vector<std::byte> program() {
    std::vector<std::byte> file(kPageSize);
    const auto put = [&](std::size_t at, const auto& what) {
        std::memcpy(file.data() + at, &what, sizeof what);
    };
    constexpr std::array<std::uint8_t, 39> kCode = {
        0x48, 0xbf, 0,    0, 0,    0, 0, 0, 0, 0,  // mov $data, %rdi
        0x48, 0xb8, 0,    0, 0,    0, 0, 0, 0, 0,  // mov $pattern, %rax
        0x48, 0x89, 0x07,                          // mov %rax, (%rdi)
        0x48, 0x89, 0x87, 0, 0x20, 0, 0,           // mov %rax, 0x2000(%rdi)
        0xb8, 0x22, 0,    0, 0,                    // mov $pause, %eax
        0x0f, 0x05,                                // syscall
        0xeb, 0xf7};                               // jmp to the mov before it
    constexpr std::size_t kCodeAt = 0x200;
    put(kCodeAt, kCode);
    put(kCodeAt + 2, kDataAddress);
    put(kCodeAt + 12, kPattern);
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = kCodeAddress + kCodeAt;
    header.e_phoff = header.e_ehsize = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 2;
    put(0, header);
    const Elf64_Phdr segments[] = {
        {PT_LOAD, PF_R | PF_X, 0, kCodeAddress, kCodeAddress, kPageSize, kPageSize, kPageSize},
        {PT_LOAD, PF_R | PF_W, 0, kDataAddress, kDataAddress, 0, kDataPages * kPageSize,
         kPageSize}};
    put(sizeof header, segments);
    return file;
}

// The program as a process, for as long as this lives.
class SmallProcess {
  public:
    static Result<SmallProcess> start() {
        const int file = memfd_create("holdfast-subject", MFD_CLOEXEC);
        const std::vector<std::byte> bytes = program();
        if (file < 0 ||
            write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
            return fail(ErrorCode::io, "no memory for the program that is imported");
        const pid_t process = fork_child([&] {
            personality(ADDR_NO_RANDOMIZE);
            char name[] = "subject";
            char* arguments[] = {name, nullptr};
            char* environment[] = {nullptr};
            fexecve(file, arguments, environment);
            _exit(127);
        });
        close(file);
        SmallProcess started(process);
        if (process < 0 || !started.wait_until_it_waits())
            return fail(ErrorCode::io, "the program that is imported does not start");
        return started;
    }
    SmallProcess(SmallProcess&& other) noexcept : process_(std::exchange(other.process_, -1)) {}
    SmallProcess& operator=(SmallProcess&&) = delete;
    ~SmallProcess() {
        if (process_ > 0) end_child(process_);
    }
    pid_t id() const { return process_; }

  private:
    explicit SmallProcess(pid_t process) : process_(process) {}

    bool wait_until_it_waits() const {
        for (int tries = 0; tries < 5000; ++tries) {
            std::uint64_t word = 0;
            const iovec here{&word, sizeof word};
            // An address of the other process. NOLINTNEXTLINE(performance-no-int-to-ptr)
            const iovec there{reinterpret_cast<void*>(kLastWrittenPage), sizeof word};
            if (process_vm_readv(process_, &here, 1, &there, 1, 0) == sizeof word &&
                word == kPattern)
                return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return false;
    }

    pid_t process_;
};

// Over every byte, protection and name of the space.
Result<std::uint64_t> hash_of(const Space& space) {
    StableHash hash;
    const auto maps = space.maps();
    if (!maps) return std::unexpected(maps.error());
    std::vector<std::uint64_t> page(kPageSize / 8);
    for (const Mapping& mapping : *maps) {
        hash.add(mapping.range.start.bits()).add(mapping.range.size_bytes);
        hash.add_all(mapping.protection.to_string()).add_all(mapping.name);
        hash.add(mapping.name_offset).add(mapping.resident_bytes);
        for (std::uint64_t i = 0; i < mapping.range.pages(); ++i) {
            const auto read = space.read(mapping.range.start + i * kPageSize,
                                         std::as_writable_bytes(std::span(page)));
            if (!read) return std::unexpected(read.error());
            hash.add_all(page);
        }
    }
    return hash.value();
}

std::uint64_t word_at(const Space& space, VirtAddr address) {
    std::uint64_t word = 0;
    return space.read(address, std::as_writable_bytes(std::span(&word, 1))) ? word : 0;
}

}  // namespace

struct ImportWorkload::Imported {
    std::uint64_t hash = 0, stored_bytes = 0;
};

ImportWorkload::ImportWorkload()
    : imported_(new(shared_memory(sizeof(Imported)).data()) Imported) {}
ImportWorkload::~ImportWorkload() {
    release_shared_memory(std::as_writable_bytes(std::span(imported_, 1)));
}

Result<void> ImportWorkload::set_up(const std::string& path) {
    {
        auto store =
            Store::create(path, {.size_bytes = kPoolBytes, .emulation = PmemEmulation::on});
        if (!store) return std::unexpected(store.error());
        auto other = store->create_space(kOther);
        if (!other) return std::unexpected(other.error());
        if (auto done = other->map({kOtherAddress, 3 * kPageSize}, protection::rw); !done)
            return done;
        if (auto done = other->write(kOtherAddress, std::as_bytes(std::span(&kPattern, 1))); !done)
            return done;
        if (auto done = other->persist({kOtherAddress, sizeof kPattern}); !done) return done;
    }
    return make_lean(path, Script::kLanes);
}

Result<void> ImportWorkload::run(const std::string& path, Operations& operations) {
    const auto process = SmallProcess::start();
    if (!process) return std::unexpected(process.error());
    auto store = Store::open(path, kOpen);
    if (!store) return std::unexpected(store.error());
    operations.begin();
    const auto report = import_process(*store, kSpace, process->id());
    if (!report) return std::unexpected(report.error());
    operations.acknowledge();
    auto space = store->open_space(kSpace);
    if (!space) return std::unexpected(space.error());
    const auto hash = hash_of(*space);
    if (!hash) return std::unexpected(hash.error());
    if (word_at(*space, VirtAddr(kLastWrittenPage)) != kPattern ||
        word_at(*space, VirtAddr(kDataAddress)) != kPattern)
        return fail(ErrorCode::damaged, "the space does not have what the process wrote");
    *imported_ = {*hash, report->stored_bytes};
    return {};
}

std::string ImportWorkload::check(const std::string& path, const Moment& moment) {
    auto store = Store::open(path, kOpen);
    if (!store) return "cannot be opened: " + store.error().message;
    const auto names = store->space_names();
    if (!names) return names.error().message;
    using Names = std::vector<std::string>;
    const bool is_there = *names == Names{kSpace, kOther};
    if (!is_there && *names != Names{kOther}) return "the spaces are neither before nor after";
    if (!is_there && moment.acknowledged != 0) return "the imported space is lost";
    if (is_there && moment.acknowledged == 0 && !moment.in_flight)
        return "there is a space before it is imported";
    auto other = store->open_space(kOther);
    if (!other) return other.error().message;
    if (word_at(*other, kOtherAddress) != kPattern) return "the other space has lost its word";
    if (is_there) {
        auto space = store->open_space(kSpace);
        if (!space) return space.error().message;
        const auto hash = hash_of(*space);
        if (!hash) return hash.error().message;
        if (*hash != imported_->hash) return "the imported space is not what it was";
    }
    if (const auto broken = oracle::broken_invariants(*store); !broken.empty())
        return broken.front();
    // It goes on: another import's worth of work, and nothing is left of it.
    auto more = store->create_space("more");
    if (!more) return "does not go on: " + more.error().message;
    const Range range{VirtAddr(0x4000'0000), 40 * kPageSize};
    if (auto done = more->map(range, protection::rw); !done)
        return "does not go on: " + done.error().message;
    if (is_there)
        if (auto done = store->remove_space(kSpace); !done)
            return "does not go on: " + done.error().message;
    if (auto done = store->release_limbo(); !done)
        return "does not release limbo: " + done.error().message;
    VerifyReport report;
    if (const auto broken = oracle::broken_invariants(*store, &report); !broken.empty())
        return "after going on: " + broken.front();
    if (report.frames_building != 0 || report.frames_limbo != 0)
        return fmt::format("after going on, {} frames stay reserved and {} in limbo",
                           report.frames_building, report.frames_limbo);
    return {};
}

Result<void> ImportWorkload::recover(const std::string& path) {
    auto store = Store::open(path, kOpen);
    if (!store) return std::unexpected(store.error());
    auto released = store->release_limbo();
    if (!released) return std::unexpected(released.error());
    return {};
}

}  // namespace holdfast::crash
