// The command line itself: versions, help, and lines that are wrong.
#include "tools/command.hpp"

namespace holdfast::test {
namespace {

constexpr int kWrongUsage = 2;

void expect_wrong(const std::vector<std::string>& arguments, const std::string& words) {
    expect_failure(arguments, kWrongUsage, "invalid_argument", words);
}

TEST(Usage, VersionAndHelpAreAnswers) {
    const Command version = run({"--version"});
    EXPECT_EQ(version.status, 0);
    EXPECT_EQ(version.output.find("holdfast "), 0u);
    const Command help = run({"--help"});
    EXPECT_EQ(help.status, 0);
    for (const char* command :
         {"create", "info", "space", "map", "unmap", "protect", "translate", "read", "write",
          "maps", "import", "verify", "replay-trace", "demo"})
        EXPECT_NE(help.output.find(command), std::string::npos) << command;
    EXPECT_EQ(help.output.find("demo-writer"), std::string::npos);
    EXPECT_EQ(run({"space", "create", "--help"}).status, 0);
}

TEST(Usage, WrongLinesAreRefusedBeforeAnyPoolIsTouched) {
    expect_wrong({}, "subcommand");
    expect_wrong({"dance"}, "there is no command \"dance\"");
    expect_wrong({"space", "dance"}, "there is no command \"dance\"");
    expect_wrong({"space"}, "subcommand");
    expect_wrong({"info"}, "POOL");
    expect_wrong({"info", "a", "b"}, "b");
    expect_wrong({"info", "a", "--loud"}, "--loud");
    expect_wrong({"map", "p", "s", "0x1000"}, "LENGTH");
    expect_wrong({"protect", "p", "s", "0x1000", "4KiB"}, "--prot");
    expect_wrong({"translate", "p", "s"}, "ADDRESS");
}

TEST(Usage, SizesAndAddressesThatAreNone) {
    for (const char* size : {"many", "12MB", "1.5GiB", "-1", "MiB", "0x", "16777216TiB", "4 KiB"})
        expect_wrong({"create", "p", "--size", size}, "is not a size");
    for (const char* address : {"7000", "0x", "0xg", "here", "0x10000000000000000"})
        expect_wrong({"translate", "p", "s", address}, "is not an address");
    expect_wrong({"map", "p", "s", "0x1000", "4KiB", "--prot", "rq"}, "is not a protection");
    expect_wrong({"map", "p", "s", "0x1000", "2MiB", "--page-size", "3MiB"}, "no pages of 3MiB");
    expect_wrong({"space", "create", "p", "s", "--levels", "6"}, "levels");
}

TEST(Usage, ImportWantsOneSource) {
    expect_wrong({"import", "p", "s"}, "[--pid,--core,--elf]");
    expect_wrong({"import", "p", "s", "--pid", "1", "--elf", "x"}, "[--pid,--core,--elf]");
    expect_wrong({"import", "p", "s", "--pid", "-4"}, "--pid");
}

TEST(Usage, AFullOutputIsNoticed) {
    const int full = open("/dev/full", O_WRONLY);
    ASSERT_GE(full, 0);
    const TemporaryFile errors = file_with("");
    EXPECT_EQ(wait_for(start_command({"--version"}, STDIN_FILENO, full, fileno(errors.get()))), 3);
    close(full);
    EXPECT_NE(content_of(errors).find("standard output"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::test
