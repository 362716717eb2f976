// Shared mappings of files: who sees whose writes, what `sync` writes to the file, what is left
// when it cannot or is killed, and how one goes on with a file that is not what it was.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "memory/backing_file.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "support/files_fixture.hpp"
#include "table/visit.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

// The system's files, and a test is told what is done to them: afterwards.
class WatchedFiles final : public memory::FileSystem {
  public:
    WatchedFiles() { memory::replace_file_system(this); }
    ~WatchedFiles() override { memory::replace_file_system(nullptr); }
    Result<std::string> canonical(const std::string& path) override {
        return system_.canonical(path);
    }
    Result<std::unique_ptr<memory::BackingFile>> open(const std::string& path,
                                                      bool to_write) override {
        auto file = system_.open(path, to_write);
        if (to_write) ++opened_to_write;
        if (!file) return file;
        return std::make_unique<File>(*this, std::move(*file));
    }

    std::function<void()> on_identity, on_sync;
    std::function<void(std::uint64_t page)> on_read;
    std::atomic<unsigned> opened_to_write = 0, syncs = 0;

  private:
    class File final : public memory::BackingFile {
      public:
        File(WatchedFiles& files, std::unique_ptr<memory::BackingFile> file)
            : files_(files), file_(std::move(file)) {}
        Result<memory::FileIdentity> identity() override {
            auto found = file_->identity();
            if (files_.on_identity) files_.on_identity();
            return found;
        }
        Result<void> read(std::uint64_t offset, std::span<std::byte> to) override {
            auto done = file_->read(offset, to);
            if (files_.on_read) files_.on_read(offset >> kPageShift);
            return done;
        }
        Result<void> write(std::uint64_t offset, std::span<const std::byte> from) override {
            return file_->write(offset, from);
        }
        Result<void> sync() override {
            ++files_.syncs;
            if (files_.on_sync) files_.on_sync();
            return file_->sync();
        }

      private:
        WatchedFiles& files_;
        std::unique_ptr<memory::BackingFile> file_;
    };
    memory::FileSystem& system_ = memory::file_system();
};

class FileSync : public MappedFiles {
  protected:
    // A space that maps all of the file, shared.
    static Space map_shared(Store& store, const std::string& name, const std::string& file,
                            std::uint64_t pages) {
        Space space = value_of(store.create_space(name));
        must(space.map({kPlace, pages * kPageSize}, protection::rw, mapping(file, true)));
        return space;
    }
    static std::string read(const Space& space, std::uint64_t at, std::size_t size) {
        return bytes_at(space, kPlace.bits() + at, size);
    }
};

TEST_F(FileSync, SpacesSeeEachOthersWritesAndTheFileGetsThem) {
    const std::string file = make("file", 3, 1000);
    std::string expected = content(file);
    {
        Store store = pool_.create();
        Space a = map_shared(store, "a", file, 4);
        Space b = map_shared(store, "b", file, 4);
        Space other = value_of(store.create_space("c"));
        must(other.map({kPlace, kPageSize}, protection::rw, mapping(file)));
        EXPECT_EQ(read(a, 0, 10), expected.substr(0, 10));
        write(b, kPlace + 5, "from b");
        EXPECT_EQ(read(a, 5, 6), "from b");
        EXPECT_EQ(a.translate(kPlace)->physical, b.translate(kPlace)->physical);
        // A private mapping has what the file would have, and then its own.
        EXPECT_EQ(read(other, 5, 6), "from b");
        write(other, kPlace + 5, "hidden");
        EXPECT_EQ(read(a, 5, 6), "from b");
        EXPECT_EQ(content(file), expected);
        // The last page: what lies behind the end is kept here, and not written.
        write(a, kPlace + (3 * kPageSize - 1003), "end and behind");
        must(a.sync({kPlace, 4 * kPageSize}));
        expected.replace(5, 6, "from b").replace(expected.size() - 3, 3, "end");
        EXPECT_EQ(content(file), expected);
        EXPECT_EQ(read(b, 3 * kPageSize - 1000, 11), " and behind");
        write(a, kPlace + 2, "not synced");
        expect_clean(store);
    }
    EXPECT_EQ(content(file), expected);
    Store store = pool_.open();
    Space a = value_of(store.open_space("a")), b = value_of(store.open_space("b"));
    EXPECT_EQ(read(b, 2, 10), "not synced");
    EXPECT_EQ(read(value_of(store.open_space("c")), 5, 6), "hidden");
    write(b, kPlace + kPageSize, "again");
    EXPECT_EQ(read(a, kPageSize, 5), "again");
    // Of a part of the range only that part.
    must(b.sync({kPlace + kPageSize, 1}));
    expected.replace(kPageSize, 5, "again");
    EXPECT_EQ(content(file), expected);
    must(store.sync_file(file));
    expected.replace(2, 10, "not synced");
    EXPECT_EQ(content(file), expected);
    expect_clean(store);
}

TEST_F(FileSync, ASyncWithNothingToDoChangesNothing) {
    const std::string file = make("file", 2);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    EXPECT_EQ(read(a, 0, 4), "file");
    const auto before = fs::last_write_time(file);
    must(a.sync({kPlace, 2 * kPageSize}));
    must(a.sync({VirtAddr(0x9000), kPageSize}));  // nothing is mapped there
    EXPECT_EQ(fs::last_write_time(file), before);
    EXPECT_EQ(a.sync({VirtAddr(0x8000'0000'0000), kPageSize}).error().code,
              ErrorCode::invalid_argument);
}

// The system's files, which may not be written.
class ReadOnlyFiles final : public memory::FileSystem {
  public:
    ReadOnlyFiles() { memory::replace_file_system(this); }
    ~ReadOnlyFiles() override { memory::replace_file_system(nullptr); }
    Result<std::string> canonical(const std::string& path) override {
        return system_.canonical(path);
    }
    Result<std::unique_ptr<memory::BackingFile>> open(const std::string& path,
                                                      bool to_write) override {
        if (to_write) return fail(ErrorCode::permission_denied, path + ": cannot open the file");
        return system_.open(path, to_write);
    }

  private:
    memory::FileSystem& system_ = memory::file_system();
};

TEST_F(FileSync, AFileThatMayNotBeWrittenIsNotLost) {
    const std::string file = make("file", 3);
    Store store = pool_.create();
    Space a = value_of(store.create_space("a"));
    {
        const ReadOnlyFiles files;
        EXPECT_EQ(error_of(a.map({kPlace, kPageSize}, protection::rw, mapping(file, true))).code,
                  ErrorCode::permission_denied);
        must(a.map({kPlace, 3 * kPageSize}, protection::r, mapping(file, true)));
        EXPECT_EQ(read(a, 0, 4), "file");
        must(a.sync({kPlace, 3 * kPageSize}));
        must(a.protect({kPlace, 3 * kPageSize}, protection::rw));
        write(a, kPlace, "kept");
        const Error error = error_of(a.sync({kPlace, 3 * kPageSize}));
        EXPECT_EQ(error.code, ErrorCode::permission_denied) << error.message;
        EXPECT_THAT(error.message, HasSubstr(file));
        EXPECT_FALSE(value_of(store.files())[0].trouble);
        EXPECT_FALSE(value_of(store.files())[0].is_syncing);
        EXPECT_EQ(read(a, 0, 4), "kept");
    }
    must(a.sync({kPlace, 3 * kPageSize}));
    EXPECT_EQ(content(file).substr(0, 4), "kept");
    expect_clean(store);
}

// A program that runs may be read, and may not be written.
TEST_F(FileSync, AProgramThatRunsIsBusy) {
    const std::string file = path("program");
    fs::copy_file("/bin/sleep", file);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 1);
    EXPECT_EQ(read(a, 1, 3), "ELF");
    const pid_t child = fork();
    if (child == 0) {
        execl(file.c_str(), file.c_str(), "60", nullptr);
        _exit(1);
    }
    while (fs::read_symlink(fmt::format("/proc/{}/exe", child)) != file) std::this_thread::yield();
    must(a.sync({kPlace, kPageSize}));
    write(a, kPlace, "no magic");
    // (Linux 6.11 lets anybody write to one.)
    if (!memory::file_system().open(file, true)) {
        EXPECT_EQ(error_of(a.sync({kPlace, kPageSize})).code, ErrorCode::busy);
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    must(a.sync({kPlace, kPageSize}));
    EXPECT_EQ(content(file).substr(0, 8), "no magic");
}

// What lies behind the pages that an object has room for is not the first of them again.
TEST_F(FileSync, AFileMayBeLargerThanWhatCanBeMapped) {
    const std::string file = make("file", 1);
    const std::uint64_t limit = std::uint64_t{1} << 48;
    if (truncate(file.c_str(), static_cast<off_t>(limit + kPageSize)) != 0)
        GTEST_SKIP() << "no file may be that large here: " << std::strerror(errno);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    write(a, kPlace, "first");
    must(store.sync_file(file));
    std::ifstream stream(file, std::ios::binary);
    std::string bytes(5, 'x');
    stream.read(bytes.data(), 5);
    EXPECT_EQ(bytes, "first");
    stream.seekg(static_cast<std::streamoff>(limit));
    stream.read(bytes.data(), 5);
    EXPECT_EQ(bytes, std::string(5, '\0'));
    EXPECT_EQ(error_of(a.map({VirtAddr(0x9000'0000), kPageSize}, protection::rw,
                             mapping(file, true, limit)))
                  .code,
              ErrorCode::invalid_argument);
    expect_clean(store);
}

// However they were mapped, neighbours in space and file are one range.
TEST_F(FileSync, RangesThatContinueEachOtherAreSyncedAtOnce) {
    const std::string file = make("file", 4);
    Store store = pool_.create();
    Space a = value_of(store.create_space("a"));
    const auto map = [&](std::uint64_t at, std::uint64_t in_file) {
        must(a.map({kPlace + at * kPageSize, kPageSize}, protection::rw,
                   mapping(file, true, in_file * kPageSize)));
    };
    for (const std::uint64_t page : {2, 1, 0}) map(page, page);
    map(3, 0);  // goes on here, and not there
    for (std::uint64_t page = 0; page < 3; ++page)
        write(a, kPlace + page * kPageSize, fmt::format("new {}", page));
    WatchedFiles files;
    must(a.sync({kPlace, 4 * kPageSize}));
    EXPECT_EQ(files.syncs, 1U);
    for (std::uint64_t page = 0; page < 3; ++page)
        EXPECT_EQ(content(file).substr(page * kPageSize, 5), fmt::format("new {}", page));
}

TEST_F(FileSync, ForksAndSnapshotsGoOnSharing) {
    const std::string file = make("file", 3);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 3);
    Space p = value_of(store.create_space("p"));
    must(p.map({kPlace, 3 * kPageSize}, protection::rw, mapping(file)));
    write(a, kPlace, "early");
    EXPECT_EQ(read(p, kPageSize, 4), "file");
    Space b = value_of(store.fork_space("a", "b"));
    Space snapshot = value_of(store.create_snapshot("a", "s"));
    Space q = value_of(store.fork_space("p", "q"));
    Space old = value_of(store.create_snapshot("p", "ps"));
    // Pages that had been loaded, and one that was not.
    write(b, kPlace, "later");
    write(b, kPlace + 2 * kPageSize, "fresh");
    EXPECT_EQ(read(a, 0, 5), "later");
    EXPECT_EQ(read(a, 2 * kPageSize, 5), "fresh");
    EXPECT_EQ(read(snapshot, 0, 5), "later");
    EXPECT_EQ(read(snapshot, 2 * kPageSize, 5), "fresh");
    EXPECT_EQ(fault_at(snapshot, kPlace + 2 * kPageSize), FaultKind::file_backed);
    write(q, kPlace + kPageSize, "mine");
    EXPECT_EQ(read(p, kPageSize, 4), "file");
    EXPECT_EQ(read(old, kPageSize, 4), "file");
    EXPECT_EQ(read(old, 2 * kPageSize, 5), "fresh");
    EXPECT_EQ(fault_at(old, kPlace), FaultKind::file_backed);
    EXPECT_EQ(snapshot.fault(kPlace + 2 * kPageSize, protection::r).error().code,
              ErrorCode::permission_denied);
    must(b.sync({kPlace, 3 * kPageSize}));
    EXPECT_EQ(content(file).substr(0, 5), "later");
    must(store.rollback("p", "ps"));
    must(store.remove_space("a"));
    must(store.remove_space("b"));
    value_of(store.release_limbo());
    EXPECT_EQ(read(snapshot, 0, 5), "later");
    expect_clean(store);
}

// What a supervisor object maps, the spaces that share its half map.
TEST_F(FileSync, AFileInASupervisorHalfIsAFileOfAllWhoShareIt) {
    const std::string file = make("file", 3);
    constexpr VirtAddr kHalf{0xffff'8000'0000'0000};
    Store store = pool_.create();
    Space kernel = value_of(store.create_space("kernel", {.is_supervisor = true}));
    Space one = value_of(store.create_space("one", {.supervisor = "kernel"}));
    must(kernel.map({kHalf, 3 * kPageSize}, protection::rw, mapping(file, true)));
    std::string bytes(4, 'x');
    const PeekPiece piece{kHalf + kPageSize, std::as_writable_bytes(std::span(bytes))};
    EXPECT_FALSE(peek(one, {&piece, 1}).fault);
    EXPECT_EQ(bytes, "file");
    write(one, kHalf, "through one");
    must(one.sync({kHalf, 3 * kPageSize}));
    EXPECT_EQ(content(file).substr(0, 11), "through one");
    fs::rename(file, file + ".away");
    for (const Space& each : {kernel, one}) {
        Space space = each;
        EXPECT_EQ(fault_at(space, kHalf + 2 * kPageSize), FaultKind::file_missing);
        EXPECT_EQ(peek(space, {&piece, 1}).fault->kind, FaultKind::file_missing);
        std::byte byte{};
        const Error error = error_of(space.read(kHalf + 2 * kPageSize, {&byte, 1}));
        EXPECT_EQ(error.code, ErrorCode::lost);
        EXPECT_THAT(error.message, HasSubstr(file));
        EXPECT_EQ(error_of(space.sync({kHalf, kPageSize})).code, ErrorCode::lost);
    }
    fs::rename(file + ".away", file);
    expect_clean(store);
}

TEST_F(FileSync, AFileThatIsNotWhatItWasIsAFaultAlsoForPagesInThePool) {
    for (const FaultKind kind : {FaultKind::file_missing, FaultKind::file_truncated,
                                 FaultKind::file_changed, FaultKind::file_replaced}) {
        SCOPED_TRACE(to_string(kind));
        const std::string file = make("file", 3);
        const TemporaryPool pool;
        {
            Store store = pool.create();
            Space a = map_shared(store, "a", file, 3);
            write(a, kPlace + kPageSize, "written");
        }
        if (kind == FaultKind::file_missing) fs::rename(file, file + ".away");
        if (kind == FaultKind::file_truncated) fs::resize_file(file, kPageSize);
        if (kind == FaultKind::file_changed) touch(file);
        if (kind == FaultKind::file_replaced) {
            fs::copy_file(file, file + ".new");
            fs::rename(file + ".new", file);
        }
        {
            Store store = pool.open();
            Space a = value_of(store.open_space("a"));
            for (int repeated = 0; repeated < 20; ++repeated)
                EXPECT_EQ(fault_at(a, kPlace + kPageSize), kind);
            EXPECT_EQ(fault_at(a, kPlace), kind);
            std::byte byte{};
            for (const Result<void>& refused :
                 {a.read(kPlace + kPageSize, {&byte, 1}), a.write(kPlace + kPageSize, {&byte, 1}),
                  a.sync({kPlace, 3 * kPageSize})}) {
                EXPECT_EQ(error_of(refused).code, ErrorCode::lost);
                EXPECT_THAT(error_of(refused).message, HasSubstr(file));
            }
            const auto files = value_of(store.files());
            ASSERT_EQ(files.size(), 1U);
            EXPECT_EQ(files[0].trouble, kind);
            EXPECT_EQ(files[0].resident_bytes, kPageSize);
            // Damage of no structure: pages that are lost as long as it is so.
            const VerifyReport report = store.verify();
            EXPECT_FALSE(report.clean());
            for (const Finding& each : report.findings) EXPECT_EQ(each.what, "lost page");
            // It is back: so are the pages, in this very opening.
            if (kind != FaultKind::file_missing) continue;
            fs::rename(file + ".away", file);
            EXPECT_EQ(read(a, kPageSize, 7), "written");
            expect_clean(store);
        }
    }
}

TEST_F(FileSync, GoingOnWithAChangedFile) {
    for (const FileContent kept : {FileContent::of_file, FileContent::of_pool}) {
        SCOPED_TRACE(kept == FileContent::of_file ? "of_file" : "of_pool");
        const std::string file = make("file", 3);
        const TemporaryPool pool;
        {
            Store store = pool.create();
            Space a = map_shared(store, "a", file, 3);
            write(a, kPlace, "in the pool");
            write(a, kPlace + 2 * kPageSize, "in the pool");
        }
        {
            std::ofstream(file, std::ios::binary | std::ios::trunc) << page_of("others'", 7);
        }
        Store store = pool.open();
        Space a = value_of(store.open_space("a"));
        Space b = value_of(store.create_space("b"));
        EXPECT_EQ(fault_at(a, kPlace), FaultKind::file_truncated);
        const Error again =
            error_of(b.map({kPlace, kPageSize}, protection::rw, mapping(file, true)));
        EXPECT_EQ(again.code, ErrorCode::lost);
        must(store.accept_file(file, kept));
        const std::string expected =
            kept == FileContent::of_file ? "others' page 7." : "in the pool";
        EXPECT_EQ(read(a, 0, expected.size()), expected);
        must(b.map({kPlace, kPageSize}, protection::rw, mapping(file, true)));
        EXPECT_EQ(read(b, 0, expected.size()), expected);
        // A page that is no page of the file any more, in the pool or not.
        EXPECT_EQ(fault_at(a, kPlace + 2 * kPageSize), FaultKind::file_truncated);
        EXPECT_EQ(fault_at(a, kPlace + kPageSize), FaultKind::file_end);
        must(a.sync({kPlace, 3 * kPageSize}));
        EXPECT_EQ(content(file).substr(0, expected.size()), expected);
        EXPECT_EQ(fs::file_size(file), kPageSize);
        must(a.unmap({kPlace + 2 * kPageSize, kPageSize}));
    }
}

// Others write to the file meanwhile: what the pool has is of two times, and not to be kept.
TEST_F(FileSync, AnInterruptedAcceptIsNotEndedByKeepingThePool) {
    const std::string file = make("file", 3);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 3);
    write(a, kPlace, "pool 0");
    write(a, kPlace + kPageSize, "pool 1");
    write(a, kPlace + 2 * kPageSize, "pool 2");
    const auto owner = store.state().files.all().front()->owner();
    {
        std::ofstream rewritten(file, std::ios::binary | std::ios::trunc);
        for (std::uint64_t page = 0; page < 3; ++page) rewritten << page_of("others'", page);
    }
    touch(file);
    {
        WatchedFiles files;
        bool is_rewritten = false;
        files.on_read = [&](std::uint64_t) {
            if (!std::exchange(is_rewritten, true)) fs::resize_file(file, 2 * kPageSize);
        };
        EXPECT_EQ(error_of(store.accept_file(file, FileContent::of_file)).code, ErrorCode::busy);
    }
    EXPECT_EQ(store.state().files.find(owner)->known()->state, format::FileState::being_replaced);
    const Error refused = error_of(store.accept_file(file, FileContent::of_pool));
    EXPECT_EQ(refused.code, ErrorCode::lost);
    EXPECT_THAT(refused.message, HasSubstr("file accept"));
    EXPECT_EQ(error_of(a.sync({kPlace, 3 * kPageSize})).code, ErrorCode::lost);
    must(store.accept_file(file, FileContent::of_file));
    EXPECT_EQ(read(a, 0, 10), "others' pa");
    must(a.sync({kPlace, 3 * kPageSize}));
    EXPECT_EQ(content(file).substr(kPageSize, 10), "others' pa");
}

TEST_F(FileSync, AFileIsForgottenWhenNobodyMapsIt) {
    const std::string file = make("file", 3);
    Store store = pool_.create();
    const std::uint64_t free_before = store.verify().frames_free;
    Space a = map_shared(store, "a", file, 3);
    write(a, kPlace, "text");
    const Error busy = error_of(store.forget_file(file));
    EXPECT_EQ(busy.code, ErrorCode::busy);
    EXPECT_EQ(error_of(store.forget_file(path("other"))).code, ErrorCode::not_found);
    value_of(store.create_snapshot("a", "s"));
    must(store.remove_space("a"));
    EXPECT_EQ(error_of(store.forget_file(file)).code, ErrorCode::busy);  // the snapshot's
    must(store.remove_space("s"));
    ASSERT_EQ(value_of(store.files()).size(), 1U);
    EXPECT_FALSE(value_of(store.files())[0].is_mapped);
    // What was written is there still.
    Space b = map_shared(store, "b", file, 3);
    EXPECT_EQ(read(b, 0, 4), "text");
    must(b.unmap({kPlace, 3 * kPageSize}));
    must(store.forget_file(file));
    EXPECT_TRUE(value_of(store.files()).empty());
    must(store.remove_space("b"));
    value_of(store.release_limbo());
    EXPECT_EQ(store.verify().frames_free, free_before);
    expect_clean(store);
    Space c = map_shared(store, "c", file, 3);
    EXPECT_EQ(read(c, 0, 4), "file");
}

TEST_F(FileSync, TwoNamesOfOneFileAreOne) {
    const std::string file = make("file", 2);
    fs::create_hard_link(file, path("link"));
    fs::create_symlink(file, path("symbolic"));
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    Space b = map_shared(store, "b", path("link"), 2);
    Space c = map_shared(store, "c", path("symbolic"), 2);
    write(a, kPlace, "once");
    EXPECT_EQ(read(b, 0, 4), "once");
    EXPECT_EQ(read(c, 0, 4), "once");
    EXPECT_EQ(value_of(store.files()).size(), 1U);
}

TEST_F(FileSync, ThreadsLoadTheSamePages) {
    constexpr std::uint64_t kPages = 64;
    const std::string file = make("file", kPages);
    Store store = pool_.create();
    std::vector<Space> spaces;
    for (const char* name : {"a", "b", "c"})
        spaces.push_back(map_shared(store, name, file, kPages));
    {
        std::vector<std::jthread> threads;
        for (unsigned thread = 0; thread < 4; ++thread)
            threads.emplace_back([&, thread] {
                Space space = spaces[thread % spaces.size()];
                for (std::uint64_t page = 0; page < kPages; ++page) {
                    const VirtAddr at = kPlace + page * kPageSize + 64 * thread + 1024;
                    const std::uint64_t word = page << 8 | thread;
                    must(space.write(at, std::as_bytes(std::span(&word, 1))));
                }
            });
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) must(store.sync_file(file));
        });
    }
    for (std::uint64_t page = 0; page < kPages; ++page)
        for (std::uint64_t thread = 0; thread < 4; ++thread) {
            std::uint64_t word = 0;
            must(spaces[0].read(kPlace + page * kPageSize + 64 * thread + 1024,
                                std::as_writable_bytes(std::span(&word, 1))));
            EXPECT_EQ(word, page << 8 | thread);
        }
    EXPECT_EQ(value_of(store.files())[0].resident_bytes, kPages * kPageSize);
    must(store.sync_file(file));
    EXPECT_EQ(content(file), read(spaces[1], 0, kPages * kPageSize));
    expect_clean(store);
}

// As `files` finds an object, and has not counted its pages when the file is forgotten.
TEST_F(FileSync, AnObjectThatIsForgottenHasNoPages) {
    const std::string file = make("file", 2);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    EXPECT_EQ(read(a, 0, 4), "file");
    auto& state = store.state();
    const auto object =
        value_of(state.find_space(format::FileRecord::name_of(state.files.all().front()->owner())));
    const table::PageRange all = table::all_pages(object->levels);
    EXPECT_EQ(detail::loaded_pages(state, *object, all).size(), 1U);
    must(store.remove_space("a"));
    must(store.forget_file(file));
    EXPECT_TRUE(detail::loaded_pages(state, *object, all).empty());
    const auto gone = state.find_space(format::FileRecord::name_of(object->owner));
    ASSERT_FALSE(gone);
    EXPECT_EQ(gone.error().message.find(format::kFileNamePrefix), std::string::npos);
}

// --- a full disk, and death ---

TEST_F(FileSync, AFullDiskLosesNothing) {
    const fs::path small = folder_ / "small";
    fs::create_directory(small);
    if (mount("none", small.c_str(), "tmpfs", 0, "size=64k") != 0)
        GTEST_SKIP() << "a small file system cannot be mounted here: " << std::strerror(errno);
    const std::string file = small / "file", other = small / "other";
    {
        std::ofstream made(file, std::ios::binary);
    }
    fs::resize_file(file, 12 * kPageSize);  // with holes
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 12);
    for (std::uint64_t page = 0; page < 12; ++page)
        write(a, kPlace + page * kPageSize, fmt::format("page {:02}", page));
    {
        std::ofstream fills(other, std::ios::binary);
        fills << std::string(10 * kPageSize, 'x');
    }
    for (int repeated = 0; repeated < 2; ++repeated) {
        const Error error = error_of(a.sync({kPlace, 12 * kPageSize}));
        EXPECT_EQ(error.code, ErrorCode::no_space) << error.message;
        EXPECT_THAT(error.message, HasSubstr("nothing is lost"));
        for (std::uint64_t page = 0; page < 12; ++page)
            EXPECT_EQ(read(a, page * kPageSize, 7), fmt::format("page {:02}", page));
    }
    EXPECT_TRUE(value_of(store.files())[0].is_syncing);
    fs::remove(other);
    must(a.sync({kPlace, 12 * kPageSize}));
    EXPECT_FALSE(value_of(store.files())[0].is_syncing);
    const std::string now = content(file);
    for (std::uint64_t page = 0; page < 12; ++page)
        EXPECT_EQ(now.substr(page * kPageSize, 7), fmt::format("page {:02}", page));
    umount2(small.c_str(), MNT_DETACH);
}

// --- beside other calls ---

// A page that was read before the file was accepted comes into the pool while its others are
// replaced: it must not stay, as one of before beside those of after.
TEST_F(FileSync, APageThatIsLoadedBesideAnAcceptIsNotOfBefore) {
    const std::string file = make("file", 4);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 4);
    EXPECT_EQ(read(a, 0, 4), "file");
    WatchedFiles files;
    // The loader has read the page, looked at the file again, and waits for the space.
    std::optional<Transaction> held = store.begin();
    must(held->map(a, {VirtAddr(0x9000'0000), kPageSize}, protection::r));
    std::atomic<bool> has_read = false, has_looked = false;
    files.on_read = [&](std::uint64_t page) { has_read = page == 3; };
    files.on_identity = [&] {
        if (has_read) has_looked = true;
    };
    Result<void> loaded;
    std::jthread loader([&] { loaded = a.fault(kPlace + 3 * kPageSize, protection::r); });
    while (!has_looked) std::this_thread::yield();
    {
        std::ofstream rewritten(file, std::ios::binary | std::ios::trunc);
        for (std::uint64_t page = 0; page < 4; ++page) rewritten << page_of("others'", page);
    }
    touch(file);
    // Who accepts it has listed the pages when he reads the first of them.
    bool is_first = true;
    files.on_read = [&](std::uint64_t) {
        if (!std::exchange(is_first, false)) return;
        held->abort();
        loader.join();
    };
    must(store.accept_file(file, FileContent::of_file));
    EXPECT_EQ(read(a, 0, 10), "others' pa");
    EXPECT_EQ(read(a, 3 * kPageSize, 10), "others' pa");
    EXPECT_EQ(error_of(loaded).code, ErrorCode::lost);
    must(a.fault(kPlace + 3 * kPageSize, protection::r));
    expect_clean(store);
}

// Who maps a file in a transaction holds it: a sync by another thread waits for that, and a sync by
// this one must not wait for the other.
TEST_F(FileSync, ATransactionIsNotWaitedForByItsOwnThread) {
    const std::string file = make("file", 3);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 3);
    write(a, kPlace, "changed");
    WatchedFiles files;
    std::optional<Transaction> held = store.begin();
    must(held->map(a, {VirtAddr(0x9000'0000), kPageSize}, protection::rw, mapping(file, true)));
    std::atomic<bool> has_read = false;
    files.on_read = [&](std::uint64_t) { has_read = true; };
    Result<void> synced;
    std::jthread syncer([&] { synced = store.sync_file(file); });
    while (!has_read) std::this_thread::yield();
    // The other has the file, and waits for its object.
    for (const Error& error :
         {error_of(a.sync({kPlace, kPageSize})), error_of(store.sync_file(file)),
          error_of(store.accept_file(file, FileContent::of_file)),
          error_of(store.forget_file(file))}) {
        EXPECT_EQ(error.code, ErrorCode::busy);
        EXPECT_THAT(error.message, HasSubstr("transaction"));
        EXPECT_EQ(error.message.find(format::kFileNamePrefix), std::string::npos);
    }
    must(held->commit());
    syncer.join();
    must(synced);
    EXPECT_EQ(content(file).substr(0, 7), "changed");
    expect_clean(store);
}

// Who forgets a file waits for the directory, and must not have what the directory's holder may
// wait for.
TEST_F(FileSync, ForgettingAFileDoesNotHoldItWhileItWaits) {
    const std::string file = make("file", 2);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    write(a, kPlace, "text");
    must(a.unmap({kPlace, 2 * kPageSize}));
    std::optional<Transaction> held = store.begin();
    value_of(held->create_space("b"));
    Result<void> forgotten;
    std::jthread forgetter([&] { forgotten = store.forget_file(file); });
    const auto object = store.state().files.all().front();
    // As long as it may take it to go wrong.
    bool is_free = true;
    for (int tries = 0; tries < 200 && is_free; ++tries) {
        is_free = object->syncing().try_lock();
        if (is_free) object->syncing().unlock();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_TRUE(is_free);
    if (is_free) must(store.sync_file(file));
    held.reset();
    forgetter.join();
    must(forgotten);
    EXPECT_TRUE(value_of(store.files()).empty());
}

// And a sync under way is not waited for: it may wait for what forgetting holds.
TEST_F(FileSync, AFileThatIsBeingSyncedIsNotForgotten) {
    const std::string file = make("file", 2);
    Store store = pool_.create();
    Space a = map_shared(store, "a", file, 2);
    write(a, kPlace, "text");
    must(store.remove_space("a"));
    WatchedFiles files;
    Error error{};
    files.on_sync = [&] { error = error_of(store.forget_file(file)); };
    must(store.sync_file(file));
    EXPECT_EQ(error.code, ErrorCode::busy);
    EXPECT_THAT(error.message, HasSubstr("synced"));
    must(store.forget_file(file));
    EXPECT_EQ(content(file).substr(0, 4), "text");
    expect_clean(store);
}

// The system's files, until the process is killed after so many steps.
class DyingFiles final : public memory::FileSystem {
  public:
    explicit DyingFiles(unsigned steps) : steps_(steps) {}
    Result<std::string> canonical(const std::string& path) override {
        return system_.canonical(path);
    }
    Result<std::unique_ptr<memory::BackingFile>> open(const std::string& path,
                                                      bool to_write) override {
        auto file = system_.open(path, to_write);
        if (!file) return file;
        return std::make_unique<File>(*this, std::move(*file));
    }

  private:
    class File final : public memory::BackingFile {
      public:
        File(DyingFiles& files, std::unique_ptr<memory::BackingFile> file)
            : files_(files), file_(std::move(file)) {}
        Result<memory::FileIdentity> identity() override { return file_->identity(); }
        Result<void> read(std::uint64_t offset, std::span<std::byte> to) override {
            return file_->read(offset, to);
        }
        Result<void> write(std::uint64_t offset, std::span<const std::byte> from) override {
            files_.step();
            return file_->write(offset, from);
        }
        Result<void> sync() override {
            files_.step();
            auto done = file_->sync();
            files_.step();
            return done;
        }

      private:
        DyingFiles& files_;
        std::unique_ptr<memory::BackingFile> file_;
    };
    void step() {
        if (steps_-- == 0) raise(SIGKILL);
    }
    memory::FileSystem& system_ = memory::file_system();
    unsigned steps_;
};

// Killed before each step of a sync: the next opening finds all that was written, takes no offence
// at the file, and syncs it.
TEST_F(FileSync, KilledAtEachStep) {
    bool finished = false;
    for (unsigned steps = 0; !finished; ++steps) {
        SCOPED_TRACE(steps);
        ASSERT_LT(steps, 20U);
        const std::string file = make("file", 3);
        const TemporaryPool pool;
        {
            Store store = pool.create();
            Space a = map_shared(store, "a", file, 3);
            write(a, kPlace, "first");
            write(a, kPlace + 2 * kPageSize, "third");
        }
        const pid_t child = fork();
        if (child == 0) {
            DyingFiles files(steps);
            memory::replace_file_system(&files);
            Store store = pool.open();
            _exit(store.sync_file(file) ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        ASSERT_TRUE(finished || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        {
            Store store = pool.open();
            Space a = value_of(store.open_space("a"));
            EXPECT_EQ(read(a, 0, 5), "first");
            EXPECT_EQ(read(a, kPageSize, 6), "file p");
            EXPECT_EQ(read(a, 2 * kPageSize, 5), "third");
            EXPECT_EQ(value_of(store.files())[0].is_syncing, !finished);
            must(a.sync({kPlace, 3 * kPageSize}));
            EXPECT_FALSE(value_of(store.files())[0].is_syncing);
            expect_clean(store);
        }
        const std::string now = content(file);
        EXPECT_EQ(now.substr(0, 5), "first");
        EXPECT_EQ(now.substr(2 * kPageSize, 5), "third");
        // And what others write from now on is noticed.
        touch(file);
        Store store = pool.open();
        EXPECT_EQ(fault_at(value_of(store.open_space("a")), kPlace), FaultKind::file_changed);
    }
}

}  // namespace
}  // namespace holdfast::test
